"""A transport that answers from a script: what each attempt shall meet is a value, so a test reads as a table.

Knows the seam and nothing of sockets. A script's last step repeats.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson

from clients.errors import Outcome, request_error
from clients.exchange import Exchange, Request

if TYPE_CHECKING:
    from clients.transport import Done

Step = Callable[[Exchange], bool]  # what happens to an attempt; False: nothing, it hangs until it is cancelled


def chunk(text: str, finish: str | None = None) -> bytes:
    """One event of a chat stream."""
    delta = {"content": text} if text else {}
    return b"data: %b\n\n" % orjson.dumps({"id": "r1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def answers(text: str = "hi there") -> Step:
    """A whole streamed answer, a piece for each word."""

    def play(exchange: Exchange) -> bool:
        if exchange.request.dialect.name != "chat":
            return body({"data": [{"embedding": [1.0, 2.0], "index": 0}], "usage": {"prompt_tokens": 1}})(exchange)
        exchange.head(time.perf_counter_ns(), 200, {"content-type": "text/event-stream"})
        words = text.split(" ")
        for i, word in enumerate(words):
            exchange.data(time.perf_counter_ns(), chunk(word if i == 0 else f" {word}", "stop" if i == len(words) - 1 else None))
        exchange.data(time.perf_counter_ns(), b"data: [DONE]\n\n")
        exchange.finish(time.perf_counter_ns())
        return True

    return play


def body(document: object, status: int = 200, **headers: str) -> Step:
    """An answer of JSON; with a status of 400 or more a refusal."""

    def play(exchange: Exchange) -> bool:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        exchange.head(time.perf_counter_ns(), status, {"content-type": "application/json", **named})
        exchange.data(time.perf_counter_ns(), orjson.dumps(document))
        exchange.finish(time.perf_counter_ns())
        return True

    return play


def refuses(status: int, message: str = "no", **headers: str) -> Step:
    return body({"error": {"message": message}}, status, **headers)


def breaks(outcome: Outcome, after: bytes = b"") -> Step:
    """The attempt fails, after these bytes of a stream."""

    def play(exchange: Exchange) -> bool:
        if after:
            exchange.head(time.perf_counter_ns(), 200, {"content-type": "text/event-stream"})
            exchange.data(time.perf_counter_ns(), after)
        exchange.fail(time.perf_counter_ns(), request_error(outcome, outcome.label))
        return True

    return play


def says(stream: bytes) -> Step:
    """A stream of these bytes that ends in order."""

    def play(exchange: Exchange) -> bool:
        exchange.head(time.perf_counter_ns(), 200, {"content-type": "text/event-stream"})
        exchange.data(time.perf_counter_ns(), stream)
        exchange.finish(time.perf_counter_ns())
        return True

    return play


def hangs(exchange: Exchange) -> bool:
    return False


class FakeFlight:
    def __init__(self, transport: FakeTransport, exchange: Exchange, done: Done) -> None:
        self.transport = transport
        self.exchange = exchange
        self.done = done

    def play(self, step: Step) -> None:
        if self.exchange.outcome is None and step(self.exchange):
            self.end()

    def end(self) -> None:
        self.transport.in_flight.discard(self)
        self.done(self.exchange)

    def cancel(self) -> None:
        if self.exchange.outcome is None:
            self.exchange.fail(time.perf_counter_ns(), request_error(Outcome.CANCELLED, "cancelled"))
            self.transport.loop.call_soon(self.end)


class FakeTransport:
    """Plays one step for each attempt; remembers what was sent and how much was under way at once."""

    name = "fake"
    stamping = "arrival"

    def __init__(self, *script: Step) -> None:
        self.loop = asyncio.get_running_loop()
        self.script = list(script) or [answers()]
        self.sent: list[Request] = []
        self.exchanges: list[Exchange] = []
        self.in_flight: set[FakeFlight] = set()
        self.peak = 0
        self.closed = 0

    def start(self, request: Request, exchange: Exchange, done: Done) -> FakeFlight:
        self.sent.append(request)
        self.exchanges.append(exchange)
        exchange.sent_ns = time.perf_counter_ns()
        flight = FakeFlight(self, exchange, done)
        self.in_flight.add(flight)
        self.peak = max(self.peak, len(self.in_flight))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.loop.call_soon(flight.play, step)
        return flight

    async def close(self) -> None:
        self.closed += 1
