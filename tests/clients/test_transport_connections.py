"""What every transport must make of connections: reuse, the keep-alive race, cancelling, and the limits of this machine."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from contextlib import closing

import pytest
from carriers import PATIENCE, Carrier, Sent, ask, send, until
from servers.chaos import CLOSE, DEAF, EVENT, GOOD, HEAR, RESET, STALL, STREAM_HEAD, ChaosServer, answer, chunked

from clients.errors import Outcome


def in_turn(carrier: Carrier, url: str, *requests, pause_s: float = 0.0) -> list:
    """One request after the other on one transport."""

    async def work() -> list:
        transport = carrier.open(url)
        try:
            exchanges = []
            for request in requests:
                exchanges.append(await send(transport, request))
                await asyncio.sleep(pause_s)
            return exchanges
        finally:
            await transport.close()

    return carrier.run(work())


def test_a_connection_is_used_again(chaos: ChaosServer, carrier: Carrier) -> None:
    """Three requests in a row share one connection, after refusals and answers without a body too."""
    scripts = [chaos.script(GOOD), chaos.script(answer(b"{}", status="400 X")), chaos.script(b"HTTP/1.1 204 X\r\n\r\n"), chaos.script(GOOD)]
    in_turn(carrier, chaos.url, *map(ask, scripts))
    assert len({script.visits[0].connection for script in scripts}) == 1


def test_a_connection_is_not_used_longer_than_the_server_announced(chaos: ChaosServer, carrier: Carrier) -> None:
    """`Keep-Alive: timeout=1` leaves nothing of the second of margin, so each request has a connection of its own."""
    script = chaos.script(answer(b"{}", status="400 X", headers="keep-alive: timeout=1, max=100"))
    in_turn(carrier, chaos.url, *[ask(script)] * 3, pause_s=0.01)
    assert len({visit.connection for visit in script.visits}) == 3


def test_a_reused_connection_that_dies_without_a_byte_is_replaced_once(chaos: ChaosServer, carrier: Carrier) -> None:
    """The server closes an idle connection as we send: the request goes out once more, on a fresh connection, and that is counted."""
    for death in (CLOSE, RESET):
        first, second = chaos.script(GOOD), chaos.script(rounds=((death,), (GOOD,)))
        _, exchange = in_turn(carrier, chaos.url, ask(first), ask(second, body=b'{"n":1}'))
        assert (exchange.outcome, exchange.reconnects) == (Outcome.OK, 1)
        assert [visit.body for visit in second.visits] == [b'{"n":1}'] * 2
        assert first.visits[0].connection == second.visits[0].connection != second.visits[1].connection
        assert exchange.sent_ns > second.visits[0].first_byte_ns  # sent is the last hand-over


def test_a_replacement_that_dies_too_is_not_replaced(chaos: ChaosServer, carrier: Carrier) -> None:
    """One reconnect, then RESET."""
    first, second = chaos.script(GOOD), chaos.script(CLOSE)
    _, exchange = in_turn(carrier, chaos.url, ask(first), ask(second))
    assert (exchange.outcome, exchange.reconnects, len(second.visits)) == (Outcome.RESET, 1, 2)


def test_a_fresh_connection_that_dies_is_a_reset(chaos: ChaosServer, carrier: Carrier) -> None:
    """The server saw the request, so it is not sent again."""
    script = chaos.script(RESET)
    exchange = carrier.one(chaos.url, ask(script))
    assert (exchange.outcome, exchange.reconnects, len(script.visits)) == (Outcome.RESET, 0, 1)


def test_a_reused_connection_that_dies_within_its_answer_is_not_replaced(chaos: ChaosServer, carrier: Carrier) -> None:
    """An answer that had begun is broken, not raced; half a head is a beginning too, where reads are seen before they are parsed."""
    cuts = [(len(STREAM_HEAD) + 8, Outcome.TRUNCATED)]
    if carrier.stamping == "arrival":
        cuts.append((30, Outcome.RESET))
    for cut, outcome in cuts:
        first, second = chaos.script(GOOD), chaos.script(GOOD[:cut], 0.02, CLOSE)
        _, exchange = in_turn(carrier, chaos.url, ask(first), ask(second))
        assert (exchange.outcome, exchange.reconnects, len(second.visits)) == (outcome, 0, 1)


def test_an_answer_that_nobody_asked_for_reaches_no_request(chaos: ChaosServer, carrier: Carrier) -> None:
    """A server that sends a second answer on an idle connection: the next request gets its own."""
    first = chaos.script(GOOD, 0.005, answer(b"{}", status="418 X"))
    second = chaos.script(GOOD)
    _, exchange = in_turn(carrier, chaos.url, ask(first), ask(second), pause_s=0.05)
    if carrier.stamping == "arrival":  # aiohttp alone hands the stray answer to the next request
        assert exchange.outcome is Outcome.OK


def test_redirects_are_refused_and_the_key_goes_nowhere_else(chaos: ChaosServer, carrier: Carrier) -> None:
    """No redirect of a POST is followed, to another host or the same; the message says where to, without the query."""
    elsewhere = chaos.default(GOOD)
    script = chaos.script(answer(status="307 X", headers=f"location: {chaos.url}/chat/completions?token=secret"))
    exchange = carrier.one(chaos.url, ask(script))
    assert exchange.outcome is Outcome.REDIRECTED
    assert chaos.url in str(exchange.error)
    assert "secret" not in str(exchange.error)
    assert elsewhere.visits == []


def test_headers_say_who_asks(chaos: ChaosServer, carrier: Carrier) -> None:
    """The key as bearer token, the endpoint's headers, JSON in, no compression out; the host is named as typed."""
    script = chaos.script(GOOD)
    carrier.one(chaos.url, ask(script, body=b'{"a":1}'), headers={"X-Team": "blue"})
    visit = script.visits[0]
    assert visit.head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    names = ("authorization", "x-team", "content-type", "accept-encoding", "content-length", "host")
    expected = ["Bearer sk-do-not-show-this", "blue", "application/json", "identity", "7", f"127.0.0.1:{chaos.port}"]
    assert [visit.header(name) for name in names] == expected


def test_a_get_carries_no_body(chaos: ChaosServer, carrier: Carrier) -> None:
    """The seam serves the routes that only ask, such as /models."""
    script = chaos.script(answer(b"{}"))
    carrier.one(chaos.url, ask(script, stream=False, method="GET", body=b""))
    assert script.visits[0].head.startswith(b"GET /v1/chat/completions ")


def test_sent_is_when_a_connection_had_the_request(chaos: ChaosServer, carrier: Carrier) -> None:
    """due ≤ sent ≤ the server's first byte ≤ our first byte: one clock for all of them."""
    script = chaos.script(GOOD)
    exchange = carrier.one(chaos.url, ask(script))
    assert exchange.due_ns <= exchange.sent_ns <= script.visits[0].first_byte_ns <= exchange.first_byte_ns


def test_a_large_request_reaches_a_slow_reader_whole(chaos: ChaosServer, carrier: Carrier) -> None:
    """10 MB to a server that begins to read late: the loop is not blocked meanwhile, and every byte arrives."""
    body = os.urandom(10_000_000)
    slow = chaos.script(DEAF, 0.1, HEAR, 0.1, GOOD, at_head=True)
    quick = chaos.script(GOOD)
    whole = chaos.script(GOOD)

    async def work() -> None:
        transport = carrier.open(chaos.url)
        upload = Sent(transport, ask(slow, body=body))
        assert (await send(transport, ask(quick))).ok
        assert not upload.ended.done()
        await upload.ended
        assert (await send(transport, ask(whole, body=body))).ok
        await transport.close()

    carrier.run(work())
    assert whole.visits[0].body == body


def test_a_refusal_of_a_large_request_is_heard_while_it_is_sent(chaos: ChaosServer, carrier: Carrier) -> None:
    """A server that answers 413 to the head and hears the rest: the refusal is the outcome."""
    script = chaos.script(answer(b"{}", status="413 X"), at_head=True)
    exchange = carrier.one(chaos.url, ask(script, body=b"x" * 10_000_000))
    assert (exchange.outcome, exchange.status) == (Outcome.BAD_REQUEST, 413)


CANCELS = [
    ("before its first step", (STALL,), None),
    ("before the head", (STALL,), lambda sent, script: script.visits),
    ("after the head", (STREAM_HEAD, STALL), lambda sent, script: sent.exchange.status),
    (
        "mid-stream",
        (STREAM_HEAD, *[chunked(EVENT, end=False), 0.001] * 5000),
        lambda sent, script: sent.exchange.body_bytes > 5 * len(EVENT),
    ),
]


@pytest.mark.parametrize(("steps", "when"), [(steps, when) for _, steps, when in CANCELS], ids=[name for name, _, _ in CANCELS])
def test_a_cancelled_request_ends_cancelled_and_leaves_the_server(chaos: ChaosServer, carrier: Carrier, steps, when) -> None:
    """Whenever it is cancelled; twice is once; the server sees the client go; the transport serves on."""
    script, after = chaos.script(*steps), chaos.script(GOOD)

    async def work() -> None:
        transport = carrier.open(chaos.url)
        sent = Sent(transport, ask(script))
        if when is not None:
            await until(lambda: when(sent, script))
        sent.flight.cancel()
        sent.flight.cancel()
        exchange = await sent.ended
        sent.flight.cancel()
        assert exchange.outcome is Outcome.CANCELLED
        if script.visits:
            await until(lambda: script.visits[0].aborted)
        assert (await send(transport, ask(after))).ok
        await transport.close()

    carrier.run(work())


def test_a_cancelled_upload_is_dropped_at_once(chaos: ChaosServer, carrier: Carrier) -> None:
    """What is left of 10 MB is not sent first: to a server that does not read, that would be never."""
    script = chaos.script(DEAF, STALL, at_head=True)

    async def work() -> None:
        transport = carrier.open(chaos.url)
        sent = Sent(transport, ask(script, body=b"x" * 10_000_000))
        await until(lambda: script.visits)
        sent.flight.cancel()
        assert (await sent.ended).outcome is Outcome.CANCELLED
        await transport.close()
        assert chaos.port not in open_sockets()

    carrier.run(work())


def open_sockets() -> list[int]:
    """The remote ports of this process's connected sockets that are ours to write to."""
    ports = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
            if not target.startswith("socket:"):
                continue
            with closing(socket.socket(fileno=os.dup(int(name)))) as connected:
                if connected.family == socket.AF_INET:
                    ports.append(connected.getpeername()[1])
        except OSError:  # closed meanwhile, or it listens
            continue
    return ports


def test_closing_cancels_what_is_under_way_and_leaves_no_socket(chaos: ChaosServer, carrier: Carrier) -> None:
    """`close` waits for every `done`; a closed transport starts nothing; closing twice is closing."""
    script = chaos.script(STREAM_HEAD, STALL)

    async def work() -> None:
        transport = carrier.open(chaos.url)
        sents = [Sent(transport, ask(script)) for _ in range(5)]
        await until(lambda: len(script.visits) == 5)
        await transport.close()
        assert [sent.ended.result().outcome for sent in sents] == [Outcome.CANCELLED] * 5
        assert chaos.port not in open_sockets()
        with pytest.raises(RuntimeError, match="closed"):
            Sent(transport, ask(script))
        await transport.close()

    carrier.run(work())


def test_a_port_where_nobody_listens_refuses(carrier: Carrier) -> None:
    """Refused at once, and named."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    exchange = carrier.one(f"http://127.0.0.1:{port}/v1", ask())
    assert exchange.outcome is Outcome.CONNECT
    assert f"127.0.0.1:{port}" in str(exchange.error)


def test_a_host_without_an_address_is_a_dns_failure(carrier: Carrier) -> None:
    """A label of 70 letters: no resolver asks the network for it."""
    exchange = carrier.one(f"http://{'x' * 70}.invalid/v1", ask())
    assert (exchange.outcome, exchange.sent_ns) == (Outcome.DNS, 0)


def test_no_file_descriptor_left_is_our_fault(chaos: ChaosServer, carrier: Carrier) -> None:
    """EMFILE while connecting is CLIENT_FDS, and the next request, when there is one again, works."""
    script = chaos.script(GOOD)

    async def work() -> list:
        transport = carrier.open(chaos.url)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            starved = await send(transport, ask(script))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        fed = await send(transport, ask(script))
        await transport.close()
        return [starved.outcome, fed.outcome]

    assert carrier.run(work()) == [Outcome.CLIENT_FDS, Outcome.OK]


def test_hundreds_at_once_each_have_a_connection(chaos: ChaosServer, carrier: Carrier) -> None:
    """No pool limit holds requests back: all 150 are at the server before the first is answered."""
    gate = time.perf_counter_ns()
    script = chaos.script(0.5, GOOD)
    exchanges = carrier.all(chaos.url, [ask(script)] * 150, PATIENCE, at_once=150)
    assert [exchange.outcome for exchange in exchanges] == [Outcome.OK] * 150
    assert len({visit.connection for visit in script.visits}) == 150
    assert max(visit.first_byte_ns for visit in script.visits) < min(exchange.first_byte_ns for exchange in exchanges)
    assert min(exchange.sent_ns for exchange in exchanges) > gate
