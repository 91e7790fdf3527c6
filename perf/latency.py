"""Makes tables and a plot from the samples of perf/latency. Samples are lines of JSON."""

import json
import os
import sys
from collections import defaultdict
from statistics import median

PERCENTILES = ("p50", "p90", "p99", "p99.9", "p99.99")
# Below this part of the asked rate, the rate was not reached.
REACHED = 0.99
# The columns of CPU shares of all cores, with their widths.
CPU = {"hakaru": 9, "database": 12, "oha": 9, "others": 9, "idle": 9}
# With less idle time, in percent, the cores count as full. Waiting for the disk is idle time too.
IDLE = 20
# With more CPU of other processes, in percent, a load counts as disturbed.
DISTURBED = 10


def derive(sample):
    """The figures of one sample."""
    load = sample["load"]
    ok = load["ok"] + sample["warm_up"]["ok"]
    latency = {f"{name}_ms": load["latency_ms"][name] for name in PERCENTILES + ("max",)}
    cpu = load["cpu_percent"] or {}
    return {
        "asked_rate": load["asked_rate"],
        "achieved_rate": load["achieved_rate"],
        **latency,
        "sync_p99.9_ms": load["journal_sync_ms"]["p99.9"],
        "age_p50_ms": load["age_at_store_ms"]["p50"],
        "age_p99_ms": load["age_at_store_ms"]["p99"],
        **{f"cpu_{name}": cpu.get(name) for name in CPU},
        # Shed, failed, or not sent before oha was stopped.
        "not_200": load["asked"] - load["ok"],
        "missing": max(ok - sample["rows"], 0),
        # Requests whose answers oha does not know may be rows.
        "surplus": max(sample["rows"] - ok - doubtful(sample["warm_up"]) - doubtful(load), 0),
        "lost": max(sample["received"] - sample["rows"], 0),
    }


def doubtful(load):
    """The number of requests whose answers oha does not know."""
    return load["asked"] - load["answered"]


def middle(values):
    known = [value for value in values if value is not None]
    return round(median(known), 3) if known else None


def summarize(samples):
    """Medians by rate and promise, in the order of the samples. Also the worst round of the tail, and sums of counts."""
    groups = defaultdict(list)
    for sample in samples:
        groups[sample["rate"], sample["ack"]].append(derive(sample))
    summary = defaultdict(dict)
    for (rate, ack), derived in groups.items():
        figures = {"rounds": len(derived)}
        for name in derived[0]:
            values = [one[name] for one in derived]
            figures[name] = sum(values) if name in ("not_200", "missing", "surplus", "lost") else middle(values)
        for name in ("p99_ms", "p99.9_ms", "max_ms"):
            figures[name + "_worst"] = max((one[name] for one in derived if one[name] is not None), default=None)
        summary[rate][ack] = figures
    return summary


def cell(value, form):
    return "-" if value is None else format(value, form)


def heading(rate):
    return f"{rate[:-1]} % of the maximum" if rate.endswith("%") else f"{rate} events per second"


def table(rate, acks):
    """A rate as text."""
    lines = [
        heading(rate),
        f"  {'latency':<12}{'asked/s':>9}{'achieved/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'p99.9 ms':>10}{'p99.9 worst':>13}"
        f"{'max ms':>9}{'not 200':>9}{'missing':>9}{'sync p99.9 ms':>15}{'age p50 ms':>12}{'age p99 ms':>12}",
    ]
    for ack, f in acks.items():
        lines.append(
            f"  {ack:<12}{f['asked_rate']:>9.0f}{f['achieved_rate']:>12.0f}"
            f"{cell(f['p50_ms'], '.2f'):>9}{cell(f['p99_ms'], '.2f'):>9}{cell(f['p99.9_ms'], '.2f'):>10}"
            f"{cell(f['p99.9_ms_worst'], '.2f'):>13}{cell(f['max_ms_worst'], '.2f'):>9}{f['not_200']:>9}{f['missing']:>9}"
            f"{cell(f['sync_p99.9_ms'], '.2f'):>15}{cell(f['age_p50_ms'], '.0f'):>12}{cell(f['age_p99_ms'], '.0f'):>12}"
        )
    lines.append(f"  {'CPU, %':<12}" + "".join(f"{name:>{width}}" for name, width in CPU.items()))
    for ack, f in acks.items():
        lines.append(f"  {ack:<12}" + "".join(f"{cell(f['cpu_' + name], '.0f'):>{width}}" for name, width in CPU.items()))
    for ack, f in acks.items():
        if f["achieved_rate"] < REACHED * f["asked_rate"]:
            lines.append(f"  NOT REACHED with {ack}: {f['achieved_rate']:.0f} of {f['asked_rate']:.0f}/s. {why(f)}")
        if (f["cpu_others"] or 0) > DISTURBED:
            lines.append(f"  DISTURBED with {ack}: other processes had {f['cpu_others']:.0f} % of the cores.")
    return "\n".join(lines)


def why(f):
    """Why oha did not reach a rate."""
    if f["cpu_idle"] is None:
        cause = "The load of the cores is not known."
    elif f["cpu_idle"] < IDLE:
        cause = f"The cores were full, {f['cpu_oha']:.0f} % with oha itself."
    else:
        cause = "All connections waited for answers; the cores were not full."
    return f"{cause} A queue grew in oha during the whole load, so the latencies depend on how long it lasted."


def plot(summary, about, path):
    """A panel for each rate, a line for each promise, from the median to the tail."""
    try:
        import matplotlib
    except ImportError:
        print("perf/latency: no plot: python3 has no matplotlib (python3-matplotlib)", file=sys.stderr)
        return
    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(summary), figsize=(4.6 * len(summary), 3.8), squeeze=False, sharey=True)
    colors = {"received": "#999999", "journaled": "#2a6fbb", "stored": "#c0562f"}
    for ax, (rate, acks) in zip(axes.flat, summary.items()):
        for ack, f in acks.items():
            label = ack if f["achieved_rate"] >= REACHED * f["asked_rate"] else ack + ", rate not reached"
            ax.plot(PERCENTILES, [f[name + "_ms"] for name in PERCENTILES], marker="o", color=colors[ack], label=label)
        ax.set_title(heading(rate), fontsize=10)
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(axis="y", color="#dddddd")
        ax.tick_params(labelsize=8)
        ax.legend(fontsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    axes.flat[0].set_ylabel("latency, ms", fontsize=8)
    figure.text(0.01, 0.005, " · ".join(line.split(None, 1)[1] for line in about.split("\n")[1:6]), fontsize=5, color="#555555")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path)


def main():
    if sys.argv[1:] == ["--line"]:
        sample = json.loads(sys.stdin.read())
        f = derive(sample)
        print(f"{sample['rate']} round {sample['round']}: {sample['ack']:<10} {f['achieved_rate']:.0f} of {f['asked_rate']}/s"
              f"  p50 {cell(f['p50_ms'], '.2f')}  p99 {cell(f['p99_ms'], '.2f')}  p99.9 {cell(f['p99.9_ms'], '.2f')}  max {f['max_ms']:.2f} ms"
              f"  not 200 {f['not_200']}  missing {f['missing']}  idle {cell(f['cpu_idle'], '.0f')} %  others {cell(f['cpu_others'], '.0f')} %")
        return 0
    about_path, samples_path, output = sys.argv[1:4]
    with open(about_path, encoding="utf-8") as file:
        about = file.read().rstrip()
    with open(samples_path, encoding="utf-8") as file:
        samples = [json.loads(line) for line in file]
    summary = summarize(samples)
    text = "\n\n".join([about] + [table(*one) for one in summary.items()])
    print(text)
    if output:
        os.makedirs(output, exist_ok=True)
        with open(os.path.join(output, "latency.txt"), "w", encoding="utf-8") as file:
            file.write(text + "\n")
        with open(os.path.join(output, "latency.json"), "w", encoding="utf-8") as file:
            document = {"about": dict(line.split(None, 1) for line in about.split("\n")), "medians": summary, "samples": samples}
            json.dump(document, file, indent=1)
            file.write("\n")
        plot(summary, about, os.path.join(output, "latency.svg"))
    failed = 0
    for name, words in (("missing", "answered events are no rows"), ("lost", "events were received and are no rows"),
                        ("surplus", "rows more than requests")):
        count = sum(f[name] for acks in summary.values() for f in acks.values())
        if count:
            print(f"FAILED: {count} {words}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
