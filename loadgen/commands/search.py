"""`loadgen search`: the highest load that keeps the objectives.

Knows how options become a Search; what a search is, is `loadgen/search.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clients.errors import UsageError
from loadgen.curve import Sought
from loadgen.measurement import command
from loadgen.search import MOST_POINTS, Search
from loadgen.series import read_axis, series_order

if TYPE_CHECKING:
    from loadgen.command_line import Arguments

_USUAL_ATTAINMENT = 0.95
# Of the budget, what a point's own length leaves for starting workers, for the last requests of a part and for the warm-up.
_AROUND = 1


def run(arguments: Arguments) -> int:
    """Search and report. Returns the exit status."""
    if not arguments["goodput"]:
        raise UsageError("--goodput: missing; takes what makes a request good, as in --goodput ttft:500 tpot:50")
    sought = _sought(arguments)
    axis = read_axis(arguments, sought.by, most=sought.most)
    if arguments["duration"] is not None and arguments["duration"] > arguments["budget"]:
        raise UsageError(f"--duration: got {arguments['duration']:g} s for each load, which is above --budget {arguments['budget']:g} s")
    end = None
    if not {"num_requests", "duration"} & arguments.typed:
        end = (None, arguments["budget"] / (MOST_POINTS + _AROUND))
    order, warmup = series_order(arguments, axis, sought.most, end=end)
    order = msgspec.structs.replace(order, attainment=sought.attainment, sought=sought)
    status, _ = command(
        arguments,
        order,
        largest=axis.max_concurrent,
        campaign_of=lambda load: Search(msgspec.structs.replace(load, grace_s=arguments["grace"]), axis, sought, warmup=warmup),
        option="--max-concurrent",
    )
    return status


def _sought(arguments: Arguments) -> Sought:
    by = arguments["by"]
    names = ("min_rate", "max_rate") if by == "rate" else ("min_concurrent", "max_concurrent")
    stray = {"min_rate", "max_rate", "min_concurrent"} - set(names)
    if found := sorted(stray & arguments.typed):
        raise UsageError(f"--{found[0].replace('_', '-')}: has no use with --by {by}")
    least, most = (arguments[name] for name in names)
    if least is not None and most is not None and least > most:
        flags = [f"--{name.replace('_', '-')}" for name in names]
        raise UsageError(f"{flags[0]}: got {least:g}, which is above {flags[1]} {most:g}")
    attainment = _USUAL_ATTAINMENT if arguments["attainment"] is None else arguments["attainment"]
    return Sought(by=by, attainment=attainment, least=least, most=most, budget_s=arguments["budget"])
