"""A server that does to a request exactly what its script says: bytes, splits, waits, then close, reset, stall or silence.

Knows sockets and as much HTTP/1.1 as it takes to find where a request ends; knows nothing of models or of clients.
Law: each request that arrives leaves a `Visit`, which says when its connection was accepted, when its first byte came, when the
connection closed and by whom; a client that leaves in the middle of an answer is recorded as `aborted`.
A request names its script by the header `x-script`; a request without one gets the default script.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    import ssl


class Then(Enum):
    CLOSE = "closes in order (FIN)"
    RESET = "closes with RST"
    STALL = "stays open and says nothing more"
    DEAF = "reads no more; the script goes on"
    HEAR = "reads again; the script goes on"


CLOSE, RESET, STALL, DEAF, HEAR = Then


class Tunnel(NamedTuple):
    """Answer CONNECT, then carry bytes to and from this port of loopback."""

    port: int


# One request's script, in order: bytes are written at once, a number is waited for in seconds. At the end the connection is kept.
Step = bytes | float | Then | Tunnel


@dataclass
class Visit:
    """One request as the server saw it. Stamps are perf_counter_ns, 0 = not yet."""

    connection: int  # the n-th connection that was accepted, from 1
    accepted_ns: int
    first_byte_ns: int
    head: bytes = b""
    body: bytes = b""
    complete: bool = False  # all of the request arrived
    closed_ns: int = 0
    aborted: bool = False  # the client left before the script was over
    sent: int = 0  # bytes of the answer written

    def header(self, name: str) -> str | None:
        match = re.search(rb"\r\n" + re.escape(name.encode()) + rb":[ ]*([^\r]*)\r\n", self.head, re.IGNORECASE)
        return match[1].decode("latin-1") if match else None


@dataclass
class Script:
    """What to do with the n-th request that names it (the last for all later ones), and who came."""

    name: str
    rounds: tuple[tuple[Step, ...], ...]
    at_head: bool = False  # begin when the head is complete, not with the end of the body
    visits: list[Visit] = field(default_factory=list)

    @property
    def header(self) -> tuple[str, str]:
        return ("x-script", self.name)


class _Connection(asyncio.Protocol):
    def __init__(self, server: ChaosServer) -> None:
        self._server = server
        self._buffer = b""
        self._visit: Visit | None = None
        self._script: Script | None = None
        self._length = 0
        self._play: asyncio.Task[None] | None = None
        self._peer: asyncio.Transport | None = None  # of a tunnel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.accepted_ns = time.perf_counter_ns()
        self._server.accepted += 1
        self._server.open.add(self)
        self.number = self._server.accepted

    def data_received(self, data: bytes) -> None:
        if self._peer is not None:
            self._peer.write(data)
            return
        self._buffer += data
        if self._visit is None:
            self._visit = Visit(self.number, self.accepted_ns, time.perf_counter_ns())
        visit = self._visit
        if not visit.head:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            visit.head, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            self._length = int(visit.header("content-length") or 0)
            self._script = self._server.script_of(visit)
            self._script.visits.append(visit)
            if self._script.at_head:
                self._begin()
        if self._play is None and len(self._buffer) >= self._length:
            visit.body, self._buffer = self._buffer[: self._length], self._buffer[self._length :]
            visit.complete = True
            self._begin()

    def _begin(self) -> None:
        assert self._script is not None
        assert self._visit is not None
        rounds = self._script.rounds
        steps = rounds[min(len(self._script.visits), len(rounds)) - 1]
        self._play = asyncio.get_running_loop().create_task(self._run(steps, self._visit))

    async def _run(self, steps: tuple[Step, ...], visit: Visit) -> None:
        for step in steps:
            if isinstance(step, bytes):
                self.transport.write(step)
                visit.sent += len(step)
            elif isinstance(step, float | int):
                await asyncio.sleep(step)
            elif isinstance(step, Tunnel):
                self._peer, _ = await asyncio.get_running_loop().create_connection(lambda: _Far(self.transport), "127.0.0.1", step.port)
                self.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                return
            elif step is STALL:
                await asyncio.Event().wait()
            elif step is DEAF:
                self.transport.pause_reading()
            elif step is HEAR:
                self.transport.resume_reading()
            else:
                visit.closed_ns = time.perf_counter_ns()
                if step is RESET:
                    linger = struct.pack("ii", 1, 0)
                    self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.transport.abort()
                else:
                    self.transport.close()
                return
        self._visit, self._play = None, None
        if self._buffer:
            self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        visit = self._visit
        if visit is not None and not visit.closed_ns:
            visit.closed_ns = time.perf_counter_ns()
            visit.aborted = True
        if self._play is not None:
            self._play.cancel()
        if self._peer is not None:
            self._peer.close()
        self._server.open.discard(self)


class _Far(asyncio.Protocol):
    """The far side of a tunnel."""

    def __init__(self, near: asyncio.Transport) -> None:
        self._near = near

    def data_received(self, data: bytes) -> None:
        self._near.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._near.close()


class ChaosServer:
    """Runs in a thread between `with` and its end. `tls`: its context; without one it is plain."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.accepted = 0
        self.open: set[_Connection] = set()
        self.port = 0
        self._tls = tls
        self._scripts: dict[str, Script] = {}
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="chaos")

    def script(self, *steps: Step, rounds: tuple[tuple[Step, ...], ...] = (), at_head: bool = False) -> Script:
        """A script of one round, or of several: `rounds` by the number of the request that names it."""
        script = Script(str(len(self._scripts)), rounds or (steps,), at_head)
        self._scripts[script.name] = script
        return script

    def script_of(self, visit: Visit) -> Script:
        return self._scripts[visit.header("x-script") or "default"]

    def default(self, *steps: Step) -> Script:
        """The script of requests that name none (a CONNECT, which carries no header of ours)."""
        script = self._scripts["default"] = Script("default", (steps,))
        return script

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=self._tls, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for connection in list(self.open):
            connection.transport.abort()
        while self.open:
            await asyncio.sleep(0)


def pieces(data: bytes, *cuts: int, wait_s: float = 0.002) -> tuple[Step, ...]:
    """The data cut at these offsets, with a wait between that lets each piece arrive as a read of its own."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    steps: list[Step] = []
    for start, end in zip(edges, edges[1:], strict=False):
        steps += [data[start:end], wait_s]
    return tuple(steps)


def chunked(*blocks: bytes, end: bool = True) -> bytes:
    """Chunked framing, one chunk for each block."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(block), block) for block in blocks if block)
    return framed + (b"0\r\n\r\n" if end else b"")


def answer(
    body: bytes = b"", *, status: str = "200 OK", headers: str = "content-type: application/json", length: int | None = None
) -> bytes:
    """A whole answer with a Content-Length (a false one by `length`)."""
    lines = [f"HTTP/1.1 {status}", *headers.split("\n"), f"content-length: {len(body) if length is None else length}"]
    return "\r\n".join(line for line in lines if line).encode("latin-1") + b"\r\n\r\n" + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def stream(*events: bytes, end: bool = True) -> bytes:
    """A whole event stream, one chunk for each event, as vLLM sends it."""
    return STREAM_HEAD + chunked(*(b"data: " + event + b"\n\n" for event in events), end=end)


# The least that is an event of output, the least that ends an answer in order (its data), and an answer of that alone.
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
STOP = b'{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}'
GOOD = stream(STOP, b"[DONE]")
