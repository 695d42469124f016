"""One connection of the `wire` transport: a request out, the answer's bytes in.

Knows HTTP/1.1 as httptools reads it, and one shape of read that it takes without httptools (see `data_received`). Must not know
what bodies mean, how connections are made, or when a request has waited too long.
Law: the reads of one turn of the loop are all stamped before any of them is parsed, and what those let go is sent after (`wire_arrivals.py`);
`sent_ns` is taken at the system call. A flight is told of its end once, and after that no byte reaches it; a connection goes back to the
pool only when the request is wholly written, its answer has ended as HTTP says, and nothing followed.
"""

from __future__ import annotations

import os
from time import perf_counter_ns
from typing import TYPE_CHECKING, Protocol, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from clients.errors import Outcome, RequestError, request_error
from clients.transport import broken_error, idle_limit_s
from clients.wire_chunks import WHOLE_CHUNKS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from clients.exchange import Exchange
    from clients.wire_arrivals import Arrivals

# Of one answer: aiohttp takes 8 kB for each line and 128 lines; no server of this kind sends more than 2 kB in 15.
HEAD_LIMIT = 64 * 1024  # bytes of a head, and of any framing that brings no byte of a body
HEADERS_LIMIT = 128

JOINED_BODY = 64 * 1024  # up to here a copy into one write (10 µs) is cheaper than a second write or packet
UPLOAD_PIECE = 256 * 1024  # of a larger body, written while the connection wants more


class Flight(Protocol):
    """The request under way, as its connection sees it."""

    exchange: Exchange
    read_ns: int

    def end(self, now_ns: int, error: RequestError | None) -> None:
        """The answer ended; error: not as it should."""

    def resend(self, error: RequestError) -> None:
        """A kept connection died before any byte of the answer."""


class Pool(Protocol):
    """Where a connection belongs."""

    arrivals: Arrivals

    def opened(self, connection: Connection) -> None: ...
    def release(self, connection: Connection) -> None: ...
    def lost(self, connection: Connection) -> None: ...
    def limit_idle(self, limit_s: float) -> None: ...


class Connection:
    """A connection and the request on it, if any. `send` when it is free; `drop` to end both.

    An asyncio.Protocol by its methods alone: a compiled class has no base that is not compiled.
    """

    _take: Callable[[int, bytes], bool]

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._arrivals = pool.arrivals
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None
        self._flight: Flight | None = None
        self._between = False
        self._paused = False
        self._upload: memoryview | None = None
        self._fd = -1  # of a socket that takes our bytes as they are: none for TLS
        self._queued = False  # the loop's transport was given bytes, and may hold some still

    def __repr__(self) -> str:
        state = "closed" if self._transport is None else "idle" if self._flight is None else "busy"
        return f"<Connection {state}>"

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    # ---- the request ---------------------------------------------------------------------------------------------------

    def send(self, flight: Flight, head: bytes, body: bytes, *, kept: bool) -> None:
        """Hands the request to the socket. kept: the connection comes from the pool, so its server may be closing it right now."""
        assert self._transport is not None
        self._flight = flight
        self._take = flight.exchange.data
        self._kept = kept
        self._between = self._complete = self._spoilt = self._unwanted = self._ended_by_close = self._informational = False
        self._error: RequestError | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._status = 0
        self._silent = 0
        self._head = head
        self._body = body
        if not self._arrivals.later(self):
            self.transmit()

    def transmit(self) -> None:
        """The bytes of what `send` was given go to the socket, now."""
        transport, flight = self._transport, self._flight
        if transport is None or flight is None:  # it ended while it waited
            return
        head, body = self._head, self._body
        self._head = self._body = b""
        flight.exchange.sent_ns = perf_counter_ns()
        if len(body) > JOINED_BODY:
            self._queued = True
            transport.write(head)
            self._upload = memoryview(body)
            self._write_more()
        elif self._fd < 0 or (self._queued and transport.get_write_buffer_size()):
            transport.write(head + body)
        else:
            self._write(head + body, transport)

    def _write(self, data: bytes, transport: asyncio.Transport) -> None:
        """Past the loop's own queue, which would write at the end of its turn: later than `sent_ns` says, and dearer."""
        try:
            written = os.write(self._fd, data)
        except OSError:  # full, or broken: the transport waits, or tells us in its order
            written = 0
        self._queued = written < len(data)
        if self._queued:
            transport.write(data[written:])

    def _written(self) -> bool:
        """Whether the request has left us wholly."""
        return self._upload is None and not (self._queued and self._transport is not None and self._transport.get_write_buffer_size())

    def _write_more(self) -> None:
        transport = self._transport
        while self._upload is not None and not self._paused and transport is not None:
            piece, rest = self._upload[:UPLOAD_PIECE], self._upload[UPLOAD_PIECE:]
            self._upload = rest if len(rest) else None
            transport.write(piece)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write_more()

    # ---- the answer: the path of every read ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Subtle: between two chunks, a read that is exactly one chunk is taken without the parser, whose state it would not change."""
        now_ns = perf_counter_ns()
        if self._between:
            begin, size = WHOLE_CHUNKS[len(data)]
            block = data.removeprefix(begin).removesuffix(b"\r\n")
            if len(block) != size:
                block = data.removeprefix(begin.upper()).removesuffix(b"\r\n")
            if len(block) == size:  # so the length of both ends is gone
                self._flight.read_ns = now_ns  # type: ignore[union-attr]  # between chunks there is a flight
                self._arrivals.add_block(self._take, now_ns, block, self)
                return
            self._between = False  # until what this is has been parsed
        self._arrivals.add(self, now_ns, data)

    def read(self, now_ns: int, data: bytes) -> None:
        """Bytes as they came, at the end of their turn."""
        flight = self._flight
        if flight is None:
            self.drop()  # an answer that nobody asked for must not become the next request's
            return
        if not 0 < flight.exchange.sent_ns <= now_ns:  # nor must one that was read in this turn, before the request was sent
            self._broken(None)
            return
        flight.read_ns = self._now_ns = now_ns
        self._body_seen = self._chunk_over = False
        self._silent += len(data)
        parser = self._parser
        if parser is None:
            parser = self._parser = HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except HttpParserCallbackError:
            raise  # not the answer's fault
        except (HttpParserError, HttpParserUpgrade) as fault:
            self._spoilt = True
            if not self._complete and self._error is None:
                self._error = request_error(Outcome.PROTOCOL, f"the answer is not HTTP: {_reason(fault)}")
        if self._error is not None or self._complete or self._unwanted:
            self._end(now_ns, self._error)
            return
        self._between = self._chunk_over and self._patient and data.endswith(b"\r\n")
        if self._body_seen:
            self._silent = 0
        elif self._silent > HEAD_LIMIT:
            self._end(now_ns, request_error(Outcome.PROTOCOL, f"the answer's head is longer than {HEAD_LIMIT:,} bytes"))

    # ---- what httptools calls while it is fed --------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._spoilt = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:  # else it is a trailer, which says nothing to us
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete or self._error is not None:
            return
        assert self._parser is not None
        status = self._parser.get_status_code()
        headers = self._headers
        large = self._silent > HEAD_LIMIT  # what was read up to here: only then the head may be
        if len(headers) > HEADERS_LIMIT or (large and sum([len(name) + len(value) for name, value in headers]) > HEAD_LIMIT):
            self._error = request_error(
                Outcome.PROTOCOL, f"the answer's head has more than {HEADERS_LIMIT} headers or {HEAD_LIMIT:,} bytes"
            )
            return
        if 100 <= status < 200:
            self._informational = True
            self._headers = []
            return
        self._status = status
        self._begin_body(status, {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)})

    def _begin_body(self, status: int, headers: dict[str, str]) -> None:
        flight = self._flight
        assert flight is not None
        flight.exchange.head(self._now_ns, status, headers)
        self._patient = flight.exchange.answer.listener is None  # who listens is told at the end of each turn
        transfer = headers.get("transfer-encoding")
        if transfer is None:
            self._ended_by_close = "content-length" not in headers
        encoding = headers.get("content-encoding") or (transfer if transfer is not None and transfer.strip().lower() != "chunked" else "")
        if encoding and encoding.strip().lower() != "identity":
            if 200 <= status < 300:
                self._error = request_error(
                    Outcome.BAD_CONTENT, "the answer is encoded although identity was asked for (Content-Encoding): aiohttp reads that"
                )
            else:
                self._take = _leave  # the status says enough
        keep_alive = headers.get("keep-alive")
        if keep_alive is not None:
            self._pool.limit_idle(idle_limit_s(keep_alive))
            self._spoilt = "max=0" in keep_alive.lower().replace(" ", "").split(",")

    def on_body(self, block: bytes) -> None:
        self._body_seen = True
        if not self._complete and not self._unwanted and self._error is None and not self._take(self._now_ns, block):
            self._unwanted = True

    def on_chunk_header(self) -> None:
        self._chunk_over = False

    def on_chunk_complete(self) -> None:
        self._chunk_over = True

    def on_message_complete(self) -> None:
        if self._informational:
            self._informational = False
        elif not self._complete:
            assert self._parser is not None
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # ---- the end -------------------------------------------------------------------------------------------------------

    def _end(self, now_ns: int, error: RequestError | None) -> None:
        flight = self._flight
        assert flight is not None
        if self._complete and self._keep and not self._spoilt and error is None and self._written() and not self._unwanted:
            self._flight = None
            self._between = False
            self._pool.release(self)
        else:
            self.drop()
        flight.end(now_ns, error)

    def drop(self) -> None:
        """Closes at once, whatever is still to be written; the flight, if there is one, is not told."""
        self._flight = None
        self._between = False
        self._upload = None
        if self._transport is not None:
            self._transport.abort()

    def unwanted(self, now_ns: int) -> None:
        if self._flight is not None:
            self._end(now_ns, None)

    def fail(self) -> None:
        """Something here raised what it must not."""
        flight = self._flight
        self.drop()
        if flight is not None:
            flight.end(perf_counter_ns(), request_error(Outcome.PROTOCOL, "the transport failed; the event loop logs how"))

    # ---- what the loop says of the connection --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        if transport.get_extra_info("sslcontext") is None:
            self._fd = transport.get_extra_info("socket").fileno()
        self._pool.opened(self)

    def eof_received(self) -> None:
        self._arrivals.parse()
        self._broken(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._arrivals.parse()
        self._broken(exc)
        self._transport = None
        self._fd = -1  # its number may be another's by now
        self._parser = None  # it holds our methods
        self._pool.lost(self)

    def _broken(self, exc: BaseException | None) -> None:
        flight = self._flight
        now_ns = perf_counter_ns()
        status, ended_by_close = (self._status, self._ended_by_close) if flight is not None else (0, False)
        self.drop()
        if flight is None:
            return
        if exc is not None or not status:
            error = broken_error(exc)
            if self._kept and not flight.read_ns:
                flight.resend(error)
            else:
                flight.end(now_ns, error)
        elif ended_by_close:
            flight.end(now_ns, None)
        else:
            flight.end(now_ns, request_error(Outcome.TRUNCATED, "the answer ended before its HTTP end"))


def _leave(_now_ns: int, _block: bytes) -> bool:
    return True


def _reason(fault: Exception) -> str:
    """The parser's own words, which hold no byte of the answer."""
    return "it switches protocols" if isinstance(fault, HttpParserUpgrade) else str(fault)
