"""The best setting as a pipeline reads it: `generation: {batch_size, max_concurrent}` in its config.yaml.

Knows two keys and where they go; must not know how they were found. Law: whatever else is in a config file (comments, order,
quotes, line ends, mode) is as it was before; a file that cannot be merged into is found before any load.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.errors import UsageError
from loadgen.rundir import write_whole

if TYPE_CHECKING:
    from ruamel.yaml import YAML

SECTION = "generation"


def pipeline_yaml(batch_size: int | None, max_concurrent: int) -> str:
    """The YAML to paste. No batches is `null`: the clients read it as no barrier."""
    return f"{SECTION}:\n  batch_size: {_scalar(batch_size)}\n  max_concurrent: {max_concurrent}\n"


def check_config(path: Path) -> None:
    """Raise UsageError unless `write_config` can merge into `path`: a YAML mapping, an empty file, or none yet."""
    _merge(path, None, 1)
    real = Path(os.path.realpath(path))
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise UsageError(f"--write-config: the directory of {str(path)!r} is missing or cannot be written")


def write_config(path: Path, batch_size: int | None, max_concurrent: int) -> None:
    """Merge the setting into `path` in one step, or make the file. A link stays a link: its target is replaced.

    Raises UsageError as `check_config` does, and OSError when the disk refuses.
    """
    content = _merge(path, batch_size, max_concurrent)
    real = Path(os.path.realpath(path))
    if real.exists():
        mode = stat.S_IMODE(real.stat().st_mode)
    else:
        umask = os.umask(0)  # the only way to read it
        os.umask(umask)
        mode = 0o666 & ~umask
    write_whole(real, content, mode=mode)


def _merge(path: Path, batch_size: int | None, max_concurrent: int) -> bytes:
    """The file's new content."""
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        before = b""
    except OSError as error:
        raise UsageError(f"--write-config: cannot read {str(path)!r} ({error.strerror})") from None
    try:
        text = before.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"--write-config: {str(path)!r} is no UTF-8 text (byte {error.start})") from None
    newline = "\r\n" if "\r\n" in text else "\n"
    text = text.replace("\r\n", "\n")
    yaml, data = _load(path, text)
    if data is None:  # nothing but comments, or nothing: they stay as they are
        body = text.rstrip("\n")
        merged = (f"{body}\n\n" if body else "") + pipeline_yaml(batch_size, max_concurrent)
    else:
        _set(path, data, batch_size, max_concurrent)
        out = io.StringIO()
        yaml.dump(data, out)
        merged = out.getvalue()
    mark = b"\xef\xbb\xbf" if before.startswith(b"\xef\xbb\xbf") else b""
    return mark + merged.replace("\n", newline).encode()


def _load(path: Path, text: str) -> tuple[YAML, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.util import load_yaml_guess_indent

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 20  # a long line is not folded
    yaml.explicit_start = text.lstrip().startswith("---")
    try:
        data = yaml.load(text)
        _, indent, offset = load_yaml_guess_indent(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        raise UsageError(f"--write-config: {path}{place}: {error.problem or error.context}") from None
    except YAMLError as error:
        raise UsageError(f"--write-config: {path}: {' '.join(str(error).split())}") from None
    if data is not None and not hasattr(data, "items"):
        raise UsageError(f"--write-config: {str(path)!r} holds {_kind(data)}; takes a mapping, as a pipeline's config.yaml is")
    if indent:
        yaml.indent(mapping=_mapping_indent(text), sequence=indent, offset=offset or 0)
    return yaml, data


def _set(path: Path, data: Any, batch_size: int | None, max_concurrent: int) -> None:
    section = data.get(SECTION)
    if section is None:
        from ruamel.yaml.comments import CommentedMap

        section = data[SECTION] = CommentedMap()
    if not hasattr(section, "items"):
        raise UsageError(f"--write-config: {SECTION!r} in {str(path)!r} is {_kind(section)}; takes a mapping")
    section["batch_size"] = batch_size
    section["max_concurrent"] = max_concurrent


def _mapping_indent(text: str) -> int:
    """The indentation of the first nested key: ruamel tells that of lists only."""
    for line in text.splitlines():
        body = line.lstrip(" ")
        if body and body != line and body[0] not in "#-" and ":" in body:
            return len(line) - len(body)
    return 2


def _kind(data: object) -> str:
    return "a list" if isinstance(data, list) else f"the {type(data).__name__} {str(data)[:40]!r}"


def _scalar(batch_size: int | None) -> str:
    return "null" if batch_size is None else str(batch_size)
