"""Is what was sent the arrival process that was asked for? Statistics of arrivals, from stamps and the schedule.

Knows schedules and stamps as arrays; knows no record file, judges nothing (`verdict.py`) and reads no clock. Pure.
Law: no parameter of a law is fitted to the arrivals that are held against it, so that the p-values are those of the test.

Time is rescaled first (Brown et al. 2002, Neural Computation 14:325): with L(t) the integral of the rate, L(t_i) of the arrivals of any
Poisson or gamma process of any rate over time has gaps of mean 1, which are exponential or gamma distributed and have no memory.

What is tested of sends: the law of the process has no scale at which it ends, and a send has an error. From some number of arrivals on every real
sender fails a test of its raw stamps. So the tests ask whether sends have the law as far as loadgen promises: one within `PRECISION_S` of its due is
taken as on time, one beyond it where it was, and what a share of `LATE_SHARE` of such can do to a distance at most is taken off it before
its p-value. They find a wrong schedule, and a sender that does not keep to it; the distance is shown whole, and the send lag stands beside.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammainc, kolmogorov

from loadgen.dues import expected, offsets_ns
from loadgen.offered import Dispersion, Fit, Memory, Offered, SendLag

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from loadgen.schedule import Schedule
    from loadgen.stretch import Stretch

    Stamps = NDArray[np.int64]
    Values = NDArray[np.float64]

PRECISION_S, LATE_SHARE = 0.001, 0.01  # the send error that loadgen promises, at p99
_GAPS_OF_A_SEND = 3  # where it is moved to another place, two gaps become one and one becomes two
WINDOWS_S = (0.1, 1.0, 10.0)
LEAST_WINDOWS = 10  # the dispersion of as many Poisson counts has a standard error of a half
LEAST_FIT = 50  # from here on the p-value's formula is within 6 % of the exact one, down to p = 0.001; below, too large
MEMORY_LAGS = 5


def prove(
    index: NDArray[np.uint64],
    due_ns: Stamps,
    sent_ns: Stamps,
    schedule: Schedule,
    window: Stretch,
    *,
    start_ns: int,
    count: int | None,
) -> Offered | None:
    """The arrivals of one plan, merged over its workers, in any order.

    index, due_ns, sent_ns: (n,) of every request, the last 0 where it was never sent. start_ns: the start instant, 0 where it is not known.
    count: of requests that the plan scheduled. window: while requests fell due; only what was due in it counts. None without a request.
    """
    if not len(index):
        return None
    order = np.argsort(index)
    planned_ns, origin_ns, as_scheduled = _planned(index[order].astype(np.int64), due_ns[order], schedule, start_ns, count)
    planned_ns = planned_ns[window.holds(planned_ns)]
    went = order[window.holds(due_ns[order]) & (sent_ns[order] > 0)]
    due_ns, sent_ns = due_ns[went], sent_ns[went]
    rescaled = _rescaling(schedule, origin_ns)
    planned, sent = rescaled(planned_ns), rescaled(np.sort(sent_ns))
    late_ns = sent_ns - due_ns
    on_time = (late_ns >= 0) & (late_ns <= PRECISION_S * 1e9)
    arrivals_ns = np.sort(np.where(on_time, due_ns, sent_ns))
    moved = min(1 - float(on_time.mean()), LATE_SHARE) if len(on_time) else 0.0
    law = law_of(schedule)
    enough = law is not None and len(sent_ns) > LEAST_FIT
    cv = cv_of(schedule)
    return Offered(
        process=schedule.process,
        scheduled=len(planned_ns),
        sent=len(sent_ns),
        requested_rps=None if schedule.process == "trace" else _per_second(planned, planned_ns),
        planned_rps=_per_second(np.arange(len(planned_ns), dtype=np.float64), planned_ns),
        achieved_rps=_achieved_rps(sent_ns, planned_ns),
        as_scheduled=as_scheduled,
        law_cv=cv,
        planned_cv=variation(planned),
        sent_cv=variation(sent),
        law_dispersion=None if cv is None else cv**2,
        dispersion=[_dispersion(window_s, planned_ns, np.sort(sent_ns), window, rescaled) for window_s in WINDOWS_S],
        send_lag=_send_lag(late_ns / 1e9),
        gaps=fit_gaps(rescaled(arrivals_ns), law, moved) if enough and law is not None else None,
        phase=fit_phase(schedule, (arrivals_ns - origin_ns) / 1e9, (window.start_ns - origin_ns) / 1e9, moved) if enough else None,
        memory=memory(rescaled(arrivals_ns)) if enough else None,
    )


def fit_gaps(requests: Values, law: Callable[[Values], Values], moved: float = 0.0) -> Fit:
    """Kolmogorov-Smirnov of the gaps of rescaled arrivals, ascending, against their law's distribution function.

    moved: the share of arrivals that may lie anywhere.
    """
    return _fit(law(np.diff(requests)), allowed=_GAPS_OF_A_SEND * moved)


def fit_phase(schedule: Schedule, arrivals_s: Values, begin_s: float = 0.0, moved: float = 0.0) -> Fit | None:
    """Kolmogorov-Smirnov of the places of arrivals within their second since the start: uniform, once rescaled to what the rate has in it.

    Whole seconds after begin_s and before the last arrival; None where they hold too few. moved: as in `fit_gaps`. Of a burstier process than Poisson the places hang
    together, as if they were fewer by its dispersion of counts; of a more regular one the p-value is too high, never too low.
    """
    last = math.floor(min(arrivals_s[-1], schedule.length_s)) if len(arrivals_s) else 0
    inside = arrivals_s[(arrivals_s >= math.ceil(begin_s)) & (arrivals_s < last)]
    if len(inside) < LEAST_FIT:
        return None
    second = np.floor(inside)
    at, begin, end = (expected(schedule, time_s) for time_s in (inside, second, second + 1))
    return _fit((at - begin) / (end - begin), allowed=moved, dependence=max(1.0, (cv_of(schedule) or 0.0) ** 2))


def memory(requests: Values) -> Memory:
    """Autocorrelation of the gaps of rescaled arrivals at the first lags; without memory its standard error is n^-1/2 (Bartlett)."""
    gaps = np.diff(requests)
    correlations = [_correlation(gaps, lag) for lag in range(1, MEMORY_LAGS + 1)]
    return Memory(correlations=[one for one in correlations if one is not None], standard_error=len(gaps) ** -0.5)


def variation(requests: Values) -> float | None:
    """Coefficient of variation of the gaps of rescaled arrivals, ascending; None of fewer than two gaps."""
    gaps = np.diff(requests)
    return float(gaps.std() / gaps.mean()) if len(gaps) > 1 and gaps.any() else None


def dispersion(arrivals: NDArray[np.generic], edges: NDArray[np.generic], requests: Values) -> float | None:
    """Variance over mean of the counts of arrivals between edges, both ascending on one clock.

    requests: what the rate has up to each edge. Where that is the same in every window this is the index of dispersion of counts; else it is
    Pearson's chi-square over its degrees of freedom, which the index is, too (Fisher). None for fewer than `LEAST_WINDOWS`, or no arrival.
    """
    shares = np.diff(requests)
    counts = np.diff(np.searchsorted(arrivals, edges)).astype(np.float64)
    if len(counts) < LEAST_WINDOWS or not counts.any() or not (shares > 0).all():
        return None
    means = shares * (counts.sum() / shares.sum())
    return float(((counts - means) ** 2 / means).sum() / (len(counts) - 1))


def ks_p(distance: float, count: float) -> float:
    """How often `count` values of the very law lie as far from it (Vrbik 2018, Pioneer J. Theor. Appl. Stat. 15:15: the limit law, corrected)."""
    root = math.sqrt(count)
    return float(kolmogorov(root * distance + 1 / (6 * root) + (root * distance - 1) / (4 * count)))


def law_of(schedule: Schedule) -> Callable[[Values], Values] | None:
    """The distribution function of the process's rescaled gaps; None where they are no random numbers."""
    if schedule.process not in ("poisson", "gamma"):
        return None
    shape = schedule.burstiness if schedule.process == "gamma" else 1.0
    return lambda gaps: np.asarray(gammainc(shape, shape * gaps))


def cv_of(schedule: Schedule) -> float | None:
    """The coefficient of variation of the process's rescaled gaps; None for a trace."""
    if schedule.process == "trace":
        return None
    return 0.0 if schedule.process == "constant" else 1.0 if schedule.process == "poisson" else schedule.burstiness**-0.5


def _planned(
    index: NDArray[np.int64], due_ns: Stamps, schedule: Schedule, start_ns: int, count: int | None
) -> tuple[Stamps, int, bool | None]:
    """The dues that the schedule gives, the start instant, and whether each recorded due is the schedule's. index: ascending."""
    if schedule.process == "trace":
        return np.sort(due_ns), start_ns or int(due_ns.min()), None
    offsets = offsets_ns(schedule, count=count)
    known = index < len(offsets)
    if not known[0]:
        return np.sort(due_ns), start_ns or int(due_ns.min()), False
    start_ns = start_ns or int(due_ns[0] - offsets[index[0]])
    same = np.array_equal(due_ns[known], start_ns + offsets[index[known]])
    return offsets + start_ns, start_ns, bool(known.all()) and same


def _rescaling(schedule: Schedule, origin_ns: int) -> Callable[[Stamps], Values]:
    """From stamps to the requests that the rate has until then; of a trace, which has none, to seconds."""
    if schedule.process == "trace":
        return lambda stamps_ns: (stamps_ns - origin_ns) / 1e9
    return lambda stamps_ns: expected(schedule, (stamps_ns - origin_ns) / 1e9)


def _per_second(requests: Values, stamps_ns: Stamps) -> float | None:
    if len(stamps_ns) < 2 or stamps_ns[-1] == stamps_ns[0]:
        return None
    return float(requests[-1] - requests[0]) / (int(stamps_ns[-1] - stamps_ns[0]) / 1e9)


def _achieved_rps(sent_ns: Stamps, planned_ns: Stamps) -> float | None:
    """From first due to last send: a late beginning is no higher rate."""
    if len(sent_ns) < 2 or len(planned_ns) < 2:
        return None
    length_ns = max(int(sent_ns.max()), int(planned_ns[-1])) - int(planned_ns[0])
    return (len(sent_ns) - 1) / (length_ns / 1e9) if length_ns else None


def _dispersion(window_s: float, planned_ns: Stamps, sent_ns: Stamps, within: Stretch, rescaled: Callable[[Stamps], Values]) -> Dispersion:
    """Of the windows that are whole."""
    width_ns = round(window_s * 1e9)
    windows = (within.end_ns - within.start_ns) // width_ns
    edges = within.start_ns + np.arange(windows + 1) * width_ns
    requests = rescaled(edges)
    return Dispersion(
        window_s=window_s,
        windows=windows,
        planned=dispersion(planned_ns, edges, requests),
        sent=dispersion(sent_ns, edges, requests),
    )


def _send_lag(lag_s: Values) -> SendLag | None:
    """lag_s: in the order of the dues."""
    if not len(lag_s):
        return None
    p50, p90, p99, p999 = np.percentile(lag_s, (50, 90, 99, 99.9)).tolist()
    return SendLag(
        count=len(lag_s),
        mean=float(lag_s.mean()),
        min=float(lag_s.min()),
        p50=p50,
        p90=p90,
        p99=p99,
        p999=p999,
        max=float(lag_s.max()),
        correlation=_correlation(lag_s, 1),
        late=int(np.count_nonzero(lag_s > PRECISION_S)),
        late_after_s=PRECISION_S,
    )


def _correlation(values: Values, lag: int) -> float | None:
    """Autocorrelation; None where nothing varies."""
    around = values - values.mean()
    square = float((around**2).sum())
    return float((around[:-lag] * around[lag:]).sum()) / square if square and len(values) > lag else None


def _fit(uniform: Values, *, allowed: float, dependence: float = 1.0) -> Fit:
    """Kolmogorov-Smirnov of what should be uniform. dependence: how many values say as much as one independent one."""
    ordered, n = np.sort(uniform), len(uniform)
    distance = float(max((np.arange(1, n + 1) / n - ordered).max(), (ordered - np.arange(n) / n).max()))
    return Fit(count=n, distance=distance, p=ks_p(max(distance - allowed, 0.0), n / dependence))
