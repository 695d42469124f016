"""Clients of OpenAI-compatible LLM and VLM servers.

    from clients import LLMClient, Message
    with LLMClient("http://localhost:8000/v1", model_name="gpt-oss-20b") as client:
        print(client.generate([Message(role="user", content="Hello")]))

Knows the names of what is public and where each lives. Invariant: importing this loads none of it; each name is loaded when it is
first used, and aiohttp, Pillow, YAML and rich when something needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients.client import LLMClient
    from clients.completion import Choice, Completion, Timing
    from clients.endpoint import Timeouts
    from clients.errors import (
        AuthenticationError,
        BadRequestError,
        DeadlineError,
        LoadgenError,
        ModelMissingError,
        NetworkError,
        OurError,
        Outcome,
        OverloadedError,
        ProtocolError,
        RateLimitError,
        RequestError,
        ServerError,
        UsageError,
    )
    from clients.messages import Message, Sampling
    from clients.pieces import Piece, ToolCall
    from clients.registry import ModelProfile, ModelRegistry
    from clients.retry import RetryPolicy
    from clients.secret import Secret
    from clients.stream import AsyncStream, Stream
    from clients.usage import Usage
    from clients.vlm import VLMClient

__all__ = [
    "AsyncStream",
    "AuthenticationError",
    "BadRequestError",
    "Choice",
    "Completion",
    "DeadlineError",
    "LLMClient",
    "LoadgenError",
    "Message",
    "ModelMissingError",
    "ModelProfile",
    "ModelRegistry",
    "NetworkError",
    "OurError",
    "Outcome",
    "OverloadedError",
    "Piece",
    "ProtocolError",
    "RateLimitError",
    "RequestError",
    "RetryPolicy",
    "Sampling",
    "Secret",
    "ServerError",
    "Stream",
    "Timeouts",
    "Timing",
    "ToolCall",
    "Usage",
    "UsageError",
    "VLMClient",
]

# Where each name lives; those that are not here are of the error tree.
_HOME = {
    "AsyncStream": "stream",
    "Choice": "completion",
    "Completion": "completion",
    "LLMClient": "client",
    "Message": "messages",
    "ModelProfile": "registry",
    "ModelRegistry": "registry",
    "Piece": "pieces",
    "RetryPolicy": "retry",
    "Sampling": "messages",
    "Secret": "secret",
    "Stream": "stream",
    "Timeouts": "endpoint",
    "Timing": "completion",
    "ToolCall": "pieces",
    "Usage": "usage",
    "VLMClient": "vlm",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
