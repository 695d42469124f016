"""Grid and bench from their order to their exit status: everything around the session.

Knows what comes before what: checks, simulator, preflight, directory, session, report. Must not know cells or percentiles.
Law: until the preflight has passed nothing is sent but its own two questions, and nothing is left on disk.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zlib
from typing import TYPE_CHECKING

import msgspec

from clients.errors import UsageError
from loadgen.bench import Load
from loadgen.ceiling import recall
from loadgen.document import Opening, encode
from loadgen.preflight import ServerUnusableError, allow_files, preflight
from loadgen.progress import progress
from loadgen.rundir import RunDirectory, unwritable
from loadgen.session import Session, usable_cores, workers_for
from loadgen.streams import silence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from loadgen.campaign import Campaign, Listener
    from loadgen.ceiling import KeptCeiling
    from loadgen.command_line import Arguments
    from loadgen.document import Document
    from loadgen.order import Order
    from loadgen.preflight import Found
    from loadgen.simulator.process import Simulator
    from loadgen.simulator.settings import SimulatorSettings

# Precedence of DESIGN.md: 2 and 5 end a command before there is a document; the rest is read from it.
_INTERRUPTED = 128
_INVALID = 3
_MISSED = 4


def measure(order: Order, *, largest: int, campaign_of: Callable[[Load], Campaign], option: str, listener: Listener) -> Document:
    """Perform a campaign against the order's server. largest: the most requests in flight of any plan; option: what asked for them.

    Raises UsageError and ServerUnusableError before any load.
    """
    allow_files(largest, option)
    notes = [*order.notes, *_process_notes(order.processes)]
    with contextlib.ExitStack() as stack:
        simulator = stack.enter_context(simulating(order.simulator)) if order.simulator else None
        target = msgspec.structs.replace(order.target, base_url=simulator.base_url) if simulator else order.target
        found = preflight(target, order.key, order.sampling)
        if not order.tokens_in_chunks:
            found = msgspec.structs.replace(found, target=msgspec.structs.replace(found.target, continuous_usage=False))
        directory = RunDirectory.create(order.results_dir, order.command, target.profile or target.model)
        stack.callback(directory.close)
        ceiling = recall(found.target.transport)
        workers = order.processes or _workers(largest, ceiling, notes)
        campaign = campaign_of(_load(order, largest, workers, directory))
        opening = _opening(order, found, directory, notes, ceiling)
        for note in opening.notes:
            listener.note(note)
        session = Session(
            directory,
            opening,
            target=found.target,
            key=order.key,
            prompts=order.content.items,
            sampling=order.content.samplings or order.sampling,
            cache=order.cache,
            listener=listener,
            id_prefix=order.content.id_prefix,
            simulator=simulator,
            trace=order.trace,
        )
        try:
            stack.enter_context(session)
        except OSError as error:  # no room for the workload, above all: nothing was sent yet
            raise UsageError(unwritable(order.results_dir, error)) from None
        return session.conduct(campaign)


def default_warmups(order: Order, largest: int) -> int:
    """Twice the slots, as validity.md asks before numbers count; never more than a cell has requests."""
    if order.num_warmups is not None:
        return order.num_warmups
    return min(2 * largest, order.num_requests or 2 * largest)


def command(
    arguments: Arguments, order: Order, *, largest: int, campaign_of: Callable[[Load], Campaign], option: str
) -> tuple[int, Document]:
    """A measuring command from its order to its end: the live view, the report, the exit status (with the document).

    130 or 143 when a signal ended it, else as `deliver`.
    """
    with progress(sys.stderr) as listener:
        document = measure(order, largest=largest, campaign_of=campaign_of, option=option, listener=listener)
    status = deliver(document, arguments, order.results_dir / document.run.id)
    return interrupted_status(document) or status, document


def interrupted_status(document: Document) -> int:
    """130 or 143 when a signal ended the run, else 0."""
    interrupted = document.ended.interrupted if document.ended else None
    return _INTERRUPTED + interrupted if interrupted else 0


def believed_status(document: Document, *, fail_on_degraded: bool) -> int:
    """3 when its numbers may not be believed, or not quite and that was asked for; else 0."""
    level = document.verdict.level if document.verdict else "invalid"
    return _INVALID if level == "invalid" or (level == "degraded" and fail_on_degraded) else 0


def missed_status(document: Document) -> int:
    """4 when a share of good requests was asked for and missed: by any point of a sweep, by every load that a search tried; else 0."""
    if document.run.sought is not None:
        return _MISSED if document.curve is None or document.curve.best is None else 0
    missed = any(summary.goodput.missed for summary, verdict in document.measured if summary.goodput and verdict.level != "invalid")
    return _MISSED if missed else 0


def deliver(document: Document, arguments: Arguments, directory: Path) -> int:
    """Show the document as the options say.

    3 when its numbers may not be believed or it could not be shown, 4 when an attainment that was asked for is missed, else 0.
    """
    status = believed_status(document, fail_on_degraded=arguments["fail_on_degraded"]) or missed_status(document)
    try:
        _show(document, arguments, directory)
    except OSError as error:
        silence(sys.stdout)
        if not isinstance(error, BrokenPipeError):  # else: `loadgen … | head`, and the reader has what it wanted
            said = f"the report cannot be written ({error.strerror}); `loadgen report {directory}` makes it again"
            sys.stderr.write(f"loadgen: {said}\n")
            return _INVALID
    return status


def _show(document: Document, arguments: Arguments, directory: Path) -> None:
    from loadgen.report import write_report

    if arguments["json"]:
        sys.stdout.write(encode(document).decode())
        sys.stdout.flush()
    stream = sys.stderr if arguments["json"] else sys.stdout
    write_report(document, stream, directory=directory, metrics=arguments["percentile_metrics"])


@contextlib.contextmanager
def simulating(settings: SimulatorSettings) -> Iterator[Simulator]:
    """A simulator that runs, and that no proxy stands before. Raises ServerUnusableError where it does not start."""
    from loadgen.simulator.process import Simulator, SimulatorError

    simulator = Simulator(settings)
    try:
        simulator.start()
    except SimulatorError as error:
        raise ServerUnusableError(str(error)) from None
    try:
        with without_proxy(simulator.settings.host):
            yield simulator
    finally:
        simulator.stop()


@contextlib.contextmanager
def without_proxy(host: str) -> Iterator[None]:
    """Inside, `host` is reached directly: a proxy that the environment names knows no way to a server of our own. Workers inherit this."""
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = ",".join(filter(None, (before or os.environ.get("NO_PROXY"), host)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before


def _workers(largest: int, ceiling: KeptCeiling | None, notes: list[str]) -> int:
    """`--processes auto`: by what a self-test found on this machine, which is then noted; else by what any machine does."""
    if ceiling is None or ceiling.streams_per_worker is None:
        return workers_for(largest, usable_cores())
    notes.append(f"--processes auto: {ceiling.streams_per_worker} streams a worker, by the self-test {ceiling.id}")
    return workers_for(largest, usable_cores(), ceiling.streams_per_worker)


def _load(order: Order, largest: int, workers: int, directory: RunDirectory) -> Load:
    return Load(
        processes=workers,
        num_requests=order.num_requests,
        duration_s=order.duration_s,
        delay_between_batches_s=order.delay_between_batches_s,
        num_warmups=default_warmups(order, largest),
        seed=order.seed,
        salt=zlib.crc32(directory.id.encode()),
        cache=order.cache,
    )


def _opening(order: Order, found: Found, directory: RunDirectory, notes: list[str], ceiling: KeptCeiling | None) -> Opening:
    return Opening.of(
        directory,
        command=order.command,
        target=found.target,
        workload=order.content.name,
        sampling=order.sampling,
        seed=order.seed,
        cache=order.cache,
        asked_percentiles=order.percentiles,
        arguments=order.arguments,
        profile=None if order.profile is None else msgspec.to_builtins(order.profile),
        simulator=None if order.simulator is None else msgspec.to_builtins(order.simulator),
        stamping=found.stamping,
        label=order.label,
        metadata=order.metadata,
        notes=[*notes, *found.notes],
        ceiling=ceiling,
        objectives=order.objectives,
        attainment=order.attainment,
        sought=order.sought,
    )


def _process_notes(processes: int | None) -> list[str]:
    cores = usable_cores()
    if processes is not None and processes > cores:
        return [f"--processes {processes}: this process may use {cores} cores, workers will wait for each other"]
    return []
