"""Which summaries may be believed: each rule at its line and on both sides of it."""

import pytest
from written import exchange, summarise, write

from clients.errors import Outcome
from loadgen.recorded import read_records
from loadgen.reducer import reduce
from loadgen.summary import PlanFacts, Reason, Verdict
from loadgen.verdict import judge, judge_grid


def with_failures(directory, failed, of, outcome=Outcome.RESET):
    rows = [(k, exchange(0, 10, **({"outcome": outcome, "message": "gone"} if k < failed else {}))) for k in range(of)]
    return summarise(directory, rows, max_concurrent=9)


@pytest.mark.parametrize(
    ("failed", "of", "level"),
    [
        (0, 100, "valid"),
        (1, 100, "valid"),  # 1 % is not above 1 %
        (2, 100, "degraded"),
        (10, 100, "degraded"),  # nor 10 % above 10 %
        (11, 100, "invalid"),
        (100, 100, "invalid"),
    ],
)
def test_errors_degrade_above_one_percent_and_invalidate_above_ten(tmp_path, failed, of, level):
    """The share is of final records."""
    verdict = judge(with_failures(tmp_path, failed, of))
    assert verdict.level == level
    if level != "valid":
        reason = verdict.reasons[0]
        assert (reason.name, reason.number) == ("errors", pytest.approx(failed / of))
        assert "reset" in reason.advice and "gone" in reason.advice


def test_what_was_cancelled_by_us_is_no_error(tmp_path):
    """Ctrl-C does not make a run invalid."""
    assert judge(with_failures(tmp_path, 50, 100, outcome=Outcome.CANCELLED)).level == "valid"


def test_a_run_without_a_success_is_invalid_whatever_ended_it(tmp_path):
    """A server that never answers until we cancel has made no error, and yet there is no number to believe."""
    rows = [(k, exchange(0, 9, outcome=Outcome.CANCELLED)) for k in range(4)]
    (reason,) = judge(summarise(tmp_path, rows)).reasons
    assert (reason.name, reason.level, reason.number) == ("too-few-samples", "invalid", 0)


def test_only_percentiles_that_were_asked_for_can_lack_samples(tmp_path):
    """p99 of 100 samples degrades a run whose user named it; the metric that lacks most is named."""
    summary = with_failures(tmp_path, 0, 100)
    assert judge(summary).level == "valid"
    assert judge(summary, [50, 90]).level == "valid"
    (reason,) = judge(summary, [50, 99]).reasons
    assert reason == Reason(
        name="too-few-samples",
        level="degraded",
        number=100,
        threshold=299,
        advice="p99 of latency rests on 100 samples and needs 299: send more requests",
    )


def test_records_that_do_not_add_up_invalidate(tmp_path):
    """One frame less than its counter says."""
    path = tmp_path / "a.records"
    writer = write(path, [(0, exchange(0, 9))], share=2, close=False)
    writer.sent()
    writer._finished += 1
    writer._counters[2] = 2
    writer.close()
    verdict = judge(reduce(read_records([path]), PlanFacts(label="x", max_concurrent=1, workers=1, shares=(2,), count=2)))
    assert (verdict.level, verdict.reasons[0].name, verdict.reasons[0].number) == ("invalid", "accounting", 1)


def test_a_lost_worker_invalidates_and_is_named(tmp_path):
    """Even when what it left adds up."""
    write(tmp_path / "0.records", [(0, exchange(0, 9))], workers=2)
    writer = write(tmp_path / "1.records", [(1, exchange(0, 9))], worker=1, workers=2, close=False)
    facts = PlanFacts(label="x", max_concurrent=2, workers=2, shares=(1, 1), count=2)
    verdict = judge(reduce(read_records([tmp_path / "0.records", tmp_path / "1.records"]), facts))
    assert [(reason.name, reason.level, reason.number) for reason in verdict.reasons] == [("workers-lost", "invalid", 1)]
    assert "worker 1 of 2" in verdict.reasons[0].advice
    writer.close()


def verdict(level):
    reasons = [] if level == "valid" else [Reason(name=f"is-{level}", level=level, number=1, threshold=0, advice="fix it")]
    return Verdict(level=level, reasons=reasons)


@pytest.mark.parametrize(
    ("cells", "level"),
    [
        (["valid", "valid"], "valid"),
        (["valid", "invalid"], "degraded"),
        (["degraded", "invalid"], "degraded"),
        (["invalid", "invalid"], "invalid"),
        ([], "invalid"),  # nothing was measured
    ],
)
def test_a_grid_is_invalid_only_when_no_cell_can_be_believed(cells, level):
    """An invalid cell beside usable ones degrades the grid."""
    assert judge_grid([verdict(cell) for cell in cells]).level == level


def test_a_grid_names_each_reason_once():
    """With how many cells it holds for, and no worse than the grid is."""
    (reason,) = judge_grid([verdict("valid"), verdict("invalid"), verdict("invalid")]).reasons
    assert (reason.name, reason.level, reason.advice) == ("is-invalid", "degraded", "2 of 3 cells: fix it")
