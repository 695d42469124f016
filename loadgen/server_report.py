"""What the server says, in words: its counts beside ours, its gauges, and where the time of requests went.

Knows documents and how numbers are written; must not know terminals, nor compute what run.json does not hold. Law: a disagreement is said
with both numbers and what else the server did; a share of time is said only where run.json has it, else why it has not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from loadgen.distribution import percentile_key
from loadgen.server_side import PERCENTS
from loadgen.tables import ABSENT, plain_table, seconds, share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

    from loadgen.breakdown import Breakdown
    from loadgen.document import Document
    from loadgen.plan_report import PlanReport
    from loadgen.server_side import Between, Level, ServerSide
    from loadgen.summary import Summary

_PHASES = {
    "held": "waiting here to be sent",
    "queue": "queueing in the server",
    "prefill": "prefill",
    "decode": "decoding",
    "front_end": "in the server's front end (tokenizing, images, hand-overs)",
    "outside": "network and client",
}
# Of a whole; would be printed as 0.0 %, or as -0.0 % where clocks differ. All parts are in run.json.
_NEGLIGIBLE = 0.0005
_TIMED = {"queue": "queue", "prefill": "prefill", "decode": "decode", "ttft": "TTFT", "itl": "ITL", "latency": "latency"}


class Line(NamedTuple):
    """A label ("" goes on below the one before), its text, and whether it is a warning."""

    label: str
    text: str
    warning: bool = False


def server_lines(document: Document, chosen: Summary) -> list[Line]:
    """Counts of all plans that have both; what is of one plan alone, of the one that is shown in detail."""
    both = [(one, one.server, one.summary) for one in document.plans if one.server is not None and one.summary is not None]
    lines = _labelled("counted", _counted(both))
    server = next((server for _, server, summary in both if summary is chosen), None)
    if server is not None and not server.restarted:
        lines += _of_one(server)
    return lines


def _labelled(label: str, lines: list[Line]) -> list[Line]:
    return [line._replace(label=label) for line in lines[:1]] + lines[1:]


def server_table(document: Document, chosen: Summary) -> Table | None:
    """What the server timed of the plan that is shown in detail; None where it timed nothing."""
    server = next((one.server for one in document.plans if one.summary is chosen), None)
    timed = {name: server.times[name] for name in _TIMED if name in server.times and server.times[name].count} if server else {}
    if not timed:
        return None
    table = plain_table("as the server timed it (a percentile lies between two bounds of its buckets)")
    table.add_column("metric", no_wrap=True)
    for name in ("n", "mean", *map(percentile_key, PERCENTS)):
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in timed.items():
        cells = (_between(one.percentiles.get(percentile_key(percent))) for percent in PERCENTS)
        table.add_row(_TIMED[name], str(one.count), seconds(one.mean_s), *cells)
    return table


def _counted(both: Sequence[tuple[PlanReport, ServerSide, Summary]]) -> list[Line]:
    """Over all plans; first of all what says that nothing can be said."""
    if any(server.restarted for _, server, _ in both):
        return [Line("", "the server was restarted during the run: its counters say nothing", warning=True)]
    lines = []
    comparisons = [
        _compared("requests", ((server.in_order, summary.ok) for _, server, summary in both)),
        _compared("prompt tokens", ((server.prompt_tokens, summary.tokens.prompt) for _, server, summary in both)),
        _compared("generated tokens", ((server.generation_tokens, summary.tokens.completion) for _, server, summary in both)),
    ]
    if any(comparisons):
        lines.append(Line("", "by the server: " + "; ".join(filter(None, comparisons))))
    for report, server, summary in both:
        lines += [Line("", f"{report.directory}: {text}", warning=True) for text in _reasons(server, summary)]
    if not lines:  # said once, not for each of a hundred plans
        lines += [Line("", note) for note in dict.fromkeys(note for _, server, _ in both for note in server.notes)]
    else:
        lines += [Line("", f"{report.directory}: {note}", warning=True) for report, server, _ in both for note in server.notes]
    preemptions = sum(server.preemptions or 0 for _, server, _ in both)
    if preemptions:
        lines.append(Line("", f"{preemptions} preemptions: the KV cache was full", warning=True))
    for name, unit, pairs in (
        ("prefix cache", "tokens", [(server.prefix_hits, server.prefix_queries) for _, server, _ in both]),
        ("cache of processed images", "images", [(server.image_hits, server.image_queries) for _, server, _ in both]),
    ):
        queries = sum(asked or 0 for _, asked in pairs)
        if queries:
            lines.append(Line("", f"{name}: {share(sum(hits or 0 for hits, _ in pairs) / queries)} of {queries} {unit} were hits"))
    return lines


def _compared(name: str, pairs: Iterable[tuple[int | None, int]]) -> str:
    """`64 requests (equal)`; "" where the server does not count this. Pairs: its count and ours, for each plan."""
    counts = list(pairs)
    if not counts or any(their is None for their, _ in counts):
        return ""
    theirs, ours = sum(their or 0 for their, _ in counts), sum(our for _, our in counts)
    # Plan by plan: two that disagree by as much each way are no agreement.
    if all(their == our for their, our in counts):
        return f"{theirs} {name} (equal)"
    more = f": {abs(theirs - ours)} {'more' if theirs > ours else 'fewer'} there" if theirs != ours else ", but not in each plan"
    return f"{theirs} {name} (NOT EQUAL: we counted {ours}{more})"


def _reasons(server: ServerSide, summary: Summary) -> list[str]:
    """Why the counts of a plan may disagree; what others had going is said even where they agree."""
    texts = []
    if server.running_before or server.waiting_before:
        texts.append(
            f"others had {server.running_before or 0} requests running and {server.waiting_before or 0} waiting when it began: "
            "the server's counts and times hold their work, too"
        )
    alike = server.in_order == summary.ok and server.generation_tokens in (None, summary.tokens.completion)
    if alike or server.in_order is None:
        return texts
    generated = ABSENT if server.generation_tokens is None else server.generation_tokens
    texts.append(
        f"the server ended {server.in_order} requests in order, {summary.ok} succeeded here; "
        f"it generated {generated} tokens, {summary.tokens.completion} were counted here"
    )
    if summary.requests > summary.ok:
        texts.append(f"{summary.requests - summary.ok} requests did not succeed here; what the server did for them is in its counts")
    if summary.attempts.count:
        texts.append(f"{summary.attempts.count} attempts were retried; what the server did for them is in its counts")
    if server.running_after or server.waiting_after:
        texts.append(f"{server.running_after or 0} were running and {server.waiting_after or 0} waiting when it was read again")
    return texts


def _of_one(server: ServerSide) -> list[Line]:
    """Gauges, where the time went, and when it was asked."""
    times = [("TTFT", server.ttft), ("latency", server.latency)]
    lines = _labelled("time", [Line("", where(name, one), warning=bool(one.absent)) for name, one in times if one is not None])
    if (watched := server.watched) is not None:
        levels = [
            _level("running", watched.running),
            _level("waiting", watched.waiting),
        ]
        if watched.kv_usage is not None:
            levels.append(f"KV cache at most {share(watched.kv_usage.max)} in use")
        missed = f", {watched.missed} of them without an answer" if watched.missed else ""
        took = f"each took {seconds(watched.took_mean_s)}, at most {seconds(watched.took_max_s)}"
        lines.append(Line("gauges", f"{'; '.join(filter(None, levels)) or 'none'} ({watched.reads} reads in the window{missed}; {took})"))
    if (bracket := server.bracket) is not None and bracket.after_began_s is not None and bracket.after_ended_s is not None:
        late_s = bracket.after_began_s - bracket.window_s
        text = (
            f"its counters were read {seconds(-bracket.before_ended_s)} before the window of {seconds(bracket.window_s)} began "
            f"(in {seconds(bracket.before_ended_s - bracket.before_began_s)}) and {seconds(late_s)} after its end "
            f"(in {seconds(bracket.after_ended_s - bracket.after_began_s)})"
        )
        lines.append(Line("bracket", text))
    return lines


def where(name: str, breakdown: Breakdown) -> str:
    """`71.0% of TTFT (mean 1.24s) was queueing in the server, 12.0% prefill, ...`, the largest part first."""
    if breakdown.absent:
        return f"where {name} went cannot be said: {breakdown.absent}"
    first, *rest = breakdown.parts
    said = [f"{share(first.share)} of {name} (mean {seconds(breakdown.mean_s)}) was {_PHASES[first.phase]}"]
    said += [f"{share(part.share)} {_PHASES[part.phase]}" for part in rest if abs(part.share) >= _NEGLIGIBLE]
    return ", ".join(said)


def _level(name: str, level: Level | None) -> str:
    return "" if level is None else f"{level.mean:.1f} {name} on average, at most {level.max:.0f}, {level.last:.0f} at last"


def _between(bounds: Between | None) -> str:
    """`300ms-500ms`; above the last bound `>7680s`."""
    if bounds is None:
        return ABSENT
    return f">{seconds(bounds.low_s)}" if bounds.high_s is None else f"{seconds(bounds.low_s)}-{seconds(bounds.high_s)}"
