"""The table of transports: names, and which of them is the best for an endpoint."""

import pytest

from clients.endpoint import Endpoint
from clients.errors import UsageError
from clients.transports import TRANSPORTS, best_transport, checked_transport

ENDPOINT = Endpoint.parse("http://127.0.0.1:1/v1")


def test_wire_is_the_best_where_nothing_is_in_its_way(monkeypatch):
    """No proxy, or one that is not for this host: nothing to explain."""
    monkeypatch.delenv("http_proxy", raising=False)
    assert best_transport(ENDPOINT) == ("wire", "")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert best_transport(ENDPOINT) == ("wire", "")


def test_aiohttp_is_the_best_where_wire_cannot_and_the_reason_is_told(monkeypatch):
    """A proxy in the environment is aiohttp's."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    assert best_transport(ENDPOINT) == ("aiohttp", "the environment names a proxy for it")


def test_the_best_is_one_of_the_table():
    """And a name that is in no table is refused with those that are."""
    assert best_transport(ENDPOINT)[0] in TRANSPORTS
    with pytest.raises(UsageError, match=r"^transport: got 'curl', takes aiohttp or wire$"):
        checked_transport("curl")
