"""How sure a share is: bounds of a proportion, and how many independent samples a dependent series is worth.

Knows counts and series of yes and no; must not know what they count. Pure. Law: no normal approximation: near 0 and 1, where objectives
lie, it promises too much.

Bounds: Clopper and Pearson (1934, Biometrika 26:404). `n - t` of n within: a share of at least p is shown with confidence c where
I_p(n - t, t + 1) <= 1 - c, I being the regularised incomplete beta function (MLPerf's early stopping is the same); counts of effective
samples need not be whole, which I takes as it is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincinv

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCHES = 30  # of batch means; validity is best with 20 to 30 (Schmeiser 1982, Operations Research 30:556)
_LEAST_BATCH = 5  # requests: smaller batches of yes and no have no means worth a variance


def lower_bound(yes: float, n: float, confidence: float) -> float:
    """The least share that `yes` of `n` independent samples allow, one-sided: it is missed once in 1 / (1 - confidence) times."""
    return float(betaincinv(yes, n - yes + 1, 1 - confidence)) if yes > 0 else 0.0


def upper_bound(yes: float, n: float, confidence: float) -> float:
    """The largest share that they allow, one-sided."""
    return float(betaincinv(yes + 1, n - yes, confidence)) if yes < n else 1.0


def effective_samples(series: NDArray[np.bool_]) -> float:
    """Independent samples that give a share of the same variance, between 1 and n: the fewer of two estimates.

    By autocorrelation, n (1 - r1) / (1 + r1), which is too many where dependence outlasts an AR(1)'s; and by the variance of the means of 30
    batches, which is too many where a batch is shorter than the dependence. 0 of no sample.
    """
    n = len(series)
    values = series.astype(np.float64) - series.mean() if n else np.zeros(0)
    variance = float(values @ values) / n if n else 0.0
    if not variance:
        return float(n)  # all the same: nothing is known of their dependence
    r1 = max(float(values[1:] @ values[:-1]) / n / variance, 0.0)
    estimates = [n * (1 - r1) / (1 + r1)]
    size = n // _BATCHES
    if size >= _LEAST_BATCH:
        means = values[: size * _BATCHES].reshape(_BATCHES, size).mean(axis=1)
        estimates.append(n * variance / size / max(float(means.var(ddof=1)), math.ulp(0.0)))
    return min(max(min(estimates), 1.0), float(n))
