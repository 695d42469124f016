"""Prompts: from a file, or generated.

Knows file formats and words; must not know how a prompt becomes a body (`clients.dialects`) nor how often it is sent.
Law: a file gives all of its prompts or none: what cannot be sent is refused by row number before any load, never in a worker.
"""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING, Any

import msgspec

from clients.errors import RequestError, UsageError
from clients.messages import Sampling, as_messages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# A row beyond this is no prompt of any model of today (2 M tokens of English are 8 MB).
ROW_LIMIT = 8 * 1024 * 1024
_MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstandard", b"PAR1": "Parquet", b"PK\x03\x04": "zip", b"BZh": "bzip2"}

# Short common words: each is one token, with the space before it, in the byte-level vocabularies of GPT, Llama and Qwen.
WORDS = (  # noqa: SIM905 - three hundred words read better as text
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were when we "
    "there can an your which their said if do will each about how up out them then she many some so these would other into has more "
    "her two like him see time could no make than first been its who now people my made over did down only way find use may water "
    "long little very after words called just where most know get through back much before go good new write our used me man too "
    "any day same right look think also around another came come work three word must because does part even place well such here "
    "take why things help put years different away again off went old number great tell men say small every found still between "
    "name should home big give air line set own under read last never us left end along while might next sound below saw something "
    "thought both few those always looked show large often together asked house world going want school important until form food "
    "keep children feet land side without boy once animals life enough took sometimes four head above kind began almost live page "
    "got earth need far hand high year mother light parts country father let night following picture being study second eyes soon "
    "times story boys since white days ever paper hard near sentence better best across during today others however sure means knew "
    "try told young miles sun ways thing whole hear example heard several change answer room sea against top turned learn point "
    "city play toward five using himself usually"
).split()


class Prompts(msgspec.Struct, kw_only=True):
    """What is to be sent, in order, and how a report names it. items: strings, or lists of message objects.

    samplings: of each item, where they are not all asked alike. id_prefix: of their x-request-ids, "" for none.
    """

    items: list[Any]
    name: str
    samplings: list[Sampling] | None = None
    id_prefix: str = ""
    notes: list[str] = []


def generated_prompts(count: int, input_len: int, seed: int) -> list[str]:
    """`count` different texts of `input_len` words, about one token each; the server's usage tells the real number.

    The same seed gives the same texts, and more of them begin with those of fewer.
    """
    texts = []
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        words = draw.choices(WORDS, k=input_len)
        for at in range(0, input_len, 12):
            words[at] = words[at].capitalize()
            if at:
                words[at - 1] += "."
        texts.append(" ".join(words))
    return texts


def load_prompts(path: Path) -> Prompts:
    """The prompts of a file: `.jsonl` has `prompt` (text) or `messages` in each row, anything else is one prompt a line.

    UTF-8 or, with its mark, UTF-16; LF or CRLF; blank lines are none. Raises UsageError naming the file and the first bad row.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--prompts: cannot read {str(path)!r} ({error.strerror}); takes a .txt or .jsonl file") from None
    for magic, kind in _MAGICS.items():
        if content.startswith(magic):
            raise UsageError(f"--prompts: {str(path)!r} is {kind}; takes plain .txt or .jsonl")
    read = _read_row if path.suffix.lower() in {".jsonl", ".ndjson", ".json"} else _read_line
    items: list[Any] = []
    bad: list[str] = []
    for number, row in enumerate(_rows(path, content), start=1):
        try:
            if item := read(row):
                as_messages(item)  # what the wire would refuse is refused here, with its row
                items.append(item)
        except (ValueError, RequestError) as error:
            bad.append(f"row {number}: {error}")
    if bad:
        others = f" (and {len(bad) - 1} more bad rows)" if len(bad) > 1 else ""
        raise UsageError(f"--prompts: {path}: {bad[0]}{others}")
    if not items:
        raise UsageError(f"--prompts: {str(path)!r} has no prompt in it; takes one a line (.txt) or one object a row (.jsonl)")
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Prompts(items=items, name=f"{len(items)} prompts of {path.name} (sha256 {digest})", notes=_notes(path, items))


def _rows(path: Path, content: bytes) -> list[bytes]:
    """The lines of a file as UTF-8: split at LF alone, since U+2028 and its like stand in texts."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            content = content.decode("utf-16").encode()
        except UnicodeError as error:
            raise UsageError(f"--prompts: {path}: begins as UTF-16 and is none: {error}") from None
    return content.removeprefix(b"\xef\xbb\xbf").split(b"\n")


def _decoded(row: bytes) -> str:
    if len(row) > ROW_LIMIT:
        raise ValueError(f"has {len(row):,} bytes; takes at most {ROW_LIMIT:,}")
    try:
        return row.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no UTF-8") from None


def _read_line(row: bytes) -> str:
    return _decoded(row).strip()


def _read_row(row: bytes) -> Any:
    """The prompt of a JSONL row; "" for a blank one. Other fields of the row (ids, labels) are passed over."""
    text = _decoded(row)
    if not text.strip():
        return ""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"is a JSON {type(value).__name__}; takes an object with prompt or messages")  # noqa: TRY004 - a row's fault is one kind
    if ("prompt" in value) == ("messages" in value):
        raise ValueError(f"has the fields {', '.join(map(repr, value)) or 'none'}; takes exactly one of prompt and messages")
    if "messages" in value:
        if not isinstance(value["messages"], list) or not value["messages"]:
            raise ValueError("messages: takes a list of messages")
        return value["messages"]
    if not isinstance(value["prompt"], str) or not value["prompt"].strip():
        raise ValueError("prompt: takes text that is not only whitespace")
    return value["prompt"]


def _notes(path: Path, items: Sequence[Any]) -> list[str]:
    distinct = len({json.dumps(item) for item in items})
    if distinct == len(items):
        return []
    return [f"{path.name}: {len(items) - distinct} of {len(items)} prompts repeat an earlier one"]
