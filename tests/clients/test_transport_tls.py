"""What every transport must make of TLS and of proxies that the environment names."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from carriers import KEY, Carrier, ask
from servers.certificates import Certificate, self_signed
from servers.chaos import CLOSE, EVENT, GOOD, RESET, STALL, STOP, STREAM_HEAD, ChaosServer, Tunnel, answer, chunked

from clients.endpoint import Timeouts
from clients.errors import Outcome, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def secure(loopback_certificate: Certificate) -> Iterator[ChaosServer]:
    with ChaosServer(loopback_certificate.server_context()) as server:
        yield server


@pytest.fixture
def trusted(loopback_certificate: Certificate) -> dict[str, object]:
    return {"ca_file": loopback_certificate.file}


def test_a_trusted_server_answers_in_pieces_too(secure: ChaosServer, carrier: Carrier, trusted: dict) -> None:
    """Two requests on one connection; the reads of a stream keep their own stamps through TLS."""
    script = secure.script(STREAM_HEAD + chunked(EVENT, end=False), 0.02, chunked(b"data: " + STOP + b"\n\n"))
    first, second = carrier.all(secure.url, [ask(script), ask(script)], at_once=1, **trusted)
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.OK)
    assert first.answer.gaps_us[0] > 0
    assert script.visits[0].connection == script.visits[1].connection


def test_a_certificate_that_is_not_trusted_is_refused_unless_told_otherwise(secure: ChaosServer, carrier: Carrier) -> None:
    """Self-signed: TLS, and nothing was sent; `insecure=True` talks to it."""
    script = secure.script(GOOD)
    exchange = carrier.one(secure.url, ask(script))
    assert (exchange.outcome, exchange.sent_ns, script.visits) == (Outcome.TLS, 0, [])
    assert carrier.one(secure.url, ask(script), insecure=True).ok


def test_a_certificate_of_another_host_is_refused(carrier: Carrier, tmp_path) -> None:
    """Trusted, but not for 127.0.0.1."""
    certificate = self_signed(tmp_path, "DNS:elsewhere.test")
    with ChaosServer(certificate.server_context()) as server:
        exchange = carrier.one(server.url, ask(server.script(GOOD)), ca_file=certificate.file)
    assert exchange.outcome is Outcome.TLS
    assert KEY not in str(exchange.error)


@contextmanager
def once(speak: Callable[[socket.socket], object]) -> Iterator[str]:
    """A listener whose one connection is left to `speak`, in a thread; gives the URL."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                speak(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread.join()


def test_a_server_of_old_tls_only_is_refused(carrier: Carrier, loopback_certificate: Certificate, trusted: dict) -> None:
    """TLS 1.1 at most; it says so by an alert."""
    context = loopback_certificate.server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1

    def speak(connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True):
            pass

    with once(speak) as url:
        assert carrier.one(url, ask(), **trusted).outcome is Outcome.TLS


def test_a_server_that_speaks_no_tls_is_refused(carrier: Carrier) -> None:
    """https:// to a plain port, which answers our hello in HTTP."""
    with once(lambda connection: (connection.sendall(b"HTTP/1.1 400 This is not TLS\r\n\r\n"), connection.recv(4096))) as url:
        exchange = carrier.one(url, ask())
    assert (exchange.outcome, exchange.sent_ns) == (Outcome.TLS, 0)


def test_a_handshake_that_stalls_is_a_connect_timeout(carrier: Carrier) -> None:
    """The kernel connects, and nobody ever says hello."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        assert carrier.one(url, ask(), Timeouts(connect_s=0.2)).outcome is Outcome.CONNECT_TIMEOUT


@pytest.mark.parametrize(("end", "outcome"), [(RESET, Outcome.RESET), (CLOSE, Outcome.TRUNCATED), (STALL, Outcome.STALL_TIMEOUT)])
def test_a_stream_that_breaks_inside_tls_keeps_its_outcome(secure: ChaosServer, carrier: Carrier, trusted: dict, end, outcome) -> None:
    """As in plain text."""
    script = secure.script(STREAM_HEAD + chunked(EVENT, end=False), 0.05, end)
    exchange = carrier.one(secure.url, ask(script), Timeouts(stall_s=0.3), **trusted)
    assert (exchange.outcome, exchange.answer.events) == (outcome, 1)


def test_a_large_body_goes_through_tls(secure: ChaosServer, carrier: Carrier, trusted: dict) -> None:
    """10 MB up."""
    script = secure.script(GOOD)
    assert carrier.one(secure.url, ask(script, body=b"x" * 10_000_000), **trusted).ok
    assert len(script.visits[0].body) == 10_000_000


@pytest.fixture
def proxied(carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> Carrier:
    """A carrier that goes through proxies. One that does not must say so when it is opened, without the proxy's password."""
    if not carrier.whole_http:
        monkeypatch.setenv("http_proxy", "http://user:hush@127.0.0.1:9")
        with pytest.raises(UsageError, match="^transport: wire cannot .* proxy.*; takes aiohttp$") as refused:
            carrier.one("http://models.invalid/v1", ask())
        assert "hush" not in str(refused.value)
        pytest.skip("goes through no proxy, and said so")
    return carrier


def test_a_proxy_is_given_the_whole_url(chaos: ChaosServer, proxied: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    """http_proxy: the request goes to the proxy, its name is not looked up here, and the proxy's password goes along."""
    monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{chaos.port}")
    script = chaos.script(GOOD)
    assert proxied.one("http://models.invalid/v1", ask(script)).ok
    visit = script.visits[0]
    assert visit.head.startswith(b"POST http://models.invalid/v1/chat/completions HTTP/1.1\r\n")
    assert visit.header("proxy-authorization") == "Basic dXNlcjpwYXNz"


def test_no_proxy_is_respected(chaos: ChaosServer, carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that no_proxy names is asked directly."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    script = chaos.script(GOOD)
    assert carrier.one(chaos.url, ask(script)).ok
    assert script.visits[0].head.startswith(b"POST /v1/")


def test_tls_goes_through_a_proxys_tunnel(secure: ChaosServer, proxied: Carrier, trusted: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """https_proxy: CONNECT without our key, then TLS to the server itself; the stream is stamped as ever."""
    with ChaosServer() as proxy:
        connect = proxy.default(Tunnel(secure.port))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        script = secure.script(STREAM_HEAD + chunked(EVENT, end=False), 0.02, chunked(b"data: " + STOP + b"\n\n"))
        exchange = proxied.one(secure.url, ask(script), **trusted)
        assert exchange.outcome is Outcome.OK, exchange.error
        assert exchange.answer.gaps_us[0] > 0
        assert connect.visits[0].head.startswith(f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1\r\n".encode())
        assert KEY.encode() not in connect.visits[0].head


def test_a_proxy_that_refuses_a_tunnel_or_is_not_there_is_a_connect_failure(
    secure: ChaosServer, chaos: ChaosServer, proxied: Carrier, trusted: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """407, and nobody listening; the proxy's password is in no message."""
    chaos.default(answer(b"", status="407 Proxy Authentication Required"))
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        unused = listener.getsockname()[1]
    for port in (chaos.port, unused):
        monkeypatch.setenv("https_proxy", f"http://user:hush@127.0.0.1:{port}")
        exchange = proxied.one(secure.url, ask(secure.script(GOOD)), **trusted)
        assert exchange.outcome is Outcome.CONNECT
        assert "hush" not in str(exchange.error)
