"""Arrivals in a report: what was asked for, planned and sent side by side; what is not so is said in words."""

import io

import msgspec
import numpy as np
import pytest
from rich.console import Console

from loadgen.dues import offsets_ns
from loadgen.offered_report import arrivals_remarks, arrivals_table
from loadgen.proof import prove
from loadgen.schedule import Schedule
from loadgen.stretch import Stretch
from tests.loadgen.written import T0, exchange, summarise

LAG_NS = 250_000


def offered(process="poisson", late_ns=LAG_NS, **settings):
    """Of 2,000 requests at 400/s, all equally late but every hundredth, which is 20 ms late."""
    schedule = Schedule.at_rate(400.0, process=process, seed=1, **settings)
    due_ns = T0 + offsets_ns(schedule, count=2000)
    sent_ns = due_ns + np.where(np.arange(2000) % 100 == 99, 20_000_000, late_ns)
    index = np.arange(2000).astype(np.uint64)
    return prove(index, due_ns, sent_ns, schedule, Stretch(T0, int(due_ns[-1]) + 1), start_ns=T0, count=2000)


def printed(value):
    console = Console(file=io.StringIO(), width=100, no_color=True)
    console.print(arrivals_table(value))
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines() if line.strip()]


def test_asked_planned_and_sent_stand_side_by_side():
    """Requests, rate, variation and dispersion; a run too short for a window has no figure in it."""
    found = offered()
    lines = printed(found)
    assert lines[0] == "arrivals: poisson"
    assert lines[1] == "asked planned sent"
    assert lines[3] == "requests - 2000 2000"
    assert lines[4].startswith("req/s 400.0 ")
    assert lines[5] == f"variation of gaps 1.000 {found.planned_cv:.3f} {found.sent_cv:.3f}"
    assert lines[6] == f"dispersion, 100ms 1.000 {found.dispersion[0].planned:.3f} {found.dispersion[0].sent:.3f}"
    assert lines[7:] == ["dispersion, 1.00s 1.000 - -", "dispersion, 10.0s 1.000 - -"]


def test_the_send_lag_and_the_tests_are_said_in_words():
    """Every percentile with its unit, how many were late and by when, what was tested, on how many."""
    lag, law, memory = arrivals_remarks(offered())
    assert lag.startswith("sent after due: from 250us, p50 250us, p90 250us, p99 ")
    assert "max 20.0ms; 20 of 2000 were more than 1.0ms late" in lag
    assert law.startswith("Kolmogorov-Smirnov against the poisson process: gaps p = ")
    assert ", place within the second p = " in law
    assert law.endswith("; a send within 1.0ms of its due is taken as on time")
    assert memory.startswith("correlation of a gap with the next ones: ")
    assert memory.endswith("; standard error 0.022")


def test_a_process_without_a_law_is_not_tested():
    """Of a constant rate the distance of sends from dues is all there is to say."""
    (lag,) = arrivals_remarks(offered("constant"))
    assert lag.startswith("sent after due: ")
    assert "variation of gaps 0.000 0.000 " in printed(offered("constant"))[5]


def test_what_is_wrong_is_not_overlooked():
    """Dues that are no schedule's, sends before their due, a law that does not hold."""
    wrong = msgspec.structs.replace(offered(), as_scheduled=False)
    assert arrivals_remarks(wrong)[0].startswith("dues are NOT those of the schedule")
    early = arrivals_remarks(offered(late_ns=-3_000_000))
    assert early[0].startswith("sent after due: from 3.0ms EARLY, ")
    fit = msgspec.structs.replace(offered().gaps, p=3e-9)
    assert "gaps p = <0.0001 (distance " in arrivals_remarks(msgspec.structs.replace(offered(), gaps=fit))[1]


@pytest.mark.parametrize("parts", [1, 3])
def test_the_reducer_proves_arrivals_from_record_files(tmp_path, parts):
    """Merged over workers' files; a request that was tried again arrived by its first attempt; a closed loop offers nothing."""
    schedule = Schedule.at_rate(100.0, process="constant")
    rows = []
    for index, due_ms in enumerate(range(0, 600, 10)):
        tried = index % 20 == 7
        if tried:
            rows.append((index, exchange(due_ms, due_ms + 2, sent=due_ms + 0.25), {"final": False}))
        rows.append((index, exchange(due_ms, due_ms + 9, sent=due_ms + (6 if tried else 0.25), attempt=2 if tried else 1)))
    summary = summarise(tmp_path / "open", rows, parts=parts, schedule=schedule, count=60, max_concurrent=60)
    assert (summary.offered.scheduled, summary.offered.sent, summary.offered.as_scheduled) == (60, 60, True)
    assert summary.offered.send_lag.max == pytest.approx(0.00025)
    assert summarise(tmp_path / "closed", rows, parts=parts, max_concurrent=parts).offered is None
