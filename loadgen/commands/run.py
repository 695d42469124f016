"""`loadgen run`: one load of any shape: requests in flight or a rate, fixed, stepped, ramped, or a trace replayed.

Knows how options and a plan file become a Run; what a run is, is `loadgen/run.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadgen.measurement import command
from loadgen.order import read_order
from loadgen.plan_file import with_plan_file
from loadgen.run import Run
from loadgen.session import usable_cores
from loadgen.shape import processes_for, read_shape

if TYPE_CHECKING:
    from loadgen.command_line import Arguments


def run(arguments: Arguments) -> int:
    """Measure and report. Returns the exit status."""
    arguments = with_plan_file(arguments)
    shape, trace = read_shape(arguments)
    order = read_order(arguments, end=(shape.num_requests, shape.duration_s))
    order = msgspec.structs.replace(order, trace=trace)
    if shape.schedule is not None:
        warmups = 2 * shape.warm_with if order.num_warmups is None else order.num_warmups
        processes = order.processes or processes_for(shape.schedule, usable_cores())
        order = msgspec.structs.replace(order, num_warmups=warmups, processes=processes)
    status, _ = command(
        arguments, order, largest=shape.max_concurrent, campaign_of=lambda load: Run(load, shape), option="--max-concurrent"
    )
    return status
