"""The bytes of answers, in the shapes that vLLM sends (tests hold them against recorded ones).

Knows JSON shapes, SSE and chunked framing. Must not know sockets, the engine or time.
Law: what is the same for every token of a choice is built once, before its first token; a token costs one concatenation.
"""

import base64
import struct
from collections.abc import Sequence as Seq
from typing import Any, Final

import msgspec

from loadgen.simulator.connection import head
from loadgen.simulator.dialect import Order
from loadgen.simulator.faults import unit_draw
from loadgen.simulator.prompts import Prompt

FINGERPRINT: Final = "simulator-uncalibrated"
_STATUS: Final = {
    200: b"200 OK",
    400: b"400 Bad Request",
    401: b"401 Unauthorized",
    404: b"404 Not Found",
    405: b"405 Method Not Allowed",
    429: b"429 Too Many Requests",
    500: b"500 Internal Server Error",
    503: b"503 Service Unavailable",
}
STREAM_HEAD: Final = head(_STATUS[200], [b"content-type: text/event-stream; charset=utf-8", b"vary: Origin"], None)
LAST_CHUNK: Final = b"0\r\n\r\n"

# ASCII, nothing to escape in JSON; one word is one token.
_TEXT: Final = (
    "the of and to in is for as on with by at from this that are be an or was it not which have has its more than state gate page "
    "line text table model value field order point phase qubit circuit matrix vector result figure section number system method "
    "measure between quantum through process"
)
WORDS: Final = tuple(b" " + word.encode() for word in _TEXT.split())
_LENGTHS: Final = frozenset(map(len, WORDS))


def json_response(status: int, value: Any, extra: Seq[bytes] = ()) -> bytes:
    """Head and JSON body."""
    body = msgspec.json.encode(value)
    return head(_STATUS[status], [b"content-type: application/json", *extra], len(body)) + body


def text_response(status: int, body: bytes, content_type: bytes, extra: Seq[bytes] = ()) -> bytes:
    """Head and a body of another type; an empty body has no type."""
    headers = [b"content-type: " + content_type, *extra] if body else list(extra)
    return head(_STATUS[status], headers, len(body)) + body


def event(payload: bytes) -> bytes:
    """One SSE event in one HTTP chunk, as vLLM sends it."""
    return b"%x\r\ndata: %b\n\n\r\n" % (len(payload) + 8, payload)


DONE: Final = event(b"[DONE]")


class Wording:
    """What the events of one request share. `created` is in seconds of the wall clock."""

    __slots__ = ("_finish_extra", "_head", "order", "prompt_tokens", "request_id")

    def __init__(self, order: Order, request_id: str, created: int) -> None:
        self.order = order
        self.request_id = request_id
        self.prompt_tokens = sum(prompt.tokens for prompt in order.prompts)
        kind = b"chat.completion.chunk" if order.chat else b"text_completion"
        name = msgspec.json.encode(order.model)
        self._head = b'{"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            msgspec.json.encode(request_id),
            kind,
            created,
            name,
        )
        self._finish_extra = b"" if order.include_usage else b',"system_fingerprint":"' + FINGERPRINT.encode() + b'"'

    def choice_head(self, index: int) -> bytes:
        return self._head + (b'{"index":%d,"delta":{"content":"' if self.order.chat else b'{"index":%d,"text":"') % index

    def tail(self, finish_reason: bytes | None) -> bytes:
        """After a token's text, up to the end of `choices`."""
        if finish_reason is None:
            return (
                b'"},"logprobs":null,"finish_reason":null,"token_ids":null}]'
                if self.order.chat
                else b'","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]'
            )
        if self.order.chat:
            return b'"},"logprobs":null,"finish_reason":"%b","stop_reason":null,"token_ids":null}]' % finish_reason
        return b'","logprobs":null,"finish_reason":"%b","stop_reason":null,"prompt_token_ids":null,"token_ids":null}]' % finish_reason

    def finish_end(self) -> bytes:
        return self._finish_extra + b"}"

    def role_event(self, index: int, prompt_tokens: int) -> bytes:
        """The first event of a chat choice; vLLM sends it with the first token."""
        choice = b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]' % index
        usage = _running_usage(prompt_tokens, 0) if self.order.continuous_usage else b""
        return event(self._head + choice + usage + b',"prompt_token_ids":null,"prompt_text":null}')

    def usage_event(self, completion_tokens: int) -> bytes:
        usage = b'],"usage":%b,"system_fingerprint":"%b"}' % (_usage(self.prompt_tokens, completion_tokens), FINGERPRINT.encode())
        return event(self._head + usage)


class Choice:
    """One choice of one request: a sequence's tokens as events. `finish_reason` is what its last token will carry."""

    __slots__ = ("_ends", "_heads", "_salt", "answer", "finish_reason", "index", "prompt_tokens", "tokens", "wording")

    def __init__(self, wording: Wording, index: int, prompt: Prompt, finish_reason: str, salt: int) -> None:
        self.wording = wording
        self.index = index
        self.prompt_tokens = prompt.tokens
        self.finish_reason = finish_reason
        self.tokens = 0
        self.answer: Any = None  # set by the answer that owns it
        self._salt = salt
        self._heads: dict[int, bytes] = {}
        self._ends = b""
        if wording.order.stream and not wording.order.continuous_usage:
            start = wording.choice_head(index)
            end = wording.tail(None) + b"}"
            fixed = len(start) + len(end) + 8  # "data: " and the two newlines
            self._heads = {length: b"%x\r\ndata: %b" % (fixed + length, start) for length in _LENGTHS}
            self._ends = end + b"\n\n\r\n"

    def word(self, token: int) -> bytes:
        """The text of a token. The token that ends an answer by itself (EOS) has none."""
        return WORDS[(self._salt + token * 7) % len(WORDS)]

    def next_event(self, *, last: bool) -> bytes:
        """The events that the next token brings."""
        token = self.tokens
        self.tokens = token + 1
        if not last and self._heads and token:
            word = WORDS[(self._salt + token * 7) % len(WORDS)]
            return self._heads[len(word)] + word + self._ends
        wording = self.wording
        word = b"" if last and self.finish_reason == "stop" else self.word(token)
        payload = wording.choice_head(self.index) + word + wording.tail(self.finish_reason.encode() if last else None)
        if wording.order.continuous_usage:
            payload += _running_usage(self.prompt_tokens, self.tokens)
        chunk = event(payload + (wording.finish_end() if last else b"}"))
        if token == 0 and wording.order.chat:
            return wording.role_event(self.index, self.prompt_tokens) + chunk
        return chunk

    def middle_event(self) -> bytes:
        """The event of one fixed word: what the metronome repeats between the first token and the last."""
        word = self.word(1)
        return self._heads[len(word)] + word + self._ends

    def text(self) -> str:
        """The whole text, for an answer that is not streamed."""
        count = self.tokens - 1 if self.finish_reason == "stop" else self.tokens
        return b"".join(map(self.word, range(count))).decode()


def whole_answer(wording: Wording, choices: Seq[Choice], created: int) -> bytes:
    """Head and body of a chat or text completion that is not streamed."""
    order = wording.order
    bodies: list[dict[str, Any]] = []
    for choice in choices:
        end = {"logprobs": None, "finish_reason": choice.finish_reason, "stop_reason": None, "token_ids": None}
        if order.chat:
            message = {"role": "assistant", "content": choice.text(), "refusal": None, "annotations": None, "audio": None}
            message |= {"function_call": None, "reasoning": None}
            bodies.append({"index": choice.index, "message": message, **end, "routed_experts": None})
        else:
            extra = {"prompt_logprobs": None, "prompt_token_ids": None, "routed_experts": None}
            bodies.append({"index": choice.index, "text": choice.text(), **end, **extra})
    completion = sum(choice.tokens for choice in choices)
    answer: dict[str, Any] = {
        "id": wording.request_id,
        "object": "chat.completion" if order.chat else "text_completion",
        "created": created,
        "model": order.model,
        "choices": bodies,
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": {
            "prompt_tokens": wording.prompt_tokens,
            "total_tokens": wording.prompt_tokens + completion,
            "completion_tokens": completion,
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        },
    }
    if order.chat:
        answer |= {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
    answer |= {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
    return json_response(200, answer)


def embedding_answer(wording: Wording, dim: int, seed: int, created: int) -> bytes:
    """Head and body of an embedding answer: unit-length noise, seeded by the prompt's length and place."""
    data = []
    for index, prompt in enumerate(wording.order.prompts):
        raw = [unit_draw(seed + prompt.tokens, number, stream=index) - 0.5 for number in range(dim)]
        norm = sum(value * value for value in raw) ** 0.5
        vector = [value / norm for value in raw]
        packed: Any = vector
        if wording.order.base64:
            packed = base64.b64encode(struct.pack(f"<{dim}f", *vector)).decode()
        data.append({"index": index, "object": "embedding", "embedding": packed})
    tokens = wording.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
    answer = {"id": wording.request_id, "object": "list", "created": created, "model": wording.order.model, "data": data, "usage": usage}
    return json_response(200, answer)


def _usage(prompt: int, completion: int) -> bytes:
    return b'{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % (prompt, prompt + completion, completion)


def _running_usage(prompt: int, completion: int) -> bytes:
    return b',"usage":%b,"completion_tokens_details":null}' % _usage(prompt, completion)[:-1]
