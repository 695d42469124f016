"""The machine and the software that a run was made with, as facts beside its numbers.

Knows how to ask the system; must not know what a fact means for a verdict. Law: no fact holds a credential (proxies are shown
without theirs), and a fact that this system does not tell is None or left out, never guessed.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from importlib import metadata, util
from pathlib import Path

import msgspec

# What the numbers depend on: a difference between two runs may be one of these.
_LIBRARIES = ("aiohttp", "httptools", "msgspec", "numpy", "orjson", "pillow", "rich", "scipy", "uvloop")
_PROXY_NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """load_average: of one minute, at the start. cores_usable: this process may run on; clock: what stamps are read from.

    file_limit: soft and hard limit of open files. container: a file of this system says that it runs in one. compiled: the path of a
    request is (hatch_build.py); interpreted, it costs about twice as much.
    """

    loadgen: str
    python: str
    platform: str
    cpu: str
    cores: int
    cores_usable: int
    memory_bytes: int | None
    load_average: float | None
    clock: str
    file_limit: tuple[int, int] | None
    libraries: dict[str, str]
    proxies: dict[str, str]
    container: bool
    compiled: bool = False  # runs of before it could be


def environment() -> Environment:
    """The facts, now."""
    clock = time.get_clock_info("perf_counter")
    return Environment(
        loadgen=version("loadgen") or "unknown",
        python=f"{platform.python_implementation()} {sys.version.split()[0]}",
        platform=platform.platform(),
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        cores_usable=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        clock=f"{clock.implementation}, resolution {clock.resolution:g} s",
        file_limit=_file_limit(),
        libraries={name: found for name in _LIBRARIES if (found := version(name))},
        proxies=proxies(),
        container=Path("/.dockerenv").exists() or Path("/run/.containerenv").exists(),
        compiled=compiled(),
    )


def compiled() -> bool:
    """Whether this installation compiled the path of a request; all of its modules are or none."""
    found = util.find_spec("clients.wire_connection")
    return found is not None and found.origin is not None and not found.origin.endswith(".py")


def version(distribution: str) -> str | None:
    """The installed version of a distribution; None when it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def proxies() -> dict[str, str]:
    """The proxies that the environment names, without credentials: requests may go through them."""
    found = {}
    for name in _PROXY_NAMES:
        value = os.environ.get(name) or os.environ.get(name.upper())
        if value:
            found[name] = re.sub(r"//[^/@]*@", "//***@", value)
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # a system without these names
        return None


def _file_limit() -> tuple[int, int] | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft, hard
