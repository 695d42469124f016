"""As how many independent samples dependent ones count, and whether intervals that go by it hold what they promise. Seeds are fixed."""

import numpy as np
import pytest
from scipy.stats import norm

from loadgen.dependence import GROUPS, LEAST, effective_of_groups, effective_samples, grouped
from loadgen.percentiles import describe, interval_ranks, spread_ranks
from tests.loadgen.series import autoregressive, independent, queue

ROWS = 200  # series of each kind: a share of 95 % of them is known within 4.6 % (3 standard errors)
TOLERANCE = 0.046


PERCENTS = (50, 90, 99)


def coverage(rows, truths):
    """For each percentile: of the series, those whose interval holds the true one; a side that no sample bounds holds all."""
    held = np.zeros(len(PERCENTS))
    for row in rows:
        found = describe(row, PERCENTS).percentiles.values()
        held += [(p.low is None or p.low <= truth) and (p.high is None or truth <= p.high) for p, truth in zip(found, truths, strict=True)]
    return held / len(rows)


def naive_coverage(rows, truth):
    """Of the median, were all samples independent."""
    low, high = interval_ranks(rows.shape[1], 50)
    ordered = np.sort(rows, axis=1)
    return float(((ordered[:, low - 1] <= truth) & (truth <= ordered[:, high - 1])).mean())


@pytest.mark.parametrize(
    ("rows", "quantile"),
    [
        (independent(1, ROWS, 2_000), lambda p: -np.log(1 - p)),
        (autoregressive(2, ROWS, 2_000, 0.5), norm.ppf),
        (autoregressive(3, ROWS, 2_000, 0.9), norm.ppf),
        (queue(4, ROWS, 4_000, 0.5), lambda p: -np.log(1 - p)),  # mean 1
        (queue(5, ROWS, 10_000, 0.8), lambda p: -4 * np.log(1 - p)),  # mean 4
    ],
    ids=["independent", "AR(1) 0.5", "AR(1) 0.9", "half full queue", "queue at 80 %"],
)
def test_intervals_hold_the_true_percentile_as_often_as_they_say(rows, quantile, request):
    """At least 95 %, less 3 standard errors, of median, p90 and p99. Intervals as of independent samples hold it less than 85 times in 100."""
    truths = [float(quantile(percent / 100)) for percent in PERCENTS]
    assert coverage(rows, truths).min() >= 0.95 - TOLERANCE
    if "independent" not in request.node.callspec.id:
        assert naive_coverage(rows, truths[0]) < 0.85


@pytest.mark.parametrize("phi", [0.5, 0.9])
def test_an_autoregressive_series_counts_as_theory_says(phi):
    """n (1 - phi) / (1 + phi), on average over the series, within 15 % (Geyer's rule cuts far lags off)."""
    rows = autoregressive(6, 100, 5_000, phi)
    found = np.mean([effective_samples(row) for row in rows])
    assert found == pytest.approx(5_000 * (1 - phi) / (1 + phi), rel=0.15)


def test_independent_samples_count_nearly_whole_and_never_more():
    """What looks like dependence by chance costs a tenth on average; what alternates counts no more than it is."""
    found = [effective_samples(row) for row in independent(7, 100, 1_000)]
    assert max(found) <= 1_000
    assert np.mean(found) >= 900
    assert effective_samples(np.tile([0.0, 1.0], 500)) == 1_000


def test_what_says_nothing_of_dependence_is_taken_for_independent():
    """Equal samples, and very few."""
    assert effective_samples(np.full(100, 2.0)) == 100
    assert effective_samples(np.arange(LEAST - 1.0)) == LEAST - 1
    assert effective_samples(np.zeros(0)) == 0


def test_a_long_series_counts_the_same_in_groups():
    """More samples than groups: sums over neighbours have the same variance over long stretches."""
    (row,) = autoregressive(8, 1, 20 * GROUPS, 0.9)
    deviations = row - row.mean()
    assert len(grouped(deviations)) == GROUPS
    assert grouped(deviations).sum() == pytest.approx(deviations.sum(), abs=1e-6)
    whole = effective_of_groups(deviations, len(row), float(row.var()))
    assert effective_samples(row) == pytest.approx(whole, rel=0.15)


def test_samples_of_one_moment_count_as_one_of_them():
    """64 streams that all wait for the same step of the server: 64,000 gaps, and as many samples as there were steps."""
    steps = np.random.default_rng(9).exponential(size=1_000)
    gaps, moments = np.repeat(steps, 64), np.repeat(np.arange(1_000), 64)
    together, apart = describe(gaps, [50], moments), describe(steps, [50])
    assert together.percentiles["p50"].effective == pytest.approx(apart.percentiles["p50"].effective, rel=0.05)
    assert together.percentiles["p50"].low == pytest.approx(apart.percentiles["p50"].low, rel=0.02)


@pytest.mark.parametrize("n", [1, 20, 1_000])
@pytest.mark.parametrize("percent", [50, 99])
def test_ranks_are_spread_over_what_there_is(n, percent):
    """All of them independent: the ranks of the binomial; ten times as many that count the same: ten times as high ones."""
    low, high = interval_ranks(n, percent)
    assert spread_ranks(n, n, percent) == (low, high)
    wide = spread_ranks(10 * n + 9, n, percent)  # 10 (n + 1) gaps between samples and ends
    assert wide == (None if low is None else 10 * low, None if high is None else 10 * high)
