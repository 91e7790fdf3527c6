"""Makes tables and a plot from the samples of perf/compare. Samples are lines of JSON."""

import json
import os
import sys
from collections import defaultdict
from statistics import median

import rivals


def derive(sample):
    """The figures of one sample."""
    per_request = sample["events"]
    answered = max(sample["answered"], 1) * per_request
    rows = sample["rows"]
    return {
        "cpu_us": sample["server_cpu_us"] / answered,
        "database_cpu_us": None if rows is None else sample["database_cpu_us"] / answered,
        "rate": sample["answered"] * per_request * 1e6 / sample["microseconds"],
        "p50_us": sample["p50_us"],
        "p99_us": sample["p99_us"],
        "peak_mib": sample["peak_kib"] / 1024,
        # Answered with another status than 200, such as 503 if the load is more than the database takes.
        "refused": sample["refused"],
        "errors": sample["errors"],
        # wrk leaves up to one answer per connection unread, so there may be more rows than answers.
        "missing": None if rows is None else max((sample["answered"] - sample["refused"]) * per_request - rows - sample["pending"], 0),
    }


def summarize(samples):
    """Medians and extremes by scenario and server, in the order of the samples."""
    groups = defaultdict(list)
    for sample in samples:
        groups[sample["scenario"], sample["server"]].append(derive(sample))
    summary = defaultdict(dict)
    for (scenario, server), derived in groups.items():
        figures = {"rounds": len(derived)}
        for name in derived[0]:
            values = [one[name] for one in derived]
            if values[0] is None:
                figures[name] = None
            elif name in ("refused", "errors", "missing"):
                figures[name] = sum(values)
            else:
                figures[name] = round(median(values), 3)
        figures["cpu_us_least"] = round(min(one["cpu_us"] for one in derived), 3)
        figures["cpu_us_most"] = round(max(one["cpu_us"] for one in derived), 3)
        summary[scenario][server] = figures
    for servers in summary.values():
        for rival in ("floor", "nginx"):
            for figures in servers.values():
                known = rival in servers and servers[rival]["cpu_us"] > 0
                figures["against_" + rival] = round(figures["cpu_us"] / servers[rival]["cpu_us"], 3) if known else None
    return summary


def cell(value, form):
    return "-" if value is None else format(value, form)


def table(scenario, servers):
    """A scenario as text."""
    lines = [
        scenario,
        f"  {'server':<17}{'CPU us':>8}{'least':>7}{'most':>7}{'/floor':>8}{'/nginx':>8}{'database':>10}"
        f"{'events/s':>12}{'p50 us':>8}{'p99 us':>9}{'peak MiB':>10}{'refused':>9}{'errors':>8}{'missing':>9}",
    ]
    for server, f in servers.items():
        lines.append(
            f"  {server:<17}{f['cpu_us']:>8.2f}{f['cpu_us_least']:>7.2f}{f['cpu_us_most']:>7.2f}"
            f"{cell(f['against_floor'], '>8.2f'):>8}{cell(f['against_nginx'], '>8.2f'):>8}"
            f"{cell(f['database_cpu_us'], '.2f'):>10}{f['rate']:>12.0f}{f['p50_us']:>8.0f}{f['p99_us']:>9.0f}"
            f"{f['peak_mib']:>10.1f}{f['refused']:>9}{f['errors']:>8}{cell(f['missing'], 'd'):>9}"
        )
    return "\n".join(lines)


def plot(summary, about, path):
    """Bars of CPU per event, one panel per scenario. The line on a bar is the range of the rounds."""
    try:
        import matplotlib
    except ImportError:
        print("perf/compare: no plot: python3 has no matplotlib (python3-matplotlib)", file=sys.stderr)
        return
    matplotlib.use("svg")
    from matplotlib import pyplot

    columns = min(3, len(summary))
    lines = -(-len(summary) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(4.6 * columns, 3.4 * lines), squeeze=False)
    for ax in axes.flat[len(summary):]:
        ax.set_visible(False)
    for ax, (scenario, servers) in zip(axes.flat, summary.items()):
        names = list(servers)[::-1]
        least = [servers[n]["cpu_us"] - servers[n]["cpu_us_least"] for n in names]
        most = [servers[n]["cpu_us_most"] - servers[n]["cpu_us"] for n in names]
        colors = ["#999999" if servers[n]["missing"] is None else "#2a6fbb" if rivals.is_hakaru(n) else "#c8742a" for n in names]
        ax.barh(names, [servers[n]["cpu_us"] for n in names], xerr=[least, most], color=colors, ecolor="#333333")
        ax.set_title(scenario, fontsize=10)
        ax.set_xlabel("CPU of the server, µs per event", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Grey: answers and stores nothing. Blue: hakaru, each event is a row. Orange: others that store.", fontsize=10)
    figure.text(0.01, 0.005, " · ".join(about.split("\n")[1:]), fontsize=6, color="#555555")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path)


def main():
    if sys.argv[1:] == ["--line"]:
        sample = json.loads(sys.stdin.read())
        if "killed" in sample:
            print(f"{sample['scenario']} round {sample['round']}: {sample['server']:<17} lost {rivals.lost(sample)} by kill -9")
            return 0
        f = derive(sample)
        print(f"{sample['scenario']} round {sample['round']}: {sample['server']:<17} {f['cpu_us']:7.2f} us  {f['rate']:7.0f}/s"
              f"  refused {f['refused']}  errors {f['errors']}  missing {cell(f['missing'], 'd')}")
        return 0
    about_path, samples_path, output = sys.argv[1:4]
    with open(about_path, encoding="utf-8") as file:
        about = file.read().rstrip()
    with open(samples_path, encoding="utf-8") as file:
        samples = [json.loads(line) for line in file]
    killed = [sample for sample in samples if "killed" in sample]
    summary = summarize([sample for sample in samples if "killed" not in sample])
    stored = rivals.summarize(samples) if killed else {}
    text = "\n\n".join([about] + [table(*one) for one in summary.items()] + [rivals.table(*one) for one in stored.items()])
    print(text)
    if output:
        os.makedirs(output, exist_ok=True)
        with open(os.path.join(output, "compare.txt"), "w", encoding="utf-8") as file:
            file.write(text + "\n")
        with open(os.path.join(output, "compare.json"), "w", encoding="utf-8") as file:
            document = {"about": dict(line.split(None, 1) for line in about.split("\n")), "medians": summary, "stored": stored, "samples": samples}
            json.dump(document, file, indent=1)
            file.write("\n")
        if killed:
            rivals.plot(stored, about, os.path.join(output, "rivals.svg"))
        else:
            plot(summary, about, os.path.join(output, "compare.svg"))
    # The others promise nothing.
    missing = sum(f["missing"] or 0 for servers in summary.values() for name, f in servers.items() if rivals.is_hakaru(name))
    lost = sum(rivals.lost(sample) for sample in killed if sample["server"].startswith("journaled"))
    if missing:
        print(f"FAILED: {missing} answered events are no rows", file=sys.stderr)
    if lost:
        print(f"FAILED: {lost} answered events were lost by kill -9", file=sys.stderr)
    return 1 if missing or lost else 0


if __name__ == "__main__":
    sys.exit(main())
