"""One process of a fleet: one event loop, its share of the slots, one record file.

    python -m loadgen.worker        (messages of loadgen/pipe.py on stdin and stdout)

Knows the pipe, the loop and the order of a run: assign, ready, start, drive, drain, done. Knows nothing of other workers.
Invariants: nothing is sent before the start instant; everything that ended is in the file before `Done`; when the parent's end
of the pipe closes, the process is gone within a second, its records whole.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import threading
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import msgspec

from clients.dialects import DIALECTS
from clients.errors import LoadgenError
from clients.retry import Retrying, RetryPolicy
from clients.secret import MASK, Secret
from clients.transports import open_transport
from clients.wire import WireTransport
from loadgen import vitals
from loadgen.closed_loop import ClosedLoop
from loadgen.driver import Driver
from loadgen.interpreter import die_with_parent
from loadgen.open_loop import OpenLoop
from loadgen.pipe import Assign, Beat, Cancel, Done, Failed, Ready, Start, Stop, decode_for_worker, line
from loadgen.records import RecordWriter
from loadgen.timetable import Timetable
from loadgen.workload import Workload

if TYPE_CHECKING:
    from clients.exchange import Exchange
    from clients.transport import Transport
    from loadgen.driver import Turns

BEAT_S = 1.0
# A timer may be late or early by a millisecond or two; the rest of the way to the start instant is spun.
_SPIN_NS = 3_000_000
# Of an open loop, whose bound may be far above what it comes to: a listener's backlog takes these at once, and what is not used idles away.
_OPENED_AHEAD = 64
# Exit statuses. The parent's end of the pipe closed: nobody reads it, but a log may. A defect of ours: the parent says that the worker is lost.
_ORPHANED = 3
_DEFECT = 4


class Worker:
    """The life of one worker process."""

    def __init__(self, assign: Assign, messages: asyncio.StreamReader, out: int) -> None:
        self._assign = assign
        self._messages = messages
        self._out = out
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._lag = vitals.LoopLag(self._loop)
        self._collector = vitals.Collector()
        self._grace: asyncio.TimerHandle | None = None
        self._beat_timer: asyncio.TimerHandle | None = None
        plan = assign.plan
        turns = self._turns()
        self._workload = Workload(assign.workload)
        self._writer = RecordWriter(
            assign.records,
            run_id=bytes.fromhex(assign.run_id),
            plan=plan.number,
            worker=assign.worker,
            workers=plan.workers,
            share=-1 if turns.share is None else turns.share,
        )
        target = assign.target
        self._sender = open_transport(target.transport, target.endpoint(Secret(assign.key) if assign.key else None), target.timeouts)
        self._transport: Transport = self._sender
        if target.retries:
            retrying = Retrying(
                self._sender,
                RetryPolicy(max_retries=target.retries),
                seed=plan.seed + assign.worker,
                on_attempt=self._attempted,
            )
            retrying.listed = target.listed
            self._transport = retrying
        self._driver = Driver(
            plan,
            turns,
            transport=self._transport,
            dialect=DIALECTS[target.dialect],
            workload=self._workload,
            writer=self._writer,
            loop=self._loop,
            finished=self._ended.set,
        )
        self._connections = turns.slots if plan.schedule is None else min(turns.slots, _OPENED_AHEAD)

    def __repr__(self) -> str:
        driver = self._driver
        return f"<Worker {self._assign.worker} sent={driver.sent} in_flight={len(driver.in_flight)}>"

    def _turns(self) -> Turns:
        plan, worker = self._assign.plan, self._assign.worker
        if plan.schedule is None:
            return ClosedLoop(plan, worker)
        return OpenLoop(plan, worker, Timetable(self._assign.timetable).offsets_ns)

    async def run(self) -> None:
        """Be ready, wait for the start, drive, drain, close."""
        self._loop.set_exception_handler(self._raised)
        control = asyncio.create_task(self._control())
        control.add_done_callback(_not_in_silence)
        if isinstance(self._sender, WireTransport):  # making connections must not delay the first requests
            await self._sender.open(self._connections)
        self._collector.freeze()
        self._tell(Ready(self._sender.stamping))
        stop_sync = threading.Event()
        sync = threading.Thread(target=self._sync, args=(stop_sync,), name="fsync", daemon=True)
        sync.start()
        self._beat_timer = self._loop.call_later(BEAT_S, self._beat)
        self._lag.start()
        await self._ended.wait()
        for timer in (self._beat_timer, self._grace):
            if timer is not None:
                timer.cancel()
        self._lag.stop()
        self._snapshot()
        stop_sync.set()
        await asyncio.to_thread(sync.join)
        self._writer.close()
        await self._transport.close()
        self._tell(Done())
        control.cancel()

    def _raised(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback raised. The network's errors are the transports' business; anything else is a defect, and ends the worker.

        A slot that stays empty in silence would be a wrong number; a lost worker is an invalid run, and its records are whole.
        """
        loop.default_exception_handler(context)
        fault = context.get("exception")
        if fault is not None and not isinstance(fault, OSError):
            sys.stderr.flush()
            os._exit(_DEFECT)

    async def _control(self) -> None:
        """Obey the parent until its end of the pipe closes; then there is nobody left to work for."""
        while row := await self._messages.readline():
            match decode_for_worker(row):
                case Start(start_ns):
                    await self._start(start_ns)
                case Stop(grace_s):
                    self._stop(grace_s)
                case Cancel():
                    self._driver.cancel()
                case Assign():
                    raise AssertionError("a worker is assigned once")
        os._exit(_ORPHANED)

    async def _start(self, start_ns: int) -> None:
        while (ahead_ns := start_ns - perf_counter_ns()) > _SPIN_NS:
            await asyncio.sleep((ahead_ns - _SPIN_NS) / 1e9)
        while perf_counter_ns() < start_ns:
            pass
        plan = self._assign.plan
        if plan.duration_s is not None:
            if plan.schedule is None:
                self._grace = self._loop.call_later(plan.duration_s, self._stop, plan.grace_s)
            else:  # nothing falls due after the duration; what is held back then may still go within the grace
                self._grace = self._loop.call_later(plan.duration_s + plan.grace_s, self._driver.cancel)
        self._driver.begin(start_ns)

    def _stop(self, grace_s: float) -> None:
        if self._grace is not None:
            self._grace.cancel()
        self._grace = self._loop.call_later(grace_s, self._driver.cancel)
        self._driver.stop()

    def _attempted(self, exchange: Exchange) -> None:
        self._driver.attempted(exchange)

    def _beat(self) -> None:
        self._beat_timer = self._loop.call_later(BEAT_S, self._beat)
        self._collector.maybe(self._driver.sent, idle=not self._driver.in_flight)
        self._snapshot()

    def _snapshot(self) -> None:
        """The worker's state: a frame of its file, and the same to the parent."""
        driver = self._driver
        pause_ns, longest_ns = self._collector.take()
        anon_kb, shmem_kb, file_kb = vitals.memory_kb()
        beat = Beat(
            at_ns=perf_counter_ns(),
            sent=driver.sent,
            in_flight=len(driver.in_flight),
            outcomes=dict(driver.outcomes),
            latency=driver.latency.pack(),
            ttft=driver.ttft.pack(),
            lag=self._lag.take().pack(),
            cpu_s=vitals.cpu_s(),
            steal_s=vitals.steal_s(),
            switches=vitals.switches(),
            fds=vitals.open_fds(),
            anon_kb=anon_kb,
            shmem_kb=shmem_kb,
            file_kb=file_kb,
            gc_ns=pause_ns,
            gc_longest_ns=longest_ns,
            recording_failed=self._writer.failed,
        )
        self._writer.snapshot(msgspec.msgpack.encode(beat))
        self._tell(beat)

    def _sync(self, stopped: threading.Event) -> None:
        while not stopped.wait(BEAT_S):
            self._writer.sync()

    def _tell(self, message: Ready | Beat | Done) -> None:
        os.write(self._out, line(message))


def _not_in_silence(control: asyncio.Task[None]) -> None:
    """A task keeps what it raised for who asks; nobody does."""
    if not control.cancelled() and (fault := control.exception()) is not None:
        control.get_loop().call_exception_handler({"message": "obeying the parent", "exception": fault})


class _Masked(io.TextIOBase):
    """stderr without the key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def write(self, text: str) -> int:
        os.write(2, text.replace(self._key, MASK).encode(errors="backslashreplace"))
        return len(text)


async def _serve(out: int) -> int:
    messages = asyncio.StreamReader(limit=2**24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(messages), sys.stdin)
    first = await messages.readline()
    if not first:
        return _ORPHANED
    try:
        assign = decode_for_worker(first)
        assert isinstance(assign, Assign)
        if assign.key:
            sys.stderr = _Masked(assign.key)  # it is the run's log: a traceback there must not show the key
        worker = Worker(assign, messages, out)
    except (LoadgenError, OSError, ValueError, msgspec.MsgspecError) as error:
        os.write(out, line(Failed(f"{type(error).__name__}: {error}")))
        return 1
    await worker.run()
    return 0


def main() -> None:
    """The entry of `python -m loadgen.worker`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to the whole group; the parent coordinates
    die_with_parent()
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not break the protocol
    runner = asyncio.Runner(loop_factory=_loop_factory())
    with runner:
        status = runner.run(_serve(out))
    sys.stdout.flush()
    os._exit(status)  # everything is closed and told; tearing the interpreter down only costs time


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
