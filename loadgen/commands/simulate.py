"""`loadgen simulate`: serve a simulated model until Ctrl-C.

Knows how options become settings; the server is `loadgen/simulator`'s.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from clients.errors import UsageError
from clients.registry import ModelRegistry
from clients.secret import Secret
from loadgen.simulated import simulator_settings

if TYPE_CHECKING:
    from loadgen.command_line import Arguments
    from loadgen.simulator.settings import SimulatorSettings

_TIMINGS = {"planned": "exact by plan: a metronome", "calibrated": "calibrated", "uncalibrated": "uncalibrated: a written estimate"}


def run(arguments: Arguments) -> int:
    """Serve in the foreground. Returns 0 after Ctrl-C or SIGTERM: that is how it is meant to end."""
    from loadgen.simulator.__main__ import base_url
    from loadgen.simulator.__main__ import run as serve

    settings = _settings(arguments)
    timing = _TIMINGS[settings.timing]

    def on_ready(port: int) -> None:
        sys.stdout.write(f"simulating {settings.names[0]} ({settings.kind}) at {base_url(settings, port)}, timing {timing}\n")
        sys.stdout.flush()

    try:
        stats = serve(settings, on_ready)
    except OSError as error:
        if error.filename is not None:
            raise UsageError(f"--truth: cannot write {error.filename!r} ({error.strerror})") from None
        raise UsageError(f"--host, --port: {error.strerror or error} ({settings.host}:{settings.port})") from None
    sys.stderr.write(msgspec.json.encode(stats).decode() + "\n")
    return 0


def _settings(arguments: Arguments) -> SimulatorSettings:
    model = arguments["model"]
    decided: dict[str, str] = {}
    if model is not None and model not in _timed():
        ModelRegistry().get(model)  # refuses with the nearest name; a model of one's own gets the default timing
        decided["model_name"] = arguments["model_name"] or model
    variable = arguments["api_key_env"]
    if variable is not None:
        key = Secret.from_env(variable)
        if key is None:
            raise UsageError(f"--api-key-env: the environment variable {variable} is not set")
        decided["api_key"] = key.reveal()
    return simulator_settings(model, arguments.values, "simulate", **decided)


def _timed() -> set[str]:
    from loadgen.simulator.settings import load_profiles

    return set(load_profiles())
