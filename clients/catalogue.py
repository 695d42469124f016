"""What models a server has: GET /v1/models, and the name that requests to it carry.

Knows one route, asked through a transport like any other, so that failures have the same names. Knows nothing of completions or
of load. aiohttp is imported at the first question.
Invariant: a question gives names or raises: a RequestError for what the server or the network did, UsageError for a choice that is
the caller's.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from clients.endpoint import Endpoint, Timeouts
from clients.errors import Outcome, RequestError, UsageError, request_error
from clients.exchange import Exchange, Request
from clients.refusals import UNDECODABLE, bad_body

if TYPE_CHECKING:
    from clients.answer import Answer
    from clients.messages import Sampling

# A server on a local network accepts in milliseconds, and one that takes a second to is not there (DESIGN: preflight).
LISTING = Timeouts(connect_s=1.0, first_byte_s=10.0, stall_s=10.0, total_s=10.0)


class _Model(msgspec.Struct):
    id: str


class _Listing(msgspec.Struct):
    data: list[_Model]


_decode_listing = msgspec.json.Decoder(_Listing).decode


class _Models:
    """`/models` in the manner of a dialect; one for each question, since it keeps the names."""

    name = "models"
    path = "/models"

    def __init__(self) -> None:
        self.names: list[str] = []

    def encode(self, model: str, prompt: Any, sampling: Sampling, *, stream: bool, continuous_usage: bool = False) -> bytes:  # noqa: ARG002 - the protocol's
        return b""

    def choices(self, prompt: Any, sampling: Sampling) -> int:  # noqa: ARG002 - the protocol's
        return 0

    def decode_event(self, data: bytes, now_ns: int, answer: Answer) -> None:  # noqa: ARG002 - the protocol's
        answer.error = request_error(Outcome.BAD_CONTENT, "the server streamed events where its models were asked for")

    def decode_body(self, data: bytes, now_ns: int, answer: Answer) -> None:  # noqa: ARG002 - the protocol's
        try:
            self.names = [model.id for model in _decode_listing(data).data]
        except UNDECODABLE as fault:
            answer.error = bad_body(data, fault)


async def list_models(endpoint: Endpoint, timeouts: Timeouts = LISTING) -> list[str]:
    """The names of the models that the server lists, in its order. Asked once, never again; raises the RequestError."""
    from clients.transports import open_transport

    models = _Models()
    exchange = Exchange(Request(models, b"", stream=False, choices=0, method="GET"), time.perf_counter_ns())
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    transport = open_transport("aiohttp", endpoint, timeouts)
    try:
        transport.start(exchange.request, exchange, partial(_end, ended))
        await ended
    finally:
        await transport.close()
    if exchange.error is not None:
        raise exchange.error
    return models.names


def _end(ended: asyncio.Future[None], _: Exchange) -> None:
    if not ended.done():  # it is when the caller cancelled
        ended.set_result(None)


class ServedModel:
    """The model that requests name: the one given, or else the only one that the server has, asked for once."""

    def __init__(self, endpoint: Endpoint, name: str | None) -> None:
        self._endpoint = endpoint
        self._name = name

    def __repr__(self) -> str:
        return f"<ServedModel {self._name or '?'}>"

    async def name(self) -> str:
        """The name. Raises UsageError where none was given and the server has not exactly one; the listing's RequestError."""
        if self._name is None:
            names = await list_models(self._endpoint)
            if len(names) != 1:
                raise UsageError(f"model_name: got none, takes one of the server's: {', '.join(names) or 'it lists none'}")
            self._name = names[0]
        return self._name

    async def listed(self) -> bool:
        """Whether the server lists the model; False also where it cannot be asked."""
        try:
            return self._name in await list_models(self._endpoint)
        except RequestError:
            return False
