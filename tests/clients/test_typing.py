"""The public API as type checkers and editors see it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

from clients import LLMClient
from clients.messages import Sampling, SamplingOptions
from clients.settings import ClientOptions

API = Path(__file__).with_name("typing_of_the_api.py")


def test_mypy_knows_the_public_api() -> None:
    """Types come out as documented, and a misspelt or mistyped parameter is underlined: each ignore there is needed."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(API)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110, cwd=API.parents[2])
    assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 0)


def test_the_keywords_are_the_fields_of_sampling() -> None:
    """Same names, same types: what an editor offers is what is taken."""
    assert get_type_hints(SamplingOptions) == get_type_hints(Sampling)


def test_the_keywords_of_a_client_are_its_constructors() -> None:
    """Those that are keyword-only, and the sampling parameters."""
    own = {name: p.annotation for name, p in inspect.signature(LLMClient).parameters.items() if p.kind is p.KEYWORD_ONLY}
    named = {name: kind.__forward_arg__ for name, kind in ClientOptions.__annotations__.items()}
    assert {name: kind for name, kind in named.items() if name not in Sampling.__struct_fields__} == own
