"""The statistics of arrivals: p-values that are those of the test, laws that are found, mutants that are caught. No clock, no process.

False alarms: seeds are fixed, so a passing test passes again; what is stated is how often seeds chosen anew would fail a sound
program. Tests over many runs count p-values below a tenth and allow binomial quantiles of 1e-6; `alarms` is wrong about one
sound run in 10,000 (10 alarms of 1e-5), and 22 sound runs are judged below: 0.3 % for all of this file.
"""

import numpy as np
import pytest
from scipy import stats

from loadgen import proof
from loadgen.dues import expected, offsets_ns
from loadgen.proof import PRECISION_S, prove
from loadgen.schedule import Schedule, Stage
from loadgen.stretch import Stretch
from tests.loadgen import arrivals
from tests.loadgen.arrivals import alarms

START_NS = 7_000_000_000_123
RATE, COUNT = arrivals.RATE_RPS, arrivals.COUNT
RUNS = 200
FEWEST, MOST = stats.binom.ppf([1e-6, 1 - 1e-6], RUNS, 0.1)  # how many of them have p < 0.1
UP = Schedule(process="poisson", stages=(Stage(start_rps=20.0, end_rps=780.0, length_s=20.0, growth="linear"),))
STEPS = Schedule(
    process="gamma", burstiness=0.5, stages=(Stage(start_rps=100.0, end_rps=100.0, length_s=4.0), Stage(start_rps=300.0, end_rps=300.0))
)
FACTOR = Schedule(process="gamma", burstiness=4.0, stages=(Stage(start_rps=400.0, end_rps=50.0, length_s=12.0, growth="exponential"),))


def at_rate(process, burstiness=1.0, *, rate=RATE, seed=1):
    return Schedule.at_rate(rate, process=process, burstiness=burstiness, seed=seed)


def seeded(schedule, seed):
    return Schedule(process=schedule.process, stages=schedule.stages, burstiness=schedule.burstiness, seed=seed)


def proved(schedule, lag_s=0.0, *, count=COUNT, window=None, keep=slice(None), order=None):
    """What is proved of a run that sent each request `lag_s` after its due. keep: which requests have a record."""
    due_ns = START_NS + offsets_ns(schedule, count=count)
    sent_ns = due_ns + np.rint(np.broadcast_to(lag_s, count) * 1e9).astype(np.int64)
    rows = np.arange(count)[keep] if order is None else order
    window = window or Stretch(START_NS, int(max(sent_ns.max(), due_ns.max())) + 1)
    return proof_of(rows, due_ns[rows], sent_ns[rows], schedule, count=count, window=window)


def proof_of(index, due_ns, sent_ns, schedule, *, count=COUNT, window=None, start_ns=START_NS):
    window = window or Stretch(START_NS, int(due_ns.max(initial=0)) + 1)
    return prove(np.asarray(index, np.uint64), due_ns, sent_ns, schedule, window, start_ns=start_ns, count=count)


def jitter(count, scale_s=0.00015, seed=0):
    """Lags of a sound sender: a tenth of a millisecond or two, one in 300 beyond the promise."""
    random = np.random.default_rng(seed)
    return random.exponential(scale_s, count) + np.where(random.random(count) < 1 / 300, 0.003, 0.0)


# ---- the test itself -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [50, 200, 2000, 100_000])
@pytest.mark.parametrize("p", [0.5, 0.05, 1e-3])
def test_a_p_value_is_that_of_the_exact_distribution(n, p):
    """SciPy's exact distribution of the statistic is the truth; importing it takes longer than the rest of a report."""
    assert proof.ks_p(stats.kstwo.isf(p, n), n) == pytest.approx(p, rel=0.06)


@pytest.mark.parametrize("schedule", [at_rate("poisson"), at_rate("gamma", 0.25), at_rate("gamma", 4.0), UP])
def test_p_values_of_sound_gaps_are_even(schedule):
    """Of 200 runs as many have a p-value below a tenth as should. 4 counts of 1e-6."""
    p = [proof.fit_gaps(expected(schedule, due_s), proof.law_of(schedule)).p for due_s in runs(schedule)]
    assert FEWEST <= np.count_nonzero(np.array(p) < 0.1) <= MOST


@pytest.mark.parametrize(
    ("schedule", "exact"),
    [
        (at_rate("poisson"), True),
        (at_rate("poisson", rate=3.0), True),
        (UP, True),
        (at_rate("gamma", 0.25), False),  # in bursts: as if there were a quarter as many
        (at_rate("gamma", 0.25, rate=3.0), False),
        (at_rate("gamma", 4.0), False),  # more even than Poisson: the p-value is too high
    ],
)
def test_p_values_of_sound_phases_are_never_too_low(schedule, exact):
    """And even for Poisson, at rates below one a second and far above, and under a ramp. 9 counts of 1e-6."""
    fits = [proof.fit_phase(schedule, due_s, due_s[0]) for due_s in runs(schedule)]
    below = np.count_nonzero(np.array([fit.p for fit in fits]) < 0.1)
    assert below <= MOST
    assert not exact or below >= FEWEST


def runs(schedule):
    """200 runs of 2,000 arrivals: of a ramp by seed, of one rate in pieces of one long run, which is faster."""
    if len(schedule.stages) == 1 and schedule.stages[0].growth == "flat":
        return np.split(offsets_ns(schedule, count=RUNS * 2000) / 1e9, RUNS)
    return [offsets_ns(seeded(schedule, seed), count=2000) / 1e9 for seed in range(RUNS)]


# ---- what is proved of a run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [at_rate("poisson"), at_rate("gamma", 0.25), at_rate("gamma", 4.0), UP, STEPS, FACTOR])
def test_a_sound_run_has_the_law_that_was_asked_for(schedule):
    """Gaps, phase, memory, CV and rate are those of the process; the send lag is what it was. 6 runs of 8 figures beyond 1e-4."""
    lag_s = jitter(COUNT)
    found = proved(schedule, lag_s)
    assert found.process == schedule.process
    assert (found.scheduled, found.sent, found.as_scheduled) == (COUNT, COUNT, True)
    assert found.gaps.p > 1e-4
    assert found.gaps.count == COUNT - 1
    assert found.phase.p > 1e-4
    assert all(abs(r) < 4 * found.memory.standard_error for r in found.memory.correlations)
    assert found.law_cv == pytest.approx(schedule.burstiness**-0.5)
    assert found.planned_cv == pytest.approx(found.law_cv, rel=0.15)
    assert found.sent_cv == pytest.approx(found.planned_cv, rel=0.05)
    assert found.achieved_rps == pytest.approx(found.planned_rps, rel=1e-3)
    assert found.send_lag.p50 == pytest.approx(np.median(lag_s), abs=1e-9)
    assert found.send_lag.max == pytest.approx(lag_s.max(), abs=1e-9)
    assert found.send_lag.late == np.count_nonzero(lag_s > PRECISION_S) > 0


def test_a_constant_rate_has_no_law_but_its_dues():
    """No gap varies and no count; what there is to tell is how far sends are from their dues."""
    found = proved(at_rate("constant"), 0.0005)
    assert (found.requested_rps, found.law_cv, found.law_dispersion) == (pytest.approx(RATE), 0.0, 0.0)
    assert found.planned_rps == pytest.approx(RATE)
    assert found.sent_cv < 1e-6
    assert [one.planned for one in found.dispersion] == [pytest.approx(0.0, abs=0.001), None, None]
    assert found.gaps is found.phase is found.memory is None
    assert found.send_lag.min == found.send_lag.p50 == found.send_lag.max == pytest.approx(0.0005)
    assert found.send_lag.late == 0


def test_dispersion_is_that_of_the_counts():
    """A plain count in plain windows gives the same; longer windows than a tenth of the run are left out."""
    schedule = at_rate("gamma", 0.25, rate=100.0)
    found = proved(schedule, count=3000)
    due_s = offsets_ns(schedule, count=3000) / 1e9
    for one in found.dispersion[:2]:
        edges = np.arange(one.windows + 1) * one.window_s
        counts = np.histogram(due_s, edges)[0]
        assert one.planned == pytest.approx(counts.var(ddof=1) / counts.mean())
        assert one.sent == one.planned
    assert found.dispersion[1].planned == pytest.approx(found.law_dispersion, rel=1.0)
    assert found.dispersion[2].planned is found.dispersion[2].sent is None


def test_dispersion_under_a_ramp_is_held_against_the_rate():
    """A Poisson process whose rate grows fifteenfold is as dispersed as any Poisson process: 3 standard errors (0.3 %)."""
    (short, *_) = proved(UP).dispersion
    assert short.windows > 80
    assert abs(short.sent - 1) < 3 * np.sqrt(2 / short.windows)


def test_the_order_and_the_number_of_workers_say_nothing():
    """Records come file after file, a worker's behind the other's: the proof is the same."""
    schedule, lag_s = at_rate("poisson"), jitter(COUNT)
    dealt = np.concatenate([np.arange(COUNT)[worker::7] for worker in range(7)])
    assert proved(schedule, lag_s, order=dealt) == proved(schedule, lag_s)


def test_only_what_was_due_in_the_window_counts():
    """Ramps are left out by due, however late a request was sent; the law is tested where the rate then is."""
    begin, end = START_NS + 2 * 10**9, START_NS + 6 * 10**9
    found = proved(UP, 0.0002, window=Stretch(begin, end))
    due_s = offsets_ns(UP, count=COUNT) / 1e9
    assert found.sent == found.scheduled == np.count_nonzero((due_s >= 2) & (due_s < 6))
    assert found.requested_rps == pytest.approx(20 + 38 * 4, rel=0.01)  # the middle of the ramp from 96 to 248
    assert found.phase.p > 1e-4


def test_what_was_not_sent_lowers_the_achieved_rate():
    """A tenth without a record (a lost worker), or recorded but never sent: nine tenths of the planned rate."""
    schedule = at_rate("constant")
    lost = proved(schedule, keep=np.arange(COUNT) % 10 != 3)
    assert (lost.scheduled, lost.sent) == (COUNT, COUNT * 9 // 10)
    assert lost.achieved_rps == pytest.approx(0.9 * lost.planned_rps, rel=0.001)
    due_ns = START_NS + offsets_ns(schedule, count=COUNT)
    sent_ns = np.where(np.arange(COUNT) % 10 == 3, 0, due_ns)
    dropped = proof_of(np.arange(COUNT), due_ns, sent_ns, schedule)
    assert dropped.achieved_rps == lost.achieved_rps


def test_a_client_that_cannot_keep_up_shows_its_own_rate():
    """Lag that grows by a quarter of time: four fifths of the rate, every send late, and its lateness comes in one stretch."""
    due_s = offsets_ns(at_rate("poisson"), count=COUNT) / 1e9
    found = proved(at_rate("poisson"), due_s * 0.25)
    assert found.achieved_rps == pytest.approx(0.8 * found.planned_rps, rel=0.001)
    assert found.send_lag.late > 0.99 * COUNT
    assert found.send_lag.correlation > 0.99
    assert found.gaps.p < 0.001


def test_a_due_that_is_not_the_schedules_is_told():
    """One nanosecond in one record is enough."""
    schedule = at_rate("poisson")
    due_ns = START_NS + offsets_ns(schedule, count=COUNT)
    index = np.arange(COUNT)
    assert proof_of(index, due_ns, due_ns, schedule).as_scheduled
    off = due_ns + (index == 77)
    assert proof_of(index, off, off, schedule).as_scheduled is False
    assert proof_of(index + 9 * COUNT, due_ns, due_ns, schedule).as_scheduled is False
    later = proof_of(index, due_ns + 5, due_ns + 5, schedule)
    assert later.as_scheduled is False
    assert proof_of(index, due_ns, due_ns, schedule, start_ns=0) == proof_of(index, due_ns, due_ns, schedule)


def test_sends_within_the_promise_cannot_fail_the_law():
    """At 5,000 requests/s an error of a few tenths of a millisecond is longer than the gaps, and one send in a hundred may be later.

    200,000 raw sends fail (what is even becomes less so; a Poisson process would stay one); what was promised does not.
    """
    schedule = at_rate("gamma", 4.0, rate=5000.0)
    random = np.random.default_rng(2)  # not the schedule's own uniforms
    lag_s = np.where(random.random(200_000) < 0.009, 0.03, random.uniform(0, PRECISION_S * 0.999, 200_000))
    found = proved(schedule, lag_s, count=200_000)
    assert min(found.gaps.p, found.phase.p) > 1e-4
    on_time = proved(schedule, count=200_000)
    assert found.gaps.p >= on_time.gaps.p
    assert found.gaps.distance > on_time.gaps.distance
    sent_s = np.sort(offsets_ns(schedule, count=200_000) / 1e9 + lag_s)
    assert proof.fit_gaps(expected(schedule, sent_s), proof.law_of(schedule)).p < 1e-12


def test_sends_beyond_the_promise_can():
    """A loop that wakes every 20 ms and sends what has come due bunches arrivals, whatever their dues were."""
    due_s = offsets_ns(at_rate("poisson"), count=COUNT) / 1e9
    found = proved(at_rate("poisson"), np.ceil(due_s / 0.02) * 0.02 - due_s)
    assert found.gaps.p < 1e-12
    assert found.sent_cv > 1.5


def test_a_trace_has_its_own_times():
    """No rate was asked for and no law; its gaps, its counts and the lag of its sends remain."""
    due_ns = START_NS + np.cumsum(np.tile([1, 9], 500)) * 1_000_000
    found = proof_of(np.arange(1000), due_ns, due_ns + 300_000, Schedule(process="trace"), count=1000)
    assert (found.requested_rps, found.as_scheduled, found.law_cv, found.law_dispersion) == (None, None, None, None)
    assert found.planned_rps == pytest.approx(200.0, rel=1e-2)
    assert found.achieved_rps == pytest.approx(found.planned_rps, rel=1e-3)
    assert found.planned_cv == pytest.approx(0.8, rel=1e-2)  # gaps of 1 and 9 ms: deviation 4 of mean 5
    assert found.gaps is found.phase is found.memory is None
    assert found.send_lag.p99 == pytest.approx(0.0003)


@pytest.mark.parametrize("count", [0, 1, 2, 60])
@pytest.mark.parametrize("process", ["constant", "poisson"])
def test_few_arrivals_leave_out_what_they_cannot_say(count, process):
    """Nothing is computed of too little, and nothing is 0 for it."""
    if not count:
        empty = np.zeros(0, np.int64)
        assert proof_of(empty, empty, empty, at_rate(process)) is None
        return
    found = proved(at_rate(process), count=count)
    assert found.sent == count
    assert (found.achieved_rps is None) == (count == 1)
    assert (found.sent_cv is None) == (count < 3)
    assert [one.sent for one in found.dispersion] == [None] * 3
    assert (found.gaps is not None) == (count == 60 and process == "poisson")
    assert found.phase is None


# ---- mutants -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("schedule", [at_rate("poisson"), at_rate("gamma", 0.25), at_rate("gamma", 4.0), UP, at_rate("constant")])
def test_sound_arrivals_raise_no_alarm(schedule, seed):
    """20 runs with 1e-4 each, and the jitter of a sound sender on top."""
    due_s = offsets_ns(seeded(schedule, seed), count=COUNT) / 1e9
    assert alarms(due_s, schedule) == set()
    assert alarms(due_s + jitter(COUNT, seed=1000 + seed), schedule) == set()


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_a_seed_that_workers_share_is_caught(workers):
    """Arrivals come in blocks of as many as there are workers, or gaps repeat as often."""
    assert alarms(arrivals.blocks(RATE, COUNT, workers, 1), at_rate("poisson")) >= {"gaps"}
    assert alarms(arrivals.repeated_gaps(RATE, COUNT, workers, 1), at_rate("poisson")) >= {"memory 1"}


def test_whole_seconds_are_caught_by_the_phase_alone():
    """Their gaps pass: one arrival in five falls on a second, and no test of gaps sees that."""
    slow = at_rate("poisson", rate=5.0)
    wrong = arrivals.whole_seconds(5.0, 3000, 1)
    assert proof.fit_gaps(expected(slow, wrong), proof.law_of(slow)).p > 0.001
    assert proof.fit_phase(slow, wrong).p < 1e-12
    assert alarms(wrong, slow) == {"phase"}


def test_sleeps_that_add_up_are_caught():
    """0.3 ms after each of 500 a second is an eighth of the rate: of even gaps and of random ones."""
    random_s, even_s = (np.diff(offsets_ns(at_rate(process), count=COUNT) / 1e9, prepend=0.0) for process in ("poisson", "constant"))
    assert alarms(arrivals.sleep_loop(random_s, 0.0003), at_rate("poisson")) >= {"count"}
    assert alarms(arrivals.sleep_loop(even_s, 0.0003), at_rate("constant")) == {"late"}


def test_a_constant_rate_with_exponential_gaps_is_caught():
    """And so is the reverse: each process raises alarms where the other was asked for."""
    assert alarms(arrivals.exponential_constant(RATE, COUNT, 1), at_rate("constant")) >= {"early", "uneven"}
    assert alarms(offsets_ns(at_rate("constant"), count=COUNT) / 1e9, at_rate("poisson")) >= {"gaps", "dispersion 0.1"}
    assert alarms(offsets_ns(at_rate("poisson"), count=COUNT) / 1e9, at_rate("gamma", 0.25)) >= {"dispersion 0.1"}
    assert alarms(offsets_ns(at_rate("gamma", 4.0), count=COUNT) / 1e9, at_rate("poisson")) >= {"dispersion 0.1"}


@pytest.mark.parametrize(
    ("rate", "wrong_s", "caught"),
    [
        (RATE, arrivals.blocks(RATE, COUNT, 3, 1), lambda found: found.gaps.p < 1e-12 and found.sent_cv > 2),
        (RATE, arrivals.repeated_gaps(RATE, COUNT, 3, 1), lambda found: found.memory.correlations[0] > 10 * found.memory.standard_error),
        (5.0, arrivals.whole_seconds(5.0, COUNT, 1), lambda found: found.phase.p < 1e-12 and found.gaps.p > 1e-4),
        (
            RATE,
            arrivals.sleep_loop(np.diff(offsets_ns(at_rate("poisson"), count=COUNT) / 1e9, prepend=0.0), 0.0003),
            lambda found: found.gaps.p < 1e-5,
        ),
    ],
)
def test_a_mutants_own_records_give_it_away(rate, wrong_s, caught):
    """Workers that make their own dues, and keep them to the nanosecond: the law is not met, and no due is the schedule's."""
    due_ns = START_NS + np.rint(wrong_s * 1e9).astype(np.int64)
    found = proof_of(np.arange(COUNT), due_ns, due_ns, at_rate("poisson", rate=rate))
    assert found.as_scheduled is False
    assert found.send_lag.max == 0
    assert caught(found)
