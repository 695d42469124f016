"""`loadgen grid`: search batch size and concurrency, print the best setting.

Knows how options become a Grid; the search is `loadgen/grid.py`'s. Law: a setting is written to a pipeline's config only when the
run could name a best one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clients.errors import UsageError
from loadgen.grid import Grid
from loadgen.measurement import command
from loadgen.order import Order, read_order
from loadgen.pipeline_config import check_config, write_config

if TYPE_CHECKING:
    from loadgen.command_line import Arguments
    from loadgen.document import Document

# A cell takes a minute or so on a real server: more than this is a working day, and more often a typing error.
_CELLS_WITHOUT_ASKING = 200
_DEFAULT_CONCURRENCIES = (1, 2, 4, 8, 16)
_LEFT_OUT = (
    "--search left out cells that cannot win if, for each batch size, throughput rises with concurrency to a knee and not again, and never by "
    "more than the concurrency does"
)


def run(arguments: Arguments) -> int:
    """Search, report, write the config. Returns the exit status."""
    order = read_order(arguments)
    if arguments["search"]:
        order.notes.append(_LEFT_OUT)
    batch_sizes, concurrencies = _axes(arguments, order)
    cells = len(batch_sizes) * len(concurrencies)
    if cells > _CELLS_WITHOUT_ASKING and not arguments["yes"]:
        each = f"{order.num_requests} requests" if order.num_requests else f"{order.duration_s:g} s"
        raise UsageError(f"--batch-sizes, --concurrencies: got {cells} cells of {each}, takes {_CELLS_WITHOUT_ASKING}; --yes runs them all")
    config = Path(arguments["write_config"]) if arguments["write_config"] else None
    if config is not None:
        check_config(config)
    status, document = command(
        arguments,
        order,
        largest=max(concurrencies),
        campaign_of=lambda load: Grid(
            load, batch_sizes=batch_sizes, concurrencies=concurrencies, repeats=arguments["repeats"], search=arguments["search"]
        ),
        option="--concurrencies",
    )
    if config is not None:
        _write(config, document)
    return status


def _axes(arguments: Arguments, order: Order) -> tuple[tuple[int | None, ...], tuple[int, ...]]:
    recommended = order.profile.recommended_batch_size if order.profile else None
    batch_sizes = arguments.chosen("batch_sizes", order.table.get("batch_sizes"), recommended, (None,))
    concurrencies = arguments.chosen("concurrencies", order.table.get("concurrencies"), _DEFAULT_CONCURRENCIES)
    return tuple(batch_sizes), tuple(concurrencies)


def _write(config: Path, document: Document) -> None:
    best = document.grid.best if document.grid else None
    if best is None:
        sys.stderr.write(f"loadgen: {config} is unchanged: no setting can be named\n")
        return
    write_config(config, best.batch_size, best.max_concurrent)
    sys.stderr.write(f"loadgen: wrote the setting into {config}\n")
