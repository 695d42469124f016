"""Where the time went: parts that add up to what was waited, or the reason why they cannot be said."""

import pytest

from clients.errors import Outcome
from loadgen.breakdown import Waited, break_down, waited
from loadgen.recorded import read_records
from loadgen.server_side import ServerTimes
from tests.loadgen import written


def times(count=10, **sums):
    """What the server timed, of `count` requests each."""
    return {name: ServerTimes(count=count, sum_s=sum_s) for name, sum_s in sums.items()}


def test_ttft_is_divided_into_its_phases():
    """100 s of 10 requests: 2 until sent; the server says 90, of these 71 queueing and 12 prefill; the rest of its own is its front end's."""
    breakdown = break_down("ttft", times(queue=71.0, prefill=12.0, decode=5.0, ttft=90.0), Waited(10, 2.0, 98.0))
    assert breakdown is not None
    assert (breakdown.requests, breakdown.mean_s, breakdown.absent) == (10, 10.0, "")
    assert [(part.phase, pytest.approx(part.share), pytest.approx(part.mean_s)) for part in breakdown.parts] == [
        ("queue", 0.71, 7.1),
        ("prefill", 0.12, 1.2),
        ("outside", 0.08, 0.8),
        ("front_end", 0.07, 0.7),
        ("held", 0.02, 0.2),
    ]
    assert sum(part.share for part in breakdown.parts) == pytest.approx(1.0)
    assert breakdown.share("queue") == pytest.approx(0.71)
    assert breakdown.share("decode") is None


def test_latency_has_decoding_as_well():
    """The whole of a request, with the server's own e2e as its total."""
    breakdown = break_down("latency", times(queue=10.0, prefill=20.0, decode=60.0, latency=92.0), Waited(10, 0.0, 100.0))
    assert breakdown is not None
    assert {part.phase: round(part.share, 6) for part in breakdown.parts} == {
        "decode": 0.6,
        "prefill": 0.2,
        "queue": 0.1,
        "outside": 0.08,
        "front_end": 0.02,
        "held": 0.0,
    }


@pytest.mark.parametrize(
    ("timed", "ours", "said"),
    [
        # Someone else's requests are in its sums.
        (times(queue=1.0, prefill=1.0, ttft=3.0), Waited(9, 0.0, 9.0), "the server timed queue of 10, prefill of 10, ttft of 10 requests, we timed 9: not the same ones"),
        # One was broken off after its first token: it is in one sum and not in the others.
        (
            times(queue=1.0, prefill=1.0) | times(11, ttft=3.0),
            Waited(10, 0.0, 9.0),
            "the server timed queue of 10, prefill of 10, ttft of 11 requests, we timed 10: not the same ones",
        ),
        (times(prefill=1.0, ttft=3.0), Waited(10, 0.0, 9.0), "the server does not time queue"),
        # Longer than what passed here: as many requests, but others.
        (times(queue=1.0, prefill=1.0, ttft=9.5), Waited(10, 0.0, 9.0), "the server's times sum to 9.5 s, what passed here to 9 s: they cannot be of the same requests"),
        (times(queue=5.0, prefill=3.0, ttft=7.0), Waited(10, 0.0, 9.0), "the server's times sum to 8 s, its own total to 7 s: they cannot be of the same requests"),
    ],
)  # fmt: skip
def test_where_counts_or_sums_disagree_nothing_is_shared_out(timed, ours, said):
    """The numbers that disagree are named."""
    breakdown = break_down("ttft", timed, ours)
    assert breakdown is not None
    assert (breakdown.parts, breakdown.mean_s, breakdown.absent) == ([], None, said)


@pytest.mark.parametrize(
    ("timed", "ours"),
    [
        ({}, Waited(10, 0.0, 9.0)),  # a server without histograms
        (times(0, queue=0.0, prefill=0.0, ttft=0.0), Waited(10, 0.0, 9.0)),  # one that has them and does not fill them
        (times(queue=1.0, prefill=1.0, ttft=3.0), Waited(0, 0.0, 0.0)),  # we streamed nothing
    ],
)
def test_where_one_side_timed_nothing_there_is_nothing_to_say(timed, ours):
    """None: no breakdown, and no complaint."""
    assert break_down("ttft", timed, ours) is None


def test_clocks_may_differ_a_little():
    """Half a percent more there than passed here: said as it is, below 0."""
    breakdown = break_down("ttft", times(queue=50.0, prefill=50.5, ttft=100.5), Waited(10, 0.0, 100.0))
    assert breakdown is not None
    assert breakdown.share("outside") == pytest.approx(-0.005)


def test_what_was_waited_is_of_successful_requests_only(tmp_path):
    """Held 5 ms each; first outputs at 25 and 30 ms, ends at 40 and 50; a failed one and one that was not streamed beside."""
    rows = [
        (0, written.exchange(0, 40, sent=5, outputs=(25, 40))),
        (1, written.exchange(0, 50, sent=5, outputs=(30, 50))),
        (2, written.exchange(0, 99, sent=5, outputs=(50,), outcome=Outcome.STALL_TIMEOUT)),
        (3, written.exchange(0, 60, sent=0, stream=False)),
    ]
    written.write(tmp_path / "worker-0.records", rows)
    heads = read_records([tmp_path / "worker-0.records"]).heads
    assert waited(heads, "ttft") == pytest.approx((2, 0.010, 0.045))
    assert waited(heads, "latency") == pytest.approx((3, 0.010, 0.140))
