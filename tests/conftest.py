"""Fixtures that more than one room's tests share. Being here also puts this directory on the path: `from servers.chaos import …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from servers.certificates import Certificate, self_signed
from servers.chaos import ChaosServer

from loadgen.environment import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).resolve().parents[1]


def pytest_report_header() -> str:
    return f"request path: {'compiled' if compiled() else 'interpreted'}"


def pytest_configure() -> None:
    """A compiled module is imported instead of its source: an older one would be tested unseen."""
    libraries = [path for room in ("clients", "loadgen") for path in (ROOT / room).glob("*.so")]
    stale = [path.name for path in libraries if path.stat().st_mtime < path.with_name(path.name.partition(".")[0] + ".py").stat().st_mtime]
    if stale:
        pytest.exit(f"older than their sources: {', '.join(stale)}; `make .venv/.installed` compiles them again", returncode=2)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a self-test of this machine once kept must not decide how many workers a test has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def chaos():
    """One chaos server for all tests: each names its own scripts."""
    with ChaosServer() as server:
        yield server


@pytest.fixture(scope="session")
def loopback_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """For 127.0.0.1, trusted by who takes its file as authority."""
    return self_signed(tmp_path_factory.mktemp("certificate"), "IP:127.0.0.1")
