"""A self-test as text for a terminal or a file.

Knows documents of self-tests and rich; must not compute what they say. Law: a bound is printed beside what it bounds, and a number that is
computed, or a lower bound, says so in its own line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadgen.tables import rate, seconds, share

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

    from loadgen.selftest import Ceiling, Curve, Error, Rung, SelfTest

# What a log file or a pipe gets: the tables are made to be read at this width.
_PLAIN_WIDTH = 110
_UNLIMITED_WIDTH = 10_000


def write_selftest(found: SelfTest, stream: TextIO, directory: Path) -> None:
    """The whole report."""
    console = Console(file=stream) if stream.isatty() else Console(file=stream, width=_PLAIN_WIDTH, no_color=True)
    facts = found.environment
    console.print(
        Text(f"self-test of loadgen {facts.loadgen}, transport {found.transport}, reads stamped at {found.stamping}", style="bold")
    )
    console.print(Text(f"{facts.cpu}, {facts.cores_usable} of {facts.cores} cores, load {facts.load_average}; {found.placement}"))
    if found.quick:
        console.print(Text("quick: few rungs, short; for figures to keep, run it without --quick", style="yellow"))
    p50_s, p99_s = found.bounds_s
    for curve in found.curves:
        console.print()
        title = f"{curve.mode}: error of what one worker reports, p50/p99/max; within bounds: p50 {seconds(p50_s)}, p99 {seconds(p99_s)}"
        console.print(Text(title, style="bold"), soft_wrap=True)
        _print_table(console, _curve_table(curve))
        console.print(Text(f"  {_said_of(curve)}"), soft_wrap=True)
    legend = "lag: from due to sent, transit: from sent until the server had read it, both part of TTFT and end to end, ms at p50; late: "
    console.print(Text(f"{legend}the server's own writes, ms at p99", style="dim"), soft_wrap=True)
    console.print()
    _print_table(console, _ceiling_table([*found.one, *found.all]))
    for need in found.needs:
        workers = "no number of workers" if need.workers is None else f"{need.workers} worker{'' if need.workers == 1 else 's'}"
        console.print(
            Text(f"{need.streams} streams, {rate(need.events_rps)} token events/s, {need.mode}: {workers} ({need.because})"), soft_wrap=True
        )
    for note in found.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    console.print(Text(f"kept in {directory}: selftest.json, selftest.png"), soft_wrap=True)


def described(rung: Rung) -> str:
    """A rung in a line, for whoever watches."""
    load = f"{rung.mode}, {rung.streams} {'in flight' if rung.mode == 'requests' else 'streams'}"
    what = f"{rate(rung.requests_rps)} requests/s" if rung.mode == "requests" else f"{rate(rung.events_rps)} token events/s"
    judged = "" if rung.mode == "requests" else ", within bounds" if rung.within else f", out of bounds ({rung.broken})"
    return f"{load}, {rung.workers} worker{'' if rung.workers == 1 else 's'}: {what}{judged}{', the server late' if rung.late else ''}"


def _print_table(console: Console, table: Table) -> None:
    """Whole, in a narrow terminal too: a number that is cut is another number."""
    table.width = console.measure(table, options=console.options.update_width(_UNLIMITED_WIDTH)).maximum
    console.print(table, crop=False, no_wrap=True, overflow="ignore")


def _curve_table(curve: Curve) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("streams", "events/s", "CPU/event", "core", "TTFT, ms", "ITL, ms", "end to end, ms", "lag", "transit", "late", ""):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for rung in curve.rungs:
        table.add_row(
            str(rung.streams),
            rate(rung.events_rps),
            _cpu(rung.cpu_s),
            "-" if rung.cpu_share is None else share(rung.cpu_share),
            _error(rung.ttft),
            _error(rung.itl),
            _error(rung.latency),
            "-" if rung.send_lag is None else _ms(rung.send_lag.p50_s),
            "-" if rung.transit is None else _ms(rung.transit.p50_s),
            "-" if rung.server_late is None else _ms(rung.server_late.p99_s),
            _judged(rung),
        )
    return table


def _judged(rung: Rung) -> str:
    said = ["within" if rung.within else f"OUT: {rung.broken}"]
    if rung.late:
        said.append("server late")
    if rung.attempts > 1:
        said.append(f"best of {rung.attempts}")
    return ", ".join(said)


def _said_of(curve: Curve) -> str:
    knee, outside = curve.knee, curve.outside
    if knee is None:
        start = f"out of bounds at every rung (first: {curve.rungs[0].broken})"
    else:
        start = f"within bounds up to {knee.streams} streams ({rate(knee.events_rps)} token events/s)"
        if outside is not None:
            start += f", out of them at {outside.streams}"
    return f"{start}; the curve ends here: {curve.ended}"


def _ceiling_table(ceilings: list[Ceiling]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("workers", "ceiling", "", "CPU each", "how"):
        table.add_column(name, justify="left" if name in ("", "how") else "right", no_wrap=True)
    for one in ceilings:
        how = one.how + (f"; a lower bound: {one.lower_bound}" if one.lower_bound else "")
        table.add_row(str(one.workers), rate(one.rate_rps), f"{one.unit}/s", _cpu(one.cpu_s), how)
    return table


def _error(error: Error | None) -> str:
    return "-" if error is None else f"{_ms(error.p50_s)}/{_ms(error.p99_s)}/{_ms(error.max_s)}"


def _ms(value: float) -> str:
    return f"{value * 1e3:.2f}" if value < 0.1 else f"{value * 1e3:,.0f}"


def _cpu(value: float | None) -> str:
    return "-" if value is None else f"{value * 1e6:.1f} us"
