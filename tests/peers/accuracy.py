"""Are the times that a run reports those that the server made? 1,024 streams, each one event every 20 ms, one worker on one core.

    .venv/bin/python tests/peers/accuracy.py [--rounds 3] [--streams 1024] [--requests 8]

Knows two accounts of the same events, and the bounds. Against the C server: quantiles of TTFT (from sent) and ITL, the records' minus
the server's own, over the same stretch: from a moment amid the first answers, which the server names, to the end, so that of the
burst at the start there is no TTFT and the first half of the gaps is left out; and every count. Against the metronome: each event
on its own, as `loadgen selftest` does it, by the same code. Law: both sides of a difference hold the same events, but for those
on their way at that moment (some in a million); the start burst is shown, and judged nowhere.
"""

import argparse
import statistics
import sys
import time
from typing import NamedTuple

import numpy as np
import rig
from bench import ENDED, PROBE_EVENTS, PROBE_REQUESTS, Run, bench

from loadgen import selftest
from loadgen.fleet import Interrupts
from loadgen.preflight import allow_files
from loadgen.rundir import RunDirectory
from loadgen.selftest_report import described
from loadgen.testbed import Load, Neighbours, Testbed

TTFT_MS, ITL_US, TOKENS = 200, 20_000, 128
BOUNDS_MS = {"p50": 0.5, "p99": 5.0}
_PERCENTS = {"p50": 50, "p90": 90, "p99": 99}
_RUNG_S = 6.0
_STUCK_S = 120


class Round(NamedTuple):
    """One run. ours, theirs: metric -> percentile -> milliseconds, from the moment on. transit: from sent until the server had read it,
    which is in our TTFT and not in the server's. lost: what does not agree.
    """

    ours: dict
    theirs: dict
    transit: dict
    run: Run
    stats: dict
    lost: list
    others: float


def settled(half_events):
    """What waits until the server has sent so many events, and lets it begin to time anew; gives that moment, ns."""

    def wait(server):
        deadline = time.monotonic() + _STUCK_S
        while server.ask("/stats")["content_events"] < half_events:
            if time.monotonic() > deadline:
                raise SystemExit("the server does not come to half of the first answers")
            time.sleep(0.05)
        return server.ask("/reset/times")["at_ns"]

    return wait


def quantiles(times_ms):
    return dict(zip(_PERCENTS, np.percentile(times_ms, list(_PERCENTS.values())).tolist(), strict=True))


def ttft_ms(records, since_ns):
    """From sent, of the first outputs that came at that moment or later."""
    heads = records.heads
    chosen = heads["first_output_ns"] >= since_ns
    return (heads["first_output_ns"][chosen] - heads["sent_ns"][chosen]) / 1e6


def transit_ms(records, arrivals_ns, since_ns):
    """From sent until read, of the requests that were sent at that moment or later: of the k-th sent to the k-th read."""
    sent_ns = np.sort(records.heads["sent_ns"])
    read_ns = np.sort(arrivals_ns)[PROBE_REQUESTS:]
    if len(sent_ns) != len(read_ns):
        raise SystemExit(f"{len(sent_ns):,} requests were sent, the server read {len(read_ns):,}")
    return ((read_ns - sent_ns) / 1e6)[sent_ns >= since_ns]


def itl_ms(records, since_ns):
    """The gaps that ended at that moment or later."""
    found = []
    for block in records.gaps(np.arange(len(records))):
        gaps_ns = block.gaps.astype(np.int64) * 1000
        sums = np.cumsum(gaps_ns)
        before = np.cumsum(block.counts) - block.counts
        first = records.heads["first_output_ns"][block.rows] - (sums - gaps_ns)[before]
        found.append(gaps_ns[sums + np.repeat(first, block.counts) >= since_ns] / 1e6)
    return np.concatenate(found)


def differences(run, stats):
    """What client and server do not agree on, or what was lost: lines."""
    summary, account = run.summary, run.summary.accounting
    pairs = {
        "requests": (summary.requests + PROBE_REQUESTS, stats["stream"]),
        "events": (summary.tokens.events + PROBE_EVENTS, stats["content_events"]),
        "tokens": (summary.tokens.completion, summary.ok * TOKENS),
        "successes": (summary.ok, summary.requests),
        "residual of the account": (account.residual, 0),
        "answers that were broken off": (stats["aborted"], 0),
    }
    return [f"{name}: {ours:,} here, {theirs:,} there" for name, (ours, theirs) in pairs.items() if ours != theirs]


def measured(streams, requests):
    """One round against the C server."""
    with rig.Server(f"--ttft-ms {TTFT_MS} --itl-us {ITL_US}") as server:
        options = f"--processes 1 --max-concurrent {streams} --num-requests {streams * requests} --max-tokens {TOKENS}"
        run = bench(server, options, settled(streams * TOKENS // 2), statuses=ENDED)
        stats, arrivals_ns = server.ask("/stats"), server.arrivals_ns()
    since_ns = run.meanwhile
    ours = {"TTFT": quantiles(ttft_ms(run.records, since_ns)), "ITL": quantiles(itl_ms(run.records, since_ns))}
    theirs = {"TTFT": stats["server_ttft_ms"], "ITL": stats["server_itl_ms"]}
    transit = quantiles(transit_ms(run.records, arrivals_ns, since_ns))
    return Round(ours, theirs, transit, run, stats, differences(run, stats), server.others)


def show(number, one):
    whole, late = one.run.summary.whole, one.stats["server_late_ms"]
    print(
        f"round {number}: {one.run.summary.ok:,} of {one.run.summary.requests:,} ok, {one.run.summary.tokens.events:,} events, "
        f"{one.stats['inflight_max']:,} in flight; server late p50 {late['p50']:.2f}, p99 {late['p99']:.2f} ms, "
        f"{one.transit['p50']:.2f}, {one.transit['p99']:.2f} ms from sent until it had read a request; "
        f"{whole.coalesced_share:.1%} of events in one read with another; others took {one.others:.0%} of the cores; its verdict: {one.run.judged}"
    )
    for metric, reported in (("TTFT", whole.ttft_from_sent), ("ITL", whole.itl)):
        columns = "  ".join(
            f"{name} {one.theirs[metric][name]:7.2f} | {one.ours[metric][name]:7.2f} {one.ours[metric][name] - one.theirs[metric][name]:+6.2f}"
            for name in _PERCENTS
        )
        burst = ", ".join(f"{name} {1e3 * reported.value(percent):.2f}" for name, percent in _PERCENTS.items())
        print(f"  {metric:4} server | reported, ms:  {columns}   (run.json, whole run: {burst})", flush=True)
    for line in one.lost:
        print(f"  {line}")


def judge(rounds):
    """The median of the rounds' differences against each bound; returns whether all are met."""
    print("\nreported minus the C server's own, median of the rounds, without its sign")
    met = []
    for metric in ("TTFT", "ITL"):
        for name, limit in BOUNDS_MS.items():
            apart = [one.ours[metric][name] - one.theirs[metric][name] for one in rounds]
            met.append(
                rig.within(f"{metric} {name}", abs(statistics.median(apart)), limit, "ms", f"[{min(apart):+.2f} .. {max(apart):+.2f}]")
            )
    met.append(rig.within("lost, or counted differently", sum(len(one.lost) for one in rounds), 0, "counts"))
    return all(met)


def metronome(streams, attempts):
    """Each event against the metronome's truth, at this number of streams; returns whether the best attempt is within the bounds."""
    print(f"\nper event against the metronome's truth, {streams:,} streams (also a rung of `loadgen selftest`)")
    allow_files(streams)
    load = Load(mode="free-running", streams=streams, workers=1, duration_s=_RUNG_S, mean_tokens=TOKENS)
    with RunDirectory.create(rig.WORK / "results", "selftest", "wire") as directory, Interrupts() as interrupts:
        directory.open_log([])
        bed = Testbed(directory, "wire", interrupts)
        rungs = []
        for _ in range(attempts):
            neighbours = Neighbours()
            rung = bed.perform(load)
            if rung is None:
                raise SystemExit("interrupted")
            print(f"  {described(rung)}; others took {neighbours.share() or 0.0:.0%} of the cores", flush=True)
            rungs.append(rung)
    best = selftest.best_attempt(rungs)
    errors = {"TTFT from sent": best.ttft_from_sent, "TTFT from due": best.ttft, "ITL": best.itl, "end to end": best.latency}
    met = []
    for name, error in errors.items():
        met.append(rig.within(f"{name} p50", 1e3 * error.p50_s, 1e3 * selftest.BOUND_P50_S, "ms"))
        met.append(rig.within(f"{name} p99", 1e3 * error.p99_s, 1e3 * selftest.BOUND_P99_S, "ms", f"(largest {1e3 * error.max_s:.2f})"))
    met.append(rig.within("failed, or not in the metronome's account", best.failed + best.unmatched, 0, "requests"))
    if best.late:
        print("the metronome was late by its own truth: what is out of bounds may be its")
    return all(met)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="against either server")
    parser.add_argument("--streams", type=int, default=1024)
    parser.add_argument("--requests", type=int, default=8, help="of each stream, one after another; at least 3")
    arguments = parser.parse_args()
    rounds = []
    for number in range(arguments.rounds):
        rounds.append(measured(arguments.streams, arguments.requests))
        show(number, rounds[-1])
    met = judge(rounds)
    met = metronome(arguments.streams, arguments.rounds) and met
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
