"""The embeddings dialect: order, base64, what is no embedding."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from recordings import load

from clients.answer import Answer
from clients.dialects import DIALECTS
from clients.embeddings import Embeddings
from clients.errors import Outcome
from clients.messages import Sampling
from clients.usage import Usage

EMBEDDINGS = Embeddings()


def decoded(body: object, *, keep: bool = True) -> Answer:
    answer = Answer(keep)
    EMBEDDINGS.decode_body(body if isinstance(body, bytes) else json.dumps(body).encode(), 5, answer)
    return answer


def test_vectors_are_in_the_order_of_the_inputs():
    """A server may answer in any order: index says which is which."""
    answer = decoded(load("written/embeddings").body)
    assert answer.embeddings == [[1.0, 0.125], [0.5, -0.25]]
    assert (answer.usage, answer.id, answer.error, answer.events) == (Usage(6, 0), "embd-1", None, 0)


def test_measuring_keeps_no_vector_and_sees_the_same_faults():
    """Without keeping: usage, no vectors; an answer without data fails alike."""
    answer = decoded(load("written/embeddings").body, keep=False)
    assert (answer.embeddings, answer.usage, answer.error) == ([], Usage(6, 0), None)


def test_vectors_in_base64():
    """encoding_format base64 is little-endian 32-bit floats."""
    packed = base64.b64encode(struct.pack("<3f", 1.0, -0.5, 2.0)).decode()
    assert decoded({"data": [{"index": 0, "embedding": packed}]}).embeddings == [[1.0, -0.5, 2.0]]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"null",
        {"data": []},
        {},
        {"data": [{"index": 0}]},
        {"data": [{"index": 0, "embedding": ["x"]}]},
        {"data": [{"index": 0, "embedding": "???"}]},
        {"data": [{"index": 0, "embedding": "AAA="}]},  # two bytes: no float
    ],
)
def test_what_is_no_embedding_is_bad_content(body):
    """An answer without vectors is no success."""
    answer = decoded(body)
    assert answer.error is not None
    assert answer.error.outcome is Outcome.BAD_CONTENT
    assert answer.embeddings == []


def test_an_error_object_with_200_is_that_error():
    """The server's error outweighs the missing data."""
    answer = decoded({"error": {"message": "busy", "code": 503}})
    assert answer.error is not None
    assert answer.error.outcome is Outcome.OVERLOADED


def test_a_stream_of_embeddings_is_bad_content():
    """There is none."""
    answer = Answer()
    EMBEDDINGS.decode_event(b"{}", 1, answer)
    assert answer.error is not None
    assert answer.error.outcome is Outcome.BAD_CONTENT


def test_a_body_holds_the_inputs_and_extra_body_only():
    """max_tokens of a client's defaults means nothing here; dimensions comes by extra_body."""
    sampling = Sampling(max_tokens=5, extra_body={"dimensions": 8})
    assert json.loads(EMBEDDINGS.encode("m", ["a", "b"], sampling, stream=False)) == {"model": "m", "input": ["a", "b"], "dimensions": 8}
    assert EMBEDDINGS.choices(["a", "b"], sampling) == 0


def test_dialects_are_found_by_their_names():
    """The table's keys are the dialects' names; paths are relative to the base URL."""
    assert {name: dialect.path for name, dialect in DIALECTS.items()} == {
        "chat": "/chat/completions",
        "completions": "/completions",
        "embeddings": "/embeddings",
    }
    assert all(name == dialect.name for name, dialect in DIALECTS.items())
