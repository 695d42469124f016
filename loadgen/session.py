"""One command's life: a run directory, a workload, the fleets of its plans, the document at the end.

Knows the order of things and where files go; knows neither options nor how anything is shown. Invariant: whatever ends a session
(its campaign, a signal, an error), what was measured is in the run directory, and the document is what those files give: each plan
is reduced from them once, when its workers have ended.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Self

import msgspec

from clients.errors import LoadgenError
from loadgen import pixels
from loadgen.campaign import Live, Performed
from loadgen.fleet import Fleet, Interrupts
from loadgen.histogram import Histogram
from loadgen.pipe import Assign
from loadgen.precision import LOOKS, Observer
from loadgen.simulator.process import Simulator, SimulatorError
from loadgen.timetable import TIMETABLE, Timetable, write_timetable
from loadgen.workload import Marker, unmarked_images, write_workload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from clients.messages import Sampling
    from clients.secret import Secret
    from loadgen.campaign import Campaign, Listener
    from loadgen.document import Document, Opening
    from loadgen.fleet import Crew
    from loadgen.plan import Cache, Plan
    from loadgen.plan_report import PlanReport
    from loadgen.rundir import RunDirectory
    from loadgen.target import Target
    from loadgen.workload_head import WorkloadHead


_log = logging.getLogger(__name__)


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# One worker drives at least this many paced streams well on any machine we saw; above it, a second core helps. A self-test knows better.
STREAMS_PER_WORKER = 64

# Different images of a `--cache pixels` run that ends by time: they are made beforehand, and come again after so many requests.
VARIED_IMAGES = 512


def workers_for(max_concurrent: int, cores: int, streams_per_worker: int = STREAMS_PER_WORKER) -> int:
    """`--processes auto`: enough for the target concurrency, at most the cores the process may use."""
    return max(1, min(cores, math.ceil(max_concurrent / streams_per_worker)))


class Session:
    """Performs a campaign's plans. Use as a context manager around `conduct`.

    opening: what run.json says from the start. prompts: what the dialect's `encode` takes, one for each item. simulator: the
    embedded server, if it is the one that is measured: what it says of its own lateness is kept with each plan. trace: the offsets that
    plans replay, as recorded (`trace.py`).
    """

    def __init__(
        self,
        directory: RunDirectory,
        opening: Opening,
        *,
        target: Target,
        key: Secret | None,
        prompts: Sequence[Any],
        sampling: Sampling | Sequence[Sampling],
        cache: Cache,
        listener: Listener,
        id_prefix: str = "",
        simulator: Simulator | None = None,
        trace: NDArray[np.int64] | None = None,
    ) -> None:
        self.directory = directory
        self.interrupts = Interrupts()
        self._opening = opening
        self._target = target
        self._key = key
        self._prompts = prompts
        self._sampling = sampling
        self._cache: Cache = cache
        self._listener = listener
        self._id_prefix = id_prefix
        self._simulator = simulator
        self._trace = trace
        self._history: list[Performed] = []
        self._reduced: dict[str, PlanReport] = {}  # by directory: reading a plan's records costs as much as the whole of the report

    def __repr__(self) -> str:
        return f"<Session {self.directory.id} plans={len(self._history)}>"

    def __enter__(self) -> Self:
        from loadgen import document

        self.directory.open_log([self._key] if self._key else [])
        head = self._write_workload(self.directory.workload_path, self._prompts)
        if self._cache == "unique" and (unmarked := unmarked_images(head, self._prompts)):
            self._note(f"{unmarked} items hold an image that is neither PNG nor JPEG: its bytes repeat, a server's image cache may help")
        document.write_opening(self.directory, self._opening)
        self._listener.opened(self.directory.path)
        self.interrupts.__enter__()  # last: what raises above must not leave its signal handlers behind
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.interrupts.__exit__()
        self.directory.close()

    def conduct(self, campaign: Campaign) -> Document:
        """Perform the campaign to its end, or to the first signal; returns the document, which is also in run.json."""
        from loadgen import document

        while not self.interrupts.count and (plan := campaign.next_plan(self._history)) is not None:
            self._listener.planned(plan, campaign.planned(self._history))
            begun_ns = perf_counter_ns()
            performed = self._perform(plan)
            if performed is None:
                break
            performed = msgspec.structs.replace(performed, took_s=(perf_counter_ns() - begun_ns) / 1e9)
            self._history.append(performed)
            self._listener.performed(performed)
        return document.conclude(self.directory, self._reduced, interrupted=self.interrupts.signal)

    def _note(self, text: str) -> None:
        self._opening.notes.append(text)
        self._listener.note(text)

    def _write_workload(self, path: Path, prompts: Sequence[Any]) -> WorkloadHead:
        return write_workload(path, prompts, target=self._target, sampling=self._sampling, cache=self._cache, id_prefix=self._id_prefix)

    def _keep(self, path: Path, value: Any) -> None:
        self.directory.write(str(path.relative_to(self.directory.path)), msgspec.json.encode(value))

    def _workload(self, plan: Plan, place: Path) -> Path:
        """The run's file; where pixels must differ from request to request, one of the plan's own."""
        if self._cache != "pixels":
            return self.directory.workload_path
        count = plan.num_requests or VARIED_IMAGES
        path = place / "workload.bin"
        self._write_workload(path, pixels.varied(self._prompts, [Marker(plan, k).digits for k in range(count)]))
        return path

    def _timetable(self, plan: Plan, place: Path) -> str:
        """The file of an open loop's dues; "" for a closed one."""
        if plan.schedule is None:
            return ""
        from loadgen import dues, trace

        path = place / TIMETABLE
        if plan.schedule.process == "trace":
            assert self._trace is not None, "a plan that replays a trace belongs to a session that has one"
            offsets_ns = trace.replayed(self._trace, plan.schedule.speed, count=plan.num_requests, duration_s=plan.duration_s)
        else:
            offsets_ns = dues.offsets_ns(plan.schedule, count=plan.num_requests, duration_s=plan.duration_s)
        write_timetable(path, offsets_ns)
        return str(path)

    def _observer(self, plan: Plan, place: Path) -> Observer | None:
        """Who says when a plan is precise enough; None where it does not end so."""
        if plan.precision is None:
            return None
        from loadgen.plan_report import facts

        scheduled = None if plan.schedule is None else len(Timetable(place / TIMETABLE))
        paths = [place / f"worker-{worker}.records" for worker in range(plan.workers)]
        return Observer(plan.precision, paths, (self.directory.key, plan.number), facts(plan, scheduled=scheduled))

    def _perform(self, plan: Plan) -> Performed | None:
        """None: a signal came before any worker of this plan had begun, and there is nothing to reduce. What went before it is reported."""
        from loadgen import document, scrape
        from loadgen.watch import FILE_NAME, Watch

        place = self.directory.plan_directory(plan.number, plan.label)
        self._keep(place / "plan.json", plan)
        workload, timetable = str(self._workload(plan, place)), self._timetable(plan, place)
        observer = self._observer(plan, place)
        endpoint = self._target.endpoint(self._key)
        before = scrape.wait_idle(endpoint)
        if self._simulator is not None:
            with contextlib.suppress(SimulatorError):  # it is gone: the plan's own requests say so
                self._simulator.reset()
        assignments = [
            Assign(
                plan=plan,
                target=self._target,
                key=self._key.reveal() if self._key else None,
                worker=worker,
                run_id=self.directory.key.hex(),
                workload=workload,
                records=str(place / f"worker-{worker}.records"),
                timetable=timetable,
            )
            for worker in range(plan.workers)
        ]
        watch = Watch(endpoint, place / FILE_NAME) if before.counters else contextlib.nullcontext()
        with watch, open(self.directory.path / "log.txt", "ab") as log:
            fleet = Fleet(plan, assignments, log=log)
            crew = fleet.run(
                self.interrupts,
                lambda crew: self._listener.snapshot(_live(plan, crew, fleet.started_ns)),
                self._listener.note,
                enough=lambda crew: (
                    observer is not None and observer.enough(sum(one.beat.outcomes.get("ok", 0) for one in crew if one.beat))
                ),
            )
        if observer is not None:
            self._keep(place / LOOKS, observer.found)
        for one in crew:
            if one.state == "lost":
                lost = f"worker {one.number} was lost: {one.end}"
                _log.warning("plan %d: %s", plan.number, lost)
                self._listener.note(lost)
        after = scrape.wait_idle(endpoint) if before.counters else None
        self._keep(place / "server.json", scrape.Readings(before=before, after=after))
        if self._simulator is not None:
            with contextlib.suppress(SimulatorError):  # what was measured before it went is reported
                self._keep(place / "simulator.json", self._simulator.stats())
        report = self._reduced[place.name] = document.reduced(place, self._opening)
        if report.plan is None or report.summary is None or report.verdict is None:  # its workers never opened their files
            if self.interrupts.count:
                return None
            raise LoadgenError(f"{place}: {report.absent}")
        return Performed(plan=report.plan, summary=report.summary, verdict=report.verdict, server=report.server)


def _live(plan: Plan, crew: Sequence[Crew], started_ns: int) -> Live:
    """The fleet as its last beats told."""
    beats = [one.beat for one in crew if one.beat is not None]
    latency, ttft = Histogram(), Histogram()
    for beat in beats:
        latency.merge(Histogram.unpack(beat.latency))
        ttft.merge(Histogram.unpack(beat.ttft))
    ok = sum(beat.outcomes.get("ok", 0) for beat in beats)
    finished = sum(sum(beat.outcomes.values()) for beat in beats)
    elapsed_s = max((perf_counter_ns() - started_ns) / 1e9, 1e-9)

    def seconds(histogram: Histogram, quantile: float) -> float | None:
        return histogram.percentile(quantile) / 1e6 if histogram.count else None

    return Live(
        elapsed_s=elapsed_s,
        sent=sum(beat.sent for beat in beats),
        finished=finished,
        failed=finished - ok,
        in_flight=sum(beat.in_flight for beat in beats),
        rps=ok / elapsed_s,
        expected=plan.num_requests,
        duration_s=plan.duration_s,
        latency_p50_s=seconds(latency, 50),
        latency_p99_s=seconds(latency, 99),
        ttft_p50_s=seconds(ttft, 50),
    )
