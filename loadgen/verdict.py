"""May a summary be believed?

Knows summaries; reads no record and prints nothing. Each rule is a function from a summary and the percentiles that were asked
for to a reason or None, and one line in `RULES`. Law: a verdict is the worst of its reasons, and each reason has its number,
its threshold and what to do. Levels and lines are those of DESIGN.md, "Verdict and exit status".
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from loadgen.summary import Reason, Verdict, percentile_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadgen.summary import Level, Summary

LEVELS: tuple[Level, ...] = ("valid", "degraded", "invalid")
ERRORS_INVALID, ERRORS_DEGRADED = 0.10, 0.01


def judge(summary: Summary, asked_percentiles: Sequence[float] = ()) -> Verdict:
    """The verdict on one plan. asked_percentiles: those the user named, in percent; only these can have too few samples."""
    reasons = [reason for rule in RULES if (reason := rule(summary, asked_percentiles)) is not None]
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


def _accounting(summary: Summary, _: Sequence[float]) -> Reason | None:
    accounting = summary.accounting
    if accounting.closes and all(worker.accounting.closes for worker in summary.workers):
        return None
    off = sum(abs(worker.accounting.residual) for worker in summary.workers)
    said = "; ".join(accounting.problems) or f"{off} requests have no end or two"
    return Reason(name="accounting", level="invalid", number=float(off), threshold=0.0, advice=f"records do not add up: {said}")


def _workers_lost(summary: Summary, _: Sequence[float]) -> Reason | None:
    lost = [str(worker.worker) for worker in summary.workers if worker.state == "lost"]
    if not lost:
        return None
    advice = f"lost: worker {', '.join(lost)} of {len(summary.workers)}; the run's log says how it ended, and what was left of its share was not sent"
    return Reason(name="workers-lost", level="invalid", number=float(len(lost)), threshold=0.0, advice=advice)


def _errors(summary: Summary, _: Sequence[float]) -> Reason | None:
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


def _too_few_samples(summary: Summary, asked: Sequence[float]) -> Reason | None:
    """Of the metrics that were measured, the one that lacks most; a run without one success has no sample at all."""
    whole = summary.whole
    measured = {"latency": whole.latency, "ttft": whole.ttft, "itl": whole.itl, "tpot": whole.tpot}
    lacking = [
        (percentile.needs - distribution.count, name, percentile.needs, distribution.count, percent)
        for name, distribution in measured.items()
        if distribution is not None
        for percent in asked
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


RULES: tuple[Callable[[Summary, Sequence[float]], Reason | None], ...] = (_accounting, _workers_lost, _errors, _too_few_samples)


def _worst(levels: Sequence[Level]) -> Level:
    return max(levels, key=LEVELS.index, default="valid")
