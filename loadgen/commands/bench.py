"""`loadgen bench`: measure one configuration.

Knows how options become a Bench; what a bench is, is `loadgen/bench.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.bench import Bench
from loadgen.measurement import command
from loadgen.order import default_concurrency, read_order

if TYPE_CHECKING:
    from loadgen.command_line import Arguments


def run(arguments: Arguments) -> int:
    """Measure and report. Returns the exit status."""
    order = read_order(arguments)
    max_concurrent = arguments["max_concurrent"] or default_concurrency(order)
    status, _ = command(
        arguments,
        order,
        largest=max_concurrent,
        campaign_of=lambda load: Bench(load, max_concurrent=max_concurrent, batch_size=arguments["batch_size"]),
        option="--max-concurrent",
    )
    return status
