"""How a run is going, while it goes: a live line on a terminal, plain lines anywhere else.

Knows what a `Listener` is told and streams of text; must not know how any of it came about, and reads no clock: time comes with
what it is told. Law: nothing is written to stdout, and a stream that cannot be written ends the view, not the run.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console
    from rich.progress import TaskID

    from loadgen.campaign import Listener, Live, Performed
    from loadgen.plan import Plan

# Often enough to see that it lives, seldom enough for a log file.
PLAIN_EVERY_S = 5.0


@contextlib.contextmanager
def progress(stream: TextIO) -> Iterator[Listener]:
    """The view that fits the stream."""
    if not stream.isatty():
        yield PlainProgress(stream)
        return
    from rich.console import Console

    view = LiveProgress(Console(file=stream))
    with view:
        yield view


class Silent:
    """Shows nothing."""

    def opened(self, directory: Path) -> None:
        pass

    def planned(self, plan: Plan, total_plans: int | None) -> None:
        pass

    def snapshot(self, live: Live) -> None:
        pass

    def performed(self, performed: Performed) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class PlainProgress:
    """One line when a plan starts and ends, and at most one in `PLAIN_EVERY_S` between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._plan: Plan | None = None
        self._said_at_s = 0.0
        self._estimate = Estimate()

    def opened(self, directory: Path) -> None:
        self._say(f"run directory {directory}")

    def planned(self, plan: Plan, total_plans: int | None) -> None:
        self._plan = plan
        self._said_at_s = 0.0
        if left := self._estimate.planned(plan, total_plans):
            self._say(left)
        of = f" of {total_plans}" if total_plans else ""
        self._say(f"plan {plan.number + 1}{of}: {described(plan)}")

    def snapshot(self, live: Live) -> None:
        if live.elapsed_s - self._said_at_s >= PLAIN_EVERY_S:
            self._said_at_s = live.elapsed_s
            self._say(f"  {status(live)}")

    def performed(self, performed: Performed) -> None:
        self._say(f"  {outcome(performed)}")
        self._estimate.performed(performed)

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text + "\n")
            self._stream.flush()


class LiveProgress:
    """One bar for the plan that runs; a line stays for each that ended. Drawn when told something, by no thread of its own."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[status]}"),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task: TaskID | None = None
        self._estimate = Estimate()
        self._heading = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def opened(self, directory: Path) -> None:
        self._print(f"run directory {directory}")

    def planned(self, plan: Plan, total_plans: int | None) -> None:
        if left := self._estimate.planned(plan, total_plans):
            self._print(left)
        of = f"/{total_plans}" if total_plans else ""
        self._heading = f"{plan.number + 1}{of} {described(plan)}"
        self._task = self._progress.add_task(self._heading, total=plan.num_requests or plan.duration_s, status="starting")
        self._progress.refresh()

    def snapshot(self, live: Live) -> None:
        if self._task is not None:
            done = live.finished if live.expected else live.elapsed_s
            self._progress.update(self._task, completed=done, status=status(live))
            self._progress.refresh()

    def performed(self, performed: Performed) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self._print(f"{self._heading}: {outcome(performed)}")
        self._estimate.performed(performed)

    def note(self, text: str) -> None:
        self._print(f"note: {text}")

    def _print(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


class Estimate:
    """How long all of it will take, said once, when the first measured plan starts."""

    def __init__(self) -> None:
        self._warm_rps = 0.0
        self._said = False

    def performed(self, performed: Performed) -> None:
        """Learn from the warm-up, which has the largest concurrency: plans with fewer in flight are slower."""
        if performed.plan.purpose == "warmup":
            self._warm_rps = performed.summary.whole.requests_rps

    def planned(self, plan: Plan, total_plans: int | None) -> str:
        """The sentence, or "" when there is nothing to say."""
        left = (total_plans or 0) - plan.number
        each_s = plan.duration_s or (plan.num_requests / self._warm_rps if plan.num_requests and self._warm_rps else 0.0)
        if self._said or plan.purpose == "warmup" or left < 2 or not each_s:
            return ""
        self._said = True
        minutes, seconds = divmod(round(left * each_s), 60)
        return f"{left} plans to do: at least {f'{minutes} min ' if minutes else ''}{seconds} s by the rate of the warm-up"


def described(plan: Plan) -> str:
    """`batch 4, concurrency 8, 64 requests`."""
    batch = f"batch {plan.batch_size}, " if plan.batch_size else ""
    end = f"{plan.num_requests} requests" if plan.num_requests else f"{plan.duration_s:g} s"
    purpose = "warm-up, " if plan.purpose == "warmup" else ""
    again = f", run {plan.repeat}" if plan.repeat > 1 else ""
    return f"{purpose}{batch}{plan.load}, {end}{again}"


def status(live: Live) -> str:
    """What runs now, in one line."""
    of = f"/{live.expected}" if live.expected else ""
    failed = f", {live.failed} failed" if live.failed else ""
    parts = [f"{live.finished}{of} done{failed}", f"{live.in_flight} in flight", f"{live.rps:.2f} req/s"]
    if live.latency_p50_s is not None:
        parts.append(f"p50 {live.latency_p50_s:.2f} s")
    return ", ".join(parts)


def outcome(performed: Performed) -> str:
    """What a plan came to, in one line."""
    summary = performed.summary
    whole = summary.whole
    parts = [
        f"{summary.ok} of {summary.requests} ok",
        f"{summary.ranked.requests_rps:.2f} req/s",
        f"{whole.output_tokens_tps:.0f} tokens/s",
    ]
    if whole.latency is not None:
        parts.append(f"latency p50 {whole.latency.median:.2f} s")
    reasons = ", ".join(reason.name for reason in performed.verdict.reasons)
    return ", ".join(parts) + (f" ({performed.verdict.level}: {reasons})" if reasons else "")
