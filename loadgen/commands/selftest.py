"""`loadgen selftest`: what this machine can drive, and how far what it reports is from the truth.

Knows options, the run's directory and what is written there. Law: results are kept whatever ended the test, if anything was measured.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from loadgen import ceiling
from loadgen.environment import environment
from loadgen.examination import Examination
from loadgen.fleet import Interrupts
from loadgen.picture import draw
from loadgen.preflight import allow_files
from loadgen.rundir import RunDirectory, check_results
from loadgen.selftest import FULL, ITL_S, QUICK, Rung
from loadgen.selftest_report import described, write_selftest
from loadgen.testbed import Testbed, metronomes_transport, usable

if TYPE_CHECKING:
    from loadgen.command_line import Arguments

_INTERRUPTED = 128


def run(arguments: Arguments) -> int:
    """Measure, keep, show. Returns 0, or 128 and the signal's number when one ended it early."""
    results = Path(arguments["results_dir"])
    check_results(results)
    programme = QUICK if arguments["quick"] else FULL
    cores = usable()
    workers = arguments["processes"] or (len(cores) // 2 if len(cores) > 3 else len(cores))
    most = max(streams for ladder in programme.ladders.values() for streams in ladder)
    allow_files(most * (workers if len(cores) >= 2 * workers else 1), "selftest")
    transport = metronomes_transport() if arguments["transport"] == "auto" else arguments["transport"]
    facts = environment()
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with RunDirectory.create(results, "selftest", transport) as directory, Interrupts() as interrupts:
        directory.open_log([])
        examination = Examination(Testbed(directory, transport, interrupts), programme, cores=cores, workers=workers, told=_say)
        examination.run()
        if not examination.curves:
            return _INTERRUPTED + (interrupts.signal or 0)
        found = examination.document(
            run_id=directory.id,
            started=started,
            quick=arguments["quick"],
            transport=transport,
            environment=facts,
            load=_load(arguments),
        )
        encoded = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
        directory.write("selftest.json", encoded)
        directory.write("selftest.png", draw(found.curves, f"loadgen {facts.loadgen}, {transport}, {facts.cpu}: reported minus true"))
        if interrupts.signal is None:
            ceiling.keep(found)
        if arguments["json"]:
            sys.stdout.write(encoded.decode())
        write_selftest(found, sys.stderr if arguments["json"] else sys.stdout, directory.path)
        return _INTERRUPTED + interrupts.signal if interrupts.signal else 0


def _load(arguments: Arguments) -> tuple[int, float] | None:
    """The load that is asked about: streams and token events/s; where one is missing, at the metronome's own pace."""
    streams, events_rps = arguments["streams"], arguments["events_per_second"]
    if streams is None and events_rps is None:
        return None
    if streams is None:
        streams = max(1, round(events_rps * ITL_S))
    return streams, events_rps if events_rps is not None else streams / ITL_S


def _say(rung: Rung) -> None:
    sys.stderr.write(described(rung) + "\n")
    sys.stderr.flush()
