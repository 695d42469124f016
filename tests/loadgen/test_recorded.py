"""The reader: a prefix of what was written or a refusal, never something else."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written import RUN_ID, exchange, write

from clients.errors import Outcome
from loadgen import records
from loadgen.recorded import read_records


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The bytes of a small file: successes with gaps, a failure with a message, an attempt."""
    path = tmp_path_factory.mktemp("original") / "a.records"
    rows = [(k, exchange(k, k + 9, outputs=range(k, k + 1 + k % 4), tokens=[1 + k % 2] * (1 + k % 4))) for k in range(10)]
    rows.insert(4, (99, exchange(3, 5, outcome=Outcome.RESET), {"final": False}))
    rows.append((10, exchange(10, 12, outcome=Outcome.OVERLOADED, message="busy")))
    write(path, rows)
    return path.read_bytes()


def content(got):
    """Everything that a reader tells of its requests, in a form to compare."""
    gaps = [[] for _ in range(len(got))]
    for block in got.gaps(np.arange(len(got))):
        first = 0
        for row, count in zip(block.rows.tolist(), block.counts.tolist(), strict=True):
            gaps[row] = list(zip(block.gaps[first : first + count].tolist(), block.tokens[first : first + count].tolist(), strict=True))
            first += count
    return [(head.tobytes(), gap, got.error(row)) for row, (head, gap) in enumerate(zip(got.heads, gaps, strict=True))]


def read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a.records"
    path.write_bytes(data)
    return read_records([path])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_file_cut_anywhere_yields_a_prefix(original, tmp_path_factory, share):
    """Truncation at any byte: the frames before it, all of them, or a refused file when the header itself is cut."""
    cut = round(share * len(original))
    got = read(tmp_path_factory, original[:cut])
    whole = content(read(tmp_path_factory, original))
    if cut < records.HEADER_BYTES:
        assert len(got) == 0 and len(got.refused) == 1
    else:
        assert content(got) == whole[: len(got)]
        assert got.files[0].damage or cut == len(original)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bits_never_yield_wrong_records(original, tmp_path_factory, data):
    """Any one to three bits: a prefix of the true records, or a refusal of the file."""
    damaged = bytearray(original)
    for bit in data.draw(st.sets(st.integers(0, 8 * len(original) - 1), min_size=1, max_size=3)):
        damaged[bit // 8] ^= 1 << bit % 8
    got = read(tmp_path_factory, bytes(damaged))
    assert content(got) == content(read(tmp_path_factory, original))[: len(got)]
    in_frames = bytes(damaged[records.HEADER_BYTES :]) != original[records.HEADER_BYTES :]
    if in_frames and not got.refused:
        assert got.files[0].damage


def test_a_frame_is_no_longer_read_after_a_damaged_one(original, tmp_path_factory):
    """What comes after a broken frame cannot be trusted to start where it seems to: reading stops and says where."""
    damaged = bytearray(original)
    damaged[records.HEADER_BYTES + 50] ^= 1
    got = read(tmp_path_factory, bytes(damaged))
    assert len(got) == 0
    assert got.files[0].damage == f"frame at byte {records.HEADER_BYTES} is damaged"


def test_files_of_another_run_or_plan_or_twice_the_same_worker_are_refused(tmp_path):
    """Each with its reason, and the others are read."""
    for name, marks in {
        "mine": {},
        "other-run": {"run_id": b"y" * 16},
        "other-plan": {"plan": 4},
        "twice": {},
        "second": {"worker": 1},
    }.items():
        write(tmp_path / name, [(0, exchange(0, 1))], workers=2, **marks)
    (tmp_path / "empty").touch()
    names = ["mine", "other-run", "other-plan", "twice", "second", "empty"]
    got = read_records([tmp_path / name for name in names])
    assert [file.worker for file in got.files] == [0, 1]
    assert {refusal.path.rsplit("/", 1)[1]: refusal.reason for refusal in got.refused} == {
        "other-run": "of another run or plan",
        "other-plan": "of another run or plan",
        "twice": "worker 0 was read already",
        "empty": "no whole header of this format",
    }
    assert got.files[0].run_id == RUN_ID


def test_gaps_of_chosen_rows_keep_to_their_rows(tmp_path):
    """Over several files and blocks, each row's gaps are its own."""
    rows = [(k, exchange(0, 9_000, outputs=[n * (k + 1) for n in range(5)])) for k in range(30)]
    for worker in range(3):
        write(tmp_path / str(worker), rows[worker::3], worker=worker, workers=3)
    got = read_records([tmp_path / str(worker) for worker in range(3)])
    chosen = np.arange(1, 30, 2)
    for block in got.gaps(chosen):
        assert (block.gaps == np.repeat(1_000 * (got.heads["index"][block.rows] + 1), block.counts)).all()
    assert sum(len(block.rows) for block in got.gaps(chosen)) == len(chosen)


def test_no_files_are_no_records():
    """A plan whose workers never began is read like any other."""
    got = read_records([])
    assert len(got) == len(got.attempts) == len(got.files) == 0
