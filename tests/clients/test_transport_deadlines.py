"""What every transport must make of time: each deadline has its outcome, and what had arrived is kept."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

from carriers import Carrier, ask
from servers.chaos import EVENT, STALL, STOP, STREAM_HEAD, ChaosServer, chunked

from clients.endpoint import Timeouts
from clients.errors import Outcome, RequestError
from clients.exchange import Exchange
from clients.transport import Watch

# A deadline that passes soon, in a table with those that do not.
SOON_S = 0.15
DEADLINES = [
    ("no byte at all", (STALL,), {"first_byte_s": SOON_S}, Outcome.FIRST_BYTE_TIMEOUT),
    ("a head and no byte of the body", (STREAM_HEAD, STALL), {"first_byte_s": SOON_S}, Outcome.FIRST_BYTE_TIMEOUT),
    ("a token, then silence", (STREAM_HEAD + chunked(EVENT, end=False), STALL), {"stall_s": SOON_S}, Outcome.STALL_TIMEOUT),
    ("a drip", (STREAM_HEAD, *[chunked(b":\n", end=False), 0.01] * 500), {"total_s": SOON_S, "stall_s": 5}, Outcome.TOTAL_TIMEOUT),
    ("comments for ever", (STREAM_HEAD, *[chunked(b": ping\n\n", end=False), 0.001] * 5000), {"total_s": SOON_S}, Outcome.TOTAL_TIMEOUT),
    (
        "a drip faster than the stall",
        (STREAM_HEAD, *[chunked(EVENT, end=False), 0.02] * 20, chunked(b"data: " + STOP + b"\n\n")),
        {"stall_s": 5},
        Outcome.OK,
    ),
]


def test_each_deadline_has_its_outcome(chaos: ChaosServer, carrier: Carrier) -> None:
    """Short deadlines against a silent or slow server; what had arrived is kept, and the server sees the client go."""
    found = {}
    for what, steps, limits, _ in DEADLINES:
        script = chaos.script(*steps)
        exchange = carrier.one(
            chaos.url, ask(script), Timeouts(**{"connect_s": 20, "first_byte_s": 20, "stall_s": 20, "total_s": 20, **limits})
        )
        found[what] = exchange.outcome
        limit_s = min(limits.values())
        if exchange.outcome is not Outcome.OK:
            assert f"{limit_s:g} s" in str(exchange.error)
            assert exchange.end_ns - exchange.due_ns >= limit_s * 1e9
    assert found == {what: outcome for what, _, _, outcome in DEADLINES}


def test_a_reconnect_has_its_own_time_to_connect() -> None:
    """A connection that dies late leaves the full deadline for the next one; the total goes on counting from the start."""

    class Flight:
        exchange = Exchange(ask(), 0)
        read_ns = 0
        stopped: RequestError | None = None

        def stop(self, cause: RequestError) -> None:
            self.stopped = cause

    async def work() -> None:
        flight, timeouts = Flight(), Timeouts(connect_s=10, first_byte_s=20, total_s=1000)
        watch = Watch(asyncio.get_running_loop(), timeouts, timeouts.shortest_s, flight)
        began_ns, outcome, _ = watch._deadline()
        assert outcome is Outcome.CONNECT_TIMEOUT
        flight.exchange.sent_ns = began_ns
        assert watch._deadline()[:2] == (began_ns + 20_000_000_000, Outcome.FIRST_BYTE_TIMEOUT)
        watch.reconnect()
        again_ns, outcome, _ = watch._deadline()
        assert (outcome, flight.exchange.sent_ns) == (Outcome.CONNECT_TIMEOUT, 0)
        assert again_ns > began_ns
        watch.stop()

    asyncio.run(work())


def test_a_listener_that_accepts_nobody_is_a_connect_timeout(carrier: Carrier) -> None:
    """Its backlog is full, so our SYN is dropped: no refusal, no connection, nothing was sent."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as listener:
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        exchange = carrier.one(f"http://127.0.0.1:{address[1]}", ask(), Timeouts(connect_s=SOON_S))
        for one in waiting:
            one.close()
    assert (exchange.outcome, exchange.sent_ns) == (Outcome.CONNECT_TIMEOUT, 0)
