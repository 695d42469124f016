"""Where the time of requests went: what we waited, divided by what the server says it did meanwhile.

Knows our stamps and the server's sums; knows no page and no words. Pure. Law: shares are said only where the server timed as many requests as
we did, each of its phases, and no longer than the time that passed here; else `absent` says which numbers disagree.

Of the sums over the same requests (vLLM's meanings): held = sent - due; queue, prefill and decode as the server's scheduler saw them; front_end
= the server's own total less these (tokenizing, images, hand-overs between its processes); outside = ours from sent, less the server's
total (network, and our reading). A first token that carries no text is one to the server and none to us: its wait is then `outside`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from clients.errors import Outcome
from loadgen import records as fmt

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from loadgen.server_side import ServerTimes

Phase = Literal["held", "queue", "prefill", "decode", "front_end", "outside"]
Whole = Literal["ttft", "latency"]
# The phases that the server times, of each total.
_PHASES: dict[Whole, tuple[Literal["queue", "prefill", "decode"], ...]] = {
    "ttft": ("queue", "prefill"),
    "latency": ("queue", "prefill", "decode"),
}
# Its clocks are others than ours, and some of its stamps are the wall clock's, which is slewed: two sums that should be nested may be off by this much.
_TOLERANCE = 0.01


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One phase: its mean over the requests, and its share of the whole. Slightly below 0 where the clocks differ."""

    phase: Phase
    mean_s: float
    share: float


class Breakdown(msgspec.Struct, frozen=True, kw_only=True):
    """A total from due and its parts, largest first; parts add up to the whole. parts: [] for the reason in `absent`."""

    requests: int
    mean_s: float | None = None
    parts: list[Part] = []
    absent: str = ""

    def share(self, phase: Phase) -> float | None:
        return next((part.share for part in self.parts if part.phase == phase), None)


class Waited(NamedTuple):
    """What we saw of `requests`: the sums of due to sent, and of sent to what was waited for (first output, end)."""

    requests: int
    held_s: float
    from_sent_s: float


def waited(heads: NDArray[np.void], whole: Whole) -> Waited:
    """Over the successful requests of a plan, all of them: the server counts lead and tail, too. heads: final frames."""
    rows = heads["outcome"] == Outcome.OK
    if whole == "ttft":
        rows = rows & (heads["flags"] & fmt.STREAMED > 0) & (heads["first_output_ns"] > 0)
    until = heads["first_output_ns" if whole == "ttft" else "end_ns"][rows]
    due, sent = heads["due_ns"][rows], heads["sent_ns"][rows]
    return Waited(int(rows.sum()), float((sent - due).sum()) / 1e9, float((until - sent).sum()) / 1e9)


def break_down(whole: Whole, times: Mapping[str, ServerTimes], ours: Waited) -> Breakdown | None:
    """None where there is nothing to divide: we or the server timed nothing of the kind."""
    names = (*_PHASES[whole], whole)
    timed = {name: times[name] for name in names if name in times}
    if not ours.requests or not any(one.count for one in timed.values()):
        return None
    if missing := [name for name in names if name not in timed]:
        return Breakdown(requests=ours.requests, absent=f"the server does not time {' and '.join(missing)}")
    if any(one.count != ours.requests for one in timed.values()):
        said = ", ".join(f"{name} of {one.count}" for name, one in timed.items())
        return Breakdown(requests=ours.requests, absent=f"the server timed {said} requests, we timed {ours.requests}: not the same ones")
    total_s = ours.held_s + ours.from_sent_s  # above 0: something was timed
    theirs_s = timed[whole].sum_s
    phases: dict[Phase, float] = {name: timed[name].sum_s for name in _PHASES[whole]}
    for inner, outer, text in ((sum(phases.values()), theirs_s, "its own total"), (theirs_s, ours.from_sent_s, "what passed here")):
        if inner - outer > _TOLERANCE * total_s:
            said = f"the server's times sum to {inner:.4g} s, {text} to {outer:.4g} s: they cannot be of the same requests"
            return Breakdown(requests=ours.requests, absent=said)
    phases |= {"held": ours.held_s, "front_end": theirs_s - sum(phases.values()), "outside": ours.from_sent_s - theirs_s}
    parts = [Part(phase=name, mean_s=sum_s / ours.requests, share=sum_s / total_s) for name, sum_s in phases.items()]
    parts.sort(key=lambda part: -part.share)
    return Breakdown(requests=ours.requests, mean_s=total_s / ours.requests, parts=parts)
