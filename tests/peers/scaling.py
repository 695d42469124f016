"""Does an event cost the same however many streams bring it, and with two workers what it costs with one?

    .venv/bin/python tests/peers/scaling.py [--rounds 5] [--waves 2]

Knows loads of the same 25,000 events/s: few streams that are fast, many that are slow, one worker or two on the same core. Knows
nothing of what is reported. As in `compare.py` a cost is marginal: each load is run with few and with many requests, and the difference
is divided by the events that the server counted; all loads in turn, round by round. `worker` is the CPU of the worker processes,
as their last beats have it; `all` that of the whole command, with the parent that watches and reports. Law: a bound is held against the
median of the rounds' ratios, each within one round; a round in which the rate was not reached was another load, and is left out.

The first token takes 50 ms at every pace. Linux acknowledges every second event of a few hundred bytes on a connection that it takes for
a dialogue, and each one once it has waited in vain for 40 ms, as it does before a real model's first token: twice the packets, 1 to 2 us
an event. A first token that came with the pace would give that cost to the slow streams alone. The kernel's part is shown beside.
"""

import argparse
import os
import statistics
import sys
from typing import NamedTuple

import rig
from bench import ENDED, bench

RATE_RPS = 25_000
STREAMS = (64, 256, 1024, 2048)
TOKENS = 128
TTFT_S = 0.050
FLAT, TOGETHER = 1.2, 1.1
# Of RATE_RPS, over a whole run: the streams do not begin, nor end, all at one moment.
_REACHED = 0.97
# Where two workers are set beside one: 512 streams each, neither few nor near the most.
SHARED = 1024


class Load(NamedTuple):
    """Streams over workers, together RATE_RPS events a second."""

    streams: int
    workers: int

    def __str__(self):
        return f"{self.streams:,} streams, {self.workers} worker{'s' if self.workers > 1 else ''}"

    @property
    def pace(self):
        """The server's options: what each stream sends from first to last token, so that with its wait for the first the rate is RATE_RPS."""
        request_s = self.streams * TOKENS / RATE_RPS
        itl_us = round(1e6 * (request_s - TTFT_S) / (TOKENS - 1))
        return f"--ttft-ms {1e3 * TTFT_S:g} --itl-us {itl_us}"


class Sample(NamedTuple):
    """What one run used. cpu_s: by whom, `worker` or `all`, and of this in the `kernel`. rate_rps: events, over the whole run. late_ms: of the server, p99. others: share of the cores that they took."""

    cpu_s: dict
    events: int
    rate_rps: float
    late_ms: float
    others: float


ALONE = tuple(Load(streams, 1) for streams in STREAMS)
ONE, TWO = Load(SHARED, 1), Load(SHARED, 2)
LOADS = (*ALONE, TWO)


def sample(load, requests):
    with rig.Server(load.pace) as server:
        options = f"--processes {load.workers} --max-concurrent {load.streams} --num-requests {requests} --max-tokens {TOKENS}"
        run = bench(server, options, statuses=ENDED)
        stats = server.ask("/stats")
    whole = run.summary.whole
    if run.summary.ok < requests:
        raise SystemExit(f"{load}: {run.summary.ok:,} of {requests:,} ok: {run.failed}")
    cpu_s = {"worker": sum(beats[-1].cpu_s for beats in run.beats), "all": run.cost.cpu_s, "kernel": run.cost.system_s}
    return Sample(cpu_s, stats["content_events"], whole.output_tokens_tps, stats["server_late_ms"]["p99"], server.others)


def marginal_us(few, many):
    return {who: 1e6 * (many.cpu_s[who] - few.cpu_s[who]) / (many.events - few.events) for who in few.cpu_s}


def ratios(costs, load, to, who):
    """Round by round."""
    return [mine[who] / other[who] for mine, other in zip(costs[load], costs[to], strict=True)]


def table(costs, who, to):
    """Each load's cost, and its ratio to that of another load."""
    print(f"\nCPU of {who}, microseconds per event at {RATE_RPS:,} events/s on one core; ratio, round by round, to {to.streams:,} streams")
    for load in LOADS:
        us = [cost[who] for cost in costs[load]]
        print(f"  {load!s:25} {rig.spread(us):>28} {rig.spread(ratios(costs, load, to, who)):>26}")


def report(costs):
    """The tables, and what of them is within bounds; returns whether all is."""
    met = []
    for who in ("worker", "all"):
        smallest = min(ALONE, key=lambda load: statistics.median(cost[who] for cost in costs[load]))
        table(costs, who, smallest)
        for load in ALONE:
            found = statistics.median(ratios(costs, load, smallest, who))
            met.append(rig.within(f"{who}, {load}, to {smallest.streams:,} streams", found, FLAT, "x"))
        met.append(rig.within(f"{who}, {TWO}, to one", statistics.median(ratios(costs, TWO, ONE, who)), TOGETHER, "x"))
    table(costs, "kernel", ALONE[0])
    print(
        f"\nWorkers on cores of their own are not measured: of the {os.cpu_count()} cores here the server has one, and all workers share the other."
    )
    return all(met)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--waves", type=int, default=2, help="the difference of the two sizes, in requests of each of the most streams")
    arguments = parser.parse_args()
    few = max(STREAMS)
    many = few * (1 + arguments.waves)
    costs = {load: [] for load in LOADS}
    left_out = 0
    for number in range(arguments.rounds):
        found = {}
        for load in LOADS:
            small, big = found[load] = sample(load, few), sample(load, many)
            us = ", ".join(f"{who} {us:.2f}" for who, us in marginal_us(small, big).items())
            print(
                f"round {number}: {load}: {us} us per event; {small.rate_rps:,.0f} and {big.rate_rps:,.0f} events/s, "
                f"server late p99 {big.late_ms:.2f} ms, others took {big.others:.0%} of the cores",
                flush=True,
            )
        if min(one.rate_rps for pair in found.values() for one in pair) < _REACHED * RATE_RPS:
            print(f"round {number} is left out: a load did not reach {_REACHED:.0%} of {RATE_RPS:,} events/s", flush=True)
            left_out += 1
            continue
        for load, pair in found.items():
            costs[load].append(marginal_us(*pair))
    if left_out == arguments.rounds:
        raise SystemExit("no round had the rate: nothing was measured")
    print(f"\n{arguments.rounds - left_out} of {arguments.rounds} rounds")
    sys.exit(0 if report(costs) else 1)


if __name__ == "__main__":
    main()
