"""What a pipeline's config.yaml says about batches.

Knows two keys of one section: `generation: {batch_size, max_concurrent}`; the rest of the file is the pipeline's own and not looked
at. Invariant: a value that is there can be used, or the error names file, key, what it got and what it takes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from clients.errors import UsageError


class Generation(msgspec.Struct, frozen=True):
    """None: the file does not say."""

    batch_size: int | None = None
    max_concurrent: int | None = None


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """A YAML file as plain dicts and lists. Raises UsageError with the place of a syntax error."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise UsageError(f"{os.fspath(path)}{where}: not YAML: {error.problem}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{os.fspath(path)}: not YAML: {' '.join(str(error).split())}") from None


def read_generation(path: str | os.PathLike[str]) -> Generation:
    """The `generation` section's batch_size and max_concurrent. Raises UsageError for a file or value that cannot be used."""
    document = read_yaml(path)
    if document is not None and not isinstance(document, dict):
        raise UsageError(f"{os.fspath(path)}: is {type(document).__name__}, takes a mapping with a section generation")
    section = (document or {}).get("generation") or {}
    if not isinstance(section, dict):
        raise UsageError(f"{os.fspath(path)}: generation: is {type(section).__name__}, takes batch_size and max_concurrent")
    values: dict[str, int] = {}
    for key in Generation.__struct_fields__:
        value = section.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{os.fspath(path)}: generation.{key}: got {value!r}, takes a whole number of at least 1")
        values[key] = value
    return Generation(**values)
