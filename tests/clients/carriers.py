"""The transports under test, and how a test sends a request through one.

Knows the table that the conformance suite runs over: every transport of `clients.transports`, on uvloop and on asyncio's loop, and
aiohttp once more without the seam that stamps arrivals. A transport that is added there is tested by the same suite unchanged.
Law: `send` fails the test if `done` is called from inside `start`, or twice, or with no outcome.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import uvloop

from clients import aiohttp_transport
from clients.dialects import DIALECTS
from clients.endpoint import Endpoint, Timeouts
from clients.exchange import Exchange, Request
from clients.transports import TRANSPORTS, open_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import pytest

    from clients.transport import Flight, Transport

# Long enough for two busy cores, short enough that a hang is a failure and not a wait.
PATIENCE = Timeouts(connect_s=20, first_byte_s=20, stall_s=20, total_s=20)
HANG_S = 60.0
KEY = "sk-do-not-show-this"


class Carrier(NamedTuple):
    """One row of the table."""

    transport: str
    loop: str
    stamping: str

    @property
    def whole_http(self) -> bool:
        """Whether it reads encoded bodies and goes through proxies; `wire` refuses both, and says so."""
        return self.transport != "wire"

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        factory = uvloop.new_event_loop if self.loop == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(work, HANG_S))  # pytest-timeout's signal does not stop a uvloop

    def prepare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Loopback must not go through a proxy of the machine that runs the tests.
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        if self.transport == "aiohttp" and self.stamping == "wake":
            monkeypatch.setattr(aiohttp_transport, "stamp_reads", lambda *_: False)

    def open(self, url: str, timeouts: Timeouts = PATIENCE, **settings: Any) -> Transport:
        """Inside `run` only."""
        return open_transport(self.transport, Endpoint.parse(url, api_key=KEY, **settings), timeouts)

    def one(self, url: str, request: Request, timeouts: Timeouts = PATIENCE, **settings: Any) -> Exchange:
        """One request on a transport of its own."""
        return self.all(url, [request], timeouts, **settings)[0]

    def all(
        self, url: str, requests: list[Request], timeouts: Timeouts = PATIENCE, *, at_once: int = 64, **settings: Any
    ) -> list[Exchange]:
        """Many requests on one transport, so many at once; in order."""

        async def work() -> list[Exchange]:
            transport = self.open(url, timeouts, **settings)
            slots = asyncio.Semaphore(at_once)

            async def slot(request: Request) -> Exchange:
                async with slots:
                    return await send(transport, request)

            try:
                return await asyncio.gather(*(slot(request) for request in requests))
            finally:
                await transport.close()

        return self.run(work())


CARRIERS = [Carrier(name, loop, "arrival") for name in sorted(TRANSPORTS) for loop in ("uvloop", "asyncio")]
CARRIERS.append(Carrier("aiohttp", "uvloop", "wake"))


def ask(
    script: Any = None, *, dialect: str = "chat", stream: bool = True, choices: int = 1, body: bytes = b"{}", method: str = "POST"
) -> Request:
    """A request whose answer is this script's."""
    headers = (script.header,) if script is not None else ()
    return Request(DIALECTS[dialect], body, stream=stream, choices=choices, headers=headers, method=method)


class Sent:
    """A request under way; await `ended`."""

    def __init__(self, transport: Transport, request: Request, **settings: Any) -> None:
        self.exchange = Exchange(request, time.perf_counter_ns(), **settings)
        self.ended: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        starting = True

        def done(exchange: Exchange) -> None:
            assert not starting, "done was called from inside start"
            assert exchange is self.exchange
            assert exchange.outcome is not None
            self.ended.set_result(exchange)  # raises when it is called twice

        self.flight: Flight = transport.start(request, self.exchange, done)
        starting = False


async def send(transport: Transport, request: Request, **settings: Any) -> Exchange:
    return await Sent(transport, request, **settings).ended


async def until(condition: Callable[[], object], patience_s: float = 10.0) -> None:
    """Polls, with a deadline, for what another thread does."""
    deadline_ns = time.perf_counter_ns() + int(patience_s * 1e9)
    while not condition():
        assert time.perf_counter_ns() < deadline_ns, "waited in vain"
        await asyncio.sleep(0.001)
