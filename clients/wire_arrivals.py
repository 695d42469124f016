"""When what was read is parsed: after every read of the same turn of the loop has its stamp. When what that lets go is sent: after that.

Knows the loop's turns; knows nothing of HTTP. Law: a stamp is taken before any parsing of its turn; what was read is parsed in the
order of the reads, once; what one connection's parsing raises reaches the loop's log and no other connection. What is sent because
an answer ended is sent when all of the turn is parsed, in the same order.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# So many bytes are parsed at once: what waits stays small, whatever the sockets bring. A turn brings so much where we are far behind, and 2,000
# streams of a late client held 60 MB of it.
MOST_WAITING = 256 * 1024

# What can wait is parsed together: the parser's code and the blocks stay in the CPU's caches, where one by one each event finds them
# pushed out by the kernel and the loop. No more than this many: while they are parsed (0.15 ms) nothing is stamped; 128 cost the same CPU
# and were four times as late at p99.
_WAITING_READS = 32
_WAITING_S = 0.02  # and no longer, for who looks at an exchange under way


class Reader(Protocol):
    """A connection, as far as its turn goes."""

    def read(self, now_ns: int, data: bytes) -> None:
        """Bytes as they came."""

    def transmit(self) -> None:
        """It may send now what it was given."""

    def unwanted(self, now_ns: int) -> None:
        """No more of this body is wanted."""

    def fail(self) -> None:
        """Something raised what it must not."""


class Arrivals:
    """What was read and is not parsed, in order; and who waits to send until it is.

    When an engine's step ends, hundreds of streams are readable at once. Parsing each before the next is read would put all of that
    work into the last one's stamp; so reads are only stamped, and parsed at the turn's end, by one callback for all.

    The requests that this sets free go out in one row: a server that sleeps between them would be awakened for each, which costs the
    sender more than the rest of a request (25 µs became 17). They wait for the parsing of the turn, and their send lag says so.
    """

    __slots__ = ("_loop", "_parsing", "_reads", "_size", "_soon", "_timer", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reads: deque[tuple[Callable[[int, bytes], bool] | None, int, bytes, Reader]] = deque()
        self._size = 0  # bytes that wait, without blocks
        self._soon = False
        self._timer: asyncio.TimerHandle | None = None
        self._parsing = False
        self._waiting: list[Reader] = []

    def later(self, connection: Reader) -> bool:
        """Whether this connection's `transmit` is called when what is being parsed has been; False: nothing is, send at once."""
        if self._parsing:
            self._waiting.append(connection)
        return self._parsing

    def add(self, connection: Reader, now_ns: int, data: bytes) -> None:
        """A read that is parsed at the end of this turn, and all before it."""
        self._reads.append((None, now_ns, data, connection))
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self._parse_soon)
        self._size += len(data)
        if self._size >= MOST_WAITING:
            self.parse()

    def add_block(self, take: Callable[[int, bytes], bool], now_ns: int, block: bytes, connection: Reader) -> None:
        """Bytes of a body that may wait for `take` until there are more, or for 20 ms."""
        reads = self._reads
        reads.append((take, now_ns, block, connection))
        if self._timer is None:
            self._timer = self._loop.call_later(_WAITING_S, self._parse_late)
        if len(reads) >= _WAITING_READS and not self._soon:
            self._soon = True
            self._loop.call_soon(self._parse_soon)

    def parse(self) -> None:
        """All that was read so far; also called before anything ends an answer from outside, be it in the middle of this."""
        reads = self._reads
        self._size = 0
        within = self._parsing
        self._parsing = True
        while reads:
            take, now_ns, data, connection = reads.popleft()
            try:
                if take is None:
                    connection.read(now_ns, data)
                elif not take(now_ns, data):
                    self._drop(connection)
                    connection.unwanted(now_ns)
            except Exception as fault:  # ours, a listener's or of `done`: only this connection pays
                self._loop.call_exception_handler({"message": f"parsing what came on {connection!r}", "exception": fault})
                self._drop(connection)
                connection.fail()
        if within:
            return
        self._parsing = False
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.transmit()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _parse_soon(self) -> None:
        self._soon = False
        self.parse()

    def _parse_late(self) -> None:
        self._timer = None
        self.parse()

    def _drop(self, connection: Reader) -> None:
        """What else came on a connection that ends."""
        left = [read for read in self._reads if read[3] is not connection]
        self._reads.clear()
        self._reads.extend(left)
