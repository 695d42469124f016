"""Before any load: a server that cannot be used is named in one line, one that can is asked two questions."""

import contextlib
import json
import resource
import socket
import threading

import pytest

from clients.endpoint import Timeouts
from clients.errors import UsageError
from clients.messages import Sampling
from clients.secret import Secret
from loadgen import preflight as preflight_module
from loadgen.preflight import ServerUnusableError, allow_files, preflight
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from loadgen.target import Target
from tests.servers import threaded

LISTS = (200, {"data": [{"id": "first"}, {"id": "second"}]})
MISSING = (404, {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}})
NO_ROUTE = (404, {"detail": "Not Found"})


def stream(*usages):
    """An answer of one token; each chunk with the usage given for it."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "length"}]}, {"choices": []}]
    for chunk, usage in zip(chunks, usages, strict=True):
        if usage:
            chunk["usage"] = {"prompt_tokens": 3, "completion_tokens": 1}
    return 200, [*chunks]


ANSWERS = stream(False, True)
COUNTS = stream(True, True)
SILENCE = None, None


@contextlib.contextmanager
def serving(models, *chats):
    """A server with these answers to /models, and to the first, second … chat (the last again); yields URL and what was asked."""
    asked = []
    over = threading.Event()

    class Handler(threaded.Quiet):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            self.answer(*models)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            posts = sum(isinstance(what, dict) for _, what in asked)
            self.answer(*chats[min(posts, len(chats)) - 1])

        def answer(self, status, content):
            if status is None:
                over.wait()
            elif isinstance(content, list):
                events = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in content)
                self.send(status, events + b"data: [DONE]\n\n", Content_Type="text/event-stream")
            else:
                self.send(status, json.dumps(content).encode(), Content_Type="application/json")

    with threaded.serving(Handler) as url:
        try:
            yield url, asked
        finally:
            over.set()


def looked(url, model="first", key=None, sampling=None, **target):
    return preflight(Target(base_url=url, model=model, **target), key, sampling or Sampling())


def test_a_server_that_has_the_model_is_asked_once_for_each():
    """Listed, answered: continuous usage is tried with one token of one stream, and nothing else is sent."""
    with serving(LISTS, COUNTS) as (url, asked):
        found = looked(url, key=Secret("k"), sampling=Sampling(max_tokens=50, extra_body={"top_k": 1}))
    assert (found.target.listed, found.target.continuous_usage, found.target.transport, found.stamping) == (
        True,
        True,
        "aiohttp",
        "arrival",
    )
    assert found.notes == []
    assert [path for path, _ in asked] == ["/v1/models", "/v1/chat/completions"]
    assert asked[0][1] == "Bearer k"
    body = asked[1][1]
    assert (body["model"], body["max_tokens"], body["top_k"], body["stream"]) == ("first", 1, 1, True)
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_a_server_that_ignores_continuous_usage_is_known_by_its_chunks():
    """It takes the option and does not do it: tokens of events stay unknown."""
    with serving(LISTS, ANSWERS) as (url, _):
        assert not looked(url).target.continuous_usage


def test_a_server_that_refuses_the_option_is_asked_without():
    """A strict server answers 400 to what it does not know."""
    refused = (400, {"error": {"message": "Unrecognized option continuous_usage_stats", "code": 400}})
    with serving(LISTS, refused, ANSWERS) as (url, asked):
        found = looked(url)
    assert not found.target.continuous_usage
    assert asked[-1][1]["stream_options"] == {"include_usage": True}
    assert found.notes == []


def test_without_streaming_the_probe_is_not_streamed_either():
    """The one request is made as the run will make them."""
    whole = (200, {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "length"}]})
    with serving(LISTS, whole) as (url, asked):
        found = looked(url, stream=False)
    assert not asked[1][1].get("stream")
    assert not found.target.continuous_usage


# What the server answers to the listing and to one token, for which model, and what the line must say.
UNUSABLE = [
    (LISTS, MISSING, "x", "has no model 'x'; it has first, second"),  # vLLM
    (LISTS, (400, {"error": {"message": "Invalid model name", "code": "400"}}), "x", "has no model 'x'; it has first, second"),  # LiteLLM
    (NO_ROUTE, MISSING, "x", "has no model 'x'; it does not say which it has"),
    (NO_ROUTE, NO_ROUTE, "x", "has neither /models nor /chat/completions"),  # not a model server
    ((401, {"error": "Unauthorized"}), ANSWERS, "first", "it wants a key: set OPENAI_API_KEY"),
    (LISTS, (403, {"error": {"message": "no"}}), "first", "it wants a key"),  # listed to all, served to some
    ((503, {"error": {"message": "Loading model", "code": 503}}), ANSWERS, "first", "Loading model"),  # llama-server, still loading
]


@pytest.mark.parametrize(("models", "chat", "model", "said"), UNUSABLE)
def test_an_unusable_server_is_one_line(models, chat, model, said):
    """Exit status 5, naming the server, what is wrong, and the models it has."""
    with serving(models, chat) as (url, _), pytest.raises(ServerUnusableError) as caught:
        looked(url, model)
    assert str(caught.value).startswith(url)
    assert said in str(caught.value)


def test_a_refused_key_is_not_shown():
    """401 with a key: it was refused, and does not stand in the line."""
    with serving((401, {"error": "Unauthorized"}), ANSWERS) as (url, _), pytest.raises(ServerUnusableError) as caught:
        looked(url, key=Secret("sk-secret"))
    assert "the key was refused" in str(caught.value)
    assert "sk-secret" not in str(caught.value)


# What is odd and yet no reason to stop, and the note that says so.
NOTED = [
    (LISTS, ANSWERS, "x", "does not list 'x' (it has first, second) and answers to it all the same"),  # llama-server ignores the name
    (NO_ROUTE, ANSWERS, "x", "does not list its models"),
    (LISTS, (429, {"error": {"message": "slow down"}}), "first", "a request of one token failed before the run (rate-limited)"),
    (LISTS, (500, {"error": {"message": "boom"}}), "first", "a request of one token failed before the run (server-failed)"),
    (LISTS, NO_ROUTE, "first", "a request of one token failed before the run (not-found)"),  # a 404 as rate limiting
]


@pytest.mark.parametrize(("models", "chat", "model", "said"), NOTED)
def test_what_is_odd_is_a_note(models, chat, model, said):
    """The run goes on, and its report says what was seen."""
    with serving(models, chat) as (url, _):
        assert any(said in note for note in looked(url, model).notes)


def test_the_probe_waits_no_longer_than_the_run_would():
    """A user who gave short deadlines does not wait half a minute to learn that nothing comes."""
    with serving(LISTS, SILENCE) as (url, _):
        (note,) = looked(url, timeouts=Timeouts(first_byte_s=0.2, total_s=None)).notes
    assert "first-byte-timeout" in note
    assert "0.2 s" in note


def test_nobody_listening_is_an_unreachable_server():
    """A port without a server."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ServerUnusableError, match="cannot be reached"):
            looked(f"http://127.0.0.1:{unused.getsockname()[1]}/v1")


def test_the_soft_limit_of_files_is_raised_as_far_as_needed(monkeypatch):
    """Faults E81: need = concurrency + 64; the hard limit is not touched."""
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    allow_files(100)
    assert limits == []
    allow_files(1000)
    assert limits == [(1064, 4096)]


def test_a_hard_limit_that_is_too_low_names_the_ulimit(monkeypatch):
    """Faults A5: exit 2, and the command that helps."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    with pytest.raises(UsageError, match="--concurrencies: 1000 connections need 1064 open files.*ulimit -n 1064"):
        allow_files(1000, "--concurrencies")


def test_auto_is_wire_where_it_can_and_else_says_why_not(monkeypatch):
    """One place decides (`clients.transports.best_transport`); a named transport is not asked about."""
    with Simulator(load_settings("olmocr", port=0, time_scale=0.01)) as served:
        target = Target(base_url=served.base_url, model="olmocr", transport="auto")
        found = preflight(target, None, Sampling())
        assert (found.target.transport, found.stamping, found.notes) == ("wire", "arrival", [])
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert preflight(target, None, Sampling()).target.transport == "wire"
        monkeypatch.setattr(preflight_module, "best_transport", lambda _: ("aiohttp", "it cannot"))
        found = preflight(target, None, Sampling())
        assert (found.target.transport, found.notes) == ("aiohttp", ["aiohttp sends, not wire: it cannot"])
