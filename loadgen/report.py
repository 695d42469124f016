"""A document as text for a terminal or a file: the verdict first, then what was sent, then the numbers.

Knows documents and rich; must not compute a statistic or read a file. Pure: the same document and width give the same text.
Law: a number that may not be believed is below a line that says so, and what was estimated or simulated is named as that.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from loadgen.cell import Cell
from loadgen.circumstances import circumstances, counted
from loadgen.client_limits import busiest, latest, reached
from loadgen.curve_report import curve_chart, curve_table
from loadgen.evidence_report import evidence_lines
from loadgen.goodput_report import goodput_lines
from loadgen.offered_report import arrivals_remarks, arrivals_table
from loadgen.options import METRICS
from loadgen.server_report import server_lines, server_table
from loadgen.tables import detail_table, rate, seconds, share, throughput_table, token_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from loadgen.ceiling import KeptCeiling
    from loadgen.cell import Standing
    from loadgen.curve import Curve
    from loadgen.document import Document
    from loadgen.offered import Offered
    from loadgen.selftest import Ceiling
    from loadgen.summary import Summary

_COLORS = {"valid": "green", "degraded": "yellow", "invalid": "red"}
# What a log file or a pipe gets: the tables are made to be read at this width.
PLAIN_WIDTH = 100
# No terminal is as wide: what a table takes when nothing limits it.
_UNLIMITED_WIDTH = 10_000
_FAULTS = {"ours": "ours", "server": "the server's", "network": "the network's", "deadline": "a deadline's"}
_LABEL_WIDTH = 11


def write_report(document: Document, stream: TextIO, *, directory: Path | None = None, metrics: Sequence[str] = METRICS) -> None:
    """The report on a stream: with the colours and width of a terminal, else plain. NO_COLOR is rich's to honour."""
    _write(stream, lambda console: print_report(document, console, directory=directory, metrics=metrics))


def write_verdict(document: Document, stream: TextIO) -> None:
    """Of the report its first lines: may it be believed, and why not."""
    _write(stream, lambda console: _print_verdict(document, console))


def _write(stream: TextIO, render: Callable[[Console], None]) -> None:
    if stream.isatty():
        render(Console(file=stream))
        return
    # With the stream's own encoding, so that lines of tables are drawn with characters that it has.
    text = io.TextIOWrapper(io.BytesIO(), encoding=stream.encoding or "utf-8", errors="replace")
    render(Console(file=text, width=PLAIN_WIDTH, no_color=True))
    text.seek(0)
    stream.write("".join(line.rstrip() + "\n" for line in text))
    stream.flush()


def print_report(document: Document, console: Console, *, directory: Path | None = None, metrics: Sequence[str] = METRICS) -> None:
    """Print the whole report."""
    _print_verdict(document, console)
    for name, text in circumstances(document, directory):
        _print_fact(console, name, text)
    percents = document.run.percentiles
    rows = _rows(document)
    if rows:
        console.print()
        if document.curve is not None:
            _print_curve(document.curve, console)
        else:
            _print_table(console, throughput_table(rows, percents))
            _print_table(console, token_table([summary for _, summary in rows], metrics))
        chosen = _chosen(document, rows)
        if chosen.goodput is not None and document.curve is None:
            for place, line in enumerate(goodput_lines(chosen.goodput)):
                _print_fact(console, "" if place else "goodput", line)
            console.print()
        console.print(Text(f"in detail: {_named(chosen)}", style="bold"))
        _print_table(console, detail_table(chosen, percents, metrics))
        _print_remarks(document, chosen, console)
        if chosen.offered is not None:
            _print_arrivals(chosen.offered, console)
        _print_failures([summary for _, summary in rows], console)
    if rows:
        _print_server(document, _chosen(document, rows), console)
    _print_best(document, console)


def _print_verdict(document: Document, console: Console) -> None:
    verdict = document.verdict
    if verdict is None:
        so_far = "what follows is what its records hold so far" if document.measured else "nothing has been measured yet"
        console.print(Text(f"UNFINISHED: {so_far}", style="yellow"))
        return
    console.print(Text(verdict.level.upper(), style=f"bold {_COLORS[verdict.level]}"), end="")
    console.print(Text(f": {', '.join(one.name for one in verdict.reasons) or 'the numbers below may be believed'}"))
    for reason in verdict.reasons:
        line = f"{reason.name} ({reason.level}): {_number(reason.number)}, threshold {_number(reason.threshold)}: {reason.advice}"
        _print_indented(console, line, _COLORS[reason.level])
    if document.ended is None:
        _print_indented(console, "this run has not ended in order: what follows is what its records hold", "yellow")
    elif document.ended.interrupted:
        line = f"interrupted by signal {document.ended.interrupted}: what follows is what was measured before"
        _print_indented(console, line, "yellow")


def _print_fact(console: Console, name: str, text: str, style: str = "") -> None:
    """A label and its text; what does not fit goes on below the text."""
    line = Table.grid(Column(width=_LABEL_WIDTH, style="bold"), Column(style=style))
    line.add_row(Text(name), Text(text))
    console.print(line)


def _print_indented(console: Console, text: str, style: str) -> None:
    console.print(Padding(Text(text, style=style), (0, 0, 0, 2)))


def _print_table(console: Console, table: Table) -> None:
    """Where it does not fit, rows go on in the next line: a number that is cut is another number."""
    width = console.measure(table, options=console.options.update_width(_UNLIMITED_WIDTH)).maximum
    if width > console.width:
        table.width = width
    console.print(table, crop=False, no_wrap=True, overflow="ignore")


def _rows(document: Document) -> list[tuple[Standing | None, Summary]]:
    """The settings in the order of the ranking, each with the run whose rate is the median of its runs: percentiles have no mean."""
    if document.curve is not None:
        return [(None, summary) for summary, _ in document.measured]
    found = Cell.gathered(document.measured)
    if document.grid is None:
        return [(None, cell.runs[-1]) for cell in found]
    by_setting = {(cell.max_concurrent, cell.batch_size): cell.median[0] for cell in found}
    return [(standing, by_setting[standing.max_concurrent, standing.batch_size]) for standing in document.grid.results]


def _chosen(document: Document, rows: Sequence[tuple[Standing | None, Summary]]) -> Summary:
    """The setting that is shown in detail: the best of a grid or curve, else its knee, else the first."""
    if document.curve is not None:
        levels = (document.curve.best, document.curve.knee, document.curve.points[0].level)
        shown = next(level for level in levels if level is not None)
        labels = next(point.plans for point in document.curve.points if point.level == shown)
        return next(summary for _, summary in rows if summary.label == labels[-1])
    best = document.grid.best if document.grid else None
    return next((summary for standing, summary in rows if best is not None and standing == best), rows[0][1])


def _print_curve(curve: Curve, console: Console) -> None:
    _print_table(console, curve_table(curve))
    for line in curve_chart(curve):
        console.print(Text(line), no_wrap=True, crop=False, overflow="ignore")
    if curve.why:
        console.print()
        console.print(Text.assemble(Text("answer: ", style="bold"), curve.why))
    console.print()


def _print_remarks(document: Document, summary: Summary, console: Console) -> None:
    whole = summary.whole
    remarks = []
    shown = [p for d in (whole.latency, whole.ttft, whole.itl, whole.tpot) if d for p in d.percentiles.values()]
    if any(not p.enough for p in shown):
        remarks.append("*, n<N: too few samples to say much about this percentile, which needs N independent ones")
    if any(p.enough and p.high is None for p in shown):
        remarks.append("?: no sample is surely above this percentile")
    if document.grid is not None:
        remarks.append("req/s: mean over the runs of a setting; all else: its run of median req/s")
    if summary.steady is None:
        remarks.append(f"rates are of the whole run: {summary.steady_absent}")
    else:
        remarks.append(
            f"rates are of the steady stretch, {seconds(summary.steady.length_s)} of {seconds(whole.length_s)}; latencies of the whole run"
        )
    if document.run.target.stream and not whole.itl_per_token:
        remarks.append("ITL is between events: the server does not tell how many tokens an event has")
    if whole.coalesced_share:
        remarks.append(f"{share(whole.coalesced_share)} of events came in one read with the one before")
    if summary.tokens.source != "usage" and summary.ok:
        remarks.append(
            f"tokens are counted from {summary.tokens.source}: the server sent usage with {summary.tokens.with_usage} of {summary.ok}"
        )
    if summary.tokens.cached is not None:
        remarks.append(f"{summary.tokens.cached} of {summary.tokens.prompt} prompt tokens came from the server's cache")
    if summary.attempts.count or summary.attempts.reconnects:
        kinds = ", ".join(f"{kind} {count}" for kind, count in summary.attempts.errors.items())
        remarks.append(f"{summary.attempts.count} attempts were retried ({kinds or 'none'}); {summary.attempts.reconnects} reconnects")
    if summary.itl_source == "histogram":
        remarks.append("ITL is from histograms, within 0.1 %")
    remarks += evidence_lines(summary)
    if (held := summary.held_back) is not None and held.dropped:
        remarks.append(f"{held.dropped} requests were still held back when time and grace were over: dropped, never sent")
    if summary.ended_rps:
        remarks.append(_strain(summary, document.run.ceiling))
    for remark in remarks:
        _print_indented(console, remark, "dim")


def _print_arrivals(offered: Offered, console: Console) -> None:
    console.print()
    _print_table(console, arrivals_table(offered))
    for remark in arrivals_remarks(offered):
        _print_indented(console, remark, "dim")


def _strain(summary: Summary, ceiling: KeptCeiling | None) -> str:
    """What the workers handled, how near that is to what they can, and what it took."""
    near = reached(summary, ceiling)
    shares = {str(one.ceiling.unit): f" ({share(one.share)} of {_bounded(one.ceiling)})" for one in near}
    rates = (("requests", summary.ended_rps), ("token events", summary.events_rps))
    said = [" and ".join(f"{rate(value)} {unit}/s{shares.get(unit, '')}" for unit, value in rates if value)]
    if used := busiest(summary):
        said.append(f"at most {share(used[1])} of a core each")
    if late := latest(summary):
        said.append(f"loops at most {seconds(late[1])} late at p99")
    if any(one.ceiling.lower_bound for one in near):
        said.append("a lower bound is no reason for client-limited")
    if ceiling is not None and not ceiling.of(len(summary.workers)):
        said.append(f"no ceiling of {counted(len(summary.workers), 'worker', 's')} was measured, so none is a reason for client-limited")
    return "the workers handled " + "; ".join(said)


def _bounded(ceiling: Ceiling) -> str:
    return "a lower bound of the ceiling" if ceiling.lower_bound else "the ceiling"


def _print_failures(summaries: Sequence[Summary], console: Console) -> None:
    for summary in summaries:
        for kind, failure in summary.failures.items():
            statuses = ", ".join(f"HTTP {status}: {count}" for status, count in failure.statuses.items() if status != "0")
            line = f"{_named(summary)}: {failure.count} {kind} ({_FAULTS[failure.fault]})"
            rest = f"{', ' + statuses if statuses else ''}; median {seconds(failure.latency.median)}; {failure.example}"
            _print_fact(console, "failed", line + rest, style="red")


def _print_server(document: Document, chosen: Summary, console: Console) -> None:
    """The server's own account: beside ours, and of the plan that is shown in detail."""
    if (table := server_table(document, chosen)) is not None:
        console.print()
        _print_table(console, table)
    for line in server_lines(document, chosen):
        _print_fact(console, line.label, line.text, style="yellow" if line.warning else "")


def _print_best(document: Document, console: Console) -> None:
    grid = document.grid
    if grid is None:
        return
    console.print()
    if grid.best is None:
        console.print(Text(f"best: none. {grid.why}", style="red"))
        return
    console.print(Text.assemble(Text("best: ", style="bold"), grid.why))
    console.print()
    console.print(Text("# for the pipeline's config.yaml\n" + grid.pipeline.rstrip("\n")))


def _named(summary: Summary) -> str:
    """A load: its plan's name where it is an open loop, whose concurrency is only a bound."""
    return _setting(summary.max_concurrent, summary.batch_size) if summary.offered is None else summary.label


def _setting(max_concurrent: int, batch_size: int | None) -> str:
    return f"concurrency {max_concurrent}" + ("" if batch_size is None else f", batch size {batch_size}")


def _number(value: float) -> str:
    return f"{value:g}" if value == int(value) else rate(value) if value >= 1 else f"{value:.3g}"
