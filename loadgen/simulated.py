"""The simulator's parameters as options: `--sim-max-num-seqs 6` beside a run, `--max-num-seqs 6` of `loadgen simulate`.

Knows how a field of `SimulatorSettings` becomes an option, and back; must not know what a field does. Law: a parameter is
declared once, in its Struct; an option exists for each, but for those that the command decides itself.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from clients.errors import UsageError
from loadgen.option import Option
from loadgen.quantities import Reader, number, text_of, whole
from loadgen.simulator.settings import SimulatorSettings, load_profiles, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

# A key is never an argument; `calibrated` is a fact about the timing, not a wish.
_NEVER = frozenset({"api_key", "calibrated"})
# Beside a run, the command places the server and names it as the target is named.
_DECIDED_BY_RUN = frozenset({"host", "port", "model_name", "kind"})
_PREFIX = defaultdict(lambda: "sim-", simulate="")


def simulator_options(command: str) -> list[Option]:
    """One option for each parameter that may be set beside `command`."""
    left_out = _NEVER if command == "simulate" else _NEVER | _DECIDED_BY_RUN
    options = []
    for field in msgspec.inspect.type_info(SimulatorSettings).fields:  # type: ignore[attr-defined]  # of a Struct: a StructType
        if field.name in left_out:
            continue
        kind, sentence = _read_type(field.type)
        default = "none" if field.default is None else str(field.default).lower() if kind is None else field.default
        shown = f" (default {default})" if str(default) and command == "simulate" else ""
        options.append(
            Option(
                _PREFIX[command] + field.name.replace("_", "-"),
                (command,),
                sentence + shown,
                kind,
                negatable=kind is None,
                group="simulator",
            )
        )
    return options


def simulator_settings(model: str | None, values: Mapping[str, Any], command: str, **decided: Any) -> SimulatorSettings:
    """The settings of a model's profile with the options that were given laid over. Raises UsageError naming the field.

    A model without a table of timing gets the defaults.
    """
    prefix = _PREFIX[command].replace("-", "_")
    names = [name for name in SimulatorSettings.__struct_fields__ if name not in _NEVER]
    given = {name: values[prefix + name] for name in names if values.get(prefix + name) is not None}
    known = model if model in load_profiles() else None
    try:
        return load_settings(known, **given, **decided)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _read_type(kind: Any) -> tuple[Reader | None, str]:
    """How text becomes a value of the field's type, None for a switch; and the field's sentence."""
    if isinstance(kind, msgspec.inspect.Metadata):
        reader, _ = _read_type(kind.type)
        return reader, (kind.extra_json_schema or {}).get("description", "")
    if isinstance(kind, msgspec.inspect.UnionType):
        return _read_type(next(one for one in kind.types if not isinstance(one, msgspec.inspect.NoneType)))
    if isinstance(kind, msgspec.inspect.BoolType):
        return None, ""
    if isinstance(kind, msgspec.inspect.IntType):
        return whole(0), ""
    if isinstance(kind, msgspec.inspect.FloatType):
        return number(0.0, takes="a number of 0 or more"), ""
    return text_of("text"), ""
