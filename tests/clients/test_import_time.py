"""`import clients` is light, and its names are where it says."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("aiohttp", "PIL", "ruamel", "numpy", "rich", "uvloop", "scipy")

# DESIGN: under 0.15 s. CPU time, the least of several: another process on the machine must not fail this.
IMPORT_BUDGET_S = 0.15


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import clients",
        "from clients import LLMClient, VLMClient, Message, ModelRegistry; LLMClient(model_name='m'); ModelRegistry().list()",
        "from clients import *",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(code) -> None:
    """Not by the import, nor by making a client or reading the shipped profiles."""
    assert python(f"import sys\n{code}\nprint([m for m in {HEAVY} if m in sys.modules])") == "[]"


def test_the_import_is_within_its_budget() -> None:
    """CPU time of `import clients`, in the best of three interpreters."""
    code = "import time; a = time.process_time(); import clients; print(time.process_time() - a)"
    assert min(float(python(code)) for _ in range(3)) < IMPORT_BUDGET_S


def test_every_public_name_is_there() -> None:
    """The table has no name that its module lacks, and dir() shows them."""
    import clients

    for name in clients.__all__:
        assert getattr(clients, name).__name__ == name
        assert name in dir(clients)
    with pytest.raises(AttributeError, match="no attribute 'LLMClint'"):
        getattr(clients, "LLMClint")  # noqa: B009 - a misspelt import is what is tested
