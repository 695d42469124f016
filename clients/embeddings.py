"""The dialect of `/embeddings`: texts to vectors.

Knows the body and the answer, vectors as numbers or in base64. Knows nothing of HTTP; there is no stream here.
Invariant: an answer is whole when it has its data; vectors are in the order of the inputs, whatever the order they came in.
"""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from typing import TYPE_CHECKING, Any

import msgspec

from clients.completions import checked_prompt
from clients.envelope import Envelope
from clients.errors import Outcome, request_error
from clients.refusals import UNDECODABLE
from clients.wire_json import encode_body, read_envelope, unreadable_body

if TYPE_CHECKING:
    from clients.answer import Answer
    from clients.messages import Sampling


class _Item(msgspec.Struct, gc=False):
    embedding: list[float] | str
    index: int = 0


class _Body(Envelope, gc=False):
    data: list[_Item] | None = None


class _UnreadItem(msgspec.Struct, gc=False):
    embedding: msgspec.Raw
    index: int = 0


class _UnreadBody(Envelope, gc=False):
    data: list[_UnreadItem] | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_unread = msgspec.json.Decoder(_UnreadBody).decode  # measuring: numbers are not turned into objects only to be dropped


class Embeddings:
    """`/embeddings`. A prompt is a string, a list of strings or a list of token ids."""

    name = "embeddings"
    path = "/embeddings"

    def encode(
        self, model: str, prompt: str | list[str] | list[int], sampling: Sampling, *, stream: bool, continuous_usage: bool = False
    ) -> bytes:
        """The request body. Of the sampling parameters only extra_body says anything here (dimensions, encoding_format)."""
        assert not stream, "embeddings are not streamed"
        assert not continuous_usage, "embeddings are not streamed"
        return encode_body({"model": model, "input": checked_prompt(prompt)} | (sampling.extra_body or {}))

    def choices(self, prompt: Any, sampling: Sampling) -> int:  # noqa: ARG002  the protocol's
        """No finish reasons: the data are the end."""
        return 0

    def decode_event(self, data: bytes, now_ns: int, answer: Answer) -> None:  # noqa: ARG002  the protocol's
        """There is no stream of embeddings; a server that sends one is not understood."""
        answer.error = request_error(Outcome.BAD_CONTENT, "the server streamed events where embeddings were asked for")

    def decode_body(self, data: bytes, now_ns: int, answer: Answer) -> None:  # noqa: ARG002  vectors are no output event
        """The answer: vectors are kept if the answer keeps."""
        try:
            body = _decode_body(data) if answer.keep else _decode_unread(data)
            if isinstance(body, _Body) and body.data:
                answer.embeddings = [_vector(item.embedding) for item in sorted(body.data, key=_index)]
        except (*UNDECODABLE, binascii.Error, ValueError) as fault:
            unreadable_body(data, fault, answer)
            return
        read_envelope(body, answer)
        if body.usage is not None:
            answer.total_usage(body.usage)
        if not body.data and answer.error is None:
            answer.error = request_error(Outcome.BAD_CONTENT, "the answer holds no embeddings")


def _index(item: _Item) -> int:
    return item.index


def _vector(embedding: list[float] | str) -> list[float]:
    """base64 is of little-endian 32-bit floats (encoding_format of the OpenAI API)."""
    if not isinstance(embedding, str):
        return embedding
    floats = array("f", base64.b64decode(embedding, validate=True))
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tolist()
