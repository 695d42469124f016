"""The instrument on its bench: workers against metronomes, each on cores of its own.

Knows plans, fleets, simulators and which process may run where; knows nothing of what a load is for (`selftest.py`).
Laws: what runs is the engine as any run has it: a plan, a fleet, workers, record files; no two processes that are compared share a
core while there is another; a metronome's truth is read when its process has ended.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from clients.errors import LoadgenError
from clients.messages import Sampling
from clients.transports import best_transport
from loadgen.discrepancy import Pace, Window, compare
from loadgen.fleet import Fleet, Interrupts
from loadgen.measurement import simulating, without_proxy
from loadgen.pipe import Assign
from loadgen.plan import Plan
from loadgen.prompts import generated_prompts
from loadgen.recorded import read_records
from loadgen.selftest import ITL_S, TTFT_S, Mode, Rung
from loadgen.simulator.settings import SimulatorSettings
from loadgen.simulator.truth import read_truth
from loadgen.target import Target
from loadgen.workload import write_workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadgen.rundir import RunDirectory

# The burst of the start (as many connections as streams) is over by then.
_SETTLED_SHARE = 0.25
# What is cut off at the end is compared up to there: nothing needs to finish.
_GRACE_S = 0.1
# Of a whole answer: about 600 bytes of text.
_WHOLE_TOKENS = 100
_LONGEST_TOKENS = 4096
# Different bodies, of a size that costs little to send: it is answers that are measured.
_PROMPTS, _PROMPT_WORDS = 16, 16
# Whom every rung talks to; each metronome has a port of its own.
_METRONOME = Target(base_url="http://127.0.0.1:1/v1", model="metronome")


class Placement(msgspec.Struct, frozen=True):
    """Cores of the workers (together) and of each metronome. pinned: this system lets us say so.

    siblings: a worker's and a metronome's are threads of one physical core.
    """

    workers: tuple[int, ...]
    metronomes: tuple[int, ...]
    pinned: bool
    siblings: bool = False

    @property
    def shared(self) -> bool:
        """Client and server compete for a core: all that is measured is a lower bound."""
        return not self.pinned or bool(set(self.workers) & set(self.metronomes))

    def __str__(self) -> str:
        if not self.pinned:
            return "not pinned: this system does not let a process choose its cores"
        if self.shared:
            return f"workers and metronome share core {self.workers[0]}, the only one: every figure is a lower bound"
        kept_apart = f"workers on {_cores(self.workers)}, metronomes on {_cores(self.metronomes)}"
        return kept_apart + (", threads of the same physical core, which slow each other" if self.siblings else "")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What a rung is to do. mean_tokens: of its answers, whose lengths differ so that streams do not begin again together."""

    mode: Mode
    streams: int
    workers: int
    duration_s: float
    mean_tokens: int


def metronomes_transport() -> str:
    """What `auto` means towards a metronome."""
    with without_proxy(SimulatorSettings().host):
        name, _ = best_transport(_METRONOME.endpoint(None))
    return name


def placement(cores: Sequence[int], workers: int) -> Placement:
    """Workers on the first cores, one metronome for each on the last."""
    pinned = hasattr(os, "sched_setaffinity")
    if len(cores) < 2:
        return Placement((cores[0],), (cores[0],) * workers, pinned)
    ours, theirs = tuple(cores[:workers]), tuple(cores[-workers:])
    return Placement(ours, theirs, pinned, bool({_physical(core) for core in ours} & {_physical(core) for core in theirs}))


def usable() -> list[int]:
    """The cores that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


class Testbed:
    """Performs loads, each with fresh workers and metronomes. directory: where records and truths are kept."""

    __test__ = False  # for pytest, which takes the name for a test's

    def __init__(self, directory: RunDirectory, transport: str, interrupts: Interrupts) -> None:
        self.stamping = ""
        self._directory = directory
        self._target = msgspec.structs.replace(_METRONOME, transport=transport)
        self._interrupts = interrupts
        self._performed = 0

    def perform(self, load: Load) -> Rung | None:
        """One rung; None when a signal came. Raises LoadgenError when a worker was lost, ServerUnusableError without a metronome."""
        if self._interrupts.count:
            return None
        plan = Plan(
            number=self._performed,
            label=f"{load.mode}-c{load.streams}-w{load.workers}",
            max_concurrent=load.streams,
            workers=load.workers,
            duration_s=load.duration_s,
            grace_s=_GRACE_S,
        )
        self._performed += 1
        place = self._directory.plan_directory(plan.number, plan.label)
        self._directory.write(f"plans/{place.name}/plan.json", msgspec.json.encode(plan))
        truths = [place / f"truth-{worker}.bin" for worker in range(plan.workers)]
        records = [place / f"worker-{worker}.records" for worker in range(plan.workers)]
        placed = placement(usable(), plan.workers)
        with contextlib.ExitStack() as stack:
            targets = []
            for core, truth in zip(placed.metronomes, truths, strict=True):
                with on_cores((core,)):
                    metronome = stack.enter_context(simulating(metronome_settings(load, truth)))
                targets.append(msgspec.structs.replace(self._target, base_url=metronome.base_url, stream=load.mode != "requests"))
            started_ns = self._drive(plan, targets, records, placed)
        if started_ns is None:
            return None
        start_ns = started_ns + round(_SETTLED_SHARE * load.duration_s * 1e9)
        itl_ns = round(ITL_S * 1e9)
        return compare(
            read_records(records, (self._directory.key, plan.number)),
            [read_truth(path) for path in truths],
            mode=load.mode,
            streams=load.streams,
            workers=load.workers,
            window=Window(start_ns, started_ns + round(load.duration_s * 1e9)),
            pace=Pace(round(TTFT_S * 1e9), itl_ns, load.mode == "lockstep"),
        )

    def _drive(self, plan: Plan, targets: list[Target], records: list[Path], placed: Placement) -> int | None:
        """Run the plan's fleet, worker i against target i; returns the common start, None when a signal cut it short."""
        workload = self._directory.path / f"workload-{'stream' if targets[0].stream else 'whole'}.bin"
        if not workload.exists():
            prompts = generated_prompts(_PROMPTS, _PROMPT_WORDS, seed=0)
            sampling = Sampling(max_tokens=_LONGEST_TOKENS if targets[0].stream else _WHOLE_TOKENS)
            write_workload(workload, prompts, target=targets[0], sampling=sampling, cache="unique")
        assignments = [
            Assign(
                plan=plan,
                target=target,
                key=None,
                worker=worker,
                run_id=self._directory.key.hex(),
                workload=str(workload),
                records=str(records[worker]),
            )
            for worker, target in enumerate(targets)
        ]
        with open(self._directory.path / "log.txt", "ab") as log, on_cores(placed.workers):
            fleet = Fleet(plan, assignments, log=log)
            crew = fleet.run(self._interrupts, lambda _: None)
        if self._interrupts.count:
            return None
        if lost := [one for one in crew if one.state == "lost"]:
            raise LoadgenError(f"worker {lost[0].number} was lost: {lost[0].end} (see log.txt of {self._directory.path})")
        self.stamping = crew[0].stamping
        return fleet.started_ns


class Neighbours:
    """What else used this machine's cores since it was made: of all their time, the share that was neither idle nor ours."""

    def __init__(self) -> None:
        self._before = self._used()

    def share(self) -> float | None:
        """None where the system does not tell. Ours: this process and its children that ended."""
        now = self._used()
        if self._before is None or now is None or now[0] == self._before[0]:
            return None
        total_s, busy_s, ours_s = (after - before for after, before in zip(now, self._before, strict=True))
        return max(0.0, (busy_s - ours_s) / total_s)

    def _used(self) -> tuple[float, float, float] | None:
        """(all time of all cores, of it busy, of it ours), seconds."""
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        except OSError:
            return None
        ticks = [int(field) for field in fields]  # user, nice, system, idle, iowait, irq, softirq, steal
        spent = os.times()
        ours_s = spent.user + spent.system + spent.children_user + spent.children_system
        second = os.sysconf("SC_CLK_TCK")
        return sum(ticks) / second, (sum(ticks) - ticks[3] - ticks[4]) / second, ours_s


def metronome_settings(load: Load, truth: Path) -> SimulatorSettings:
    """The server of a load: planned times, or answers at once where requests are counted."""
    streamed = load.mode != "requests"
    return SimulatorSettings(
        model_name="metronome",
        metronome=True,
        metronome_ttft_ms=TTFT_S * 1e3 if streamed else 0.0,
        metronome_itl_us=round(ITL_S * 1e6) if streamed else 1,
        metronome_lockstep=load.mode == "lockstep",
        eos_mean_tokens=load.mean_tokens if streamed else None,
        truth=str(truth),
    )


@contextlib.contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """What is started inside runs on these cores: children inherit them from the thread that starts them."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _physical(core: int) -> str:
    """What stands for the physical core of a logical one; itself where the system does not tell."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return str(core)


def _cores(cores: Sequence[int]) -> str:
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"
