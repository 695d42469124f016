"""How much samples that follow each other say, when each is like the one before: as how many independent ones they count.

Knows series of numbers in the order of time; must not know what they are. Pure. Law: dependent samples never count as more than they are,
and what all equals says nothing of dependence.

The variance of a sum of n samples is n times the sum of their autocovariances over all lags (Priestley 1981, 5.3). Far lags are noise, so
the sum ends by Geyer's initial monotone sequence (1992, Statistical Science 7:473): pairs of neighbouring lags, while positive, none above
the one before. Of a quantile, the samples are those of "is it below" (Vehtari et al. 2021, Bayesian Analysis 16:667).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Longer series are summed up in as many groups: the variance of their sum is the same, the transform costs under a millisecond.
GROUPS = 4096
# Fewer say nothing of their dependence, and are taken for independent: what is told of so few is uncertain enough.
LEAST = 20
# Autocovariances about a mean that was estimated are too small by the mean's own variance; a correction beyond tenfold is a guess.
_MOST_CORRECTION = 10.0


def effective_samples(series: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    """Independent samples whose mean is as sure as that of `series` (n,), in the order of time: between 1 and n, 0 of none."""
    n = len(series)
    if n < LEAST:
        return float(n)
    deviations = series - series.mean(dtype=np.float64)
    return effective_of_groups(grouped(deviations), n, float(deviations @ deviations) / n)


def effective_of_groups(sums: NDArray[np.float64], samples: int, variance: float) -> float:
    """The same of `samples` that were summed up in consecutive groups: sums (groups,) of their deviations. variance: of one sample."""
    if not variance * samples:
        return float(samples)
    inflation = len(sums) * long_run_variance(sums) / (samples * variance)
    return samples / max(inflation * min(1 / max(1 - inflation / samples, 1 / _MOST_CORRECTION), _MOST_CORRECTION), 1.0)


def grouped(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over at most `GROUPS` consecutive parts."""
    n = len(deviations)
    return deviations if n <= GROUPS else np.add.reduceat(deviations, np.arange(GROUPS) * n // GROUPS)


def long_run_variance(series: NDArray[np.float64]) -> float:
    """Variance of the sum of a long stretch of `series`, over its length: the plain variance where nothing depends on anything."""
    n = len(series)
    centred = series - series.mean()
    if n < 2:
        return 0.0
    size = 1 << (2 * n - 1).bit_length()  # padded: the transform's own autocovariance is circular
    spectrum = np.fft.rfft(centred, size)
    lags = np.fft.irfft(spectrum * spectrum.conj(), size)[:n] / n
    pairs = lags[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    kept = np.minimum.accumulate(pairs[: ends[0] if len(ends) else len(pairs)])
    return max(float(2 * kept.sum() - lags[0]), 0.0)
