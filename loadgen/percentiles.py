"""From samples to a distribution: exact percentiles, their confidence intervals, and how many samples they need.

Knows numbers only; no request, no stretch of time. Law: a percentile of raw samples is NumPy's default (linear interpolation,
as vLLM reports it), of a histogram within its stated bound; its interval assumes nothing of the distribution's shape.

Interval (Conover, Practical Nonparametric Statistics, 3.2): with B ~ Bin(n, p), order statistics x(l) and x(u) enclose the
quantile with 95 %, l the largest rank with P[B < l] <= 2.5 %, u the smallest with P[B < u] >= 97.5 %. Samples that depend on each other
count as fewer, n_eff (`dependence.py`): the ranks are then those of n_eff samples, spread out over the n that there are.
Needs (MLPerf early stopping, no sample beyond): n >= ln(1 - c) / ln(p) samples show that a quantile lies below the largest one.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import bdtr, bdtrik

from loadgen.dependence import effective_of_groups, effective_samples
from loadgen.distribution import Distribution, Percentile, percentile_key
from loadgen.histogram import RELATIVE_BOUND

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from loadgen.histogram import Histogram

# One level for interval and need; at 95 % p99 needs 299 samples (at MLPerf's 99 % it would be 459).
CONFIDENCE = 0.95
# In percent: where a tenth of the samples is on the far side, hundreds of them show how these come in runs.
_TAIL = 90.0


def samples_needed(percent: float) -> int:
    """The fewest samples that say something about this percentile: p50 5, p90 29, p95 59, p99 299, p99.9 2995."""
    tail = max(percent, 100 - percent) / 100
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(tail)) if tail < 1 else 1


@lru_cache(maxsize=4096)  # a summary asks for a few percentiles of the same few sizes again and again
def interval_ranks(n: int, percent: float) -> tuple[int | None, int | None]:
    """Ranks (1 = smallest) of the samples that enclose the percentile; None where no sample is low or high enough."""
    p, tail = percent / 100, (1 - CONFIDENCE) / 2
    if not 0 < p < 1:
        return None, None
    # bdtrik inverts the distribution over real k: near enough to step to the integer by the distribution itself.
    low = _nearest(bdtrik(tail, n, p), n)
    while low > 0 and _below(low, n, p) > tail:
        low -= 1
    while low < n and _below(low + 1, n, p) <= tail:
        low += 1
    high = _nearest(bdtrik(1 - tail, n, p), n)
    while high <= n and _below(high, n, p) < 1 - tail:
        high += 1
    while high > 1 and _below(high - 1, n, p) >= 1 - tail:
        high -= 1
    return low or None, high if high <= n else None


def spread_ranks(n: int, effective: int, percent: float) -> tuple[int | None, int | None]:
    """The same among n samples that count as `effective` independent ones: each of these is about the n / effective-th of them."""
    low, high = interval_ranks(effective, percent)
    if effective < n:
        low = None if low is None else low * (n + 1) // (effective + 1)
        high = None if high is None else -(-high * (n + 1) // (effective + 1))
    return low, high


def describe(
    samples: NDArray[np.float64], percents: Sequence[float], moments: NDArray[np.integer[Any]] | None = None
) -> Distribution | None:
    """The distribution of raw samples (seconds); None of no samples.

    They are in the order of time, one after the other; or `moments` (n,) says into which of equal parts of time each falls, and those of one part are
    as dependent as they like.
    """
    n = len(samples)
    if not n:
        return None
    ordered = np.sort(samples)
    values = np.percentile(ordered, list(percents))
    effective = effective_at(samples, ordered, percents, moments)
    return Distribution(
        count=n,
        mean=float(ordered.mean()),
        std=float(ordered.std(ddof=1)) if n > 1 else None,
        min=float(ordered[0]),
        max=float(ordered[-1]),
        percentiles=_percentiles(n, effective, percents, values.tolist(), lambda rank: float(ordered[rank - 1])),
    )


def effective_at(
    samples: NDArray[np.float64], ordered: NDArray[np.float64], percents: Sequence[float], moments: NDArray[np.integer[Any]] | None
) -> list[int]:
    """Effective samples of each percentile: of "is a sample below it". ordered: the same, sorted.

    Beyond `_TAIL` there are too few on the far side to see their dependence by: there it is taken as at `_TAIL`, where there is more of it.
    """
    found: dict[float, int] = {}
    for percent in percents:
        looked_at = min(max(percent, 100 - _TAIL), _TAIL)
        if looked_at not in found:
            below = samples <= np.percentile(ordered, looked_at)
            if moments is None:
                effective = effective_samples(below)
            else:
                share = float(below.mean())
                effective = effective_of_groups(np.bincount(moments, below - share).astype(np.float64), len(below), share * (1 - share))
            found[looked_at] = max(int(effective), 1)
    return [found[min(max(percent, 100 - _TAIL), _TAIL)] for percent in percents]


def describe_histogram(
    histogram: Histogram, percents: Sequence[float], unit_s: float, effective: Sequence[int] | None = None
) -> Distribution | None:
    """The same of a histogram whose numbers are in units of `unit_s` seconds, within its bound.

    effective: samples of each percentile that count; without them all were independent.
    """
    n = histogram.count
    if not n:
        return None
    counting = [n] * len(percents) if effective is None else list(effective)
    every = [spread_ranks(n, each, percent) for each, percent in zip(counting, percents, strict=True)]
    ranks = sorted({rank - 1 for pair in every for rank in pair if rank is not None})
    found = histogram.order_statistics(ranks)
    return Distribution(
        count=n,
        mean=histogram.mean * unit_s,
        std=histogram.std * unit_s if n > 1 else None,
        min=histogram.minimum * unit_s,
        max=histogram.maximum * unit_s,
        percentiles=_percentiles(
            n,
            None if effective is None else counting,
            percents,
            [value * unit_s for value in histogram.percentiles(list(percents))],
            lambda rank: found[rank - 1] * unit_s,
        ),
        relative_bound=RELATIVE_BOUND,
    )


def _percentiles(
    n: int, effective: Sequence[int] | None, percents: Sequence[float], values: list[float], at: Callable[[int], float]
) -> dict[str, Percentile]:
    described = {}
    for percent, value, counting in zip(percents, values, effective or [n] * len(percents), strict=True):
        low, high = spread_ranks(n, counting, percent)
        needs = samples_needed(percent)
        described[percentile_key(percent)] = Percentile(
            percent=percent,
            value=value,
            low=None if low is None else at(low),
            high=None if high is None else at(high),
            needs=needs,
            enough=counting >= needs,
            effective=None if effective is None else counting,
        )
    return described


def _below(rank: int, n: int, p: float) -> float:
    """P[B < rank]."""
    return 1.0 if rank > n else float(bdtr(rank - 1, n, p)) if rank > 0 else 0.0


def _nearest(k: float, n: int) -> int:
    return min(max(round(float(k)), 0), n) if math.isfinite(k) else 0
