"""What a caller gets for one prompt: the answer by value, or why there is none, and how long each part took.

Knows how an exchange reads to a user. Holds no request, body or connection, and of the answer one string for each choice rather
than its pieces: a batch's results stay small and pickle. Measuring reads exchanges, not this.
Law: `ok` is true exactly when `error` is None, and what arrived before an error is still there.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import msgspec

from clients.errors import Outcome, RequestError
from clients.pieces import ToolCall

if TYPE_CHECKING:
    from clients.exchange import Exchange
    from clients.usage import Usage

_REPR_TEXT = 40  # characters of text in a repr: enough to recognise an answer in a list of them


class Timing(msgspec.Struct, frozen=True):
    """Seconds, from the moment the request was due (asked for, or its slot came free); None where it did not happen.

    queue_s: until its bytes were handed to the socket; retries and their waits are in it, so `e2e_s - queue_s` is the service
    time of the last attempt. ttft_s: until the first output (content, reasoning or tool call). first_answer_s: until the first
    output that is not reasoning. e2e_s: until the end. itl_s: gaps between successive output events of the stream.
    """

    queue_s: float | None
    ttft_s: float | None
    first_answer_s: float | None
    e2e_s: float
    itl_s: list[float]


class Choice(msgspec.Struct, frozen=True):
    """One of the n answers to a prompt; finish_reason None: the server did not finish it."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = []
    finish_reason: str | None = None


class Stamps(msgspec.Struct, frozen=True):
    """When things happened, perf_counter_ns; 0 = did not. gaps_us: microseconds between output events."""

    due_ns: int
    end_ns: int
    sent_ns: int = 0
    first_output_ns: int = 0
    first_answer_ns: int = 0
    gaps_us: array[int] = array("I")


class Completion:
    """One prompt's result. `str(completion)` is its text; `completion.ok` says whether it is whole, `error` why it is not.

    choices: at least one; the first one's fields stand on the completion itself. usage: None where the server told none.
    status: HTTP's, 0 without an answer. attempts: the number of the attempt that ended it, from 1; 0 where nothing was sent.
    """

    __slots__ = ("attempts", "choices", "embeddings", "error", "model", "outcome", "request_id", "stamps", "status", "usage")

    def __init__(self, stamps: Stamps, error: RequestError | None) -> None:
        self.stamps = stamps
        self.error = error
        self.outcome = Outcome.OK if error is None else error.outcome
        self.choices: list[Choice] = [Choice()]
        self.embeddings: list[list[float]] = []
        self.usage: Usage | None = None
        self.model = ""
        self.request_id = ""
        self.status = 0
        self.attempts = 0

    @classmethod
    def of(cls, exchange: Exchange) -> Completion:
        """The result that an exchange ended with."""
        assert exchange.outcome is not None, "the exchange is still in flight"
        answer = exchange.answer
        completion = cls(
            Stamps(
                exchange.due_ns,
                exchange.end_ns,
                exchange.sent_ns,
                answer.first_output_ns,
                answer.first_answer_ns,
                answer.gaps_us,
            ),
            exchange.error,
        )
        count = max(exchange.request.choices, 1 + max(answer.finish_reasons, default=0))
        completion.choices = [
            Choice(answer.text(i), answer.reasoning(i), answer.tool_calls(i), answer.finish_reasons.get(i)) for i in range(count)
        ]
        completion.embeddings = answer.embeddings
        completion.usage = answer.usage
        completion.model = answer.model
        completion.request_id = exchange.request_id or answer.id
        completion.status = exchange.status
        completion.attempts = exchange.attempt
        return completion

    @classmethod
    def unsent(cls, error: RequestError, due_ns: int, end_ns: int) -> Completion:
        """The result of an item that could not be sent."""
        return cls(Stamps(due_ns, end_ns), error)

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def reasoning(self) -> str:
        return self.choices[0].reasoning

    @property
    def tool_calls(self) -> list[ToolCall]:
        return self.choices[0].tool_calls

    @property
    def finish_reason(self) -> str | None:
        return self.choices[0].finish_reason

    @property
    def timing(self) -> Timing:
        """How long each part took; see `Timing`."""
        stamps = self.stamps
        return Timing(
            queue_s=_since(stamps.due_ns, stamps.sent_ns),
            ttft_s=_since(stamps.due_ns, stamps.first_output_ns),
            first_answer_s=_since(stamps.due_ns, stamps.first_answer_ns),
            e2e_s=(stamps.end_ns - stamps.due_ns) / 1e9,
            itl_s=[gap_us / 1e6 for gap_us in stamps.gaps_us],
        )

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        e2e_s = (self.stamps.end_ns - self.stamps.due_ns) / 1e9
        if self.error is not None:
            return f"<Completion {self.outcome.label} {e2e_s:.2f}s: {self.error}>"
        tokens = f" {self.usage.completion_tokens} tokens" if self.usage else ""
        text = self.text if len(self.text) <= _REPR_TEXT else f"{self.text[:_REPR_TEXT]}…"
        return f"<Completion ok{tokens} {e2e_s:.2f}s {text!r}>"


def _since(due_ns: int, then_ns: int) -> float | None:
    return (then_ns - due_ns) / 1e9 if then_ns else None
