"""Along which loads a series goes: rates of an open loop, or slots of a closed one; and the plan of one of them.

Knows what the plans of a series have in common; must not know which load comes next. Pure. Law: two points of a series differ in their load
and in nothing else; parts of one point have arrivals of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadgen.curve import By
from loadgen.schedule import Process, Schedule

if TYPE_CHECKING:
    from loadgen.bench import Load
    from loadgen.plan import Plan

# Of an open loop's plan: a server begins empty, and its first requests find no queue. Closed loops by duration begin with a burst.
LEAD = 0.1
# Of a part of a point by duration: none has so little time that no request falls due in it (once in 10^13 of Poisson arrivals).
_LEAST_REQUESTS = 30


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """by: what rises. max_concurrent: the bound of an open loop. process, burstiness: its arrivals."""

    by: By
    max_concurrent: int = 1
    process: Process = "poisson"
    burstiness: float = 1.0

    def plan(self, load: Load, number: int, level: float, *, part: float = 1.0, repeat: int = 1) -> Plan:
        """The plan of one load. part: how much of `load`'s length it has; repeat: which part of the point it is."""
        requests = None if load.num_requests is None else max(1, round(load.num_requests * part))
        duration_s = None if load.duration_s is None else load.duration_s * part
        if duration_s is not None and load.duration_s is not None and self.by == "rate":
            duration_s = max(duration_s, min(load.duration_s, _LEAST_REQUESTS / level))
        load = msgspec.structs.replace(load, num_requests=requests, duration_s=duration_s)
        if self.by == "concurrency":
            plan = load.plan(number, int(level), None, repeat=repeat)
            return msgspec.structs.replace(plan, lead_s=LEAD * (duration_s or 0.0))
        length_s = duration_s if duration_s is not None else (requests or 0) / level
        # The same seed at each load: their arrivals are the same but for the pace, so that the loads differ and chance does not.
        schedule = Schedule.at_rate(level, process=self.process, burstiness=self.burstiness, seed=load.seed + repeat - 1)
        plan = load.plan(number, self.max_concurrent, None, repeat=repeat)
        return msgspec.structs.replace(plan, label=f"{level:g}rps-r{repeat}", schedule=schedule, lead_s=LEAD * length_s)

    def length_s(self, plan: Plan, requests_rps: float) -> float:
        """How long a plan will take; of a closed loop by number, at the rate that such loads had so far."""
        if plan.duration_s is not None:
            return plan.duration_s
        rate_rps = requests_rps if plan.schedule is None else plan.schedule.stages[0].start_rps
        return (plan.num_requests or 0) / rate_rps if rate_rps else 0.0
