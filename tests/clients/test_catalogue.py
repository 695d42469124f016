"""What models a server has, and which one a client means."""

from __future__ import annotations

import asyncio
import socket

import pytest
from fakes import FakeTransport, body, refuses, says

from clients import transports
from clients.catalogue import ServedModel, list_models
from clients.endpoint import Endpoint
from clients.errors import AuthenticationError, Outcome, RequestError, UsageError
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings

NOWHERE = Endpoint.parse("http://127.0.0.1:9/v1")


def scripted(monkeypatch, *script) -> list[FakeTransport]:
    opened: list[FakeTransport] = []

    def open_fake(endpoint, timeouts) -> FakeTransport:
        opened.append(FakeTransport(*script))
        return opened[-1]

    monkeypatch.setitem(transports.TRANSPORTS, "aiohttp", open_fake)
    return opened


def test_names_come_in_the_servers_order() -> None:
    """As /v1/models lists them."""
    with Simulator(load_settings(None, model_name="b, a")) as sim:
        assert asyncio.run(list_models(Endpoint.parse(sim.base_url))) == ["b", "a"]


def test_nobody_there_is_a_connection_error_in_a_second() -> None:
    """Asked once, with the error every request would have had."""
    with socket.socket() as bound:  # bound and not listening: refused, and nobody else gets the port
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(RequestError) as caught:
            asyncio.run(list_models(Endpoint.parse(f"http://127.0.0.1:{bound.getsockname()[1]}/v1")))
    assert caught.value.outcome is Outcome.CONNECT


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        (body({"models": []}), Outcome.BAD_CONTENT),
        (body({"data": [{"name": "x"}]}), Outcome.BAD_CONTENT),
        (body([]), Outcome.BAD_CONTENT),
        (says(b"data: x\n\n"), Outcome.BAD_CONTENT),
        (refuses(401), Outcome.UNAUTHORIZED),
        (refuses(503), Outcome.OVERLOADED),
    ],
)
def test_an_answer_that_lists_nothing_is_a_typed_error(monkeypatch, step, outcome) -> None:
    """And the transport is closed."""
    opened = scripted(monkeypatch, step)
    with pytest.raises(RequestError) as caught:
        asyncio.run(list_models(NOWHERE))
    assert caught.value.outcome is outcome
    assert (opened[0].closed, opened[0].sent[0].method) == (1, "GET")


def test_the_model_is_the_one_given_and_nobody_is_asked() -> None:
    """There is no server here."""
    assert asyncio.run(ServedModel(NOWHERE, "m").name()) == "m"


def test_else_it_is_the_only_one_and_is_asked_for_once(monkeypatch) -> None:
    """Two questions for the name, one request."""
    opened = scripted(monkeypatch, body({"data": [{"id": "only"}]}))
    model = ServedModel(NOWHERE, None)
    assert [asyncio.run(model.name()), asyncio.run(model.name())] == ["only", "only"]
    assert len(opened) == 1


@pytest.mark.parametrize(("data", "named"), [([], "it lists none"), ([{"id": "a"}, {"id": "b"}], "a, b")])
def test_none_or_several_are_the_callers_to_choose(monkeypatch, data, named) -> None:
    """The message lists what there is."""
    scripted(monkeypatch, body({"data": data}))
    with pytest.raises(UsageError, match=f"model_name: got none, takes one of the server's: {named}"):
        asyncio.run(ServedModel(NOWHERE, None).name())


@pytest.mark.parametrize(("step", "listed"), [(body({"data": [{"id": "m"}]}), True), (body({"data": []}), False), (refuses(404), False)])
def test_whether_it_is_listed_is_never_an_error(monkeypatch, step, listed) -> None:
    """Retries ask this: where it cannot be told, the answer is no."""
    scripted(monkeypatch, step)
    assert asyncio.run(ServedModel(NOWHERE, "m").listed()) is listed


def test_a_refused_key_is_an_authentication_error(monkeypatch) -> None:
    """So that a preflight can say exit status 5."""
    scripted(monkeypatch, refuses(403))
    with pytest.raises(AuthenticationError):
        asyncio.run(list_models(NOWHERE))
