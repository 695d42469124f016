"""Refusals: every server's error shapes, and the wait it asks for."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import load, steady

from clients.errors import AuthenticationError, ModelMissingError, Outcome
from clients.refusals import in_stream_error, parse_retry_after, refusal

NOW = 1_795_357_340.0

# name: outcome, code, part of the message
SHAPES = {
    "vllm/err_unknown_model": (Outcome.MODEL_MISSING, "NotFoundError", "The model `nope` does not exist"),
    "vllm/err_not_found": (Outcome.NOT_FOUND, "", "HTTP 404: Not Found"),  # detail, no error
    "vllm/err_method_not_allowed": (Outcome.BAD_REQUEST, "", "HTTP 405: Method Not Allowed"),
    "vllm/err_no_api_key": (Outcome.UNAUTHORIZED, "", "HTTP 401: Unauthorized"),  # error is a string
    "vllm/err_prompt_too_long_stream": (Outcome.BAD_REQUEST, "BadRequestError", "maximum context length is 2048"),
    "vllm/err_bad_json": (Outcome.BAD_REQUEST, "Bad Request", "json_invalid"),
    "vllm/err_queue_full_stream": (Outcome.OVERLOADED, "Service Unavailable", "currently busy"),
    "vllm/err_engine_killed_nonstream": (Outcome.SERVER_FAILED, "InternalServerError", "EngineCore"),
    "vllm-vl/err_file_url": (Outcome.SERVER_FAILED, "InternalServerError", "HTTP 500"),
    "vllm-vl/err_three_images": (Outcome.BAD_REQUEST, "BadRequestError", "HTTP 400"),
    "written/llama_server_err_context": (Outcome.BAD_REQUEST, "exceed_context_size_error", "context size"),
    "written/llama_server_err_loading": (Outcome.OVERLOADED, "unavailable_error", "Loading model"),
    "written/llama_server_err_key": (Outcome.UNAUTHORIZED, "authentication_error", "Invalid API Key"),
    "written/llama_cpp_server_err_context": (Outcome.BAD_REQUEST, "context_length_exceeded", "2048 tokens"),  # code is a word
    "written/llama_cpp_server_err_json": (Outcome.SERVER_FAILED, "", "HTTP 500: Internal Server Error"),  # text/plain
    "written/transformers_err_model": (Outcome.BAD_REQUEST, "", "Model nope is not available"),
    "written/transformers_err_json": (Outcome.BAD_REQUEST, "", "HTTP 422: body.68: JSON decode error"),  # detail is a list
    "written/litellm_err_rate": (Outcome.RATE_LIMITED, "throttling_error", "RateLimitError"),
    "written/litellm_err_no_db": (Outcome.BAD_REQUEST, "no_db_connection", "No connected db."),
    "written/litellm_err_model_404": (Outcome.MODEL_MISSING, "404", "does not exist"),
    "written/gateway_err_html": (Outcome.SERVER_FAILED, "", "HTTP 502: 502 Bad Gateway"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_servers_shape_is_read(name):
    """The status decides the kind; the server's words are in the message and its own word in the code."""
    outcome, code, words = SHAPES[name]
    recorded = load(name)
    error = refusal(recorded.status, recorded.body, 2.5, "req-1")
    assert (error.outcome, error.code, error.status) == (outcome, code, recorded.status)
    assert words in str(error)
    assert (error.retry_after_s, error.request_id) == (2.5, "req-1")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (301, Outcome.REDIRECTED),
        (307, Outcome.REDIRECTED),
        (400, Outcome.BAD_REQUEST),
        (401, Outcome.UNAUTHORIZED),
        (403, Outcome.UNAUTHORIZED),
        (404, Outcome.NOT_FOUND),
        (408, Outcome.BAD_REQUEST),
        (409, Outcome.BAD_REQUEST),
        (413, Outcome.BAD_REQUEST),
        (429, Outcome.RATE_LIMITED),
        (500, Outcome.SERVER_FAILED),
        (503, Outcome.OVERLOADED),
        (504, Outcome.SERVER_FAILED),
        (529, Outcome.OVERLOADED),
        (199, Outcome.PROTOCOL),
    ],
)
def test_an_empty_body_leaves_the_status(status, outcome):
    """Without a body the status says it all."""
    error = refusal(status, b"")
    assert (error.outcome, str(error), error.code) == (outcome, f"HTTP {status}", "")


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"error":{"message":"x","code":"model_not_found"}}', Outcome.MODEL_MISSING),
        (b'{"error":{"message":"x","type":"NotFoundError"}}', Outcome.MODEL_MISSING),
        (b'{"object":"error","message":"The model `a` does not exist.","type":"NotFoundError","code":404}', Outcome.MODEL_MISSING),
        (b'{"error":"model \'a\' not found"}', Outcome.MODEL_MISSING),
        (b'{"detail":"Not Found"}', Outcome.NOT_FOUND),
        (b'{"error":{"message":"route does not exist"}}', Outcome.NOT_FOUND),
        (b"404 page not found", Outcome.NOT_FOUND),
        (b"<html><title>404</title>model zoo</html>", Outcome.NOT_FOUND),
        (b"", Outcome.NOT_FOUND),
    ],
)
def test_a_404_is_a_missing_model_only_if_it_says_so(body, outcome):
    """Other 404s may be rate limiting or a wrong path: the retry rules tell them apart, not the body."""
    error = refusal(404, body)
    assert error.outcome is outcome
    assert isinstance(error, ModelMissingError) == (outcome is Outcome.MODEL_MISSING)


@pytest.mark.parametrize(
    ("told", "outcome", "status"),
    [
        ({"message": "m", "code": 503}, Outcome.OVERLOADED, 503),
        ({"message": "m", "code": "503"}, Outcome.OVERLOADED, 503),
        ({"message": "m", "code": 429}, Outcome.RATE_LIMITED, 429),
        ({"message": "m", "type": None, "code": "500"}, Outcome.ERROR_IN_STREAM, 500),
        ({"message": "m", "code": 400}, Outcome.ERROR_IN_STREAM, 400),
        ({"message": "m", "code": "rate_limit_exceeded"}, Outcome.RATE_LIMITED, 0),
        ({"message": "m", "type": "Service Unavailable"}, Outcome.OVERLOADED, 0),
        ({"message": "m", "type": "overloaded_error"}, Outcome.OVERLOADED, 0),
        ({"message": "m", "code": 7}, Outcome.ERROR_IN_STREAM, 0),
        ({"code": True}, Outcome.ERROR_IN_STREAM, 0),
        ("CUDA error", Outcome.ERROR_IN_STREAM, 0),
        ([1], Outcome.ERROR_IN_STREAM, 0),
        (True, Outcome.ERROR_IN_STREAM, 0),
        ({"message": {"a": 1}}, Outcome.ERROR_IN_STREAM, 0),
    ],
)
def test_errors_inside_an_answer_take_their_kind_from_the_code(told, outcome, status):
    """An int, digits as a string, a word, or no code at all."""
    error = in_stream_error(told)
    assert (error.outcome, error.status) == (outcome, status)
    assert str(error).startswith("error in the answer: ")


def test_keys_that_a_server_repeats_are_not_repeated():
    """LiteLLM tells which key it refused; others echo the whole header."""
    recorded = load("written/litellm_err_rate")
    assert "sk-abcdef" not in str(refusal(recorded.status, recorded.body))
    error = refusal(401, b'{"error":{"message":"bad header Authorization: Bearer abc.DEF-123 sk-proj-99aa_bb"}}')
    assert isinstance(error, AuthenticationError)
    assert str(error) == "HTTP 401: bad header Authorization: Bearer *** sk-***"
    assert "abcdef" not in str(in_stream_error("key sk-abcdef123"))


def test_a_page_of_html_becomes_one_short_line():
    """A gateway's page is known by its title; without one, by its first words."""
    assert str(refusal(502, b"<html><title>Bad\n &amp; worse</title>" + b"x" * 10**6)) == "HTTP 502: Bad & worse"
    assert len(str(refusal(500, b"x" * 10**6))) < 250
    assert len(str(refusal(400, b'{"error":{"message":"' + b"x" * 10**6 + b'"}}'))) <= 1024


@steady
@given(st.integers(300, 599), st.binary(max_size=80))
def test_no_body_makes_a_refusal_raise(status, body):
    """Any bytes, whatever the status."""
    refusal(status, body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "detail", "message", "type", "code", "loc", "msg"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@steady
@given(json_values)
def test_no_json_makes_a_refusal_raise(value):
    """Any JSON under the names that are read."""
    import json

    refusal(400, json.dumps(value).encode())
    in_stream_error(value)


def http_date(offset_s: float) -> str:
    return email.utils.formatdate(NOW + offset_s, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 3 "}, 3.0),
        ({"retry-after": "121"}, 121.0),
        ({"retry-after": "1e9"}, 1e9),  # the retry policy has the limit, not the reader
        ({"retry-after": "-10"}, None),
        ({"retry-after": "-0.1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Zun, 29 Sep 2023 16:26:27 GMT"}, 0.0),  # past; the name of the day is not read
        ({"retry-after": http_date(0)}, 0.0),
        ({"retry-after": http_date(60)}, 60.0),
        ({"retry-after": http_date(-60)}, 0.0),
        ({"retry-after": http_date(1e6)}, 1e6),
        ({"retry-after": "Fri, 99 Sep 99999 16:26:27 GMT"}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9.0),
        ({"llm_provider-retry-after": "60"}, 60.0),
        ({"retry-after": "7", "llm_provider-retry-after": "60"}, 7.0),
        ({"retry-after": "soon", "llm_provider-retry-after": "60"}, 60.0),
    ],
)
def test_the_wait_a_server_asks_for(headers, wait):
    """Seconds, milliseconds or a date; what cannot be read is no wait."""
    assert parse_retry_after(headers, NOW) == wait


def test_litellms_429_has_its_wait_in_its_own_header():
    """There is no Retry-After beside it."""
    assert parse_retry_after(load("written/litellm_err_rate").headers, NOW) == 60.0


@steady
@given(st.text(max_size=40) | st.from_regex(r"\w{3}, \d{1,3} (Sep|Feb) \d{1,6} \d{1,3}:\d{1,3}:\d{1,3} ([+-]\d{1,6}|GMT)", fullmatch=True))
def test_no_header_makes_the_reader_raise(value):
    """Any text: a wait that is a finite number from 0, or none."""
    wait = parse_retry_after({"retry-after": value, "retry-after-ms": value}, NOW)
    assert wait is None or 0 <= wait < float("inf")
