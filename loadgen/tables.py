"""Tables of a report: settings in rows, metrics in columns, each number with its unit.

Knows summaries and how numbers are written; must not know documents or terminals. Law: what was not measured is "-", never 0,
and a percentile with too few samples carries its mark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from loadgen.distribution import percentile_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.cell import Standing
    from loadgen.distribution import Distribution, Percentile
    from loadgen.summary import Summary, Verdict

ABSENT = "-"
_METRIC_NAMES = {"e2el": "latency", "ttft": "TTFT", "tpot": "TPOT", "itl": "ITL"}


def seconds(value: float | None) -> str:
    """`850us`, `12.3ms`, `1.24s`, `2m05s`."""
    if value is None:
        return ABSENT
    if value < 0.000_999_5:
        return f"{value * 1e6:.0f}us"
    if value < 0.999_5:
        return f"{value * 1e3:.{1 if value < 0.099_95 else 0}f}ms"
    if value < 99.95:
        return f"{value:.2f}s" if value < 9.995 else f"{value:.1f}s"
    return f"{int(value + 0.5) // 60}m{int(value + 0.5) % 60:02d}s"


def rate(value: float | None) -> str:
    """Three or more digits."""
    if value is None:
        return ABSENT
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.1f}" if value >= 99.95 else f"{value:.2f}"


def share(value: float | None) -> str:
    """A share as percent; one that is not quite 100 % or 0 % does not look like it."""
    if value is None:
        return ABSENT
    if 0.999 <= value < 1:
        return "99.9%"
    return "<0.1%" if 0 < value < 0.001 else f"{value:.1%}"


def throughput_table(rows: Sequence[tuple[Standing | None, Summary]], percents: Sequence[float]) -> Table:
    """One row a setting: rates, and latency from due. Sorted as given. A row without a standing is a bench's only one."""
    table = plain_table("throughput, and latency from due")
    for name in ("batch", "conc", "req/s", "out tok/s", "in tok/s", "mean", *map(percentile_key, percents), "ok", "verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    if all(standing is None for standing, _ in rows):
        table.columns.pop()
    for standing, summary in rows:
        measured = summary.ranked
        latency = summary.whole.latency
        cells = [
            ABSENT if summary.batch_size is None else str(summary.batch_size),
            str(summary.max_concurrent),
            rate(standing.requests_rps if standing else measured.requests_rps),
            rate(measured.output_tokens_tps),
            rate(measured.input_tokens_tps),
            seconds(latency.mean if latency else None),
            *(_percentile(latency, percent) for percent in percents),
            share(summary.success_rate),
        ]
        if standing is not None:
            cells.append(standing.level)
        table.add_row(*cells)
    return table


def result_lines(summary: Summary, verdict: Verdict, requests_rps: float, runs: int) -> str:
    """One setting in words, for `print(result)`: no table, so that it reads in a notebook's cell as in a log."""
    batch = "no batch size" if summary.batch_size is None else f"batch size {summary.batch_size}"
    latency, ttft = summary.whole.latency, summary.whole.ttft
    marked = ", ".join(f"{key} {_percentile(latency, value.percent)}" for key, value in latency.percentiles.items()) if latency else ABSENT
    lines = [
        f"concurrency {summary.max_concurrent}, {batch}: {verdict.level}{f' ({runs} runs)' if runs > 1 else ''}",
        f"  throughput    {rate(requests_rps)} requests/s, {rate(summary.ranked.output_tokens_tps)} output tokens/s",
        f"  latency       mean {seconds(latency.mean if latency else None)}, {marked.replace('p50', 'median')}",
        f"  success rate  {share(summary.success_rate)} of {summary.requests}",
    ]
    if ttft is not None:
        lines.insert(3, f"  TTFT          median {seconds(ttft.median)}, p99 {_percentile(ttft, 99)}")
    lines += [
        f"  {reason.level}: {reason.name} {reason.number:.4g} (limit {reason.threshold:.4g}): {reason.advice}" for reason in verdict.reasons
    ]
    return "\n".join(lines)


def token_table(rows: Sequence[Summary], metrics: Sequence[str]) -> Table:
    """One row a setting: TTFT, ITL and TPOT, how answers ended, what barriers cost, how many were in flight."""
    table = plain_table("tokens, endings, slots (median / p99)")
    shown = [metric for metric in ("ttft", "itl", "tpot") if metric in metrics]
    batched = any(summary.batches is not None for summary in rows)
    names = ["batch", "conc", *(_METRIC_NAMES[metric] for metric in shown), "length"]
    names += ["makespan", "waste"] if batched else []
    for name in (*names, "peak", "mean"):
        table.add_column(name, justify="right", no_wrap=True)
    for summary in rows:
        whole = summary.whole
        batches = summary.batches
        makespan = batches.makespan.median if batches and batches.makespan else None
        table.add_row(
            ABSENT if summary.batch_size is None else str(summary.batch_size),
            str(summary.max_concurrent),
            *(median_and_p99(getattr(whole, metric)) for metric in shown),
            share(summary.length_share),
            *([seconds(makespan), share(batches.straggler_waste if batches else None)] if batched else []),
            str(whole.in_flight_peak),
            f"{whole.in_flight_mean:.1f}",
        )
    return table


def detail_table(summary: Summary, percents: Sequence[float], metrics: Sequence[str]) -> Table:
    """Every distribution of one run; `p99 between`: the 95 % confidence interval of its highest percentile."""
    highest = max(percents)
    table = plain_table("")
    table.add_column("metric", no_wrap=True)
    for name in ("n", "mean", *map(percentile_key, percents), "max"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"{percentile_key(highest)} between", justify="right", no_wrap=True)
    for name, distribution in _distributions(summary, metrics):
        if distribution is None:
            continue
        table.add_row(
            name,
            str(distribution.count),
            seconds(distribution.mean),
            *(_percentile(distribution, percent) for percent in percents),
            seconds(distribution.max),
            _interval(distribution.percentiles.get(percentile_key(highest))),
        )
    return table


def _distributions(summary: Summary, metrics: Sequence[str]) -> list[tuple[str, Distribution | None]]:
    whole = summary.whole
    by_metric: dict[str, list[tuple[str, Distribution | None]]] = {
        "e2el": [("latency, from due", whole.latency), ("latency, from sent", whole.latency_from_sent), ("send lag", whole.send_lag)],
        "ttft": [("TTFT, from due", whole.ttft), ("TTFT, from sent", whole.ttft_from_sent), ("first answer", whole.first_answer)],
        "itl": [
            ("ITL, per token" if whole.itl_per_token else "ITL, per event", whole.itl),
            ("gap between events", whole.event_gap if whole.itl_per_token else None),
            ("largest gap", whole.largest_gap),
        ],
        "tpot": [("TPOT", whole.tpot)],
    }
    rows = [row for metric, group in by_metric.items() if metric in metrics for row in group]
    if summary.batches is not None:
        rows.append(("batch makespan", summary.batches.makespan))
    return rows


def plain_table(title: str) -> Table:
    return Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)


def _percentile(distribution: Distribution | None, percent: float) -> str:
    found = distribution.percentiles.get(percentile_key(percent)) if distribution else None
    if found is None:
        return ABSENT
    return seconds(found.value) + ("" if found.enough else "*")


def median_and_p99(distribution: Distribution | None) -> str:
    """`1.2s / 3.4s`."""
    if distribution is None:
        return ABSENT
    return f"{seconds(distribution.median)} / {_percentile(distribution, 99.0)}"


def _interval(percentile: Percentile | None) -> str:
    if percentile is None:
        return ABSENT
    if not percentile.enough:
        return percentile.mark
    low = seconds(percentile.low)
    high = "?" if percentile.high is None else seconds(percentile.high)
    return f"{low}-{high}"
