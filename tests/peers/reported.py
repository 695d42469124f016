"""What a client says of a run, and what the server did in it: TTFT and ITL at p50 and p99, milliseconds.

Knows where each client leaves its figures; knows no command and no process, and corrects nothing: a figure is the client's own, with
the client's own meaning of it. Only of the plain loops, which report nothing, are the quantiles made here, from the stamps they left.
Law: all requests of a run are in a figure, the burst at its start included, as they are in the server's.
"""

import json
from typing import NamedTuple

import msgspec
import numpy as np
from yardstick import kept

from loadgen.document import Document

PERCENTS = (50, 99)


class Reported(NamedTuple):
    """Milliseconds at each of PERCENTS."""

    ttft_ms: tuple
    itl_ms: tuple


def by_vllm(directory):
    """`--save-result` of either `vllm bench serve`. Both take a chunk that only names the role for the first token."""
    found = json.loads((directory / "result.json").read_text())
    return Reported(*(tuple(found[f"p{percent}_{metric}_ms"] for percent in PERCENTS) for metric in ("ttft", "itl")))


def by_loadgen(directory, ttft):
    """`run.json`, all of the run; ttft: `ttft` (from due) or `ttft_from_sent`."""
    [path] = directory.glob("*/run.json")
    [(summary, _)] = msgspec.json.decode(path.read_bytes(), type=Document).measured
    return Reported(
        *(
            tuple(1e3 * distribution.value(percent) for percent in PERCENTS)
            for distribution in (getattr(summary.whole, ttft), summary.whole.itl)
        )
    )


def by_stamps(directory):
    return Reported(*(tuple(np.percentile(values, PERCENTS) / 1e6) for values in kept(directory / "stamps")))


def by_server(stats):
    """`/stats` of the C server: from a request parsed to its first event, and between events, as they are handed to the socket."""
    return Reported(*(tuple(stats[name][f"p{percent}"] for percent in PERCENTS) for name in ("server_ttft_ms", "server_itl_ms")))
