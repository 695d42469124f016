"""One HTTP/1.1 connection of the simulator: bytes in, whole requests out, answer bytes to the socket.

Knows httptools, keep-alive and how to write at once. Must not know models, tokens or routes: it hands whole requests to its
`Handler`. No pipelining: bytes of a next request before the answer's end close the connection.
Law: `send` hands bytes to the kernel before it returns, in order, unless the socket is full; after `drop` nothing is written.
"""

import asyncio
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, Protocol, cast

import httptools

if TYPE_CHECKING:
    from collections.abc import Callable

_LINGER_RESET = struct.pack("ii", 1, 0)  # close() sends RST and forgets unsent bytes


class HttpRequest:
    """One whole request. Header names are lower case."""

    __slots__ = ("arrived_ns", "body", "headers", "method", "path")

    def __init__(self, method: str, path: str, headers: dict[bytes, bytes], body: bytes, arrived_ns: int) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.arrived_ns = arrived_ns  # its last byte was read


class Handler(Protocol):
    """What a connection needs of its server (the tests use a recording one)."""

    connections: set["Connection"]
    keep_alive_s: float

    def handle(self, connection: "Connection", request: HttpRequest) -> None: ...


class Connection(asyncio.Protocol):
    """The server's side of one socket. While `busy`, a request is being answered; `on_lost` is called if the client leaves then."""

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = handler
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        self._idle: asyncio.TimerHandle | None = None
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._read_ns = 0
        self._keep_alive = True
        self.busy = False
        self.on_lost: Callable[[], None] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fd = sock.fileno()
        self._handler.connections.add(self)
        self._wait_idle()

    def data_received(self, data: bytes) -> None:
        self._read_ns = time.perf_counter_ns()
        if self.busy:
            self.drop()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.drop()
        except httptools.HttpParserError:
            self.send(b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 30\r\n\r\n")
            self.send(b"Invalid HTTP request received.")
            self.close()

    def eof_received(self) -> bool:
        self._lost()
        return False  # the transport closes

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it so
        self._lost()

    # httptools

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, []
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self.busy:  # a second request in the same read
            self.drop()
            return
        self._keep_alive = self._parser.should_keep_alive()
        self.busy = True
        path = self._url.partition(b"?")[0].decode("latin-1")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        request = HttpRequest(self._parser.get_method().decode("latin-1"), path, self._headers, body, self._read_ns)
        self._handler.handle(self, request)

    # answers

    def send(self, data: bytes) -> None:
        """Write `data` now. The file descriptor is written directly: uvloop would wait for the end of its loop's iteration."""
        transport = self._transport
        if self._fd < 0 or transport is None:
            return
        if transport.get_write_buffer_size():
            transport.write(data)
            return
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the client has gone; connection_lost follows
            self.drop()
            return
        if sent < len(data):
            transport.write(data[sent:])

    def finish(self) -> None:
        """The answer's last byte was sent: wait for the next request, or close."""
        self.busy = False
        self.on_lost = None
        if self._keep_alive:
            self._wait_idle()
        else:
            self.close()

    def close(self) -> None:
        """Close after what was written."""
        if self._transport is not None:
            self._fd = -1
            self._transport.close()

    def drop(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._fd = -1
            self._transport.abort()

    def reset(self) -> None:
        """Close with RST."""
        if self._fd >= 0 and self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self.drop()

    def _wait_idle(self) -> None:
        self._idle = self._loop.call_later(self._handler.keep_alive_s, self.close)

    def _lost(self) -> None:
        self._fd = -1
        self._handler.connections.discard(self)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()


def head(status: bytes, headers: Any, length: int | None) -> bytes:
    """A response head; `length` None: a chunked body."""
    lines = [b"HTTP/1.1 " + status, b"server: uvicorn", *headers]
    lines.append(b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"
