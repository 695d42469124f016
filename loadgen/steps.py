"""Steps and ramps in a short form: `10x60s,20x60s`, `1..50x2m,50`: of a rate, or of a concurrency.

Knows text and numbers; knows no option. Law: only the last step may have no end, and what is read is a shape that can be run.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from loadgen.quantities import LARGEST_RPS, Reader, read_duration
from loadgen.schedule import Stage

_STEP = re.compile(r"([0-9]*\.?[0-9]+)(?:\.\.([0-9]*\.?[0-9]+))?(?:x([0-9.]+(?:ms|s|m|h|)))?")
# Of a ramp of concurrency: each slot more or fewer is a level, and more levels than this are a typing error.
_MOST_LEVELS = 50_000


class Step(NamedTuple):
    """From `begin` to `end` in `length_s`; None: for the rest."""

    begin: float
    end: float
    length_s: float | None


def _read(text: str) -> tuple[Step, ...]:
    steps = []
    for piece in text.split(","):
        match = _STEP.fullmatch(piece.strip())
        if match is None:
            raise ValueError(text)
        begin = float(match[1])
        step = Step(begin, float(match[2]) if match[2] else begin, read_duration(match[3]) if match[3] else None)
        if not step.begin + step.end or (step.length_s is None and step.begin != step.end):
            raise ValueError(text)
        steps.append(step)
    if any(step.length_s is None for step in steps[:-1]):
        raise ValueError(text)
    return tuple(steps)


def _read_rates(text: str) -> tuple[Step, ...]:
    steps = _read(text)
    if any(step.begin == step.end == 0 or max(step.begin, step.end) > LARGEST_RPS for step in steps):
        raise ValueError(text)
    return steps


def _read_slots(text: str) -> tuple[Step, ...]:
    steps = _read(text)
    for step in steps:
        if not all(1 <= slots <= _MOST_LEVELS and slots == int(slots) for slots in (step.begin, step.end)):
            raise ValueError(text)
    return steps


RATES = Reader("RxTIME,…", "steps of requests/s like 10x60s,20x60s, or ramps like 1..50x2m; the last may have no time", _read_rates)
SLOTS = Reader("NxTIME,…", "steps of concurrency like 8x60s,16x60s, or ramps like 1..64x2m; the last may have no time", _read_slots)


def length_s(steps: tuple[Step, ...]) -> float:
    """Infinite when the last step has no end."""
    return sum(math.inf if step.length_s is None else step.length_s for step in steps)


def stages(steps: tuple[Step, ...]) -> tuple[Stage, ...]:
    """The rates of a schedule."""
    return tuple(
        Stage(start_rps=step.begin, end_rps=step.end, length_s=step.length_s, growth="flat" if step.begin == step.end else "linear")
        for step in steps
    )


def levels(steps: tuple[Step, ...]) -> tuple[tuple[float, int], ...]:
    """The slots of a closed loop over time, as `Plan.levels`. A ramp stays at each number of slots for an equal time."""
    found: list[tuple[float, int]] = []
    begin_s = 0.0
    for step in steps:
        first, last = int(step.begin), int(step.end)
        numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        each_s = (step.length_s or 0.0) / len(numbers)
        found += [(begin_s + place * each_s, slots) for place, slots in enumerate(numbers)]
        begin_s += step.length_s or 0.0
    return tuple(found)
