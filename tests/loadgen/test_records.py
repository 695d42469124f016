"""The writer: what is in the file, whatever happens to the process, the disk or the server's numbers."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
import zlib
from array import array

import msgspec
import numpy as np
import pytest
from written import RUN_ID, at, exchange, write

from clients.errors import Outcome
from loadgen import records
from loadgen.recorded import HEAD, HEADER, read_records
from loadgen.records import RecordWriter


def test_the_fixed_parts_have_the_sizes_that_offsets_count_on():
    """The header's fixed fields end before its counters, counters are aligned, and heads are whole multiples of 8."""
    assert HEADER.itemsize <= records.COUNTERS_AT
    assert records.COUNTERS_AT + 8 * len(records.COUNTER_FIELDS) <= records.HEADER_BYTES
    assert HEAD.itemsize == records.HEAD_BYTES == 128


def test_each_field_comes_back(tmp_path):
    """What an exchange knew is what the head says, in its own column."""
    made = exchange(
        1,
        90,
        sent=2,
        outputs=[30, 40, 40, 60],
        tokens=[3, 1, 2, 1],
        usage=(11, 7, 5, 4),
        finish="length",
        reconnects=1,
        attempt=3,
        status=206,
    )
    made.answer.first_answer_ns = at(40)
    made.answer.id = "123456789"  # whose crc32 is the check value in every description of it
    path = tmp_path / "a.records"
    write(path, [(8, made, {"lane": 2, "batch": 6})])
    got = read_records([path])
    head = got.heads[0]
    expected = {
        "index": 8, "lane": 2, "batch": 6, "answer_crc": 0xCBF43926, "due_ns": at(1), "sent_ns": at(2), "first_byte_ns": at(30), "first_output_ns": at(30), "first_answer_ns": at(40),
        "last_output_ns": at(60), "end_ns": at(90), "prompt_tokens": 11, "completion_tokens": 7, "cached_tokens": 5, "reasoning_tokens": 4, "events": 4, "count": 3,
        "status": 206, "first_event_tokens": 3, "attempt": 3, "outcome": 0, "finish": 2, "reconnects": 1, "phase": 0, "token_bytes": 4, "error_bytes": 0,
        "flags": records.STREAMED | records.TOKENS_KNOWN | records.HAS_USAGE, "kind": records.FINAL,
    }  # fmt: skip
    assert {name: int(head[name]) for name in expected} == expected
    (block,) = got.gaps(np.arange(1))
    assert block.gaps.tolist() == [10_000, 0, 20_000]
    assert block.tokens.tolist() == [1, 2, 1]


def test_an_answer_without_an_id_has_the_crc_of_none(tmp_path):
    """0 says that there is nothing to look for; an id that is no text of UTF-8 does not break the writer."""
    odd = exchange(0, 9)
    odd.answer.id = "a\ud800"
    path = tmp_path / "a.records"
    write(path, [(0, exchange(0, 9)), (1, odd)])
    assert read_records([path]).heads["answer_crc"].tolist() == [0, zlib.crc32(b"a?")]


def test_events_of_one_token_each_take_no_bytes_for_it(tmp_path):
    """TOKENS_KNOWN without a list says one token per event; unknown tokens read as 0."""
    path = tmp_path / "a.records"
    write(path, [(0, exchange(0, 9, outputs=[1, 2, 3], tokens=[1, 1, 1])), (1, exchange(0, 9, outputs=[1, 2, 3]))])
    got = read_records([path])
    assert got.heads["token_bytes"].tolist() == [0, 0]
    (block,) = got.gaps(np.arange(2))
    assert block.tokens.tolist() == [1, 1, 0, 0]


def test_a_failure_keeps_its_message_to_512_bytes(tmp_path):
    """Cut between characters, and lone surrogates do not break the writer."""
    path = tmp_path / "a.records"
    write(
        path, [(0, exchange(0, 9, outcome=Outcome.RESET, message="é" * 400)), (1, exchange(0, 9, outcome=Outcome.DNS, message="a\udc00b"))]
    )
    got = read_records([path])
    assert got.error(0) == "é" * 256
    assert got.error(1) == "a?b"


def test_counts_that_no_frame_holds_read_as_unknown(tmp_path):
    """A server may send any integer as usage; the run goes on."""
    path = tmp_path / "a.records"
    write(path, [(0, exchange(0, 9, usage=(10**15, 7, None, -8)))])
    head = read_records([path]).heads[0]
    assert [int(head[name]) for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")] == [-1, 7, -1, -1]


def test_a_cut_choice_among_several_counts_as_length(tmp_path):
    """One code stands for all choices: damage must not hide behind choice 0."""
    made = exchange(0, 9)
    made.answer.finish_reasons = {0: "stop", 1: "length"}
    odd = exchange(0, 9, finish="a word of its own")
    path = tmp_path / "a.records"
    write(path, [(0, made), (1, odd), (2, exchange(0, 9, finish=""))])
    assert [records.FINISHES[code] for code in read_records([path]).heads["finish"]] == ["length", "other", "none"]


def test_frames_of_any_size_lie_back_to_back_over_segments(tmp_path):
    """No frame straddles a mapping, one larger than a segment gets its own, and nothing is lost between them."""
    path = tmp_path / "a.records"
    small, large = exchange(0, 9, outputs=range(300)), exchange(0, 9, outputs=range(2))
    large.answer._full_gaps.append(array("I", [5]).tobytes() * 1_499_998)
    write(path, [(k, large if k == 40 else small) for k in range(6_000)])
    assert path.stat().st_size > 3 * records.SEGMENT_BYTES
    got = read_records([path])
    assert got.heads["index"].tolist() == list(range(6_000))
    assert got.files[0].ended and not got.files[0].damage
    assert sum(len(block.gaps) for block in got.gaps(np.arange(6_000))) == 5_999 * 299 + 1_499_999


def test_snapshots_come_back_with_their_worker(tmp_path):
    """Payloads of any length, in order, beside the requests."""
    path = tmp_path / "a.records"
    writer = RecordWriter(path, run_id=RUN_ID, plan=0, worker=3, workers=4)
    payloads = [msgspec.msgpack.encode({"n": n, "pad": "x" * n}) for n in (0, 1, 7, 9_000_000)]
    for payload in payloads:
        writer.snapshot(payload)
    writer.close()
    assert [(snapshot.worker, snapshot.payload) for snapshot in read_records([path]).snapshots] == [(3, p) for p in payloads]


def test_the_header_counts_while_the_file_is_open(tmp_path):
    """Counters are there for whoever reads the file of a worker that has not ended; the peak is of sent and not finished."""
    path = tmp_path / "a.records"
    writer = RecordWriter(path, run_id=RUN_ID, plan=7, worker=0, workers=1, share=9)
    writer.scheduled(5)
    for _ in range(3):
        writer.sent()
    writer.request(exchange(0, 9), index=0, phase=0, lane=0, due_ns=at(0))
    writer.request(exchange(0, 9, outcome=Outcome.RESET), index=1, phase=0, lane=0, due_ns=at(0), final=False)
    writer.sent()
    got = read_records([path])
    assert got.files[0].counters == {"scheduled": 5, "sent": 4, "finished": 1, "in_flight_peak": 3, "lost": 0, "ended": 0, "start_ns": 0}
    assert (got.files[0].share, got.files[0].plan, got.files[0].ended) == (9, 7, False)
    assert (len(got.heads), len(got.attempts)) == (1, 1)
    writer.close()


def test_a_file_is_private_and_never_written_over(tmp_path):
    """Records are evidence: a second writer of the same path is refused."""
    path = tmp_path / "a.records"
    write(path, [])
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        RecordWriter(path, run_id=RUN_ID, plan=0, worker=0, workers=1)


def test_a_file_system_without_fallocate_gets_zeros(tmp_path, monkeypatch):
    """EOPNOTSUPP (NFS, FUSE) and no such call at all (macOS) both end in written zeros."""

    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    writer = write(tmp_path / "a.records", [(0, exchange(0, 9))], close=False)
    assert os.stat(tmp_path / "a.records").st_blocks * 512 >= records.SEGMENT_BYTES
    writer.close()
    monkeypatch.delattr(os, "posix_fallocate")
    write(tmp_path / "b.records", [(0, exchange(0, 9))])
    assert len(read_records([tmp_path / "b.records"])) == 1


FULL_DISK = """
import resource, sys
sys.path[:0] = sys.argv[2:]
from written import RUN_ID, at, exchange
from loadgen.records import RecordWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (9 << 20, 9 << 20))  # two segments, not three
writer = RecordWriter(sys.argv[1], run_id=RUN_ID, plan=0, worker=0, workers=1)
made = exchange(0, 9, outputs=range(1000))
for k in range(3000):
    writer.sent()
    writer.request(made, index=k, phase=0, lane=0, due_ns=at(0))
writer.snapshot(b"too late")
writer.sync()
print(writer.failed)
writer.close()
"""


def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path):
    """The writer does not raise, says why, keeps every earlier frame, and the header tells how many are missing."""
    path = tmp_path / "a.records"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path, *sys.path], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
    )
    got = read_records([path])
    file = got.files[0]
    assert "File too large" in done.stdout
    assert 1_500 < len(got) < 3_000
    assert got.heads["index"].tolist() == list(range(len(got)))
    assert file.counters["finished"] == 3_000
    assert file.counters["lost"] == 3_000 - len(got) + 1  # the snapshot too
    assert str(file.counters["lost"]) in file.damage


def test_a_disk_that_is_full_at_the_start_is_the_callers_error(tmp_path):
    """Before anything was recorded an OSError is the clearest there is; no descriptor stays open."""
    before = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            RecordWriter(tmp_path / "a.records", run_id=RUN_ID, plan=0, worker=0, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == before


class Uncommitted:
    """Where the length and the checksum of a frame are stored, but for the killing."""

    @staticmethod
    def pack_into(*_):
        pass


def test_a_frame_that_was_not_committed_does_not_exist(tmp_path, monkeypatch):
    """Killed after the last byte of a frame and before its length: the file ends before it, and nothing looks damaged."""
    path = tmp_path / "a.records"
    writer = RecordWriter(path, run_id=RUN_ID, plan=0, worker=0, workers=1)
    writer.request(exchange(0, 9, outputs=[1, 2]), index=0, phase=0, lane=0, due_ns=at(0))
    monkeypatch.setattr(records, "_COMMIT", Uncommitted)
    writer.request(exchange(0, 9, outputs=[1, 2]), index=1, phase=0, lane=0, due_ns=at(0))
    got = read_records([path])
    assert got.heads["index"].tolist() == [0]
    assert not got.files[0].damage
    monkeypatch.undo()
    writer.close()


KILLED = """
import sys
sys.path[:0] = sys.argv[2:]
from written import RUN_ID, at, exchange
from loadgen.records import RecordWriter
made = exchange(0, 9, outputs=range(200))
writer = RecordWriter(sys.argv[1], run_id=RUN_ID, plan=0, worker=0, workers=1)
print("ready", flush=True)
k = 0
while True:
    writer.sent()
    writer.request(made, index=k, phase=0, lane=0, due_ns=at(k))
    k += 1
"""


def test_a_killed_writer_loses_no_committed_record(tmp_path):
    """SIGKILL at 20 random moments: frames are whole and in order, and at most one is ahead of its counter."""
    draw = random.Random(20)
    for round_ in range(5):  # four at a time: an interpreter's start is most of the cost
        paths = [tmp_path / f"{round_}-{n}.records" for n in range(4)]
        writers = [subprocess.Popen([sys.executable, "-c", KILLED, path, *sys.path], stdout=subprocess.PIPE) for path in paths]
        for writer in writers:
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers:
            time.sleep(draw.uniform(0, 0.03))  # the random moment itself, not a wait for something
            writer.send_signal(signal.SIGKILL)
        for writer, path in zip(writers, paths, strict=True):
            writer.wait(timeout=10)
            writer.stdout.close()
            got = read_records([path])
            file = got.files[0]
            assert not file.ended and not file.damage
            assert got.heads["index"].tolist() == list(range(len(got)))
            assert len(got) - file.counters["finished"] in (0, 1)
            assert file.counters["sent"] - len(got) in (0, 1)
            assert sum(int(block.gaps.sum()) for block in got.gaps(np.arange(len(got)))) == 199_000 * len(got)
