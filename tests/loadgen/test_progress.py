"""The live view: plain lines by the clock of what it is told, a bar on a terminal."""

import io
from pathlib import Path

from rich.console import Console

from loadgen.campaign import Live
from loadgen.plan import Plan
from loadgen.progress import Estimate, LiveProgress, PlainProgress, described, progress, status


def plan(**settings):
    settings = {"number": 1, "label": "p", "max_concurrent": 4, "workers": 1, "num_requests": 8, **settings}
    return Plan(**settings)


def live(elapsed_s, **settings):
    return Live(elapsed_s=elapsed_s, sent=5, finished=3, failed=0, in_flight=2, rps=1.5, **settings)


def test_plain_lines_come_at_most_every_five_seconds():
    """A log file of an hour stays readable."""
    stream = io.StringIO()
    view = PlainProgress(stream)
    view.opened(Path("results/x"))
    view.planned(plan(batch_size=2), 9)
    for tenth in range(120):
        view.snapshot(live(tenth / 10, expected=8))
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["run directory results/x", "plan 2 of 9: batch 2, concurrency 4, 8 requests"]
    assert len(lines) == 4  # at 5 s and at 10 s
    assert lines[2] == "  3/8 done, 2 in flight, 1.50 req/s"


def test_a_closed_stream_ends_the_view_and_not_the_run():
    """Nobody reads stderr any more: the load goes on."""
    stream = io.StringIO()
    view = PlainProgress(stream)
    stream.close()
    view.note("unheard")


def test_a_stream_that_is_no_terminal_gets_plain_lines():
    """And no escape sequence."""
    stream = io.StringIO()
    with progress(stream) as view:
        view.note("hello")
    assert stream.getvalue() == "note: hello\n"


def test_a_terminal_gets_a_bar_that_goes_when_the_plan_ends():
    """Lines stay, the bar does not; text in brackets is text."""
    stream = io.StringIO()
    with LiveProgress(Console(file=stream, force_terminal=True, width=100)) as view:
        view.opened(Path("results/x"))
        view.planned(plan(), 2)
        view.snapshot(live(1.0, expected=8, latency_p50_s=0.5))
        view.note("[not a tag]")
    text = stream.getvalue()
    assert "3/8 done, 2 in flight, 1.50 req/s, p50 0.50 s" in text
    assert "note: [not a tag]" in text


def test_plans_are_named_by_what_sets_them_apart():
    """Warm-up, batch, concurrency, end, repeat."""
    assert described(plan(purpose="warmup")) == "warm-up, concurrency 4, 8 requests"
    assert described(plan(batch_size=4, num_requests=None, duration_s=30.0, repeat=2)) == "batch 4, concurrency 4, 30 s, run 2"
    assert status(live(1.0)) == "3 done, 2 in flight, 1.50 req/s"


def test_the_estimate_is_said_once_when_cells_begin():
    """By duration it needs no rate; without a rate and without a duration there is nothing to say."""
    estimate = Estimate()
    assert estimate.planned(plan(number=0, purpose="warmup"), 13) == ""
    assert estimate.planned(plan(), 13) == ""
    timed = plan(num_requests=None, duration_s=30.0)
    assert estimate.planned(timed, 13) == "12 plans to do: at least 6 min 0 s by the rate of the warm-up"
    assert estimate.planned(timed, 13) == ""
