"""What is offered, as the server sees it: the simulator's own account of arrivals, for 1, 2, 3 and 7 workers.

False alarms: eight runs are judged by the ten alarms of `arrivals.py` with 1e-5 each, and four by alarms that nothing raises by chance: a sound
program fails at one choice of the seed in a thousand, and the seed is fixed. A machine that others use displaces arrivals by more than the
alarms allow, and no observer of arrivals alone can tell it from a wrong sender: where others took more than `BUSY` of its cores during a run,
what arrived within `HELD_UP_S` after its due is judged as if on time.
"""

import numpy as np
import pytest

from loadgen.dues import offsets_ns
from loadgen.schedule import Schedule
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from loadgen.simulator.truth import ARRIVED, read_truth
from loadgen.testbed import Neighbours
from tests.loadgen.arrivals import COUNT, RATE_RPS, alarms
from tests.loadgen.fleets import Performance, open_loop

WORKERS = (1, 2, 3, 7)
SCHEDULES = {
    "constant": Schedule.at_rate(200.0, process="constant"),
    "poisson": Schedule.at_rate(RATE_RPS, process="poisson", seed=1),
    "gamma": Schedule.at_rate(RATE_RPS, process="gamma", burstiness=0.25, seed=1),
}
COUNTS = {"constant": 200, "poisson": COUNT, "gamma": COUNT}  # a constant rate shows in a second
BUSY = 0.25  # of all cores; the simulator, which counts as another here, uses less than a tenth
HELD_UP_S = 0.1


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """(process, workers) -> the run; when each of its requests arrived, in seconds since the start, by number; what others took meanwhile."""
    directory = tmp_path_factory.mktemp("offered")
    truth = directory / "truth.bin"
    runs = {}
    # A metronome: a server without a queue, whose answers are over within some milliseconds.
    with Simulator(load_settings("olmocr", truth=str(truth), metronome=True, metronome_ttft_ms=2.0)) as simulator:
        for workers in WORKERS:
            for process, schedule in SCHEDULES.items():
                plan = open_loop(schedule, num_requests=COUNTS[process], workers=workers)
                neighbours = Neighbours()
                run = Performance(directory / f"{process}-{workers}", simulator.base_url, plan, max_tokens=1)
                runs[process, workers] = run, neighbours.share() or 0.0
    records = read_truth(truth)
    arrived = records[records["kind"] == ARRIVED]
    at_ns = dict(zip(arrived["aux"].tolist(), arrived["t_ns"].tolist(), strict=True))
    assert len(at_ns) == len(arrived) == sum(COUNTS.values()) * len(WORKERS)  # each request once, each by a number of its own
    return {key: (run, arrivals_s(run, at_ns), others) for key, (run, others) in runs.items()}


def by_number(run):
    heads = run.records.heads
    return heads[np.argsort(heads["index"])]


def arrivals_s(run, at_ns):
    (start_ns,) = {file.counters["start_ns"] for file in run.records.files}
    return (np.array([at_ns[crc] for crc in by_number(run)["answer_crc"].tolist()]) - start_ns) / 1e9


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("process", SCHEDULES)
def test_the_server_sees_the_process_that_was_asked_for(seen, process, workers):
    """And no other: its arrivals raise no alarm of their own process, and some of each other one."""
    _, arrived_s, others = seen[process, workers]
    assert len(arrived_s) == COUNTS[process]
    if others > BUSY:
        due_s = offsets_ns(SCHEDULES[process], count=COUNTS[process]) / 1e9
        arrived_s = np.where(arrived_s - due_s < HELD_UP_S, due_s, arrived_s)
    assert alarms(arrived_s, SCHEDULES[process]) == set()
    for other in SCHEDULES.keys() - {process}:
        assert alarms(arrived_s, SCHEDULES[other]), other


@pytest.mark.parametrize("process", SCHEDULES)
def test_the_merged_schedule_does_not_depend_on_the_number_of_workers(seen, process):
    """To the nanosecond, request by request, and no request arrives before its due."""
    offsets = offsets_ns(SCHEDULES[process], count=COUNTS[process])
    for workers in WORKERS:
        run, arrived_s, _ = seen[process, workers]
        (start_ns,) = {file.counters["start_ns"] for file in run.records.files}
        heads = by_number(run)
        assert np.array_equal(heads["index"], np.arange(len(offsets)))
        assert np.array_equal(heads["due_ns"] - start_ns, offsets)
        assert (heads["sent_ns"] >= heads["due_ns"]).all()
        assert (arrived_s * 1e9 >= offsets).all()


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("process", SCHEDULES)
def test_the_summary_says_what_the_server_saw(seen, process, workers):
    """Its rate is the server's, every due is the schedule's, none was early; and it tests a law where there is one."""
    run, arrived_s, _ = seen[process, workers]
    offered = run.summary.offered
    assert (offered.process, offered.scheduled, offered.sent, offered.as_scheduled) == (process, COUNTS[process], COUNTS[process], True)
    assert offered.achieved_rps == pytest.approx((COUNTS[process] - 1) / np.ptp(arrived_s), rel=0.05)
    assert offered.send_lag.min >= 0
    assert offered.requested_rps == pytest.approx(SCHEDULES[process].stages[0].start_rps)
    assert (offered.gaps is None) == (offered.phase is None) == (offered.memory is None) == (process == "constant")
