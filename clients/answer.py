"""What a server said to one request, and when its output arrived.

Knows choices, usage, finish reasons, and the stamps of output events. Knows nothing of JSON, SSE or HTTP: dialects write into it.
Invariant: `output` is the one place that stamps; `gaps_us` has one entry less than there are events and adds up to the offset of
the last; with `keep=False` nothing here grows with the text, only four bytes for each event (five, where events are of several tokens).
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from clients.pieces import Piece, ToolCall
from clients.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clients.errors import RequestError
    from clients.pieces import ToolPart
    from clients.usage import UsageObject

GAP_LIMIT_US = 2**32 - 1  # records hold a gap as uint32: 71 minutes, longer than any total timeout in use
# Gaps that are kept in one piece: an array that grows to 16 kB leaves as much behind in pieces that nothing fits, 2,000 streams of them
# 30 MB. 512 of them are 2 kB.
_GAPS_IN_BLOCK = 512
EVENT_TOKENS_LIMIT = 255  # records hold the tokens of an event as uint8: 255 reads "255 or more"


class _Choice:
    """The kept text of one choice, in the pieces it came in."""

    __slots__ = ("calls", "reasoning", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: dict[int, ToolCall] = {}

    def add_part(self, part: ToolPart) -> None:
        place = part.place
        if place is None:
            last = max(self.calls, default=-1)
            opens = last < 0 or (part.id and part.id != self.calls[last].id)
            place = last + 1 if opens else last
        call = self.calls.get(place)
        if call is None:
            call = self.calls[place] = ToolCall("", "", "")
        call.id = part.id or call.id
        call.name += part.name
        call.arguments += part.arguments


class Answer:
    """What came back: one per exchange, mutable until the exchange ends.

    keep: whether text, reasoning, tool calls and embeddings are kept (a pipeline), or only counts and stamps (measuring).
    Stamps are perf_counter_ns, 0 where there is none. An *output event* carries content, reasoning or tool-call text.
    """

    __slots__ = (
        "_choices",
        "_counted",
        "_full_gaps",
        "_gaps",
        "_last_us",
        "_tokens",
        "_total",
        "_total_finished",
        "_usages",
        "done",
        "embeddings",
        "error",
        "events",
        "finish_reasons",
        "first_answer_ns",
        "first_event_tokens",
        "first_output_ns",
        "id",
        "keep",
        "last_output_ns",
        "listener",
        "model",
        "tokens_known",
    )

    def __init__(self, keep: bool = True) -> None:
        self.keep = keep
        self.id = ""
        self.model = ""
        self.finish_reasons: dict[int, str] = {}  # by choice; the server's word, known to us or not
        self.done = False  # [DONE] was seen: what comes after it is ignored
        self.error: RequestError | None = None  # the first error object or undecodable event of the stream or body
        self.embeddings: list[list[float]] = []
        self.listener: Callable[[Piece], None] | None = None
        self.events = 0
        self.first_output_ns = 0
        self.last_output_ns = 0
        self.first_answer_ns = 0
        self._gaps = array("I")  # the latest; those before them, in blocks
        self._full_gaps: list[bytes] = []
        self._tokens: array[int] | None = None  # of each event; None while each has one, as nearly always
        self.first_event_tokens = 0  # exact, where event_tokens[0] saturates; 0 = unknown
        self.tokens_known = False
        self._last_us = 0
        self._choices: dict[int, _Choice] = {}
        self._counted: dict[int, int] = {}  # completion_tokens of each choice at its last output event
        self._usages: dict[int, UsageObject] = {}  # the latest usage that came with a choice
        self._total: Usage | None = None
        self._total_finished = 0

    def __repr__(self) -> str:
        ended = ",".join(self.finish_reasons.values()) or "unfinished"
        return f"<Answer {self.id or '?'} events={self.events} {ended}{' error' if self.error else ''}>"

    def output(self, now_ns: int, answering: bool, tokens: int) -> None:
        """An output event arrived at now_ns; answering: it holds more than reasoning; tokens: how many, -1 where not known.

        One event of unknown size makes the sizes of all unknown: half a list would be read as a whole one.
        """
        if self.events:
            offset_us = (now_ns - self.first_output_ns + 500) // 1000
            gap_us = offset_us - self._last_us
            gaps = self._gaps
            gaps.append(gap_us if gap_us <= GAP_LIMIT_US else GAP_LIMIT_US)  # noqa: FURB136  a call costs more than the rest
            if len(gaps) == _GAPS_IN_BLOCK:
                self._full_gaps.append(gaps.tobytes())
                self._gaps = array("I")
            self._last_us = offset_us
            if self.tokens_known:
                if tokens >= 0:
                    if tokens != 1 or self._tokens is not None:
                        self._add_tokens(tokens)
                else:
                    self.tokens_known = False
                    self._tokens = None
                    self.first_event_tokens = 0
        else:
            self.first_output_ns = now_ns
            if tokens >= 0:
                self.tokens_known = True
                self.first_event_tokens = tokens
                if tokens != 1:
                    self._add_tokens(tokens)
        if answering and not self.first_answer_ns:
            self.first_answer_ns = now_ns
        self.events += 1
        self.last_output_ns = now_ns

    def _add_tokens(self, tokens: int) -> None:
        if self._tokens is None:
            self._tokens = array("B", b"\1" * self.events)  # of the events before this one
        self._tokens.append(min(tokens, EVENT_TOKENS_LIMIT))

    @property
    def gaps_us(self) -> array[int]:
        """Microseconds between output events, made anew by each call."""
        gaps = array("I", b"".join(self._full_gaps))
        gaps.extend(self._gaps)
        return gaps

    @property
    def event_tokens(self) -> array[int]:
        """Tokens of each output event, made anew by each call; empty where they are not known."""
        if self._tokens is not None or not self.tokens_known:
            return array("B", self._tokens or b"")
        return array("B", b"\1" * self.events)

    @property
    def uneven_tokens(self) -> bytes:
        """The same as bytes where they are known and some event has not one; else nothing."""
        return b"" if self._tokens is None else self._tokens.tobytes()

    def add(self, choice: int, text: str, reasoning: str = "", parts: tuple[ToolPart, ...] = ()) -> None:
        """What an event added to a choice: kept if this answer keeps, and told to the listener if there is one."""
        if self.keep:
            kept = self._choices.get(choice)
            if kept is None:
                kept = self._choices[choice] = _Choice()
            if text:
                kept.text.append(text)
            if reasoning:
                kept.reasoning.append(reasoning)
            for part in parts:
                kept.add_part(part)
        if self.listener is not None:
            self.listener(Piece(text, reasoning, parts, choice))

    def chunk_usage(self, usage: UsageObject, choice: int, *, output: bool, finishing: bool) -> int:
        """A usage that came in a choice's chunk. Returns the tokens of the chunk's output, -1 where they are not known.

        It is that choice's count so far (continuous usage, or its finish chunk's), unless the choice had finished before and the
        chunk says nothing new: then it is the total (LiteLLM). The tokens are what the count grew by since the choice's last
        output event, so that of a chunk without output (half a character) is part of the next event's.
        """
        if not output:
            if not finishing and choice in self.finish_reasons:
                self.total_usage(usage)
            else:
                self._usages[choice] = usage
            return -1
        self._usages[choice] = usage
        grown = usage.completion_tokens - self._counted.get(choice, 0)
        self._counted[choice] = usage.completion_tokens
        return grown if grown >= 0 else -1  # a count that shrinks counts something else

    def total_usage(self, usage: UsageObject) -> None:
        """A usage chunk of its own. It speaks for the choices that finished since the last such chunk.

        So two of them add up where a server sends one for each choice (llama-server, n=2), and the later one replaces the
        earlier where nothing finished between. The prompt counts once: all choices share it.
        """
        said = _one_usage(usage)
        finished = len(self.finish_reasons)
        if self._total is not None and 0 < self._total_finished < finished:
            said = Usage(
                max(said.prompt_tokens, self._total.prompt_tokens),
                said.completion_tokens + self._total.completion_tokens,
                _largest([said.cached_tokens, self._total.cached_tokens]),
                _sum([said.reasoning_tokens, self._total.reasoning_tokens]),
            )
        self._total = said
        self._total_finished = finished

    def replace_usage(self, usage: UsageObject) -> None:
        """A usage in a chunk of several choices: the count of all of them so far."""
        self._total = _one_usage(usage)
        self._total_finished = 0

    @property
    def usage(self) -> Usage | None:
        """The server's count: its total where it sent one, else the sum over choices; None if it told nothing.

        Of a stream that broke off this is the latest continuous count.
        """
        if self._total is not None:
            return self._total
        return _usage(list(self._usages.values())) if self._usages else None

    def text(self, choice: int = 0) -> str:
        kept = self._choices.get(choice)
        return "".join(kept.text) if kept else ""

    def reasoning(self, choice: int = 0) -> str:
        kept = self._choices.get(choice)
        return "".join(kept.reasoning) if kept else ""

    def tool_calls(self, choice: int = 0) -> list[ToolCall]:
        """The choice's tool calls, in the order of their index."""
        kept = self._choices.get(choice)
        return [call for _, call in sorted(kept.calls.items())] if kept else []


def _one_usage(usage: UsageObject) -> Usage:
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        None if prompt is None else prompt.cached_tokens,
        None if completion is None else completion.reasoning_tokens,
    )


def _usage(said: Sequence[UsageObject]) -> Usage:
    # Choices share their prompt: it counts once. Each has its own completion.
    return Usage(
        max(usage.prompt_tokens for usage in said),
        sum(usage.completion_tokens for usage in said),
        _largest([usage.prompt_tokens_details.cached_tokens for usage in said if usage.prompt_tokens_details]),
        _sum([usage.completion_tokens_details.reasoning_tokens for usage in said if usage.completion_tokens_details]),
    )


def _largest(counts: Sequence[int | None]) -> int | None:
    return max((count for count in counts if count is not None), default=None)


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
