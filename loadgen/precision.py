"""Stop when enough is known: the confidence interval of a chosen percentile has become narrow.

Knows the records of a plan that runs, and how they are reduced; sends and stops nothing itself. Law: it looks only when there are twice
as many samples as at the look before: one who looks at every moment and stops at the first narrow interval stops at lucky ones.
What is in flight at a look is not in it; the report is made of all that there is at the end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from loadgen.quantities import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadgen.plan_facts import PlanFacts

LOOKS = "precision.json"  # in a plan's directory
Metric = Literal["e2el", "ttft", "tpot", "itl"]
_ASKED = re.compile(r"p([0-9.]+):([a-z0-9]+):([0-9.]+)%")


class Precision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is precise enough: the 95 % confidence interval of this percentile, from end to end, at most `share` of its value."""

    percent: float
    metric: Metric
    share: float


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was known at one look. width: of the interval, as a share of the value; None where no sample gives a bound."""

    samples: int
    value_s: float | None
    width: float | None


class Looks(msgspec.Struct, kw_only=True):
    """All looks of a plan, and whether the last one ended it."""

    precision: Precision
    looks: list[Look] = []
    reached: bool = False


class Observer:
    """Looks at a plan's records while it runs. paths: its record files; owner: as for `read_records`."""

    def __init__(self, precision: Precision, paths: Sequence[Path], owner: tuple[bytes, int], facts: PlanFacts) -> None:
        from loadgen.percentiles import samples_needed

        self.found = Looks(precision=precision)
        self._paths = paths
        self._owner = owner
        percentiles = tuple(sorted({*facts.percentiles, precision.percent}))
        self._facts = msgspec.structs.replace(facts, percentiles=percentiles)
        self._next = samples_needed(precision.percent)  # fewer have no upper bound

    def enough(self, ok: int) -> bool:
        """Whether the run may end; looks only when there are enough successes for another look."""
        if ok < self._next or self.found.reached:
            return self.found.reached
        from loadgen.recorded import read_records
        from loadgen.reducer import reduce

        whole = reduce(read_records(self._paths, self._owner), self._facts).whole
        precision = self.found.precision
        measured = {"e2el": whole.latency, "ttft": whole.ttft, "tpot": whole.tpot, "itl": whole.itl}[precision.metric]
        look = Look(samples=0, value_s=None, width=None)
        if measured is not None:
            one = next(each for each in measured.percentiles.values() if each.percent == precision.percent)
            known = one.low is not None and one.high is not None and one.value > 0
            width = (one.high - one.low) / one.value if known else None  # type: ignore[operator]  # known: neither is None
            look = Look(samples=measured.count, value_s=one.value, width=width)
        self.found.looks.append(look)
        self.found.reached = look.width is not None and look.width <= precision.share
        self._next = 2 * ok
        return self.found.reached


def _read(text: str) -> Precision:
    match = _ASKED.fullmatch(text.strip())
    if match is None or match[2] not in get_args(Metric):
        raise ValueError(text)
    percent, share = float(match[1]), float(match[3]) / 100
    if not (0 < percent < 100 and 0 < share < 1):
        raise ValueError(text)
    return Precision(percent=percent, metric=match[2], share=share)  # type: ignore[arg-type]  # one of Metric's


PRECISION = Reader("pN:METRIC:WIDTH", "a percentile, e2el, ttft, tpot or itl, and a width, as in p99:ttft:5%", _read)
