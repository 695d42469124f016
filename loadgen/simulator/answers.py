"""One request while it is being answered: which choices are open, what is to be written next.

Knows wordings, choices and fault plans. Must not know who paces the tokens (engine or metronome) or how bytes leave.
Law: every choice gets its tokens and its end; when the last choice ends, `out` holds the answer's last byte and `ended` is true.
"""

import math
from typing import Final

from loadgen.simulator.connection import Connection
from loadgen.simulator.dialect import Order
from loadgen.simulator.engine import Sequence
from loadgen.simulator.faults import unit_draw
from loadgen.simulator.prompts import Prompt
from loadgen.simulator.replies import DONE, LAST_CHUNK, Choice, Wording, embedding_answer, whole_answer
from loadgen.simulator.settings import SimulatorSettings

_LENGTH_SHAPE: Final = 4  # drawn lengths are gamma distributed with this shape: a coefficient of variation of 0.5
_LENGTH_STREAM: Final = 16  # keeps draws of lengths apart from those of faults


class Answer:
    """Built when a request is accepted. `number` is its place among all generation requests since the start."""

    __slots__ = (
        "arrived_ns",
        "break_after",
        "broken",
        "choices",
        "connection",
        "created",
        "ended",
        "fault",
        "gone",
        "number",
        "open",
        "order",
        "out",
        "sequences",
        "settings",
        "tokens",
        "tokens_sent",
        "touched",
        "wording",
    )

    def __init__(
        self,
        connection: Connection,
        order: Order,
        settings: SimulatorSettings,
        *,
        number: int,
        request_id: str,
        arrived_ns: int,
        created: int,
    ) -> None:
        self.connection = connection
        self.order = order
        self.settings = settings
        self.number = number
        self.arrived_ns = arrived_ns
        self.created = created
        self.wording = Wording(order, request_id, created)
        self.choices: list[Choice] = []
        self.sequences: list[Sequence] = []
        self.out: list[bytes] = []
        self.fault: str | None = None
        self.break_after = 0  # tokens after which the fault breaks the answer off; 0: never
        self.tokens = self.tokens_sent = 0
        self.broken = self.ended = self.gone = self.touched = False
        for prompt in order.prompts:
            for _ in range(order.n):
                length, reason = answer_length(order, prompt, settings, number, len(self.choices))
                choice = Choice(self.wording, len(self.choices), prompt, reason, salt=number)
                choice.answer = self
                self.choices.append(choice)
                sequence = Sequence(prompt.tokens, length, image_pixels=prompt.pixels, prefix_hashes=prompt.blocks, owner=choice)
                self.sequences.append(sequence)
        self.open = len(self.choices)

    def token(self, choice: Choice, *, last: bool) -> None:
        """The next token of `choice` is ready."""
        self.tokens += 1
        breaks = 0 < self.break_after <= self.tokens
        if self.order.stream:
            self.out.append(choice.next_event(last=last and not breaks))
        else:
            choice.tokens += 1
        if breaks:
            self.broken = True
        elif last:
            self.open -= 1
            if not self.open:
                self._end()

    def _end(self) -> None:
        self.ended = True
        if self.order.stream:
            if self.order.include_usage:
                self.out.append(self.wording.usage_event(self.tokens))
            self.out.append(DONE + LAST_CHUNK)
        elif self.order.embeddings:
            self.out.append(embedding_answer(self.wording, self.settings.embedding_dim, self.settings.seed, self.created))
        else:
            self.out.append(whole_answer(self.wording, self.choices, self.created))

    def release(self) -> None:
        """Cut the references that go in circles, so that memory is freed without the garbage collector."""
        for sequence in self.sequences:
            sequence.owner = None
        for choice in self.choices:
            choice.answer = None


def answer_length(order: Order, prompt: Prompt, settings: SimulatorSettings, number: int, index: int) -> tuple[int, str]:
    """(tokens, finish_reason) of choice `index` of request `number`: a pure function of these and the seed."""
    room = settings.max_model_len - prompt.tokens
    limit = room if order.max_tokens is None else min(order.max_tokens, room)
    mean = settings.eos_mean_tokens
    if mean is None and order.max_tokens is None:
        mean = settings.answer_mean_tokens
    if order.embeddings:
        return 1, "stop"
    if mean is None or order.ignore_eos:
        return limit, "length"
    product = 1.0
    for draw in range(_LENGTH_SHAPE):
        product *= 1 - unit_draw(settings.seed, number, stream=_LENGTH_STREAM + index * _LENGTH_SHAPE + draw)
    drawn = max(1, round(-mean / _LENGTH_SHAPE * math.log(product)))
    return (drawn, "stop") if drawn <= limit else (limit, "length")
