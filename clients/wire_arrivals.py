"""When what was read is parsed: after every read of the same turn of the loop has its stamp.

Knows the loop's turns; knows nothing of HTTP. Law: a stamp is taken before any parsing of its turn; reads are parsed in the order
they were made, each once; what one connection's parsing raises reaches the loop's log and no other connection.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

# A read of this size is parsed at once: what waits for the end of a turn stays small, whatever the sockets bring.
_LARGE_READ = 64 * 1024


class Reader(Protocol):
    """A connection, as far as its reads go."""

    def read(self, now_ns: int, data: bytes) -> None: ...
    def fail(self) -> None:
        """`read` raised."""


class Arrivals:
    """The reads of this turn of the loop, in order, until the loop has made them all.

    When an engine's step ends, hundreds of streams are readable at once. Parsing each before the next is read would put all of that
    work into the last one's stamp; so reads are only stamped, and parsed at the turn's end, by one callback for all.
    """

    __slots__ = ("_loop", "_reads")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reads: deque[tuple[Reader, int, bytes]] = deque()

    def add(self, connection: Reader, now_ns: int, data: bytes) -> None:
        reads = self._reads
        reads.append((connection, now_ns, data))
        if len(reads) == 1:
            self._loop.call_soon(self.parse)
        if len(data) >= _LARGE_READ:
            self.parse()

    def parse(self) -> None:
        """All that was read so far; also called before anything ends an answer from outside."""
        reads = self._reads
        while reads:
            connection, now_ns, data = reads.popleft()
            try:
                connection.read(now_ns, data)
            except BaseException:  # a fault of ours, of a listener or of `done`: the loop logs it, and only this connection pays
                if reads:
                    self._loop.call_soon(self.parse)
                connection.fail()
                raise
