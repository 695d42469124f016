"""How many requests kept the objectives, and how surely.

Knows the heads of final frames, objectives and one stretch of time; knows no other plan. Pure.
Law: every request that was due in the stretch is judged or counted as undecided. What failed, timed out or was dropped is a miss, as if it
had taken for ever; what we cancelled is a miss where it was already too late then, else undecided: that says nothing of the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clients.errors import Outcome
from loadgen.dependence import effective_samples
from loadgen.measures import completion_tokens
from loadgen.percentiles import CONFIDENCE
from loadgen.proportion import lower_bound, upper_bound
from loadgen.summary import Attained, Goodput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from loadgen.objectives import Objective
    from loadgen.stretch import Stretch

_FOR_EVER = np.inf
# Where nobody asked for a share: dependence is looked at where misses would be at 95 %.
_USUAL = 0.95


def goodput_of(heads: NDArray[np.void], stretch: Stretch, objectives: Sequence[Objective], attainment: float | None) -> Goodput | None:
    """Judge the requests due in `stretch`; None where nothing makes one good."""
    if not objectives:
        return None
    rows = np.flatnonzero(stretch.holds(heads["due_ns"]))
    rows = rows[np.argsort(heads["due_ns"][rows], kind="stable")]
    own = heads[rows]
    taken = {one.metric: _METRICS[one.metric](own) / one.limit_s for one in objectives}
    ok, cancelled = own["outcome"] == Outcome.OK, own["outcome"] == Outcome.CANCELLED
    for shares in taken.values():
        shares[~ok & ~cancelled] = _FOR_EVER
    excess = np.maximum.reduce(list(taken.values()))
    decided = ~cancelled | (excess > 1)
    within = (excess <= 1)[decided]
    n, good = len(within), int(np.count_nonzero(within))
    effective = _effective(excess[decided], _USUAL if attainment is None else attainment)
    yes = good * effective / n if n else 0.0
    low, high = _between(yes, effective)
    return Goodput(
        rps=good / stretch.length_s if stretch.length_s else 0.0,
        good=good,
        judged=n,
        undecided=int(np.count_nonzero(~decided)),
        failed=int(np.count_nonzero(~ok & ~cancelled)),
        share=good / n if n else None,
        low=low,
        high=high,
        assured=lower_bound(yes, effective, CONFIDENCE) if n else 0.0,
        effective=effective,
        later_share=float(within[n // 2 :].mean()) if n else None,
        attainment=attainment,
        objectives=[_attained(one, taken[one.metric][decided]) for one in objectives],
    )


def _effective(excess: NDArray[np.float64], attainment: float) -> float:
    """Independent samples of the misses; where they are fewer than the objectives allow, of what is above the level that so many reach."""
    if not len(excess):
        return 0.0
    return effective_samples(excess > min(1.0, float(np.quantile(excess, attainment, method="lower"))))


def _attained(objective: Objective, taken: NDArray[np.float64]) -> Attained:
    within = taken <= 1
    n, good = len(within), int(np.count_nonzero(within))
    effective = effective_samples(within)
    low, high = _between(good * effective / n if n else 0.0, effective)
    share = good / n if n else None
    return Attained(metric=objective.metric, limit_s=objective.limit_s, judged=n, within=good, share=share, low=low, high=high)


def _between(yes: float, n: float) -> tuple[float, float]:
    each = 1 - (1 - CONFIDENCE) / 2
    return (lower_bound(yes, n, each), upper_bound(yes, n, each)) if n else (0.0, 1.0)


def _ttft_s(heads: NDArray[np.void]) -> NDArray[np.float64]:
    """To the first output; where all came at once, or none came, to the end."""
    first = np.where(heads["first_output_ns"] > 0, heads["first_output_ns"], heads["end_ns"])
    taken: NDArray[np.float64] = (first - heads["due_ns"]) / 1e9
    return taken


def _tpot_s(heads: NDArray[np.void]) -> NDArray[np.float64]:
    """0 where a request has none: an answer of one token keeps every pace (vLLM's rule, too)."""
    paced = completion_tokens(heads, np.arange(len(heads))) - np.maximum(heads["first_event_tokens"], 1)
    span_s = (heads["last_output_ns"] - heads["first_output_ns"]) / 1e9
    has = (paced > 0) & (heads["first_output_ns"] > 0) & (heads["outcome"] == Outcome.OK)
    paces: NDArray[np.float64] = np.divide(span_s, paced, out=np.zeros(len(heads)), where=has)
    return paces


def _e2el_s(heads: NDArray[np.void]) -> NDArray[np.float64]:
    taken: NDArray[np.float64] = (heads["end_ns"] - heads["due_ns"]) / 1e9
    return taken


_METRICS: dict[str, Callable[[NDArray[np.void]], NDArray[np.float64]]] = {
    "ttft": _ttft_s,
    "tpot": _tpot_s,
    "e2el": _e2el_s,
}
