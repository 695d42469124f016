"""The endpoints that can be spoken to, by name.

Knows what a dialect is and which there are; a new endpoint is one file and one line in the table.
Invariant: a dialect has no state: one instance serves all exchanges of a process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from clients.chat import Chat
from clients.completions import Completions
from clients.embeddings import Embeddings
from clients.refusals import in_stream_error, parse_retry_after, refusal

if TYPE_CHECKING:
    from clients.answer import Answer
    from clients.messages import Sampling

__all__ = ["DIALECTS", "Dialect", "in_stream_error", "parse_retry_after", "refusal"]  # refusals are spoken alike by all of them


class Dialect(Protocol):
    """How one endpoint is spoken: a body out, events or a body in."""

    @property
    def name(self) -> str:
        """The key in the table, the flag and the records."""

    @property
    def path(self) -> str:
        """Relative to the base URL, which ends in /v1."""

    def encode(self, model: str, prompt: Any, sampling: Sampling, *, stream: bool, continuous_usage: bool = False) -> bytes:
        """The request body; raises the item's error (INVALID_ITEM) for a prompt that cannot be sent."""

    def choices(self, prompt: Any, sampling: Sampling) -> int:
        """How many finish reasons make the answer whole."""

    def decode_event(self, data: bytes, now_ns: int, answer: Answer) -> None:
        """Writes one event of a stream into the answer, faults included; raises for nothing a server can send."""

    def decode_body(self, data: bytes, now_ns: int, answer: Answer) -> None:
        """Writes an answer that was not streamed into the answer, faults included; raises for nothing a server can send."""


DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (Chat(), Completions(), Embeddings())}
