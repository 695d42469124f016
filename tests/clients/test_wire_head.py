"""The heads of `wire`'s requests: built once, and nothing given can begin a line of its own."""

from __future__ import annotations

import pytest
from carriers import KEY, ask

from clients.dialects import DIALECTS
from clients.endpoint import Endpoint
from clients.errors import UsageError
from clients.exchange import Request
from clients.wire_head import RequestHeads


def test_a_head_is_built_once_and_differs_in_its_length_only() -> None:
    """The base URL's path is quoted once; a header of the endpoint replaces ours of that name; a request's replaces both."""
    heads = RequestHeads(Endpoint.parse("http://h:1/ä b%20c/v1".replace(" ", "+"), api_key=KEY, headers={"user-agent": "me"}))
    lines = heads.head(ask(body=b"123")).decode().split("\r\n")
    assert lines == [
        "POST /%C3%A4+b%20c/v1/chat/completions HTTP/1.1",
        "Host: h:1",
        "user-agent: me",
        "Accept: */*",
        "Accept-Encoding: identity",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
        "Content-Length: 3",
        "",
        "",
    ]
    own = Request(DIALECTS["chat"], b"", stream=False, headers=(("User-Agent", "you"), ("X-A", "1")), method="GET")
    assert heads.head(own).decode().split("\r\n")[2:] == [
        "User-Agent: you",
        "Accept: */*",
        "Accept-Encoding: identity",
        f"Authorization: Bearer {KEY}",
        "X-A: 1",
        "",
        "",
    ]
    assert heads.head(ask(body=b"123")).decode().split("\r\n") == lines


def test_nothing_given_can_begin_a_line_of_its_own() -> None:
    """Also where the endpoint was not made by `parse`, and the request's headers were put in after it was checked."""
    with pytest.raises(UsageError, match="^headers: "):
        RequestHeads(Endpoint("http://h/v1", headers={"a": "b\r\nc: d"}))
    heads = RequestHeads(Endpoint.parse("http://h/v1"))
    request = ask()
    request.headers = (("a\r\nb", "c"),)
    with pytest.raises(UsageError, match="^headers: "):
        heads.head(request)
    with pytest.raises(UsageError, match="^method: "):
        heads.head(ask(method="GET / HTTP/1.1\r\nx: y\r\n\r\n"))
