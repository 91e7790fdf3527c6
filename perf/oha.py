"""One load at a fixed rate: runs oha, measures hakaru and the database meanwhile, and prints a line of JSON.

All requests are sent, even if they are late. The time that a request waits in oha for a free connection is part of its
latency.

oha keeps all results until its end, in memory that it copies when it grows. With millions of results it stops for more
than 100 ms, with any server. So a long load consists of pieces. Each piece is an oha of its own, which starts when it is
due, even if the last one has not ended, and opens all connections anew. If too many pieces run at once, the load is more
than can be answered, and is stopped.
"""

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter

TICKS = os.sysconf("SC_CLK_TCK")
# Requests of one piece. With this many, oha stops for no more than some 10 ms.
PIECE = 250_000
# Most pieces that run at once. If the rate is reached there are two: one sends, and one counts its results.
PIECES_MOST = 4
WITHIN_MS = 100


def metrics(port):
    """The series of /metrics by name and labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")
    return {series: float(value) for series, value in lines}


def total(series, name):
    """A metric, summed over its labels."""
    return sum(value for key, value in series.items() if key.split("{")[0] == name)


def quantiles(before, after, name, wanted):
    """Quantiles, in ms, of the values that a histogram counted in between, interpolated in its buckets. None if there are none."""
    buckets = {}
    for key, value in after.items():
        match = re.fullmatch(name + r'_bucket\{.*le="([^"]+)"\}', key)
        if match:
            bound = float(match[1])
            buckets[bound] = buckets.get(bound, 0) + value - before.get(key, 0)
    bounds = sorted(buckets)
    found = []
    for quantile in wanted:
        rank, lower, below, value = quantile * (buckets[bounds[-1]] if bounds else 0), 0.0, 0, None
        for bound in bounds:
            if rank > 0 and buckets[bound] >= rank:
                inside = (rank - below) / (buckets[bound] - below)
                value = lower if bound == float("inf") else lower + (bound - lower) * inside
                break
            lower, below = bound, buckets[bound]
        found.append(None if value is None else round(value * 1000, 3))
    return found


def process_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_seconds(processes):
    """CPU seconds so far: of each process, idle (with waiting for the disk), of the hypervisor, and in total."""
    seen = {}
    for name, pid in processes.items():
        seen[name] = process_seconds(pid)
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    seen["idle"] = (ticks[3] + ticks[4]) / TICKS
    seen["steal"] = ticks[7] / TICKS
    seen["all"] = sum(ticks) / TICKS
    return seen


def shares(first, last):
    """Of all cores together, in percent."""
    there_was = max(last["all"] - first["all"], 1e-9)
    of = {name: round(100 * (last[name] - first[name]) / there_was, 1) for name in first if name != "all"}
    of["others"] = round(max(100 - sum(of.values()), 0), 1)
    return of


def growth(samples):
    """Growth of the backlog in events per second: the slope of a linear regression."""
    if len(samples) < 3:
        return None
    mean_at = sum(at for at, _ in samples) / len(samples)
    mean = sum(pending for _, pending in samples) / len(samples)
    spread = sum((at - mean_at) ** 2 for at, _ in samples)
    return round(sum((at - mean_at) * (pending - mean) for at, pending in samples) / spread, 1)


def drained(port, begin, end, backlog, limit):
    """The pending events at the end of the load, and the seconds until none was pending: None if that takes longer than
    the limit. `backlog` has the samples that were taken until oha had ended."""
    seen = [(at, pending) for at, pending in backlog if at >= end]
    while not seen or (seen[-1][1] > 0 and seen[-1][0] - end <= limit):
        pending = total(metrics(port), "hakaru_events_pending")
        seen.append((time.monotonic() - begin, pending))
        time.sleep(0.02)
    empty = next((at - end for at, pending in seen if pending == 0), None)
    return seen[0][1], None if empty is None else round(empty, 3)


class Piece:
    """A part of the load: an oha that is running or has ended."""

    def __init__(self, options, requests, starts):
        # Seconds since the whole load began.
        self.starts = starts
        self.output = tempfile.TemporaryFile("w+")
        command = ["taskset", "--cpu-list", options.core] if options.core else []
        command += [options.oha, "--no-tui", "--latency-correction", "--output-format", "json", "-t", "10s",
                    "--worker-threads", str(options.threads), "-c", str(min(options.connections, requests)),
                    "-q", str(options.rate), "-n", str(requests),
                    f"http://127.0.0.1:{options.port}/hakaru?name=open&value=0"]
        # Kept until the child has ended. Otherwise the next Popen would wait for it, and its CPU time would be lost.
        self.process = subprocess.Popen(command, stdout=self.output, stdin=subprocess.DEVNULL)
        self.pid = self.process.pid
        self.cpu = None

    def running(self):
        """Whether it is running. If it has ended, its CPU time must be read here, with the wait."""
        if self.cpu is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.cpu = used.ru_utime + used.ru_stime
                self.process.returncode = os.waitstatus_to_exitcode(status)
                if status:
                    raise RuntimeError(f"oha ended with status {self.process.returncode}")
        return self.cpu is None

    def cpu_seconds(self):
        return process_seconds(self.pid) if self.running() else self.cpu

    def result(self):
        self.output.seek(0)
        return json.load(self.output)


def load(options):
    """Runs the pieces. Returns when the load began, the start and the result of each piece, whether the load was stopped
    before all requests were sent, the CPU shares during the load, and the backlog until the last piece had ended."""
    asked = options.rate * options.seconds
    count = -(-asked // PIECE)
    edges = [asked * at // count for at in range(count + 1)]
    processes = {"hakaru": options.hakaru, "database": options.database}
    looks, backlog, pieces, cut = [], [], [], False
    first = dict(cpu_seconds(processes), oha=0.0)
    begin = time.monotonic()
    # At a rate far above what can be answered, the load would not end.
    limit = options.seconds * 1.5 + 3
    # Samples cost CPU that is measured. Without --look, the first one is taken at the end.
    look = options.look or options.seconds
    try:
        while True:
            now = time.monotonic() - begin
            started = len(pieces)
            running = [piece for piece in pieces if piece.running()]
            due = started < count and not cut and now >= edges[started] / options.rate
            if due and len(running) < PIECES_MOST:
                pieces.append(Piece(options, edges[started + 1] - edges[started], now))
                continue
            if not running and (started == count or cut):
                break
            if not os.path.exists(f"/proc/{options.hakaru}"):
                raise RuntimeError("hakaru has ended")
            if now >= look:
                looks.append((now, dict(cpu_seconds(processes), oha=sum(piece.cpu_seconds() for piece in pieces))))
                if options.look:
                    backlog.append((now, total(metrics(options.admin_port), "hakaru_events_pending")))
                # At the end samples are more frequent, because the time at which nothing is pending must be exact.
                look = min(now + (options.look or 0.1), max(options.seconds, now + 0.1))
            if now >= limit + 60:
                raise RuntimeError("oha does not end")
            if (due or now >= limit) and not cut:
                cut = True
                for piece in running:
                    # oha then prints its results so far.
                    os.kill(piece.pid, signal.SIGINT)
            following = edges[started] / options.rate if started < count and not cut else now + 0.1
            time.sleep(max(min(following, look, now + 0.1) - (time.monotonic() - begin), 0.001))
    finally:
        for piece in pieces:
            if piece.cpu is None:
                try:
                    os.kill(piece.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
    results = [(piece.starts, piece.result()) for piece in pieces]
    # Without the time in which oha counts and sorts its results.
    end = ended(results) + 0.05
    during = [seen for at, seen in looks if at <= end] or [seen for _, seen in looks[:1]]
    cpu = shares(first, during[-1]) if during else None
    return begin, results, cut, cpu, backlog


def ended(results):
    """When the last answer arrived."""
    return max(starts + one["summary"]["total"] for starts, one in results)


def curve(one):
    """The latencies in ms that an oha reports, with the part of its answers below each."""
    points = [(one["summary"]["fastest"], 0.0)]
    points += sorted((value, float(name[1:]) / 100) for name, value in one["latencyPercentiles"].items() if value is not None)
    points.append((one["summary"]["slowest"], 1.0))
    return [(value * 1000, part) for value, part in points if value is not None]


def below(points, latency):
    """The part of the answers below a latency, interpolated between the reported ones."""
    if not points or latency < points[0][0]:
        return 0.0
    for (left, left_part), (right, right_part) in zip(points, points[1:]):
        if latency < right:
            return left_part + (right_part - left_part) * (latency - left) / (right - left)
    return 1.0


def all_below(curves, latency):
    """The same of all pieces. A curve comes with the number of its answers."""
    answers = sum(count for count, _ in curves)
    return sum(count * below(points, latency) for count, points in curves) / answers if answers else 0.0


def percentile(curves, wanted):
    """The latency in ms below which the wanted percentage of answers is. For a single piece it is the one of oha."""
    low, high = 0.0, max((points[-1][0] for _, points in curves if points), default=0.0)
    if not high:
        return None
    while high - low > 0.0005:
        middle = (low + high) / 2
        low, high = (low, middle) if all_below(curves, middle) >= wanted / 100 else (middle, high)
    return round(high, 3)


def end_by_signal(number, _):
    """Raises an exception, so that no oha is left running."""
    sys.exit(128 + number)


def main():
    signal.signal(signal.SIGTERM, end_by_signal)
    arguments = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("oha", "core"):
        arguments.add_argument("--" + name)
    for name in ("rate", "seconds", "connections", "port", "admin-port", "hakaru", "database"):
        arguments.add_argument("--" + name, type=int, required=True)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--look", type=float, default=0)
    arguments.add_argument("--linger", type=int, default=1)
    options = arguments.parse_args()

    before = metrics(options.admin_port)
    begin, results, cut, cpu, backlog = load(options)
    end = ended(results)
    left, drained_after = drained(options.admin_port, begin, end, backlog, options.linger + 60)
    backlog = [(at, pending) for at, pending in backlog if at <= end]
    after = metrics(options.admin_port)

    asked = options.rate * options.seconds
    statuses, errors = Counter(), Counter()
    for _, one in results:
        statuses.update(one["statusCodeDistribution"])
        errors.update(one["errorDistribution"])
    answered = sum(statuses.values())
    curves = [(sum(one["statusCodeDistribution"].values()), curve(one)) for _, one in results]
    latencies = {f"p{wanted}": percentile(curves, wanted) for wanted in (10, 50, 90, 99, 99.9, 99.99)}

    def histogram(name):
        # The maximum is the upper bound of its bucket.
        return dict(zip(("p50", "p99", "p99.9", "max"), quantiles(before, after, name, (0.5, 0.99, 0.999, 1))))

    print(json.dumps({
        "asked_rate": options.rate,
        "achieved_rate": round(answered / end, 1),
        "seconds": round(end, 3),
        "asked": asked,
        "answered": answered,
        "ok": statuses.get("200", 0),
        "statuses": statuses,
        "errors": errors,
        # oha was stopped before it had sent them or had their answers.
        "unsent": asked - answered - sum(errors.values()),
        "cut": cut,
        "latency_ms": dict(latencies, max=round(max((points[-1][0] for _, points in curves if points), default=0.0), 3)),
        # Of all answers with any status. Estimated between the percentiles that oha reports.
        f"later_than_{WITHIN_MS}_ms": round(answered * (1 - all_below(curves, WITHIN_MS))),
        "pieces": len(results),
        "age_at_store_ms": histogram("hakaru_event_age_at_store_seconds"),
        "journal_sync_ms": histogram("hakaru_journal_sync_duration_seconds"),
        "store_ms": histogram("hakaru_store_duration_seconds"),
        "cpu_percent": cpu,
        "shed": int(total(after, "hakaru_events_shed_total") - total(before, "hakaru_events_shed_total")),
        "pending_max": int(max([pending for _, pending in backlog] + [left])),
        "pending_at_end": int(left),
        "pending_growth_a_second": growth([(at, pending) for at, pending in backlog if at <= options.seconds]),
        # Seconds since the last answer.
        "drained_after_s": drained_after,
    }))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        print(f"perf/oha.py: {error}", file=sys.stderr)
        sys.exit(1)
