"""Answers paced by the engine: the loop between virtual time and the clock.

Knows the engine, its alarm and the delivery of answers. Must not know routes or JSON.
Law: steps follow from virtual time alone. When this loop wakes late, the tokens are late, and the next step still ends when it would have;
each step's tokens of one answer leave in one write, and none before its step's end.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from loadgen.alarm import Alarm
from loadgen.simulator.answers import Answer
from loadgen.simulator.engine import Engine
from loadgen.simulator.metrics import Metrics
from loadgen.simulator.settings import SimulatorSettings
from loadgen.simulator.stats import Stats

if TYPE_CHECKING:
    from loadgen.simulator.replies import Choice

# The loop wakes this long before a step's end, to have its bytes ready on time: what a wake-up was seen to take, and what rendering one
# sequence's token takes (both measured, rounded up), but never more than a share of the step, lest short steps wait for most of the time.
_WAKE_NS: Final = 100_000
_RENDER_NS: Final = 3_000
_LEAD_SHARE: Final = 8


class BatchingPacer:
    """`deliver(answer, due_ns)` is called once per step for each answer that has new tokens."""

    def __init__(
        self,
        settings: SimulatorSettings,
        loop: asyncio.AbstractEventLoop,
        metrics: Metrics,
        stats: Stats,
        deliver: Callable[[Answer, int], None],
    ) -> None:
        self.engine = Engine(settings)
        self._alarm = Alarm(loop, self._step)
        self._metrics = metrics
        self._stats = stats
        self._deliver = deliver
        self._base_steps = self._base_step_ns = 0  # at the last reset

    def begin(self, answer: Answer) -> None:
        """Queue the answer's sequences. A sequence arrives when it is queued, which is when its request was read unless it was slowed."""
        now_ns = time.perf_counter_ns()
        for sequence in answer.sequences:
            self.engine.submit(now_ns, sequence)
        self._stats.see(len(self.engine.running), len(self.engine.waiting))
        self._arm()

    def abandon(self, answer: Answer) -> None:
        """Free the answer's seats and cache at once."""
        now_ns = time.perf_counter_ns()
        for sequence in answer.sequences:
            self.engine.cancel(sequence, now_ns)

    def set_limits(self, settings: SimulatorSettings) -> None:
        self.engine.set_limits(settings)

    def snapshot(self) -> dict[str, Any]:
        totals = self.engine.totals
        steps = totals.steps - self._base_steps
        mean_ns = (totals.step_ns - self._base_step_ns) / steps if steps else 0.0
        share = self._stats.lateness.mean_ns / mean_ns if mean_ns else 0.0
        return {
            "running": len(self.engine.running),
            "waiting": len(self.engine.waiting),
            "steps": steps,
            "step_mean_ms": mean_ns / 1e6,
            "lateness_share_of_step": share,
            "preemptions_total": totals.preemptions,
        }

    def reset(self) -> None:
        self._base_steps, self._base_step_ns = self.engine.totals.steps, self.engine.totals.step_ns

    def close(self) -> None:
        self._alarm.close()

    def _arm(self) -> None:
        end_ns = self.engine.next_step_end()
        if end_ns is not None:
            lead_ns = _WAKE_NS + _RENDER_NS * len(self.engine.running)
            end_ns -= min(lead_ns, self.engine.step_ns // _LEAD_SHARE)
        self._alarm.set(end_ns)

    def _step(self) -> None:
        """End one step. Subtleness ahead!

        The engine is advanced to the step's end a little before that instant has come, which virtual time allows: nothing else runs in this
        process until the end has been waited for, so no request can come in between. When behind, the alarm rings again at once, and
        sockets are read in between even then.
        """
        engine, metrics = self.engine, self._metrics
        end_ns = engine.next_step_end()
        if end_ns is None:
            return
        touched: list[Answer] = []
        for emission in engine.advance(end_ns):
            choice = cast("Choice", emission.sequence.owner)
            answer: Answer = choice.answer
            if answer.broken:
                continue  # another choice of it broke off in this very step
            if answer.order.embeddings:
                metrics.embedded(emission)
            else:
                metrics.token(emission)
            if emission.finished:
                metrics.finished(choice.finish_reason)
            answer.token(choice, last=emission.finished)
            if not answer.touched:
                answer.touched = True
                touched.append(answer)
        self._stats.see(len(engine.running), len(engine.waiting))
        while time.perf_counter_ns() < end_ns:
            pass  # at most the lead, a tenth of a millisecond or two
        for answer in touched:
            answer.touched = False
            self._deliver(answer, end_ns)
        self._arm()
