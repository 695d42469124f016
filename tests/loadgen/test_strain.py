"""What workers had to do, and what it took: from records and snapshots that are written by hand."""

import pytest
from written import at, beat, exchange, summarise, write

from clients.errors import Outcome
from loadgen.recorded import read_records
from loadgen.strain import effort, handled
from loadgen.stretch import Stretch


def records(path, rows=(), **more):
    write(path, rows or [(0, exchange(0, 9))], **more)
    return read_records([path])


def test_cpu_and_lag_are_those_between_two_beats(tmp_path):
    """The first opens the interval: what it says of the time before is not counted; a beat outside the stretch says nothing."""
    beats = [beat(500, 7.0, [9_000]), beat(1_000, 10.0, [8_000]), beat(2_000, 10.4, [100]), beat(3_000, 11.0, [300]), beat(4_000, 12.0)]
    known = effort(records(tmp_path / "a", beats=beats), 0, Stretch(at(900), at(3_500)))
    assert known.cpu_share == pytest.approx(1.0 / 2)
    assert (known.loop_lag.count, known.loop_lag.max) == (2, pytest.approx(300e-6))


def test_a_loop_too_busy_to_beat_is_seen_up_to_its_end(tmp_path):
    """One beat in the stretch, the last one after it."""
    known = effort(records(tmp_path / "a", beats=[beat(1_000, 1.0), beat(4_000, 3.7)]), 0, Stretch(at(0), at(2_000)))
    assert known.cpu_share == pytest.approx(0.9)
    assert known.loop_lag is None


@pytest.mark.parametrize(
    "beats",
    [
        [],  # killed in its first second
        [beat(1_000, 1.0)],  # a short run has the last beat only
        [beat(100, 1.0), beat(1_000, 2.0)],  # one of the two came before the stretch
        [b"of another version", b"\x81", beat(1_000, 1.0)],
    ],
)
def test_where_there_are_not_two_beats_nothing_is_known(tmp_path, beats):
    """And another worker's beats are not taken for its own."""
    assert effort(records(tmp_path / "a", beats=beats), 0, Stretch(at(500), at(2_000))) is None
    assert effort(records(tmp_path / "b", beats=[beat(1_000, 1.0), beat(2_000, 2.0)]), 1, Stretch(at(500), at(2_000))) is None


def test_all_that_was_handled_counts_whatever_came_of_it(tmp_path):
    """Failed, cancelled and tried again cost a worker as much as what succeeded; what was never sent costs nothing."""
    rows = [
        (0, exchange(0, 1_500)),
        (1, exchange(0, 1_600, outcome=Outcome.RESET)),
        (2, exchange(0, 1_700, outcome=Outcome.CANCELLED)),
        (3, exchange(0, 1_800, outcome=Outcome.OVERLOADED), {"final": False}),
        (3, exchange(0, 2_900)),
        (4, exchange(0, 3_500)),  # ends outside
        (5, exchange(0, 1_900, sent_ns=0, outcome=Outcome.DROPPED)),
    ]
    ended_rps, events_rps = handled(records(tmp_path / "a", rows, unsent=0), Stretch(at(1_000), at(3_000)))
    assert (ended_rps, events_rps) == (5 / 2, 0)


def test_events_are_counted_where_they_came(tmp_path):
    """Of a request across the edge only those inside; of one that failed, all that had come."""
    rows = [
        (0, exchange(0, 2_000, outputs=[500, 900, 1_100, 1_300])),
        (1, exchange(0, 2_000, outputs=[1_200, 1_400, 1_600], outcome=Outcome.RESET)),
        (2, exchange(0, 4_000, outputs=[2_900, 3_100])),
        (3, exchange(0, 2_000, stream=False)),
    ]
    ended_rps, events_rps = handled(records(tmp_path / "a", rows), Stretch(at(1_000), at(3_000)))
    assert (ended_rps, events_rps) == (3 / 2, pytest.approx(6 / 2))
    assert handled(records(tmp_path / "b", rows), Stretch(at(0), at(0))) == (0, 0)


def test_a_summary_says_what_its_workers_handled_and_how_they_fared(tmp_path):
    """Of the ranked stretch, and each worker by itself."""
    rows = [(k, exchange(20 * (k // 2), 20 * (k // 2) + 20, outputs=[20 * (k // 2) + 10, 20 * (k // 2) + 15])) for k in range(300)]
    beats = [[beat(100, 1.0), beat(2_100, 2.0, [50] * 100)], [beat(150, 1.0)]]
    summary = summarise(tmp_path, rows, parts=2, max_concurrent=2, beats=beats)
    assert summary.steady is not None
    assert (summary.ended_rps, summary.events_rps) == (pytest.approx(100, rel=0.02), pytest.approx(200, rel=0.02))
    assert [one.cpu_share for one in summary.workers] == [pytest.approx(0.5), None]
    assert summary.workers[0].loop_lag.percentiles["p99"].mark == "n<299"
