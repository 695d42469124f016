"""In words: was the run steady, and who kept requests waiting.

Knows the evidence of a summary and how numbers are written; judges nothing and prints nothing. Law: what was not looked at says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.tables import rate, seconds, share

if TYPE_CHECKING:
    from loadgen.distribution import Distribution
    from loadgen.summary import Summary


def evidence_lines(summary: Summary) -> list[str]:
    """One line each: the steady window beside the whole, drifts, Little's law, lateness."""
    return [*_steady(summary), *_late(summary)]


def _steady(summary: Summary) -> list[str]:
    found = summary.steadiness
    if found is None:
        return []
    lines = []
    if found.warmup_s and summary.steady is not None:
        pairs = [("TTFT", summary.steady.ttft, summary.whole.ttft), ("latency", summary.steady.latency, summary.whole.latency)]
        both = "; ".join(f"{name} {_ends(steady)}, of all {_ends(whole)}" for name, steady, whole in pairs if steady and whole)
        lines.append(f"after a warm-up of {seconds(found.warmup_s)} (MSER-5): {both}")
    if found.absent and summary.steady is not None:  # else it is said why there is no such stretch
        lines.append(f"steadiness was not judged: {found.absent}")
    elif not found.absent and not found.drifts:
        lines.append(f"no drift in latency or TTFT that {found.effective} independent requests would show")
    if (little := found.little) is not None:
        lines.append(
            f"Little's law: {rate(little.in_flight)} in flight, {rate(little.ended_rps)}/s of {seconds(little.residence_s)} each: "
            f"{share(little.off)} apart"
        )
    return lines


def _late(summary: Summary) -> list[str]:
    found, held = summary.lateness, summary.held_back
    lines = []
    if found is not None:
        lines.append(
            f"sent {seconds(found.p50_s)} after a slot was free at p50, {seconds(found.p99_s)} at p99, {seconds(found.largest_s)} at most"
        )
    if held is not None and held.started_late:
        waited = "" if held.wait is None else f", {seconds(held.wait.median)} at p50, {seconds(held.wait.max)} at most"
        lines.append(
            f"{held.started_late} requests waited for one of {summary.max_concurrent} slots{waited}: the server was slower than the load, and latencies "
            "from due have it"
        )
    return lines


def _ends(distribution: Distribution) -> str:
    return f"p50 {seconds(distribution.median)} p99 {seconds(distribution.value(99))}"
