"""Grid and bench from their order to their exit status: everything around the session.

Knows what comes before what: checks, simulator, preflight, directory, session, report. Must not know cells or percentiles.
Law: until the preflight has passed nothing is sent but its own two questions, and nothing is left on disk.
"""

from __future__ import annotations

import contextlib
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from loadgen.bench import Load
from loadgen.document import Opening, encode
from loadgen.preflight import ServerUnusableError, allow_files, preflight
from loadgen.progress import progress
from loadgen.rundir import RunDirectory
from loadgen.session import Session, usable_cores, workers_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadgen.campaign import Campaign
    from loadgen.command_line import Arguments
    from loadgen.document import Document
    from loadgen.order import Order
    from loadgen.preflight import Found
    from loadgen.target import Target

# Precedence of DESIGN.md: 2 and 5 end a command before there is a document; the rest is read from it.
_INTERRUPTED = 128
_INVALID = 3


def measure(arguments: Arguments, order: Order, *, largest: int, campaign_of: Callable[[Load], Campaign]) -> Document:
    """Perform a campaign against the order's server. largest: the most requests in flight of any plan.

    Raises UsageError and ServerUnusableError before any load.
    """
    allow_files(largest, "--concurrencies" if arguments.command == "grid" else "--max-concurrent")
    notes = [*order.notes, *_process_notes(arguments["processes"])]
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(_simulated(order)) if order.simulator else order.target
        found = preflight(target, order.key, order.sampling)
        directory = RunDirectory.create(Path(arguments["results_dir"]), arguments.command, arguments["model"] or target.model)
        stack.callback(directory.close)
        load = _load(arguments, order, largest, directory)
        campaign = campaign_of(load)
        opening = _opening(arguments, order, found, directory, notes)
        listener = stack.enter_context(progress(sys.stderr))
        for note in opening.notes:
            listener.note(note)
        session = stack.enter_context(
            Session(
                directory,
                opening,
                target=found.target,
                key=order.key,
                prompts=order.content.items,
                sampling=order.sampling,
                cache=arguments["cache"],
                listener=listener,
            )
        )
        return session.conduct(campaign)


def default_warmups(arguments: Arguments, order: Order, largest: int) -> int:
    """Twice the slots, as validity.md asks before numbers count; never more than a cell has requests."""
    if arguments["num_warmups"] is not None:
        return int(arguments["num_warmups"])
    return min(2 * largest, order.num_requests or 2 * largest)


def deliver(document: Document, arguments: Arguments, directory: Path) -> int:
    """Show the document as the options say, and give the command's exit status."""
    from loadgen.report import write_report

    if arguments["json"]:
        sys.stdout.write(encode(document).decode())
        sys.stdout.flush()
    stream = sys.stderr if arguments["json"] else sys.stdout
    write_report(document, stream, directory=directory, metrics=arguments["percentile_metrics"])
    return exit_status(document, fail_on_degraded=arguments["fail_on_degraded"])


def exit_status(document: Document, *, fail_on_degraded: bool) -> int:
    """130 or 143 when a signal ended it, 3 when its numbers may not be believed, else 0."""
    if document.ended is not None and document.ended.interrupted:
        return _INTERRUPTED + document.ended.interrupted
    level = document.verdict.level if document.verdict else "invalid"
    return _INVALID if level == "invalid" or (level == "degraded" and fail_on_degraded) else 0


@contextlib.contextmanager
def _simulated(order: Order) -> Iterator[Target]:
    from loadgen.simulator.process import Simulator, SimulatorError

    assert order.simulator is not None
    simulator = Simulator(order.simulator)
    try:
        simulator.start()
    except SimulatorError as error:
        raise ServerUnusableError(str(error)) from None
    try:
        yield msgspec.structs.replace(order.target, base_url=simulator.base_url)
    finally:
        simulator.stop()


def _load(arguments: Arguments, order: Order, largest: int, directory: RunDirectory) -> Load:
    return Load(
        processes=arguments["processes"] or workers_for(largest, usable_cores()),
        num_requests=order.num_requests,
        duration_s=order.duration_s,
        delay_between_batches_s=arguments["delay_between_batches"],
        num_warmups=default_warmups(arguments, order, largest),
        seed=arguments["seed"],
        salt=zlib.crc32(directory.id.encode()),
        cache=arguments["cache"],
    )


def _opening(arguments: Arguments, order: Order, found: Found, directory: RunDirectory, notes: list[str]) -> Opening:
    return Opening.of(
        directory,
        command=arguments.command,
        target=found.target,
        workload=order.content.name,
        sampling=order.sampling,
        seed=arguments["seed"],
        cache=arguments["cache"],
        asked_percentiles=arguments["metric_percentiles"] if "metric_percentiles" in arguments.typed else (),
        arguments=arguments.recorded(),
        profile=None if order.profile is None else msgspec.to_builtins(order.profile),
        simulator=None if order.simulator is None else msgspec.to_builtins(order.simulator),
        stamping=found.stamping,
        label=arguments["label"],
        metadata=dict(arguments["metadata"]),
        notes=[*notes, *found.notes],
    )


def _process_notes(processes: int | None) -> list[str]:
    cores = usable_cores()
    if processes is not None and processes > cores:
        return [f"--processes {processes}: this process may use {cores} cores, workers will wait for each other"]
    return []
