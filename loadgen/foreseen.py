"""A campaign that is known before its first plan: what came of one decides nothing of the next.

Knows plans and their order only. Pure. Invariant: each plan comes once, in the order given; the warm-up, if there is one, is the first of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.campaign import Performed
    from loadgen.plan import Plan


class Foreseen:
    """What `Bench`, `Run`, `Sweep` and `ServeBench` are: one plan after the other."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._plans = plans

    def next_plan(self, history: Sequence[Performed]) -> Plan | None:
        """The first that was not performed."""
        return self._plans[len(history)] if len(history) < len(self._plans) else None

    def planned(self, history: Sequence[Performed]) -> int | None:  # noqa: ARG002  # Campaign's signature
        """Known from the start."""
        return len(self._plans)
