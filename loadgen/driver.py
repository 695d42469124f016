"""Keeps a worker's slots full: the schedule's turns become requests, ended requests free their slots.

Knows a `Lanes`, a transport and a record writer, and reads the clock; knows nothing of pipes, files or percentiles.
The path of one request is `_send` and `_ended`, below, and nothing else.
Invariants: no request is sent before its due; each turn that was begun ends in exactly one final record; after `stop` nothing
is sent any more, after `cancel` everything ends.
"""

from __future__ import annotations

from collections import Counter
from time import perf_counter_ns
from typing import TYPE_CHECKING

from clients.exchange import Exchange, Request
from loadgen.histogram import Histogram
from loadgen.workload import Marker

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from clients.dialects import Dialect
    from clients.transport import Flight, Transport
    from clients.turn import Turn
    from loadgen.plan import Plan
    from loadgen.records import RecordWriter
    from loadgen.workload import Workload


class _Sending(Request):
    """A request that knows its turn: what `done` gets back is the exchange, and a retried one is another object."""

    __slots__ = ("turn",)

    def __init__(self, turn: Turn, dialect: Dialect, body: bytes, *, stream: bool, choices: int) -> None:
        super().__init__(dialect, body, stream=stream, choices=choices)
        self.turn = turn


class Driver:
    """One worker's share of a plan. `finished()` is called once, on the loop, when nothing is due or in flight any more."""

    def __init__(
        self,
        plan: Plan,
        worker: int,
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
        self._lanes = plan.lanes(worker)
        self._transport = transport
        self._dialect = dialect
        self._workload = workload
        self._writer = writer
        self._loop = loop
        self._finished = finished
        self._stopped = False
        self._waiting: dict[int, asyncio.TimerHandle] = {}  # turns that are due later, by request number

    @property
    def slots(self) -> int:
        """Requests this worker may have in flight."""
        return self._lanes.slots

    def begin(self, start_ns: int) -> None:
        """Take the slots: every one of them is due at the common start instant."""
        if self.plan.num_requests is not None:
            self._writer.scheduled(self._lanes.share() or 0)
        for turn in self._lanes.begin(start_ns):
            self._take(turn)
        self._end_if_idle()

    def stop(self) -> None:
        """Send nothing more; what is in flight may finish."""
        self._stopped = True
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self._end_if_idle()

    def cancel(self) -> None:
        """Send nothing more and end what is in flight."""
        self.stop()
        for flight in list(self.in_flight.values()):
            flight.cancel()

    # ---- the path of one request ---------------------------------------------------------------------------------------

    def _take(self, turn: Turn) -> None:
        self._waiting.pop(turn.index, None)
        early_ns = turn.due_ns - perf_counter_ns()
        if early_ns > 0:  # a batch lane's delay, or a timer of uvloop that fired early: never send before due
            self._waiting[turn.index] = self._loop.call_later(early_ns / 1e9, self._take, turn)
        else:
            self._send(turn)

    def _send(self, turn: Turn) -> None:
        plan, workload = self.plan, self._workload
        if plan.num_requests is None:
            self._writer.scheduled()
        item = (plan.first_item + turn.index) % len(workload)
        body = workload.body(item, Marker(plan, turn.index))
        head = workload.head
        request = _Sending(turn, self._dialect, body, stream=head.stream, choices=head.choices[item])
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
            for following in self._lanes.freed(turn, exchange.end_ns):
                self._take(following)
        if not self.in_flight:
            self._end_if_idle()

    # --------------------------------------------------------------------------------------------------------------------

    def attempted(self, exchange: Exchange) -> None:
        """An attempt that a retry follows: recorded beside the request's final frame."""
        self._record(exchange, final=False)

    def _record(self, exchange: Exchange, *, final: bool) -> None:
        turn: Turn = exchange.request.turn  # type: ignore[attr-defined]
        batch = turn.index // self.plan.batch_size if self.plan.batch_size else 0
        self._writer.request(exchange, index=turn.index, phase=0, lane=turn.lane, batch=batch, due_ns=turn.due_ns, final=final)

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
        if not self.in_flight and not self._waiting:
            self._finished()
