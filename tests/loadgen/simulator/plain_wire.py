"""A client so plain that it hides nothing, and the recorded bytes to hold answers against.

Law: bytes are compared as they came from the socket; no client library of this project is used here.
"""

import json
import socket
from pathlib import Path
from typing import Any, Self

FIXTURES = Path(__file__).parents[2] / "fixtures"
MESSAGES = [{"role": "user", "content": "Say hello."}]


class Wire:
    """One connection. `ask` sends a request and returns (status, headers, body with the chunked framing removed)."""

    def __init__(self, port: int, timeout_s: float = 10) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "host: simulator", f"content-length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    def head(self) -> tuple[int, dict[str, str]]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return status, headers

    def chunk(self) -> bytes:
        """One HTTP chunk; b"" for the last."""
        size = int(self.file.readline(), 16)
        data = self.file.read(size)
        assert self.file.read(2) == b"\r\n"
        return data

    def rest(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return self.file.read(int(headers["content-length"]))
        chunks = []
        while data := self.chunk():
            chunks.append(data)
        return b"".join(chunks)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        self.send(method, path, body, **headers)
        status, got = self.head()
        return status, got, self.rest(got)


def events_of(body: bytes) -> list[Any]:
    """The JSON of each SSE event; "[DONE]" as it is."""
    payloads = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    return ["[DONE]" if payload == b"[DONE]" else json.loads(payload) for payload in payloads]


def recorded(name: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of what vLLM was recorded to send."""
    head, _, body = (FIXTURES / "wire" / name).read_bytes().partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:]), body
