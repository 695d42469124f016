"""Before any load: can the server be used, does it have the model, may this machine open what the plan needs.

Knows one question to `/v1/models` and one request of one token; must not know plans or workloads. Asks through the clients' own
transport, once, without retries: what fails here would fail a thousand times.
Law: nothing is sent to a server that will refuse it: `preflight` returns what was found out, or raises ServerUnusableError in one line.
"""

from __future__ import annotations

import asyncio
from time import perf_counter_ns
from typing import TYPE_CHECKING

import msgspec

from clients.catalogue import list_models
from clients.dialects import DIALECTS
from clients.endpoint import Timeouts
from clients.errors import LoadgenError, Outcome, RequestError, UsageError
from clients.exchange import Exchange, Request
from clients.transports import best_transport, open_transport
from loadgen.plan import LARGEST_CONCURRENCY
from loadgen.target import Target

if TYPE_CHECKING:
    from clients.endpoint import Endpoint
    from clients.messages import Sampling
    from clients.secret import Secret

# DESIGN.md: the preflight's connect timeout is 1 s. A server that listens but does not list its models in 5 s is busy or no model server.
_LISTING = Timeouts(connect_s=1.0, first_byte_s=5.0, stall_s=5.0, total_s=10.0)
# The probe waits its turn behind others' requests, and the first request to a cold server compiles kernels.
_PROBE = Timeouts(connect_s=1.0, first_byte_s=30.0, stall_s=30.0, total_s=60.0)
# Descriptors of a process that are no connection: its files, pipes, loop and libraries; faults E81.
_OWN_FILES = 64

# What the listing may answer on a server that serves the model all the same: the route is missing, forbidden by a proxy, or odd.
_NO_LISTING = (Outcome.NOT_FOUND, Outcome.MODEL_MISSING, Outcome.BAD_REQUEST, Outcome.BAD_CONTENT, Outcome.BAD_EVENT, Outcome.REDIRECTED)
_PROBE_PROMPT = "Say yes."


class ServerUnusableError(LoadgenError):
    """Exit status 5: unreachable, or it lets us not in, or it has not the model."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the preflight learnt. target: with its transport settled and continuous usage as the server takes it.

    stamping: where the transport stamps reads. notes: what a report should say.
    """

    target: Target
    stamping: str
    notes: list[str]


def preflight(target: Target, key: Secret | None, sampling: Sampling) -> Found:
    """Ask the server. Blocking; works inside a running event loop too. Raises ServerUnusableError, or UsageError for a bad target."""
    from clients.loop import private_loop

    return private_loop().run(lambda: _preflight(target, target.endpoint(key), sampling))


def most_connections() -> int:
    """How many connections workers may have, by this system's limit of open files, at most `LARGEST_CONCURRENCY`."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LARGEST_CONCURRENCY if hard == resource.RLIM_INFINITY else max(1, min(LARGEST_CONCURRENCY, hard - _OWN_FILES))


def allow_files(max_concurrent: int, option: str = "--max-concurrent") -> None:
    """Raise this process's soft limit of open files to what workers, which inherit it, may need for `max_concurrent` connections.

    Raises UsageError with the `ulimit -n` that is needed when the hard limit is lower.
    """
    import resource

    need = max_concurrent + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        raise UsageError(
            f"{option}: {max_concurrent} connections need {need} open files, this system allows {hard}: run `ulimit -n {need}`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


async def _preflight(target: Target, endpoint: Endpoint, sampling: Sampling) -> Found:
    notes: list[str] = []
    names = await _listed(endpoint, notes)
    transport = target.transport
    if transport == "auto":
        transport, why_not = best_transport(endpoint)
        if why_not:
            notes.append(f"{transport} sends, not wire: {why_not}")
    target = msgspec.structs.replace(target, transport=transport, listed=names is not None and target.model in names)
    exchange, stamping = await _probe(target, endpoint, sampling, continuous=target.stream)
    if target.stream and exchange.outcome is Outcome.BAD_REQUEST:  # a strict server refuses the option it does not know
        exchange, stamping = await _probe(target, endpoint, sampling, continuous=False)
    elif target.stream and exchange.ok:
        target = msgspec.structs.replace(target, continuous_usage=_tells_tokens(exchange))
    _judge(exchange, target, names, endpoint, notes)
    return Found(target=target, stamping=stamping, notes=notes)


async def _listed(endpoint: Endpoint, notes: list[str]) -> list[str] | None:
    """The served names; None where the server has no such list."""
    try:
        return await list_models(endpoint, _LISTING)
    except RequestError as error:
        _raise_if_unusable(error, endpoint)
        if error.outcome not in _NO_LISTING:
            raise ServerUnusableError(f"{endpoint.base_url}: does not say which models it has: {error}") from None
        notes.append(f"the server does not list its models ({error})")
        return None


async def _probe(target: Target, endpoint: Endpoint, sampling: Sampling, *, continuous: bool) -> tuple[Exchange, str]:
    """One request of one token, as the run will make them, and where the transport stamps."""
    dialect = DIALECTS[target.dialect]
    short = sampling.merged(max_tokens=1, n=None)
    body = dialect.encode(target.model, _PROBE_PROMPT, short, stream=target.stream, continuous_usage=continuous)
    request = Request(dialect, body, stream=target.stream, choices=dialect.choices(_PROBE_PROMPT, short))
    exchange = Exchange(request, perf_counter_ns(), keep=False)
    ended = asyncio.Event()
    transport = open_transport(target.transport, endpoint, _no_longer(_PROBE, target.timeouts))
    try:
        transport.start(request, exchange, lambda _: ended.set())
        await ended.wait()
        return exchange, transport.stamping
    finally:
        await transport.close()


def _no_longer(ours: Timeouts, users: Timeouts) -> Timeouts:
    """Of each two deadlines the shorter: the run would not wait longer."""
    pairs = {name: (getattr(ours, name), getattr(users, name)) for name in Timeouts.__struct_fields__}
    return Timeouts(**{name: min(limit for limit in pair if limit is not None) for name, pair in pairs.items()})


def _tells_tokens(exchange: Exchange) -> bool:
    """Whether chunks carried usage; an answer that ended before its first token leaves it unknown, which is no harm: it was accepted."""
    return exchange.answer.tokens_known or not exchange.answer.events


def _judge(exchange: Exchange, target: Target, names: list[str] | None, endpoint: Endpoint, notes: list[str]) -> None:
    """Raise for a probe that shows that nothing will be answered; note what is odd."""
    has = f"it has {', '.join(names)}" if names else "it does not say which it has"
    error = exchange.error
    if error is None:
        if names is not None and not target.listed:
            notes.append(f"the server does not list {target.model!r} ({has}) and answers to it all the same")
        return
    _raise_if_unusable(error, endpoint)
    # Gateways refuse a model they do not know with 400 (wire.md): not listed and refused is absent by either status.
    if error.outcome is Outcome.MODEL_MISSING or (error.outcome is Outcome.BAD_REQUEST and names and not target.listed):
        raise ServerUnusableError(f"{endpoint.base_url}: has no model {target.model!r}; {has} ({error})")
    if error.outcome is Outcome.NOT_FOUND and names is None:
        hint = "" if endpoint.base_url.endswith("/v1") else "; most base URLs end in /v1"
        raise ServerUnusableError(f"{endpoint.base_url}: has neither /models nor {exchange.request.dialect.path} ({error}){hint}")
    notes.append(f"a request of one token failed before the run ({error.outcome.label}): {error}")


def _raise_if_unusable(error: RequestError, endpoint: Endpoint) -> None:
    if error.outcome is Outcome.UNAUTHORIZED:
        key = (
            "the key was refused"
            if endpoint.api_key is not None
            else "it wants a key: set OPENAI_API_KEY or name a variable by --api-key-env"
        )
        raise ServerUnusableError(f"{endpoint.base_url}: {key} ({error})")
    if error.outcome.fault == "network" or error.outcome is Outcome.CONNECT_TIMEOUT:
        raise ServerUnusableError(f"{endpoint.base_url}: cannot be reached ({error})")
