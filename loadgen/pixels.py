"""`--cache pixels`: images made different by their pixels, for servers whose caches hash pixels.

Knows Pillow and the parts of a message; knows nothing of plans or files. Only measuring does this: pipelines always send files
untouched. Invariant: an image differs from the file's own in the last row's first pixels alone.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_PREFIX = "data:image/"
# Level 1 is a third of the time of the default and these images are sent once.
_PNG_LEVEL = 1


def varied(prompts: Sequence[Any], markers: Sequence[bytes]) -> list[Any]:
    """One prompt for each marker, the prompts taken in turn, each of its images changed by the marker and encoded as PNG.

    Blocking, about 20 ms an image of a page. An image that Pillow cannot read is left as it is: the server will judge it.
    """
    return [_varied(prompts[i % len(prompts)], marker) for i, marker in enumerate(markers)]


def _varied(prompt: Any, marker: bytes) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [_varied_message(message, marker) for message in prompt]


def _varied_message(message: Any, marker: bytes) -> Any:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    parts = [
        {**part, "image_url": {**part["image_url"], "url": _varied_uri(part["image_url"]["url"], marker)}}
        if part.get("type") == "image_url"
        else part
        for part in content
    ]
    return {**message, "content": parts}


def _varied_uri(uri: str, marker: bytes) -> str:
    from PIL import Image, UnidentifiedImageError

    head, _, encoded = uri.partition(",")
    if not head.startswith(_PREFIX):
        return uri
    try:
        image = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))).convert("RGB")
    except (UnidentifiedImageError, OSError, binascii.Error):
        return uri
    row = image.height - 1
    for x in range(min(image.width, len(marker) // 3)):
        red, green, blue = marker[3 * x : 3 * x + 3]
        image.putpixel((x, row), (red, green, blue))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_PNG_LEVEL)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
