"""`loadgen serve-bench`: what `vllm bench serve` does, by our engine.

Knows the order of things: flags, server, data, run, vLLM's block, our verdict, result file. Law: the exit status is the verdict's, as of any
other command; what is refused is refused before anything is sent to be measured.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from clients.secret import Secret
from loadgen import serve_bench_result as vllm
from loadgen.measurement import believed_status, interrupted_status, measure
from loadgen.progress import Silent, progress
from loadgen.readiness import wait_ready
from loadgen.recorded import read_records
from loadgen.report import write_verdict
from loadgen.rundir import run_key
from loadgen.serve_bench import ServeBench
from loadgen.serve_bench_order import read_asked, read_target

if TYPE_CHECKING:
    from pathlib import Path

    from loadgen.campaign import Listener
    from loadgen.command_line import Arguments
    from loadgen.document import Document
    from loadgen.recorded import Records
    from loadgen.serve_bench_result import Result

_NOT_VLLMS = (
    "TTFT is up to the first chunk with text in it: one that only names the role, or is empty, is no token (vLLM's client takes it for one), "
    "and the events of one read have one stamp"
)


def run(arguments: Arguments) -> int:
    """Measure, show and save. Returns the exit status."""
    target = read_target(arguments)
    if arguments["ready_check_timeout_sec"]:
        sys.stdout.write(f"Waiting for endpoint to become up in {arguments['ready_check_timeout_sec']} seconds\n")
        sys.stdout.flush()
        wait_ready(target.endpoint(Secret.from_env("OPENAI_API_KEY")), arguments["ready_check_timeout_sec"])
    asked = read_asked(arguments, target)
    now = time.time()
    path = vllm.result_path(arguments, arguments["model"] or asked.order.target.model, now)
    sys.stdout.write(vllm.heading(arguments, asked.traffic))
    sys.stdout.flush()
    with contextlib.ExitStack() as stack:
        listener: Listener = Silent() if arguments["disable_tqdm"] else stack.enter_context(progress(sys.stderr))
        document = measure(
            asked.order,
            largest=asked.traffic.slots,
            campaign_of=lambda load: ServeBench(load, asked.traffic),
            option="--max-concurrency",
            listener=listener,
        )
    directory = asked.order.results_dir / document.run.id
    records = _measured(document, directory)
    if records is not None:
        result = vllm.result_of(arguments, asked, records)
        if path is not None:
            vllm.save(path, vllm.document(arguments, asked, result, now), append=arguments["append_result"])
        _show(arguments, document, result, directory)
    return interrupted_status(document) or believed_status(document, fail_on_degraded=arguments["fail_on_degraded"])


def _measured(document: Document, directory: Path) -> Records | None:
    """The records of the plan that counts; None where a signal came before it."""
    for one in document.plans:
        if one.plan is not None and one.plan.purpose == "measure":
            paths = sorted((directory / "plans" / one.directory).glob("worker-*.records"))
            return read_records(paths, (run_key(document.run.id), one.plan.number))
    return None


def _show(arguments: Arguments, document: Document, result: Result, directory: Path) -> None:
    sys.stdout.writelines(f"Error: {error}\n" for error in result.errors)
    sys.stdout.write(vllm.block(arguments, result))
    write_verdict(document, sys.stdout)
    for line in (_NOT_VLLMS, *_remarks(document, result), f"the run is kept: `loadgen report {directory}`"):
        sys.stdout.write(f"  {line}\n")
    sys.stdout.flush()


def _remarks(document: Document, result: Result) -> list[str]:
    """What vLLM's block does not say."""
    said = list(document.run.notes)
    if result.without_output:
        said.append(
            f"{result.without_output} successful requests had no output: they are in no TTFT, and vLLM's client would count their end"
        )
    for summary, _ in document.measured:
        late = summary.whole.send_lag
        felt = summary.whole.latency
        if late is not None and felt is not None and late.value(99.0) > 0.01 * felt.value(99.0):
            said.append(
                f"requests waited in the client, {late.value(99.0) * 1e3:.2f} ms at p99: from due, p99 of the latency is {felt.value(99.0) * 1e3:.2f} ms"
            )
    return said
