"""The histogram against raw values: within its bound, whatever the order of folding."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.histogram import EXACT, RELATIVE_BOUND, Histogram

VALUES = st.lists(st.integers(0, 2**50), max_size=60)


def filled(values):
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


def same(a, b):
    return (a._counts, a.count, a.total, a.minimum, a.maximum) == (b._counts, b.count, b.total, b.minimum, b.maximum)


def test_the_bound_is_what_the_design_allows():
    """At most 0.1 % relative."""
    assert RELATIVE_BOUND <= 0.001


@settings(deadline=None)
@given(VALUES.filter(bool), st.floats(0, 100))
def test_a_percentile_is_within_the_bound_of_numpys(values, percent):
    """NumPy on the raw values is the truth, linear interpolation included."""
    truth = np.percentile(np.array(values), percent)
    assert filled(values).percentile(percent) == pytest.approx(truth, rel=RELATIVE_BOUND, abs=1e-6)


@settings(deadline=None)
@given(VALUES)
def test_small_numbers_are_exact(values):
    """Below the first octave that is cut, each number is its own bucket."""
    values = [value % EXACT for value in values]
    histogram = filled(values)
    assert [histogram.order_statistics([rank])[rank] for rank in range(len(values))] == sorted(values)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_merging_is_the_same_as_having_seen_both(left, right):
    """In either order, through msgpack too."""
    merged = filled(left)
    merged.merge(Histogram.unpack(msgspec.msgpack.decode(msgspec.msgpack.encode(filled(right).pack()))))
    assert same(merged, filled(left + right))
    other = filled(right)
    other.merge(filled(left))
    assert same(merged, other)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 2**50), st.integers(0, 4)), max_size=60))
def test_folding_an_array_is_adding_one_by_one(weighted):
    """The same buckets, sums and extremes; a weight of 0 is no value."""
    folded = Histogram()
    folded.add_array(np.array([v for v, _ in weighted], np.int64), np.array([n for _, n in weighted], np.int64))
    assert same(folded, filled([value for value, n in weighted for _ in range(n)]))
    folded = Histogram()
    folded.add_array(np.array([v for v, _ in weighted], np.int64))
    assert same(folded, filled([value for value, _ in weighted]))


def test_mean_and_spread():
    """The mean is exact; the spread is of the buckets' middles."""
    histogram = filled([1, 2, 3, 1_000_000])
    assert histogram.mean == 250_001.5
    assert histogram.std == pytest.approx(np.std([1, 2, 3, 1_000_000], ddof=1), rel=0.001)


def test_an_empty_one_has_no_numbers():
    """nan, not 0: nothing was measured."""
    empty = Histogram()
    assert math.isnan(empty.mean) and math.isnan(empty.percentile(50)) and math.isnan(empty.std)
    assert same(Histogram.unpack(empty.pack()), empty)
    assert repr(empty) == "<Histogram empty>"
    assert repr(filled([5])) == "<Histogram n=1 p50=5 p99=5 max=5>"


def test_what_is_no_histogram_is_refused():
    """A message of another shape is an error, not an empty histogram."""
    with pytest.raises(msgspec.ValidationError):
        Histogram.unpack(["x"])
