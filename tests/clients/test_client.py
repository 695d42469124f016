"""LLMClient: against the simulator where a server matters, against a scripted transport where the seam is enough."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import pytest
from fakes import FakeTransport, answers, breaks, chunk, hangs, refuses

from clients import LLMClient, Message, ModelMissingError, Outcome, RequestError, RetryPolicy, UsageError, transports
from clients.registry import ModelProfile, ModelRegistry
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings

KEY = "sk-verysecret-123"


@pytest.fixture(scope="module")
def sim():
    """A text model whose step takes about a millisecond."""
    with Simulator(load_settings("gpt-oss-20b", time_scale=0.1)) as simulator:
        yield simulator


@pytest.fixture
def client(sim):
    with LLMClient(sim.base_url, model_name="gpt-oss-20b", max_tokens=4) as made:
        yield made


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    for name in ("LOADGEN_MODELS", "LOADGEN_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@contextmanager
def scripted(monkeypatch, *script, **options):
    """A client over a scripted transport, and the list of the transports it opens."""
    opened: list[FakeTransport] = []

    def open_fake(endpoint, timeouts) -> FakeTransport:
        opened.append(FakeTransport(*script))
        return opened[-1]

    monkeypatch.setitem(transports.TRANSPORTS, "fake", open_fake)
    with LLMClient(model_name="m", transport="fake", retry=RetryPolicy(base_s=0.001), **options) as made:
        yield made, opened


def sent(transport: FakeTransport) -> list[dict]:
    return [json.loads(request.body) for request in transport.sent]


# One prompt


@pytest.mark.parametrize(
    "prompt",
    ["Hello", Message(role="user", content="Hello"), [Message(role="user", content="Hello")], [{"role": "user", "content": "Hello"}]],
)
def test_a_prompt_is_a_string_a_message_or_a_list(client, prompt) -> None:
    """All four say the same to the server."""
    completion = client.generate(prompt)
    assert completion.ok
    assert completion.text
    assert completion.usage.completion_tokens == 4
    assert completion.finish_reason == "length"
    assert completion.timing.ttft_s < completion.timing.e2e_s


def test_the_call_overrides_the_clients_sampling(monkeypatch) -> None:
    """Defaults of the client, the call's own over them, extra_body last."""
    with scripted(monkeypatch, max_tokens=4, temperature=0.5) as (client, opened):
        client.generate("x", max_tokens=7, extra_body={"guided_regex": "a*"})
    [body] = sent(opened[0])
    assert (body["max_tokens"], body["temperature"], body["guided_regex"]) == (7, 0.5, "a*")


def test_a_single_call_raises_the_typed_error(sim) -> None:
    """The server's words are in it; nothing is sent again for a missing model."""
    with LLMClient(sim.base_url, model_name="absent") as client, pytest.raises(ModelMissingError, match="absent"):
        client.generate("Hello")


def test_a_refused_prompt_sends_nothing(monkeypatch) -> None:
    """A blank prompt is the item's own error."""
    with scripted(monkeypatch) as (client, opened), pytest.raises(RequestError, match="blank"):
        client.generate("  ")
    assert opened[0].sent == []


def test_passing_failures_are_retried_by_default(monkeypatch) -> None:
    """The caller sees one answer and the number of attempts."""
    with scripted(monkeypatch, refuses(503), breaks(Outcome.RESET), answers("a b")) as (client, _):
        completion = client.generate("x")
    assert (completion.text, completion.attempts) == ("a b", 3)


def test_rate_limiting_of_every_kind_is_ridden_out(sim) -> None:
    """404 as a proxy's rate limiting, 429, 503, in a stream or not, resets: every item is answered, none is asked for in vain."""
    faults = "rate-limit-404=0.1,rate-limit-429=0.1,unavailable-503=0.1,stream-error=0.1,reset-early=0.1"
    sim.set_limits(faults=faults)
    try:
        with LLMClient(sim.base_url, max_tokens=2, retry=RetryPolicy(max_retries=12, base_s=0.0001)) as client:
            completions = client.generate_batch([f"Question {i}" for i in range(60)], max_concurrent=8)
    finally:
        sim.set_limits(faults="")
    assert [c for c in completions if not c.ok] == []
    assert max(c.attempts for c in completions) > 1


def test_texts_are_embedded_one_vector_for_each(client) -> None:
    """With the server's usage; of the client's sampling (max_tokens) nothing is sent."""
    completion = client.embed(["a", "b", "c"])
    assert [len(vector) for vector in completion.embeddings] == [64, 64, 64]
    assert completion.usage.prompt_tokens > 0


def test_without_streaming_the_answer_is_the_same(sim) -> None:
    """One JSON body instead of events."""
    with LLMClient(sim.base_url, max_tokens=4, streaming=False) as client:
        completion = client.generate("Hello")
    assert completion.ok
    assert completion.usage.completion_tokens == 4
    assert completion.timing.itl_s == []


def test_the_completions_endpoint_answers_too(sim) -> None:
    """endpoint="completions": a prompt instead of messages."""
    with LLMClient(sim.base_url, endpoint="completions", max_tokens=4) as client:
        assert client.generate("Once upon a time").usage.completion_tokens == 4


# Batches


def test_results_come_in_order_one_for_each_prompt(client) -> None:
    """Longer and longer prompts: the server counts more and more tokens."""
    completions = client.generate_batch(["word " * (i + 1) for i in range(30)], max_concurrent=7)
    counted = [c.usage.prompt_tokens for c in completions]
    assert counted == sorted(counted)
    assert len(set(counted)) == 30


def test_a_bad_item_costs_its_neighbours_nothing(client) -> None:
    """Blank, wrong type, lone surrogate: each has its error, the others their answers."""
    completions = client.generate_batch(["a", "", ["b"], "\ud800", "c"])
    assert [c.ok for c in completions] == [True, False, False, False, True]
    assert {c.outcome for c in completions if not c.ok} == {Outcome.INVALID_ITEM}
    assert completions[1].attempts == 0


def test_a_batch_of_nothing_asks_nobody() -> None:
    """Not even for the model's name: there is no server here."""
    with LLMClient("http://127.0.0.1:9/v1") as client:
        assert client.generate_batch([]) == []


def test_a_generator_is_a_batch_too(client) -> None:
    """Any iterable of prompts."""
    assert len(client.generate_batch(f"Question {i}" for i in range(3))) == 3


@pytest.mark.parametrize("batch", ["a prompt", 5, {"role": "user", "content": "x"}])
def test_one_prompt_is_not_a_batch(client, batch) -> None:
    """A forgotten pair of brackets, not eight prompts of one letter."""
    with pytest.raises(UsageError, match="batch: got"):
        client.generate_batch(batch)


def test_never_more_in_flight_than_asked_for_and_that_is_reached(sim, client) -> None:
    """The server's own count of requests in flight."""
    sim.wait_idle()
    sim.reset()
    client.generate_batch([f"Question {i}" for i in range(40)], max_concurrent=6, max_tokens=16)
    assert sim.wait_idle()["requests_inflight_peak"] == 6


def test_what_is_not_in_flight_is_not_made(monkeypatch) -> None:
    """A batch far bigger than what is in flight: requests and exchanges exist for the slots alone."""
    with scripted(monkeypatch, hangs) as (client, opened):

        async def go() -> None:
            task = asyncio.create_task(client.generate_batch_async(["x"] * 100_000, 5))
            while not opened or len(opened[0].sent) < 5:
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            assert len(opened[0].exchanges) == 5
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await client.aclose()

        asyncio.run(go())


def test_a_batch_waits_for_the_one_before_and_the_delay(client) -> None:
    """One lane of 4: items 4-7 are due 50 ms after the last of 0-3 has ended."""
    stamps = [c.stamps for c in client.generate_batch(["a"] * 8, 4, 4, delay_between_batches=0.05)]
    end_ns = max(s.end_ns for s in stamps[:4])
    assert {s.due_ns for s in stamps[:4]} == {stamps[0].due_ns}
    for second in stamps[4:]:
        assert second.due_ns >= end_ns + 50_000_000
        assert second.sent_ns >= second.due_ns


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_concurrent": 0}, "max_concurrent: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"delay_between_batches": 1.0}, "delay_between_batches: has no batches"),
        ({"delay_between_batches": -1.0, "batch_size": 2}, "delay_between_batches: got -1.0"),
        ({"delay_between_batches": "1", "batch_size": 2}, "delay_between_batches: got '1'"),
        ({"max_concurent": 3}, "max_concurent: not an option of .*generate_batch; did you mean max_concurrent?"),
        ({"max_tokns": 3}, "max_tokns: .*did you mean max_tokens?"),
        ({"temperature": "hot"}, "temperature: Expected"),
    ],
)
def test_a_misuse_is_named_before_anything_is_sent(monkeypatch, options, named) -> None:
    """The field, what it got and what it takes; no misspelt option is dropped."""
    with scripted(monkeypatch) as (client, opened), pytest.raises(UsageError, match=named):
        client.generate_batch(["a"], **options)
    assert opened == []


def test_progress_is_shown_on_stderr(client, capfd) -> None:
    """A bar for people; stdout stays the program's."""
    client.generate_batch(["a", "b", ""], progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "3/3" in shown.err
    assert "1 failed" in shown.err


def test_cancelling_a_batch_cancels_what_is_in_flight(sim, client) -> None:
    """The caller gets CancelledError after the server was let go, and the rest is never sent."""

    async def go() -> None:
        sim.wait_idle()
        before = sim.stats()["requests_total"]
        task = asyncio.create_task(client.generate_batch_async(["a"] * 100, 4, max_tokens=20_000))
        while sim.stats()["requests_inflight"] < 4:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sim.wait_idle()["requests_total"] == before + 4
        await client.aclose()

    asyncio.run(go())


def test_closing_the_client_under_a_batch_ends_it(client) -> None:
    """With an error, not with a hang."""

    async def go() -> None:
        task = asyncio.create_task(client.generate_batch_async(["a"] * 100, 4, max_tokens=20_000))
        stream = client.stream_async("Hello", max_tokens=20_000)
        await stream.__anext__()
        await client.aclose()
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(task, 10)
        with pytest.raises(RequestError):
            async for _ in stream:
                pass

    asyncio.run(go())


def test_a_defect_in_the_making_of_a_request_ends_the_batch(monkeypatch) -> None:
    """It is raised to who called, and what is in flight is let go."""
    with scripted(monkeypatch, hangs) as (client, opened):
        real = client._dialect.encode

        def encode(self, model, prompt, sampling, *, stream, continuous_usage=False) -> bytes:
            if prompt == "bad":
                raise ZeroDivisionError
            return real(model, prompt, sampling, stream=stream)

        monkeypatch.setattr(type(client._dialect), "encode", encode)
        with pytest.raises(ZeroDivisionError):
            client.generate_batch(["a", "b", "bad", "c"])
        assert not opened[0].in_flight


def test_ctrl_c_in_a_sync_batch_cancels_it_and_is_raised(sim, client) -> None:
    """As in any other blocking call."""
    sim.wait_idle()

    def interrupt() -> None:
        while sim.stats()["requests_inflight"] < 4:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        client.generate_batch(["a"] * 100, 4, max_tokens=20_000)
    thread.join()
    sim.wait_idle()
    assert client.generate("still works").ok


def test_what_a_signal_raises_in_a_sync_batch_cancels_it(sim, client) -> None:
    """A job's time limit is an exception too: nothing goes on behind the caller's back."""

    class OutOfTimeError(Exception):
        pass

    def raise_it(number: int, frame: object) -> None:
        raise OutOfTimeError

    def interrupt() -> None:
        while sim.stats()["requests_inflight"] < 4:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    sim.wait_idle()
    before = signal.signal(signal.SIGUSR1, raise_it)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(OutOfTimeError):
            client.generate_batch(["a"] * 100, 4, max_tokens=20_000)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    sim.wait_idle()


# Streams


def test_a_stream_keeps_its_client(sim) -> None:
    """A client that nobody else holds must not close the connection under its stream."""
    stream = LLMClient(sim.base_url, model_name="gpt-oss-20b").stream("x", max_tokens=100)
    gc.collect()
    assert len(list(stream)) == 100
    assert stream.completion.ok


def test_a_stream_is_the_completion_in_pieces(client) -> None:
    """Joined they are its text."""
    stream = client.stream("Hello", max_tokens=8)
    pieces = [str(piece) for piece in stream]
    assert len(pieces) > 1
    assert "".join(pieces) == stream.completion.text
    assert stream.completion.ok
    assert list(stream) == []


def test_an_async_stream_is_the_same(client) -> None:
    """On the caller's own loop."""

    async def go() -> None:
        stream = client.stream_async("Hello", max_tokens=8)
        assert "".join([str(piece) async for piece in stream]) == stream.completion.text
        await client.aclose()

    asyncio.run(go())


def cancelled(sim) -> int:
    return sim.wait_idle()["requests_cancelled"]


@pytest.mark.parametrize("how", ["break", "close", "drop", "with", "raise"])
def test_leaving_a_stream_early_closes_its_connection(sim, client, how) -> None:
    """However it is left, the server stops generating."""
    before = cancelled(sim)
    stream = client.stream("Hello", max_tokens=20_000)
    if how == "break":
        for _ in stream:
            break
    elif how == "close":
        next(stream)
        stream.close()
    elif how == "drop":
        next(stream)
        del stream
    elif how == "with":
        with stream:
            next(stream)
    else:
        with pytest.raises(ZeroDivisionError):
            for _ in stream:
                1 / 0  # noqa: B018 - it raises
    assert cancelled(sim) == before + 1
    if how != "drop":
        assert stream.completion.outcome is Outcome.CANCELLED
        assert stream.completion.text
        assert list(stream) == []


@pytest.mark.parametrize("how", ["break", "aclose", "drop", "with", "cancel"])
def test_leaving_an_async_stream_early_closes_its_connection(sim, client, how) -> None:
    """As above; a cancelled task leaves too."""

    async def go() -> None:
        stream = client.stream_async("Hello", max_tokens=20_000)
        if how == "break":
            async for _ in stream:
                break
        elif how == "aclose":
            await stream.__anext__()
            await stream.aclose()
        elif how == "drop":
            await stream.__anext__()
            del stream
        elif how == "with":
            async with stream:
                await stream.__anext__()
        else:

            async def read() -> None:
                async for _ in stream:
                    pass

            task = asyncio.create_task(read())
            while sim.stats()["requests_inflight"] == 0:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        deadline = time.monotonic() + 5
        while sim.stats()["requests_inflight"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        await client.aclose()

    before = cancelled(sim)
    asyncio.run(go())
    assert cancelled(sim) == before + 1


def test_a_stream_that_fails_raises_after_its_pieces(monkeypatch) -> None:
    """What came is read first; it is not sent for again, the caller has it."""
    with scripted(monkeypatch, breaks(Outcome.RESET, after=chunk("half"))) as (client, opened):
        stream = client.stream("x")
        assert str(next(stream)) == "half"
        with pytest.raises(RequestError, match="reset"):
            next(stream)
        assert stream.completion.outcome is Outcome.RESET
    assert len(opened[0].sent) == 1


def test_a_stream_refused_before_its_first_piece_is_retried(monkeypatch) -> None:
    """The caller sees nothing of it."""
    with scripted(monkeypatch, refuses(503), answers("a b")) as (client, _):
        assert [str(piece) for piece in client.stream("x")] == ["a", " b"]


def test_a_stream_of_a_bad_prompt_raises_and_stays_ended(client) -> None:
    """Sync at the call, async at the first piece; asked again, there is nothing."""
    with pytest.raises(RequestError, match="blank"):
        client.stream(" ")

    async def go() -> None:
        stream = client.stream_async(" ")
        with pytest.raises(RequestError, match="blank"):
            await stream.__anext__()
        assert [piece async for piece in stream] == []

    asyncio.run(go())


def test_a_stream_has_no_completion_before_its_end(client) -> None:
    """Asking for it is a misuse, said so."""
    with client.stream("Hello", max_tokens=20_000) as stream, pytest.raises(UsageError, match="has not ended"):
        stream.completion  # noqa: B018 - it raises


# Loops, connections, ends


def test_sync_methods_work_inside_a_running_loop(client) -> None:
    """A Jupyter cell is one."""

    async def cell() -> str:
        return client.generate("Hello").text

    assert asyncio.run(cell())


def test_a_sync_method_on_the_private_loop_is_refused_rather_than_stuck(client) -> None:
    """A callback that called one would wait for itself."""
    from clients.loop import private_loop

    async def callback() -> None:
        client.generate("Hello")

    with pytest.raises(UsageError, match="use the async one"):
        private_loop().run(callback)


def test_sync_calls_share_their_connection(sim, client) -> None:
    """Five calls, one connection."""
    client.generate("warm")
    before = sim.stats()["connections"]
    for _ in range(5):
        client.generate("Hello")
    assert sim.stats()["connections"] == before


def test_a_client_serves_several_loops_and_closes_on_each(sim, client) -> None:
    """Each loop has its own connections; none is left when the loop or the client is closed."""
    for _ in range(3):
        assert asyncio.run(client.generate_async("Hello")).ok
    assert client.generate("Hello").ok
    client.close()
    deadline = time.monotonic() + 5
    assert client.generate("a closed client opens anew").ok
    assert time.monotonic() < deadline


def test_each_transport_is_closed_once(monkeypatch) -> None:
    """By its loop's end, by close, by aclose: whichever comes first."""
    with scripted(monkeypatch) as (client, opened):
        asyncio.run(client.generate_async("its loop ends"))

        async def with_aclose() -> None:
            async with client:
                await client.generate_async("x")

        asyncio.run(with_aclose())
        client.generate("closed by with")
    assert [transport.closed for transport in opened] == [1, 1, 1]


def test_close_reaches_a_loop_that_does_not_run(monkeypatch) -> None:
    """`loop.run_until_complete(...)`, `client.close()`, `loop.close()`: the second is the last chance."""
    with scripted(monkeypatch) as (client, opened), closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(client.generate_async("x"))
        client.close()
        assert opened[0].closed == 1


def test_a_dropped_client_closes_its_transport(monkeypatch) -> None:
    """Garbage collection is an end too."""
    with scripted(monkeypatch) as (client, opened):
        other = LLMClient.from_settings(client.settings)
        other.generate("x")
        del other
        gc.collect()
        deadline = time.monotonic() + 5
        while not opened[0].closed:
            assert time.monotonic() < deadline
            time.sleep(0.001)


LEFT_OPEN = {
    "sync, never closed": "client.generate('x')",
    "async, never closed": "asyncio.run(client.generate_async('x'))",
    "async on uvloop, never closed": "import uvloop; uvloop.run(client.generate_async('x'))",
    "dropped": "client.generate('x'); del client; gc.collect(); time.sleep(0.1)",
    "dropped inside its loop": "asyncio.run(inside())",
    "stream left open": "s = client.stream('x', max_tokens=20000); next(s)",
    "batch and exception": "client.generate_batch(['x'] * 5); client.embed('x')",
}


@pytest.mark.parametrize("how", LEFT_OPEN)
def test_nothing_is_said_at_the_end_of_a_program_that_closes_nothing(sim, how) -> None:
    """No ResourceWarning, no "Unclosed client session", no pending task, status 0."""
    script = f"""
import asyncio, gc, time
from clients import LLMClient
client = LLMClient({sim.base_url!r}, model_name="gpt-oss-20b", max_tokens=2)
async def inside():
    mine = LLMClient({sim.base_url!r}, model_name="gpt-oss-20b", max_tokens=2)
    await mine.generate_async("x")
{LEFT_OPEN[how]}
"""
    ended = subprocess.run([sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize(
    "child",
    [
        "assert client.generate('child').ok; client.close(); raise SystemExit(7)",
        "del client; gc.collect(); os._exit(7)",  # drops it unused, and ends as multiprocessing's children do
    ],
)
def test_a_client_works_after_a_fork(sim, child) -> None:
    """The child starts its own loop and connections, if it uses any; the parent's go on, and nothing is said at the end of either."""
    script = f"""
import gc, os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forking with threads; that is what is tested
from clients import LLMClient
client = LLMClient({sim.base_url!r}, model_name="gpt-oss-20b", max_tokens=2)
assert client.generate("parent").ok
child = os.fork()
if child == 0:
    {child}
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
again = client.generate("parent again")
assert again.ok and again.attempts == 1
"""
    ended = subprocess.run([sys.executable, "-W", "always::ResourceWarning", "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


# Settings


def test_a_client_pickles_as_its_settings(sim) -> None:
    """The copy opens its own connections, and is let in by the same key."""
    with LLMClient(sim.base_url, KEY, "gpt-oss-20b", max_tokens=3, batch_size=2) as client:
        client.generate("opens a connection")
        with pickle.loads(pickle.dumps(client)) as copy:
            assert copy.settings == client.settings
            assert copy.settings.endpoint.api_key.reveal() == KEY
            assert copy.generate("Hello").usage.completion_tokens == 3


def test_the_key_is_in_no_repr_and_no_error(sim) -> None:
    """Short, and keyless."""
    with LLMClient(sim.base_url, KEY, "absent", headers={"X-Token": KEY}) as client:
        with pytest.raises(RequestError) as caught:
            client.generate("Hello")
        shown = [repr(client), repr(client.settings), str(caught.value), repr(caught.value), repr(client.__dict__)]
    assert not [each for each in shown if KEY in each]
    assert len(repr(client)) < 80


def test_the_environment_fills_in_what_is_not_given(monkeypatch) -> None:
    """LOADGEN_BASE_URL and OPENAI_API_KEY; arguments outrank them; without both, localhost and no key."""
    assert LLMClient().base_url == "http://localhost:8000/v1"
    assert LLMClient().settings.endpoint.api_key is None
    monkeypatch.setenv("LOADGEN_BASE_URL", "http://gpu-1:9000/v1/")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert LLMClient().base_url == "http://gpu-1:9000/v1"
    assert LLMClient().settings.endpoint.api_key.reveal() == KEY
    assert LLMClient("http://gpu-2/v1", "sk-other").base_url == "http://gpu-2/v1"
    assert LLMClient(api_key="sk-other").settings.endpoint.api_key.reveal() == "sk-other"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"base_ulr": "x"}, "base_ulr: not an option of LLMClient; did you mean base_url?"),
        ({"max_tokns": 5}, "max_tokns: not an option of LLMClient; did you mean max_tokens?"),
        ({"base_url": "localhost:8000"}, "base_url: got 'localhost:8000'"),
        ({"endpoint": "chats"}, "endpoint: got 'chats'"),
        ({"max_concurrent": 0}, "max_concurrent: got 0"),
        ({"api_key": "sk\n"}, "api_key: has a control character"),
        ({"headers": {"X": "a\r\nY: b"}}, "headers: the value of X"),
        ({"temperature": float("nan")}, "^temperature: got nan"),
        ({"base_url": ""}, "base_url: got ''"),  # an unset variable of the caller's must not become localhost
        ({"model_name": ""}, "model_name: got ''"),
        ({"timeouts": 30}, r"timeouts: got 30, takes Timeouts, such as Timeouts\(total_s=60.0\)"),
        ({"retry": 3}, r"retry: got 3, takes a RetryPolicy, such as RetryPolicy\(max_retries=0\)"),
        ({"transport": "htpx"}, "transport: got 'htpx', takes aiohttp"),
        ({"streaming": "no"}, "streaming: got 'no'"),
        ({"insecure": "no"}, "insecure: got 'no'"),  # a word is true: it would trust every certificate
        ({"api_key": 5}, "api_key: got int"),
        ({"headers": ["a"]}, "headers: got list"),
        ({"headers": {"X": 5}}, "headers: the value of X is int"),
        ({"ca_file": 5}, "ca_file: there is no file"),
    ],
)
def test_a_wrong_setting_is_named_at_once(options, named) -> None:
    """When the client is made, not when a thousand requests have failed."""
    with pytest.raises(UsageError, match=named):
        LLMClient(**options)


def test_the_only_model_of_a_server_needs_no_name(sim) -> None:
    """It is asked for once."""
    with LLMClient(sim.base_url, max_tokens=2) as client:
        assert client.generate("Hello").model == "gpt-oss-20b"


def test_of_several_models_one_must_be_named() -> None:
    """The message lists them."""
    with Simulator(load_settings("gpt-oss-20b", model_name="a, b")) as sim, LLMClient(sim.base_url) as client:
        with pytest.raises(UsageError, match="model_name: got none, takes one of the server's: a, b"):
            client.generate("Hello")


def test_from_profile_takes_address_name_and_key(monkeypatch, sim) -> None:
    """Of the registry given, the environment over the file, options over both."""
    registry = ModelRegistry()
    registry.register(ModelProfile(name="mine", base_url="http://gpu-1/v1", served_name="org/mine", api_key="${MY_KEY}"))
    with pytest.raises(UsageError, match="MY_KEY is not set"):
        LLMClient.from_profile("mine", registry)
    monkeypatch.setenv("MY_KEY", KEY)
    client = LLMClient.from_profile("mine", registry, max_tokens=5)
    assert (client.base_url, client.model_name) == ("http://gpu-1/v1", "org/mine")
    assert client.settings.endpoint.api_key.reveal() == KEY
    assert client.settings.sampling.max_tokens == 5
    monkeypatch.setenv("LOADGEN_BASE_URL", sim.base_url)
    assert LLMClient.from_profile("gpt-oss-20b").generate("Hello", max_tokens=2).ok
    assert LLMClient.from_profile("mine", registry, base_url="http://gpu-2/v1").base_url == "http://gpu-2/v1"


def test_from_config_gives_batches_their_defaults(tmp_path, sim) -> None:
    """`generation: {batch_size, max_concurrent}`; a call's own outrank them."""
    path = tmp_path / "config.yaml"
    path.write_text("generation:\n  batch_size: 3\n  max_concurrent: 3\n")
    with LLMClient.from_config(path, base_url=sim.base_url, max_tokens=16) as client:
        assert (client.settings.batch_size, client.settings.max_concurrent) == (3, 3)
        sim.wait_idle()
        sim.reset()
        stamps = [c.stamps for c in client.generate_batch(["a"] * 6)]
        assert min(s.due_ns for s in stamps[3:]) >= max(s.end_ns for s in stamps[:3])
        assert sim.wait_idle()["requests_inflight_peak"] == 3
        sim.reset()
        client.generate_batch(["a"] * 6, max_concurrent=2)
        assert sim.wait_idle()["requests_inflight_peak"] == 2
