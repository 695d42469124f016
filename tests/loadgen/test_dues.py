"""The dues of a schedule: closed forms of every rate, the law of every process, one sequence whatever is asked of it.

False alarms: laws are tested at fixed seeds with p > 1e-4 each, 12 tests by SciPy's own Kolmogorov-Smirnov: seeds chosen anew would fail one
sound program in 800.
"""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from clients.errors import UsageError
from loadgen import dues
from loadgen.dues import expected, offsets_ns
from loadgen.open_loop import OpenLoop
from loadgen.plan import Plan
from loadgen.schedule import Schedule, Stage

FLAT = (Stage(start_rps=50.0, end_rps=50.0),)
RAMP = (Stage(start_rps=0.0, end_rps=80.0, length_s=20.0, growth="linear"),)
DOWN = (Stage(start_rps=90.0, end_rps=0.0, length_s=20.0, growth="linear"),)
FACTOR = (Stage(start_rps=2.0, end_rps=128.0, length_s=12.0, growth="exponential"),)
STEPS = (
    Stage(start_rps=100.0, end_rps=100.0, length_s=2.5),
    Stage(start_rps=20.0, end_rps=60.0, length_s=3.0, growth="linear"),
    Stage(start_rps=40.0, end_rps=10.0, length_s=4.0, growth="exponential"),
    Stage(start_rps=30.0, end_rps=30.0),
)
SHAPES = [FLAT, RAMP, DOWN, FACTOR, STEPS]


def schedule(process="constant", stages=FLAT, **settings):
    return Schedule(process=process, stages=stages, **settings)


def rate_rps(stages, t):
    """The rate at a moment, from its definition."""
    for stage in stages:
        if stage.length_s is None or t < stage.length_s:
            share = t / (stage.length_s or 1.0)
            if stage.growth == "exponential":
                return stage.start_rps * (stage.end_rps / stage.start_rps) ** share
            return stage.start_rps + (stage.end_rps - stage.start_rps) * share
        t -= stage.length_s
    return 0.0


def edges(stages):
    return np.cumsum([stage.length_s for stage in stages if stage.length_s is not None])


@pytest.mark.parametrize("stages", SHAPES)
def test_expected_is_the_integral_of_the_rate(stages):
    """Numerical quadrature of the rate's definition gives the same, at every stage and beyond the end."""
    for t in (0.0, 0.3, 2.5, 4.0, 7.7, 11.0, 25.0):
        points = [edge for edge in edges(stages) if 0 < edge < t]
        truth, _ = integrate.quad(lambda at: rate_rps(stages, at), 0, t, points=points or None, limit=200)
        assert expected(schedule(stages=stages), np.array([t]))[0] == pytest.approx(truth, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("stages", "due_s"),
    [
        (FLAT, lambda k: k / 50),
        (RAMP, lambda k: math.sqrt(k / 2)),  # 2 t^2 requests until t
        (DOWN, lambda k: 20 * (1 - math.sqrt(1 - k / 900))),
        (FACTOR, lambda k: math.log1p(k * math.log(64) / 24) * 12 / math.log(64)),
    ],
)
def test_a_constant_process_follows_the_rate_without_jitter(stages, due_s):
    """Request k is due when the integral of the rate is k, to the nanosecond: the closed form of each growth."""
    found = offsets_ns(schedule(stages=stages), count=200)
    assert np.abs(found - np.array([1e9 * due_s(k) for k in range(200)])).max() <= 2


def test_stages_follow_each_other_without_a_gap():
    """A hundred requests/s end where twenty begin: the last due of one stage and the first of the next share one integral."""
    sums = expected(schedule(stages=STEPS), offsets_ns(schedule(stages=STEPS), count=700) / 1e9)
    assert np.abs(sums - np.arange(700)).max() < 1e-6


def test_a_ramp_between_nearly_equal_rates_loses_no_digits():
    """The quadratic's root is written so that nothing cancels: as good as the flat rate beside it."""
    nearly = (Stage(start_rps=50.0, end_rps=50.0 + 1e-9, length_s=100.0, growth="linear"),)
    assert np.abs(offsets_ns(schedule(stages=nearly), count=1000) - offsets_ns(schedule(), count=1000)).max() <= 2


@pytest.mark.parametrize("stages", SHAPES)
@pytest.mark.parametrize(
    ("process", "burstiness", "law"), [("poisson", 1.0, stats.expon()), ("gamma", 0.3, stats.gamma(0.3, scale=1 / 0.3))]
)
def test_rescaled_gaps_have_the_law_of_the_process(stages, process, burstiness, law):
    """SciPy's distributions are the truth, at flat rates and ramps alike; the first gap begins at the start."""
    made = offsets_ns(schedule(process, stages, burstiness=burstiness, seed=11), count=700 if stages != FACTOR else 300)
    gaps = np.diff(expected(schedule(stages=stages), made / 1e9), prepend=0.0)
    assert stats.kstest(gaps, law.cdf).pvalue > 1e-4


@pytest.mark.parametrize("burstiness", [0.25, 4.0])
def test_burstiness_is_the_shape_of_the_gaps(burstiness):
    """As of vLLM's flag: coefficient of variation 1 / sqrt(burstiness), mean 1 / rate; 20,000 gaps within 3 %."""
    made = offsets_ns(schedule("gamma", burstiness=burstiness), count=20_000)
    gaps = np.diff(made, prepend=0) / 1e9
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.03)
    assert stats.kstest(gaps * 50, stats.gamma(burstiness, scale=1 / burstiness).cdf).pvalue > 1e-4


def test_burstiness_1_is_poisson():
    """Not only in law: the same seed gives the same arrivals."""
    assert np.array_equal(offsets_ns(schedule("gamma"), count=5000), offsets_ns(schedule("poisson"), count=5000))


@pytest.mark.parametrize("process", ["constant", "poisson", "gamma"])
@pytest.mark.parametrize("stages", SHAPES)
def test_a_longer_run_begins_with_the_shorter_one(process, stages, monkeypatch):
    """By number, by time, and wherever a chunk of the making ends; ascending, and all before the end."""
    made = schedule(process, stages, burstiness=0.5, seed=3)
    monkeypatch.setattr(dues, "_CHUNK", 256)
    everything = offsets_ns(made, duration_s=9.0)
    assert (np.diff(everything) >= 0).all()
    assert 0 <= everything[0] <= everything[-1] < 9e9
    for count in (1, 50, len(everything)):
        assert np.array_equal(offsets_ns(made, count=count), everything[:count])
    sooner = offsets_ns(made, duration_s=4.5)
    assert np.array_equal(sooner, everything[everything < 4.5e9])


def test_the_chunk_is_no_part_of_the_sequence(monkeypatch):
    """Sums go on from chunk to chunk: only their last digits may know of it."""
    made = schedule("gamma", burstiness=0.5)
    whole = offsets_ns(made, count=3000)
    monkeypatch.setattr(dues, "_CHUNK", 100)
    assert np.abs(offsets_ns(made, count=3000) - whole).max() <= 1


def test_a_seed_is_the_same_everywhere():
    """These very nanoseconds: a run of today is compared with one of another machine and another release of numpy. Seeds differ."""
    made = offsets_ns(schedule("poisson", seed=1), count=1000)
    assert made[:3].tolist() == [14_341_488, 74_442_478, 77_555_905]
    assert not np.intersect1d(made, offsets_ns(schedule("poisson", seed=2), count=1000)).size


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_merge_into_the_one_sequence(workers):
    """Each takes the entries k with k mod P = i, as they fall due; together they are the schedule, each request once, in order."""
    offsets = offsets_ns(schedule("gamma", STEPS, burstiness=0.5, seed=5), count=500)
    plan = Plan(
        number=1,
        label="x",
        max_concurrent=500,
        workers=workers,
        num_requests=500,
        schedule=schedule("gamma", STEPS, burstiness=0.5, seed=5),
    )
    merged = []
    for worker in range(workers):
        loop = OpenLoop(plan, worker, offsets.tolist())
        turns = loop.begin(1_000)
        while loop.next_ns is not None:
            turns += loop.woken(loop.next_ns)
        merged += turns
    merged.sort(key=lambda turn: turn.index)
    assert [turn.index for turn in merged] == list(range(500))
    assert np.array_equal([turn.due_ns - 1_000 for turn in merged], offsets)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: offsets_ns(schedule(stages=RAMP), count=801), "num_requests: got 801, but the rate ends after 800"),
        (lambda: offsets_ns(schedule(), count=500_000_001), "num_requests: got 500000001, takes at most 500,000,000 on a schedule"),
    ],
)
def test_what_a_rate_cannot_give_is_refused_in_one_line(make, said):
    """Before anything is made of it."""
    with pytest.raises(UsageError) as refused:
        make()
    assert str(refused.value) == said


def test_a_rate_that_does_not_fit_into_a_file_is_refused(monkeypatch):
    """A duration at a rate that gives more than can be kept is a typing error; the line says so. (The limit is lowered: 4 GB are many.)"""
    monkeypatch.setattr(dues, "LARGEST_COUNT", 1000)
    assert len(offsets_ns(schedule(), duration_s=19.9)) == 995
    with pytest.raises(UsageError) as refused:
        offsets_ns(schedule(), duration_s=30.0)
    assert str(refused.value) == "duration: got 30 s, in which this rate gives more than 1,000 requests"
