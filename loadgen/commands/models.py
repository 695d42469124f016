"""`loadgen models`: what the registry knows.

Knows how profiles are listed; where they come from is `clients/registry.py`'s. Law: no key is shown.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from clients.registry import ModelProfile, ModelRegistry

if TYPE_CHECKING:
    from loadgen.command_line import Arguments


def run(arguments: Arguments) -> int:
    """Print the models. Returns 0."""
    profiles = ModelRegistry(arguments["models_file"]).list()
    if arguments["json"]:
        listed = [{key: value for key, value in msgspec.to_builtins(profile).items() if key != "api_key"} for profile in profiles]
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(listed), indent=2).decode() + "\n")
        return 0
    for profile in profiles:
        sys.stdout.write(_described(profile))
    return 0


def _described(profile: ModelProfile) -> str:
    limits = [
        f"{name} {value}"
        for name, value in (("max_num_seqs", profile.max_num_seqs), ("max_num_batched_tokens", profile.max_num_batched_tokens))
        if value is not None
    ]
    recommended = [
        f"{name} {span[0]}-{span[1]}"
        for name, span in (("batch_size", profile.recommended_batch_size), ("concurrency", profile.recommended_concurrency))
        if span is not None
    ]
    lines = [f"{profile.name} ({profile.kind}{', ' + profile.hardware if profile.hardware else ''})"]
    served = "" if profile.model == profile.name else f", served as {profile.model}"
    lines.append(f"  {profile.resolved_base_url()}{served}")
    if limits:
        lines.append(f"  server: {', '.join(limits)}")
    if recommended:
        lines.append(f"  recommended: {', '.join(recommended)}")
    return "\n".join(lines) + "\n"
