"""What is an endpoint, and what is refused as one."""

from __future__ import annotations

import pickle

import pytest

from clients.endpoint import Endpoint, Timeouts
from clients.errors import UsageError
from clients.secret import Secret


@pytest.mark.parametrize(
    ("typed", "base_url", "origin"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1", "http://localhost:8000"),
        ("http://localhost:8000/v1///", "http://localhost:8000/v1", "http://localhost:8000"),
        ("https://models.test", "https://models.test", "https://models.test"),
        ("https://models.test/team/a/v1", "https://models.test/team/a/v1", "https://models.test"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1", "http://[::1]:8000"),
        ("HTTP://host/v1", "http://host/v1", "http://host"),
    ],
)
def test_a_base_url_is_kept_without_its_last_slash(typed: str, base_url: str, origin: str) -> None:
    """Paths are appended to it as it is; no /v1 is guessed."""
    endpoint = Endpoint.parse(typed)
    assert (endpoint.base_url, endpoint.origin) == (base_url, origin)
    assert endpoint.url("/chat/completions") == base_url + "/chat/completions"


@pytest.mark.parametrize(
    "typed",
    [
        "localhost:8000/v1",  # no scheme
        "",
        "http://",
        "http:///v1",
        "ftp://host/v1",
        "unix:///run/vllm.sock",
        "http://host:port/v1",
        "http://host:99999/v1",
        "http://host:8000/v1?key=hush",
        "http://host:8000/v1#hush",
        "http://host:8000/v1\r\nx: hush",
        "http://ho st/v1",
        "http://[::1/v1",
        "http://user:hush@host/v1",
        "user:hush@host/v1",
        "http://hush@host:99999/v1",
    ],
)
def test_what_is_no_base_url_is_refused_in_one_line_without_secrets(typed: str) -> None:
    """The line names the field and what it takes; credentials and queries are never repeated."""
    with pytest.raises(UsageError) as refused:
        Endpoint.parse(typed)
    message = str(refused.value)
    assert message.startswith("base_url: ")
    assert "takes" in message
    assert "hush" not in message
    assert "\n" not in message


def test_the_key_is_sent_and_never_shown() -> None:
    """As a bearer token, unless the headers say who asks; a repr shows header names only."""
    endpoint = Endpoint.parse("http://h/v1", api_key="sk-hush", headers={"X-Auth": "hush"})
    assert endpoint.request_headers() == {"X-Auth": "hush", "Authorization": "Bearer sk-hush"}
    assert "hush" not in repr(endpoint)
    assert "X-Auth" in repr(endpoint)
    own = Endpoint.parse("http://h/v1", api_key=Secret("sk-hush"), headers={"authorization": "Basic abc"})
    assert own.request_headers() == {"authorization": "Basic abc"}
    assert Endpoint.parse("http://h/v1").request_headers() == {}


def test_the_credentials_are_the_key_and_the_words_of_header_values() -> None:
    """The longest first. A word of under 8 characters is none: EMPTY is what many give who need no key."""
    headers = {"X-Auth": "Token hush-hush-hush", "X-Org": "acme"}
    assert Endpoint.parse("http://h", api_key="verysecret", headers=headers).credentials == ["hush-hush-hush", "verysecret"]
    assert Endpoint.parse("http://h", api_key="EMPTY").credentials == []


def test_an_endpoint_pickles_as_its_settings() -> None:
    """A client that moves to another process takes its key along."""
    endpoint = Endpoint.parse("http://h/v1", api_key="sk-1", insecure=True)
    assert pickle.loads(pickle.dumps(endpoint)) == endpoint


def test_tls_settings_are_checked_before_use(tmp_path) -> None:
    """A certificate file must exist, and makes no sense where every certificate is trusted."""
    with pytest.raises(UsageError, match="ca_file: there is no file"):
        Endpoint.parse("https://h", ca_file=tmp_path / "none.pem")
    there = tmp_path / "ca.pem"
    there.touch()
    with pytest.raises(UsageError, match="insecure"):
        Endpoint.parse("https://h", ca_file=there, insecure=True)


def test_headers_that_would_break_a_request_are_refused() -> None:
    """Line breaks would inject headers; framing is the transport's."""
    for name, value in (("a b", "1"), ("x", "1\r\ny: hush"), ("Transfer-Encoding", "chunked")):
        with pytest.raises(UsageError, match="headers: ") as refused:
            Endpoint.parse("http://h", headers={name: value})
        assert "hush" not in str(refused.value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "5"])
def test_a_deadline_is_a_positive_number_or_none(value: object) -> None:
    """And the line names which one it was."""
    with pytest.raises(UsageError, match="^stall_s: got"):
        Timeouts(stall_s=value)
    assert Timeouts(connect_s=None, first_byte_s=None, stall_s=None, total_s=None).shortest_s is None
    assert Timeouts().shortest_s == 10
