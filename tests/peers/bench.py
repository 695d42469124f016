"""`loadgen bench`, or `run`, as the measurements here call it: one run against the C server, with its document, its records and its beats.

Knows the words of that command and the files that it leaves; knows no bound and compares nothing.
Law: what is here was written by the run itself, or by the kernel of it; a run that did not come to its end in order ends the measurement.
"""

import shlex
import tempfile
from pathlib import Path
from typing import NamedTuple

import msgspec
import rig

from loadgen.document import Document
from loadgen.pipe import Beat
from loadgen.recorded import Records, read_records
from loadgen.summary import Summary, Verdict

# The preflight asks once for one token (`loadgen/preflight.py`); the server counts that as it counts any request.
PROBE_REQUESTS = PROBE_EVENTS = 1

# Exit statuses of a run that came to its end and whose own verdict is invalid, or not: what is measured here has bounds of its own.
ENDED = (0, 3)

_WORDS = "{command} --json --transport wire --model-type llm --model-name m --base-url {url}/v1 --input-len 16 --num-warmups 0 --results-dir {results} "
_decode_beat = msgspec.msgpack.Decoder(Beat).decode


class Run(NamedTuple):
    """One run. beats: of each worker, in order, the last one of its end. meanwhile: what was done while it ran."""

    cost: rig.Cost
    summary: Summary
    verdict: Verdict
    records: Records
    beats: list[list[Beat]]
    meanwhile: object

    @property
    def judged(self):
        """Its own verdict in a word, and why."""
        names = ", ".join(reason.name for reason in self.verdict.reasons)
        return f"{self.verdict.level} ({names})" if names else self.verdict.level

    @property
    def failed(self):
        """How many requests failed, and as what; "" where none did."""
        return "; ".join(f"{one.count} {label}: {one.example}" for label, one in self.summary.failures.items())


def bench(server, options, meanwhile=None, *, command="bench", statuses=(0,)):
    """Run it with these options; returns a Run. meanwhile: called once the command was started, with the server.

    statuses: the exit statuses that are taken.
    """
    with tempfile.TemporaryDirectory(prefix="bench-", dir=rig.WORK) as place:
        results = Path(place)
        words = shlex.split(_WORDS.format(command=command, url=server.url, results=results) + options)
        with open(results / "run.json", "wb") as out, open(results / "log.txt", "wb") as log:
            process = rig.start([rig.LOADGEN, *words], out, log)
            try:
                found = meanwhile(server) if meanwhile else None
            finally:
                cost = rig.cost(process)
        if cost.status not in statuses:
            raise SystemExit(f"loadgen {command} ended with {cost.status}:\n{(results / 'log.txt').read_text()}")
        document = msgspec.json.decode((results / "run.json").read_bytes(), type=Document)
        # The files stay readable when the directory is gone: they are mapped.
        records = read_records(sorted(results.glob("*/plans/*/worker-*.records")))
    [(summary, verdict)] = document.measured
    beats = [[_decode_beat(one.payload) for one in records.snapshots if one.worker == worker] for worker in range(len(records.files))]
    return Run(cost, summary, verdict, records, beats, found)
