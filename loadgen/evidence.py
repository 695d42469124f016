"""What a verdict goes by beside the numbers themselves: were requests sent in time, was the stretch steady.

Knows shapes and units, as `summary.py`, whose parts these are; no arithmetic. Law: what is here are facts of one run, so none of it has a
confidence interval; what was not found out is None.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Lateness(msgspec.Struct, frozen=True, kw_only=True):
    """How late the client itself sent the requests that were due in the ranked stretch (`lateness.py`).

    p50_s, p99_s, largest_s: from when a request was due *and* a slot was free for it; p99 is that of the sample below it, so that one late
    request of a few is not their p99. What they waited for a slot is in no figure here (`HeldBack` counts them), but in latencies from due.
    Of an open loop, else None: offered_rps: due, over the stretch's length; missed: not sent within a tenth of a second, or never, though a
    slot was free.
    """

    requests: int
    p50_s: float
    p99_s: float
    largest_s: float
    offered_rps: float | None
    missed: int | None


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which later requests fared other than earlier ones. p: how often chance alone gives as much.

    share: of the median, by how much the end differs from the beginning (trend), or what is after `at_s` from what is before (change).
    at_s: seconds since the first due; of a trend, where the stretch begins.
    """

    metric: str
    kind: Literal["trend", "change"]
    p: float
    share: float
    at_s: float


class Little(msgspec.Struct, frozen=True, kw_only=True):
    """Little's law over a stretch: requests in flight on average, those that ended in it per second, their mean time from sent to end.

    off: |in_flight - rate * residence| / in_flight. Both sides come from the same stamps, so this is what the edges of the stretch cut, on
    balance: noise where requests are long beside it, else a backlog that grew or shrank.
    """

    in_flight: float
    ended_rps: float
    residence_s: float
    off: float


class Steadiness(msgspec.Struct, frozen=True, kw_only=True):
    """Was the ranked stretch the same from its beginning to its end (`steadiness.py`)?

    absent: why that was not asked, "" where it was. warmup_s: of an open loop, what MSER-5 leaves out at the beginning of the measuring
    window; None where it finds none, and in a closed loop, which has a start burst in its place. effective: as how many independent
    requests those of the metric that counts fewest go. drifts: those that are beyond chance and large enough to matter.
    """

    absent: str
    warmup_s: float | None
    effective: int | None
    drifts: list[Drift]
    little: Little | None
