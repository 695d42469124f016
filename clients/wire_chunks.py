"""The one shape of read that needs no parser: a whole chunk of a chunked body, and nothing else.

Knows chunked framing (RFC 9112 7.1); knows nothing of connections.
Law: what WHOLE_CHUNKS recognises is a chunk for every parser of HTTP; what it does not know may be one all the same.
"""

from __future__ import annotations

# An event of a stream has 200 to 400 bytes, with logprobs a few thousand: what is kept for each length stays under 3 MB.
_KEPT_LIMIT = 8 * 1024


class _WholeChunks(dict[int, tuple[bytes, int]]):
    """By its length, how a read begins that is one chunk, and the length of the chunk's data.

    The length of `size CRLF data CRLF` leaves one size only; -1 where there is none. The empty chunk, which ends a body, is left to
    the parser; so are sizes of more than four digits, with leading zeros, of mixed case, and with extensions.
    """

    def __missing__(self, length: int) -> tuple[bytes, int]:
        found = b"", -1
        for digits in range(1, 5):
            size = length - digits - 4
            if size > 0 and len(f"{size:x}") == digits:
                found = b"%x\r\n" % size, size
        if length <= _KEPT_LIMIT:
            self[length] = found
        return found


WHOLE_CHUNKS: dict[int, tuple[bytes, int]] = _WholeChunks()
