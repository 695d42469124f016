"""When requests of an open loop are due: an arrival process and its rate over time, as a value.

Knows shapes and what makes one meaningful; the dues themselves are made by `dues.py`, by the parent alone. A worker reads this file with its
plan, so it imports no numpy. Law: a schedule that exists can be made into dues; it reads no clock and deals to no worker.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from clients.errors import UsageError

Process = Literal["constant", "poisson", "gamma", "trace"]
Growth = Literal["flat", "linear", "exponential"]


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stretch of time in which the rate goes from start_rps to end_rps. length_s: None for the last stage, which has no end.

    growth: flat (one rate), linear in time, or exponential (the same factor in equal times).
    """

    start_rps: float
    end_rps: float
    length_s: float | None = None
    growth: Growth = "flat"

    def __str__(self) -> str:
        length = "" if self.length_s is None else f" for {self.length_s:g} s"
        if self.growth == "flat":
            return f"{self.start_rps:g} requests/s{length}"
        return f"{self.start_rps:g} to {self.end_rps:g} requests/s{length} ({self.growth})"

    def __post_init__(self) -> None:
        for name, rate in (("start_rps", self.start_rps), ("end_rps", self.end_rps)):
            least = 0.0 if self.growth == "linear" else math.ulp(0.0)
            if not least <= rate < math.inf:
                raise UsageError(f"{name}: got {rate}, takes a rate above 0 requests/s{' or 0' if self.growth == 'linear' else ''}")
        if self.length_s is not None and not 0 < self.length_s < math.inf:
            raise UsageError(f"length_s: got {self.length_s}, takes a time above 0 s")
        if self.growth == "flat" and self.start_rps != self.end_rps:
            raise UsageError(f"growth: got flat from {self.start_rps} to {self.end_rps} requests/s, takes linear or exponential")
        if self.growth != "flat" and self.length_s is None:
            raise UsageError("length_s: a ramp of the rate needs one")
        if self.growth == "linear" and not self.start_rps + self.end_rps:
            raise UsageError("end_rps: got 0 and start_rps 0, takes a rate above 0 requests/s for one of them")


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An arrival process and its rate over time; or a trace, whose offsets stand in the run's timetable alone.

    burstiness: shape of the Gamma distributed gaps (1 = Poisson, below 1 burstier, their coefficient of variation is its -1/2th power), as
    vLLM's `--burstiness`. speed: of a trace, recorded seconds that pass in one.
    Raises UsageError naming the field.
    """

    process: Process
    stages: tuple[Stage, ...] = ()
    burstiness: float = 1.0
    seed: int = 0
    speed: float = 1.0

    def __post_init__(self) -> None:
        if self.process == "trace":
            if self.stages:
                raise UsageError("stages: a trace has its own times")
            if not 0 < self.speed < math.inf:
                raise UsageError(f"speed: got {self.speed}, takes a factor above 0")
            return
        if not self.stages:
            raise UsageError("stages: a schedule needs at least one rate")
        if any(stage.length_s is None for stage in self.stages[:-1]):
            raise UsageError("length_s: only the last stage may have no end")
        if not 0 < self.burstiness < math.inf:
            raise UsageError(f"burstiness: got {self.burstiness}, takes a number above 0 (1 = Poisson)")

    @classmethod
    def at_rate(cls, rate_rps: float, *, process: Process = "poisson", burstiness: float = 1.0, seed: int = 0) -> Schedule:
        """One rate for as long as the run goes on."""
        return cls(process=process, stages=(Stage(start_rps=rate_rps, end_rps=rate_rps),), burstiness=burstiness, seed=seed)

    def __str__(self) -> str:
        """`50 requests/s, poisson`."""
        if self.process == "trace":
            return "a trace" + ("" if self.speed == 1 else f", {self.speed:g} times as fast")
        burstiness = f" (burstiness {self.burstiness:g})" if self.process == "gamma" else ""
        return f"{', then '.join(map(str, self.stages))}, {self.process}{burstiness}"

    @property
    def length_s(self) -> float:
        """When the rate ends; infinite for a last stage without end, and for a trace, which ends by itself."""
        return sum(math.inf if stage.length_s is None else stage.length_s for stage in self.stages) if self.stages else math.inf
