"""Record files, read back: numpy arrays of what workers wrote.

Knows the format of `records.py` (its dtypes are made from the same rows) and mmaps; knows no meaning of a field.
Law: what it yields was written: each frame's checksum is verified and reading stops at the first that fails, so the result of
a damaged file is a prefix of it, and the damage is named. A file that is not of the run is refused, with the reason.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np

from loadgen import records

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

_NUMPY = {"B": "u1", "H": "<u2", "I": "<u4", "i": "<i4", "Q": "<u8", "q": "<i8", "8s": "S8", "16s": "V16"}
HEADER = np.dtype([(name, _NUMPY[code]) for name, code in records.HEADER_FIELDS])
HEAD = np.dtype([(name, _NUMPY[code]) for name, code in records.HEAD_FIELDS])

_START = struct.Struct("<IIHHI")
_GATHER = 1 << 16  # frames copied at a time: bounds the index matrix to 8 MB
_BLOCK_GAPS = 1 << 20  # gaps handed out at a time: bounds what a fold holds, whatever the run's length


class RecordFile(NamedTuple):
    """One worker's file. counters: `records.COUNTER_FIELDS`, as last stored. ended: an END frame was read.

    damage: why reading stopped before the end, "" if it did not.
    """

    path: str
    run_id: bytes
    plan: int
    worker: int
    workers: int
    share: int
    started_perf_ns: int
    started_wall_ns: int
    counters: dict[str, int]
    ended: bool
    damage: str


class Refusal(NamedTuple):
    """A file that was not read, and why."""

    path: str
    reason: str


class Snapshot(NamedTuple):
    """What a worker wrote of itself once a second: msgpack, its own business."""

    worker: int
    payload: bytes


class Block(NamedTuple):
    """The gaps of some requests. rows: into `Records.heads`; counts: gaps of each; gaps: µs, concatenated.

    tokens: of the event that ends each gap; 0 where not known.
    """

    rows: NDArray[np.int64]
    counts: NDArray[np.int64]
    gaps: NDArray[np.uint32]
    tokens: NDArray[np.uint8]


class Records:
    """All requests of a plan. heads: one row of dtype `HEAD` per final frame, file after file; attempts: the same of attempts.

    worker: of each row of heads. Gaps and error texts stay in the mapped files until they are asked for.
    """

    def __init__(self, files: list[RecordFile], refused: list[Refusal], scans: Sequence[_Scan]) -> None:
        self.files = files
        self.refused = refused
        self.heads = _joined([scan.heads(records.FINAL) for scan in scans])
        self.attempts = _joined([scan.heads(records.ATTEMPT) for scan in scans])
        self.snapshots = [Snapshot(file.worker, p) for file, scan in zip(files, scans, strict=True) for p in scan.payloads]
        self._data = [scan.data for scan in scans]
        self._offsets = np.concatenate([scan.offsets(records.FINAL) for scan in scans] or [np.zeros(0, np.int64)])
        sizes = [len(scan.offsets(records.FINAL)) for scan in scans]
        self._file = np.repeat(np.arange(len(scans)), sizes)
        self.worker = np.repeat(np.array([file.worker for file in files], np.int64), sizes)

    def __len__(self) -> int:
        return len(self.heads)

    def error(self, row: int) -> str:
        """The message of a failed request, cut at `records.ERROR_BYTES`."""
        head = self.heads[row]
        at = int(self._offsets[row]) + records.HEAD_BYTES + 4 * int(head["count"]) + int(head["token_bytes"])
        text: bytes = self._data[self._file[row]][at : at + int(head["error_bytes"])]
        return text.decode("utf-8", "ignore")

    def gaps(self, rows: NDArray[np.int64]) -> Iterator[Block]:
        """The gaps of these rows (ascending), in blocks of about a million."""
        rows = rows[self.heads["count"][rows] > 0]
        for file, data in enumerate(self._data):
            mine = rows[self._file[rows] == file]
            counts = self.heads["count"][mine].astype(np.int64)
            ends = np.cumsum(counts)
            first = 0
            while first < len(mine):
                last = int(np.searchsorted(ends, (ends[first - 1] if first else 0) + _BLOCK_GAPS)) + 1
                yield self._block(data, mine[first:last], counts[first:last])
                first = last

    def _block(self, data: mmap.mmap, rows: NDArray[np.int64], counts: NDArray[np.int64]) -> Block:
        heads = self.heads[rows]
        before = np.cumsum(counts) - counts
        place = np.arange(int(counts.sum()))  # of a gap within the block
        starts = (self._offsets[rows] + records.HEAD_BYTES) // 4
        words: NDArray[np.uint32] = np.frombuffer(data, "<u4", len(data) // 4)
        gaps = words[np.repeat(starts - before, counts) + place]
        known = (heads["flags"] & records.TOKENS_KNOWN) > 0
        tokens: NDArray[np.uint8] = np.repeat(known.astype(np.uint8), counts)
        listed = np.repeat(heads["token_bytes"] > 0, counts)
        if listed.any():
            # The first token byte belongs to the event before the first gap.
            starts = self._offsets[rows] + records.HEAD_BYTES + 4 * counts + 1
            at = np.repeat(starts - before, counts) + place
            tokens[listed] = np.frombuffer(data, "u1")[at[listed]]
        return Block(rows, counts, gaps, tokens)


class _Scan:
    """One pass over a file's frames: where each kind is, and why it stopped."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.payloads: list[bytes] = []
        self.ended = False
        self.damage = ""
        self._at: dict[int, list[int]] = {records.FINAL: [], records.ATTEMPT: []}
        with memoryview(data) as view:
            self._walk(view)

    def _walk(self, view: memoryview) -> None:
        at, size = records.HEADER_BYTES, len(view)
        unpack, smallest = _START.unpack_from, _START.size
        finals = self._at[records.FINAL].append
        while at + smallest <= size and not self.ended:
            length, crc, kind, _, count = unpack(view, at)
            if not length:
                break
            end = at + length
            if length < smallest or length % 8 or end > size or crc32(view[at + 8 : end], length) != crc:
                self.damage = f"frame at byte {at} is damaged"
                break
            if kind == records.FINAL:
                finals(at)
            elif kind == records.ATTEMPT:
                self._at[records.ATTEMPT].append(at)
            elif kind == records.SNAPSHOT:
                self.payloads.append(bytes(view[at + smallest : at + smallest + count]))
            elif kind == records.END:
                self.ended = True
            at = end

    def offsets(self, kind: int) -> NDArray[np.int64]:
        return np.array(self._at[kind], np.int64)

    def heads(self, kind: int) -> NDArray[np.void]:
        """The fixed heads of all frames of a kind, copied out of the file."""
        words: NDArray[np.uint64] = np.frombuffer(self.data, "<u8", len(self.data) // 8)
        offsets = self.offsets(kind) // 8  # frames start at multiples of 8
        width = HEAD.itemsize // 8
        rows = np.empty((len(offsets), width), np.uint64)
        for first in range(0, len(offsets), _GATHER):
            some = offsets[first : first + _GATHER]
            rows[first : first + len(some)] = words[some[:, None] + np.arange(width)]
        return rows.view(HEAD).reshape(-1)


def read_records(paths: Iterable[str | os.PathLike[str]], owner: tuple[bytes, int] | None = None) -> Records:
    """Read the record files of one plan, in the order of their workers.

    owner: run id and plan that they must carry; None: those of the first readable file. A file of another, a second one of the same
    worker, and one without a whole header are in `refused`. Raises OSError for a path that cannot be opened.
    """
    refused: list[Refusal] = []
    found: list[tuple[RecordFile, _Scan]] = []
    for path in paths:
        name = str(path)
        with open(path, "rb") as file:
            data = _mapped(file)
        if data is None or (header := _header(data)) is None:
            refused.append(Refusal(name, "no whole header of this format"))
            continue
        marks = header["run_id"].tobytes(), int(header["plan"])
        owner = owner or marks
        if marks != owner:
            refused.append(Refusal(name, "of another run or plan"))
            continue
        if any(other.worker == header["worker"] for other, _ in found):
            refused.append(Refusal(name, f"worker {header['worker']} was read already"))
            continue
        scan = _Scan(data)
        found.append((_record_file(name, header, data, scan), scan))
    found.sort(key=lambda pair: pair[0].worker)
    return Records([file for file, _ in found], refused, [scan for _, scan in found])


def _mapped(file: Any) -> mmap.mmap | None:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # an empty file
        return None


def _header(data: mmap.mmap) -> Any:
    """The header's fixed fields, None if they are not whole."""
    if len(data) < records.HEADER_BYTES:
        return None
    fixed = data[: HEADER.itemsize]
    header = np.frombuffer(fixed, HEADER)[0]
    sound = header["magic"] == records.MAGIC and header["schema"] == records.SCHEMA and header["crc"] == records.header_crc(fixed)
    return header if sound else None


def _record_file(name: str, header: Any, data: mmap.mmap, scan: _Scan) -> RecordFile:
    stored = np.frombuffer(data, "<u8", len(records.COUNTER_FIELDS), records.COUNTERS_AT).tolist()
    counters = dict(zip(records.COUNTER_FIELDS, stored, strict=True))
    damage = scan.damage
    if counters["lost"]:
        damage = f"{counters['lost']} frames could not be written: was the disk full?"
    elif counters["ended"] and not scan.ended and not damage:
        damage = "frames are missing at the end"
    return RecordFile(
        path=name,
        run_id=header["run_id"].tobytes(),
        plan=int(header["plan"]),
        worker=int(header["worker"]),
        workers=int(header["workers"]),
        share=int(header["share"]),
        started_perf_ns=int(header["started_perf_ns"]),
        started_wall_ns=int(header["started_wall_ns"]),
        counters=counters,
        ended=scan.ended or bool(counters["ended"]),
        damage=damage,
    )


def _joined(parts: list[NDArray[np.void]]) -> NDArray[np.void]:
    return np.concatenate(parts) if parts else np.zeros(0, HEAD)
