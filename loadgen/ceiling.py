"""What the last self-test found on this machine, kept for the runs that come after.

Knows one small file per machine, version and transport in the user's cache directory. Must not know how a ceiling is found
(`selftest.py`). Law: what is recalled was measured by this version of the instrument on such a machine, with this transport; a file that
is missing, damaged or of another kind is no ceiling, and never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import msgspec

from loadgen.environment import Environment, environment
from loadgen.rundir import write_whole
from loadgen.selftest import Ceiling, Reach, SelfTest


class KeptCeiling(msgspec.Struct, frozen=True, kw_only=True):
    """A self-test in short. id: of its run. machine: what must be the same for it to hold."""

    id: str
    started: str
    quick: bool
    machine: tuple[str, ...]
    one: list[Ceiling]
    all: list[Ceiling]
    reaches: list[Reach]

    @property
    def streams_per_worker(self) -> int | None:
        """Streams that one worker reports within bounds however they are timed; None where no load was."""
        return min((one.streams for one in self.reaches), default=None) if len(self.reaches) > 1 else None

    def of(self, workers: int) -> list[Ceiling]:
        """The ceilings that were measured of exactly so many workers, one a unit; none was where they could only be computed."""
        return [one for one in (self.one if workers == 1 else self.all) if one.workers == workers and one.how == "measured"]


def keep(found: SelfTest) -> Path | None:
    """Write it for later runs; returns where. None when nothing can be written, or when a full self-test is there and this was a quick one."""
    machine = _machine(found.environment, found.transport)
    path = _path(machine)
    before = _read(path)
    if found.quick and before is not None and before.machine == machine and not before.quick:
        return None
    kept = KeptCeiling(
        id=found.id, started=found.started, quick=found.quick, machine=machine, one=found.one, all=found.all, reaches=found.reaches
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(kept), mode=0o600)
    except OSError:  # a cache that cannot be had is none
        return None
    return path


def recall(transport: str) -> KeptCeiling | None:
    """The ceiling of this machine, version and transport; None where no self-test told it."""
    machine = _machine(environment(), transport)
    kept = _read(_path(machine))
    return kept if kept is not None and kept.machine == machine else None


def _machine(facts: Environment, transport: str) -> tuple[str, ...]:
    path = "compiled" if facts.compiled else "interpreted"
    return (facts.loadgen, facts.python, path, facts.platform, facts.cpu, f"{facts.cores_usable} of {facts.cores} cores", transport)


def _path(machine: tuple[str, ...]) -> Path:
    place = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(place) if place.startswith("/") else Path.home() / ".cache"  # the specification: a relative one is to be ignored
    return root / "loadgen" / f"ceiling-{hashlib.blake2b(repr(machine).encode(), digest_size=8).hexdigest()}.json"


def _read(path: Path) -> KeptCeiling | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=KeptCeiling)
    return None
