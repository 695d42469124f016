"""Fixtures of the clients' tests."""

from __future__ import annotations

import pytest
from carriers import CARRIERS, Carrier


@pytest.fixture(params=CARRIERS, ids=lambda carrier: "-".join(carrier))
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Carrier:
    """Each transport under test in turn."""
    request.param.prepare(monkeypatch)
    return request.param
