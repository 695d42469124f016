"""Percentiles and their intervals against NumPy, SciPy and published tables."""

import numpy as np
import pytest
from scipy.stats import binom

from loadgen.histogram import RELATIVE_BOUND, Histogram
from loadgen.percentiles import describe, describe_histogram, interval_ranks, samples_needed

PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)


@pytest.mark.parametrize(("percent", "needs"), [(50, 5), (90, 29), (95, 59), (99, 299), (99.9, 2995), (10, 29)])
def test_samples_that_a_percentile_needs(percent, needs):
    """The table of MLPerf's early stopping at 95 %; low percentiles need what high ones do."""
    assert samples_needed(percent) == needs


@pytest.mark.parametrize("n", [1, 2, 5, 10, 59, 100, 367, 368, 1_000, 10_000, 1_000_000])
@pytest.mark.parametrize("percent", [1, 50, 90, 99, 99.9])
def test_interval_ranks_are_the_tightest_that_the_binomial_allows(n, percent):
    """Against SciPy's distribution: each rank satisfies its bound and its neighbour does not."""
    below = lambda rank: binom.cdf(rank - 1, n, percent / 100)  # noqa: E731  # P[B < rank], as the definition writes it
    low, high = interval_ranks(n, percent)
    if low is not None:
        assert below(low) <= 0.025 < below(low + 1)
    else:
        assert below(1) > 0.025
    if high is not None:
        assert below(high) >= 0.975 > below(high - 1)
    else:
        assert below(n) < 0.975


def test_the_interval_covers_the_true_percentile_as_often_as_it_says():
    """2,000 samples of 200 exponential draws, seed fixed: at least 95 %, less 3 standard errors (1.5 %)."""
    draws = np.random.default_rng(7).exponential(size=(2_000, 200))
    low, high = interval_ranks(200, 90)
    ordered = np.sort(draws, axis=1)
    truth = -np.log(0.1)
    covered = (ordered[:, low - 1] <= truth) & (truth <= ordered[:, high - 1])
    assert covered.mean() >= 0.95 - 0.015


def test_a_distribution_is_numpys():
    """Percentiles by NumPy's default, spread of the sample, extremes, and marks where samples are few."""
    samples = np.random.default_rng(3).lognormal(size=500)
    distribution = describe(samples, PERCENTS)
    assert distribution.count == 500
    assert [distribution.value(percent) for percent in PERCENTS] == np.percentile(samples, PERCENTS).tolist()
    assert (distribution.min, distribution.max, distribution.median) == (samples.min(), samples.max(), np.median(samples))
    assert distribution.mean == pytest.approx(samples.mean())
    assert distribution.std == pytest.approx(samples.std(ddof=1))
    assert {key: percentile.mark for key, percentile in distribution.percentiles.items()} == {
        "p50": "", "p90": "", "p95": "", "p99": "", "p99.9": "n<2995",
    }  # fmt: skip
    for percentile in distribution.percentiles.values():
        assert percentile.low is None or percentile.low <= percentile.value
        assert percentile.high is None or percentile.value <= percentile.high
    assert distribution.percentiles["p99.9"].high is None


def test_one_sample_has_no_spread_and_none_has_no_distribution():
    """What cannot be measured is None."""
    assert describe(np.array([2.0]), PERCENTS).std is None
    assert describe(np.array([]), PERCENTS) is None
    assert describe_histogram(Histogram(), PERCENTS, 1e-9) is None


def test_a_histograms_distribution_is_the_exact_one_within_its_bound():
    """Value and interval alike, and the bound is stated."""
    nanoseconds = np.random.default_rng(5).lognormal(16, 1, 20_000).astype(np.int64)
    histogram = Histogram()
    histogram.add_array(nanoseconds)
    exact = describe(nanoseconds / 1e9, PERCENTS)
    folded = describe_histogram(histogram, PERCENTS, 1e-9, [exact.percentiles[key].effective for key in exact.percentiles])
    assert folded.relative_bound == RELATIVE_BOUND
    assert exact.relative_bound == 0
    assert (folded.count, folded.min, folded.max) == (20_000, pytest.approx(exact.min), pytest.approx(exact.max))
    for key, percentile in exact.percentiles.items():
        other = folded.percentiles[key]
        assert (other.value, other.low) == (
            pytest.approx(percentile.value, rel=RELATIVE_BOUND),
            pytest.approx(percentile.low, rel=RELATIVE_BOUND),
        )
        assert other.high == pytest.approx(percentile.high, rel=RELATIVE_BOUND)
