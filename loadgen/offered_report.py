"""The arrivals of an open loop as a section of a report: asked for, planned, sent; the tests of their law; the send lag.

Knows `Offered` and rich; computes nothing and judges nothing. Law: as of `tables.py`: what was not measured is "-", never 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.tables import ABSENT, plain_table, rate, seconds

if TYPE_CHECKING:
    from rich.table import Table

    from loadgen.offered import Fit, Offered


def arrivals_table(offered: Offered) -> Table:
    """What the process would have, what the dues of this seed have, and what the sends had."""
    table = plain_table(f"arrivals: {offered.process}")
    table.add_column("", no_wrap=True)
    for name in ("asked", "planned", "sent"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("requests", ABSENT, str(offered.scheduled), str(offered.sent))
    table.add_row("req/s", rate(offered.requested_rps), rate(offered.planned_rps), rate(offered.achieved_rps))
    table.add_row("variation of gaps", _figure(offered.law_cv), _figure(offered.planned_cv), _figure(offered.sent_cv))
    for one in offered.dispersion:
        name = f"dispersion, {seconds(one.window_s)}"
        table.add_row(name, _figure(offered.law_dispersion), _figure(one.planned), _figure(one.sent))
    return table


def arrivals_remarks(offered: Offered) -> list[str]:
    """In words: how far sends were from their dues, and whether they have the law of the process."""
    remarks = []
    if offered.as_scheduled is False:
        remarks.append("dues are NOT those of the schedule: what was sent is another load than the one asked for")
    lag = offered.send_lag
    if lag is not None:
        low = f"from {seconds(lag.min)}, " if lag.min >= 0 else f"from {seconds(-lag.min)} EARLY, "
        spread = (
            f"p50 {seconds(lag.p50)}, p90 {seconds(lag.p90)}, p99 {seconds(lag.p99)}, p99.9 {seconds(lag.p999)}, max {seconds(lag.max)}"
        )
        remarks.append(f"sent after due: {low}{spread}; {lag.late} of {lag.count} were more than {seconds(lag.late_after_s)} late")
        if lag.correlation is not None:
            remarks[-1] += f" (correlation of one with the next {lag.correlation:.2f})"
    tested = [said for name, fit in (("gaps", offered.gaps), ("place within the second", offered.phase)) if (said := _fit(name, fit))]
    if tested and lag is not None:
        on_time = f"a send within {seconds(lag.late_after_s)} of its due is taken as on time"
        remarks.append(f"Kolmogorov-Smirnov against the {offered.process} process: {', '.join(tested)}; {on_time}")
    if offered.memory is not None:
        shown = ", ".join(f"{one:+.3f}" for one in offered.memory.correlations)
        remarks.append(f"correlation of a gap with the next ones: {shown}; standard error {offered.memory.standard_error:.3f}")
    return remarks


def _fit(name: str, fit: Fit | None) -> str:
    return "" if fit is None else f"{name} p = {_p(fit.p)} (distance {fit.distance:.3f})"


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.2g}"


def _figure(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"
