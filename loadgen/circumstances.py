"""What a run was, in words: which server, what was sent, by which client on which machine, and the account of it.

Knows documents; must not know terminals, nor a number that was measured of the server. Law: what was estimated, simulated, planned or
computed is named as that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadgen.distribution import percentile_key
from loadgen.tables import rate, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadgen.ceiling import KeptCeiling
    from loadgen.document import Document
    from loadgen.precision import Looks
    from loadgen.selftest import Ceiling
    from loadgen.summary import Accounting


def circumstances(document: Document, directory: Path | None = None) -> list[tuple[str, str]]:
    """Pairs of a label and its text, in the order of a report. directory: where the run's files are, if that is known."""
    run = document.run
    target = run.target
    machine = run.environment
    manner = "streamed" if target.stream else "not streamed"
    tokens = "; chunks tell their tokens" if target.continuous_usage else "; chunks do not tell their tokens" if target.stream else ""
    workers = max((one.plan.workers for one in document.plans if one.plan), default=0)
    facts = [
        ("run", f"{directory or run.id}{f' ({run.label})' if run.label else ''}, started {run.started}"),
        ("server", f"{target.base_url}, model {target.model} ({target.kind}), {target.dialect}, {manner}{tokens}"),
        ("sent", f"{_load(document)}: {run.workload}; {_sampling(run.sampling)}; cache {run.cache}"),
        (
            "client",
            f"{target.transport}, {'compiled' if run.environment.compiled else 'interpreted'}, reads stamped at {run.stamping or 'unknown'}; {counted(workers, 'worker process', 'es')}",
        ),
        ("ceiling", _ceiling(run.ceiling)),
        ("machine", f"loadgen {machine.loadgen}, {machine.python}, {machine.cores_usable} of {machine.cores} cores, {machine.cpu}"),
    ]
    if run.simulator is not None:
        facts.insert(2, ("simulated", f"the server is loadgen's {_simulated(run.simulator, [one.simulator for one in document.plans])}"))
    if machine.proxies:
        facts.append(("proxies", ", ".join(f"{name}={value}" for name, value in machine.proxies.items())))
    if target.retries:
        facts.append(("retries", f"up to {target.retries} after the first attempt"))
    facts += [("metadata", f"{key}={value}") for key, value in run.metadata.items()]
    facts += [("note", note) for note in run.notes]
    facts += [("plan", f"{one.directory}: {one.absent}") for one in document.plans if one.absent]
    facts += [("plan", f"{one.directory}: {note}") for one in document.plans if one.summary for note in one.summary.notes]
    facts += [("precision", _precision(one.precision)) for one in document.plans if one.precision is not None]
    if document.accounting is not None:
        warmed = any(one.plan is not None and one.plan.purpose == "warmup" and one.summary is not None for one in document.plans)
        facts.append(("account", _account(document.accounting) + (" (warm-up included)" if warmed else "")))
    return facts


def counted(number: int, noun: str, plural: str) -> str:
    """`1 reason`, `2 reasons`."""
    return f"{number} {noun}{'' if number == 1 else plural}"


def _simulated(settings: dict[str, Any], said: Sequence[dict[str, Any] | None]) -> str:
    """What its times are worth, and how far it kept them. said: its statistics of each plan."""
    stats = [one for one in said if one]
    if settings.get("metronome"):
        scale = settings["time_scale"]
        ttft, itl = seconds(scale * settings["metronome_ttft_ms"] / 1e3), seconds(scale * settings["metronome_itl_us"] / 1e6)
        late = seconds(max((one["lateness"]["p99_us"] for one in stats), default=0.0) / 1e6)
        together = ", at common ticks" if settings["metronome_lockstep"] else ""
        return (
            f"metronome: its timing is exact by plan (TTFT {ttft}, a token each {itl}{together}), and it wrote at most {late} late at p99"
        )
    timing = "calibrated" if settings.get("calibrated") else "uncalibrated: a written estimate, not a measured server"
    late_share = max((one["lateness_share_of_step"] or 0 for one in stats), default=0.0)
    return f"simulator; its timing is {timing}; at most {late_share:.1%} of a step late"


def _load(document: Document) -> str:
    plans = [one.plan for one in document.plans if one.plan is not None and one.plan.purpose == "measure"]
    if not plans:
        return "nothing"
    plan = plans[0]
    each = " per run of a setting" if document.run.command == "grid" else ""
    load = f"{plan.num_requests} requests{each}" if plan.num_requests else f"requests for {plan.duration_s:g} s{each}"
    if plan.schedule is not None or plan.levels:
        load += f", {plan.load}"
    if plan.lead_s or plan.tail_s:
        load += f"; the first {plan.lead_s:g} s and the last {plan.tail_s:g} s are left out, by due"
    return load + (f", {plan.delay_between_batches_s:g} s between batches" if plan.delay_between_batches_s else "")


def _precision(looks: Looks) -> str:
    """Whether a plan became as precise as it should, and what the last look saw."""
    asked = f"{percentile_key(looks.precision.percent)} of {looks.precision.metric} within {looks.precision.share:.3g}"
    last = looks.looks[-1] if looks.looks else None
    if last is None:
        return f"{asked} of it: not reached, there were too few samples for a look"
    width = "without an upper bound" if last.width is None else f"{last.width:.3g} wide"
    return f"{asked} of it: {'reached' if looks.reached else 'not reached'}; look {len(looks.looks)}, at {last.samples} samples: {width}"


def _sampling(sampling: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sampling.items()) or "the server's own sampling"


def _ceiling(kept: KeptCeiling | None) -> str:
    """What a self-test had found of this machine: one worker, and all, where that is not the same figure again."""
    if kept is None or not kept.one:
        return "not known: `loadgen selftest` measures it once, and runs that come near it are then called client-limited"
    together = [one for one in kept.all if one not in kept.one]
    said = "; ".join(_ceilings(ceilings) for ceilings in (kept.one, together) if ceilings)
    return f"{said}; by the self-test {kept.id}{' (quick)' if kept.quick else ''}"


def _ceilings(ceilings: Sequence[Ceiling]) -> str:
    workers = counted(ceilings[0].workers, "worker", "s")
    rates = [
        f"{'at least ' if one.lower_bound else ''}{rate(one.rate_rps)} {one.unit}/s{' (computed)' if one.how == 'computed' else ''}"
        for one in ceilings
    ]
    return f"{workers}: {', '.join(rates)}"


def _account(account: Accounting) -> str:
    terms = ("ok", "failed", "timed_out", "cancelled", "dropped", "unsent", "in_flight")
    shown = [f"{count} {term.replace('_', ' ')}" for term in terms if (count := getattr(account, term)) or term == "ok"]
    return f"{account.scheduled} scheduled = {' + '.join(shown)}{'' if account.closes else ': DOES NOT CLOSE'}"
