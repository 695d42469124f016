"""Where requests go, as whom, and for how long they may take.

Knows URLs, keys, headers and deadlines; does no I/O but to see that a certificate file is there.
Invariant: an `Endpoint` that exists can be used: `parse` refuses everything else with one line that names the field, what it got
and what it takes, and neither a message nor a repr shows a credential.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from clients.errors import UsageError
from clients.secret import SHORTEST, Secret

_TAKES = "takes http://host[:port]/path or https://…, such as http://localhost:8000/v1"


_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")  # RFC 9110 5.6.2
_OWN_HEADERS = frozenset({"connection", "content-length", "content-type", "transfer-encoding", "accept-encoding", "expect"})


def check_header(name: str, value: str) -> None:
    """Raises UsageError for what cannot be a header; the value, which may be a key, is not in the message."""
    if not isinstance(name, str) or not name or not _TOKEN.issuperset(name):
        raise UsageError(f"headers: got the name {name!r}, takes letters, digits and hyphens")
    if name.lower() in _OWN_HEADERS:
        raise UsageError(f"headers: {name} is set by the transport, takes any other")
    if not isinstance(value, str):
        raise UsageError(f"headers: the value of {name} is {type(value).__name__}, takes a string")
    if any((ord(character) < 0x20 and character != "\t") or not 0x7F != ord(character) <= 0xFF for character in value):
        raise UsageError(f"headers: the value of {name} has a line break, a control or a character outside latin-1")


class Timeouts(msgspec.Struct, frozen=True):
    """Deadlines in seconds, each of its own; None = no limit. Raises UsageError for what is not a positive number.

    connect_s: from the start until the request is handed to a connection (address, TCP, TLS). first_byte_s: from the hand-over to
    the first byte of the body, not of the head: vLLM sends its head at once and the request waits after it. stall_s: the longest
    silence after that. total_s: from the start to the end.
    """

    connect_s: float | None = 10.0
    first_byte_s: float | None = 600.0
    stall_s: float | None = 300.0
    total_s: float | None = 3600.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf")):
                raise UsageError(f"{name}: got {value!r}, takes a number of seconds above 0, or None for no limit")

    @property
    def shortest_s(self) -> float | None:
        """The shortest of the deadlines, None where there is none."""
        return min((limit for limit in (self.connect_s, self.first_byte_s, self.stall_s, self.total_s) if limit is not None), default=None)


class Endpoint(msgspec.Struct, frozen=True):
    """One server's address. Made by `parse`; `base_url` has no trailing slash. `ca_file`: PEM of the authorities to trust."""

    base_url: str
    api_key: Secret | None = None
    headers: dict[str, str] = {}
    ca_file: str | None = None
    insecure: bool = False

    @classmethod
    def parse(
        cls,
        base_url: str,
        *,
        api_key: Secret | str | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        insecure: bool = False,
    ) -> Endpoint:
        """An endpoint from what a user typed. Raises UsageError, without ever showing a credential."""
        parts = _split(base_url)
        if headers is not None and not isinstance(headers, Mapping):
            raise UsageError(f"headers: got {type(headers).__name__}, takes a dict of names and values")
        if not isinstance(insecure, bool):
            raise UsageError(f"insecure: got {insecure!r}, takes True or False")
        for name, value in (headers or {}).items():
            check_header(name, value)
        if ca_file is not None:
            if insecure:
                raise UsageError("ca_file: has no use with insecure=True, which trusts every certificate; takes one of the two")
            if not isinstance(ca_file, str | os.PathLike) or not os.path.isfile(ca_file):
                raise UsageError(f"ca_file: there is no file {str(ca_file)!r}, takes a PEM file of certificates")
        return cls(
            base_url=f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}",
            api_key=api_key if api_key is None or isinstance(api_key, Secret) else Secret(api_key),
            headers=dict(headers or {}),
            ca_file=None if ca_file is None else os.fspath(ca_file),
            insecure=insecure,
        )

    @property
    def origin(self) -> str:
        """Scheme, host and port, without the path: `http://localhost:8000`."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    def url(self, path: str) -> str:
        """The URL of a dialect's path (which begins with a slash) under the base URL."""
        return self.base_url + path

    def request_headers(self) -> dict[str, str]:
        """What every request to this endpoint carries. The key as bearer token, unless a header of that name is given."""
        headers = dict(self.headers)
        if self.api_key is not None and not any(name.lower() == "authorization" for name in headers):
            headers["Authorization"] = f"Bearer {self.api_key.reveal()}"
        return headers

    @property
    def credentials(self) -> list[str]:
        """What must not be shown of what requests carry, the longest first: the key, and each word of the headers' values."""
        words = {word for value in self.request_headers().values() for word in value.split()}
        return sorted((word for word in words if len(word) >= SHORTEST), key=len, reverse=True)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # Header values may be keys (api-key, X-Auth-Token): only their names are shown.
        return [("base_url", self.base_url), ("api_key", self.api_key), ("headers", sorted(self.headers))]

    def __repr__(self) -> str:
        return f"Endpoint({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def _split(base_url: str) -> SplitResult:
    if not isinstance(base_url, str):
        raise UsageError(f"base_url: got {type(base_url).__name__}, {_TAKES}")
    try:
        parts = urlsplit(base_url)
        host, _port = parts.hostname, parts.port  # both raise for what they cannot read
    except ValueError as error:
        raise UsageError(f"base_url: {'has a port that is none' if 'ort' in str(error) else 'cannot be read as a URL'}, {_TAKES}") from None
    # First, because every later message shows the URL. Text before an @ may be a password even where no scheme was typed.
    if "@" in base_url:
        raise UsageError("base_url: has credentials in it (not shown here), takes a URL without; give a key by api_key or a header")
    if any(character <= " " or character == "\x7f" for character in base_url):
        raise UsageError(f"base_url: has white space or a control character, {_TAKES}")
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"base_url: got {base_url!r}, {_TAKES}")
    if parts.query or parts.fragment:
        raise UsageError(f"base_url: got {base_url.partition('?')[0].partition('#')[0]!r} with a query or fragment after it, {_TAKES}")
    return parts
