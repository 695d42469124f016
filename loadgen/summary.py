"""What one plan says: the values that reducer and verdict make, that run.json holds and a report renders.

Knows shapes, units and nothing else: no arithmetic beyond sums and look-ups, no numpy, no clock. Evidence, arrivals and a grid's cells have files of their own.
Law: every number is in base units (seconds, requests/s, tokens/s; shares lie in 0..1); what was not measured is None, never 0.
Meanings are those of DESIGN.md, "Meanings".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from loadgen.distribution import Distribution
from loadgen.evidence import Lateness, Steadiness
from loadgen.objectives import Metric
from loadgen.offered import Offered

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA = 1  # raised when a field changes its meaning or goes; new fields do not raise it

Level = Literal["valid", "degraded", "invalid"]


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured in one stretch of time: latencies of the successful requests due in it, followed to their end.

    requests: due in the stretch, ok: of them successful. requests_rps: see `Summary`. tokens/s: tokens stamped in the stretch.
    latency, ttft: from due (what a user would have felt) and from sent (service time); their gap is the send lag.
    first_answer: due to the first output that is not reasoning, where a request had reasoning before it.
    itl: between tokens where `itl_per_token`, else between arrivals of events; event_gap: between arrivals, as observed.
    largest_gap: of each request (stalls). coalesced_share: of output events, those that came in one read with the one before.
    in_flight: from sent to end. None: nothing to measure (not streamed, a single event, nothing succeeded).
    """

    start_s: float  # since the start instant (in a closed loop: the first due)
    end_s: float
    requests: int
    ok: int
    requests_rps: float
    output_tokens_tps: float
    input_tokens_tps: float
    latency: Distribution | None
    latency_from_sent: Distribution | None
    send_lag: Distribution | None
    ttft: Distribution | None
    ttft_from_sent: Distribution | None
    first_answer: Distribution | None
    itl: Distribution | None
    itl_per_token: bool
    event_gap: Distribution | None
    largest_gap: Distribution | None
    tpot: Distribution | None
    coalesced_share: float | None
    in_flight_peak: int
    in_flight_mean: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """All failed requests of one kind. latency: from due to their end. example: the first one's message."""

    count: int
    fault: str
    statuses: dict[str, int]
    latency: Distribution
    example: str


class Attempts(msgspec.Struct, frozen=True, kw_only=True):
    """Tries that a retry followed: in no percentile and no success rate. errors: by kind, before the retry."""

    count: int
    errors: dict[str, int]
    reconnects: int  # a reused connection died before any byte and the request was sent once more


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over successful requests. source: the server's `usage`, `events` counted in its place, or a mixture.

    cached, reasoning: None if the server never told. events: output events, which are not tokens.
    """

    source: Literal["usage", "events", "mixed"]
    with_usage: int
    prompt: int
    completion: int
    cached: int | None
    reasoning: int | None
    events: int


class Wasted(msgspec.Struct, frozen=True, kw_only=True):
    """What went into requests that did not succeed: output received, and their share of all slot time."""

    requests: int
    output_tokens: int
    time_share: float


class Batches(msgspec.Struct, frozen=True, kw_only=True):
    """makespan: first due to last end of a whole batch. straggler_waste: share of slot time that barriers left idle.

    The last batch of a lane has no barrier behind it and is not in the waste; None where each lane had one batch only.
    """

    size: int
    count: int
    makespan: Distribution | None
    straggler_waste: float | None


class Attained(msgspec.Struct, frozen=True, kw_only=True):
    """One objective: of the judged requests, those within its limit. low, high: the share's 95 % interval by effective samples."""

    metric: Metric
    limit_s: float
    judged: int
    within: int
    share: float | None
    low: float
    high: float


class Goodput(msgspec.Struct, frozen=True, kw_only=True):
    """Requests due in the measuring window that kept all objectives (times from due), each second of it and as a share of those judged.

    failed: of the misses, those that failed, timed out or were dropped. undecided: cancelled by us before they had missed; not judged.
    effective: independent samples that the judged are worth. low, high: the share's 95 % interval; assured: with 95 % confidence the
    share is at least this. later_share: of the second half, which a growing queue spoils first. attainment: the share asked for.
    """

    rps: float
    good: int
    judged: int
    undecided: int
    failed: int
    share: float | None
    low: float
    high: float
    assured: float
    effective: float
    later_share: float | None
    attainment: float | None
    objectives: list[Attained]

    @property
    def missed(self) -> bool:
        """The share that was asked for was not reached; a share that was reached but is not sure is no miss."""
        return self.attainment is not None and self.share is not None and self.share < self.attainment


class Accounting(msgspec.Struct, frozen=True, kw_only=True):
    """scheduled = ok + failed + timed_out + cancelled + dropped + unsent + in_flight, or `problems` says what is wrong.

    ok … dropped are counted from frames; scheduled, unsent and in_flight (at the end) from the plan's shares and the counters
    in the files' headers. residual: left side minus right side.
    """

    scheduled: int
    ok: int
    failed: int
    timed_out: int
    cancelled: int
    dropped: int
    unsent: int
    in_flight: int
    residual: int
    problems: list[str]

    @classmethod
    def merged(cls, parts: Sequence[tuple[str, Accounting]]) -> Accounting:
        """The sums of all parts, and their problems, each with its part's name before it."""
        counts = [name for name in cls.__struct_fields__ if name != "problems"]
        sums = {name: sum(getattr(one, name) for _, one in parts) for name in counts}
        return cls(**sums, problems=[f"{name}: {problem}" for name, one in parts for problem in one.problems])

    @property
    def closes(self) -> bool:
        return not self.residual and not self.problems


class WorkerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One worker: `ended` in order, or `lost` (killed, crashed, or no file of it). in_flight_peak: by its own counter.

    cpu_share: of one core, in the ranked stretch. loop_lag: lateness of a timer every 20 ms there, as whatever its loop does is late.
    None where the worker did not beat twice in it (it beats once a second).
    """

    worker: int
    state: Literal["ended", "lost"]
    accounting: Accounting
    in_flight_peak: int
    cpu_share: float | None = None
    loop_lag: Distribution | None = None


class HeldBack(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of an open loop that at their due found as many in flight as may be: started late, or dropped at the end (never sent).

    wait: from due to sent, of those that were started. It is in the latency from due, as their users would have felt it.
    """

    started_late: int
    dropped: int
    wait: Distribution | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One plan, reduced. `whole`: the measuring window; of a fixed number of requests, first due to last end.

    steady: of a closed loop, while all slots were busy; of an open one, from the end of the warm-up that MSER-5 finds; None for the
    reason in `steady_absent`. In `whole`, requests_rps is successful completions
    over length. In `steady` and `batch_means` a request counts by the share of it that was done inside (first to last output; due
    to end where all output came at once), since whole requests would make each edge worth up to max_concurrent of them.
    batch_means: requests/s in equal slices of the steady stretch (of the whole run if there is none).
    length_share: of successful requests, those that ended with finish_reason `length`. finishes: by reason.
    itl_source: `histogram` above 5 million gaps, then with a bound. ended_rps, events_rps: what the workers handled in the ranked
    stretch, whatever came of it: requests and attempts that ended, output events. held_back: of the whole run;
    offered: the arrivals in the measuring window; both None for a closed loop.
    """

    label: str
    max_concurrent: int
    batch_size: int | None
    requests: int
    ok: int
    success_rate: float | None
    whole: Measures
    steady: Measures | None
    steady_absent: str
    batch_means: list[float]
    failures: dict[str, Failure]
    finishes: dict[str, int]
    length_share: float | None
    attempts: Attempts
    tokens: Tokens
    wasted: Wasted
    batches: Batches | None
    accounting: Accounting
    workers: list[WorkerSummary]
    itl_source: Literal["records", "histogram"]
    notes: list[str]
    ended_rps: float | None = None
    events_rps: float | None = None
    held_back: HeldBack | None = None
    goodput: Goodput | None = None
    lateness: Lateness | None = None
    steadiness: Steadiness | None = None
    offered: Offered | None = None

    @property
    def ranked(self) -> Measures:
        """What cells are ranked by: the steady stretch, the whole run if there is none."""
        return self.whole if self.steady is None else self.steady


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a verdict is not `valid`: what was found, where the line is, what to do."""

    name: str
    level: Level
    number: float
    threshold: float
    advice: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """May the summary be believed? The level is that of the worst reason."""

    level: Level
    reasons: list[Reason]
