"""A plan run by a real fleet against a real server, in one call: what the fleet tests share."""

from pathlib import Path

from clients.messages import Sampling
from loadgen.dues import offsets_ns
from loadgen.fleet import Fleet, Interrupts
from loadgen.pipe import Assign
from loadgen.plan import Plan
from loadgen.plan_report import facts
from loadgen.recorded import read_records
from loadgen.reducer import reduce
from loadgen.target import Target
from loadgen.timetable import TIMETABLE, write_timetable
from loadgen.workload import write_workload

RUN_ID = bytes(range(16))


def closed_loop(number=1, **settings):
    """A plan of a closed loop; as many workers as asked for, or as there are shares."""
    settings = {"max_concurrent": 4, "num_requests": 24, "workers": 2, **settings}
    most = Plan.largest_workers(settings["max_concurrent"], settings.get("batch_size"), settings["num_requests"])
    return Plan(number=number, label=f"p{number}", **{**settings, "workers": min(settings["workers"], most)})


def open_loop(schedule, number=1, **settings):
    """A plan of an open loop, with a bound on what is in flight that is not reached."""
    settings = {"max_concurrent": 1000, "num_requests": 100, "workers": 1, **settings}
    return Plan(number=number, label=f"p{number}", schedule=schedule, **settings)


class Performance:
    """One plan, performed: its crew, records and summary. `beaten` and `enough` are called with the crew at each round of beats."""

    def __init__(
        self, directory: Path, base_url: str, plan: Plan, *, max_tokens=8, beaten=None, noted=None, enough=None, model="olmocr", **target
    ):
        directory.mkdir(parents=True, exist_ok=True)
        aim = Target(**{"base_url": base_url, "model": model, "continuous_usage": True, "transport": "wire", **target})
        workload = directory / "workload.bin"
        write_workload(workload, ["hello"] * 7, target=aim, sampling=Sampling(max_tokens=max_tokens, ignore_eos=True), cache="unique")
        self.paths = [directory / f"worker-{i}.records" for i in range(plan.workers)]
        self.scheduled, timetable = None, ""
        if plan.schedule is not None:
            dues, timetable = offsets_ns(plan.schedule, count=plan.num_requests, duration_s=plan.duration_s), str(directory / TIMETABLE)
            write_timetable(Path(timetable), dues)
            self.scheduled = len(dues)
        shared = {"plan": plan, "target": aim, "key": None, "run_id": RUN_ID.hex(), "workload": str(workload), "timetable": timetable}
        assignments = [Assign(worker=i, records=str(path), **shared) for i, path in enumerate(self.paths)]
        self.log = directory / "log.txt"
        with open(self.log, "ab") as log, Interrupts() as interrupts:
            self.fleet = Fleet(plan, assignments, log=log)
            self.crew = self.fleet.run(
                interrupts, beaten or (lambda crew: None), noted or (lambda text: None), enough=enough or (lambda crew: False)
            )
        self.plan = plan
        self.records = read_records(self.paths)

    @property
    def summary(self):
        return reduce(self.records, facts(self.plan, scheduled=self.scheduled))
