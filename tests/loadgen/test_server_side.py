"""What the server says of a plan: differences of its counters and histograms, gauges inside the window, when it was asked."""

import msgspec
import pytest

from loadgen.scrape import Read, Readings
from loadgen.server_counters import Buckets, ServerCounters
from loadgen.server_side import Between, Level, ServerSide, server_side, watched
from loadgen.watch import Moment

S = 1_000_000_000


def read(at_s, counters=None, absent="", took_s=0.25):
    """A read that began at `at_s`."""
    return Read(began_ns=round(at_s * S), ended_ns=round((at_s + took_s) * S), counters=counters, absent=absent)


def timed(count, sum_s, *counts, bounds=(0.1, 1.0)):
    """A server that has only one histogram."""
    return ServerCounters(times={"queue": Buckets(count=count, sum_s=sum_s, bounds_s=bounds, counts=counts)})


def test_a_difference_is_after_minus_before():
    """By reason and in total; a reason that appeared in between counts from zero."""
    before = ServerCounters(requests={"stop": 5}, prompt_tokens=100, generation_tokens=10, running=0, waiting=0)
    after = ServerCounters(requests={"stop": 7, "length": 1}, prompt_tokens=130, generation_tokens=25, running=1, waiting=0)
    side = ServerSide.between(before, after)
    assert (side.requests, side.requests_total) == ({"stop": 2, "length": 1}, 3)
    assert (side.prompt_tokens, side.generation_tokens, side.preemptions) == (30, 15, None)
    assert (side.running_after, side.restarted) == (1, False)


def test_what_the_server_broke_off_did_not_end_in_order():
    """abort and error are no success there, as here."""
    before = ServerCounters(requests=dict.fromkeys(("stop", "length", "abort", "error", "repetition"), 0))
    side = ServerSide.between(before, ServerCounters(requests={"stop": 5, "length": 4, "abort": 3, "error": 2, "repetition": 1}))
    assert (side.requests_total, side.in_order) == (15, 10)
    assert ServerSide().in_order is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ServerCounters(requests={"stop": 5}, prompt_tokens=100), ServerCounters(requests={"stop": 2}, prompt_tokens=300)),  # went down
        (timed(5, 1.0, 1, 2), timed(6, 1.0, 0, 3)),  # in one bucket
        (timed(5, 1.0, 1, 2), timed(2, 0.1, 1, 2)),  # a histogram's count
        # It has counted more than before, but was started anew.
        (ServerCounters(prompt_tokens=1, process_started=1.0), ServerCounters(prompt_tokens=2, process_started=2.0)),
    ],
)
def test_a_restarted_server_gives_no_difference(before, after):
    """The difference would be a number about nothing."""
    assert ServerSide.between(before, after) == ServerSide(restarted=True)


def test_a_histograms_difference_has_its_sum_and_the_bounds_of_its_percentiles():
    """10 timed before, 100 since: 50 up to 0.1 s, 40 up to 1 s, 10 above the last bound."""
    side = ServerSide.between(timed(10, 3.0, 10, 10), timed(110, 45.0, 60, 100))
    queue = side.times["queue"]
    assert (queue.count, queue.sum_s, queue.mean_s) == (100, 42.0, 0.42)
    assert queue.percentiles == {
        "p50": Between(low_s=0.0, high_s=0.1),  # the 50th sample is the last of the first bucket
        "p90": Between(low_s=0.1, high_s=1.0),
        "p99": Between(low_s=1.0, high_s=None),
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (timed(1, 1.0, 0, 1), timed(1, 1.0, 0, 1)),  # nothing was timed since
        (timed(1, 1.0, 1, bounds=(0.1,)), timed(2, 1.5, 1, 2)),  # its bounds changed
        (timed(1, 1.0, bounds=()), timed(2, 1.5, bounds=())),  # it has no buckets
    ],
)
def test_without_buckets_there_are_no_percentiles(before, after):
    """The sum and the count are there all the same."""
    queue = ServerSide.between(before, after).times["queue"]
    assert (queue.count, queue.percentiles) == (after.times["queue"].count - 1, {})


def test_a_histogram_that_appeared_in_between_is_left_out():
    """Nothing says what it held before."""
    assert ServerSide.between(ServerCounters(prompt_tokens=1), timed(1, 1.0, 0, 1)).times == {}


def test_the_bracket_is_told_from_the_windows_start():
    """Read 1 s before a window of 10 s, and 2 s after it; each read took a quarter of a second."""
    counters = ServerCounters(prompt_tokens=1)
    side = server_side(Readings(before=read(99.0, counters), after=read(112.0, counters)), [], (100 * S, 110 * S))
    assert side.bracket is not None
    assert msgspec.structs.astuple(side.bracket) == (10.0, -1.0, -0.75, 12.0, 12.25)
    assert (side.watched, side.notes) == (None, [])


def test_gauges_are_of_the_moments_inside_the_window():
    """A read that began before the window or ended after it says nothing of it; one without an answer is counted as that."""

    def moment(at_s, took_s, running=None, absent=""):
        waiting = None if running is None else 2 * running
        return Moment(began_ns=round(at_s * S), ended_ns=round((at_s + took_s) * S), running=running, waiting=waiting, absent=absent)

    moments = [
        moment(99.9, 0.2, 100),  # half of it before
        moment(100.5, 0.1, 2),
        moment(101.5, 0.3, 6),
        moment(102.5, 0.2, 1),
        moment(103.5, 0.2, absent="HTTP 500"),
        moment(109.9, 0.2, 100),  # half of it after
    ]
    counters = ServerCounters(prompt_tokens=1)
    side = server_side(Readings(before=read(99, counters), after=read(112, counters)), moments, (100 * S, 110 * S))
    assert side.watched is not None
    assert (side.watched.reads, side.watched.missed) == (4, 1)
    assert (side.watched.took_mean_s, side.watched.took_max_s) == (pytest.approx(0.2), pytest.approx(0.3))
    assert side.watched.running == Level(mean=3.0, max=6.0, last=1.0)
    assert side.watched.waiting == Level(mean=6.0, max=12.0, last=2.0)
    assert side.watched.kv_usage is None


def test_without_moments_there_are_no_gauges():
    """None, not zeros."""
    assert watched([]) is None


@pytest.mark.parametrize(
    ("readings", "note"),
    [
        (Readings(before=read(1, absent="HTTP 404")), "the server gives no counters (HTTP 404)"),
        (
            Readings(before=read(1, ServerCounters(prompt_tokens=1))),
            "the server gave no counters after the plan (the run ended before they were asked for)",
        ),
        (
            Readings(before=read(1, ServerCounters(prompt_tokens=1)), after=read(9, absent="no answer within 1 s")),
            "the server gave no counters after the plan (no answer within 1 s)",
        ),
    ],
)
def test_a_read_that_is_missing_is_a_note(readings, note):
    """Counts are then None, with the reason in words."""
    side = server_side(readings, [], (2 * S, 8 * S))
    assert (side.requests_total, side.times, side.notes) == (None, {}, [note])


def test_readings_survive_their_file():
    """server.json: counters, histograms and stamps to the last bit."""
    readings = Readings(before=read(1, timed(5, 1 / 3, 1, 2)), after=read(9, absent="HTTP 500"))
    assert msgspec.json.decode(msgspec.json.encode(readings), type=Readings) == readings
