"""A log-linear histogram of whole numbers, mergeable, with a stated bound.

Knows counts in buckets; knows no unit (the caller's: µs in snapshots, ns for gaps between tokens) and imports no numpy unless
an array is folded in (a worker never does). HdrHistogram's layout: below `EXACT` each number has its own bucket, above it each
octave is cut into equal buckets, 512 of them.
Law: merging is adding, in any order; an order statistic is off by at most half a bucket, `RELATIVE_BOUND` of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from loadgen.packed import Packed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

_BITS: Final = 10  # leading bits of a number that its bucket keeps
_HALF: Final = 1 << (_BITS - 1)
EXACT: Final = 1 << _BITS
RELATIVE_BOUND: Final = 0.5 / _HALF  # half a bucket over the least number of its octave: 0.098 %


class Histogram:
    """Counts of whole numbers >= 0 (a negative one counts as 0). Memory follows the number of different buckets, not of values."""

    __slots__ = ("_counts", "count", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.minimum = 0
        self.maximum = 0

    def __repr__(self) -> str:
        if not self.count:
            return "<Histogram empty>"
        return f"<Histogram n={self.count} p50={self.percentile(50):.0f} p99={self.percentile(99):.0f} max={self.maximum}>"

    def __len__(self) -> int:
        return self.count

    def add(self, value: int) -> None:
        """One more value."""
        value = max(value, 0)
        shift = value.bit_length() - _BITS
        bucket = value if shift <= 0 else shift * _HALF + (value >> shift)
        counts = self._counts
        counts[bucket] = counts.get(bucket, 0) + 1
        self.total += value
        if not self.count or value < self.minimum:
            self.minimum = value
        self.maximum = max(self.maximum, value)
        self.count += 1

    def add_array(self, values: NDArray[np.int64], weights: NDArray[np.int64] | None = None) -> None:
        """Many values at once, each `weights` times: the same buckets as `add`."""
        import numpy as np

        if weights is not None:
            values, weights = values[weights > 0], weights[weights > 0]
        if not len(values):
            return
        values = np.maximum(values, 0)
        shifts = np.maximum(np.frexp(values.astype(np.float64))[1] - _BITS, 0)  # the exponent is bit_length, exact below 2**53
        buckets = shifts * _HALF + (values >> shifts)
        sums = np.bincount(buckets, weights).astype(np.int64)  # with weights a sum of float64: exact below 2**53
        found = np.flatnonzero(sums)
        total = int(values.sum() if weights is None else (values * weights).sum())
        counts = dict(zip(found.tolist(), sums[found].tolist(), strict=True))
        self._absorb(counts, total, int(values.min()), int(values.max()))

    def merge(self, other: Histogram) -> None:
        """Add what the other counted."""
        if other.count:
            self._absorb(other._counts, other.total, other.minimum, other.maximum)

    def pack(self) -> Packed:
        """The same as a value that msgpack takes."""
        return Packed(self.total, self.minimum, self.maximum, list(self._counts), list(self._counts.values()))

    @classmethod
    def unpack(cls, packed: Packed | list[Any]) -> Histogram:
        """From `pack`, or from the list that it is after decoding without a type. Raises msgspec.ValidationError for another shape."""
        packed = msgspec.convert(packed, Packed)
        histogram = cls()
        if packed.buckets:
            histogram._absorb(dict(zip(packed.buckets, packed.counts, strict=True)), packed.total, packed.minimum, packed.maximum)
        return histogram

    @property
    def mean(self) -> float:
        """Exact: the values' own sum over their number; nan when empty."""
        return self.total / self.count if self.count else math.nan

    @property
    def std(self) -> float:
        """Of the sample (n - 1), from the middles of the buckets; nan below two values."""
        if self.count < 2:
            return math.nan
        mean = self.mean
        return math.sqrt(sum(n * (_middle(bucket) - mean) ** 2 for bucket, n in self._counts.items()) / (self.count - 1))

    def percentile(self, percent: float) -> float:
        """With linear interpolation between order statistics, as from raw values; nan when empty."""
        return self.percentiles([percent])[0]

    def percentiles(self, percents: list[float]) -> list[float]:
        """Several at once: one pass over the buckets for all."""
        if not self.count:
            return [math.nan] * len(percents)
        positions = [(self.count - 1) * percent / 100 for percent in percents]
        ranks = {math.floor(position) for position in positions} | {math.ceil(position) for position in positions}
        found = self.order_statistics(sorted(ranks))
        return [
            found[math.floor(position)] + (position % 1) * (found[math.ceil(position)] - found[math.floor(position)])
            for position in positions
        ]

    def order_statistics(self, ranks: list[int]) -> dict[int, float]:
        """The values of these ranks (0 = smallest, ascending), each within `RELATIVE_BOUND`. IndexError beyond the last."""
        found: dict[int, float] = {}
        buckets = iter(sorted(self._counts.items()))
        bucket, below = 0, 0
        for rank in ranks:
            if not 0 <= rank < self.count:
                raise IndexError(f"rank: got {rank}, takes 0 to {self.count - 1}")
            while below <= rank:
                bucket, n = next(buckets)
                below += n
            found[rank] = min(max(_middle(bucket), self.minimum), self.maximum)
        return found

    def _absorb(self, counts: Mapping[int, int], total: int, minimum: int, maximum: int) -> None:
        mine = self._counts
        for bucket, n in counts.items():
            mine[bucket] = mine.get(bucket, 0) + n
        self.minimum = min(self.minimum, minimum) if self.count else minimum
        self.maximum = max(self.maximum, maximum)
        self.count += sum(counts.values())
        self.total += total


def _middle(bucket: int) -> float:
    """The number in the middle of a bucket."""
    if bucket < EXACT:
        return float(bucket)
    shift = bucket // _HALF - 1
    return float(((bucket - shift * _HALF) << shift) + ((1 << shift) - 1) / 2)
