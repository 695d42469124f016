"""What sweep and search have in common: their axis and their order, from options.

Knows options and profiles; must not know which loads are measured. Law: what an option would not change is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clients.errors import UsageError
from loadgen.axis import Axis
from loadgen.order import default_concurrency, read_order
from loadgen.preflight import most_connections
from loadgen.session import usable_cores
from loadgen.shape import RATE_PER_WORKER_RPS

if TYPE_CHECKING:
    from loadgen.command_line import Arguments
    from loadgen.curve import By
    from loadgen.order import Order
    from loadgen.schedule import Process


def read_axis(arguments: Arguments, by: By, *, most: float | None) -> Axis:
    """The axis of a series whose highest load is `most`, if that is known. Raises UsageError for arrivals without a rate."""
    if by == "concurrency":
        for key in ("arrival", "burstiness"):
            if key in arguments.typed:
                raise UsageError(f"--{key}: has a use only with rates")
        return Axis(by=by, max_concurrent=most_connections() if most is None else int(most))
    process: Process = arguments["arrival"] or ("poisson" if arguments["burstiness"] is None else "gamma")
    if "burstiness" in arguments.typed and process != "gamma":
        raise UsageError(f"--burstiness: has a use only with --arrival gamma, got {process}")
    bound = arguments["max_concurrent"] or most_connections()
    return Axis(by=by, max_concurrent=bound, process=process, burstiness=arguments["burstiness"] or 1.0)


def series_order(
    arguments: Arguments, axis: Axis, most: float | None, *, end: tuple[int | None, float | None] | None = None
) -> tuple[Order, int]:
    """The order, and the requests in flight of its warm-up, from which a search makes its first guess: what fills the server, if known."""
    order = read_order(arguments, end=end)
    seats = order.profile.max_num_seqs if order.profile is not None else None
    warmup = min(seats or default_concurrency(order), axis.max_concurrent)
    processes = order.processes
    if processes is None and axis.by == "rate":
        rates = usable_cores() if most is None else -(-most // RATE_PER_WORKER_RPS)
        processes = max(1, min(usable_cores(), int(rates)))
    warmups = 2 * warmup if order.num_warmups is None else order.num_warmups
    return msgspec.structs.replace(order, num_warmups=warmups, processes=processes), warmup
