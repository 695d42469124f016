"""Many prompts through one transport: as many at a time as the lanes allow, results in order.

Knows lanes, flights and completions; knows nothing of what a prompt is. All by callbacks on one loop: no task for each item.
Law: every item gives one completion; requests, exchanges and bodies exist for what is in flight (and encoded ahead) only; a cancelled
batch has nothing in flight when it returns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from clients.completion import Completion
from clients.errors import RequestError
from clients.exchange import Exchange, Request

if TYPE_CHECKING:
    from clients.lanes import Lanes
    from clients.transport import Flight, Transport
    from clients.turn import Turn

# The request of item i, or a future of it where encoding takes a thread. Raises (or the future holds) the item's RequestError.
Prepare = Callable[[int], "Request | asyncio.Future[Request]"]


class Batch:
    """`count` items through `transport`. `await run()` once, on the transport's loop; on_end is told each completion as it comes."""

    def __init__(
        self, transport: Transport, lanes: Lanes, prepare: Prepare, count: int, on_end: Callable[[Completion], None] | None = None
    ) -> None:
        self._transport = transport
        self._lanes = lanes
        self._prepare = prepare
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._results: list[Completion | None] = [None] * count
        self._left = count
        self._cancelled = False
        self._finished = self._loop.create_future()
        # Where each turn that is out stands: waiting for its due, being encoded, or in flight.
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._encoding: dict[int, asyncio.Future[Request]] = {}
        self._flights: dict[int, Flight] = {}

    def __repr__(self) -> str:
        return f"<Batch left={self._left} in_flight={len(self._flights)}>"

    async def run(self) -> list[Completion]:
        """One completion for each item, in order. Cancelled: cancels what is in flight, waits for its end, and passes that on.

        Raises RuntimeError when the transport is closed meanwhile.
        """
        self._take(self._lanes.begin(time.perf_counter_ns()))
        if self._left:
            try:
                await self._finished
            except BaseException:  # cancelled, or broken by a defect or a closed client
                await self._cancel()
                raise
        return [result for result in self._results if result is not None]

    async def _cancel(self) -> None:
        self._cancelled = True
        for timer in self._timers.values():
            timer.cancel()
        for future in self._encoding.values():
            future.cancel()
        self._finished = self._loop.create_future()
        for flight in list(self._flights.values()):
            flight.cancel()
        if self._flights:
            await self._finished

    def _take(self, turns: list[Turn]) -> None:
        for turn in turns:
            self._when_due(turn)

    def _when_due(self, turn: Turn) -> None:
        self._timers.pop(turn.index, None)
        early_ns = turn.due_ns - time.perf_counter_ns()
        if early_ns > 0:  # asked again when the timer fires: uvloop's can fire early
            self._timers[turn.index] = self._loop.call_later(early_ns / 1e9, self._when_due, turn)
            return
        try:
            prepared = self._prepare(turn.index)
        except RequestError as error:
            self._loop.call_soon(self._refused, turn, error)
            return
        except Exception as defect:  # the caller's function: what it raises must end the batch, not hang it
            self._break(defect)
            return
        if isinstance(prepared, Request):
            self._send(turn, prepared)
        else:
            self._encoding[turn.index] = prepared
            prepared.add_done_callback(partial(self._encoded, turn))

    def _encoded(self, turn: Turn, future: asyncio.Future[Request]) -> None:
        self._encoding.pop(turn.index, None)
        if self._cancelled or future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._send(turn, future.result())
        elif isinstance(error, RequestError):
            self._refused(turn, error)
        else:
            self._break(error)

    def _send(self, turn: Turn, request: Request) -> None:
        exchange = Exchange(request, turn.due_ns)
        try:
            self._flights[turn.index] = self._transport.start(request, exchange, partial(self._ended, turn))
        except RuntimeError as closed:
            self._break(closed)

    def _break(self, error: BaseException) -> None:
        if not self._finished.done():
            self._finished.set_exception(error)

    def _refused(self, turn: Turn, error: RequestError) -> None:
        """The item cannot be sent: it ends here, its neighbours go on."""
        if not self._cancelled:
            self._result(turn, Completion.unsent(error, turn.due_ns, time.perf_counter_ns()))

    def _ended(self, turn: Turn, exchange: Exchange) -> None:
        del self._flights[turn.index]
        if not self._cancelled:
            self._result(turn, Completion.of(exchange))
        elif not self._flights and not self._finished.done():
            self._finished.set_result(None)

    def _result(self, turn: Turn, completion: Completion) -> None:
        self._results[turn.index] = completion
        self._left -= 1
        if self._on_end is not None:
            self._on_end(completion)
        if self._left:
            self._take(self._lanes.freed(turn, time.perf_counter_ns()))
        elif not self._finished.done():
            self._finished.set_result(None)
