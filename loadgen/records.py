"""One worker's record file: its format, and the writer.

Knows bytes, offsets and one mmap; knows nothing of plans, percentiles or numpy (the worker imports this; `recorded.py` reads).
Law: a frame is whole in the file before anything says that it exists. Its length and checksum are stored last, the counters
after them, so a process killed at any instruction leaves a readable prefix that lacks at most the request being written.

File = header (`HEADER_BYTES`, live) + frames back to back + zeros up to what was preallocated. Little-endian. A frame starts at a
multiple of 8: u32 length of the whole frame, u32 crc32 of all that follows (seeded with the length), u16 kind, u16 flags, u32 count.
    FINAL, ATTEMPT  `HEAD_FIELDS`, count gaps as u32 µs, token_bytes of u8 tokens per event, error_bytes of UTF-8
    SNAPSHOT, END   count bytes of payload (END has none: the worker closed its file)
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
import time
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from clients.exchange import Exchange

MAGIC: Final = b"LGREC001"
SCHEMA: Final = 2
HEADER_BYTES: Final = 256
SEGMENT_BYTES: Final = 4 << 20  # one posix_fallocate and one mmap per ~30,000 short records: rare, yet small beside a worker's 60 MB
ERROR_BYTES: Final = 512  # enough for one line of a server's message; a thousand failures stay under a segment

FINAL, ATTEMPT, SNAPSHOT, END = 1, 2, 3, 4
STREAMED, TOKENS_KNOWN, HAS_USAGE, HELD_BACK = 1, 2, 4, 8
NO_BATCH: Final = -1

FINISHES: Final = ("none", "stop", "length", "tool_calls", "content_filter", "other")
_FINISH_CODES = {name: code for code, name in enumerate(FINISHES)}
_FINISH_LENGTH, _FINISH_OTHER = 2, 5

# Declared once: (name, struct code). `recorded.py` makes its numpy dtype from the same rows.
HEADER_FIELDS: Final = (
    ("magic", "8s"),
    ("schema", "I"),
    ("crc", "I"),  # of all other fixed fields: a header is believed whole or not at all
    ("run_id", "16s"),
    ("plan", "I"),
    ("worker", "I"),
    ("workers", "I"),
    ("spare", "I"),
    ("started_perf_ns", "q"),
    ("started_wall_ns", "q"),
    ("share", "q"),  # requests of a fixed-N plan that are this worker's; -1 for a run by duration
)
# u64 each, stored live. start_ns: the plan's start instant, which no request is due before; 0 until it is known.
COUNTER_FIELDS: Final = ("scheduled", "sent", "finished", "in_flight_peak", "lost", "ended", "start_ns")
COUNTERS_AT: Final = 128
PREFIX_FIELDS: Final = (("length", "I"), ("crc", "I"), ("kind", "H"), ("flags", "H"), ("count", "I"))
HEAD_FIELDS: Final = (
    *PREFIX_FIELDS,  # count: number of gaps
    ("index", "Q"),
    ("batch", "i"),  # NO_BATCH where there are none; 2**31 of them would be 270 GB of records
    ("answer_crc", "I"),  # crc32 of the id that the server gave its answer, to find it in the server's own account; 0 = it gave none
    ("due_ns", "q"),  # stamps: time.perf_counter_ns(), 0 = did not happen
    ("sent_ns", "q"),
    ("first_byte_ns", "q"),
    ("first_output_ns", "q"),
    ("first_answer_ns", "q"),
    ("last_output_ns", "q"),
    ("end_ns", "q"),
    ("prompt_tokens", "i"),  # the server's usage; below 0 = unknown
    ("completion_tokens", "i"),
    ("cached_tokens", "i"),
    ("reasoning_tokens", "i"),
    ("events", "I"),
    ("token_bytes", "I"),  # 0 with TOKENS_KNOWN: one token in each event
    ("lane", "I"),
    ("status", "H"),
    ("first_event_tokens", "H"),  # 0 = unknown
    ("error_bytes", "H"),
    ("phase", "B"),
    ("attempt", "B"),
    ("outcome", "B"),
    ("finish", "B"),  # index into FINISHES
    ("reconnects", "B"),
    ("spare", "B"),
)

_HEADER = struct.Struct("<" + "".join(code for _, code in HEADER_FIELDS))
_HEAD = struct.Struct("<" + "".join(code for _, code in HEAD_FIELDS[2:]))  # after length and crc
_COMMIT = struct.Struct("<II")
_PREFIX = struct.Struct("<HHI")
HEAD_BYTES: Final = _COMMIT.size + _HEAD.size
PREFIX_BYTES: Final = _COMMIT.size + _PREFIX.size

_SCHEDULED, _SENT, _FINISHED, _PEAK, _LOST, _ENDED, _START = range(len(COUNTER_FIELDS))
_INT32_MAX = 2**31 - 1


def header_crc(fixed: bytes) -> int:
    """Checksum of a header's fixed fields (packed), its own field left out."""
    return crc32(fixed[16:], crc32(fixed[:12]))


class RecordWriter:
    """Appends what happened to each request of one worker. Not thread-safe, but for `sync`.

    Raises OSError from the constructor when the file exists or cannot be made; after that it never raises for the disk: it stops
    recording, says why in `failed` ("" = all is well) and counts each frame that it could not keep as lost, in the file's header too.
    """

    def __init__(self, path: str | os.PathLike[str], *, run_id: bytes, plan: int, worker: int, workers: int, share: int = -1) -> None:
        if sys.byteorder != "little":
            raise RuntimeError("records are written in native order, which must be little-endian")
        self.failed = ""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._allocated = 0
            self._base = 0  # file offset of the mapping
            self._used = HEADER_BYTES  # file offset of the next frame
            self._map, self._view = self._mapping(SEGMENT_BYTES)
            self._at, self._limit = HEADER_BYTES, len(self._map)  # the same within the mapping
            # A second mapping of the first page stays for the life of the file: the counters outlive the segment.
            self._page = mmap.mmap(self._fd, mmap.ALLOCATIONGRANULARITY)
        except BaseException:
            os.close(self._fd)
            raise
        anchors = time.perf_counter_ns(), time.time_ns()
        fixed = _HEADER.pack(MAGIC, SCHEMA, 0, run_id, plan, worker, workers, 0, *anchors, share)
        self._page[: len(fixed)] = _HEADER.pack(MAGIC, SCHEMA, header_crc(fixed), run_id, plan, worker, workers, 0, *anchors, share)
        counters = memoryview(self._page)[COUNTERS_AT : COUNTERS_AT + 8 * len(COUNTER_FIELDS)]
        self._counters = counters.cast("Q")  # one aligned store each: a reader or a kill never sees half of one
        self._scheduled = self._sent = self._finished = self._peak = self._lost = 0

    def __repr__(self) -> str:
        state = f" FAILED: {self.failed}" if self.failed else ""
        return f"<RecordWriter scheduled={self._scheduled} sent={self._sent} finished={self._finished} bytes={self._used}{state}>"

    def started(self, start_ns: int) -> None:
        """The plan's start instant has come."""
        self._counters[_START] = start_ns

    def scheduled(self, n: int = 1) -> None:
        """`n` more requests became due."""
        self._scheduled += n
        self._counters[_SCHEDULED] = self._scheduled

    def sent(self) -> None:
        """One more request was handed to the transport: once per request, however many attempts; never for one that is dropped."""
        self._sent += 1
        self._counters[_SENT] = self._sent
        in_flight = self._sent - self._finished
        if in_flight > self._peak:
            self._peak = in_flight
            self._counters[_PEAK] = in_flight

    # Hot path: all that a request costs in records. No allocation beyond the tail, no validation, one pack, one copy.
    def request(
        self,
        exchange: Exchange,
        *,
        index: int,
        phase: int,
        lane: int,
        batch: int = NO_BATCH,
        due_ns: int,
        final: bool = True,
        held_back: bool = False,
    ) -> None:
        """Keep a request that ended (`final`), or an attempt at one that will be tried again.

        `due_ns` is the due of the request, whatever the attempt; held_back: as in `Turn`. Counters follow only a final one.
        """
        answer = exchange.answer
        gaps = answer.gaps_us
        count = len(gaps)
        tail = b""
        flags = STREAMED if exchange.request.stream else 0
        if held_back:
            flags |= HELD_BACK
        first_event_tokens = token_bytes = error_bytes = 0
        if answer.tokens_known:
            flags |= TOKENS_KNOWN
            first_event_tokens = min(answer.first_event_tokens, 65535)
            tail = answer.uneven_tokens
            token_bytes = len(tail)
        if (error := exchange.error) is not None:
            text = str(error).encode("utf-8", "replace")[:ERROR_BYTES]
            tail, error_bytes = tail + text, len(text)
        if (usage := answer.usage) is None:
            prompt = completion = cached = reasoning = -1
        else:
            flags |= HAS_USAGE
            prompt, completion = usage.prompt_tokens, usage.completion_tokens
            cached = -1 if usage.cached_tokens is None else usage.cached_tokens
            reasoning = -1 if usage.reasoning_tokens is None else usage.reasoning_tokens
            if not -1 <= min(prompt, completion, cached, reasoning) <= max(prompt, completion, cached, reasoning) <= _INT32_MAX:
                prompt, completion, cached, reasoning = (_believable(n) for n in (prompt, completion, cached, reasoning))
        gaps_end = HEAD_BYTES + 4 * count
        length = (gaps_end + len(tail) + 7) & ~7
        if self._at + length <= self._limit or self._advance(length):
            at, mapping = self._at, self._map
            _HEAD.pack_into(
                mapping, at + 8, FINAL if final else ATTEMPT, flags, count, index, batch,
                crc32(answer.id.encode("utf-8", "replace")),
                due_ns, exchange.sent_ns, exchange.first_byte_ns, answer.first_output_ns, answer.first_answer_ns,
                answer.last_output_ns, exchange.end_ns, prompt, completion, cached, reasoning, answer.events, token_bytes, lane,
                exchange.status, first_event_tokens, error_bytes, phase, min(exchange.attempt, 255), exchange.outcome or 0,
                _finish(answer.finish_reasons), min(exchange.reconnects, 255), 0,
            )  # fmt: skip
            if count:
                mapping[at + HEAD_BYTES : at + gaps_end] = gaps
            if tail:
                mapping[at + gaps_end : at + gaps_end + len(tail)] = tail
            self._commit(at, length)
        if final:
            self._finished += 1
            self._counters[_FINISHED] = self._finished

    def snapshot(self, payload: bytes) -> None:
        """Keep the state of the worker at this moment; the payload is the worker's (msgpack)."""
        self._append(SNAPSHOT, payload)

    def sync(self) -> None:
        """Bound what a crash of the machine can take. Blocks; for a helper thread, which must be joined before `close`."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Say that the worker ended in order, and give back what was preallocated. Nothing may be called after."""
        if not self.failed:
            self._append(END, b"")
        self._counters[_ENDED] = 1
        self._counters.release()
        self._view.release()
        self._map.close()
        self._page.close()
        if not self.failed:  # without an END a reader may be at the last page: it stays mapped
            os.ftruncate(self._fd, self._used)
        os.close(self._fd)

    def _append(self, kind: int, payload: bytes) -> None:
        length = (PREFIX_BYTES + len(payload) + 7) & ~7
        if self._at + length <= self._limit or self._advance(length):
            at = self._at
            _PREFIX.pack_into(self._map, at + 8, kind, 0, len(payload))
            self._map[at + PREFIX_BYTES : at + PREFIX_BYTES + len(payload)] = payload
            self._commit(at, length)

    def _commit(self, at: int, length: int) -> None:
        """Store length and checksum: from here on the frame exists."""
        _COMMIT.pack_into(self._map, at, length, crc32(self._view[at + 8 : at + length], length))
        self._at = at + length
        self._used += length

    def _advance(self, length: int) -> bool:
        """Map the next segment so that `length` more bytes fit; False (and one more frame lost) when the disk has no room.

        It starts at the page in which the last frame ended: frames stay back to back in the file and none straddles two mappings.
        A frame larger than a segment gets a mapping as large as it needs.
        """
        if not self.failed:
            base = self._used - self._used % mmap.ALLOCATIONGRANULARITY
            needed = self._used - base + length
            try:
                mapping, view = self._mapping(max(SEGMENT_BYTES, needed + -needed % mmap.ALLOCATIONGRANULARITY), base)
            except OSError as error:
                self._fail(error)
            else:
                self._view.release()
                self._map.close()
                self._map, self._view, self._base = mapping, view, base
                self._at, self._limit = self._used - base, len(mapping)
                return True
        self._lost += 1
        self._counters[_LOST] = self._lost
        return False

    def _mapping(self, size: int, base: int = 0) -> tuple[mmap.mmap, memoryview]:
        _allocate(self._fd, self._allocated, base + size)
        self._allocated = base + size
        mapping = mmap.mmap(self._fd, size, offset=base)
        return mapping, memoryview(mapping)

    def _fail(self, error: OSError) -> None:
        self.failed = self.failed or f"records: {error.strerror or error} after {self._used} bytes"
        self._limit = 0  # no frame fits any more: a hole in the middle would hide what comes after it


def _believable(tokens: int) -> int:
    """A count that fits the frame; a server may send any integer, and one that is none is unknown."""
    return tokens if 0 <= tokens <= _INT32_MAX else -1


def _finish(reasons: dict[int, str]) -> int:
    """One code for all choices of a request: `length` if any of them was cut, else the first one's."""
    if not reasons:
        return 0
    if len(reasons) > 1 and "length" in reasons.values():
        return _FINISH_LENGTH
    return _FINISH_CODES.get(next(iter(reasons.values())), _FINISH_OTHER)


def _allocate(fd: int, start: int, end: int) -> None:
    """Reserve file space, so that a full disk is an OSError here and not a SIGBUS at a store into the mapping."""
    try:
        os.posix_fallocate(fd, start, end - start)
    except AttributeError:  # macOS has none
        pass
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system without it: NFS, some FUSE
            raise
    else:
        return
    zeros = bytes(1 << 20)
    for at in range(start, end, len(zeros)):
        written = os.pwrite(fd, zeros[: end - at], at)
        if written < min(len(zeros), end - at):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
