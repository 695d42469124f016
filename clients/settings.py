"""What a client is told: where, as whom, which model, how patiently, and what to say beside the prompt.

Knows values; opens nothing. A client pickles as this, and a benchmark reads from it whom to load.
Invariant: settings that exist can be used, and their repr shows no key.
"""

from __future__ import annotations

import difflib
import inspect
import os
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from clients.endpoint import Endpoint, Timeouts
from clients.errors import UsageError
from clients.messages import Sampling, SamplingOptions
from clients.retry import RetryPolicy
from clients.secret import Secret
from clients.transports import checked_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# vLLM's own default address, and that of the shipped profiles.
DEFAULT_BASE_URL = "http://localhost:8000/v1"
BASE_URL_ENV = "LOADGEN_BASE_URL"
API_KEY_ENV = "OPENAI_API_KEY"

EndpointName = Literal["chat", "completions"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All of a client but its connections. model_name None: the server's only one. batch_size None: no barriers.

    Raises UsageError for a value of another type.
    """

    endpoint: Endpoint
    model_name: str | None
    timeouts: Timeouts
    retry: RetryPolicy
    transport: str
    dialect: EndpointName
    streaming: bool
    sampling: Sampling
    max_concurrent: int
    batch_size: int | None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.model_name is not None and (not isinstance(self.model_name, str) or not self.model_name.strip()):
            raise UsageError(f"model_name: got {self.model_name!r}, takes the name of a model, or None for the server's only one")
        checked_transport(self.transport)
        for name, kind, takes in _TAKES:
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise UsageError(f"{name}: got {value!r}, takes {takes}")


_TAKES = (
    ("timeouts", Timeouts, "Timeouts, such as Timeouts(total_s=60.0)"),
    ("retry", RetryPolicy, "a RetryPolicy, such as RetryPolicy(max_retries=0)"),
    ("streaming", bool, "True or False"),
)


class ClientOptions(SamplingOptions, total=False):
    """What a client's constructor takes by keyword, for those of its kinds that pass it on; a test holds the two equal."""

    timeouts: Timeouts
    retry: RetryPolicy
    transport: str
    headers: Mapping[str, str] | None
    insecure: bool
    ca_file: str | os.PathLike[str] | None
    endpoint: EndpointName
    streaming: bool
    max_concurrent: int | None
    batch_size: int | None


def resolve_endpoint(
    base_url: str | None,
    api_key: str | Secret | None,
    *,
    headers: Mapping[str, str] | None,
    insecure: bool,
    ca_file: str | os.PathLike[str] | None,
) -> Endpoint:
    """The endpoint of what was given; else of LOADGEN_BASE_URL and OPENAI_API_KEY; else localhost, without a key."""
    return Endpoint.parse(
        base_url if base_url is not None else os.environ.get(BASE_URL_ENV) or DEFAULT_BASE_URL,
        api_key=api_key if api_key is not None else Secret.from_env(API_KEY_ENV),
        headers=headers,
        insecure=insecure,
        ca_file=ca_file,
    )


def own_names(*of: Callable[..., Any]) -> list[str]:
    """The parameters that functions name in their signatures."""
    return [p.name for function in of for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]


def merged_sampling(sampling: Sampling, overrides: Mapping[str, Any], *of: Callable[..., Any]) -> Sampling:
    """`sampling` with the overrides, which were given to the function(s) `of` beside their own parameters.

    Raises UsageError for a name that is neither one of those nor a sampling parameter, with the nearest of both kinds.
    """
    for name in overrides:
        if name not in Sampling.__struct_fields__:
            nearest = difflib.get_close_matches(name, [*own_names(*of), *Sampling.__struct_fields__], n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else "what has no name here goes into extra_body"
            raise UsageError(f"{name}: not an option of {of[0].__qualname__.removesuffix('.__init__')}; {hint}")
    return sampling.merged(**overrides) if overrides else sampling
