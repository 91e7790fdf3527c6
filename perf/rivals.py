"""Tables and bars of the events that servers store and lose, from the samples of perf/compare --rivals."""

from collections import defaultdict
from statistics import median

# Read well on white and on black.
TEXT = "#767a80"
HAKARU = "#2f81f7"
RIVAL = "#c8742a"

# Pixels.
WIDTH, PANEL_WIDTH, NAME_WIDTH, FIGURE_WIDTH = 960, 460, 96, 86
LINE, BAR, HEAD, GAP = 24, 15, 30, 22

LOADS = {
    "keep": "Keep-alive", "close": "A connection per request", "pipelined": "16 requests per write",
    "batch": "100 events in a body", "array": "100 events in an array", "gzip": "100 events in a compressed body",
}
NAMES = {"axum": "axum", "go": "Go net/http", "rsyslog": "nginx + rsyslog"}


def is_hakaru(server):
    return server.startswith(("received", "journaled"))


def name(server):
    return "hakaru " + server if is_hakaru(server) else NAMES.get(server, server)


def lost(sample):
    """Answered events that are neither rows nor in the journal. Not below 0: wrk leaves some answers unread."""
    return max((sample["answered"] - sample["refused"]) * sample["events"] - sample["rows"] - sample["pending"], 0)


def derive(sample):
    """The figures of one sample without a kill, of stored events."""
    stored = max(sample["rows"] + sample["pending"], 1)
    return {
        "stored_cpu_us": sample["server_cpu_us"] / stored,
        "stored_database_cpu_us": sample["database_cpu_us"] / stored,
        # Events in the journal are not stored yet.
        "stored_rate": sample["rows"] * 1e6 / max(sample["microseconds"], sample["stored_us"] or 0),
        "p99_us": sample["p99_us"],
        "lost_without_kill": lost(sample),
        "refused": sample["refused"] * sample["events"],
    }


def summarize(samples):
    """Medians by scenario and server of the servers that store, in the order of the samples."""
    usual, killed = defaultdict(list), defaultdict(list)
    for sample in samples:
        if sample["rows"] is not None:
            (killed if "killed" in sample else usual)[sample["scenario"], sample["server"]].append(sample)
    summary = defaultdict(dict)
    for key, group in usual.items():
        derived = [derive(sample) for sample in group]
        figures = {figure: round(median(one[figure] for one in derived), 3) for figure in derived[0]}
        losses = [lost(sample) for sample in killed[key]]
        figures["lost_by_kill"] = round(median(losses)) if losses else None
        figures["lost_by_kill_least"] = min(losses, default=None)
        figures["lost_by_kill_most"] = max(losses, default=None)
        summary[key[0]][key[1]] = figures
    return summary


def cell(value):
    return "-" if value is None else f"{value:.0f}"


def table(scenario, servers):
    """A scenario as text."""
    lines = [
        f"{scenario}, of stored events",
        f"  {'server':<17}{'CPU us':>8}{'database':>10}{'stored/s':>12}{'p99 us':>9}{'refused':>10}{'lost without kill':>19}"
        f"{'lost by kill -9':>17}{'least':>9}{'most':>9}",
    ]
    for server, f in servers.items():
        lines.append(
            f"  {server:<17}{f['stored_cpu_us']:>8.2f}{f['stored_database_cpu_us']:>10.2f}{f['stored_rate']:>12.0f}"
            f"{f['p99_us']:>9.0f}{f['refused']:>10.0f}{f['lost_without_kill']:>19.0f}{cell(f['lost_by_kill']):>17}"
            f"{cell(f['lost_by_kill_least']):>9}{cell(f['lost_by_kill_most']):>9}"
        )
    return "\n".join(lines)


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def text_at(x, y, text, size=12, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">'
            f"{escaped(text)}</text>")


def panel(x, y, title, bars, form):
    """Bars with their figures. A bar is a server and its figure, or None."""
    parts = [text_at(x, y + 14, title, 13, weight="bold")]
    left = x + NAME_WIDTH + 30
    room = PANEL_WIDTH - (left - x) - FIGURE_WIDTH
    longest = max((value for _, value in bars if value), default=1)
    for number, (server, value) in enumerate(bars):
        top = y + HEAD + number * LINE
        parts.append(text_at(left - 8, top + 12, name(server), anchor="end"))
        length = room * (value or 0) / longest
        # A figure of 0 has a line, so that it is seen to be one.
        parts.append(f'<rect x="{left:.1f}" y="{top}" width="{max(length, 1.5):.1f}" height="{BAR}" rx="2" '
                     f'fill="{HAKARU if is_hakaru(server) else RIVAL}"/>')
        parts.append(text_at(left + length + 8, top + 12, "not measured" if value is None else form(value), weight="bold"))
    return parts


def thousands(value):
    return f"{value:,.0f}"


def microseconds(value):
    return f"{value:.2f} µs"


def milliseconds(value):
    return f"{value / 1000:.2f} ms"


PANELS = [
    ("CPU of the server, an event stored", "stored_cpu_us", microseconds),
    ("CPU of the database, an event stored", "stored_database_cpu_us", microseconds),
    ("Events stored a second", "stored_rate", thousands),
    ("99 % are answered within", "p99_us", milliseconds),
    ("Answered events lost by kill -9", "lost_by_kill", thousands),
    ("Answered events lost without it", "lost_without_kill", thousands),
]


def plot(summary, about, path):
    """Panels of bars, two in a line, for each scenario. The background is that of the page."""
    parts, y = [], 16
    for scenario, servers in summary.items():
        kind, connections = scenario.split("-")
        parts.append(text_at(10, y + 12, f"{LOADS[kind]}, {connections} connections; medians of rounds in turn", 13))
        y += 32
        for number, (title, figure, form) in enumerate(PANELS):
            x = 10 + number % 2 * (WIDTH / 2)
            bars = [(server, figures[figure]) for server, figures in servers.items()]
            parts += panel(x, y, title, bars, form)
            if number % 2 == 1:
                y += HEAD + len(bars) * LINE + GAP
    for line in about.split("\n"):
        if line.startswith(("machine", "revision", "date")):
            parts.append(text_at(10, y, " ".join(line.split()), 10))
            y += 14
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img" '
           f'font-family="system-ui, -apple-system, \'Segoe UI\', sans-serif" fill="{TEXT}">',
           "<title>What it costs servers to store an event, and what they lose</title>", *parts, "</svg>"]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(svg) + "\n")
