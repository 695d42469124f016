"""Sends what is due: turns become requests, and what ended may let others go.

Knows a source of turns, a transport and a record writer, and reads the clock; knows nothing of pipes, files or percentiles, nor of what
makes a turn due: a slot that came free (`closed_loop.py`) or a timetable (`open_loop.py`).
The path of one request is `_woken` (or another's `_ended`), `_send` and `_ended`, below, and nothing else.
Invariants: no request is sent before its due; each turn that was begun, and each that fell due in an open loop, ends in exactly one
final record; after `stop` nothing is sent any more, after `cancel` everything ends.
"""

from __future__ import annotations

from collections import Counter
from time import perf_counter_ns
from typing import TYPE_CHECKING, Protocol

from clients.errors import Outcome, request_error
from clients.exchange import Exchange, Request
from loadgen.alarm import Alarm
from loadgen.histogram import Histogram
from loadgen.workload import Marker

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from clients.dialects import Dialect
    from clients.transport import Flight, Transport
    from clients.turn import Turn
    from loadgen.plan import Plan
    from loadgen.records import RecordWriter
    from loadgen.workload import Workload


class Turns(Protocol):
    """Where turns come from. All that it gives are due: they are sent at once.

    slots: requests that may be in flight. share: how many turns there will be, None when time ends them. next_ns: when something falls
    due by itself; None: only what is in flight can let more go. It is as the last call left it.
    """

    slots: int
    share: int | None
    next_ns: int | None

    def begin(self, start_ns: int) -> list[Turn]:
        """What is due at the start instant, which has come. Call once, first."""

    def woken(self, now_ns: int) -> list[Turn]:
        """What fell due by itself until now."""

    def ended(self, turn: Turn, now_ns: int) -> list[Turn]:
        """What may go because this turn's request ended now."""

    def left(self, now_ns: int) -> Iterable[Turn]:
        """What fell due until now and was not given out. Call once, last."""


class _Sending(Request):
    """A request that knows its turn: what `done` gets back is the exchange, and a retried one is another object."""

    __slots__ = ("turn",)

    def __init__(
        self, turn: Turn, dialect: Dialect, body: bytes, *, stream: bool, choices: int, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(dialect, body, stream=stream, choices=choices, headers=headers)
        self.turn = turn


class Driver:
    """One worker's share of a plan. `finished()` is called once, on the loop, when nothing is due or in flight any more."""

    def __init__(
        self,
        plan: Plan,
        turns: Turns,
        *,
        transport: Transport,
        dialect: Dialect,
        workload: Workload,
        writer: RecordWriter,
        loop: asyncio.AbstractEventLoop,
        finished: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.in_flight: dict[int, Flight] = {}
        self.sent = 0
        self.outcomes: Counter[str] = Counter()
        self.latency = Histogram()
        self.ttft = Histogram()
        self._turns = turns
        self._transport = transport
        self._dialect = dialect
        self._workload = workload
        self._writer = writer
        self._loop = loop
        self._finished = finished
        self._stopped = self._over = False
        self._alarm = Alarm(loop, self._woken)

    def begin(self, start_ns: int) -> None:
        """Send what is due at the common start instant, and from then on what falls due."""
        self._writer.started(start_ns)
        if self._turns.share is not None:
            self._writer.scheduled(self._turns.share)
        for turn in self._turns.begin(start_ns):
            self._send(turn)
        self._alarm.set(self._turns.next_ns)
        self._end_if_idle()

    def stop(self) -> None:
        """Send nothing more; what is in flight may finish, what is due and not sent is dropped."""
        if not self._stopped:
            self._stopped = True
            self._alarm.set(None)
            for turn in self._turns.left(perf_counter_ns()):
                self._drop(turn)
        self._end_if_idle()

    def cancel(self) -> None:
        """Send nothing more and end what is in flight."""
        self.stop()
        for flight in list(self.in_flight.values()):
            flight.cancel()

    # ---- the path of one request ---------------------------------------------------------------------------------------

    def _woken(self) -> None:
        for turn in self._turns.woken(perf_counter_ns()):
            self._send(turn)
        self._alarm.set(self._turns.next_ns)
        self._end_if_idle()

    def _send(self, turn: Turn) -> None:
        plan, workload = self.plan, self._workload
        if self._turns.share is None:
            self._writer.scheduled()
        item = (plan.first_item + turn.index) % len(workload)
        body = workload.body(item, Marker(plan, turn.index))
        head = workload.head
        headers = (("x-request-id", f"{head.id_prefix}{item}"),) if head.id_prefix else ()
        request = _Sending(turn, self._dialect, body, stream=head.stream, choices=head.choices[item], headers=headers)
        exchange = Exchange(request, turn.due_ns, keep=False)
        self.sent += 1
        self._writer.sent()
        self.in_flight[turn.index] = self._transport.start(request, exchange, self._ended)

    def _ended(self, exchange: Exchange) -> None:
        turn: Turn = exchange.request.turn  # type: ignore[attr-defined]  # every request here is a _Sending
        self._record(exchange, final=True)
        del self.in_flight[turn.index]
        self._count(exchange)
        if not self._stopped:
            # The slot came free when the last byte arrived; our own time since then is send lag, and must show.
            for following in self._turns.ended(turn, exchange.end_ns):
                self._send(following)
            self._alarm.set(self._turns.next_ns)
        if not self.in_flight:
            self._end_if_idle()

    # --------------------------------------------------------------------------------------------------------------------

    def attempted(self, exchange: Exchange) -> None:
        """An attempt that a retry follows: recorded beside the request's final frame."""
        self._record(exchange, final=False)

    def _drop(self, turn: Turn) -> None:
        """It fell due and will never be sent: recorded, and nothing else."""
        request = _Sending(turn, self._dialect, b"", stream=self._workload.head.stream, choices=1)
        exchange = Exchange(request, turn.due_ns, keep=False)
        why = "as many were in flight as may be" if turn.held_back else "the client was late"
        exchange.fail(perf_counter_ns(), request_error(Outcome.DROPPED, f"due, and not sent before the end: {why}"))
        self._record(exchange, final=True)
        self._count(exchange)

    def _record(self, exchange: Exchange, *, final: bool) -> None:
        turn: Turn = exchange.request.turn  # type: ignore[attr-defined]
        batch = turn.index // self.plan.batch_size if self.plan.batch_size else 0
        self._writer.request(
            exchange, index=turn.index, phase=0, lane=turn.lane, batch=batch, due_ns=turn.due_ns, final=final, held_back=turn.held_back
        )

    def _count(self, exchange: Exchange) -> None:
        """For the live view only; the report is made of the records."""
        outcome = exchange.outcome
        assert outcome is not None
        self.outcomes[outcome.counted_as] += 1
        if outcome == 0:
            self.latency.add((exchange.end_ns - exchange.due_ns) // 1000)
            first = exchange.answer.first_output_ns
            if first:
                self.ttft.add((first - exchange.due_ns) // 1000)

    def _end_if_idle(self) -> None:
        if not self._over and not self.in_flight and (self._stopped or self._turns.next_ns is None):
            self._over = True
            self._alarm.close()
            self._finished()
