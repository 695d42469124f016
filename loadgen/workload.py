"""What is sent: bodies encoded once by the parent, in one file of the run that every worker maps.

Knows dialects only through `Dialect.encode`; knows nothing of schedules. What changes from one request to the next is a
marker of fixed length, spliced between the parts of a body that is otherwise never touched again.
Invariants: the same (item, marker) gives the same bytes in every process; all bodies of an item have one length; a body with
its marker is valid JSON, and an image with its marker decodes to the file's own pixels.

Why markers: a prefix cache would make the later cells of a grid fast. A text marker is digits, because tokenizers split
digits evenly: every marker costs the same number of tokens. An image's marker is a PNG text chunk or a JPEG comment at a
place where base64 is aligned, so that it can be spliced into the encoded body: vLLM hashes an image's bytes.
"""

from __future__ import annotations

import base64
import os
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from clients.dialects import DIALECTS
from clients.messages import Sampling
from loadgen.mapped import mapped
from loadgen.workload_head import Index, WorkloadHead

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from loadgen.plan import Cache, Plan
    from loadgen.target import Target
    from loadgen.workload_head import Splice


MAGIC = b"LGWORK01"
_HEADER = struct.Struct("<8sQ")
# A private-use character: in no tokenizer's vocabulary of worth, in no prompt, the same bytes in JSON as in UTF-8.
_SENTINEL = "\ue0f1"
_SENTINEL_BYTES = _SENTINEL.encode()
_IMAGE = re.compile(rb"data:image/(png|jpeg);base64,([A-Za-z0-9+/]+=*)")
# Parts below this are copied out of the mapping at the start: joining bytes is cheaper than joining views.
_COPIED_PART = 64 * 1024

_PNG_HEAD = 33  # signature 8 and IHDR 25: 44 base64 characters, aligned
_JPEG_EMPTY_COMMENT = b"\xff\xfe\x00\x02"  # after the 2 bytes of SOI it makes 6: 8 base64 characters, aligned


class Marker:
    """The marker of one request: 18 digits of the run's salt, the plan's number and the request's."""

    __slots__ = ("digits",)

    def __init__(self, plan: Plan, index: int) -> None:
        self.digits = b"%06d%04d%08d" % (plan.salt % 1_000_000, plan.number % 10_000, index % 100_000_000)

    def text(self) -> bytes:
        return b"[%b] " % self.digits

    def png(self) -> bytes:
        """A tEXt chunk of 33 bytes, in base64."""
        chunk = b"tEXtid\0" + self.digits
        return base64.b64encode(struct.pack(">I", 21) + chunk + struct.pack(">I", zlib.crc32(chunk)))

    def jpeg(self) -> bytes:
        """A COM segment of 24 bytes, in base64."""
        return base64.b64encode(b"\xff\xfe\x00\x16" + self.digits + b"  ")


class Workload:
    """The mapped file: `body(item, marker)` gives the bytes of one request."""

    def __init__(self, path: str | Path) -> None:
        view = mapped(path)
        magic, head_length = _HEADER.unpack_from(view)
        if magic != MAGIC:
            raise ValueError(f"{path} is no workload file")
        start = _HEADER.size
        self.head = msgspec.msgpack.decode(view[start : start + head_length], type=WorkloadHead)
        blob = view[start + head_length :]
        self._items = [([_part(blob, offset, length) for offset, length in index.parts], index.splices) for index in self.head.items]

    def __len__(self) -> int:
        return len(self._items)

    def body(self, item: int, marker: Marker) -> bytes:
        """The body of one request, as sent."""
        parts, splices = self._items[item]
        if not splices:
            return bytes(parts[0])
        text = marker.text()
        pieces = [parts[0]]
        for splice, part in zip(splices, parts[1:], strict=True):
            pieces.append(text if splice == "text" else marker.png() if splice == "png" else marker.jpeg())
            pieces.append(part)
        return b"".join(pieces)


def _part(blob: memoryview, offset: int, length: int) -> bytes | memoryview:
    part = blob[offset : offset + length]
    return bytes(part) if length < _COPIED_PART else part


def write_workload(
    path: Path, prompts: Sequence[Any], *, target: Target, sampling: Sampling | Sequence[Sampling], cache: Cache, id_prefix: str = ""
) -> WorkloadHead:
    """Encode every prompt and write the file; parts that several items share (one prompt a hundred times) are written once.

    sampling: of all of them, or of each. id_prefix: of the x-request-id that each is sent with, "" for none.
    Raises clients.errors.RequestError (INVALID_ITEM) for a prompt that no body can be made of.
    """
    dialect = DIALECTS[target.dialect]
    items: list[Index] = []
    choices: list[int] = []
    written: dict[bytes, tuple[int, int]] = {}
    blob = bytearray()
    samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
    for prompt, own in zip(prompts, samplings, strict=True):
        marked = prompt if cache == "shared" else _with_sentinel(prompt)
        body = dialect.encode(target.model, marked, own, stream=target.stream, continuous_usage=target.continuous_usage)
        parts, splices = _cut(body) if cache == "unique" else _cut_text(body)
        places = []
        for part in parts:
            place = written.get(part)
            if place is None:
                place = written[part] = (len(blob), len(part))
                blob += part
            places.append(place)
        items.append(Index(places, splices))
        choices.append(dialect.choices(prompt, own))
    head = WorkloadHead(dialect=target.dialect, stream=target.stream, items=items, choices=choices, id_prefix=id_prefix)
    packed = msgspec.msgpack.encode(head)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(_HEADER.pack(MAGIC, len(packed)))
        file.write(packed)
        file.write(blob)
    return head


def unmarked_images(head: WorkloadHead, prompts: Iterable[Any]) -> int:
    """How many items hold an image of a kind that takes no marker (neither PNG nor JPEG)."""
    return sum(
        _count_images(prompt) > sum(splice != "text" for splice in index.splices) for prompt, index in zip(prompts, head.items, strict=True)
    )


def _count_images(prompt: Any) -> int:
    if isinstance(prompt, str):
        return 0
    contents = [m.get("content") if isinstance(m, dict) else getattr(m, "content", None) for m in prompt]
    return sum(part.get("type") == "image_url" for content in contents if isinstance(content, list) for part in content)


def _with_sentinel(prompt: Any) -> Any:
    """The prompt with the sentinel before its first text: what comes first decides whether a prefix is cached."""
    if isinstance(prompt, str):
        return _SENTINEL + prompt
    if isinstance(prompt, msgspec.Struct):
        prompt = [prompt]
    if prompt and all(isinstance(one, str) for one in prompt):
        return [_SENTINEL + one for one in prompt]
    messages = [msgspec.to_builtins(message) for message in prompt]
    for i, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, str):
            messages[i] = {**message, "content": _SENTINEL + content}
            return messages
        if isinstance(content, list):
            for j, part in enumerate(content):
                if part.get("type") == "text":
                    marked = [*content[:j], {**part, "text": _SENTINEL + part["text"]}, *content[j + 1 :]]
                    messages[i] = {**message, "content": marked}
                    return messages
    return messages


def _cut_text(body: bytes) -> tuple[list[bytes], list[Splice]]:
    parts = body.split(_SENTINEL_BYTES)
    return parts, ["text"] * (len(parts) - 1)


def _cut(body: bytes) -> tuple[list[bytes], list[Splice]]:
    """The body's parts around its markers, in order of place."""
    cuts: list[tuple[int, int, bytes, Splice]] = []  # start, end of what is replaced, replacement before the marker, kind
    at = body.find(_SENTINEL_BYTES)
    while at >= 0:
        cuts.append((at, at + len(_SENTINEL_BYTES), b"", "text"))
        at = body.find(_SENTINEL_BYTES, at + 1)
    for found in _IMAGE.finditer(body):
        start, end = found.span(2)
        if found[1] == b"png":
            aligned = start + _PNG_HEAD // 3 * 4
            cuts.append((aligned, aligned, b"", "png"))
        else:
            # The comment shifts what follows by 4 bytes, so the rest is encoded once more: here, not per request.
            image = base64.b64decode(found[2])
            before = base64.b64encode(image[:2] + _JPEG_EMPTY_COMMENT)
            cuts.append((start, end, before, "jpeg"))
    cuts.sort()
    parts: list[bytes] = []
    splices: list[Splice] = []
    rest_from = 0
    carried = b""
    for start, end, before, kind in cuts:
        parts.append(carried + body[rest_from:start] + before)
        carried = base64.b64encode(base64.b64decode(body[start:end])[2:]) if kind == "jpeg" else b""
        splices.append(kind)
        rest_from = end
    parts.append(carried + body[rest_from:])
    return parts, splices
