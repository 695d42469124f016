"""A plan run by a real fleet against a real server, in one call: what the fleet tests share."""

from pathlib import Path

from clients.messages import Sampling
from loadgen.fleet import Fleet, Interrupts
from loadgen.pipe import Assign
from loadgen.plan import Plan
from loadgen.plan_report import facts
from loadgen.recorded import read_records
from loadgen.reducer import reduce
from loadgen.target import Target
from loadgen.workload import write_workload

RUN_ID = bytes(range(16))


def closed_loop(number=1, **settings):
    """A plan of a closed loop; as many workers as asked for, or as there are shares."""
    settings = {"max_concurrent": 4, "num_requests": 24, "workers": 2, **settings}
    most = Plan.largest_workers(settings["max_concurrent"], settings.get("batch_size"), settings["num_requests"])
    return Plan(number=number, label=f"p{number}", **{**settings, "workers": min(settings["workers"], most)})


class Performance:
    """One plan, performed: its crew, records and summary. `beaten` is called with the crew at each round of beats."""

    def __init__(self, directory: Path, base_url: str, plan: Plan, *, max_tokens=8, beaten=None, noted=None, model="olmocr", **target):
        directory.mkdir(parents=True, exist_ok=True)
        aim = Target(**{"base_url": base_url, "model": model, "continuous_usage": True, "transport": "wire", **target})
        workload = directory / "workload.bin"
        write_workload(workload, ["hello"] * 7, target=aim, sampling=Sampling(max_tokens=max_tokens, ignore_eos=True), cache="unique")
        self.paths = [directory / f"worker-{i}.records" for i in range(plan.workers)]
        assignments = [
            Assign(plan=plan, target=aim, key=None, worker=i, run_id=RUN_ID.hex(), workload=str(workload), records=str(path))
            for i, path in enumerate(self.paths)
        ]
        self.log = directory / "log.txt"
        with open(self.log, "ab") as log, Interrupts() as interrupts:
            self.fleet = Fleet(plan, assignments, log=log)
            self.crew = self.fleet.run(interrupts, beaten or (lambda crew: None), noted or (lambda text: None))
        self.plan = plan
        self.records = read_records(self.paths)

    @property
    def summary(self):
        return reduce(self.records, facts(self.plan))
