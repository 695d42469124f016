"""How a quantity is distributed: count, moments, percentiles with their intervals.

Knows shapes and units, as `summary.py`; no arithmetic (`percentiles.py` describes samples, `histogram.py` counts). Law: a percentile says
how many samples it needs and as how many those that there are count; there is no mean of percentiles.
"""

from __future__ import annotations

import msgspec

# A distribution always holds these; others are added when asked for.
STANDARD_PERCENTILES = (50.0, 90.0, 95.0, 99.0)


def percentile_key(percent: float) -> str:
    """The name of a percentile: 99.0 is `p99`, 99.9 is `p99.9`."""
    return f"p{percent:g}"


class Percentile(msgspec.Struct, frozen=True, kw_only=True):
    """One percentile with its 95 % confidence interval by order statistics; a bound is None where no sample can give it.

    needs: the fewest samples that say something about this percentile; with fewer, `enough` is False and the value is printed
    with the mark `n<needs`. effective: as how many independent samples those that there are count here, for samples that follow each
    other are alike (`dependence.py`); interval and `enough` go by it. None: not known, all were taken for independent.
    """

    percent: float
    value: float
    low: float | None
    high: float | None
    needs: int
    enough: bool
    effective: int | None = None

    @property
    def mark(self) -> str:
        """`n<299` where the samples are too few, else nothing."""
        return "" if self.enough else f"n<{self.needs}"


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """How one quantity is distributed over `count` samples, in seconds. std: of the sample (n - 1), None for one sample.

    relative_bound: how far a percentile may lie from the exact one; 0 = exact, by linear interpolation.
    """

    count: int
    mean: float
    std: float | None
    min: float
    max: float
    percentiles: dict[str, Percentile]
    relative_bound: float = 0.0

    @property
    def median(self) -> float:
        return self.percentiles["p50"].value

    def value(self, percent: float) -> float:
        """The percentile's value; KeyError if it was not asked for."""
        return self.percentiles[percentile_key(percent)].value
