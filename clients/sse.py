"""Server-sent events, from bytes to the data of events.

Knows the line and field rules of the HTML standard (section 9.2.6); does no I/O, reads no clock, knows nothing of JSON.
Invariant: what comes out is a function of the bytes alone, however they were cut into blocks. Lines end in LF, CRLF or CR and
in nothing else (a U+2028 inside JSON is text), so they are split as bytes, never as str. Two departures from the standard, both
because servers do it: `flush` gives the event that the end of the stream left without its blank line, and fields other than
`data` are dropped (no server of this kind says anything in them).
"""

from __future__ import annotations

from clients.errors import Outcome, RequestError, request_error

EVENT_LIMIT = 16 * 1024 * 1024  # bytes; the largest events in the field (logprobs of a whole prompt) are a third of this

_BOM = b"\xef\xbb\xbf"
_LF, _CR = 10, 13


class EventDecoder:
    """Feed it the blocks of one response body in order; `flush` after its orderly end."""

    __slots__ = ("_after_cr", "_begun", "_between", "_data", "_data_size", "_limit", "_line", "_line_size")

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._line: list[bytes] = []  # the blocks of a line whose end has not come yet
        self._line_size = 0
        self._data: list[bytes] = []  # the data lines of an event whose blank line has not come yet
        self._data_size = 0
        self._begun = False  # the first line, which may have a BOM, is over
        self._after_cr = False  # the last byte was a CR, which ended a line: an LF that follows belongs to it
        self._between = True  # nothing of a line or an event is pending, and no LF to be dropped

    def feed(self, block: bytes) -> list[bytes]:
        """The data of each event that this block completes; the lines of one are joined by LF.

        Raises RequestError (BAD_EVENT) when a line or an event is longer than the limit; the decoder is of no use after.
        """
        # The common case: whole events of one line each, between blank lines; nearly always one. Subtle: both ends were there if
        # eight bytes are gone. These methods and `int in bytes` cost a fifth of startswith, endswith and `bytes in bytes`.
        if self._between:
            said = block.removeprefix(b"data: ").removesuffix(b"\n\n")
            if len(block) - len(said) == 8 and _CR not in said and len(block) <= self._limit:
                if _LF not in said:
                    self._begun = True
                    return [said]
                # Each event takes two LFs, so another count means a comment, another field or a second line somewhere.
                events = said.split(b"\n\ndata: ")
                if said.count(b"\n") == 2 * len(events) - 2:
                    self._begun = True
                    return events
        return self._feed_lines(block)

    def flush(self) -> list[bytes]:
        """The event left pending at the end of the stream, if any: a list of none or one."""
        events: list[bytes] = []
        if self._line:
            self._end_line(b"", events)
        self._end_line(b"", events)
        return events

    def _feed_lines(self, block: bytes) -> list[bytes]:
        if not block:
            return []
        if self._after_cr and block[0] == _LF:
            block = block[1:]
        self._after_cr = block.endswith(b"\r")
        events: list[bytes] = []
        for line in block.splitlines(keepends=True):  # of bytes: at LF, CR and CRLF only
            if line[-1] == _LF or line[-1] == _CR:
                self._end_line(line.rstrip(b"\r\n"), events)
            else:
                self._line.append(line)
                self._line_size += len(line)
                if self._line_size > self._limit:
                    raise self._too_long("line")
        self._between = not (self._after_cr or self._line or self._data)
        return events

    def _end_line(self, tail: bytes, events: list[bytes]) -> None:
        line = tail
        if self._line:
            self._line.append(tail)
            line = b"".join(self._line)
            self._line = []
            self._line_size = 0
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if len(line) > self._limit:
            raise self._too_long("line")
        if not line:
            if self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
                self._data_size = 0
        elif line.startswith(b"data:"):
            self._append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line == b"data":
            self._append(b"")

    def _append(self, value: bytes) -> None:
        self._data.append(value)
        self._data_size += len(value) + 1
        if self._data_size - 1 > self._limit:
            raise self._too_long("event")

    def _too_long(self, what: str) -> RequestError:
        self._line, self._data = [], []
        return request_error(Outcome.BAD_EVENT, f"an SSE {what} is longer than {self._limit:,} bytes")
