"""Goodput in words: how many requests kept the objectives, how surely, and which objective was missed most.

Knows a summary's goodput and how numbers are written; must not know documents or terminals. Pure. Law: a share stands beside the number
it is of and its interval; what is reached and not sure is not called kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.objectives import Objective
from loadgen.tables import rate, share

if TYPE_CHECKING:
    from loadgen.summary import Attained, Goodput


def goodput_lines(goodput: Goodput) -> list[str]:
    """The whole, then each objective, each a line."""
    judged = f"{share(goodput.share)} of {goodput.judged} requests within every objective"
    beside = [f"95 % interval {_span(goodput)}" if goodput.judged else "", _sized(goodput)]
    beside += [f"{goodput.failed} failed, dropped or timed out: misses" if goodput.failed else ""]
    beside += [f"{goodput.undecided} cancelled before they had missed: not judged" if goodput.undecided else ""]
    lines = [f"{rate(goodput.rps)} good requests/s; {judged} ({'; '.join(filter(None, beside))})"]
    lines += [f"{_objective(one)}: {share(one.share)} within ({_span(one)})" for one in goodput.objectives]
    if goodput.attainment is not None:
        lines.append(f"asked for {goodput.attainment:.4g}: {_standing(goodput)}")
    return lines


def _standing(goodput: Goodput) -> str:
    assert goodput.attainment is not None
    if goodput.missed:
        return "missed"
    if goodput.share is None:
        return "no request could be judged"
    sure = f"with 95 % confidence the share is at least {share(goodput.assured)}"
    return f"kept; {sure}" if goodput.assured >= goodput.attainment else f"reached, but not surely: {sure}; more requests tell"


def _sized(goodput: Goodput) -> str:
    """Where requests follow each other too closely to count in full."""
    if not goodput.judged or goodput.effective > 0.9 * goodput.judged:
        return ""
    return f"they count as {goodput.effective:.0f} independent ones"


def _span(one: Attained | Goodput) -> str:
    return f"{share(one.low)} to {share(one.high)}"


def _objective(one: Attained) -> str:
    return str(Objective(metric=one.metric, limit_s=one.limit_s))
