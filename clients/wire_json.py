"""JSON as all endpoints write and read it: request bodies, and what answers have in common beside their choices.

Knows orjson, how a body is put together, and what is no choice: `[DONE]`, `null`, an error, a usage chunk of its own.
Knows nothing of what a choice holds: that is each dialect's.
Invariant: a body that cannot be written raises the item's error; nothing that a server can send raises here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from clients.envelope import OldError
from clients.messages import invalid_item
from clients.refusals import UNDECODABLE, bad_body, bad_event, in_stream_error

if TYPE_CHECKING:
    from clients.answer import Answer
    from clients.envelope import Envelope
    from clients.messages import Sampling


_decode_old_error = msgspec.json.Decoder(OldError).decode


def encode_body(fields: dict[str, Any]) -> bytes:
    """The bytes of a request body. Raises the item's error for what JSON cannot hold (a lone surrogate, an integer over 64 bits)."""
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError as fault:
        raise invalid_item(f"the request cannot be written as JSON: {fault}") from None


def generation_body(fields: dict[str, Any], sampling: Sampling, *, stream: bool, continuous_usage: bool) -> bytes:
    """The body of a generation. A stream asks for usage: most servers send it only then."""
    body = fields | sampling.as_body()
    if stream:
        options = {"include_usage": True}
        if continuous_usage:
            options["continuous_usage_stats"] = True
        body["stream"] = True
        told = body.get("stream_options", {})
        if isinstance(told, dict):  # else the caller's null stands, for a server that takes no such options
            body["stream_options"] = options | told
    return encode_body(body)


def unreadable_event(data: bytes, fault: Exception, answer: Answer) -> None:
    """An event that is not JSON of the known shape. `[DONE]` is looked for here, off the path of every other event."""
    word = data.strip()
    if word == b"[DONE]":
        answer.done = True
    elif word and answer.error is None:  # an empty event is a sign of life of some proxies
        answer.error = bad_event(data, fault)


def unreadable_body(data: bytes, fault: Exception, answer: Answer) -> None:
    """A body that is not JSON of the known shape."""
    answer.error = bad_body(data, fault)


def read_envelope(envelope: Envelope, answer: Answer) -> None:
    """Notes who answered, and an error if there is one: the first stands."""
    if not answer.id and envelope.id:
        answer.id = envelope.id
        answer.model = envelope.model or ""
    if envelope.error and answer.error is None:
        answer.error = in_stream_error(envelope.error)


def read_without_choices(chunk: Envelope, data: bytes, answer: Answer) -> None:
    """A chunk that has no choices: an error, a usage chunk, or nothing that concerns us."""
    read_envelope(chunk, answer)
    if chunk.usage is not None:
        answer.total_usage(chunk.usage)
    elif not chunk.error and b'"error"' in data:
        try:
            told = _decode_old_error(data)
        except UNDECODABLE as fault:
            unreadable_event(data, fault, answer)
            return
        if told.object == "error" and answer.error is None:
            answer.error = in_stream_error(msgspec.structs.asdict(told))
