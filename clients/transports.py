"""The table of transports, by the name that options and records use.

Knows the names; the modules behind them are imported on use, for `import clients` is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clients.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clients.endpoint import Endpoint, Timeouts
    from clients.transport import Transport


def _aiohttp(endpoint: Endpoint, timeouts: Timeouts) -> Transport:
    from clients.aiohttp_transport import AiohttpTransport

    return AiohttpTransport(endpoint, timeouts)


def _wire(endpoint: Endpoint, timeouts: Timeouts) -> Transport:
    from clients.wire import WireTransport

    return WireTransport(endpoint, timeouts)


TRANSPORTS: dict[str, Callable[[Endpoint, Timeouts], Transport]] = {"aiohttp": _aiohttp, "wire": _wire}


def open_transport(name: str, endpoint: Endpoint, timeouts: Timeouts) -> Transport:
    """A transport for one endpoint, on the running event loop. Raises UsageError for a name that is not in TRANSPORTS."""
    return TRANSPORTS[checked_transport(name)](endpoint, timeouts)


def checked_transport(name: str) -> str:
    """The name itself, if it is one of TRANSPORTS."""
    if name not in TRANSPORTS:
        raise UsageError(f"transport: got {name!r}, takes {' or '.join(sorted(TRANSPORTS))}")
    return name
