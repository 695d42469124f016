"""The progress bar of a batch, on request.

Knows counts; knows nothing of requests. Invariant: rich is imported when a bar is shown, never before.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clients.completion import Completion


@contextmanager
def progress_bar(total: int, *, shown: bool) -> Iterator[Callable[[Completion], None] | None]:
    """A bar on stderr, advanced by what is yielded; None where none is wanted."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    bar = Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("", total=total)
        failed = 0

        def advance(completion: Completion) -> None:
            nonlocal failed
            failed += not completion.ok
            bar.update(task, advance=1, description=f"{failed} failed" if failed else "")

        yield advance
