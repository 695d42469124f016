"""What load was offered: the arrivals of an open loop as they were planned and as they were sent, as values.

Knows shapes and units and nothing else; `proof.py` fills them, run.json holds them, `offered_report.py` prints them.
Law: seconds, requests/s and shares, as in `summary.py`; what could not be had of so few arrivals is None, never 0.
"""

from __future__ import annotations

import msgspec


class Dispersion(msgspec.Struct, frozen=True, kw_only=True):
    """How uneven counts of arrivals in windows of window_s are: their variance over their mean (1 = Poisson, 0 = evenly spaced).

    planned: of the dues, sent: of the sends. None where fewer than 10 windows fit into the run. Under a changing rate a window's count is
    held against what the rate has in it. windows: whole ones.
    """

    window_s: float
    windows: int
    planned: float | None
    sent: float | None


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """A Kolmogorov-Smirnov test of `count` values against a law without fitted parameters.

    distance: the largest between the two distribution functions. p: how often the law itself gives one as large, less what late sends within
    loadgen's promise can do to it (`proof.py`). Of a thousand sound runs one has p < 0.001.
    """

    count: int
    distance: float
    p: float


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What one gap says of the next: autocorrelation of gaps at lags 1, 2, …; without memory each lies within 2 standard errors, 19 times of 20."""

    correlations: list[float]
    standard_error: float


class SendLag(msgspec.Struct, frozen=True, kw_only=True):
    """Sent minus due of every request that was sent, failed ones too; all of them, so no interval. min below 0: it was sent early.

    correlation: of a request's lag with the next one's: near 1, lateness came in stretches. late: sent more than late_after_s after
    their due, whether our own process or a bound on requests in flight kept them.
    """

    count: int
    mean: float
    min: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    correlation: float | None
    late: int
    late_after_s: float


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """The arrivals of an open loop within its measuring window. None: too few of them, or the process has no such law.

    scheduled, sent: requests due in the window by the schedule (of a trace: by the records), and those that went out, whenever.
    requested_rps: the rate that was asked for, its mean over the window. planned_rps: of the dues that this seed gives.
    achieved_rps: of the sends, from the first to the last of them or to the last due, whichever is later.
    as_scheduled: whether each recorded due is the schedule's own for its number, to the nanosecond; None for a trace.
    law_cv, law_dispersion: coefficient of variation of gaps, and dispersion of counts in long windows, of the process; planned_cv, sent_cv: of
    the gaps, as shares of the mean gap that the rate had there.
    gaps, phase, memory: of the sends of a Poisson or gamma process, with every send within late_after_s of its due taken as on time (`proof.py`).
    """

    process: str
    scheduled: int
    sent: int
    requested_rps: float | None
    planned_rps: float | None
    achieved_rps: float | None
    as_scheduled: bool | None
    law_cv: float | None
    planned_cv: float | None
    sent_cv: float | None
    law_dispersion: float | None
    dispersion: list[Dispersion]
    send_lag: SendLag | None
    gaps: Fit | None
    phase: Fit | None
    memory: Memory | None
