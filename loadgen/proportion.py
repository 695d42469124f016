"""How sure a share is: exact bounds of a proportion.

Knows counts; must not know what they count, nor how many independent samples a series is worth (`dependence.py`). Pure. Law: no normal
approximation: near 0 and 1, where objectives lie, it promises too much.

Bounds: Clopper and Pearson (1934, Biometrika 26:404). `n - t` of n within: a share of at least p is shown with confidence c where
I_p(n - t, t + 1) <= 1 - c, I being the regularised incomplete beta function (MLPerf's early stopping is the same); counts of effective
samples need not be whole, which I takes as it is.
"""

from __future__ import annotations

from scipy.special import betaincinv


def lower_bound(yes: float, n: float, confidence: float) -> float:
    """The least share that `yes` of `n` independent samples allow, one-sided: it is missed once in 1 / (1 - confidence) times."""
    return float(betaincinv(yes, n - yes + 1, 1 - confidence)) if yes > 0 else 0.0


def upper_bound(yes: float, n: float, confidence: float) -> float:
    """The largest share that they allow, one-sided."""
    return float(betaincinv(yes + 1, n - yes, confidence)) if yes < n else 1.0
