"""What a command's plans say together: a grid's best setting, a series' curve, and may all of it be believed.

Knows documents as they stand without these, and who computes them; reads no file. Law: a pure function of the plans and of what was asked,
so that a report made again says the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadgen.cell import Cell, Standing
from loadgen.summary import Reason, Verdict

if TYPE_CHECKING:
    from loadgen.curve import Curve
    from loadgen.document import Document

SERIES = frozenset({"sweep", "search"})  # commands whose plans are points of a curve


class GridReport(msgspec.Struct, kw_only=True, frozen=True):
    """The cells, sorted by throughput, and the setting to use. pipeline: it, as YAML for a pipeline; "" when there is none."""

    results: list[Standing]
    best: Standing | None
    why: str
    pipeline: str


def concluded(document: Document) -> Document:
    """With its grid or curve, and its verdict."""
    grid = _grid(document) if document.run.command == "grid" else None
    document = msgspec.structs.replace(document, grid=grid, curve=_curve(document))
    return msgspec.structs.replace(document, verdict=_verdict(document))


def _grid(document: Document) -> GridReport | None:
    found = Cell.gathered(document.measured)
    if not found:
        return None
    from loadgen.pipeline_config import pipeline_yaml
    from loadgen.ranking import rank

    ranking = rank(found)
    best = ranking.best
    pipeline = "" if best is None else pipeline_yaml(best.batch_size, best.max_concurrent)
    return GridReport(results=ranking.results, best=best, why=ranking.why, pipeline=pipeline)


def _curve(document: Document) -> Curve | None:
    """Of a sweep or a search, as far as it was measured."""
    run = document.run
    measured = document.measured_plans
    if run.command not in SERIES or not measured:
        return None
    from loadgen.points import PARTS, points_of
    from loadgen.search import PATIENCE, curve_of
    from loadgen.sweep import swept

    if run.sought is None:
        return swept(points_of(measured, run.attainment), "rate" if measured[0][0].schedule else "concurrency")
    cut_short = document.ended is None or document.ended.interrupted is not None
    return curve_of(points_of(measured, run.attainment, PARTS, patience=PATIENCE), run.sought, cut_short=cut_short)


def _verdict(document: Document) -> Verdict:
    """Of a bench, its measured plan's; of a grid, of its cells together: each counts with the worst of its runs that can be believed."""
    found = Cell.gathered(document.measured)
    if not found:
        advice = "no plan was measured to any end: see log.txt, and run it again"
        return Verdict(level="invalid", reasons=[Reason(name="nothing-measured", level="invalid", number=0, threshold=1, advice=advice)])
    from loadgen.verdict import LEVELS, judge_grid

    def counted(cell: Cell) -> Verdict:
        believed = [verdict for verdict in cell.verdicts if verdict.level != "invalid"]
        return max(believed or cell.verdicts, key=lambda verdict: LEVELS.index(verdict.level))

    if document.run.command in SERIES:  # the points of an open loop have one setting
        return _verdict_of_series(document)
    verdicts = [counted(cell) for cell in found]
    return judge_grid(verdicts) if document.run.command == "grid" else verdicts[-1]


def _verdict_of_series(document: Document) -> Verdict:
    """Of all its plans. A search's are parts of points, which are what has to be long: the longest of them."""
    from loadgen.verdict import LEAST_WINDOW_S, judge_grid, short

    verdict = judge_grid([verdict for _, verdict in document.measured])
    if document.run.sought is None or document.curve is None:
        return verdict
    reason = short(max(point.window_s for point in document.curve.points), LEAST_WINDOW_S)
    if reason is None:
        return verdict
    return Verdict(level="degraded" if verdict.level == "valid" else verdict.level, reasons=[*verdict.reasons, reason])
