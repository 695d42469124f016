"""Recorded answers for tests: the bytes of tests/fixtures/wire, split into status, headers and body.

Knows the files and chunked framing, and how to play a body into an Answer as an exchange does. Knows nothing of transports.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import HealthCheck, settings

from clients.answer import Answer
from clients.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clients.dialects import Dialect

# The same examples every time, none kept on disk, and no clock: the cores of a CI machine are shared.
steady = settings(derandomize=True, database=None, max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

WIRE = Path(__file__).parent.parent / "fixtures" / "wire"


class Recording(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def load(name: str) -> Recording:
    """`vllm/chat_stream_usage`; chunked framing is removed from the .raw ones."""
    head, _, body = (WIRE / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines)}
    if name.endswith(".raw"):
        body = _dechunked(body)
    return Recording(int(first.split()[1]), headers, body)


def _dechunked(body: bytes) -> bytes:
    chunks = []
    while (size := re.match(rb"([0-9a-f]+)\r\n", body)) is not None and int(size[1], 16):
        start, length = size.end(), int(size[1], 16)
        chunks.append(body[start : start + length])
        body = body[start + length + 2 :]
    return b"".join(chunks)


def streams(folder: str) -> list[str]:
    """The names of the recordings of a folder that are event streams."""
    names = sorted(str(path.relative_to(WIRE))[: -len(".http")] for path in (WIRE / folder).glob("*.http"))
    return [name for name in names if load(name).headers.get("content-type", "").startswith("text/event-stream")]


def dialect_name(name: str) -> str:
    return "completions" if "completions" in name else "chat"


def play(dialect: Dialect, blocks: Sequence[bytes], *, keep: bool = True, step_ns: int = 1_000_000) -> Answer:
    """An Answer from the blocks of a stream: block i is stamped (i + 1) * step_ns."""
    answer, decoder, now_ns = Answer(keep), EventDecoder(), 0
    for block in blocks:
        now_ns += step_ns
        for event in decoder.feed(block):
            dialect.decode_event(event, now_ns, answer)
    for event in decoder.flush():
        dialect.decode_event(event, now_ns, answer)
    return answer


def said(answer: Answer) -> dict[str, object]:
    """All that an answer says, without its stamps: what must not depend on how the bytes were cut."""
    choices = sorted({0, 1} | set(answer.finish_reasons))
    return {
        "id": answer.id,
        "model": answer.model,
        "usage": answer.usage,
        "finish": answer.finish_reasons,
        "done": answer.done,
        "error": repr(answer.error),
        "text": [answer.text(i) for i in choices],
        "reasoning": [answer.reasoning(i) for i in choices],
        "calls": [answer.tool_calls(i) for i in choices],
        "events": answer.events,
        "tokens": (answer.tokens_known, answer.event_tokens.tolist()),
    }
