"""What is `wire`'s own: connections kept and opened ahead, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from carriers import PATIENCE, Carrier, Sent, ask, send, until
from servers.chaos import CLOSE, EVENT, GOOD, STALL, STREAM_HEAD, ChaosServer, chunked

from clients import wire_pool
from clients.endpoint import Endpoint, Timeouts
from clients.errors import Outcome, UsageError
from clients.wire import WireTransport, wire_can

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clients.exchange import Exchange


WIRE = Carrier("wire", "uvloop", "arrival")


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    WIRE.prepare(monkeypatch)


# ---- connections -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def alone() -> Iterator[ChaosServer]:
    """A server that nobody else has connections to."""
    with ChaosServer() as server:
        yield server


def test_connections_opened_ahead_are_the_ones_used(alone: ChaosServer) -> None:
    """`open(5)` makes five before any request; five requests at once make no more."""
    script = alone.script(0.05, GOOD)

    async def work() -> None:
        transport = WIRE.open(alone.url)
        assert isinstance(transport, WireTransport)
        assert await transport.open(5) == 5
        assert repr(transport.pool) == f"<ConnectionPool 127.0.0.1:{alone.port} open=5 idle=5>"
        await until(lambda: alone.accepted == 5)
        assert all([(await sent.ended).ok for sent in [Sent(transport, ask(script)) for _ in range(5)]])
        assert alone.accepted == 5
        await transport.close()

    WIRE.run(work())


def test_opening_ahead_where_nobody_listens_is_left_to_the_requests() -> None:
    """It says how many are open, and raises nothing."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]

    async def work() -> int:
        transport = WIRE.open(f"http://127.0.0.1:{port}/v1")
        assert isinstance(transport, WireTransport)
        opened = await transport.open(100)
        await transport.close()
        return opened

    assert WIRE.run(work()) == 0


def test_the_connection_used_last_is_taken_first_and_the_others_are_closed(alone: ChaosServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at once, then one after the other: always the same one, while the two others idle out."""
    monkeypatch.setattr(wire_pool, "IDLE_LIMIT_S", 0.3)
    script = alone.script(GOOD)

    async def work() -> list[int]:
        transport = WIRE.open(alone.url)
        assert isinstance(transport, WireTransport)
        for sent in [Sent(transport, ask(script)) for _ in range(3)]:
            await sent.ended
        while len(alone.open) > 1:
            assert (await send(transport, ask(script))).ok
        await until(lambda: "idle=1" in repr(transport.pool))
        await until(lambda: "open=0 idle=0" in repr(transport.pool))  # at last it idles too
        await transport.close()
        return [visit.connection for visit in script.visits[3:]]

    assert len(set(WIRE.run(work()))) == 1


def test_an_idle_connection_that_the_server_closes_is_forgotten(chaos: ChaosServer) -> None:
    """No request finds it."""
    first, second = chaos.script(GOOD, 0.01, CLOSE), chaos.script(GOOD)

    async def work() -> int:
        transport = WIRE.open(chaos.url)
        assert isinstance(transport, WireTransport)
        await send(transport, ask(first))
        await until(lambda: "open=0" in repr(transport.pool))
        exchange = await send(transport, ask(second))
        await transport.close()
        return exchange.reconnects

    assert WIRE.run(work()) == 0


def resolved(port: int, *hosts: str) -> list:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]


def test_a_name_is_looked_up_once_and_each_of_its_addresses_is_tried(chaos: ChaosServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address refuses: the second serves this request and is asked first by the next."""
    asked: list[tuple] = []
    tried: list[str] = []
    script = chaos.script(GOOD, 0.0, CLOSE)

    async def work() -> None:
        transport = WIRE.open(f"http://models.test:{chaos.port}/v1")
        assert isinstance(transport, WireTransport)
        pool = transport.pool
        loop = asyncio.get_running_loop()

        class Named:
            def __getattr__(self, name: str):
                return getattr(loop, name)

            async def getaddrinfo(self, host: str, port: int, **_: object) -> list:
                asked.append((host, port))
                return resolved(port, "127.0.0.2", "127.0.0.1")

            async def sock_connect(self, connected: socket.socket, address: tuple) -> None:
                tried.append(address[0])
                await loop.sock_connect(connected, address)

        monkeypatch.setattr(pool, "_loop", Named())
        for sent in [Sent(transport, ask(script)) for _ in range(2)]:
            assert (await sent.ended).ok
        del tried[:]
        await until(lambda: "open=0" in repr(pool))
        assert (await send(transport, ask(script))).ok
        await transport.close()

    WIRE.run(work())
    assert (asked, tried) == ([("models.test", chaos.port)], ["127.0.0.1"])
    assert script.visits[0].header("host") == f"models.test:{chaos.port}"


def test_a_look_up_that_failed_is_made_again(chaos: ChaosServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request finds the name."""
    answers: list = [socket.gaierror(socket.EAI_AGAIN, "try again"), resolved(chaos.port, "127.0.0.1")]
    script = chaos.script(GOOD)

    async def work() -> list[Outcome | None]:
        transport = WIRE.open(f"http://models.test:{chaos.port}/v1")
        assert isinstance(transport, WireTransport)
        loop = asyncio.get_running_loop()

        class Named:
            def __getattr__(self, name: str):
                return getattr(loop, name)

            async def getaddrinfo(self, *_: object, **__: object) -> list:
                found = answers.pop(0)
                if isinstance(found, Exception):
                    raise found
                return found

        monkeypatch.setattr(transport.pool, "_loop", Named())
        outcomes = [(await send(transport, ask(script))).outcome for _ in range(2)]
        await transport.close()
        return outcomes

    assert WIRE.run(work()) == [Outcome.DNS, Outcome.OK]


def test_an_ipv6_literal_is_an_address() -> None:
    """In brackets, as a URL has it."""
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with listener:
        port = listener.getsockname()[1]

        async def work() -> tuple[Exchange, bytes]:
            transport = WIRE.open(f"http://[::1]:{port}/v1", Timeouts(connect_s=20))
            listener.setblocking(False)
            sent = Sent(transport, ask())
            loop = asyncio.get_running_loop()
            server, _ = await loop.sock_accept(listener)
            with server:
                head = await loop.sock_recv(server, 4096)
                await loop.sock_sendall(server, GOOD)
                exchange = await sent.ended
            await transport.close()
            return exchange, head

        exchange, head = WIRE.run(work())
    assert exchange.ok
    assert f"\r\nHost: [::1]:{port}\r\n".encode() in head


def test_a_request_costs_no_task_and_one_timer(chaos: ChaosServer) -> None:
    """On a connection that is there; reads cost neither."""
    script = chaos.script(STREAM_HEAD, *[chunked(EVENT, end=False), 0.001] * 20, STALL)
    timers: list[float] = []

    async def work() -> int:
        transport = WIRE.open(chaos.url)
        assert isinstance(transport, WireTransport)
        await transport.open(1)
        loop = asyncio.get_running_loop()

        class Counting:
            def __getattr__(self, name: str):
                return getattr(loop, name)

            def call_later(self, delay_s: float, *rest: object) -> asyncio.TimerHandle:
                timers.append(delay_s)
                return loop.call_later(delay_s, *rest)

        transport.loop = Counting()  # type: ignore[assignment]
        before = len(asyncio.all_tasks())
        sent = Sent(transport, ask(script))
        await until(lambda: sent.exchange.body_bytes >= 20 * len(EVENT))
        tasks = len(asyncio.all_tasks()) - before
        await transport.close()
        return tasks

    assert (WIRE.run(work()), timers) == (0, [PATIENCE.connect_s])


# ---- what it refuses -------------------------------------------------------------------------------------------------------------


def test_what_it_cannot_carry_is_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment, unless no_proxy names the host, and a host name outside ASCII; else nothing."""
    assert wire_can(Endpoint.parse("http://127.0.0.1/v1")) == ""
    assert "ASCII" in wire_can(Endpoint.parse("http://bücher.test/v1"))
    monkeypatch.setenv("all_proxy", "socks5://user:hush@h:1")
    assert wire_can(Endpoint.parse("https://models.test/v1")) == "the environment names a proxy for it"
    monkeypatch.setenv("no_proxy", "models.test")
    assert wire_can(Endpoint.parse("https://models.test/v1")) == ""


def test_a_certificate_file_without_certificates_is_refused(tmp_path) -> None:
    """When the transport is made."""
    empty = tmp_path / "ca.pem"
    empty.touch()

    async def make() -> None:
        WIRE.open("https://h/v1", ca_file=empty)

    with pytest.raises(UsageError, match="^ca_file: "):
        asyncio.run(make())


def test_insecure_trusts_anybody_and_nothing_else_does() -> None:
    """The contexts themselves."""

    async def made(**settings: object) -> ssl.SSLContext | None:
        transport = WIRE.open("https://h/v1", **settings)
        assert isinstance(transport, WireTransport)
        return transport.pool._tls

    strict, lax = asyncio.run(made()), asyncio.run(made(insecure=True))
    assert strict is not None
    assert lax is not None
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)


def test_a_repr_says_where_and_how_busy(chaos: ChaosServer) -> None:
    """No key."""

    async def work() -> None:
        transport = WIRE.open(chaos.url)
        assert repr(transport) == f"<WireTransport {chaos.url} in_flight=0>"
        await transport.close()
        assert repr(transport).endswith("closed>")

    WIRE.run(work())
