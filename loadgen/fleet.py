"""The workers of one plan on this machine: start together, watch, stop, collect.

Knows processes, pipes and the order of a run; knows nothing of requests and reads no record. The parent is on no request's path,
and it runs no event loop: a fleet works in a script, a REPL and inside a running loop alike.
Invariants: no worker sends before all are ready; a worker that dies costs its share and is named; when `run` returns, or raises,
no process of the fleet is left.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from time import perf_counter_ns
from typing import TYPE_CHECKING, BinaryIO, Literal, Self

import msgspec

from clients.errors import LoadgenError
from loadgen.interpreter import fresh
from loadgen.pipe import Assign, Beat, Cancel, Done, Failed, Ready, Start, Stop, ToWorker, decode_for_parent, line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from loadgen.plan import Plan

State = Literal["starting", "ready", "running", "done", "lost"]

# An interpreter with its imports takes 0.3 s here; a machine that needs a hundred times that is out of order.
READY_DEADLINE_S = 30.0
# From the last `ready` to the common start: all must have read the message, none should wait long.
START_AHEAD_NS = 20_000_000
# A beat comes each second; this many without one is worth a word.
QUIET_S = 5.0
# What a worker may take beyond its own grace to write its last frame, before it is killed.
OVERTIME_S = 10.0
INTERRUPT_GRACE_S = 30.0
TERMINATE_GRACE_S = 5.0


class FleetError(LoadgenError):
    """The fleet could not start; names the worker and says why."""


class Crew(msgspec.Struct):
    """One worker as the parent sees it."""

    number: int
    process: subprocess.Popen[bytes]
    state: State = "starting"
    beat: Beat | None = None
    heard_at: float = 0.0
    stamping: str = ""
    end: str = ""
    unread: bytearray = msgspec.field(default_factory=bytearray)
    told: set[str] = msgspec.field(default_factory=set)  # what was noted of it: once each

    def __repr__(self) -> str:
        sent = self.beat.sent if self.beat else 0
        in_flight = self.beat.in_flight if self.beat else 0
        return f"<Worker {self.number} {self.state.upper()} pid={self.process.pid} sent={sent} in_flight={in_flight}>"

    def tell(self, message: ToWorker) -> None:
        """Write to the worker; one that is gone is noticed by its pipe's end, not here."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.process.stdin.write(line(message))
            self.process.stdin.flush()


class Interrupts:
    """What the user asked for by signal, as a count: 1 stop, 2 cancel, 3 leave now. SIGTERM is the first with a shorter grace.

    Handlers only set state. Off the main thread Python allows none, and nothing is installed.
    """

    def __init__(self) -> None:
        self.count = 0
        self.signal: int | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        os.close(self._wake_read)
        os.close(self._wake_write)

    @property
    def grace_s(self) -> float:
        """What requests in flight get after the first signal."""
        return TERMINATE_GRACE_S if self.signal == signal.SIGTERM else INTERRUPT_GRACE_S

    def fileno(self) -> int:
        """Readable when a signal came."""
        return self._wake_read

    def drain(self) -> None:
        """Forget the wake-ups, not the count."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 64)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self.signal = self.signal or number
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"!")


class Fleet:
    """The workers of one plan. `run` drives them to their end and returns them, each DONE or LOST."""

    def __init__(self, plan: Plan, assignments: Sequence[Assign], *, log: BinaryIO) -> None:
        self.plan = plan
        self.crew: list[Crew] = []
        self.started_ns = 0
        self._assignments = assignments
        self._log = log
        self._selector = selectors.DefaultSelector()

    def run(
        self,
        interrupts: Interrupts,
        beaten: Callable[[Sequence[Crew]], None],
        noted: Callable[[str], None] = lambda _: None,
        *,
        enough: Callable[[Sequence[Crew]], bool] = lambda _: False,
    ) -> list[Crew]:
        """Run the plan to its end. `beaten` is called after each round of beats (about once a second), `noted` for a line to show.

        enough: asked after `beaten`, whether the plan may end now: nothing more is sent then, what is in flight has the plan's grace.

        Raises FleetError when a worker cannot start; nothing was sent then.
        """
        try:
            self._launch()
            self._selector.register(interrupts, selectors.EVENT_READ)
            self._await_ready(interrupts)
            if not interrupts.count:
                self.started_ns = perf_counter_ns() + START_AHEAD_NS
                for one in self.crew:
                    one.state = "running"
                    one.tell(Start(self.started_ns))
                self._watch(interrupts, beaten, noted, enough)
        finally:
            self._reap()
        return self.crew

    def _launch(self) -> None:
        argv, environment = fresh("loadgen.worker")
        for assign in self._assignments:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                process_group=0,  # a terminal's Ctrl-C must not reach a worker that has not yet learnt to ignore it
            )
            one = Crew(assign.worker, process, heard_at=time.monotonic())
            self.crew.append(one)
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            self._selector.register(process.stdout, selectors.EVENT_READ, one)
        for one, assign in zip(self.crew, self._assignments, strict=True):
            one.tell(assign)

    def _await_ready(self, interrupts: Interrupts) -> None:
        deadline = time.monotonic() + READY_DEADLINE_S
        while (waiting := [one for one in self.crew if one.state == "starting"]) and not interrupts.count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise FleetError(f"worker {waiting[0].number} was not ready within {READY_DEADLINE_S:.0f} s")
            for one, _ in self._heard(left):
                if one.state == "lost":
                    raise FleetError(f"worker {one.number} could not start: {one.end}")

    def _watch(
        self,
        interrupts: Interrupts,
        beaten: Callable[[Sequence[Crew]], None],
        noted: Callable[[str], None],
        enough: Callable[[Sequence[Crew]], bool],
    ) -> None:
        obeyed = 0
        going = True
        deadline = float("inf")
        if self.plan.duration_s is not None:
            deadline = time.monotonic() + self.plan.duration_s + self.plan.grace_s + OVERTIME_S
        fresh_beats = 0
        while running := [one for one in self.crew if one.state == "running"]:
            for _, message in self._heard(min(1.0, max(0.0, deadline - time.monotonic()))):
                fresh_beats += isinstance(message, Beat)
            if fresh_beats >= len(running):
                fresh_beats = 0
                beaten(self.crew)
                if going and not interrupts.count and enough(self.crew):
                    going = False
                    for one in running:
                        one.tell(Stop(self.plan.grace_s))
                    deadline = min(deadline, time.monotonic() + self.plan.grace_s + OVERTIME_S)
            self._note_troubles(running, noted)
            if interrupts.count > obeyed:
                obeyed = interrupts.count
                if obeyed >= 3:
                    return
                for one in running:
                    one.tell(Stop(interrupts.grace_s) if obeyed == 1 else Cancel())
                grace = interrupts.grace_s if obeyed == 1 else 0.0
                noted(
                    f"stopping: what is in flight has {grace:.0f} s to finish; Ctrl-C again cancels it"
                    if obeyed == 1
                    else "cancelling what is in flight; Ctrl-C again leaves at once"
                )
                deadline = time.monotonic() + grace + OVERTIME_S
            if time.monotonic() >= deadline:
                return  # what is left over is killed, and counts as lost

    def _note_troubles(self, running: Sequence[Crew], noted: Callable[[str], None]) -> None:
        for one in running:
            if one.beat is not None and one.beat.recording_failed and "recording" not in one.told:
                one.told.add("recording")
                noted(f"worker {one.number} cannot record any more: {one.beat.recording_failed}")
            if time.monotonic() - one.heard_at > QUIET_S and "quiet" not in one.told:
                one.told.add("quiet")
                noted(f"worker {one.number} has said nothing for {QUIET_S:.0f} s: stopped, or starved of CPU; what it sends is late")

    def _heard(self, timeout: float) -> Iterator[tuple[Crew, object]]:
        """Messages and ends of workers, as (worker, message or None)."""
        for key, _ in self._selector.select(timeout):
            one = key.data
            if one is None:
                key.fileobj.drain()  # type: ignore[union-attr]  # the only key without data is Interrupts
                continue
            block = os.read(key.fd, 1 << 20)
            one.heard_at = time.monotonic()
            if not block:
                self._selector.unregister(key.fileobj)
                self._ended(one)
                yield one, None
                continue
            one.unread += block
            *rows, rest = one.unread.split(b"\n")
            one.unread = bytearray(rest)
            for row in rows:
                message = decode_for_parent(bytes(row))
                self._take(one, message)
                yield one, message

    def _take(self, one: Crew, message: Ready | Beat | Done | Failed) -> None:
        match message:
            case Ready(stamping):
                one.state, one.stamping = "ready", stamping
            case Beat():
                one.beat = message
            case Done():
                one.state = "done"
            case Failed(text):
                one.state, one.end = "lost", text

    def _ended(self, one: Crew) -> None:
        """The pipe closed: a worker that had not said it was done is lost."""
        status = one.process.wait()
        if one.state != "done":
            one.end = one.end or (f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}")
            one.state = "lost"

    def _reap(self) -> None:
        for one in self.crew:
            if one.state != "done":
                one.process.kill()
            try:
                one.process.wait(OVERTIME_S)
            except subprocess.TimeoutExpired:  # it had said that all is written; only its exit hangs
                one.process.kill()
                one.process.wait()
            if one.state != "done":
                one.end = one.end or "killed: it did not end in time"
                one.state = "lost"
            for pipe in (one.process.stdin, one.process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._selector.close()
