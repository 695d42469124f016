"""What is aiohttp's own: the seam that stamps arrivals and its fallback, the table of its exceptions, and what it is kept from doing."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
from time import perf_counter_ns

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import BadHttpMessage
from carriers import KEY, PATIENCE, Carrier, Sent, ask, send, until
from servers.chaos import EVENT, GOOD, STALL, STOP, STREAM_HEAD, ChaosServer, answer, chunked

from clients import aiohttp_transport
from clients.aiohttp_errors import FAILURES, error_of
from clients.aiohttp_transport import AiohttpTransport
from clients.endpoint import Endpoint
from clients.errors import Outcome, UsageError
from clients.transport import idle_limit_s
from clients.transports import TRANSPORTS, open_transport

ARRIVAL = Carrier("aiohttp", "uvloop", "arrival")
WAKE = Carrier("aiohttp", "uvloop", "wake")


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    ARRIVAL.prepare(monkeypatch)


@pytest.mark.parametrize("wanted", [ARRIVAL, WAKE], ids=["arrival", "wake"])
def test_reads_are_taken_in_the_protocols_callback_or_the_report_says_where(
    chaos: ChaosServer, monkeypatch: pytest.MonkeyPatch, wanted: Carrier
) -> None:
    """With the seam a listener hears outside of any task, from the read itself; without it, inside the reader's task."""
    wanted.prepare(monkeypatch)
    script = chaos.script(
        STREAM_HEAD + chunked(EVENT, end=False), 0.01, chunked(EVENT, end=False), 0.01, chunked(b"data: " + STOP + b"\n\n")
    )
    heard_in: list[bool] = []

    async def work() -> str:
        transport = wanted.open(chaos.url)
        sent = Sent(transport, ask(script))
        sent.exchange.answer.listener = lambda _: heard_in.append(asyncio.current_task() is not None)
        assert (await sent.ended).ok
        await transport.close()
        return transport.stamping

    assert wanted.run(work()) == wanted.stamping
    assert heard_in == [wanted.stamping == "wake"] * 3


def test_a_read_is_stamped_before_it_is_parsed(chaos: ChaosServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stamp is older than aiohttp's own callback, which parses."""
    parsing_ns: list[int] = []
    parse = ResponseHandler.data_received

    def parse_later(handler: ResponseHandler, data: bytes) -> None:
        parsing_ns.append(perf_counter_ns())
        parse(handler, data)

    monkeypatch.setattr(ResponseHandler, "data_received", parse_later)
    exchange = ARRIVAL.one(chaos.url, ask(chaos.script(GOOD)))
    assert exchange.answer.first_output_ns < parsing_ns[-1] < exchange.answer.first_output_ns + 10_000_000_000


def test_a_stream_costs_one_task_and_one_timer(chaos: ChaosServer) -> None:
    """However many events it has."""
    script = chaos.script(STREAM_HEAD, *[chunked(EVENT, end=False), 0.001] * 20, STALL)
    timers: list[float] = []

    async def work() -> int:
        loop = asyncio.get_running_loop()
        transport = ARRIVAL.open(chaos.url)
        call_later = loop.call_later
        assert isinstance(transport, AiohttpTransport)

        class Counting:
            def __getattr__(self, name: str) -> object:
                return getattr(loop, name)

            def call_later(self, delay_s: float, *rest: object) -> asyncio.TimerHandle:
                timers.append(delay_s)
                return call_later(delay_s, *rest)  # type: ignore[arg-type]

        transport._loop = Counting()  # type: ignore[assignment]
        before = len(asyncio.all_tasks())
        sent = Sent(transport, ask(script))
        await until(lambda: sent.exchange.body_bytes >= 20 * len(EVENT))
        tasks = len(asyncio.all_tasks()) - before
        await transport.close()
        return tasks

    assert (ARRIVAL.run(work()), timers) == (1, [PATIENCE.connect_s])


def test_cookies_of_a_gateway_come_back_to_it(chaos: ChaosServer) -> None:
    """A corporate gateway may pin its session by one."""
    first, second = chaos.script(answer(b"{}", headers="set-cookie: gate=7; path=/")), chaos.script(GOOD)
    ARRIVAL.all(chaos.url.replace("127.0.0.1", "localhost"), [ask(first, stream=False), ask(second)], at_once=1)
    assert second.visits[0].header("cookie") == "gate=7"


def test_the_idle_limit_follows_the_lowest_announcement(chaos: ChaosServer) -> None:
    """4 s, or a second less than the server's own limit; it never rises again."""
    scripts = [chaos.script(answer(b"{}", headers=f"keep-alive: timeout={seconds}")) for seconds in (75, 3, 30)]

    async def work() -> list[float]:
        transport = ARRIVAL.open(chaos.url)
        assert isinstance(transport, AiohttpTransport)
        limits = []
        for script in scripts:
            await send(transport, ask(script, stream=False))
            limits.append(transport._session.connector._keepalive_timeout)  # type: ignore[union-attr]
        await transport.close()
        return limits

    assert ARRIVAL.run(work()) == [4.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("header", "limit_s"),
    [("timeout=5, max=100", 4), ("timeout=75", 4), ("max=9,Timeout=3", 2), ("timeout=1", 0), ("timeout=0", 0), ("timeout=x", 4), ("", 4)],
)
def test_a_keep_alive_header_is_read_for_its_timeout(header: str, limit_s: float) -> None:
    """With a second of margin; what cannot be read says nothing."""
    assert idle_limit_s(header) == limit_s


KEYED = aiohttp.client_reqrep.ConnectionKey("h", 1, False, True, None, None, None)


def connecting(error: OSError) -> aiohttp.ClientConnectorError:
    return aiohttp.ClientConnectorError(KEYED, error)


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (connecting(OSError(errno.EMFILE, "x")), Outcome.CLIENT_FDS),
        (connecting(OSError(errno.ENFILE, "x")), Outcome.CLIENT_FDS),
        (connecting(OSError(errno.EADDRNOTAVAIL, "x")), Outcome.CLIENT_PORTS),
        (connecting(OSError(errno.ETIMEDOUT, "x")), Outcome.CONNECT_TIMEOUT),
        (connecting(OSError(errno.EHOSTUNREACH, "x")), Outcome.CONNECT),
        (aiohttp.ClientProxyConnectionError(KEYED, OSError(errno.ECONNREFUSED, "x")), Outcome.CONNECT),
        (aiohttp.ServerDisconnectedError(), Outcome.RESET),
        (aiohttp.ClientOSError(errno.ECONNRESET, "x"), Outcome.RESET),
        (aiohttp.ClientConnectionResetError("x"), Outcome.RESET),
        (BrokenPipeError(errno.EPIPE, "x"), Outcome.RESET),
        (aiohttp.ConnectionTimeoutError(), Outcome.CONNECT_TIMEOUT),
        (aiohttp.ClientPayloadError("x"), Outcome.TRUNCATED),
        (BadHttpMessage("x"), Outcome.PROTOCOL),
        (aiohttp.InvalidURL("x"), Outcome.PROTOCOL),
        (UnicodeError("x"), Outcome.DNS),
    ],
    ids=lambda value: value.label if isinstance(value, Outcome) else type(value).__name__,
)
def test_every_exception_has_its_outcome(failure: BaseException, outcome: Outcome) -> None:
    """The one table; each message is one line."""
    assert isinstance(failure, FAILURES)
    error = error_of(failure, "host:1")
    assert error.outcome is outcome
    assert "\n" not in str(error)


def test_an_exception_that_no_table_foresees_is_logged_and_still_ends_the_exchange(
    chaos: ChaosServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `done` that never comes would hold a slot for ever."""

    async def broken(*_: object, **__: object) -> None:
        raise KeyError("unforeseen")

    logged: list[object] = []

    async def work() -> Outcome | None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context["exception"]))
        transport = ARRIVAL.open(chaos.url)
        assert isinstance(transport, AiohttpTransport)
        monkeypatch.setattr(transport, "_carry", broken)
        outcome = (await send(transport, ask())).outcome
        await transport.close()
        return outcome

    assert ARRIVAL.run(work()) is Outcome.PROTOCOL
    assert [type(exception) for exception in logged] == [KeyError]


def test_what_cannot_be_used_is_refused_when_the_transport_is_made(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate file without certificates, a proxy of another kind, a transport of no such name; no password is shown."""
    empty = tmp_path / "ca.pem"
    empty.touch()

    async def make(name: str = "aiohttp", **settings: object) -> None:
        open_transport(name, Endpoint.parse("https://h", **settings), PATIENCE)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="^ca_file: "):
        asyncio.run(make(ca_file=empty))
    with pytest.raises(UsageError, match="^transport: got 'wired', takes "):
        asyncio.run(make("wired"))
    monkeypatch.setenv("https_proxy", "socks5://user:hush@h:1")
    with pytest.raises(UsageError, match="^proxy: ") as refused:
        asyncio.run(make())
    assert "hush" not in str(refused.value)


def test_netrc_is_not_read(chaos: ChaosServer, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp with trust_env would send a password that nobody named."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password hush\n")
    monkeypatch.setenv("NETRC", str(netrc))
    script = chaos.script(GOOD)
    ARRIVAL.one(chaos.url, ask(script))
    assert script.visits[0].header("authorization") == f"Bearer {KEY}"


def test_a_repr_says_where_and_how_busy(chaos: ChaosServer) -> None:
    """And how it stamps; no key."""

    async def work() -> None:
        transport = ARRIVAL.open(chaos.url)
        assert repr(transport) == f"<AiohttpTransport {chaos.url} arrival in_flight=0>"
        await transport.close()
        assert repr(transport).endswith("closed>")

    ARRIVAL.run(work())


def test_naming_a_transport_does_not_import_it() -> None:
    """`import clients` is light: aiohttp comes with the first transport."""
    code = "import sys, clients.transports, clients.exchange; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert "aiohttp" in TRANSPORTS
    assert aiohttp_transport.AiohttpTransport.name == "aiohttp"
