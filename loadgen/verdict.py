"""May a summary be believed?

Knows summaries and what was asked of them; reads no record and prints nothing. Each rule is a function from a `Case` to a reason or None,
and one line in `RULES`; those about the client itself are in `client_limits.py`. Law: a verdict is the worst of its reasons, and each
reason has its number, its threshold and what to do. Levels and lines are those of DESIGN.md, "Verdict and exit status".
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from loadgen.client_limits import client_limited, rate_not_achieved, send_lag
from loadgen.distribution import percentile_key
from loadgen.steadiness import MATERIAL
from loadgen.summary import Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadgen.ceiling import KeptCeiling
    from loadgen.summary import Level, Summary

LEVELS: tuple[Level, ...] = ("valid", "degraded", "invalid")
ERRORS_INVALID, ERRORS_DEGRADED = 0.10, 0.01
COALESCED = 0.05
# Little's law within 2 % in a window of at least 50 times the mean residence: there the requests that its edges cut make (1 + c^2) / 2 of
# a residence each, c being the coefficient of variation; that is 2 % at most up to c = 1, were one edge to cut none.
LITTLE, LITTLE_TIMES = 0.02, 50
# Commands that say how a server does over time, and how long they must look (MLPerf asks 600 s of a published result).
LONG_COMMANDS, LEAST_WINDOW_S = ("run",), 30.0


class Case(NamedTuple):
    """What is judged. asked_percentiles: those the user named, in percent. ceiling: of the machine, as it stood when the run began.

    least_s: how long its measuring window must be; 0 for any length.
    """

    summary: Summary
    asked_percentiles: Sequence[float]
    ceiling: KeptCeiling | None
    least_s: float


def least_window_s(command: str) -> float:
    """How long a measuring window of this command must be."""
    return LEAST_WINDOW_S if command in LONG_COMMANDS else 0.0


def judge(
    summary: Summary, asked_percentiles: Sequence[float] = (), ceiling: KeptCeiling | None = None, *, least_s: float = 0.0
) -> Verdict:
    """The verdict on one plan. asked_percentiles: those the user named, in percent; only these can have too few samples.

    ceiling: what the machine that ran it was measured to drive; None where no self-test told it. least_s: see `least_window_s`.
    """
    case = Case(summary, asked_percentiles, ceiling, least_s)
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
    found = client_limited(case.summary, case.ceiling)
    return max(found, key=lambda reason: (LEVELS.index(reason.level), reason.number / reason.threshold), default=None)


def _rate_not_achieved(case: Case) -> Reason | None:
    return rate_not_achieved(case.summary)


def _send_lag(case: Case) -> Reason | None:
    return send_lag(case.summary)


def _not_steady(case: Case) -> Reason | None:
    """What drifted most; else a backlog that grew or shrank, by Little's law, where the window is too long for its edges to make it."""
    found = case.summary.steadiness
    if found is None or found.absent:
        return None
    if found.drifts:
        one = max(found.drifts, key=lambda drift: abs(drift.share))
        metric = {"ttft": "TTFT", "latency": "latency"}.get(one.metric, one.metric)
        way = "rose" if one.share > 0 else "fell"
        how = f"{way} from beginning to end" if one.kind == "trend" else f"{way} at {one.at_s:.1f} s and stayed there,"
        relief = "offer less load if it still rises" if one.share > 0 else "leave out more of the beginning"
        advice = (
            f"{metric} {how} by {abs(one.share):.0%} of its median, so percentiles depend on how long the run is: run longer, and {relief}"
        )
        return Reason(name="not-steady", level="degraded", number=abs(one.share), threshold=MATERIAL, advice=advice)
    little = found.little
    if little is None or little.off <= LITTLE or case.summary.ranked.length_s < LITTLE_TIMES * little.residence_s:
        return None
    advice = (
        f"{little.in_flight:.1f} were in flight, but {little.ended_rps:,.1f} ended per second after {little.residence_s:.3g} s each, which makes "
        f"{little.ended_rps * little.residence_s:.1f}: a backlog grew or shrank over the window, so run longer, or offer less load"
    )
    return Reason(name="not-steady", level="degraded", number=little.off, threshold=LITTLE, advice=advice)


def _coalesced(case: Case) -> Reason | None:
    share = case.summary.ranked.coalesced_share
    if share is None or share <= COALESCED:
        return None
    advice = (
        f"{share:.1%} of output events came in one read with the one before: the server writes several at once, or the network or this client was "
        "late, and gaps between them are not the server's; ITL and stalls say little, TTFT and TPOT more"
    )
    return Reason(name="coalesced", level="degraded", number=share, threshold=COALESCED, advice=advice)


def _short(case: Case) -> Reason | None:
    return short(case.summary.whole.length_s, case.least_s)


def short(length_s: float, least_s: float) -> Reason | None:
    """What there is to say against a measuring window of this length."""
    if length_s >= least_s:
        return None
    advice = f"the measuring window was {length_s:.1f} s: slow changes of the server's do not show in it; run for {least_s:g} s or longer"
    return Reason(name="short", level="degraded", number=length_s, threshold=least_s, advice=advice)


def _too_few_samples(case: Case) -> Reason | None:
    """Of the metrics that were measured, the one that lacks most; a run without one success has no sample at all."""
    summary = case.summary
    whole = summary.whole
    measured = {"latency": whole.latency, "ttft": whole.ttft, "itl": whole.itl, "tpot": whole.tpot}
    lacking = [
        (percentile.needs - (percentile.effective or distribution.count), name, percentile, distribution.count)
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
    _, name, percentile, count = max(lacking, key=lambda one: one[:2])
    effective = count if percentile.effective is None else percentile.effective
    alike = "" if effective == count else f" that are as alike as {effective} independent ones"
    advice = (
        f"{percentile_key(percentile.percent)} of {name} rests on {count} samples{alike} and needs {percentile.needs}: send more requests"
    )
    return Reason(name="too-few-samples", level="degraded", number=float(effective), threshold=float(percentile.needs), advice=advice)


RULES: tuple[Callable[[Case], Reason | None], ...] = (
    _accounting,
    _workers_lost,
    _client_limited,
    _rate_not_achieved,
    _errors,
    _send_lag,
    _not_steady,
    _coalesced,
    _too_few_samples,
    _short,
)


def _worst(levels: Sequence[Level]) -> Level:
    return max(levels, key=LEVELS.index, default="valid")
