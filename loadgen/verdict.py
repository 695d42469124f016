"""May a summary be believed?

Knows summaries and the ceiling that was in force; reads no record and prints nothing. Each rule is a function from a `Case` to a
reason or None, and one line in `RULES`. Law: a verdict is the worst of its reasons, and each reason has its number, its threshold
and what to do; a ceiling that is only a lower bound, or was computed, is never a reason. Levels and lines are those of DESIGN.md,
"Verdict and exit status".
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from loadgen.summary import Reason, Verdict, percentile_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadgen.ceiling import KeptCeiling
    from loadgen.selftest import Ceiling
    from loadgen.summary import Level, Summary

LEVELS: tuple[Level, ...] = ("valid", "degraded", "invalid")
ERRORS_INVALID, ERRORS_DEGRADED = 0.10, 0.01
# How much of its core a worker may use: the lines of other load generators (locust warns at 90 %). Of a ceiling the same, for that
# is a rate at which the core was full.
FULL, BUSY = 0.90, 0.80
# A ceiling is a rate that was kept up for seconds (selftest.FULL); what comes within less than this is a burst.
LEAST_S = 1.0
# Where a loop is later than this one time in a hundred, so are stamps: under half of the error that the self-test calls within bounds.
LOOP_LAG_S = 0.002
_RELIEF = "take more workers (--processes) where there are cores for them, or less load, and leave the machine to this alone"
_MEASURE_AGAIN = "if that is right, run `loadgen selftest` again"


class Case(NamedTuple):
    """What is judged. asked_percentiles: those the user named, in percent. ceiling: of the machine, as it stood when the run began."""

    summary: Summary
    asked_percentiles: Sequence[float]
    ceiling: KeptCeiling | None


class Reached(NamedTuple):
    """What the workers of a run drove, beside the most that as many were measured to drive. rate_rps: of the ceiling's unit."""

    rate_rps: float
    ceiling: Ceiling

    @property
    def share(self) -> float:
        return self.rate_rps / self.ceiling.rate_rps


def judge(summary: Summary, asked_percentiles: Sequence[float] = (), ceiling: KeptCeiling | None = None) -> Verdict:
    """The verdict on one plan. asked_percentiles: those the user named, in percent; only these can have too few samples.

    ceiling: what the machine that ran it was measured to drive; None where no self-test told it.
    """
    case = Case(summary, asked_percentiles, ceiling)
    reasons = [reason for rule in RULES if (reason := rule(case)) is not None]
    return Verdict(level=_worst([reason.level for reason in reasons]), reasons=reasons)


def judge_grid(verdicts: Sequence[Verdict]) -> Verdict:
    """A grid's verdict from its cells': invalid only when no cell is valid or degraded. A reason is named once, for all its cells."""
    usable = any(verdict.level != "invalid" for verdict in verdicts)
    found: dict[str, list[Reason]] = defaultdict(list)
    for verdict in verdicts:
        for reason in verdict.reasons:
            found[reason.name].append(reason)
    reasons = []
    for same in found.values():
        worst = max(same, key=lambda reason: LEVELS.index(reason.level))
        level: Level = "degraded" if usable else worst.level
        reasons.append(msgspec.structs.replace(worst, level=level, advice=f"{len(same)} of {len(verdicts)} cells: {worst.advice}"))
    return Verdict(level=_worst([reason.level for reason in reasons]) if verdicts else "invalid", reasons=reasons)


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


def _accounting(case: Case) -> Reason | None:
    summary = case.summary
    accounting = summary.accounting
    if accounting.closes and all(worker.accounting.closes for worker in summary.workers):
        return None
    off = sum(abs(worker.accounting.residual) for worker in summary.workers)
    said = "; ".join(accounting.problems) or f"{off} requests have no end or two"
    return Reason(name="accounting", level="invalid", number=float(off), threshold=0.0, advice=f"records do not add up: {said}")


def _workers_lost(case: Case) -> Reason | None:
    summary = case.summary
    lost = [str(worker.worker) for worker in summary.workers if worker.state == "lost"]
    if not lost:
        return None
    advice = f"lost: worker {', '.join(lost)} of {len(summary.workers)}; the run's log says how it ended, and what was left of its share was not sent"
    return Reason(name="workers-lost", level="invalid", number=float(len(lost)), threshold=0.0, advice=advice)


def _errors(case: Case) -> Reason | None:
    summary = case.summary
    judged = summary.requests - summary.accounting.cancelled  # what we cancelled says nothing of the server
    share = (judged - summary.ok) / judged if judged else 0.0  # of counts: 1 - 0.99 is above 0.01
    if share <= ERRORS_DEGRADED:
        return None
    level: Level = "invalid" if share > ERRORS_INVALID else "degraded"
    threshold = ERRORS_INVALID if level == "invalid" else ERRORS_DEGRADED
    label, failure = max(
        ((label, failure) for label, failure in summary.failures.items() if label != "cancelled"), key=lambda item: item[1].count
    )
    advice = f"{share:.1%} of requests failed, most of them by {label} ({failure.count}): {failure.example or 'no message'}"
    return Reason(name="errors", level=level, number=share, threshold=threshold, advice=advice)


def _client_limited(case: Case) -> Reason | None:
    """Of all that shows the workers at their limit, the worst."""
    found = [*_near_ceilings(case), *_full_core(case), *_late_loop(case)]
    return max(found, key=lambda reason: (LEVELS.index(reason.level), reason.number / reason.threshold), default=None)


def _near_ceilings(case: Case) -> Iterator[Reason]:
    used = busiest(case.summary)
    for one in reached(case.summary, case.ceiling):
        if one.share < BUSY or one.ceiling.lower_bound:
            continue
        assert case.ceiling is not None  # else nothing was reached
        workers = "1 worker" if one.ceiling.workers == 1 else f"{one.ceiling.workers} workers"
        rates = (
            f"{one.rate_rps:,.0f} {one.ceiling.unit}/s are {one.share:.0%} of the {one.ceiling.rate_rps:,.0f} that {workers} can drive here"
        )
        doubt = "" if used is None or used[1] >= BUSY else f"; but no worker used more than {used[1]:.0%} of a core: {_MEASURE_AGAIN}"
        yield _strained(one.share, f"{rates}, by the self-test {case.ceiling.id}: {_RELIEF}{doubt}")


def _full_core(case: Case) -> Iterator[Reason]:
    used = busiest(case.summary)
    if used is not None and used[1] >= BUSY:
        yield _strained(used[1], f"worker {used[0]} used {used[1]:.0%} of a core: {_RELIEF}")


def _late_loop(case: Case) -> Iterator[Reason]:
    late = latest(case.summary)
    if late is not None and late[1] >= LOOP_LAG_S:
        said = f"the loop of worker {late[0]} was {late[1] * 1e3:.1f} ms late at p99, and so was what it stamps: {_RELIEF}"
        yield Reason(name="client-limited", level="degraded", number=late[1], threshold=LOOP_LAG_S, advice=said)


def _strained(share: float, advice: str) -> Reason:
    level: Level = "invalid" if share >= FULL else "degraded"
    return Reason(name="client-limited", level=level, number=share, threshold=FULL if level == "invalid" else BUSY, advice=advice)


def _too_few_samples(case: Case) -> Reason | None:
    """Of the metrics that were measured, the one that lacks most; a run without one success has no sample at all."""
    summary = case.summary
    whole = summary.whole
    measured = {"latency": whole.latency, "ttft": whole.ttft, "itl": whole.itl, "tpot": whole.tpot}
    lacking = [
        (percentile.needs - distribution.count, name, percentile.needs, distribution.count, percent)
        for name, distribution in measured.items()
        if distribution is not None
        for percent in case.asked_percentiles
        if (percentile := distribution.percentiles.get(percentile_key(percent))) is not None and not percentile.enough
    ]
    if not summary.ok:  # a rate of 0 is no measurement: a grid of such cells has no best one
        return Reason(
            name="too-few-samples", level="invalid", number=0.0, threshold=1.0, advice="no request succeeded: there is nothing to measure"
        )
    if not lacking:
        return None
    _, name, needs, count, percent = max(lacking)
    advice = f"{percentile_key(percent)} of {name} rests on {count} samples and needs {needs}: send more requests"
    return Reason(name="too-few-samples", level="degraded", number=float(count), threshold=float(needs), advice=advice)


RULES: tuple[Callable[[Case], Reason | None], ...] = (_accounting, _workers_lost, _client_limited, _errors, _too_few_samples)


def _worst(levels: Sequence[Level]) -> Level:
    return max(levels, key=LEVELS.index, default="valid")
