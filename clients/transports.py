"""The table of transports, by the name that options and records use, and which of them load is best sent with.

Knows the names; the modules behind them are imported on use, for `import clients` is light.
Law: what `auto` means is decided here and nowhere else.
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


def best_transport(endpoint: Endpoint) -> tuple[str, str]:
    """The transport that costs the least and measures the best for this endpoint, and why that is not `wire`, "" where it is.

    As the environment is now: a proxy that it names is aiohttp's to go through.
    """
    from clients.wire import wire_can

    why_not = wire_can(endpoint)
    return "aiohttp" if why_not else "wire", why_not
