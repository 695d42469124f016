"""`loadgen sweep`: a list of rates, or of numbers of requests in flight, each measured once.

Knows how options become a Sweep; what a sweep is, is `loadgen/sweep.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clients.errors import UsageError
from loadgen import dues
from loadgen.measurement import command
from loadgen.schedule import Schedule
from loadgen.series import read_axis, series_order
from loadgen.sweep import Sweep

if TYPE_CHECKING:
    from loadgen.command_line import Arguments


def run(arguments: Arguments) -> int:
    """Measure and report. Returns the exit status."""
    rates, concurrencies = arguments["request_rates"], arguments["concurrencies"]
    if (rates is None) == (concurrencies is None):
        got = "none" if rates is None else "both"
        raise UsageError(f"--request-rates, --concurrencies: got {got} of the two, takes one")
    levels = rates or concurrencies
    axis = read_axis(arguments, "rate" if rates else "concurrency", most=max(levels))
    order, warmup = series_order(arguments, axis, max(levels))
    if rates:
        dues.refuse_too_many(Schedule.at_rate(max(rates)), count=order.num_requests, duration_s=order.duration_s)
    status, _ = command(
        arguments,
        order,
        largest=axis.max_concurrent,
        campaign_of=lambda load: Sweep(msgspec.structs.replace(load, grace_s=arguments["grace"]), axis, levels, warmup=warmup),
        option="--concurrencies" if concurrencies else "--max-concurrent",
    )
    return status
