"""Warm-up, drift and Little's law on series whose truth is known. Seeds are fixed; false alarms are counted and stated."""

import numpy as np
import pytest
from written import EVENLY, at, exchange, summarise

from loadgen.steadiness import CHANCE, MATERIAL, Series, drift, little, warm_up
from loadgen.stretch import Stretch
from tests.loadgen.series import autoregressive, independent, queue

ROWS = 300
EVERY_NS = 10_000_000


def drifts(rows):
    """What is found in each series, one sample every 10 ms, and as how many independent ones it counts."""
    due = np.arange(rows.shape[1]) * EVERY_NS
    return [drift(Series("latency", due, row), 0) for row in rows]


@pytest.mark.parametrize(
    "rows",
    [
        1 + independent(1, ROWS, 300),
        independent(2, ROWS, 2_000),
        np.exp(autoregressive(3, ROWS, 2_000, 0.9)),
        queue(4, ROWS, 2_000, 0.5),
        queue(5, ROWS, 2_000, 0.8),
        np.exp(autoregressive(6, ROWS, 300, 0.9)),  # too few effective samples: only what is beyond doubt counts
    ],
    ids=["independent 300", "independent 2000", "AR(1) 0.9", "half full queue", "queue at 80 %", "short AR(1)"],
)
def test_a_steady_series_is_rarely_called_drifting(rows):
    """Chance may call it so once in 200 times (CHANCE) for each metric; 2 % is 3 standard errors above that for 300 series."""
    called = sum(found is not None for found, _ in drifts(rows))
    assert called / ROWS <= CHANCE + 3 * (CHANCE / ROWS) ** 0.5 + 0.003


@pytest.mark.parametrize("sign", [1, -1])
def test_a_trend_is_found_and_measured(sign):
    """Latency that rises or falls by half over the run, in AR(1) noise: all of 50 series, and the share on average within a tenth."""
    line = 1 + sign * 0.5 * (np.linspace(0, 1, 2_000) - 0.5)
    found = [one for one, _ in drifts(line + 0.1 * autoregressive(7, 50, 2_000, 0.5))]
    assert [one.kind for one in found] == ["trend"] * 50
    assert np.mean([one.share for one in found]) == pytest.approx(sign * 0.5, rel=0.1)


def test_a_change_is_found_where_it_is():
    """Latency that is half as long again from two thirds on: all of 50 series, at the time of the change."""
    step = np.where(np.arange(2_000) < 1_333, 1.0, 1.5)
    found = [one for one, _ in drifts(step + 0.1 * autoregressive(8, 50, 2_000, 0.5))]
    assert [one.kind for one in found] == ["change"] * 50
    assert np.mean([one.share for one in found]) == pytest.approx(0.5, rel=0.05)
    assert np.median([one.at_s for one in found]) == pytest.approx(13.33, abs=0.1)


def test_what_drifts_by_little_is_steady():
    """Beyond chance and yet below a tenth of the median: the answer is the same."""
    line = 1 + 0.8 * MATERIAL * (np.linspace(0, 1, 2_000) - 0.5)
    assert [one for one, _ in drifts(line + 0.01 * independent(9, 10, 2_000))] == [None] * 10


def overloaded(seed, rows, n, load):
    """Sojourn times in a queue that begins empty, of equal requests that take `load` of the mean gap between their random arrivals."""
    generator = np.random.default_rng(seed)
    ahead = np.cumsum(load - generator.exponential(1.0, (rows, n)), axis=1)
    return ahead - np.minimum.accumulate(ahead, axis=1) + load


@pytest.mark.parametrize(("load", "found"), [(1.2, 0.5), (1.5, 0.9), (3.0, 1.0)])
def test_a_server_that_is_offered_too_much_is_found_in_a_short_run(load, found):
    """A hundred requests: the times are one long climb, and count as few; of 100 runs at 120 % of capacity half are beyond doubt."""
    assert np.mean([one is not None and one.kind == "trend" for one, _ in drifts(overloaded(10, 100, 100, load))]) >= found


def test_a_climb_that_bends_is_found_though_it_counts_as_few():
    """What is left of it beside a straight line is one slow wave: alike over long stretches, worth few samples."""
    time = np.linspace(0, 1, 180)
    ((found, effective),) = drifts((0.4 + 11.6 * time + 0.3 * np.sin(9 * time))[None, :])
    assert effective < 100
    assert (found.kind, found.share) == ("trend", pytest.approx(2, rel=0.1))


def test_a_long_series_is_looked_at_in_part():
    """A hundred thousand samples: the same drift, found in a fifth of them."""
    line = np.linspace(1, 1.5, 100_000) + 0.1 * independent(11, 1, 100_000)
    ((found, effective),) = drifts(line)
    assert found.kind == "trend"
    assert effective <= 20_000


def test_constant_latency_is_steady():
    """No spread at all: nothing to divide by."""
    assert drifts(np.ones((1, 500)))[0][0] is None


@pytest.mark.parametrize("left_out", [0, 50, 200])
def test_mser_finds_where_a_warm_up_ends(left_out):
    """Three times as slow up to there: cut within two batches of five, on the median of 50 series."""
    slow = np.where(np.arange(1_000) < left_out, 3.0, 1.0)
    found = [warm_up(row) for row in slow + 0.2 * independent(12, 50, 1_000)]
    assert None not in found
    assert np.median(found) == pytest.approx(left_out, abs=10)


def test_a_series_that_never_settles_has_no_warm_up():
    """It climbs faster and faster, so that its end is the least like the rest; of one that settles late, less than half would be left."""
    late = np.where(np.arange(1_000) < 700, 3.0, 1.0) + 0.2 * independent(13, 1, 1_000)[0]
    assert warm_up(late) is None
    assert warm_up(np.ones(99)) == 0  # too few batches to tell


def test_littles_law_holds_where_nothing_crosses_an_edge():
    """Requests of 30 ms one after the other in two slots: N = 2 = X R, exactly."""
    starts = np.array([at(30 * (k // 2)) for k in range(200)])
    found = little(starts, starts + 30_000_000, 2.0, Stretch(at(0), at(3_000)))
    assert (found.ended_rps, found.residence_s) == (pytest.approx(200 / 3), pytest.approx(0.03))
    assert found.off == pytest.approx(0, abs=1e-12)


def test_littles_law_is_off_where_a_backlog_grows():
    """A hundred requests a second fall due and half of them end: 0 to 500 are in flight, old ones, and what ends is young."""
    starts = at(0) + np.arange(1_000) * EVERY_NS
    ends = at(0) + np.arange(1_000) * 2 * EVERY_NS + EVERY_NS
    found = little(starts, ends, 250.0, Stretch(at(0), at(10_000)))
    assert found.off > 0.3
    assert little(np.zeros(3, np.int64), ends[:3], 0.0, Stretch(at(0), at(9))) is None  # nothing was sent


def open_loop(directory, latencies_ms, **facts):
    """A request every 10 ms."""
    rows = [(k, exchange(10 * k, 10 * k + taken, stream=False)) for k, taken in enumerate(latencies_ms)]
    facts = {"max_concurrent": 1_000, "schedule": EVENLY, "duration_s": 10 * len(latencies_ms) / 1e3, **facts}
    return summarise(directory, rows, **facts)


def test_the_steady_stretch_of_an_open_loop_begins_after_its_warm_up(tmp_path):
    """100 requests at three times the latency, then 900: the window goes from the first due on, the stretch from 1 s or a little later."""
    noise = independent(14, 1, 1_000)[0]
    summary = open_loop(tmp_path, np.where(np.arange(1_000) < 100, 60, 20) + 4 * noise)
    assert summary.whole.start_s == 0
    assert 0.95 <= summary.steady.start_s <= 2.0
    assert summary.steadiness.warmup_s == summary.steady.start_s
    assert summary.steadiness.drifts == []
    assert summary.steadiness.little.off < 0.02
    assert summary.steady.latency.max < 0.06 < summary.whole.latency.max


def test_a_load_that_was_planned_to_change_has_no_warm_up_and_is_not_judged(tmp_path):
    """A ramp's latencies rise because they should."""
    summary = open_loop(tmp_path, np.linspace(20, 200, 500), even=False)
    assert summary.steady.start_s == 0
    assert (summary.steadiness.absent, summary.steadiness.drifts) == ("the load was planned to change", [])


def test_an_open_loop_that_never_settles_has_no_steady_stretch_and_is_judged_whole(tmp_path):
    """It changes after two thirds."""
    noise = independent(15, 1, 900)[0]
    summary = open_loop(tmp_path, np.where(np.arange(900) < 600, 60, 20) + 4 * noise)
    assert summary.steady is None
    assert "MSER-5" in summary.steady_absent
    assert [one.kind for one in summary.steadiness.drifts] == ["change"]
