"""What a benchmark from Python returns: values that print their figures.

Knows summaries, verdicts and standings; knows nothing of how they came about. Invariant: a result is a view of the run's files,
and all of them are in its `directory`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from loadgen.summary import Summary, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadgen.cell import Cell, Standing


class BenchmarkResult(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, measured. Printing it shows the figures; `summary` has all of them, `directory` the run's files.

    throughput_rps: requests/s of the steady stretch (the whole run if there is none), the mean over `runs`; the other figures are
    of the run whose throughput is the median. Latencies are from due, in seconds; None where nothing succeeded.
    """

    max_concurrent: int
    batch_size: int | None
    throughput_rps: float
    runs: int
    summary: Summary
    verdict: Verdict
    directory: Path

    @property
    def mean_latency_s(self) -> float | None:
        latency = self.summary.whole.latency
        return None if latency is None else latency.mean

    @property
    def median_latency_s(self) -> float | None:
        return self._latency(50)

    @property
    def p95_latency_s(self) -> float | None:
        return self._latency(95)

    @property
    def p99_latency_s(self) -> float | None:
        return self._latency(99)

    @property
    def success_rate(self) -> float | None:
        return self.summary.success_rate

    @property
    def output_tokens_tps(self) -> float:
        return self.summary.ranked.output_tokens_tps

    def __str__(self) -> str:
        from loadgen.tables import result_lines

        return result_lines(self.summary, self.verdict, self.throughput_rps, self.runs)

    def _latency(self, percent: float) -> float | None:
        latency = self.summary.whole.latency
        return None if latency is None else latency.value(percent)


class GridResults(list[BenchmarkResult]):
    """The settings of a grid, highest throughput first. best: the one to use (None if none can be believed), why: in words."""

    def __init__(self, results: Iterable[BenchmarkResult], best: BenchmarkResult | None, why: str) -> None:
        super().__init__(results)
        self.best = best
        self.why = why

    def __str__(self) -> str:
        return "\n".join([*map(str, self), f"best: {self.why}"])


class InterruptedRun(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a benchmark; what was measured before is in `results`, and in its run directory."""

    def __init__(self, results: GridResults | BenchmarkResult | None, directory: Path) -> None:
        super().__init__(f"interrupted; what was measured is in {directory}")
        self.results = results
        self.directory = directory


def result_of(cell: Cell, directory: Path, standing: Standing | None = None) -> BenchmarkResult:
    """What a cell's runs say. standing: its place in a grid."""
    summary, verdict = cell.median
    return BenchmarkResult(
        max_concurrent=cell.max_concurrent,
        batch_size=cell.batch_size,
        throughput_rps=standing.requests_rps if standing else summary.ranked.requests_rps,
        runs=standing.runs if standing else 1,
        summary=summary,
        verdict=verdict,
        directory=directory,
    )
