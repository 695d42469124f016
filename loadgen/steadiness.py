"""Was a stretch of a run the same from its beginning to its end; and where does its beginning end?

Knows stamps and series as arrays, in the order in which requests were due; judges nothing (`verdict.py`). Pure.
Law: a drift is more than chance gives to samples as dependent as these are, and large enough to matter; what is too short to tell is said
to be so, never called steady.

Warm-up: MSER-5 (White 1997, Simulation 69:323): of the means of five requests each, leave out the first d for which the standard error of
the rest is least; where that is more than half of them, there is none. Drift, of ranks, so that no tail decides: a straight line
against time (t of the slope) or one step (cumulative sums, against the supremum of a Brownian bridge: Ploberger & Kraemer 1992, Econometrica
60:271), whichever fits better; with the variance that the residuals have over long stretches (`dependence.py`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import kolmogorov, stdtr

from loadgen.dependence import effective_samples
from loadgen.evidence import Drift, Little, Steadiness
from loadgen.stretch import Stretch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadgen.plan_facts import PlanFacts

_BATCH = 5
_LEAST_BATCHES = 20  # of MSER: 100 requests
_SPARED = 5  # the last batches: a variance of so few is small by chance (Hoad et al. 2010, J. of Simulation 4:103)
# Chance may call a steady metric drifting this often; two metrics are looked at, so a steady run is called so once in a hundred times.
CHANCE = 0.005
# Below so many effective samples their dependence itself is not known well: there a drift must be beyond doubt, and as large as the median.
LEAST_EFFECTIVE = 100
_BEYOND_DOUBT, _LARGE = 1e-6, 1.0
# A tenth of the median: below that a run answers the same question.
MATERIAL = 0.10
# More samples tell no more of a drift: of longer series every k-th is looked at.
_MOST = 20_000
_POINTS = 64  # medians along the time that a slope is taken from


class Series(NamedTuple):
    """One metric of the successful requests of a stretch, by due: seconds from due, (n,) each."""

    metric: str
    due_ns: NDArray[np.int64]
    values: NDArray[np.float64]


def find_warm_up(latency: Series, window: Stretch) -> tuple[Stretch | None, str]:
    """The window without its warm-up, or None and why. Of a window with too few requests, all of it."""
    left_out = warm_up(latency.values)
    if left_out is None:
        return None, "requests settled at no time in the first half of the measuring window (MSER-5)"
    return (Stretch(int(latency.due_ns[left_out]), window.end_ns) if left_out else window), ""


def steadiness(
    found: Sequence[Series], little: Little | None, *, steady: Stretch | None, window: Stretch, origin_ns: int, facts: PlanFacts
) -> Steadiness:
    """Of the steady stretch; where there is none, of the measuring window, of an open loop alone. found, little: of that stretch."""
    absent = ""
    if not facts.even:
        absent = "the load was planned to change"
    elif steady is None and not facts.open_loop:
        absent = "there is no steady stretch"
    enough = [] if absent else [one for one in found if len(one.values) >= _BATCH * _LEAST_BATCHES]
    if not enough:
        absent = absent or f"fewer than {_BATCH * _LEAST_BATCHES} requests succeeded"
    looked_at = [drift(one, origin_ns) for one in enough]
    return Steadiness(
        absent=absent,
        warmup_s=(steady.start_ns - window.start_ns) / 1e9 if facts.open_loop and steady is not None else None,
        effective=min((effective for _, effective in looked_at), default=None),
        drifts=[one for one, _ in looked_at if one is not None],
        little=little,
    )


def warm_up(values: NDArray[np.float64]) -> int | None:
    """How many of the first samples MSER-5 leaves out: 0 of too few to tell, None where it would be more than half of them."""
    batches = len(values) // _BATCH
    if batches < _LEAST_BATCHES:
        return 0
    means = values[: batches * _BATCH].reshape(batches, _BATCH).mean(axis=1)
    means = means - means.mean()  # what is subtracted below is then of the same size
    rest = batches - np.arange(batches - _SPARED)
    sums, squares = (np.cumsum(each[::-1])[::-1][: len(rest)] for each in (means, means**2))
    left_out = int(np.argmin((squares - sums**2 / rest) / rest**2))
    return left_out * _BATCH if left_out <= batches / 2 else None


def drift(series: Series, origin_ns: int) -> tuple[Drift | None, int]:
    """(what drifted, None where nothing did; effective samples)."""
    metric, step = series.metric, -(-len(series.values) // _MOST)
    at_s, values = (series.due_ns[::step] - origin_ns) / 1e9, series.values[::step]
    n, ranks, median = len(values), _ranks(values), float(np.median(values))
    time = at_s - at_s.mean()
    line = ranks - time * (time @ ranks) / max(float(time @ time), 1e-9)
    cut = int(np.argmax(np.abs(np.cumsum(ranks)[:-1]))) + 1
    before, after = values[:cut], values[cut:]
    flat = ranks - np.where(np.arange(n) < cut, ranks[:cut].mean(), ranks[cut:].mean())
    if line @ line <= flat @ flat:
        p, effective = _p_of_slope(time, ranks, line)
        found = Drift(
            metric=metric, kind="trend", p=p, share=float(_slope(at_s, values) * (at_s[-1] - at_s[0])) / median, at_s=float(at_s[0])
        )
    else:
        p, effective = _p_of_step(ranks, flat)
        found = Drift(metric=metric, kind="change", p=p, share=float(np.median(after) / np.median(before)) - 1, at_s=float(at_s[cut]))
    chance, least = (CHANCE, MATERIAL) if effective >= LEAST_EFFECTIVE else (_BEYOND_DOUBT, _LARGE)
    return (found if p < chance and abs(found.share) >= least else None), int(effective)


def little(sent_ns: NDArray[np.int64], end_ns: NDArray[np.int64], in_flight: float, stretch: Stretch) -> Little | None:
    """Little's law over the stretch, of all that was sent; None where nothing ended in it. in_flight: on average."""
    ended = (sent_ns > 0) & (end_ns > stretch.start_ns) & (end_ns <= stretch.end_ns)
    if not ended.any() or not in_flight:
        return None
    rate_rps = float(np.count_nonzero(ended)) / stretch.length_s
    residence_s = float((end_ns[ended] - sent_ns[ended]).mean()) / 1e9
    return Little(in_flight=in_flight, ended_rps=rate_rps, residence_s=residence_s, off=abs(in_flight - rate_rps * residence_s) / in_flight)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks less their mean; equal values share one."""
    _, place, times = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(times) - (times - 1) / 2)[place]
    ranks -= ranks.mean()
    return ranks


def _p_of_slope(time: NDArray[np.float64], ranks: NDArray[np.float64], residuals: NDArray[np.float64]) -> tuple[float, float]:
    n, effective = len(ranks), effective_samples(residuals)
    freedom = max(effective - 2, 1.0)
    variance = float(residuals @ residuals) / n * n / effective  # of one sample, as if all n were independent
    spread = float(time @ time)
    if not variance * spread:
        return 1.0 if not ranks.any() else 0.0, effective
    return 2 * float(stdtr(freedom, -abs(float(time @ ranks)) / (variance * spread) ** 0.5)), effective


def _p_of_step(ranks: NDArray[np.float64], residuals: NDArray[np.float64]) -> tuple[float, float]:
    n, effective = len(ranks), effective_samples(residuals)
    variance = float(residuals @ residuals) / effective
    if not variance:
        return 1.0 if not ranks.any() else 0.0, effective
    return float(kolmogorov(float(np.abs(np.cumsum(ranks)).max()) / (variance * n) ** 0.5)), effective


def _slope(at_s: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Theil and Sen: the median of the slopes between any two of `_POINTS` medians along the time."""
    parts = min(_POINTS, len(values))
    edges = np.arange(parts + 1) * len(values) // parts
    times, levels = (np.array([np.median(each[a:b]) for a, b in pairwise(edges.tolist())]) for each in (at_s, values))
    first, second = np.triu_indices(parts, 1)
    apart = times[second] - times[first]
    return float(np.median((levels[second] - levels[first])[apart > 0] / apart[apart > 0])) if (apart > 0).any() else 0.0
