"""What every transport must make of what servers send: recorded answers whole and in pieces, and every fault of an HTTP answer.

One suite for all transports (`carriers.CARRIERS`); none is named here. One that decodes no encoded body refuses rows 56 as BAD_CONTENT.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import zlib

import pytest
from carriers import CARRIERS, KEY, Carrier, Sent, ask
from recordings import WIRE, dialect_name, load, play, said, streams
from servers.chaos import CLOSE, RESET, STREAM_HEAD, ChaosServer, Step, answer, chunked, pieces, stream

from clients import exchange as exchange_module
from clients.dialects import DIALECTS, refusal
from clients.errors import Outcome

STREAMS = [name for folder in ("vllm", "vllm-vl", "written") for name in streams(folder)]
OTHERS = sorted({str(path.relative_to(WIRE))[: -len(".http")] for path in WIRE.rglob("*.http")} - set(STREAMS))

HELLO = b'{"id":"a","model":"m","choices":[{"index":0,"delta":{"content":"Hello"}}]}'
WORLD = b'{"id":"a","model":"m","choices":[{"index":0,"delta":{"content":" world"}}]}'
STOP = b'{"id":"a","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
BROKEN = b'{"error":{"message":"engine died","type":"InternalServerError","code":500}}'
DONE = b"[DONE]"
BODY = b'{"id":"a","model":"m","choices":[{"index":0,"message":{"content":"Hello"},"finish_reason":"stop"}]}'
GZIP = "content-type: application/json\ncontent-encoding: gzip"
GZIP_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"


def choices_of(name: str) -> int:
    return 2 if "n2" in name or "2prompts" in name else 1


def test_every_recorded_stream_is_read_the_same_however_it_is_cut(chaos: ChaosServer, carrier: Carrier) -> None:
    """Each recorded stream, whole and cut at seeded random places, says what decoding its body at once says."""
    places = random.Random(7)
    requests, expected = [], []
    for name in STREAMS:
        recorded = load(name)
        dialect = DIALECTS[dialect_name(name)]
        events = [event + b"\n\n" for event in recorded.body.split(b"\n\n") if event]
        whole = STREAM_HEAD + chunked(*events)
        told = said(play(dialect, [recorded.body]))
        finished = len(told["finish"]) >= choices_of(name)
        for cuts in ((), *(places.sample(range(len(whole)), 4) for _ in range(4))):
            script = chaos.script(*pieces(whole, *cuts))
            requests.append(ask(script, dialect=dialect.name, choices=choices_of(name)))
            expected.append((name, told, finished))
    for exchange, (name, told, finished) in zip(carrier.all(chaos.url, requests), expected, strict=True):
        if exchange.answer.error is not None:
            told["done"] = False  # what follows an error is not read, [DONE] neither
        assert said(exchange.answer) == told, name
        assert exchange.ok == (finished and exchange.answer.error is None), name


def test_a_short_stream_is_read_the_same_from_every_split_point(chaos: ChaosServer, carrier: Carrier) -> None:
    """One cut at each byte, inside the head, chunk sizes, events and the end."""
    whole = stream(HELLO, STOP, DONE)
    requests = [ask(chaos.script(*pieces(whole, cut))) for cut in range(1, len(whole))]
    for cut, exchange in enumerate(carrier.all(chaos.url, requests), start=1):
        assert (exchange.outcome, exchange.answer.text(), exchange.answer.events) == (Outcome.OK, "Hello", 1), cut


@pytest.mark.parametrize("name", OTHERS)
def test_every_recorded_answer_that_is_no_stream_is_judged_by_its_status_and_body(chaos: ChaosServer, name: str) -> None:
    """Refusals keep their status and the server's words; the rest is decoded. One transport: the bytes take no other path."""
    recorded = load(name)
    kind = recorded.headers.get("content-type", "")
    script = chaos.script(answer(recorded.body, status=f"{recorded.status} X", headers=f"content-type: {kind}"))
    dialect = "embeddings" if "embeddings" in name else dialect_name(name)
    exchange = CARRIERS[0].one(chaos.url, ask(script, dialect=dialect, stream=False, choices=0 if dialect == "embeddings" else 1))
    assert exchange.status == recorded.status
    if recorded.status >= 400:
        told = refusal(recorded.status, recorded.body)
        assert (exchange.outcome, str(exchange.error)) == (told.outcome, str(told))
    else:
        assert exchange.outcome is (Outcome.UNFINISHED if name.endswith("models") else Outcome.OK)


GOOD = stream(HELLO, WORLD, STOP, DONE)

# What the server does to a streamed request, and the outcome. Numbers are rows of the project's list of faults.
STREAM_FAULTS: list[tuple[str, tuple[Step, ...], Outcome]] = [
    ("42 reset before the head", (RESET,), Outcome.RESET),
    ("42 end before the head", (CLOSE,), Outcome.RESET),
    ("42 end inside the head", (GOOD[:30], 0.01, CLOSE), Outcome.RESET),
    ("44 not HTTP", (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", CLOSE), Outcome.PROTOCOL),
    ("44 a header line of 1 MB", (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n", CLOSE), Outcome.PROTOCOL),
    ("44 200 headers", (b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(200)) + b"\r\n", CLOSE), Outcome.PROTOCOL),
    ("44 two lengths", (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", CLOSE), Outcome.PROTOCOL),
    ("45 100 Continue first", (b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,), Outcome.OK),
    ("45 103 Early Hints first, as a read of its own", (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", 0.01, GOOD), Outcome.OK),
    ("45 204", (b"HTTP/1.1 204 No Content\r\n\r\n",), Outcome.BAD_CONTENT),
    ("46 301", (answer(status="301 X", headers="location: http://127.0.0.1:1/elsewhere"),), Outcome.REDIRECTED),
    ("46 307 with a body", (answer(b"moved", status="307 X", headers="location: /v2"),), Outcome.REDIRECTED),
    ("46 308 without a location", (answer(status="308 X", headers=""),), Outcome.REDIRECTED),
    ("47 401", (answer(b'{"error":"Unauthorized"}', status="401 X"),), Outcome.UNAUTHORIZED),
    ("50 409", (answer(b"{}", status="409 X"),), Outcome.BAD_REQUEST),
    ("51 422 validation list", (answer(b'{"detail":[{"msg":"bad"}]}', status="422 X"),), Outcome.BAD_REQUEST),
    ("53 502 with a page", (answer(b"<html>", status="502 X", headers="content-type: text/html"),), Outcome.SERVER_FAILED),
    ("53 503 with 200 kB of page", (answer(b"<p>" * 70_000, status="503 X", headers="content-type: text/html"),), Outcome.OVERLOADED),
    ("54 a login page", (answer(b"<html>log in</html>", headers="content-type: text/html"),), Outcome.BAD_CONTENT),
    ("55 JSON where a stream was asked for", (answer(BODY),), Outcome.BAD_CONTENT),
    ("55 a JSON error where a stream was asked for", (answer(BROKEN),), Outcome.ERROR_IN_STREAM),
    ("56 a compressed stream", (GZIP_STREAM + chunked(gzip.compress(b"data: " + HELLO + b"\n\ndata: " + STOP + b"\n\n")),), Outcome.OK),
    ("56 not gzip", (GZIP_STREAM + chunked(b"data: " + HELLO + b"\n\n"),), Outcome.BAD_CONTENT),
    ("57 a bad chunk size", (stream(HELLO, end=False), 0.01, b"xyz\r\n", 0.5, CLOSE), Outcome.PROTOCOL),
    ("57 no last chunk", (stream(HELLO, STOP, DONE, end=False), 0.01, CLOSE), Outcome.TRUNCATED),
    ("60 CRLF", (STREAM_HEAD + chunked(b"data: " + HELLO + b"\r\n\r\ndata: " + STOP + b"\r\n\r\n"),), Outcome.OK),
    (
        "62 comments only, then events",
        (STREAM_HEAD + chunked(b": ping\n\n" * 1000, b"data: " + HELLO + b"\n\n", b"data: " + STOP + b"\n\n"),),
        Outcome.OK,
    ),
    ("65 the last event without its blank line", (STREAM_HEAD + chunked(b"data: " + HELLO + b"\n\ndata: " + STOP),), Outcome.OK),
    ("66 no [DONE] after the finish", (stream(HELLO, STOP),), Outcome.OK),
    ("66 [DONE] without a finish", (stream(HELLO, DONE),), Outcome.UNFINISHED),
    ("66 nothing in the stream", (STREAM_HEAD + chunked(),), Outcome.UNFINISHED),
    ("67 more after [DONE]", (stream(HELLO, STOP, DONE, b"{not json", BROKEN),), Outcome.OK),
    ("68 an error in the stream", (stream(HELLO, BROKEN, DONE),), Outcome.ERROR_IN_STREAM),
    ("68 an error in the stream, then a reset", (stream(HELLO, BROKEN, end=False), 0.05, RESET), Outcome.ERROR_IN_STREAM),
    ("69 an event that is no JSON", (stream(HELLO, b"{oops", STOP, DONE),), Outcome.BAD_EVENT),
    ("78 reset mid-stream", (stream(HELLO, end=False), 0.05, RESET), Outcome.RESET),
    ("78 reset after the finish", (stream(HELLO, STOP, end=False), 0.05, RESET), Outcome.RESET),
    ("78 end inside a chunk", (STREAM_HEAD + b"ff\r\ndata: ", 0.01, CLOSE), Outcome.TRUNCATED),
    ("a 429 whose body is cut", (answer(b'{"error"', status="429 X", length=900), 0.01, CLOSE), Outcome.RATE_LIMITED),
    ("a body without a length, ended in order", (b"HTTP/1.1 200 OK\r\n\r\ndata: " + STOP + b"\n\n", 0.01, CLOSE), Outcome.OK),
    ("a body without a length, ended by a reset", (b"HTTP/1.1 200 OK\r\n\r\ndata: " + STOP + b"\n\n", 0.05, RESET), Outcome.RESET),
]

PLAIN_FAULTS: list[tuple[str, tuple[Step, ...], Outcome]] = [
    ("a whole answer", (answer(BODY),), Outcome.OK),
    ("45 204", (b"HTTP/1.1 204 No Content\r\n\r\n",), Outcome.BAD_CONTENT),
    ("an empty 200", (answer(b""),), Outcome.BAD_CONTENT),
    ("54 a login page", (answer(b"<html>log in</html>", headers="content-type: text/html"),), Outcome.BAD_CONTENT),
    ("55 a stream where JSON was asked for", (GOOD,), Outcome.BAD_CONTENT),
    ("56 gzip", (answer(gzip.compress(BODY), headers=GZIP),), Outcome.OK),
    ("56 deflate", (answer(zlib.compress(BODY), headers="content-encoding: deflate"),), Outcome.OK),
    ("56 half of a gzip", (answer(gzip.compress(BODY)[:40], headers=GZIP),), Outcome.BAD_CONTENT),
    ("57 a length that is too long", (answer(BODY, length=len(BODY) + 9), 0.01, CLOSE), Outcome.TRUNCATED),
    ("57 a length that is too short", (answer(BODY[:-9]), 0.05, BODY[-9:], CLOSE), Outcome.BAD_CONTENT),
    ("78 reset inside the body", (answer(BODY, length=len(BODY) + 9), 0.05, RESET), Outcome.RESET),
    ("an error with 200", (answer(BROKEN),), Outcome.ERROR_IN_STREAM),
    ("no finish_reason", (answer(b'{"choices":[{"index":0,"message":{"content":"Hello"}}]}'),), Outcome.UNFINISHED),
]


@pytest.mark.parametrize(("streamed", "faults"), [(True, STREAM_FAULTS), (False, PLAIN_FAULTS)], ids=["stream", "plain"])
def test_each_fault_has_its_outcome(chaos: ChaosServer, carrier: Carrier, streamed: bool, faults: list) -> None:
    """The table above, all on one transport, so that one request's fault must not reach another."""
    requests = [ask(chaos.script(*steps), stream=streamed) for _, steps, _ in faults]
    exchanges = carrier.all(chaos.url, requests)
    found = {what: exchange.outcome for (what, _, _), exchange in zip(faults, exchanges, strict=True)}
    encoded = {what for what, _, _ in faults if what.startswith("56") and not carrier.whole_http}
    assert found == {what: Outcome.BAD_CONTENT if what in encoded else outcome for what, _, outcome in faults}
    for exchange in exchanges:
        assert exchange.ok == (exchange.error is None)
        assert "sk-" not in repr(exchange.error)
        assert exchange.reconnects == 0
        assert exchange.due_ns <= exchange.sent_ns <= exchange.end_ns


SECRET = "correct-horse-battery"
# Each repeats a credential: in words, in a list of findings, as code, in a page, in an event, where it redirects, as request id, cut off.
ECHOES = [
    answer(b'{"error":{"message":"bad header: Bearer %b","code":"%b"}}' % (KEY.encode(), SECRET.encode()), status="401 X"),
    answer(b'{"detail":[{"loc":["header","%b"],"msg":"no"}]}' % SECRET.encode(), status="422 X"),
    answer(b"<title>no: %b</title>" % SECRET.encode(), status="500 X", headers="content-type: text/html"),
    stream(b'{"error":{"message":"no %b","code":400}}' % SECRET.encode()),
    stream(SECRET.encode()),
    answer(status="307 X", headers=f"location: /{SECRET}"),
    answer(b"no", status="400 X", headers=f"x-request-id: {SECRET}"),
    answer(b"x" * 190 + SECRET.encode(), status="400 X", headers="content-type: text/plain"),
]


def test_what_a_server_repeats_of_the_credentials_is_masked(chaos: ChaosServer, carrier: Carrier) -> None:
    """The key and a header's value: a failure shows neither, wherever the server put it."""
    requests = [ask(chaos.script(echo)) for echo in ECHOES]
    for exchange in carrier.all(chaos.url, requests, headers={"x-token": SECRET}):
        assert exchange.error is not None
        shown = f"{exchange.error!r} {exchange.error.__dict__} {exchange.request_id} {exchange.location}"
        assert "***" in shown
        assert KEY not in shown
        assert SECRET[:6] not in shown


def test_done_is_called_when_a_loop_cancels_all_that_it_runs(chaos: ChaosServer, carrier: Carrier) -> None:
    """As asyncio.run does when the program ends under way, here just after a start: who waits for `done` must not wait forever."""

    async def work() -> None:
        before = asyncio.all_tasks()
        transport = carrier.open(chaos.url)
        sent = Sent(transport, ask(chaos.script(GOOD)))
        for task in asyncio.all_tasks() - before:
            task.cancel()
        exchange = await asyncio.wait_for(sent.ended, 10)
        assert exchange.outcome in (Outcome.CANCELLED, Outcome.OK)  # OK of a transport that has no tasks
        await transport.close()

    carrier.run(work())


def test_what_arrived_before_a_break_keeps_its_timing(chaos: ChaosServer, carrier: Carrier) -> None:
    """A stream that is reset after two tokens has both, their stamps and their gap, beside its error."""
    script = chaos.script(stream(HELLO, end=False), 0.02, chunked(b"data: " + WORLD + b"\n\n", end=False), 0.05, RESET)
    exchange = carrier.one(chaos.url, ask(script))
    assert exchange.outcome is Outcome.RESET
    assert exchange.answer.text() == "Hello world"
    assert exchange.sent_ns <= exchange.first_byte_ns <= exchange.answer.first_output_ns < exchange.answer.last_output_ns <= exchange.end_ns
    assert exchange.answer.gaps_us[0] > 0


def test_events_of_one_read_have_one_stamp_and_the_head_has_its_reads(chaos: ChaosServer, carrier: Carrier) -> None:
    """A hundred events in one write, head included: one stamp where arrivals are stamped; where the reader wakes, one for the events."""
    script = chaos.script(stream(*[HELLO] * 100, STOP, DONE))
    exchange = carrier.one(chaos.url, ask(script))
    assert exchange.answer.events == 100
    assert sum(exchange.answer.gaps_us) == 0
    if carrier.stamping == "arrival":
        assert exchange.first_byte_ns == exchange.answer.first_output_ns == exchange.end_ns


def test_large_answers_arrive_whole(chaos: ChaosServer, carrier: Carrier) -> None:
    """10 MB: in one JSON body, in one event of 5 MB, and in 40,000 events."""
    text = "x" * 10_000_000
    plain = json.dumps({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]}).encode()
    event = json.dumps({"choices": [{"index": 0, "delta": {"content": text[:5_000_000]}}]}).encode()
    scripts = [chaos.script(answer(plain)), chaos.script(stream(event, STOP)), chaos.script(stream(*[WORLD] * 40_000, STOP))]
    requests = [ask(scripts[0], stream=False), ask(scripts[1]), ask(scripts[2])]
    exchanges = carrier.all(chaos.url, requests)
    assert [exchange.outcome for exchange in exchanges] == [Outcome.OK] * 3
    assert [len(exchange.answer.text()) for exchange in exchanges] == [10_000_000, 5_000_000, 240_000]


def test_an_answer_without_end_is_cut_at_the_limit(chaos: ChaosServer, carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb of 8 MB of spaces in 8 kB of gzip is left when 1 MB of it is out; so is a refusal that goes on and on."""
    monkeypatch.setattr(exchange_module, "BODY_LIMIT", 1_000_000)
    bomb = chaos.script(answer(gzip.compress(b" " * 8_000_000), headers=GZIP))
    page = chaos.script(b"HTTP/1.1 500 X\r\ncontent-type: text/html\r\n\r\n", *[b"<p>" * 10_000, 0.001] * 1000)
    exchanges = carrier.all(chaos.url, [ask(bomb, stream=False), ask(page)])
    assert [exchange.outcome for exchange in exchanges] == [Outcome.BAD_CONTENT, Outcome.SERVER_FAILED]
    assert exchanges[1].body_bytes < 5_000_000
