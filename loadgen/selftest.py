"""What the instrument can do on this machine: rungs of rising load, the errors found on each, and what follows from them.

Knows numbers only: how a ladder is climbed, when an error is within bounds, what a ceiling is, how many workers a load needs. Must not
know processes, files or the clock (`testbed.py` performs a rung, `discrepancy.py` compares it with the server's own account).
Law: pure; what was computed is not called measured, and what a busy server may have held back is called a lower bound.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

from loadgen.environment import Environment

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA = 1

# The budgets of the reported times' error: median and 99th percentile, the burst of the start apart.
BOUND_P50_S = 0.000_5
BOUND_P99_S = 0.005
# The planned times of the metronome: 50 tokens a second and stream, as a busy large model gives.
ITL_S = 0.020
TTFT_S = 0.100
# A worker that used less of its core than this could have done more: something else was the limit.
FULL_SHARE = 0.95
# Twice the streams that bring fewer than this much more events: there is nothing above.
_RISE = 1.1

Mode = Literal["free-running", "lockstep", "requests"]


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """Reported minus true, without its sign, of `count` times; seconds."""

    count: int
    p50_s: float
    p99_s: float
    max_s: float

    @property
    def within(self) -> bool:
        return self.p50_s <= BOUND_P50_S and self.p99_s <= BOUND_P99_S


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """One load, performed and compared with the server's account. Rates: as the workers received it, in the settled window.

    ttft, itl, latency: errors in that window, None where there was nothing to compare (no stream, no request both due and ended in it);
    ttft and latency are from due, as they are reported: they hold the send lag, and the transit (from sent until the server had read the
    request, which is the server's delay as much as the wire's); ttft_from_sent holds the transit. start: of the TTFT of the
    requests that all slots send at the start. cpu_s: the workers' CPU per token event (per request where
    nothing is streamed), everything included; cpu_share: of one core, mean over the workers. server_late: of the server's
    tokens, actual minus planned. ok, failed: requests; unmatched: those that the server's account does not have as the records do.
    attempts: of how many this is the best (`best_attempt`).
    """

    mode: Mode
    streams: int
    workers: int
    events_rps: float
    requests_rps: float
    cpu_s: float | None
    cpu_share: float | None
    ttft: Error | None
    ttft_from_sent: Error | None
    send_lag: Error | None
    transit: Error | None
    itl: Error | None
    latency: Error | None
    start: Error | None
    server_late: Error | None
    ok: int
    failed: int
    unmatched: int
    coalesced_share: float | None
    attempts: int = 1

    @property
    def within(self) -> bool:
        """Every reported time within bounds, and nothing lost."""
        return not self.broken

    @property
    def broken(self) -> str:
        """What is not as it should be: lost requests, or the first error out of bounds; "" where all is within."""
        if self.failed:
            return f"{self.failed} failed"
        if self.unmatched:
            return f"{self.unmatched} not in the server's account"
        for name, error in (("TTFT", self.ttft), ("ITL", self.itl), ("end to end", self.latency)):
            if error is None:
                return f"no {name} to compare"
            if not error.within:
                return f"{name} {'p50' if error.p50_s > BOUND_P50_S else 'p99'}"
        return ""

    @property
    def late(self) -> bool:
        """Whether the server missed its own plan by more than is asked of the client.

        In lockstep all tokens of a tick are planned for one instant, and writing them takes its time: there it is late where
        a tick is not done when the next one comes. It is late, too, where it reads so late that this alone takes half the bound.
        """
        bound_s = ITL_S if self.mode == "lockstep" else BOUND_P99_S
        writes = self.server_late is not None and self.server_late.p99_s > bound_s
        reads = self.transit is not None and (self.transit.p50_s > BOUND_P50_S / 2 or self.transit.p99_s > bound_s)
        return writes or reads

    @property
    def held_back(self) -> str:
        """Why the workers may be able to do more than they did here; "" where they were the limit."""
        if self.late:
            return "the metronome was late by its own truth"
        if self.cpu_share is None:
            return "the workers' CPU is not known"
        if self.cpu_share < FULL_SHARE:
            return f"the workers used {self.cpu_share:.0%} of a core each"
        return ""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """The rungs of one mode, by rising streams. ended: why there is none above."""

    mode: Mode
    rungs: list[Rung]
    ended: str

    @property
    def knee(self) -> Rung | None:
        """The most streams within bounds; None where no rung is."""
        return max((rung for rung in self.rungs if rung.within), key=lambda rung: rung.streams, default=None)

    @property
    def outside(self) -> Rung | None:
        """The fewest streams out of bounds above the knee; None where the curve ends within them."""
        knee = self.knee
        return next((rung for rung in self.rungs if not rung.within and (knee is None or rung.streams > knee.streams)), None)


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """The most that was driven. rate_rps: of `unit`. how: `measured`, or `computed` as cores times one worker's.

    lower_bound: why there may be more, "" where the workers were the limit.
    """

    unit: Literal["requests", "token events"]
    workers: int
    rate_rps: float
    cpu_s: float | None
    how: Literal["measured", "computed"]
    lower_bound: str


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """How far one worker's reported times stay within bounds. more: the server was the first to give up, so the truth lies above."""

    mode: Mode
    streams: int
    events_rps: float
    more: bool


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Workers that a load needs so that what they report stays within bounds; None where no rung of the mode was."""

    mode: Mode
    streams: int
    events_rps: float
    workers: int | None
    because: str


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of selftest.json. one, all: ceilings of one worker and of all workers. placement: who ran on which core."""

    schema: int
    id: str
    started: str
    quick: bool
    transport: str
    stamping: str
    environment: Environment
    placement: str
    bounds_s: tuple[float, float]
    curves: list[Curve]
    requests: list[Rung]
    together: list[Rung]
    one: list[Ceiling]
    all: list[Ceiling]
    reaches: list[Reach]
    needs: list[Need]
    notes: list[str]


class Programme(msgspec.Struct, frozen=True, kw_only=True):
    """What a self-test does. ladders: streams of one worker, rising; concurrency: of a worker whose requests are counted.

    attempts: at a rung where the server is late or the client out of bounds. What else runs on a machine does both for a moment;
    what the instrument does itself comes again.
    """

    ladders: dict[Mode, tuple[int, ...]]
    duration_s: float
    mean_tokens: int
    refine: bool
    attempts: int
    concurrency: int = 64


# A rung costs half a second beside its duration: 50 to 110 s in all, and 15 s. Beats come each second, and two of them make a rate.
FULL = Programme(
    ladders={"free-running": (64, 128, 256, 512, 1024, 2048), "lockstep": (32, 64, 128, 256, 512, 1024)},
    duration_s=3.0,
    mean_tokens=64,
    refine=True,
    attempts=2,
)
QUICK = Programme(ladders={"free-running": (128, 1024), "lockstep": (128, 512)}, duration_s=2.2, mean_tokens=32, refine=False, attempts=1)


def next_streams(ladder: Sequence[int], rungs: Sequence[Rung], *, refine: bool) -> int | None:
    """How many streams to try next, None when there is nothing left to learn.

    Up the ladder until it ends; then, to refine, once between the last rung within and the first out of bounds.
    """
    if not rungs:
        return ladder[0]
    climbed = [rung for rung in rungs if rung.streams in ladder]
    if len(climbed) < len(rungs):
        return None  # the one between was there already
    above = [streams for streams in ladder if streams > climbed[-1].streams]
    if above and not _spent(climbed):
        return above[0]
    found = Curve(mode=rungs[0].mode, rungs=climbed, ended="")
    if refine and found.knee is not None and found.outside is not None:
        return round(math.sqrt(found.knee.streams * found.outside.streams))
    return None


def best_attempt(attempts: Sequence[Rung]) -> Rung:
    """Of the same load, the attempt that was disturbed least: the server in time, then within bounds, then the most done (of requests) or the
    smallest errors.
    """

    def disturbed(rung: Rung) -> tuple[bool, bool, float]:
        errors = [error.p99_s for error in (rung.ttft, rung.itl, rung.latency) if error is not None]
        return rung.late, not rung.within, -rung.requests_rps if rung.mode == "requests" else sum(errors)

    return msgspec.structs.replace(min(attempts, key=disturbed), attempts=len(attempts))


def curve(mode: Mode, rungs: Sequence[Rung]) -> Curve:
    """The rungs in order of their streams, and why they end where they do."""
    ordered = sorted(rungs, key=lambda rung: rung.streams)
    return Curve(mode=mode, rungs=ordered, ended=_spent(ordered) or "no higher rung was asked for")


def _spent(rungs: Sequence[Rung]) -> str:
    """Why a higher rung would tell nothing; "" where it may."""
    last = rungs[-1]
    if last.late and len(rungs) > 1 and rungs[-2].late:  # one alone may be a neighbour's doing: a server at its limit stays late
        return "the server itself is late"
    if len(rungs) > 1 and not last.within and last.events_rps < _RISE * rungs[-2].events_rps:
        return "more streams bring no more events"
    return ""


def best(rungs: Sequence[Rung], unit: Literal["requests", "token events"]) -> Ceiling | None:
    """The ceiling that these rungs show; None of no rungs."""
    if not rungs:
        return None
    top = max(rungs, key=lambda rung: _rate(rung, unit))
    return Ceiling(unit=unit, workers=top.workers, rate_rps=_rate(top, unit), cpu_s=top.cpu_s, how="measured", lower_bound=top.held_back)


def computed(one: Ceiling, workers: int) -> Ceiling:
    """What so many workers could do, each on a core of its own, if none disturbed another."""
    return msgspec.structs.replace(one, workers=workers, rate_rps=workers * one.rate_rps, how="computed")


def reach(found: Curve) -> Reach | None:
    """How far a curve of one worker stays within bounds."""
    knee = found.knee
    if knee is None:
        return None
    outside = found.outside
    return Reach(mode=found.mode, streams=knee.streams, events_rps=knee.events_rps, more=outside is None or outside.late)


def need(found: Reach | None, mode: Mode, streams: int, events_rps: float) -> Need:
    """Workers for `streams` that give `events_rps` together: each takes its share of both, and no more of either than it was seen to."""
    if found is None:
        return Need(mode=mode, streams=streams, events_rps=events_rps, workers=None, because="one worker was out of bounds at every load")
    by_streams = math.ceil(streams / found.streams)
    by_events = math.ceil(events_rps / found.events_rps)
    limit = f"{found.streams} streams a worker" if by_streams >= by_events else f"{found.events_rps:,.0f} token events/s a worker"
    return Need(
        mode=mode, streams=streams, events_rps=events_rps, workers=max(1, by_streams, by_events), because=f"{limit} are within bounds"
    )


def _rate(rung: Rung, unit: str) -> float:
    return rung.requests_rps if unit == "requests" else rung.events_rps
