"""What a command is: a series of plans, each chosen by what the ones before it showed.

Knows the shape of a campaign and of what it leaves; knows nothing of processes or files. bench, grid, run, sweep, search and serve-bench are
campaigns; session.py performs them. Invariant: a campaign is pure: the same history gives the same next plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from loadgen.plan import Plan
from loadgen.server_side import ServerSide
from loadgen.summary import Summary, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Performed(msgspec.Struct, frozen=True, kw_only=True):
    """A plan and what came of it.

    server: what the server says of it, None when it was not asked. took_s: from before its workers were started until it was reduced.
    """

    plan: Plan
    summary: Summary
    verdict: Verdict
    server: ServerSide | None = None
    took_s: float = 0.0


class Campaign(Protocol):
    """Grid and Search choose as they learn; the others are `Foreseen`."""

    def next_plan(self, history: Sequence[Performed]) -> Plan | None:
        """The plan to perform next; None when nothing is left to learn."""

    def planned(self, history: Sequence[Performed]) -> int | None:
        """How many plans it will be in all, as far as that can be said now."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """A running plan as its workers last told it. expected: its requests, None when it ends by time."""

    elapsed_s: float
    sent: int
    finished: int
    failed: int
    in_flight: int
    rps: float
    expected: int | None = None
    duration_s: float | None = None
    latency_p50_s: float | None = None
    latency_p99_s: float | None = None
    ttft_p50_s: float | None = None


class Listener(Protocol):
    """Who is told how a session goes: the live view, or nobody."""

    def opened(self, directory: Path) -> None:
        """The run directory exists."""

    def planned(self, plan: Plan, total_plans: int | None) -> None:
        """A plan starts."""

    def snapshot(self, live: Live) -> None:
        """Beats came in."""

    def performed(self, performed: Performed) -> None:
        """A plan ended and was reduced."""

    def note(self, text: str) -> None:
        """Something worth a line."""
