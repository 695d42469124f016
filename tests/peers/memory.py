"""Is a worker's memory flat over a long run at full speed, and what does a request in flight hold?

    .venv/bin/python tests/peers/memory.py [--part flat|flight] [--minutes 10] [--streams 2000] [--tokens 4000]

Knows what each worker said of its memory once a second (`loadgen/vitals.py`: RssAnon + RssShmem; the mapped files are shown beside), and
the bounds. Knows nothing of time spent. `flat`: answers as fast as they can be taken, 64 at a time. `flight`: long answers, paced so
that all are under way together, each chunk with the usage so far, as vLLM sends them when it is asked to: the memory is highest when the
last tokens come. Law: MB and kB are powers of ten, as in the bound, and the kernel's kB are not; the parent is not a worker.
"""

import argparse
import sys

import rig
from bench import ENDED, PROBE_REQUESTS, bench

FLAT_MB = 5
WORKER_MB, REQUEST_KB = 60, 40
CONCURRENCY, TOKENS = 64, 128
# All streams of `flight` together: what one worker takes without falling behind, so that nothing waits in its sockets instead.
_EVENTS_RPS = 40_000


def held_mb(beat):
    """What counts."""
    return 1024 * (beat.anon_kb + beat.shmem_kb) / 1e6


def flat(minutes, settle_s, processes):
    """Full speed; returns whether each worker's memory stayed within its bound after it settled."""
    with rig.Server("") as server:
        options = f"--processes {processes} --max-concurrent {CONCURRENCY} --duration {minutes * 60:g} --max-tokens {TOKENS}"
        run = bench(server, options, statuses=ENDED)
    whole = run.summary.whole
    print(
        f"{minutes:g} minutes at full speed, {CONCURRENCY} at a time: {run.summary.ok:,} of {run.summary.requests:,} ok, "
        f"{whole.requests_rps:,.0f} requests/s, {whole.output_tokens_tps:,.0f} events/s; others took {server.others:.0%} of the cores; its verdict: {run.judged}"
    )
    start_ns = run.records.heads["sent_ns"].min()
    met = []
    for worker, beats in enumerate(run.beats):
        print(f"worker {worker}, MB of RssAnon + RssShmem (RssFile)")
        for beat in beats[:: max(1, len(beats) // 12)]:
            print(f"  after {(beat.at_ns - start_ns) / 1e9:6.1f} s {held_mb(beat):8.2f} ({1024 * beat.file_kb / 1e6:.2f})")
        later = [held_mb(beat) for beat in beats if beat.at_ns >= start_ns + settle_s * 1e9]
        if not later:
            raise SystemExit(f"the run was over before {settle_s:g} s: nothing to compare")
        print(f"  from {settle_s:g} s on: {min(later):.2f} .. {max(later):.2f} in {len(later)} beats; at the end {later[-1]:.2f}")
        met.append(rig.within(f"worker {worker}, largest minus smallest after {settle_s:g} s", max(later) - min(later), FLAT_MB, "MB"))
    return all(met)


def flight(streams, tokens):
    """Long answers, all under way together; returns whether the worker's memory stayed below its bound."""
    itl_us = round(1e6 * streams / _EVENTS_RPS)
    with rig.Server(f"--ttft-ms 1000 --itl-us {itl_us}") as server:
        options = f"--processes 1 --max-concurrent {streams} --num-requests {streams} --max-tokens {tokens}"
        run = bench(server, options, statuses=ENDED)
        stats = server.ask("/stats")
    [beats] = run.beats
    idle, most = beats[0], max(beats, key=held_mb)
    print(
        f"\n{streams:,} requests of {tokens:,} tokens: {run.summary.ok:,} ok, {run.summary.tokens.completion:,} tokens, "
        f"{stats['inflight_max']:,} in flight at the server; chunks with usage asked for by "
        f"{stats['continuous_usage_asked'] - PROBE_REQUESTS:,} of them; {run.summary.whole.output_tokens_tps:,.0f} events/s, "
        f"server late p99 {stats['server_late_ms']['p99']:.2f} ms; others took {server.others:.0%} of the cores; its verdict: {run.judged}"
    )
    for name, beat in (("first beat", idle), ("highest", most), ("last beat", beats[-1])):
        print(
            f"  {name:10} {held_mb(beat):8.2f} MB with {beat.in_flight:,} in flight (RssAnon {beat.anon_kb:,}, RssShmem {beat.shmem_kb:,}, "
            f"RssFile {beat.file_kb:,} kB)"
        )
    print(f"  from the first beat to the highest: {1000 * (held_mb(most) - held_mb(idle)) / streams:.1f} kB for each request")
    bound_mb = WORKER_MB + REQUEST_KB * streams / 1000
    met = [
        rig.within(f"the worker's highest, {WORKER_MB} MB + {REQUEST_KB} kB for each", held_mb(most), bound_mb, "MB"),
        rig.within("not in flight together, at the server", streams - stats["inflight_max"], 0, "requests"),
        rig.within("not whole", streams * tokens - run.summary.tokens.events, 0, "events"),
    ]
    return all(met)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("flat", "flight"), help="default: both")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--settle-s", type=float, default=60, help="what is left out of flat at its start")
    parser.add_argument("--processes", type=int, default=1, help="workers of flat, on the same core")
    parser.add_argument("--streams", type=int, default=2000, help="of flight")
    parser.add_argument("--tokens", type=int, default=4000, help="of each request of flight")
    arguments = parser.parse_args()
    met = arguments.part == "flight" or flat(arguments.minutes, arguments.settle_s, arguments.processes)
    if arguments.part != "flat":
        met = flight(arguments.streams, arguments.tokens) and met
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
