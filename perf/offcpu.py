"""Folds what `perf script --ns --show-switch-events` prints of sched:sched_switch into stacks, weighted by microseconds.

The tracepoint has the stack of the thread that leaves a processor, and the reason. The switch record of the kernel has
the time at which the thread returns. The time between is the weight of the stack. If the thread could have continued,
its innermost frame is [preempted].
"""

import re
import sys
from collections import defaultdict

HEAD = re.compile(r"^(?P<thread>\S.*?)\s+(?P<tid>\d+)\s+(?:\[\d+\]\s+)?(?P<seconds>\d+)\.(?P<nanoseconds>\d{9}):\s+(?P<what>.*)$")
# Address, symbol with its offset, file. A name can have blanks and brackets.
FRAME = re.compile(r"^\s+[0-9a-f]+ (?P<symbol>.*?)(?:\+0x[0-9a-f]+)? \((?P<file>[^()]*(?:\([^()]*\))?)\)$")
STATE = re.compile(r" prev_state=(\S+)")


def frame(line):
    """The name of a frame as inferno-collapse-perf writes it, with a mark on frames of the kernel."""
    found = FRAME.match(line)
    if not found:
        return None
    symbol, file = found["symbol"], found["file"]
    if symbol == "[unknown]":
        symbol = f"[{file.rsplit('/', 1)[-1].strip('[]')}]"
    return symbol.replace(";", ":") + ("_[k]" if file.startswith("[kernel") else "")


def fold(lines):
    """Microseconds by stack, the number of switches without an end or a begin, and the number of others."""
    left, weights, unmatched, matched = {}, defaultdict(float), 0, 0
    stack = None
    for line in lines:
        if line[:1].isspace():
            if stack is not None and (name := frame(line.rstrip("\n"))):
                stack.append(name)
            continue
        stack = None
        head = HEAD.match(line)
        if not head:
            continue
        tid, what = head["tid"], head["what"]
        at = int(head["seconds"]) * 10**9 + int(head["nanoseconds"])
        if what.startswith("PERF_RECORD_SWITCH IN"):
            if tid not in left:
                unmatched += 1
                continue
            matched += 1
            since, thread, state, frames = left.pop(tid)
            # R: the thread could have continued, but another one got the processor.
            reason = ["[preempted]"] if state.startswith("R") else []
            weights[";".join([thread, *reversed(frames), *reason])] += (at - since) / 1000
        elif "sched_switch:" in what:
            unmatched += tid in left
            stack = []
            left[tid] = (at, head["thread"].replace(";", ":"), (STATE.search(what) or [None, "?"])[1], stack)
    return weights, unmatched, matched


def main():
    weights, unmatched, matched = fold(sys.stdin)
    for stack, microseconds in sorted(weights.items()):
        if round(microseconds):
            print(stack, round(microseconds))
    # At the begin each thread that was off the processor has one such switch. With more, perf could not keep up.
    if unmatched > 64 + matched / 100:
        print(f"offcpu.py: {unmatched} of {matched + unmatched} switches were lost: read times as lower bounds", file=sys.stderr)


main()
