"""Whom a run talks to: endpoint, model, and how requests to it are made.

Knows what a worker must be told to reach the server; knows nothing of load. The key is no part of it: a target is written
to disk, and a key travels to a worker on its pipe alone.
Invariant: two workers given the same target and key send the same bytes to the same place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from clients.endpoint import Endpoint, Timeouts

if TYPE_CHECKING:
    from clients.secret import Secret


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where requests go and in which manner.

    model: the served name that bodies carry. dialect: a name of `clients.dialects.DIALECTS`. retries: attempts after the
    first; 0 when measuring. listed, continuous_usage: the preflight's finding: /v1/models names the model; the server tells tokens
    in every chunk.
    """

    base_url: str
    model: str
    kind: Literal["llm", "vlm"] = "llm"
    dialect: str = "chat"
    stream: bool = True
    continuous_usage: bool = False
    listed: bool = False
    headers: dict[str, str] = {}
    ca_file: str | None = None
    insecure: bool = False
    transport: str = "aiohttp"
    timeouts: Timeouts = Timeouts()
    retries: int = 0
    profile: str | None = None

    def endpoint(self, key: Secret | None) -> Endpoint:
        """The endpoint with its key put back."""
        return Endpoint.parse(self.base_url, api_key=key, headers=self.headers, ca_file=self.ca_file, insecure=self.insecure)
