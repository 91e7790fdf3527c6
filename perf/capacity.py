"""Judges the tries of perf/capacity: whether a rate holds, and what limits it. Tries are lines of JSON."""

import json
import sys

WITHIN_MS = 100
# The part of the asked rate that must be reached.
REACHED = 0.99
# The largest part of the requests that may fail or be late.
FAILED_MOST = 0.001
# With less idle time, in percent, the cores count as full. Waiting for the disk is idle time too.
IDLE = 20
# With more CPU of other processes, in percent, a try counts as disturbed.
DISTURBED = 10
# Exit status of --last.
DOES_NOT_HOLD = 3


def faults(one):
    """Faults that must not occur at any rate."""
    load = one["load"]
    doubtful = load["asked"] - load["answered"]
    found = []
    if one["rows"] < load["ok"]:
        found.append(f"{load['ok'] - one['rows']} answered events are no rows")
    if one["rows"] < one["received"]:
        found.append(f"{one['received'] - one['rows']} events were received and are no rows")
    if one["rows"] > load["ok"] + doubtful:
        found.append(f"{one['rows'] - load['ok'] - doubtful} rows more than requests")
    if one["hakaru_exit"]:
        found.append(f"hakaru ended with status {one['hakaru_exit']}")
    return found


def limits(one, linger):
    """Why a rate does not hold; empty if it holds."""
    load = one["load"]
    found = faults(one)
    if load["achieved_rate"] < REACHED * load["asked_rate"]:
        found.append(f"{load['achieved_rate']:.0f}/s of {load['asked_rate']}/s were answered: {why_not_reached(load)}")
    failed, late = load["asked"] - load["ok"], load[f"later_than_{WITHIN_MS}_ms"]
    if failed + late > FAILED_MOST * load["asked"]:
        if failed:
            kinds = [f"{count} answers {status}" for status, count in load["statuses"].items() if status != "200"]
            kinds += [f"{count} times {error}" for error, count in load["errors"].items()]
            kinds += [f"{load['unsent']} not sent in time"] if load["unsent"] else []
            found.append(f"{100 * failed / load['asked']:.2f} % of the requests got no 200: " + ", ".join(kinds))
        if late:
            found.append(f"about {100 * late / load['asked']:.2f} % were answered after more than {WITHIN_MS} ms{waits(load)}")
    grown = (load["pending_growth_a_second"] or 0) * load["seconds"]
    if grown > load["asked_rate"] * linger:
        found.append(f"the backlog grew by {grown:.0f} events: the database does not keep up")
    if load["drained_after_s"] is None or load["drained_after_s"] > linger + 1:
        found.append(f"{load['pending_at_end']} events waited at the last answer, and were "
                     + ("not stored within --linger and a minute" if load["drained_after_s"] is None
                        else f"stored after {load['drained_after_s']} s"))
    return found


def waits(load):
    """What an answer waits for apart from the cores, from hakaru's own histograms."""
    parts = [("a journal write", load["journal_sync_ms"]), ("a batch in the database", load["store_ms"])]
    known = [f"{name} took {took['p50']:.1f} ms, the longest up to {took['max']:.0f}" for name, took in parts if took["max"] is not None]
    return f" ({'; '.join(known)})" if known else ""


def why_not_reached(load):
    cpu = load["cpu_percent"]
    if cpu is None:
        return "the load ended before a measurement"
    if cpu["idle"] < IDLE:
        return f"the cores are full, {cpu['oha']:.0f} % of them with oha, the generator"
    return f"all connections wait for answers while {cpu['idle']:.0f} % of the cores are idle"


def shares(load):
    cpu = load["cpu_percent"]
    if cpu is None:
        return "unknown"
    names = ("hakaru", "database", "oha", "others", "idle")
    return ", ".join(f"{name} {cpu[name]:.0f} %" for name in names)


def line_of(one, linger):
    """A try as one line of text."""
    load = one["load"]
    latency = load["latency_ms"]
    against = limits(one, linger)
    others = (load["cpu_percent"] or {}).get("others", 0)
    return (f"{one['rate']:>7}/s for {one['for_seconds']} s: {'does not hold: ' + '; '.join(against) if against else 'holds'}"
            f"  (p99.9 {latency['p99.9']} ms, {load['shed']} shed, up to {load['pending_max']} waiting, idle "
            f"{'?' if load['cpu_percent'] is None else round(load['cpu_percent']['idle'])} %"
            + (f"; DISTURBED, other processes had {others:.0f} %" if others > DISTURBED else "") + ")")


def report(tries, seconds, linger):
    """The results, as a document."""
    held = [one for one in tries if one["for_seconds"] == seconds and not limits(one, linger)]
    best = max(held, key=lambda one: one["rate"], default=None)
    above = [one for one in tries if limits(one, linger) and (best is None or one["rate"] > best["rate"])]
    # If the same rate failed in several tries, the longest one is reported.
    first = min(above, key=lambda one: (one["rate"], -one["for_seconds"]), default=None)
    return {"best": best, "next": first, "next_limits": limits(first, linger) if first else []}


def text(about, found, highest):
    best, above = found["best"], found["next"]
    lines = [about]
    if best:
        load = best["load"]
        latency = load["latency_ms"]
        drained = load["drained_after_s"]
        failed = load["asked"] - load["ok"]
        lines += [
            f"highest    {best['rate']} events/s for {best['for_seconds']} s: 99.9 % answered 200 within {WITHIN_MS} ms",
            f"answers    {load['ok']} with 200, {failed} requests failed, {best['rows']} rows",
            f"latency    p50 {latency['p50']} ms, p99 {latency['p99']} ms, p99.9 {latency['p99.9']} ms, max {latency['max']} ms",
            f"backlog    up to {load['pending_max']} events, {load['pending_at_end']} at the last answer, stored {drained} s later; {load['shed']} shed",
            f"CPU        {shares(load)}, of all cores",
        ]
    else:
        lines.append("highest    none: no rate from --from up held")
    if above:
        lines += [
            f"next       {above['rate']} events/s for {above['for_seconds']} s does not hold",
            f"limited by {found['next_limits'][0]}",
            *(f"           {one}" for one in found["next_limits"][1:]),
            f"CPU there  {shares(above['load'])}, of all cores",
        ]
        others = (above["load"]["cpu_percent"] or {}).get("others", 0)
        if others > DISTURBED:
            lines.append(f"DISTURBED  other processes had {others:.0f} % of the cores: the limit may be theirs")
    elif best:
        lines.append(f"limited by --to {highest}: no limit was found")
    return "\n".join(lines)


def main():
    about_path, tries_path, form, seconds, highest, linger = sys.argv[1:7]
    linger = int(linger)
    with open(about_path, encoding="utf-8") as file:
        about = file.read().rstrip()
    with open(tries_path, encoding="utf-8") as file:
        tries = [json.loads(line) for line in file]
    if form == "--last":
        print(line_of(tries[-1], linger))
        return DOES_NOT_HOLD if limits(tries[-1], linger) else 0
    found = report(tries, int(seconds), linger)
    if form == "--json":
        print(json.dumps({"about": dict(line.split(None, 1) for line in about.split("\n")), **found, "tries": tries}, indent=1))
    else:
        print(text(about, found, highest))
    wrong = [f"at {one['rate']}/s {fault}" for one in tries for fault in faults(one)]
    for one in wrong:
        print(f"FAILED: {one}", file=sys.stderr)
    return 1 if wrong or found["best"] is None else 0


if __name__ == "__main__":
    sys.exit(main())
