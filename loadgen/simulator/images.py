"""How large an image in a data URI is, from its header alone: nothing is decoded, Pillow is not needed.

Knows the heads of PNG, JPEG, GIF and WebP, and base64. Must not know tokens or HTTP.
Law: `pixel_size` reads the first bytes (a JPEG's up to its frame header) and the last few; it never copies the image.
"""

import base64
import binascii
import re
import struct

_HEAD_CHARS = 4096  # enough for all but JPEGs with long APP or COM segments
_TAIL_CHARS = 64
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers; the three are DHT, JPG, DAC


class ImageError(ValueError):
    """The message is vLLM's for the same fault."""


def pixel_size(uri: str) -> tuple[int, int]:
    """(width, height) of the image in a data URI.

    Raises:
        ImageError: not a data URI, bad base64, not an image, or cut short.

    """
    if not uri.startswith("data:"):
        raise ImageError("The URL must be either a HTTP, data or file URL.")
    start = uri.find(",") + 1
    if not start or not uri[:start].endswith(";base64,"):
        raise ImageError("Only base64 data URLs are supported for now.")
    if (len(uri) - start) % 4:
        raise ImageError("Incorrect padding")
    size = _size(_decode(uri[start : start + _HEAD_CHARS]))
    if size is None and len(uri) - start > _HEAD_CHARS:
        size = _size(_decode(uri[start:]))
    if size is None:
        raise ImageError("Failed to load image: cannot identify image file <_io.BytesIO object>")
    tail_start = max(start, len(uri) - _TAIL_CHARS)
    tail = _decode(uri[tail_start:])
    png = _decode(uri[start : start + 4]).startswith(b"\x89PN")
    if png and b"IEND" not in tail:
        raise ImageError("Failed to load image: image file is truncated")
    return size


def _decode(text: str) -> bytes:
    if not _BASE64.fullmatch(text):
        raise ImageError("Non-base64 digit found")
    try:
        return base64.b64decode(text)
    except binascii.Error as error:
        raise ImageError(str(error)) from None


def _size(data: bytes) -> tuple[int, int] | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
    elif data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    elif data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        width, height = struct.unpack("<HH", data[6:10])
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp_size(data)
    else:
        return None
    return (width, height) if width and height else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return (width, height) if width and height else None
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None
