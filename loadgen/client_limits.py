"""What shows that a run was limited by the client: its CPU, its loops, its own ceiling, requests that it sent late.

Knows summaries and the ceiling that was in force; reads no record and prints nothing. Its rules are lines in `verdict.RULES`.
Law: a request that found no slot free is the server's or the bound's, never the client's (`lateness.py`); a ceiling that is only a lower bound,
or was computed, is never a reason. Levels and lines are those of DESIGN.md, "Verdict and exit status".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from loadgen.summary import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadgen.ceiling import KeptCeiling
    from loadgen.selftest import Ceiling
    from loadgen.summary import Level, Summary

# How much of its core a worker may use: the lines of other load generators (locust warns at 90 %). Of a ceiling the same, for that
# is a rate at which the core was full.
FULL, BUSY = 0.90, 0.80
# A ceiling is a rate that was kept up for seconds (selftest.FULL); what comes within less than this is a burst.
LEAST_S = 1.0
# Where a loop is later than this one time in a hundred, so are stamps: under half of the error that the self-test calls within bounds.
LOOP_LAG_S = 0.002
# Send lag at p99, as shares of the median TTFT (validity of MLPerf's and guidellm's kind): what is in every latency from due, and is ours.
LAG_DEGRADED, LAG_INVALID = 0.02, 0.10
# A p99 of fewer is their largest.
LEAST_REQUESTS = 100
# Nobody's server is so fast that half a loop's lag in a latency matters; five times that where five times the share does.
_LAG_FLOOR_S = 0.001
# Of the requests of an open loop, those that may be missing from the load without making it another one.
MISSED = 0.01
_RELIEF = "take more workers (--processes) where there are cores for them, or less load, and leave the machine to this alone"
_MEASURE_AGAIN = "if that is right, run `loadgen selftest` again"


class Reached(NamedTuple):
    """What the workers of a run drove, beside the most that as many were measured to drive. rate_rps: of the ceiling's unit."""

    rate_rps: float
    ceiling: Ceiling

    @property
    def share(self) -> float:
        return self.rate_rps / self.ceiling.rate_rps


def reached(summary: Summary, ceiling: KeptCeiling | None) -> list[Reached]:
    """How near the run came to each ceiling that was measured of as many workers; empty where none was, or for less than `LEAST_S`."""
    rates = {"requests": summary.ended_rps, "token events": summary.events_rps}
    ceilings = [] if ceiling is None or summary.ranked.length_s < LEAST_S else ceiling.of(len(summary.workers))
    return [Reached(rate_rps, one) for one in ceilings if (rate_rps := rates[one.unit]) and one.rate_rps]


def busiest(summary: Summary) -> tuple[int, float] | None:
    """The worker that used most of its core, and the share; None where that is known of none."""
    known = [(one.cpu_share, one.worker) for one in summary.workers if one.cpu_share is not None]
    share, worker = max(known, default=(0.0, -1))
    return (worker, share) if known else None


def latest(summary: Summary) -> tuple[int, float] | None:
    """The worker whose loop was the latest at p99, and by how many seconds; None where no timer fired often enough to tell."""
    lags = [(one.loop_lag.percentiles["p99"], one.worker) for one in summary.workers if one.loop_lag is not None]
    known = [(p99.value, worker) for p99, worker in lags if p99.enough]
    late_s, worker = max(known, default=(0.0, -1))
    return (worker, late_s) if known else None


def client_limited(summary: Summary, ceiling: KeptCeiling | None) -> Iterator[Reason]:
    """All that shows the workers at their limit."""
    yield from _near_ceilings(summary, ceiling)
    yield from _offered_beyond(summary, ceiling)
    yield from _full_core(summary)
    yield from _late_loop(summary)
    if (lag := _send_lag(summary)) is not None and lag.late_s > lag.invalid_s:
        said = f"requests were sent {lag.said} though a slot was free: {_RELIEF}"
        yield Reason(name="client-limited", level="invalid", number=lag.late_s, threshold=lag.invalid_s, advice=said)


def send_lag(summary: Summary) -> Reason | None:
    """Late by less than what is called client-limited, and yet so much that latencies from due hold some of it."""
    lag = _send_lag(summary)
    if lag is None or not lag.degraded_s < lag.late_s <= lag.invalid_s:
        return None
    advice = f"requests were sent {lag.said} though a slot was free: read latencies from sent, or {_RELIEF}"
    return Reason(name="send-lag", level="degraded", number=lag.late_s, threshold=lag.degraded_s, advice=advice)


def rate_not_achieved(summary: Summary) -> Reason | None:
    """Of an open loop. Its dues are fixed, so nothing is left to chance: each request was sent in time, held back, or missed."""
    found = summary.lateness
    if found is None or found.missed is None or found.missed <= max(MISSED * found.requests, 1):
        return None
    advice = (
        f"{found.missed} of {found.requests} requests ({found.offered_rps:,.1f}/s were due) were not sent within 0.1 s though a slot was free, "
        f"the latest {found.largest_s:.2g} s late: {_RELIEF}"
    )
    return Reason(name="rate-not-achieved", level="invalid", number=found.missed / found.requests, threshold=MISSED, advice=advice)


class _Lag(NamedTuple):
    late_s: float
    degraded_s: float
    invalid_s: float
    said: str


def _send_lag(summary: Summary) -> _Lag | None:
    """p99 of the lag that is ours beside its lines; None of too few requests."""
    found, ranked = summary.lateness, summary.ranked
    base = ranked.ttft or ranked.latency
    if found is None or base is None or found.requests < LEAST_REQUESTS:
        return None
    degraded_s = max(_LAG_FLOOR_S, LAG_DEGRADED * base.median)
    name = "latency" if ranked.ttft is None else "TTFT"
    said = f"{found.p99_s * 1e3:.1f} ms late at p99, {found.p99_s / base.median:.0%} of the median {name},"
    return _Lag(found.p99_s, degraded_s, degraded_s * LAG_INVALID / LAG_DEGRADED, said)


def _near_ceilings(summary: Summary, ceiling: KeptCeiling | None) -> Iterator[Reason]:
    used = busiest(summary)
    for one in reached(summary, ceiling):
        if one.share < BUSY or one.ceiling.lower_bound:
            continue
        assert ceiling is not None  # else nothing was reached
        workers = "1 worker" if one.ceiling.workers == 1 else f"{one.ceiling.workers} workers"
        rates = (
            f"{one.rate_rps:,.0f} {one.ceiling.unit}/s are {one.share:.0%} of the {one.ceiling.rate_rps:,.0f} that {workers} can drive here"
        )
        doubt = "" if used is None or used[1] >= BUSY else f"; but no worker used more than {used[1]:.0%} of a core: {_MEASURE_AGAIN}"
        yield _strained(one.share, f"{rates}, by the self-test {ceiling.id}: {_RELIEF}{doubt}")


def _offered_beyond(summary: Summary, ceiling: KeptCeiling | None) -> Iterator[Reason]:
    """What fell due, whatever was handled of it."""
    offered_rps = None if summary.lateness is None else summary.lateness.offered_rps
    for one in reached(summary, ceiling):
        if offered_rps is None or one.ceiling.unit != "requests" or one.ceiling.lower_bound or offered_rps < FULL * one.ceiling.rate_rps:
            continue
        assert ceiling is not None  # else nothing was reached
        rates = f"{offered_rps:,.0f} requests/s fell due, and {one.ceiling.rate_rps:,.0f} are what the workers can drive here"
        yield _strained(offered_rps / one.ceiling.rate_rps, f"{rates}, by the self-test {ceiling.id}: {_RELIEF}")


def _full_core(summary: Summary) -> Iterator[Reason]:
    used = busiest(summary)
    if used is not None and used[1] >= BUSY:
        yield _strained(used[1], f"worker {used[0]} used {used[1]:.0%} of a core: {_RELIEF}")


def _late_loop(summary: Summary) -> Iterator[Reason]:
    late = latest(summary)
    if late is not None and late[1] >= LOOP_LAG_S:
        said = f"the loop of worker {late[0]} was {late[1] * 1e3:.1f} ms late at p99, and so was what it stamps: {_RELIEF}"
        yield Reason(name="client-limited", level="degraded", number=late[1], threshold=LOOP_LAG_S, advice=said)


def _strained(share: float, advice: str) -> Reason:
    level: Level = "invalid" if share >= FULL else "degraded"
    return Reason(name="client-limited", level=level, number=share, threshold=FULL if level == "invalid" else BUSY, advice=advice)
