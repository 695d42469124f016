"""Records to numbers, against NumPy on what was written and against cases that are worked out by hand."""

import random

import numpy as np
import pytest
from written import at, exchange, summarise, write

from clients.errors import Outcome
from loadgen.arrivals import pool_gaps
from loadgen.histogram import RELATIVE_BOUND
from loadgen.plan_facts import PlanFacts
from loadgen.recorded import read_records
from loadgen.records import RecordWriter
from loadgen.reducer import reduce
from loadgen.stretch import SLICES

MS = 1e-3


def mixture(n, seed):
    """Requests of every kind: streams of 1..9 events, some not streamed, some failed; late senders, reasoning before the answer."""
    draw = random.Random(seed)
    rows = []
    for k in range(n):
        due = k * 3
        sent = due + draw.random()
        first = sent + draw.uniform(5, 20)
        outputs = [first + 7 * place + draw.random() for place in range(draw.randint(1, 9))]
        end = outputs[-1] + draw.random()
        if k % 10 == 3:
            made = exchange(due, end, sent=sent, outcome=draw.choice([Outcome.RESET, Outcome.STALL_TIMEOUT]), outputs=outputs[:1])
        elif k % 10 == 5:
            made = exchange(due, end, sent=sent, stream=False, usage=(10, 4, None, None))
        else:
            made = exchange(due, end, sent=sent, outputs=outputs, usage=(10, len(outputs), 2, None), finish=draw.choice(["stop", "length"]))
            made.answer.first_answer_ns = made.answer.last_output_ns
        rows.append((k, made))
    return rows


def close_to(distribution, samples_ns):
    """Whether a distribution is NumPy's of these samples."""
    samples = np.array(samples_ns) / 1e9
    assert distribution.count == len(samples)
    percents = [one.percent for one in distribution.percentiles.values()]
    assert [one.value for one in distribution.percentiles.values()] == pytest.approx(np.percentile(samples, percents).tolist(), rel=1e-12)
    assert (distribution.min, distribution.max) == pytest.approx((samples.min(), samples.max()))
    assert distribution.mean == pytest.approx(samples.mean())
    return True


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_each_metric_is_numpys_over_all_records_whatever_the_number_of_files(tmp_path, parts):
    """Computed here from the exchanges themselves, before they were ever written."""
    rows = mixture(300, seed=parts)
    summary = summarise(tmp_path, rows, parts=parts, max_concurrent=99)
    ok = [made for _, made in rows if made.outcome is Outcome.OK]
    streamed = [made for made in ok if made.request.stream]
    several = [made for made in streamed if made.answer.events > 1]
    whole = summary.whole
    assert close_to(whole.latency, [made.end_ns - made.due_ns for made in ok])
    assert close_to(whole.latency_from_sent, [made.end_ns - made.sent_ns for made in ok])
    assert close_to(whole.send_lag, [made.sent_ns - made.due_ns for made in ok])
    assert close_to(whole.ttft, [made.answer.first_output_ns - made.due_ns for made in streamed])
    assert close_to(whole.ttft_from_sent, [made.answer.first_output_ns - made.sent_ns for made in streamed])
    assert close_to(whole.first_answer, [made.answer.first_answer_ns - made.due_ns for made in streamed])
    assert close_to(whole.event_gap, [gap * 1000 for made in several for gap in made.answer.gaps_us])
    assert close_to(whole.largest_gap, [max(made.answer.gaps_us) * 1000 for made in several])
    assert close_to(whole.tpot, [(made.answer.last_output_ns - made.answer.first_output_ns) / (made.answer.events - 1) for made in several])
    length = (max(made.end_ns for _, made in rows) - at(0)) / 1e9
    assert whole.requests_rps == pytest.approx(len(ok) / length)
    tokens = sum(made.answer.usage.completion_tokens for made in ok)
    assert (whole.output_tokens_tps, whole.input_tokens_tps) == pytest.approx((tokens / length, 10 * len(ok) / length))
    assert (summary.tokens.prompt, summary.tokens.completion, summary.tokens.source) == (10 * len(ok), tokens, "usage")
    assert summary.accounting.closes
    cut = sum(made.answer.finish_reasons.get(0) == "length" for made in ok)
    assert summary.length_share == pytest.approx(cut / len(ok))


def test_the_split_over_files_changes_nothing_but_the_workers(tmp_path):
    """Averaging percentiles of workers would show here."""
    rows = mixture(120, seed=5)
    one, five = (summarise(tmp_path, rows, parts=parts, max_concurrent=99) for parts in (1, 5))
    assert one.whole == five.whole
    # A different first message of a kind is all that the order of files may change.
    counts = [{kind: (failure.count, failure.latency) for kind, failure in summary.failures.items()} for summary in (one, five)]
    assert counts[0] == counts[1]
    assert (one.tokens, one.finishes) == (five.tokens, five.finishes)
    assert one.batch_means == pytest.approx(five.batch_means)


def closed_loop(slots, waves, *, took=10, lanes=False):
    """Slots that work in step: `waves` requests of equal length in each, back to back."""
    return [
        (wave * slots + slot, exchange(wave * took, (wave + 1) * took), {"lane": slot if lanes else 0})
        for wave in range(waves)
        for slot in range(slots)
    ]


def test_a_closed_loop_of_equal_requests_has_the_rate_that_arithmetic_says(tmp_path):
    """4 slots, 10 ms each: 400 requests/s, over the whole run, its steady stretch and each slice of it."""
    summary = summarise(tmp_path, closed_loop(4, 25), max_concurrent=4)
    assert summary.steady_absent == ""
    assert (summary.steady.start_s, summary.steady.end_s) == (0.01, 0.25)  # after the first wave
    assert summary.whole.requests_rps == summary.steady.requests_rps == pytest.approx(400)
    assert summary.batch_means == pytest.approx([400] * SLICES)
    assert (summary.whole.in_flight_peak, summary.whole.in_flight_mean) == (4, pytest.approx(4))
    assert summary.whole.latency.value(99) == pytest.approx(10 * MS)


def queued_loop(slots, seats, count, *, streamed, took=10):
    """A closed loop against a server that works on `seats` requests at a time, in step, and queues the rest in order.

    Its work on a request is 4 ms of prefill, without output, and 6 ms of tokens.
    """
    dues, rows = [0.0] * slots, []
    free = [0.0] * seats
    for k in range(count):
        due = dues[k]
        begun = max(due, free[k % seats])
        free[k % seats] = begun + took
        outputs = [begun + 4 + event * 0.75 for event in range(9)] if streamed else ()
        rows.append((k, exchange(due, begun + took, outputs=outputs, stream=streamed)))
        dues.append(begun + took)
    return rows


@pytest.mark.parametrize("slots", [4, 5, 6, 8])
@pytest.mark.parametrize("waves", [4, 6, 20])
@pytest.mark.parametrize("streamed", [True, False])
def test_slots_that_only_queue_do_not_raise_the_throughput(tmp_path, slots, waves, streamed):
    """4 seats of 10 ms give 400 requests/s however many more wait, also in a short run: the start burst is no throughput.

    To the request that an edge may fall into, where seats work in step; counted from the first due it is two, and always too many.
    """
    summary = summarise(tmp_path, queued_loop(slots, 4, waves * slots, streamed=streamed), max_concurrent=slots)
    error = abs(summary.steady.requests_rps - 400) * summary.steady.length_s
    assert error < (0.01 if streamed else 1.25)


def test_the_drain_is_outside_the_steady_stretch(tmp_path):
    """Slot 1 runs out at 80 ms, slot 0 has one long request more: the rate of the stretch is that of two busy slots."""
    rows = [(k, exchange(k * 10, k * 10 + 10)) for k in range(8)] + [(8 + k, exchange(k * 10, k * 10 + 10)) for k in range(8)]
    rows.append((16, exchange(80, 480)))
    summary = summarise(tmp_path, rows, max_concurrent=2)
    assert summary.steady.end_s == pytest.approx(0.08)  # nothing followed the end of the eighth in slot 1
    dealt = [row for pair in zip(rows[:8], rows[8:16], strict=True) for row in pair] + rows[16:]  # a slot for each worker
    lone = summarise(tmp_path / "two", dealt, parts=2, max_concurrent=2)
    assert lone.steady.end_s == pytest.approx(0.08)
    assert lone.steady.requests_rps == pytest.approx(200)
    assert lone.whole.requests_rps == pytest.approx(17 / 0.48)


def test_no_steady_stretch_has_its_reason(tmp_path):
    """Too few requests for the slots; or only as many as there are slots, which is the start burst."""
    never = summarise(tmp_path / "a", closed_loop(3, 4), max_concurrent=4)
    assert never.steady is None and never.steady_absent == "never were all 4 slots busy at once"
    burst = [(k, exchange(0, 10 + k)) for k in range(4)]
    once = summarise(tmp_path / "b", burst, max_concurrent=4)
    assert once.steady is None and once.steady_absent == "fewer than 4 requests ended while all 4 slots were busy, after the first 4"
    assert once.ranked == once.whole
    assert len(once.batch_means) == SLICES


def test_batch_lanes_barriers_and_what_they_leave_idle(tmp_path):
    """One lane of 2 slots, batches of 2 that take 10 and 4 ms: makespan 10 ms, and 3 of 10 slot milliseconds idle."""
    rows = []
    for batch in range(6):
        begin = batch * 10
        for place, took in enumerate((10, 4)):
            rows.append((2 * batch + place, exchange(begin, begin + took), {"batch": batch}))
    summary = summarise(tmp_path, rows, max_concurrent=2, batch_size=2)
    assert (summary.batches.count, summary.batches.makespan.median) == (6, pytest.approx(10 * MS))
    assert summary.batches.straggler_waste == pytest.approx(0.3)
    # A lane at its barrier is at work: the stretch is the whole run, and its rate that of a batch.
    assert (summary.steady.end_s, summary.steady.requests_rps) == (0.06, pytest.approx(200))


def test_the_last_batch_of_a_lane_waits_for_nothing(tmp_path):
    """A partial last batch leaves slots idle for want of work, not by a barrier; a single batch has no waste to tell."""
    rows = [(k, exchange(0, 10), {"batch": 0}) for k in range(4)] + [(4, exchange(10, 20), {"batch": 1})]
    assert summarise(tmp_path, rows, max_concurrent=4, batch_size=4).batches.straggler_waste == 0
    assert summarise(tmp_path / "single", rows[:4], max_concurrent=4, batch_size=4).batches.straggler_waste is None


def test_failures_are_counted_by_kind_and_are_in_no_percentile(tmp_path):
    """With their own latencies, an example, and the time they cost."""
    rows = [(k, exchange(0, 10)) for k in range(6)]
    rows += [(6, exchange(0, 500, outcome=Outcome.STALL_TIMEOUT, message="no token for 5 s", outputs=[1, 2, 3]))]
    rows += [(k, exchange(0, 20, outcome=Outcome.OVERLOADED, status=503)) for k in (7, 8)]
    rows += [(9, exchange(0, 60, outcome=Outcome.CANCELLED))]
    summary = summarise(tmp_path, rows, max_concurrent=99)
    assert summary.whole.latency.max == pytest.approx(10 * MS)
    assert list(summary.failures) == ["overloaded", "cancelled", "stall-timeout"]
    overloaded, stall = summary.failures["overloaded"], summary.failures["stall-timeout"]
    assert (overloaded.count, overloaded.fault, overloaded.statuses) == (2, "server", {"503": 2})
    assert (stall.latency.max, stall.example) == (pytest.approx(0.5), "no token for 5 s")
    accounting = summary.accounting
    assert (accounting.ok, accounting.failed, accounting.timed_out, accounting.cancelled) == (6, 2, 1, 1)
    assert summary.success_rate == pytest.approx(6 / 9)  # what we cancelled says nothing of the server
    assert (summary.wasted.requests, summary.wasted.output_tokens) == (4, 3)
    assert summary.wasted.time_share == pytest.approx(600 / 660)


def test_attempts_before_a_retry_stand_beside(tmp_path):
    """They are in no count of requests, no percentile and no success rate."""
    rows = [(k, exchange(0, 10)) for k in range(5)]
    rows += [
        (2, exchange(0, 900, outcome=Outcome.RATE_LIMITED), {"final": False}),
        (2, exchange(0, 9, outcome=Outcome.RESET), {"final": False}),
    ]
    path = tmp_path / "a.records"
    write(path, rows)
    summary = reduce(read_records([path]), PlanFacts(label="x", max_concurrent=9, workers=1, shares=(5,), count=5))
    assert (summary.requests, summary.success_rate, summary.whole.latency.count) == (5, 1.0, 5)
    assert (summary.attempts.count, summary.attempts.errors) == (2, {"rate-limited": 1, "reset": 1})
    assert summary.accounting.closes


# ---- gaps ----------------------------------------------------------------------------------------------------------------


def gaps_of(tmp_path, *made, **more):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.records"
    write(path, [(k, one) for k, one in enumerate(made)])
    return pool_gaps(read_records([path]), np.arange(len(made)), (0.0, 50.0, 100.0), **more)


def test_an_event_of_several_tokens_counts_as_that_many_gaps(tmp_path):
    """30 ms for 3 tokens are three gaps of 10 ms; the gaps of events are shown as they were."""
    gaps = gaps_of(tmp_path, exchange(0, 99, outputs=[0, 30, 50], tokens=[5, 3, 1]))
    assert gaps.per_token
    assert (gaps.itl.count, gaps.itl.mean, gaps.itl.min, gaps.itl.max) == (
        4,
        pytest.approx(12.5 * MS),
        pytest.approx(0.01),
        pytest.approx(0.02),
    )
    assert (gaps.event_gap.count, gaps.event_gap.max) == (2, pytest.approx(0.03))


def test_events_of_one_read_are_one_arrival(tmp_path):
    """Their tokens share its gap; those that came with the first event have none, and none reaches into the request before."""
    batched = exchange(0, 99, outputs=[0, 0, 30, 30, 30], tokens=[1, 1, 1, 1, 1])
    gaps = gaps_of(tmp_path, batched, batched)
    assert (gaps.itl.count, gaps.itl.min, gaps.itl.max) == (6, pytest.approx(0.01), pytest.approx(0.01))
    assert (gaps.event_gap.count, gaps.largest.max) == (2, pytest.approx(0.03))
    assert gaps.coalesced_share == pytest.approx(6 / 10)


def test_an_event_without_a_token_gives_its_time_to_the_next(tmp_path):
    """Half a character: per-token gaps still add up to the time from first output to last token."""
    gaps = gaps_of(tmp_path, exchange(0, 99, outputs=[0, 5, 20, 40], tokens=[1, 0, 1, 2]))
    assert gaps.itl.count == 3
    assert gaps.itl.mean * 3 == pytest.approx(0.04)
    assert (gaps.itl.min, gaps.itl.max) == (pytest.approx(0.01), pytest.approx(0.02))


def test_gaps_are_per_event_where_tokens_are_not_known(tmp_path):
    """One request of unknown sizes makes it so for all: a mixture would mean nothing."""
    gaps = gaps_of(tmp_path, exchange(0, 99, outputs=[0, 30], tokens=[1, 3]), exchange(0, 99, outputs=[0, 10]))
    assert not gaps.per_token
    assert gaps.itl == gaps.event_gap
    assert gaps.itl.count == 2


def test_many_gaps_come_from_a_histogram_within_its_bound(tmp_path):
    """The same requests, pooled exactly and folded."""
    draw = random.Random(1)
    made = [
        exchange(0, 9_999, outputs=sorted(draw.uniform(0, 900) for _ in range(20)), tokens=[draw.randint(0, 3) for _ in range(20)])
        for _ in range(50)
    ]
    exact, folded = gaps_of(tmp_path, *made), gaps_of(tmp_path, *made, exact_gaps=100)
    assert (exact.from_histogram, folded.from_histogram) == (False, True)
    assert folded.itl.relative_bound == RELATIVE_BOUND
    for one, other in ((exact.itl, folded.itl), (exact.event_gap, folded.event_gap)):
        assert one.count == other.count
        assert other.median == pytest.approx(one.median, rel=RELATIVE_BOUND)
        assert other.mean == pytest.approx(one.mean, rel=1e-6)


# ---- windows -------------------------------------------------------------------------------------------------------------


def test_a_run_by_duration_counts_what_happened_in_its_window(tmp_path):
    """100 ms: completions and tokens stamped inside; latencies of all that was due inside, however late it ended."""
    rows = [(k, exchange(k * 20, k * 20 + 20, outputs=[k * 20 + 5, k * 20 + 15], usage=(1, 2, None, None))) for k in range(5)]
    rows.append((5, exchange(99, 300, outputs=[99.5, 250, 260, 270], usage=(1, 4, None, None))))
    path = tmp_path / "a.records"
    write(path, rows, share=-1)
    summary = reduce(read_records([path]), PlanFacts(label="x", max_concurrent=9, workers=1, duration_s=0.1))
    assert (summary.whole.requests, summary.whole.latency.max) == (6, pytest.approx(0.201))
    assert summary.whole.requests_rps == pytest.approx(5 / 0.1)
    assert summary.whole.output_tokens_tps == pytest.approx((10 + 1) / 0.1)
    assert summary.accounting.closes and summary.accounting.scheduled == 6


def test_no_records_are_a_summary_of_nothing(tmp_path):
    """A run that was stopped before its first request ended: no number is made up."""
    path = tmp_path / "a.records"
    write(path, [], share=8)
    summary = reduce(read_records([path]), PlanFacts(label="x", max_concurrent=2, workers=1, shares=(8,), count=8, batch_size=2))
    assert (summary.requests, summary.success_rate, summary.whole.latency, summary.whole.requests_rps) == (0, None, None, 0)
    assert (summary.accounting.unsent, summary.accounting.closes, summary.steady) == (8, True, None)


# ---- accounting ----------------------------------------------------------------------------------------------------------


def account(directory, shares, count=None):
    paths = sorted(directory.glob("*.records"))
    facts = PlanFacts(label="x", max_concurrent=9, workers=len(shares), shares=shares, count=sum(shares) if count is None else count)
    return reduce(read_records(paths), facts)


def ten(first=0):
    return [(k, exchange(0, 10)) for k in range(first, first + 10)]


def test_a_stopped_run_closes_with_what_was_not_sent(tmp_path):
    """Ten of fifteen."""
    write(tmp_path / "0.records", ten(), unsent=5)
    accounting = account(tmp_path, (15,)).accounting
    assert (accounting.scheduled, accounting.ok, accounting.unsent, accounting.closes) == (15, 10, 5, True)


@pytest.mark.parametrize("between", [False, True], ids=["after-the-counter", "between-frame-and-counter"])
def test_a_killed_worker_closes_with_what_it_had_in_flight(tmp_path, between):
    """Its state is lost; its records count. The kill may fall between a frame and its counter."""
    writer = write(tmp_path / "0.records", ten()[:8], share=10, close=False)
    for _ in range(2):
        writer.sent()
    if between:
        writer._counters[2] -= 1
    summary = account(tmp_path, (10,))
    assert (summary.workers[0].state, summary.accounting.closes) == ("lost", True)
    assert (summary.accounting.ok, summary.accounting.in_flight, summary.accounting.unsent) == (8, 2, 0)
    writer.close()


def test_dropped_requests_were_never_sent(tmp_path):
    """They are a term of their own, neither unsent nor in flight."""
    write(tmp_path / "0.records", [*ten(), (10, exchange(0, 1, outcome=Outcome.DROPPED, sent_ns=0))])
    accounting = account(tmp_path, (11,)).accounting
    assert (accounting.dropped, accounting.unsent, accounting.in_flight, accounting.closes) == (1, 0, 0, True)


def test_a_missing_frame_shows(tmp_path):
    """A reader, or a writer, that loses the last record of an ended worker does not go unseen."""
    path = tmp_path / "0.records"
    writer = write(path, ten()[:9], share=10, close=False)
    writer.sent()
    writer._finished += 1
    writer._counters[2] = writer._finished
    writer.close()
    accounting = account(tmp_path, (10,)).accounting
    assert (accounting.residual, accounting.closes) == (1, False)


def test_a_request_with_two_ends_shows(tmp_path):
    """Even when two workers did it and each of them adds up."""
    write(tmp_path / "0.records", ten(), workers=2)
    write(tmp_path / "1.records", ten(9), worker=1, workers=2)
    accounting = account(tmp_path, (10, 10)).accounting
    assert (accounting.residual, accounting.problems) == (0, ["1 requests have more than one final record"])


def test_requests_beyond_the_plan_and_shares_that_do_not_add_up_show(tmp_path):
    """The plan is held against the records, not the records against themselves."""
    write(tmp_path / "0.records", ten(5))
    assert account(tmp_path, (10,)).accounting.problems == ["request 14 is recorded, but there were 10"]
    assert account(tmp_path, (10,), count=20).accounting.problems == ["the shares of the workers add up to 10, not to 20"]
    assert account(tmp_path, (12,), count=20).accounting.problems[0] == "worker 0: its file says a share of 10, the plan 12"


def test_a_worker_without_a_file_is_lost(tmp_path):
    """Its share counts as unsent, and the rest is summarised."""
    write(tmp_path / "0.records", ten(), workers=2)
    summary = account(tmp_path, (10, 10))
    assert [worker.state for worker in summary.workers] == ["ended", "lost"]
    assert (summary.ok, summary.accounting.unsent, summary.accounting.residual) == (10, 10, 0)


def test_an_ended_worker_with_requests_in_flight_is_a_fault(tmp_path):
    """A driver that closes its file before its last request ended has lost it."""
    writer = write(tmp_path / "0.records", ten(), share=11, close=False)
    writer.sent()
    writer.close()
    assert account(tmp_path, (11,)).accounting.problems == ["worker 0: ended with 1 requests in flight"]


def test_records_of_a_worker_that_the_plan_has_not_are_refused(tmp_path):
    """The wrong plan for these files: a misuse, not a result."""
    RecordWriter(tmp_path / "0.records", run_id=bytes(16), plan=0, worker=3, workers=4).close()
    with pytest.raises(ValueError, match="worker 3, but the plan has 1 workers"):
        account(tmp_path, (10,))
