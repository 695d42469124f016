"""`serve-bench`: the traffic that its flags ask for, as plans.

Knows rates, ramps and bounds; must not know data sets or results. Invariants: at most one warm-up plan, then one measured plan; an infinite
rate is a closed loop of as many slots as may be in flight, any other an open loop that these bound.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

from clients.errors import UsageError
from loadgen.foreseen import Foreseen
from loadgen.plan import LARGEST_CONCURRENCY
from loadgen.preflight import most_connections
from loadgen.schedule import Schedule, Stage

if TYPE_CHECKING:
    from loadgen.bench import Load


class Ramp(msgspec.Struct, frozen=True, kw_only=True):
    """The rate rises from start_rps to end_rps while all requests of the run become due."""

    strategy: Literal["linear", "exponential"]
    start_rps: float
    end_rps: float

    def __post_init__(self) -> None:
        if self.start_rps > self.end_rps or not self.end_rps:
            raise UsageError(f"--ramp-up-end-rps: got {self.end_rps:g}, takes a rate above 0 and not below --ramp-up-start-rps")
        if self.strategy == "exponential" and not self.start_rps:
            raise UsageError("--ramp-up-start-rps: got 0, takes a rate above 0 for an exponential ramp")

    def length_s(self, count: int) -> float:
        """How long `count` requests take: the integral of the rate over it is their number."""
        start, end = self.start_rps, self.end_rps
        if start == end:
            return count / end
        if self.strategy == "linear":
            return 2 * count / (start + end)
        return count * math.log(end / start) / (end - start)

    def reached_s(self, rate_rps: float, count: int) -> float:
        """When the rate has risen to this."""
        start, end = self.start_rps, self.end_rps
        if start == end:
            return 0.0
        share = (rate_rps - start) / (end - start) if self.strategy == "linear" else math.log(rate_rps / start) / math.log(end / start)
        return share * self.length_s(count)


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """How the requests come. request_rate: infinite for all at once. burstiness: shape of gamma distributed gaps, infinite for equal ones."""

    count: int
    request_rate: float = math.inf
    burstiness: float = 1.0
    max_concurrency: int | None = None
    ramp: Ramp | None = None
    seed: int = 0

    @property
    def closed(self) -> bool:
        return self.ramp is None and math.isinf(self.request_rate)

    @property
    def slots(self) -> int:
        """Requests in flight at most; of an open loop without a bound as many as this system has files for."""
        return min(self.count, self.max_concurrency or (LARGEST_CONCURRENCY if self.closed else most_connections()))

    def schedule(self) -> Schedule | None:
        """When requests are due; None for a closed loop. After a ramp its last rate goes on: arrivals are random, and some may be left."""
        if self.closed:
            return None
        process: Literal["constant", "poisson", "gamma"] = "gamma"
        if math.isinf(self.burstiness):
            process = "constant"
        elif self.burstiness == 1.0:
            process = "poisson"
        shape = self.burstiness if process == "gamma" else 1.0
        if self.ramp is None:
            return Schedule.at_rate(self.request_rate, process=process, burstiness=shape, seed=self.seed)
        start, end = self.ramp.start_rps, self.ramp.end_rps
        rising = Stage(start_rps=start, end_rps=end, length_s=self.ramp.length_s(self.count), growth=self.ramp.strategy)
        stages = (Stage(start_rps=end, end_rps=end),) if start == end else (rising, Stage(start_rps=end, end_rps=end))
        return Schedule(process=process, stages=stages, burstiness=shape, seed=self.seed)


class ServeBench(Foreseen):
    """The campaign of `loadgen serve-bench`: warm-up, then the run."""

    def __init__(self, load: Load, traffic: Traffic) -> None:
        warmup = [load.warmup(traffic.slots)] if load.num_warmups else []
        plan = load.plan(len(warmup), traffic.slots, None)
        super().__init__([*warmup, msgspec.structs.replace(plan, schedule=traffic.schedule())])
