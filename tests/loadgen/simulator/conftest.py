"""The two simulators that tests share which change nothing in them."""

from collections.abc import Iterator

import pytest

from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings


@pytest.fixture(scope="session")
def llm() -> Iterator[Simulator]:
    """A quick text model, shared by tests that change nothing in it."""
    with Simulator(load_settings("gpt-oss-20b", time_scale=0.05, model_name="tiny", max_model_len=2048)) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def vlm() -> Iterator[Simulator]:
    """A quick vision model."""
    with Simulator(load_settings("olmocr", time_scale=0.02)) as simulator:
        yield simulator
