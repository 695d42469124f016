"""Load for OpenAI-compatible model servers, and what it means.

    from loadgen import LLMClient, ModelBenchmark
    print(ModelBenchmark(LLMClient("http://localhost:8000/v1", model_name="gpt-oss-20b")).benchmark_llm(["Hello"] * 100))

Knows the names of what is public: its own, and all of `clients`, so that one import line serves. Invariant: importing this loads
none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import clients

if TYPE_CHECKING:
    from clients import *  # noqa: F403  # the same names, and their types, as in `clients`
    from loadgen.benchmark import ModelBenchmark
    from loadgen.results import BenchmarkResult, GridResults, InterruptedRun

_OWN = {"BenchmarkResult": "results", "GridResults": "results", "InterruptedRun": "results", "ModelBenchmark": "benchmark"}
__all__ = [*clients.__all__, "BenchmarkResult", "GridResults", "InterruptedRun", "ModelBenchmark"]  # noqa: PLE0604  # all are strings


def __getattr__(name: str) -> Any:
    if name in _OWN:
        value = getattr(import_module(f"{__name__}.{_OWN[name]}"), name)
    elif name in clients.__all__:
        value = getattr(clients, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
