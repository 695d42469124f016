"""Waiting for a server: an answer of any kind ends it, its absence goes on until the time is over."""

import pytest

from clients.endpoint import Endpoint
from clients.errors import Outcome, request_error
from loadgen import readiness
from loadgen.preflight import ServerUnusableError

ENDPOINT = Endpoint.parse("http://127.0.0.1:1/v1")


@pytest.fixture
def server(monkeypatch):
    """Answers with what is in the list, one after the other, the last one for ever; time passes only in sleeps."""
    script, now = [], [0.0]

    async def list_models(endpoint):
        outcome = script.pop(0) if len(script) > 1 else script[0]
        if outcome is not Outcome.OK:
            raise request_error(outcome, "as the test says")
        return ["m"]

    monkeypatch.setattr(readiness, "list_models", list_models)
    monkeypatch.setattr(readiness.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(readiness.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return script, now


def test_a_server_that_comes_is_waited_for(server):
    """Asked each second: not there, a gateway before it, its own 503, then it answers."""
    script, now = server
    script += [Outcome.CONNECT, Outcome.SERVER_FAILED, Outcome.OVERLOADED, Outcome.CONNECT_TIMEOUT, Outcome.OK]
    readiness.wait_ready(ENDPOINT, 60)
    assert now == [4.0]


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.UNAUTHORIZED, Outcome.NOT_FOUND])
def test_a_refusal_is_an_answer(server, outcome):
    """Whether the server can be used is another question."""
    script, now = server
    script += [outcome]
    readiness.wait_ready(ENDPOINT, 60)
    assert now == [0.0]


def test_a_server_that_does_not_come_is_named_when_the_time_is_over(server):
    """Not a moment later: the last wait is cut."""
    script, now = server
    script += [Outcome.CONNECT]
    with pytest.raises(ServerUnusableError, match=r"127\.0\.0\.1:1/v1: not ready after 2\.5 s: as the test says"):
        readiness.wait_ready(ENDPOINT, 2.5)
    assert now == [2.5]
