"""Waiting for a server that is still starting.

Knows one question, `/v1/models`, and reads the clock; whether the server can be used is `preflight.py`'s to find out. Law: it returns when the
server answers anything but that it is not there yet, and raises when the time is over.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from clients.catalogue import list_models
from clients.errors import Outcome, RequestError
from clients.loop import private_loop
from loadgen.preflight import ServerUnusableError

if TYPE_CHECKING:
    from clients.endpoint import Endpoint

_EVERY_S = 1.0  # a model takes minutes to load; a second more is not noticed


def wait_ready(endpoint: Endpoint, timeout_s: float) -> None:
    """Return when the server answers. Raises ServerUnusableError after timeout_s."""
    deadline_s = time.monotonic() + timeout_s
    while (error := _not_yet(endpoint)) is not None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise ServerUnusableError(f"{endpoint.base_url}: not ready after {timeout_s:g} s: {error}")
        time.sleep(min(_EVERY_S, left_s))


def _not_yet(endpoint: Endpoint) -> RequestError | None:
    """Why the server is not there, None when it is: a refusal is an answer, but a gateway before a server that starts gives a 5xx."""
    try:
        private_loop().run(partial(list_models, endpoint))
    except RequestError as error:
        away = error.outcome.fault in ("network", "deadline") or error.outcome in (Outcome.SERVER_FAILED, Outcome.OVERLOADED)
        return error if away else None
    return None
