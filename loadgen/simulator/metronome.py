"""Answers at planned times, to measure clients: no engine, bytes built before the first token.

Knows a wheel of absolute instants. Must not know routes or JSON.
Law: token k of an answer is due at its start + k x itl, whatever happened to the tokens before; a token never leaves before it is due.
Free-running, the start is the request's arrival + ttft; in lockstep it is the next common tick (a multiple of itl on the
monotonic clock) after that, so that all streams emit together, as behind a batching server.
"""

import asyncio
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

from loadgen.alarm import Alarm
from loadgen.simulator.answers import Answer
from loadgen.simulator.metrics import Metrics
from loadgen.simulator.settings import SimulatorSettings

# Width of a bucket: what a token may be late by plan. Narrower ones cost wake-ups (4,000/s here), wider ones bunch the tokens.
TICK_NS: Final = 250_000


class Stream:
    """One choice on its way. `middle`: the event that every token but the first and last is."""

    __slots__ = ("answer", "choice", "due_ns", "left", "middle")

    def __init__(self, answer: Answer, position: int, due_ns: int) -> None:
        self.answer = answer
        self.choice = answer.choices[position]
        self.left = answer.sequences[position].output_tokens
        self.due_ns = due_ns
        self.middle: bytes | None = None


class MetronomePacer:
    """`deliver(answer, due_ns)` is called for first and last tokens, `send(answer, event, due_ns)` for those between."""

    def __init__(
        self,
        settings: SimulatorSettings,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        deliver: Callable[[Answer, int], None],
        send: Callable[[Answer, bytes, int], None],
    ) -> None:
        self._alarm = Alarm(loop, self._tick)
        self._metrics = metrics
        self._deliver = deliver
        self._send = send
        self._buckets: dict[int, list[Stream]] = {}
        self._times: list[int] = []  # heap of the keys of `_buckets`
        self.set_limits(settings)

    def begin(self, answer: Answer) -> None:
        start_ns = answer.arrived_ns + self._ttft_ns
        if self._lockstep:
            start_ns = -(-start_ns // self._itl_ns) * self._itl_ns
        for position, sequence in enumerate(answer.sequences):
            stream = Stream(answer, position, start_ns)
            if not answer.order.stream:  # all of it at the time of its last token
                stream.due_ns += (sequence.output_tokens - 1) * self._itl_ns
                answer.tokens += sequence.output_tokens - 1
                stream.choice.tokens = sequence.output_tokens - 1
                stream.left = 1
            elif not (answer.order.continuous_usage or answer.fault):
                stream.middle = stream.choice.middle_event()
            self._put(stream)
        self._alarm.set(self._times[0] * TICK_NS)

    def abandon(self, answer: Answer) -> None:
        """Its streams are dropped when their bucket comes."""

    def set_limits(self, settings: SimulatorSettings) -> None:
        """Times of answers that begin from now on; `time_scale` scales them."""
        self._ttft_ns = round(settings.metronome_ttft_ms * 1e6 * settings.time_scale)
        self._itl_ns = max(1, round(settings.metronome_itl_us * 1e3 * settings.time_scale))
        self._lockstep = settings.metronome_lockstep

    def snapshot(self) -> dict[str, Any]:
        return {"lateness_share_of_step": None}

    def reset(self) -> None:
        """Nothing is counted here."""

    def close(self) -> None:
        self._alarm.close()

    def _put(self, stream: Stream) -> None:
        key = -(-stream.due_ns // TICK_NS)  # rounded up: never early
        bucket = self._buckets.get(key)
        if bucket is None:
            self._buckets[key] = [stream]
            heappush(self._times, key)
        else:
            bucket.append(stream)

    def _tick(self) -> None:
        """Send one bucket. When behind, the alarm rings again at once: requests are read in between even then."""
        if self._times and self._times[0] * TICK_NS <= time.perf_counter_ns():
            for stream in self._buckets.pop(heappop(self._times)):
                answer = stream.answer
                if answer.gone or answer.broken:
                    continue
                left = stream.left = stream.left - 1
                due_ns = stream.due_ns
                if stream.middle is not None and left and stream.choice.tokens:
                    stream.choice.tokens += 1
                    answer.tokens += 1
                    self._send(answer, stream.middle, due_ns)
                else:
                    self._edge(stream, last=not left)
                if left:
                    stream.due_ns = due_ns + self._itl_ns
                    self._put(stream)
        self._alarm.set(self._times[0] * TICK_NS if self._times else None)

    def _edge(self, stream: Stream, *, last: bool) -> None:
        answer, choice = stream.answer, stream.choice
        answer.token(choice, last=last)
        if last:
            if not answer.order.embeddings:
                self._metrics.generation_tokens += choice.tokens
            self._metrics.prompt_tokens += choice.prompt_tokens
            self._metrics.finished(choice.finish_reason)
        self._deliver(answer, stream.due_ns)
