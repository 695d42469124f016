"""The instrument's own test: errors against the server's account, the ladder, ceilings, and what is kept."""

import json
import os
import stat
from io import BytesIO
from zlib import crc32

import msgspec
import numpy as np
import pytest
from commands import loadgen
from PIL import Image
from written import RUN_ID, T0, at, exchange, write

from clients.endpoint import Endpoint
from clients.errors import Outcome
from clients.transports import best_transport
from loadgen import ceiling, selftest
from loadgen.cli import main
from loadgen.commands import selftest as command
from loadgen.discrepancy import Pace, Window, compare
from loadgen.environment import environment
from loadgen.examination import Examination
from loadgen.fleet import Interrupts
from loadgen.picture import draw
from loadgen.recorded import read_records
from loadgen.rundir import RunDirectory
from loadgen.selftest import ITL_S, Ceiling, Error, Programme, Reach, Rung, SelfTest, best, computed, curve, need, next_streams, reach
from loadgen.selftest_report import described
from loadgen.simulator.truth import ARRIVED, ENDED, TOKEN, TruthWriter, read_truth
from loadgen.testbed import Load, Neighbours, Testbed, metronomes_transport, on_cores, placement, usable

GOOD = Error(count=100, p50_s=0.000_1, p99_s=0.001, max_s=0.002)
BAD = Error(count=100, p50_s=0.000_1, p99_s=0.006, max_s=0.009)
LATE = Error(count=100, p50_s=0.001, p99_s=0.030, max_s=0.040)


def rung(streams, *, mode="free-running", error=GOOD, late=GOOD, events_rps=None, share=0.99, **more):
    """A rung that is within bounds unless told otherwise, at 50 events/s and stream."""
    values = {
        "mode": mode,
        "streams": streams,
        "workers": 1,
        "events_rps": streams / ITL_S if events_rps is None else events_rps,
        "requests_rps": 10.0,
        "cpu_s": 20e-6,
        "cpu_share": share,
        **dict.fromkeys(("ttft", "ttft_from_sent", "send_lag", "itl", "latency", "start"), error),
        "transit": GOOD,
        "server_late": late,
        "ok": 10,
        "failed": 0,
        "unmatched": 0,
        "coalesced_share": 0.0,
    }
    return Rung(**{**values, **more})


# ---- what is compared ---------------------------------------------------------------------------------------------------


def account(path, answers):
    """A truth file. answers: (id, ms of its arrival, ms of each token, ms of its end)."""
    writer = TruthWriter(str(path))
    for number, (name, arrived, tokens, ended) in enumerate(answers):
        writer.add(at(arrived), number, crc32(name.encode()), ARRIVED)
        for place, token in enumerate(tokens):
            writer.add(at(token), number, place, TOKEN)
        writer.add(at(ended), number, len(tokens), ENDED)
    writer.close()
    return read_truth(path)


def made(name, due, end, outputs, **more):
    """An answer as a client saw it."""
    one = exchange(due, end, outputs=outputs, finish="length", **more)
    one.answer.id = name
    return one


def compared(directory, exchanges, answers, *, mode="free-running", start=0, end=1000, pace=None):
    path = directory / "worker-0.records"
    write(path, list(enumerate(exchanges)))
    pace = pace or Pace(10_000_000, 20_000_000, mode == "lockstep")
    return compare(
        read_records([path], (RUN_ID, 0)),
        [account(directory / "truth.bin", answers)],
        mode=mode,
        streams=1,
        workers=1,
        window=Window(at(start), at(end)),
        pace=pace,
    )


def micros(error):
    return round(error.p50_s * 1e6), round(error.p99_s * 1e6), round(error.max_s * 1e6), error.count


def test_errors_are_what_was_reported_minus_what_the_server_did(tmp_path):
    """Due 1 ms before the arrival, the first output seen 2 ms late, the last gap 3 ms too long, the end 4 ms late."""
    found = compared(tmp_path, [made("a", 99, 155, [112, 132, 155], sent=99.4)], [("a", 100, [110, 130, 150], 151)])
    assert micros(found.ttft) == (3000, 3000, 3000, 1)  # 13 ms reported, 10 ms true
    assert micros(found.ttft_from_sent) == (2600, 2600, 2600, 1)
    assert micros(found.send_lag) == (400, 400, 400, 1)
    assert micros(found.transit) == (600, 600, 600, 1)
    assert found.itl.count == 2
    assert micros(found.itl) == (1500, 2970, 3000, 2)  # 0 and 3 ms
    assert micros(found.latency) == (5000, 5000, 5000, 1)  # 56 ms reported, 51 ms true
    assert micros(found.server_late) == (0, 0, 0, 3)
    assert (found.ok, found.failed, found.unmatched) == (1, 0, 0)


def test_an_error_has_no_sign(tmp_path):
    """Two events that came in one read: the gap before is too long by what the gap after is too short."""
    found = compared(tmp_path, [made("a", 100, 151, [110, 150, 150])], [("a", 100, [110, 130, 150], 150)])
    assert micros(found.itl) == (20_000, 20_000, 20_000, 2)
    assert found.coalesced_share == pytest.approx(1 / 2)


def test_only_the_settled_window_is_compared_and_the_start_stands_apart(tmp_path):
    """What was due at the start is in `start`; TTFT and end to end by due, gaps by when their token left."""
    exchanges = [made("a", 0, 60, [25, 40, 60]), made("b", 100, 141, [111, 141])]
    answers = [("a", 5, [20, 40, 60], 60), ("b", 100, [110, 130], 130)]
    found = compared(tmp_path, exchanges, answers, start=50)
    assert micros(found.start) == (10_000, 10_000, 10_000, 1)
    assert micros(found.ttft) == (1000, 1000, 1000, 1)
    assert found.itl.count == 2  # one of each answer: the token of 60 ms, and that of 130 ms
    assert found.events_rps == pytest.approx(3 / 0.95)  # 60, 111, 141


def test_a_token_that_only_ends_the_answer_is_no_event(tmp_path):
    """EOS has no text: finish_reason stop, and one event less than tokens."""
    one = made("a", 100, 131, [110, 130])
    one.answer.finish_reasons[0] = "stop"
    assert compared(tmp_path, [one], [("a", 100, [110, 130, 150], 150)]).unmatched == 0


@pytest.mark.parametrize(
    ("exchanges", "answers", "unmatched"),
    [
        # an answer that the server does not know
        ([made("x", 100, 131, [110, 130])], [("a", 100, [110, 130], 130)], 1),
        # an event that was lost on the way, or counted twice
        ([made("a", 100, 131, [110, 130])], [("a", 100, [110, 130, 150], 150)], 1),
        # two answers of one id cannot be told apart
        ([made("a", 100, 131, [110, 130]), made("b", 100, 131, [110])], [("a", 1, [110, 130], 130), ("a", 2, [110, 130], 130)], 2),
        # an answer without an id
        ([made("", 100, 131, [110, 130])], [("a", 100, [110, 130], 130)], 1),
    ],
)
def test_what_cannot_be_joined_is_counted_and_in_no_error(tmp_path, exchanges, answers, unmatched):
    """A wrong partner would give errors of its own; the rung is then out of bounds by count."""
    found = compared(tmp_path, exchanges, answers)
    assert found.unmatched == unmatched
    assert found.itl is None
    assert not found.within


def test_what_was_cut_off_at_the_end_is_compared_as_far_as_it_came(tmp_path):
    """A cancelled stream has its first tokens, no end to end, and is no failure."""
    cut = exchange(100, 135, outputs=[111, 131], outcome=Outcome.CANCELLED)
    cut.answer.id = "a"
    found = compared(tmp_path, [cut], [("a", 100, [110, 130, 150], 150)])
    assert (found.ttft.count, found.itl.count, found.latency, found.failed, found.unmatched) == (1, 1, None, 0, 0)


def test_the_server_is_late_by_its_own_plan(tmp_path):
    """Free-running: arrival + TTFT + k gaps. In lockstep the first token waits for the next common tick."""
    answers = [("a", 100, [111, 133, 150], 150)]
    free = compared(tmp_path, [made("a", 100, 151, [111, 133, 150])], answers)
    assert micros(free.server_late) == (1000, 2960, 3000, 3)  # 1, 3 and 0 ms
    gap_ns = 20_000_000
    (tmp_path / "lockstep").mkdir()
    tick_ms = ((at(110) // gap_ns + 1) * gap_ns - T0) / 1e6
    answers = [("a", 100, [tick_ms + 2, tick_ms + 22], tick_ms + 22)]
    lockstep = compared(tmp_path / "lockstep", [made("a", 100, tick_ms + 23, [tick_ms + 2, tick_ms + 22])], answers, mode="lockstep")
    assert micros(lockstep.server_late) == (2000, 2000, 2000, 2)


# ---- the ladder ---------------------------------------------------------------------------------------------------------


def climbed(ladder, rungs_by_streams, *, refine=True):
    """The streams that are tried, in order."""
    rungs = []
    while (streams := next_streams(ladder, rungs, refine=refine)) is not None:
        rungs.append(rungs_by_streams(streams))
    return [one.streams for one in rungs]


def test_the_ladder_is_climbed_and_then_the_bound_is_looked_for_once_between():
    """Errors leave the bounds at 300 streams: all rungs, then one between the last within and the first out."""
    assert climbed((64, 128, 256, 512), lambda n: rung(n, error=GOOD if n < 300 else BAD)) == [64, 128, 256, 512, 362]
    assert climbed((64, 128, 256, 512), lambda n: rung(n, error=GOOD if n < 300 else BAD), refine=False) == [64, 128, 256, 512]
    assert climbed((64, 128), rung) == [64, 128]  # nothing to look for
    assert climbed((64, 128), lambda n: rung(n, error=BAD)) == [64, 128]


def test_the_curve_ends_where_the_server_is_late_or_more_streams_bring_nothing():
    """Above, an error would be the server's, or the same load again."""
    assert climbed((64, 128, 256, 512), lambda n: rung(n, late=LATE if n > 100 else GOOD)) == [64, 128, 256]
    assert climbed((64, 128, 256), lambda n: rung(n, late=LATE if n == 128 else GOOD)) == [64, 128, 256]  # a neighbour's doing
    spent = [rung(64), rung(128, error=BAD, events_rps=3300)]
    assert next_streams((64, 128, 256), spent, refine=False) is None
    assert curve("free-running", spent).ended == "more streams bring no more events"
    assert curve("free-running", [rung(64, late=LATE), rung(128, late=LATE)]).ended == "the server itself is late"


def test_in_lockstep_a_server_has_its_tick_to_write_all_tokens():
    """10 ms after the tick is late for one stream, not for a thousand that are planned for one instant."""
    late = Error(count=100, p50_s=0.005, p99_s=0.010, max_s=0.02)
    assert rung(64, late=late).late
    assert not rung(64, late=late, mode="lockstep").late


def test_a_rung_is_within_bounds_only_if_all_its_times_are_and_nothing_is_lost():
    """Each of the three errors, failures, and answers that cannot be found count."""
    assert rung(64).within
    assert not any(rung(64, **{name: BAD}).within for name in ("ttft", "itl", "latency"))
    assert not any(rung(64, **{name: None}).within for name in ("ttft", "itl", "latency"))
    assert not rung(64, failed=1).within
    assert not rung(64, unmatched=1).within
    assert not rung(64, error=Error(count=9, p50_s=0.000_6, p99_s=0.001, max_s=0.001)).within


def test_a_server_that_reads_late_is_late():
    """Half the bound of TTFT spent before the request was read: what is left says little of the client."""
    assert rung(64, transit=Error(count=9, p50_s=0.000_3, p99_s=0.001, max_s=0.001)).late
    assert rung(64, transit=Error(count=9, p50_s=0.000_1, p99_s=0.006, max_s=0.006)).late
    assert not rung(64, transit=GOOD).late


def test_the_knee_is_the_most_streams_within_bounds():
    """An idle machine wakes slowly: a rung out of bounds at the low end does not hide those above it."""
    found = curve("free-running", [rung(64, error=BAD), rung(128), rung(256), rung(512, error=BAD)])
    assert (found.knee.streams, found.outside.streams) == (256, 512)
    assert curve("free-running", [rung(64)]).outside is None
    nowhere = curve("free-running", [rung(64, error=BAD), rung(128, error=BAD)])
    assert (nowhere.knee, nowhere.outside.streams) == (None, 64)


# ---- what follows -------------------------------------------------------------------------------------------------------


def test_a_ceiling_is_a_lower_bound_where_the_workers_were_not_the_limit():
    """The server late, cores not used up, or not known: there may be more."""
    assert best([rung(64), rung(128)], "token events").rate_rps == 128 / ITL_S
    assert best([rung(64)], "token events").lower_bound == ""
    assert best([rung(64, late=LATE)], "token events").lower_bound == "the metronome was late by its own truth"
    assert best([rung(64, share=0.5)], "token events").lower_bound == "the workers used 50% of a core each"
    assert best([rung(64, share=None)], "token events").lower_bound == "the workers' CPU is not known"
    assert best([], "requests") is None


def test_a_computed_ceiling_says_so():
    """Cores times one worker's, never called measured."""
    four = computed(best([rung(64)], "token events"), 4)
    assert (four.rate_rps, four.workers, four.how) == (4 * 64 / ITL_S, 4, "computed")


# streams, token events/s of the load -> workers, for one worker that is within bounds up to 100 streams and 5,000 events/s
@pytest.mark.parametrize(
    ("streams", "events_rps", "workers"),
    [
        (1, 1, 1),
        (100, 5000, 1),
        (101, 100, 2),  # by streams
        (10, 5001, 2),  # by events
        (1000, 10_000, 10),
    ],
)
def test_a_load_needs_the_workers_that_its_streams_and_its_events_do(streams, events_rps, workers):
    """No worker gets more of either than one was seen to report within bounds."""
    found = Reach(mode="lockstep", streams=100, events_rps=5000.0, more=False)
    assert need(found, "lockstep", streams, events_rps).workers == workers
    assert need(None, "lockstep", streams, events_rps).workers is None


def test_where_the_server_gave_up_first_the_reach_may_be_more():
    """The truth lies above the last rung unless the client left the bounds itself."""
    assert reach(curve("free-running", [rung(64)])).more
    assert reach(curve("free-running", [rung(64), rung(128, error=BAD, late=LATE)])).more
    assert not reach(curve("free-running", [rung(64), rung(128, error=BAD)])).more
    assert reach(curve("free-running", [rung(64, error=BAD)])) is None


class Bed:
    """Performs nothing: every rung is within bounds. until: how many before a signal."""

    stamping = "arrival"

    def __init__(self, until=99):
        self.loads = []
        self._until = until

    def perform(self, load):
        self.loads.append(load)
        if len(self.loads) > self._until:
            return None
        return rung(load.streams, mode=load.mode, workers=load.workers)


PROGRAMME = Programme(
    ladders={"free-running": (4, 8), "lockstep": (2,)}, duration_s=1.0, mean_tokens=4, refine=False, attempts=2, concurrency=3
)


def examined(bed, cores, workers, load=None):
    examination = Examination(bed, PROGRAMME, cores=range(cores), workers=workers, told=lambda _: None)
    examination.run()
    return examination.document(run_id="id", started="now", quick=False, transport="wire", environment=environment(), load=load)


def test_all_workers_are_measured_where_each_has_a_core_and_a_metronome():
    """Four cores: two workers against two metronomes; two cores: computed, and the document says so."""
    bed = Bed()
    measured = examined(bed, 4, 2, load=(16, 100.0))
    assert [(one.mode, one.streams, one.workers) for one in bed.loads] == [
        ("free-running", 4, 1), ("free-running", 8, 1), ("lockstep", 2, 1), ("requests", 3, 1), ("free-running", 16, 2), ("requests", 6, 2)
    ]  # fmt: skip
    assert [(one.how, one.workers) for one in measured.all] == [("measured", 2)] * 2
    assert [one.workers for one in measured.needs] == [2, 8]
    few = examined(Bed(), 2, 2)
    assert [(one.how, one.workers) for one in few.all] == [("computed", 2)] * 2
    assert few.notes[0].startswith("all workers are computed: 2 of them and as many metronomes need 4 cores")


def test_a_rung_that_is_out_of_bounds_is_tried_again_and_the_least_disturbed_attempt_counts():
    """A neighbour's burst is not the instrument's limit; the document says of how many attempts a rung is the best."""
    attempts = [rung(4, error=BAD, late=LATE), rung(4, error=BAD), rung(4), rung(4, late=LATE)]
    assert msgspec.structs.replace(selftest.best_attempt(attempts), attempts=1) == attempts[2]
    assert selftest.best_attempt(attempts).attempts == 4
    slow, fast = (rung(4, mode="requests", itl=None, requests_rps=rate) for rate in (10.0, 20.0))
    assert selftest.best_attempt([fast, slow]).requests_rps == 20
    bed = Bed()
    bed.perform = lambda load, perform=bed.perform: msgspec.structs.replace(perform(load), itl=BAD if len(bed.loads) == 2 else GOOD)
    found = examined(bed, 2, 2)
    assert [(one.streams, one.attempts) for one in found.curves[0].rungs] == [(4, 1), (8, 2)]
    assert found.curves[0].knee.streams == 8


def test_a_signal_leaves_what_was_measured():
    """The rung that it fell into is in no curve."""
    found = examined(Bed(until=1), 2, 2)
    assert [[one.streams for one in found.rungs] for found in found.curves] == [[4]]
    assert not found.requests
    assert len(found.one) == 1
    assert found.notes[0] == "interrupted: rungs are missing"


# ---- what is kept and shown ---------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "loadgen"


def test_a_ceiling_is_kept_privately_for_this_machine_version_and_transport(cache):
    """What another transport or machine would do is not known from it."""
    found = examined(Bed(), 2, 2)
    path = ceiling.keep(found)
    assert path.parent == cache
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    kept = ceiling.recall("wire")
    assert (kept.one, kept.reaches, kept.streams_per_worker) == (found.one, found.reaches, 2)
    assert ceiling.recall("aiohttp") is None
    ceiling.keep(msgspec.structs.replace(found, environment=msgspec.structs.replace(found.environment, loadgen="0.0.0"), id="older"))
    assert ceiling.recall("wire").id == "id"


def test_a_quick_test_does_not_replace_a_full_one(cache):
    """The better figures stay; a full test replaces either."""
    found = examined(Bed(), 2, 2)
    quick = msgspec.structs.replace(found, quick=True, id="quick")
    assert ceiling.keep(quick) is not None
    assert ceiling.recall("wire").id == "quick"
    assert ceiling.keep(found) is not None
    assert ceiling.keep(quick) is None
    assert ceiling.recall("wire").id == "id"


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"id": 3}'])
def test_a_damaged_ceiling_is_none(cache, content):
    """A cache is never a reason to fail."""
    path = ceiling.keep(examined(Bed(), 2, 2))
    path.write_bytes(content)
    assert ceiling.recall("wire") is None


def test_a_cache_that_cannot_be_written_is_none(tmp_path, monkeypatch):
    """A file in its place, a home that is read-only: the self-test is done all the same."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert ceiling.keep(examined(Bed(), 2, 2)) is None
    assert ceiling.recall("wire") is None


def test_processes_auto_goes_by_the_self_test_of_this_machine(tmp_path, cache):
    """One worker for as many streams as it reports within bounds; the note in run.json names the self-test. Without one: the default."""
    words = ["bench", "--simulate", "--model-name", "m", "--max-concurrent", "8", "--num-requests", "8", "--num-warmups", "0", "--json"]
    words += ["--max-tokens", "1", "--sim-time-scale", "0.01", "--transport", "aiohttp", "--results-dir", str(tmp_path / "results")]

    def ran():
        done = loadgen(*words)
        assert done.returncode in (0, 3), done.stderr
        document = json.loads(done.stdout)
        return document["run"]["notes"], document["plans"][0]["plan"]["workers"]

    assert ran() == ([], 1)
    found = msgspec.structs.replace(examined(Bed(), 2, 2), transport="aiohttp")
    ceiling.keep(found)
    assert ran() == (["--processes auto: 2 streams a worker, by the self-test id"], min(4, len(usable())))


def test_the_ceiling_in_force_is_in_the_run_and_judges_it_wherever_it_is_reported(tmp_path, cache, monkeypatch):
    """One request a second is what this machine is said to drive: any run is client-limited, there and where that is not known."""
    found = examined(Bed(), 2, 2)
    ceilings = [msgspec.structs.replace(one, rate_rps=1.0, lower_bound="", workers=1, how="measured") for one in found.one]
    ceiling.keep(msgspec.structs.replace(found, one=ceilings, all=ceilings))
    words = ["bench", "--simulate", "--model-name", "m", "--max-concurrent", "4", "--duration", "1.5s", "--num-warmups", "0"]
    words += ["--max-tokens", "4", "--sim-time-scale", "0.2", "--processes", "1", "--results-dir", str(tmp_path / "results")]
    done = loadgen(*words)
    assert done.returncode == 3, done.stderr
    assert "client-limited (invalid): " in done.stdout
    assert "that 1 worker can drive here, by the self-test id" in " ".join(done.stdout.split())
    [path] = (tmp_path / "results").iterdir()
    live = (path / "run.json").read_bytes()
    assert [one["rate_rps"] for one in json.loads(live)["run"]["ceiling"]["one"]] == [1.0, 1.0]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-machine"))
    assert loadgen("report", path).returncode == 3
    assert (path / "run.json").read_bytes() == live


def test_the_picture_shows_a_curve_for_each_reported_time():
    """Two panels, three colours, the bound, and the same bytes each time."""
    curves = [curve("free-running", [rung(64), rung(128, error=BAD), rung(256, error=BAD, late=LATE)]), curve("lockstep", [rung(32)])]
    drawn = draw(curves, "title")
    assert drawn == draw(curves, "title")
    image = Image.open(BytesIO(drawn))
    assert image.size == (1240, 460)
    colours = {colour for _, colour in image.getcolors(1 << 20)}
    assert {(0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73), (0x9A, 0x9A, 0xA8), (0xB0, 0x00, 0x20)} <= colours
    without = image.crop((620, 0, 1240, 460)).getcolors(1 << 20)
    assert (0x9A, 0x9A, 0xA8) not in {colour for _, colour in without}  # no server was late in lockstep


def test_a_rung_is_told_in_one_line():
    """What a user sees while it goes on."""
    assert described(rung(64, error=BAD)) == "free-running, 64 streams, 1 worker: 3,200 token events/s, out of bounds (TTFT p99)"


# ---- the test bed -------------------------------------------------------------------------------------------------------


def test_workers_and_metronomes_are_kept_apart_where_there_are_cores():
    """The first cores for workers, the last for metronomes; one core is shared, and that is said."""
    assert (placement((0, 1), 1).workers, placement((0, 1), 1).metronomes) == ((0,), (1,))
    assert (placement(range(6), 2).workers, placement(range(6), 2).metronomes) == ((0, 1), (4, 5))
    assert placement((3,), 1).shared
    assert "every figure is a lower bound" in str(placement((3,), 1))


def test_neighbours_are_what_was_busy_and_not_ours(monkeypatch):
    """Of 10 s of core time 5 were busy, 3 of them by us: a fifth was theirs. Where the system tells nothing, nothing is said."""
    told = [(100.0, 40.0, 1.0), (110.0, 45.0, 4.0)]
    monkeypatch.setattr(Neighbours, "_used", lambda _: told.pop(0))
    assert Neighbours().share() == pytest.approx(0.2)
    monkeypatch.setattr(Neighbours, "_used", lambda _: None)
    assert Neighbours().share() is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not let a process choose its cores")
def test_what_is_started_on_cores_runs_there_and_we_come_back():
    """Whatever happens inside."""
    before = os.sched_getaffinity(0)
    with pytest.raises(KeyError), on_cores(usable()[:1]):
        assert os.sched_getaffinity(0) == set(usable())
        assert len(usable()) == 1
        raise KeyError
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("mode", "workers", "transport"), [("free-running", 2, "aiohttp"), ("requests", 1, "aiohttp")])
def test_the_engine_itself_is_measured_and_every_answer_is_found(tmp_path, mode, workers, transport):
    """Plans, fleets, workers and records as in any run: each answer and each event is in the metronome's account, of each worker."""
    with RunDirectory.create(tmp_path, "selftest", transport) as directory, Interrupts() as interrupts:
        bed = Testbed(directory, transport, interrupts)
        found = bed.perform(Load(mode=mode, streams=4, workers=workers, duration_s=0.8, mean_tokens=8))
        assert bed.stamping == "arrival"
        paths = sorted((tmp_path / directory.id).glob("plans/*/*.records"))
    assert (found.failed, found.unmatched) == (0, 0)
    assert found.ok > 0
    records = read_records(paths)
    assert np.unique(records.worker).tolist() == list(range(workers))
    if mode == "requests":
        assert (found.ttft, found.itl, found.latency.count > 0, found.events_rps, found.requests_rps > 0) == (None, None, True, 0, True)
    else:
        assert found.events_rps > 0
        assert found.itl.count > found.ttft.count > 0
        assert found.start.count == 4


def test_auto_towards_a_metronome_is_what_any_run_would_take(monkeypatch):
    """A proxy that the environment names is not asked for a server of our own."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    assert metronomes_transport() == "wire"
    assert best_transport(Endpoint.parse("http://127.0.0.1:1/v1"))[0] == "aiohttp"


def test_a_self_test_is_kept_and_printed(tmp_path, monkeypatch, capsys, cache):
    """JSON on stdout, the report on stderr, both and a picture in the results, a ceiling in the cache."""
    short = Programme(
        ladders={"free-running": (2,), "lockstep": (2,)}, duration_s=0.6, mean_tokens=4, refine=False, attempts=1, concurrency=2
    )
    monkeypatch.setattr(command, "QUICK", short)
    words = ["selftest", "--quick", "--json", "--transport", "aiohttp", "--streams", "8", "--results-dir", str(tmp_path / "results")]
    assert main(words) == 0
    out, err = capsys.readouterr()
    found = msgspec.json.decode(out, type=SelfTest)
    assert [[one.streams for one in found.rungs] for found in found.curves] == [[2], [2]]
    assert [one.unit for one in found.one] == ["token events", "requests"]
    assert all(isinstance(one, Ceiling) for one in found.all)
    assert [(one.streams, one.events_rps) for one in found.needs] == [(8, 400.0)] * 2
    [directory] = (tmp_path / "results").iterdir()
    assert (directory / "selftest.json").read_text() == out
    with Image.open(directory / "selftest.png") as image:
        assert image.format == "PNG"
    assert "free-running: error of what one worker reports" in err
    assert len(list(cache.iterdir())) == 1
    assert selftest.SCHEMA == found.schema
