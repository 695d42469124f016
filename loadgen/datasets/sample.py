"""One request of a data set, and what is done with a list of them: shuffled, sent again.

Knows values and seeds; must not know where a sample came from. Law: the same seed and samples give the same list, the one that vLLM's client
makes of them (Python's generator, seeded anew before each step).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = TypeVar("Row")


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """output_len: tokens asked for. input_len: tokens of the prompt as far as they were counted here, 0 where they were not. images: data URIs."""

    prompt: str
    output_len: int
    input_len: int = 0
    images: tuple[str, ...] = ()


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, in order, and how a report names it."""

    samples: list[Sample]
    name: str
    notes: list[str] = []


def shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    """Another order of the rows."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    return order


def oversampled(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """At least `count` samples: those that lack are drawn from the ones that are there."""
    draw = random.Random(seed)
    return samples + [draw.choice(samples) for _ in range(count - len(samples))]
