"""Images as a chat request takes them: a data URI or a URL.

Knows files, bytes, data URIs, URLs and Pillow images, and the types of images by their first bytes. Knows nothing of requests.
Invariant: an image's own bytes go out untouched, with the type their content has, unless `max_pixels` asks for fewer pixels;
whatever cannot be sent raises the item's error (INVALID_ITEM) with the image's name. Everything here blocks: call it in a thread.
Pillow is imported only where pixels are needed.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
import re
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from clients.errors import UsageError
from clients.messages import invalid_item

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from clients.errors import RequestError

ImageSource: TypeAlias = "Path | str | bytes | Image"

SIZE_LIMIT = 64 * 1024 * 1024  # bytes of one image: a scanned A3 page at 600 dpi, uncompressed, is a third more
_JPEG_QUALITY = 95  # of resized JPEGs: above it Pillow's files grow and pages do not read better

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)
# An image that Pillow has opened is read at its first use, from one file position: two threads with the same one would both get
# half of it, and say nothing. Reading is short beside encoding.
_loading = threading.Lock()

_DATA_URI = re.compile(r"data:([^,]*?);base64,", re.IGNORECASE)


def sniff(data: bytes) -> str | None:
    """The MIME type of an image by its first bytes, None if they are no known image's."""
    for signature, mime in _SIGNATURES:
        if data.startswith(signature):
            return mime
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        return "image/avif"
    # Two letters alone would make an image of many a text: a BMP has four reserved zeros after its size.
    if data[:2] == b"BM" and len(data) >= 26 and data[6:10] == b"\0\0\0\0":
        return "image/bmp"
    return None


def data_uri(source: ImageSource, *, max_pixels: int | None = None) -> str:
    """What stands in an `image_url`: a data URI, or the http(s) URL as it is (the server fetches it).

    source: a file's path (a str without scheme is one), the file's bytes, a data URI, an http(s) URL or a Pillow image.
    max_pixels: width times height above which the image is shrunk (aspect kept, EXIF orientation applied); None leaves bytes as they are.
    Raises the item's error: missing, empty, too large, not an image, bad base64, a scheme that is not sent (`file:`).
    """
    if max_pixels is not None and max_pixels < 1:
        raise UsageError(f"max_pixels: got {max_pixels}, takes a whole number from 1")
    if isinstance(source, str):
        scheme = source[:8].lower()
        if scheme.startswith(("http://", "https://")):
            return source
        if scheme.startswith("data:"):
            return _from_data_uri(source, max_pixels)
        if "://" in source[:16] or scheme.startswith("file:"):
            raise _unsendable(source, "a path, a data URI, or an http or https URL is taken here")
        return _from_file(source, max_pixels)
    if isinstance(source, Path):
        return _from_file(source, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_bytes(bytes(source), "of bytes", max_pixels)
    pillow = sys.modules.get("PIL.Image")  # who holds an image has imported it
    if pillow is not None and isinstance(source, pillow.Image):
        return _from_pillow(source, max_pixels)
    raise _unsendable(type(source).__name__, "a path, bytes, a data URI, an http(s) URL or a Pillow image is taken here")


def image_message(text: str, images: Sequence[str]) -> dict[str, Any]:
    """One user message with its images (what `data_uri` gave) before its text, the order in which vLLM's own examples put them."""
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in images]
    if text:
        parts.append({"type": "text", "text": text})
    return {"role": "user", "content": parts}


def _unsendable(name: str, why: str) -> RequestError:
    shown = name if len(name) <= 120 else f"{name[:117]}..."
    return invalid_item(f"image {shown}: {why}")


def _from_file(path: str | Path, max_pixels: int | None) -> str:
    name = str(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before it is opened: opening a FIFO would wait for a writer
            raise _unsendable(name, "not a file")
        with open(path, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)  # one byte more tells a file that is too large, whatever it grew to meanwhile
    except FileNotFoundError:
        raise _unsendable(name, "no such file") from None
    except (OSError, ValueError) as fault:  # ValueError: a NUL in the path
        raise _unsendable(name, getattr(fault, "strerror", None) or str(fault)) from None
    return _from_bytes(data, name, max_pixels)


def _from_data_uri(uri: str, max_pixels: int | None) -> str:
    head = _DATA_URI.match(uri[:256])
    if head is None:
        raise _unsendable(uri[:40], "a data URI reads data:image/TYPE;base64,DATA")
    if len(uri) > SIZE_LIMIT * 4 // 3 + 256:
        raise _unsendable(uri[:40], f"larger than {SIZE_LIMIT:,} bytes")
    try:
        data = base64.b64decode(uri[head.end() :], validate=True)
    except (binascii.Error, ValueError) as fault:
        raise _unsendable(uri[:40], f"bad base64: {fault}") from None
    return _from_bytes(data, uri[:40], max_pixels)


def _from_bytes(data: bytes, name: str, max_pixels: int | None) -> str:
    if not data:
        raise _unsendable(name, "empty")
    if len(data) > SIZE_LIMIT:
        raise _unsendable(name, f"larger than {SIZE_LIMIT:,} bytes")
    mime = sniff(data)
    if mime is None:
        raise _unsendable(name, "not an image (PNG, JPEG, GIF, WebP, BMP, TIFF or AVIF, by its first bytes)")
    if max_pixels is not None:
        data, mime = _within(data, mime, name, max_pixels)
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _within(data: bytes, mime: str, name: str, max_pixels: int) -> tuple[bytes, str]:
    """The same bytes if the image has no more than max_pixels, else a smaller image of the same kind."""
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            if image.width * image.height <= max_pixels:
                return data, mime
            return _shrunk(image, max_pixels, "JPEG" if mime == "image/jpeg" else "PNG")
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as fault:  # from 89 million pixels: Pillow's limit
        raise _unsendable(name, f"too many pixels to be decoded safely: {fault}") from None
    except (OSError, ValueError, SyntaxError, EOFError) as fault:  # what Pillow's decoders raise for broken files
        raise _unsendable(name, f"cannot be decoded: {fault}") from None


def _from_pillow(image: Image, max_pixels: int | None) -> str:
    name = f"of Pillow, {image.mode} {image.width}x{image.height}"
    try:
        with _loading:
            image.load()
        data, _ = _shrunk(image, max_pixels or image.width * image.height, "PNG")
    except (OSError, ValueError, SyntaxError, EOFError) as fault:
        raise _unsendable(name, f"cannot be encoded: {fault}") from None
    return _from_bytes(data, name, None)


def _shrunk(image: Image, max_pixels: int, kind: str) -> tuple[bytes, str]:
    """Upright, in a mode that `kind` can hold, with at most max_pixels: (bytes, MIME type)."""
    from PIL import Image as PillowImage
    from PIL import ImageOps

    image = _plain_mode(ImageOps.exif_transpose(image))
    pixels = image.width * image.height
    if pixels > max_pixels:
        scale = math.sqrt(max_pixels / pixels)
        width = min(max(1, int(image.width * scale)), max_pixels)  # the bounds matter for strips a pixel wide
        height = max(1, min(int(image.height * scale), max_pixels // width))
        image = image.resize((width, height), PillowImage.Resampling.LANCZOS)
    out = io.BytesIO()
    if kind == "JPEG":
        image.convert("L" if image.mode == "L" else "RGB").save(out, "JPEG", quality=_JPEG_QUALITY)
    else:
        image.save(out, "PNG")
    return out.getvalue(), f"image/{kind.lower()}"


def _plain_mode(image: Image) -> Image:
    """Grey, RGB or RGBA: what both encoders and every server's processor take."""
    if image.mode in ("L", "RGB", "RGBA"):
        return image
    if image.mode.startswith("I"):  # 16 bits of grey: convert() would cut everything above 255 to white
        return image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    if image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("RGB")
