"""Which summaries may be believed: each rule at its line and on both sides of it."""

import numpy as np
import pytest
from written import EVENLY, beat, exchange, summarise, write

from clients.errors import Outcome
from loadgen.ceiling import KeptCeiling
from loadgen.plan_facts import PlanFacts
from loadgen.recorded import read_records
from loadgen.reducer import reduce
from loadgen.selftest import Ceiling
from loadgen.summary import Reason, Verdict
from loadgen.verdict import judge, judge_grid, least_window_s


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


def ceiling(rate_rps=100.0, unit="requests", *, workers=1, how="measured", lower_bound=""):
    """What a self-test had found of this machine: one ceiling."""
    found = Ceiling(unit=unit, workers=workers, rate_rps=rate_rps, cpu_s=1e-5, how=how, lower_bound=lower_bound)
    one, every = ([found], [found]) if workers == 1 else ([], [found])
    return KeptCeiling(id="a-self-test", started="", quick=False, machine=(), one=one, all=every, reaches=[])


def steady(directory, *, parts=1, requests=100, each_ms=20, outputs=(), beats=()):
    """One slot for each part that is never idle: 50 requests a second, each with as many events as there are `outputs`."""
    rows = [
        (k, exchange(start, start + each_ms, outputs=[start + ms for ms in outputs]))
        for k in range(requests)
        for start in [each_ms * (k // parts)]
    ]
    return summarise(directory, rows, parts=parts, max_concurrent=parts, beats=beats)


@pytest.mark.parametrize(
    ("rate_rps", "level"),
    [
        (51, "invalid"),  # 98 % of it
        (55, "invalid"),  # 91 %
        (57, "degraded"),  # 88 %
        (62, "degraded"),  # 81 %
        (63, "valid"),  # 79 %
        (1000, "valid"),
        (10, "invalid"),  # above what was measured: no less at a limit
    ],
)
@pytest.mark.parametrize(("unit", "outputs"), [("requests", ()), ("token events", (5, 7, 9, 11))])
def test_a_run_near_the_measured_ceiling_is_client_limited(tmp_path, rate_rps, level, unit, outputs):
    """From 80 % of it degraded, from 90 % invalid, of requests as of token events; the reason has both rates and the self-test."""
    summary = steady(tmp_path, outputs=outputs)
    assert summary.ended_rps == pytest.approx(50, rel=0.001)
    scale = len(outputs) or 1
    found = judge(summary, ceiling=ceiling(rate_rps * scale, unit))
    assert found.level == level
    if level != "valid":
        (reason,) = found.reasons
        assert (reason.name, reason.number) == ("client-limited", pytest.approx(50 / rate_rps, rel=0.01))
        assert reason.threshold == {"invalid": 0.9, "degraded": 0.8}[level]
        assert f"of the {rate_rps * scale:,.0f} that 1 worker can drive here, by the self-test a-self-test" in reason.advice
        assert "--processes" in reason.advice


@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        (1, None),  # no self-test
        (1, ceiling(51, lower_bound="the metronome was late by its own truth")),
        (2, ceiling(102, workers=2, how="computed")),
        (2, ceiling(51)),  # of one worker: it says nothing of two
        (1, ceiling(51, workers=2)),
        (1, ceiling(51, "token events")),  # nothing was streamed
    ],
)
def test_what_is_no_measured_limit_of_as_many_workers_is_no_reason(tmp_path, parts, kept):
    """A lower bound, a computed figure, one of another number of workers."""
    summary = steady(tmp_path, parts=parts, requests=100 * parts)
    assert judge(summary, ceiling=kept).reasons == []


def test_several_workers_are_held_against_what_as_many_were_measured_to_drive(tmp_path):
    """100 requests a second of two workers."""
    (reason,) = judge(steady(tmp_path, parts=2, requests=200), ceiling=ceiling(105, workers=2)).reasons
    assert (reason.level, reason.number) == ("invalid", pytest.approx(100 / 105, rel=0.01))
    assert "that 2 workers can drive" in reason.advice


def test_a_burst_is_held_against_no_ceiling(tmp_path):
    """Half a second at a high rate is not what a ceiling is: a rate that was kept up."""
    summary = steady(tmp_path, each_ms=2, requests=250)
    assert summary.ended_rps == pytest.approx(500, rel=0.01)
    assert judge(summary, ceiling=ceiling(51)).reasons == []


def strained(directory, *shares, late_us=0, looks=100):
    """Two seconds of workers that used these shares of a core, and whose loops were late by so much at each look."""
    beats = [[beat(30, 1.0), beat(1_030, 1 + used, [late_us] * looks), beat(1_830, 1 + 1.8 * used)] for used in shares]
    return steady(directory, parts=len(shares), requests=100 * len(shares), beats=beats)


@pytest.mark.parametrize(
    ("share", "level"),
    [(0.5, "valid"), (0.79, "valid"), (0.81, "degraded"), (0.89, "degraded"), (0.91, "invalid"), (1.02, "invalid")],
)
def test_a_worker_whose_core_is_full_is_the_limit(tmp_path, share, level):
    """No ceiling needs to be known for that; the busiest of the workers counts, and is named."""
    found = judge(strained(tmp_path, 0.2, share))
    assert found.level == level
    if level != "valid":
        (reason,) = found.reasons
        assert (reason.name, reason.number) == ("client-limited", pytest.approx(share))
        assert reason.advice.startswith(f"worker 1 used {share:.0%} of a core: ")


@pytest.mark.parametrize(
    ("late_us", "looks", "level"),
    [
        (1_900, 400, "valid"),
        (2_100, 400, "degraded"),
        (90_000, 400, "degraded"),  # late, and yet only what it stamps is doubtful
        (2_100, 298, "valid"),  # too few looks for a p99
    ],
)
def test_a_loop_that_is_late_degrades(tmp_path, late_us, looks, level):
    """p99 of its timer's lateness, where there are enough looks to tell it."""
    found = judge(strained(tmp_path, 0.3, late_us=late_us, looks=looks))
    assert found.level == level
    if level != "valid":
        (reason,) = found.reasons
        assert (reason.name, reason.number, reason.threshold) == ("client-limited", pytest.approx(late_us / 1e6, rel=0.001), 0.002)
        assert f"the loop of worker 0 was {late_us / 1e3:.1f} ms late at p99" in reason.advice


def test_of_all_that_shows_a_limit_the_worst_is_the_reason(tmp_path):
    """One reason a run, so that a grid counts its cells; a ceiling that the workers' CPU speaks against is doubted aloud."""
    full = judge(strained(tmp_path / "full", 0.97, late_us=3_000, looks=400), ceiling=ceiling(60))
    (reason,) = full.reasons
    assert (reason.level, reason.number) == ("invalid", pytest.approx(0.97))
    (reason,) = judge(strained(tmp_path / "idle", 0.3), ceiling=ceiling(51)).reasons
    assert reason.level == "invalid"
    assert reason.advice.endswith("but no worker used more than 30% of a core: if that is right, run `loadgen selftest` again")


def open_loop(directory, *, requests=1_000, takes_ms=100, outputs=(20, 60, 100), late=0, late_ms=0, **facts):
    """A request every 10 ms; so many of them, spread over the run, are sent so late. outputs: ms after they were sent."""
    rows = []
    for k in range(requests):
        sent = 10 * k + (late_ms if late and k % (requests // late) == 0 else 0)
        rows.append((k, exchange(10 * k, sent + takes_ms, sent=sent, outputs=[sent + ms for ms in outputs])))
    return summarise(directory, rows, **{"max_concurrent": 1_000, "schedule": EVENLY, "duration_s": requests / 100, **facts})


@pytest.mark.parametrize(
    ("late", "late_ms", "name", "level"),
    [
        (0, 0, None, "valid"),
        (10, 30, None, "valid"),  # one in a hundred is not beyond p99
        (20, 0.9, None, "valid"),  # below a millisecond, whatever the TTFT
        (20, 4.9, "send-lag", "degraded"),
        (20, 5.1, "client-limited", "invalid"),  # five times a millisecond, or a tenth of the median TTFT
        (200, 90, "client-limited", "invalid"),
    ],
)
def test_requests_that_went_out_late_with_a_slot_free_are_the_clients_doing(tmp_path, late, late_ms, name, level):
    """p99 of the lag against 2 % and 10 % of the median TTFT of 20 ms, at least 1 and 5 ms."""
    found = judge(open_loop(tmp_path, late=late, late_ms=late_ms))
    assert found.level == level
    if name:
        (reason,) = found.reasons
        assert (reason.name, reason.level, reason.number) == (name, level, pytest.approx(late_ms / 1e3))
        assert f"{late_ms:.1f} ms late at p99" in reason.advice


def test_lag_is_held_against_the_median_ttft(tmp_path):
    """10 ms of 600 ms are below 2 %; of 400 ms above them."""
    assert judge(open_loop(tmp_path / "a", late=20, late_ms=10, takes_ms=700, outputs=(600, 650))).reasons == []
    (reason,) = judge(open_loop(tmp_path / "b", late=20, late_ms=10, takes_ms=700, outputs=(400, 650))).reasons
    assert (reason.name, reason.threshold) == ("send-lag", pytest.approx(0.008))


def test_a_p99_of_a_few_requests_is_no_reason(tmp_path):
    """Of 99 the second but largest."""
    assert judge(open_loop(tmp_path, requests=99, late=9, late_ms=50)).reasons == []


@pytest.mark.parametrize(
    ("late", "late_ms", "level"),
    [(10, 5_000, "valid"), (20, 99, "valid"), (20, 101, "invalid"), (500, 900, "invalid")],
)
def test_a_rate_of_which_more_than_a_hundredth_went_out_too_late_was_not_achieved(tmp_path, late, late_ms, level):
    """Later than a tenth of a second; what fell due is told beside. (The median TTFT is 2 s here, of which a lag of 101 ms is little.)"""
    found = judge(open_loop(tmp_path, late=late, late_ms=late_ms, takes_ms=2_500, outputs=(2_000, 2_400)))
    reasons = {reason.name: reason for reason in found.reasons}
    assert ("rate-not-achieved" in reasons) == (level == "invalid")
    if level == "invalid":
        reason = reasons["rate-not-achieved"]
        assert (reason.level, reason.number, reason.threshold) == ("invalid", late / 1_000, 0.01)
        assert reason.advice.startswith(f"{late} of 1000 requests (100.0/s were due) were not sent within 0.1 s")


def test_what_waited_for_a_slot_is_no_reason_against_the_client(tmp_path):
    """A server that takes twice as long as there is time: all but the first go out late, up to 10 s, and none by the client's doing."""
    rows = [(k, exchange(10 * k, 20 * k + 20, sent=20 * k)) for k in range(1_000)]
    summary = summarise(tmp_path, rows, max_concurrent=1, schedule=EVENLY, duration_s=10.0)
    assert summary.whole.send_lag.max == pytest.approx(9.99)
    assert {reason.name for reason in judge(summary).reasons} == {"not-steady"}


def test_a_load_beyond_the_ceiling_is_the_clients_limit_even_where_little_of_it_was_handled(tmp_path):
    """100 requests a second fall due, and none ends while they do; 110 are what a worker can drive."""
    summary = open_loop(tmp_path, requests=500, takes_ms=60_000, outputs=())
    assert summary.ended_rps == 0
    summary = open_loop(tmp_path / "some", requests=500, takes_ms=4_000, outputs=())
    assert summary.ended_rps < 30
    (reason,) = judge(summary, ceiling=ceiling(110)).reasons
    assert (reason.name, reason.level, reason.number) == ("client-limited", "invalid", pytest.approx(100 / 110))
    assert "100 requests/s fell due" in reason.advice
    assert judge(summary, ceiling=ceiling(112)).reasons == []


@pytest.mark.parametrize(("together", "level"), [(0, "valid"), (5, "valid"), (6, "degraded")])
def test_events_that_came_together_degrade_above_five_percent(tmp_path, together, level):
    """Of a hundred events, so many in one read with the one before."""
    outputs = [10 + ms for ms in range(100)]
    for place in range(together):
        outputs[2 * place + 1] = outputs[2 * place]
    rows = [(k, exchange(0, 120, outputs=outputs)) for k in range(20)]
    found = judge(summarise(tmp_path, rows, max_concurrent=20))
    assert found.level == level
    if level == "degraded":
        (reason,) = found.reasons
        assert (reason.name, reason.number, reason.threshold) == ("coalesced", pytest.approx(0.06), 0.05)


def drifting(directory, latencies_ms):
    rows = [(k, exchange(10 * k, 10 * k + taken, stream=False)) for k, taken in enumerate(latencies_ms)]
    return summarise(directory, rows, max_concurrent=10_000, schedule=EVENLY, duration_s=len(latencies_ms) / 100)


def test_latency_that_rises_or_changes_degrades(tmp_path):
    """By how much of its median, which way, and when."""
    noise = np.random.default_rng(1).exponential(size=1_000)
    assert judge(drifting(tmp_path / "flat", 20 + noise)).reasons == []
    (trend,) = judge(drifting(tmp_path / "trend", np.linspace(20, 30, 1_000) + noise)).reasons
    assert (trend.name, trend.level, trend.number, trend.threshold) == ("not-steady", "degraded", pytest.approx(0.4, abs=0.02), 0.1)
    assert "latency rose from beginning to end by" in trend.advice
    (change,) = judge(drifting(tmp_path / "change", np.where(np.arange(1_000) < 700, 30, 20) + noise)).reasons
    assert change.name == "not-steady"
    assert "latency fell at 7.0 s and stayed there" in change.advice


def test_a_backlog_that_only_littles_law_sees_degrades(tmp_path):
    """One request in ten never ends while the run lasts: those that do are as fast as ever."""
    rows = [(k, exchange(10 * k, 10 * k + 20 if k % 10 else 20_000, stream=False)) for k in range(1_000)]
    rows = [(k, one) if k % 10 else (k, exchange(10 * k, 20_000, outcome=Outcome.CANCELLED, stream=False)) for k, one in rows]
    summary = summarise(tmp_path, rows, max_concurrent=10_000, schedule=EVENLY, duration_s=10.0)
    (reason,) = judge(summary).reasons
    assert (reason.name, reason.level, reason.threshold) == ("not-steady", "degraded", 0.02)
    assert "a backlog grew or shrank" in reason.advice


def test_a_window_that_is_short_beside_its_requests_is_not_held_to_littles_law(tmp_path):
    """Its edges alone cut more than 2 % of them."""
    summary = open_loop(tmp_path, requests=300, takes_ms=200, outputs=())
    assert summary.steadiness.little.off > 0.02
    assert judge(summary).reasons == []


@pytest.mark.parametrize(
    ("command", "requests", "level"),
    [("run", 2_999, "degraded"), ("run", 3_000, "valid"), ("search", 100, "valid"), ("bench", 100, "valid")],
)
def test_commands_that_look_over_time_look_for_half_a_minute(tmp_path, command, requests, level):
    """A measuring window below 30 s degrades a run; a bench is as long as its requests, a part of a search's point as it is."""
    found = judge(open_loop(tmp_path, requests=requests, outputs=()), least_s=least_window_s(command))
    assert found.level == level
    if level == "degraded":
        (reason,) = found.reasons
        assert (reason.name, reason.number, reason.threshold) == ("short", pytest.approx(requests / 100), 30)


def test_samples_that_depend_on_each_other_are_too_few_sooner(tmp_path):
    """400 in blocks of 20 alike: p99 would need 299 independent ones; the reason has both numbers."""
    blocks = np.repeat(np.random.default_rng(2).exponential(size=20), 20)
    (reason,) = judge(drifting(tmp_path, 20 + 10 * blocks), [99]).reasons
    assert (reason.name, reason.threshold) == ("too-few-samples", 299)
    assert reason.number < 60
    assert f"rests on 400 samples that are as alike as {reason.number:.0f} independent ones" in reason.advice


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
