"""A self-test from its first rung to its document: which loads in which order, and what they add up to.

Knows the programme and the test bed; knows no option and no terminal. Law: a signal, or a rung that cannot be performed, leaves a
document of what was measured before; ceilings of all workers are measured only where each worker and each metronome had a core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen import selftest
from loadgen.selftest import SCHEMA, Curve, Need, Rung, SelfTest
from loadgen.testbed import Load, Neighbours, placement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadgen.environment import Environment
    from loadgen.selftest import Ceiling, Mode, Programme
    from loadgen.testbed import Testbed

# A core is never quite idle; what takes more than this may sit before a worker or a metronome when its token is due.
_QUIET_SHARE = 0.02

STREAM_MODES: tuple[Mode, ...] = ("free-running", "lockstep")


class Examination:
    """Performs a programme. told: is given each rung when it is done. workers: how many are all."""

    def __init__(self, bed: Testbed, programme: Programme, *, cores: Sequence[int], workers: int, told: Callable[[Rung], None]) -> None:
        self.curves: list[Curve] = []
        self.requests: list[Rung] = []
        self.together: list[Rung] = []
        self._cut_short = False
        self._neighbours = Neighbours()
        self._bed = bed
        self._programme = programme
        self._cores = cores
        self._workers = workers
        self._told = told

    def run(self) -> None:
        """All of it, or as much as there was before a signal."""
        for mode in STREAM_MODES:
            self._climb(mode)
        if rung := self._perform("requests", self._programme.concurrency, 1):
            self.requests.append(rung)
        if self._measures_all:
            for mode, streams in self._heaviest():
                if rung := self._perform(mode, streams * self._workers, self._workers):
                    self.together.append(rung)

    def document(
        self, *, run_id: str, started: str, quick: bool, transport: str, environment: Environment, load: tuple[int, float] | None
    ) -> SelfTest:
        """What was found. load: streams and token events/s that a user wants to know the workers for."""
        reaches = {one.mode: found for one in self.curves if (found := selftest.reach(one))}
        needs: list[Need] = []
        if load is not None:
            needs = [selftest.need(reaches.get(one.mode), one.mode, *load) for one in self.curves]
        one = self._ceilings([rung for found in self.curves for rung in found.rungs], self.requests)
        return SelfTest(
            schema=SCHEMA,
            id=run_id,
            started=started,
            quick=quick,
            transport=transport,
            stamping=self._bed.stamping,
            environment=environment,
            placement=str(placement(self._cores, 1)),
            bounds_s=(selftest.BOUND_P50_S, selftest.BOUND_P99_S),
            curves=self.curves,
            requests=self.requests,
            together=self.together,
            one=one,
            all=self._all(one),
            reaches=list(reaches.values()),
            needs=needs,
            notes=self._notes(),
        )

    @property
    def _measures_all(self) -> bool:
        return self._workers > 1 and len(self._cores) >= 2 * self._workers

    def _climb(self, mode: Mode) -> None:
        ladder, rungs = self._programme.ladders[mode], list[Rung]()
        while (streams := selftest.next_streams(ladder, rungs, refine=self._programme.refine)) is not None:
            rung = self._perform(mode, streams, 1)
            if rung is None:
                break
            rungs.append(rung)
        if rungs:
            self.curves.append(selftest.curve(mode, rungs))

    def _perform(self, mode: Mode, streams: int, workers: int) -> Rung | None:
        programme = self._programme
        load = Load(mode=mode, streams=streams, workers=workers, duration_s=programme.duration_s, mean_tokens=programme.mean_tokens)
        attempts: list[Rung] = []
        while len(attempts) < programme.attempts and (not attempts or attempts[-1].late or not attempts[-1].within):
            rung = self._bed.perform(load)
            if rung is None:
                self._cut_short = True
                break
            self._told(rung)
            attempts.append(rung)
        return selftest.best_attempt(attempts) if attempts else None

    def _heaviest(self) -> list[tuple[Mode, int]]:
        """What drove one worker furthest: of streams, and of requests."""
        rungs = [rung for found in self.curves for rung in found.rungs]
        loads: list[tuple[Mode, int]] = [("requests", self._programme.concurrency)]
        if rungs:
            top = max(rungs, key=lambda rung: rung.events_rps)
            loads.insert(0, (top.mode, top.streams))
        return loads

    def _ceilings(self, streamed: Sequence[Rung], whole: Sequence[Rung]) -> list[Ceiling]:
        return [one for one in (selftest.best(streamed, "token events"), selftest.best(whole, "requests")) if one is not None]

    def _all(self, one: Sequence[Ceiling]) -> list[Ceiling]:
        if self._measures_all:
            return self._ceilings([r for r in self.together if r.mode != "requests"], [r for r in self.together if r.mode == "requests"])
        if self._workers == 1:
            return list(one)
        return [selftest.computed(ceiling, min(self._workers, len(self._cores))) for ceiling in one]

    def _notes(self) -> list[str]:
        notes = ["interrupted: rungs are missing"] if self._cut_short else []
        if not self._measures_all and self._workers > 1:
            notes.append(
                f"all workers are computed: {self._workers} of them and as many metronomes need {2 * self._workers} cores, "
                f"this process may use {len(self._cores)}"
            )
        if placement(self._cores, 1).shared:
            notes.append("worker and metronome were not kept apart: every ceiling is a lower bound, and errors hold their waiting")
        others = self._neighbours.share()
        if others is not None and others > _QUIET_SHARE:
            notes.append(f"other processes took {others:.0%} of this machine's cores meanwhile: what is out of bounds may be theirs")
        return notes
