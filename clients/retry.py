"""When a failed request is sent again, and the transport that does so.

Knows outcomes, waits and Retry-After; knows nothing of HTTP or of what is asked. `RetryPolicy` is a pure function of the error;
`Retrying` is a transport over a transport, so whoever starts requests need not know that there are attempts.
Law: `done` is called once, with the last attempt; what was handed to a listener is never sent for again.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Literal

import msgspec

from clients.errors import Outcome, RequestError, UsageError, request_error
from clients.exchange import Exchange, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from clients.transport import Done, Flight, Transport

# Connection errors that a moment can cure. Not TLS and DNS: a certificate or a name that is wrong stays wrong. Not the other
# deadlines: those waits were the patience asked for, and a server that is late is not helped by being asked twice.
_PASSING = frozenset({Outcome.CONNECT, Outcome.CONNECT_TIMEOUT, Outcome.RESET, Outcome.TRUNCATED})
_PASSING_STATUS = frozenset({408, 409, 429})


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """3 retries after 1 s, 2 s, 4 s, each times a draw from U(0.5, 1.5); a Retry-After of up to 120 s instead where given.

    max_retries: attempts after the first; 0 turns retries off. Raises UsageError for a number out of range.
    """

    max_retries: int = 3
    base_s: float = 1.0
    jitter: tuple[float, float] = (0.5, 1.5)
    retry_after_limit_s: float = 120.0

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise UsageError(f"max_retries: got {self.max_retries}, takes 0 or more")
        if not 0 <= self.base_s < float("inf"):
            raise UsageError(f"base_s: got {self.base_s}, takes seconds, 0 or more")
        if not 0 <= self.jitter[0] <= self.jitter[1]:
            raise UsageError(f"jitter: got {self.jitter}, takes two factors, the lower first")
        if not self.retry_after_limit_s >= 0:
            raise UsageError(f"retry_after_limit_s: got {self.retry_after_limit_s}, takes seconds, 0 or more")

    def wait_s(self, error: RequestError, attempt: int, *, endpoint_known_good: bool, draw: float) -> float | None:
        """Seconds to wait after attempt number `attempt` (from 1) failed with `error`; None: do not send it again.

        endpoint_known_good: the model is there, so that a 404 which names none missing is rate limiting. draw: from [0, 1).
        A Retry-After of 0 or less names no wait: the doubling one holds, or a refused burst would return at once.
        """
        if attempt > self.max_retries or not passing(error, endpoint_known_good=endpoint_known_good):
            return None
        asked_s = error.retry_after_s
        if asked_s is not None and asked_s > 0:
            return asked_s if asked_s <= self.retry_after_limit_s else None
        low, high = self.jitter
        return float(self.base_s * 2 ** (attempt - 1) * (low + draw * (high - low)))


def passing(error: RequestError, *, endpoint_known_good: bool) -> bool:
    """Whether the failure may be gone in a moment: by outcome, else by status."""
    if error.outcome in _PASSING:
        return True
    if error.outcome is Outcome.NOT_FOUND:
        return endpoint_known_good
    if error.outcome is Outcome.MODEL_MISSING or error.outcome.fault != "server":
        return False
    if error.outcome in {Outcome.RATE_LIMITED, Outcome.OVERLOADED}:
        return True
    return error.status in _PASSING_STATUS or 500 <= error.status < 600  # of an error in a stream: the number it gave


class Retrying:
    """A transport that sends a request again by `policy`.

    lists_model: asked (once for all who wait for it) when a 404 arrives before anything succeeded: does /v1/models list the model?
    on_attempt: told of each attempt that another one follows. seed: of the waits' draws; None for a random one.
    """

    def __init__(
        self,
        transport: Transport,
        policy: RetryPolicy,
        *,
        seed: int | None = None,
        lists_model: Callable[[], Awaitable[bool]] | None = None,
        on_attempt: Callable[[Exchange], None] | None = None,
    ) -> None:
        self.name = transport.name
        self.stamping: Literal["arrival", "wake"] = transport.stamping
        self.transport = transport
        self.policy = policy
        self.draw = random.Random(seed)
        self.lists_model = lists_model
        self.on_attempt = on_attempt
        self.listed = False  # /v1/models has named the model
        self.succeeded: set[str] = set()  # dialects that have: each is a path of its own that may be missing
        self.waiting: set[_Attempts] = set()
        self._closing = False
        self._question: asyncio.Task[bool] | None = None

    def __repr__(self) -> str:
        return f"<Retrying {self.transport!r} max_retries={self.policy.max_retries} waiting={len(self.waiting)}>"

    def start(self, request: Request, exchange: Exchange, done: Done) -> Flight:
        attempts = _Attempts(self, request, done)
        attempts.send(exchange)
        return attempts

    async def close(self) -> None:
        """Ends the waits (their requests are cancelled), then the transport under it."""
        self._closing = True
        question = self._question
        if question is not None:
            question.cancel()
            await asyncio.wait([question])
        for attempts in list(self.waiting):
            attempts.cancel()
        await asyncio.sleep(0)  # their `done` is due on the loop
        await self.transport.close()

    def known_good(self, exchange: Exchange) -> bool:
        return self.listed or exchange.request.dialect.name in self.succeeded

    def wait_s(self, failed: Exchange, error: RequestError) -> float | None:
        """How long to wait before `failed` is sent again; None: it is not."""
        if self._closing or _heard(failed, error):
            return None
        good = self.known_good(failed)
        return self.policy.wait_s(error, failed.attempt, endpoint_known_good=good, draw=self.draw.random())

    async def ask(self, lists_model: Callable[[], Awaitable[bool]]) -> None:
        """Sets `listed`. A burst of 404s asks one question: the server that limits rates is not to be asked for each."""
        if self._question is None:
            self._question = asyncio.ensure_future(lists_model())
            self._question.add_done_callback(self._answered)
        await asyncio.wait([self._question])

    def _answered(self, question: asyncio.Future[bool]) -> None:
        self._question = None
        # No list to be had: the 404 stands as it is.
        if not question.cancelled() and not isinstance(question.exception(), RequestError):
            self.listed = self.listed or question.result()


class _Attempts:
    """One request on its way through its attempts: in flight, asking for the model list, or waiting. One of the three."""

    __slots__ = ("_done", "_flight", "_last", "_question", "_request", "_retrying", "_timer")

    def __init__(self, retrying: Retrying, request: Request, done: Done) -> None:
        self._retrying = retrying
        self._request = request
        self._done = done
        self._last: Exchange | None = None  # the attempt that failed, while nothing is in flight
        self._flight: Flight | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._question: asyncio.Task[None] | None = None

    def send(self, exchange: Exchange) -> None:
        self._last = None
        self._retrying.waiting.discard(self)
        self._flight = self._retrying.transport.start(self._request, exchange, self._ended)

    def cancel(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._question is not None:
            self._question.cancel()
        failed, self._last = self._last, None
        if failed is not None:
            asyncio.get_running_loop().call_soon(self._cancelled, failed)

    def _ended(self, exchange: Exchange) -> None:
        self._flight = None
        error = exchange.error
        if error is None:
            self._retrying.succeeded.add(self._request.dialect.name)
            self._done(exchange)
            return
        self._last = exchange
        retrying = self._retrying
        if (
            error.outcome is Outcome.NOT_FOUND
            and not retrying.known_good(exchange)
            and retrying.lists_model
            and retrying.policy.max_retries
        ):
            retrying.waiting.add(self)
            self._question = asyncio.get_running_loop().create_task(self._ask(retrying.lists_model))
            return
        self._decide(exchange, error)

    async def _ask(self, lists_model: Callable[[], Awaitable[bool]]) -> None:
        await self._retrying.ask(lists_model)
        failed = self._last
        self._question = None
        if failed is not None and failed.error is not None:
            self._decide(failed, failed.error)

    def _decide(self, failed: Exchange, error: RequestError) -> None:
        retrying = self._retrying
        wait_s = retrying.wait_s(failed, error)
        if wait_s is None:
            self._last = None
            retrying.waiting.discard(self)
            failed.error = _explained(error, failed.attempt, retrying.policy, known_good=retrying.known_good(failed))
            failed.outcome = failed.error.outcome
            self._done(failed)
            return
        if retrying.on_attempt is not None:
            retrying.on_attempt(failed)
        retrying.waiting.add(self)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._again, failed)

    def _again(self, failed: Exchange) -> None:
        self._timer = None
        self.send(_next_attempt(failed))

    def _cancelled(self, failed: Exchange) -> None:
        """Cancelled between two attempts: the attempt that would have come ends unsent."""
        self._retrying.waiting.discard(self)
        exchange = _next_attempt(failed)
        exchange.fail(
            time.perf_counter_ns(), request_error(Outcome.CANCELLED, f"cancelled while waiting to send again after: {failed.error}")
        )
        self._done(exchange)


def _next_attempt(failed: Exchange) -> Exchange:
    answer = failed.answer
    exchange = Exchange(failed.request, failed.due_ns, keep=answer.keep, attempt=failed.attempt + 1)
    exchange.answer.listener = answer.listener
    return exchange


def _heard(failed: Exchange, error: RequestError) -> bool:
    """Whether sending again is out of the question: a listener has output, or the stream had begun before its own error."""
    if not failed.answer.events:
        return False
    return failed.answer.listener is not None or error.outcome.fault == "server"


def _explained(error: RequestError, attempt: int, policy: RetryPolicy, *, known_good: bool) -> RequestError:
    """The last attempt's error, with what made it the last: attempts used up, or a wait beyond the limit."""
    if not policy.max_retries or not passing(error, endpoint_known_good=known_good):
        return error
    outcome, message = error.outcome, str(error)
    if outcome is Outcome.NOT_FOUND:
        outcome, message = Outcome.RATE_LIMITED, f"404 from a server that has the model, taken as rate limiting: {message}"
    asked_s = error.retry_after_s
    if asked_s is not None and asked_s > policy.retry_after_limit_s:
        message += f" (the server asks to wait {asked_s:g} s, the limit is {policy.retry_after_limit_s:g} s)"
    elif attempt > policy.max_retries:
        message += f" (after {attempt} attempts)"
    return request_error(
        outcome,
        message,
        status=error.status,
        code=error.code,
        retry_after_s=asked_s,
        request_id=error.request_id,
    )
