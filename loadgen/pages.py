"""Images for a vlm: pages drawn with text, or the files of a directory; and the prompt that goes with them.

Knows Pillow and directories; must not know how a request is built beyond "text and images" (`clients.images`).
Law: the same seed draws the same page; a file's own bytes are sent, and one that is no image is refused before any load.
"""

from __future__ import annotations

import io
import random
from pathlib import Path

import msgspec

from clients.errors import UsageError
from clients.images import sniff
from loadgen.prompts import WORDS

# An A4 page at the size that olmOCR renders: 1,288 pixels on the longest side.
WIDTH, HEIGHT = 995, 1288

# In the words of olmOCR's own instruction for a page without anchor text (allenai/olmocr, prompts.py, v4).
OCR_PROMPT = (
    "Attached is one page of a document that you must process. Just return the plain text representation of this document as if you "
    "were reading it naturally. Convert equations to LateX and tables to HTML.\n"
    "If there are any figures or charts, label them with the following markdown syntax "
    "![Alt text describing the contents of the figure](page_startx_starty_width_height.png)\n"
    "Return your output as markdown, with a front matter section on top specifying values for the primary_language, "
    "is_rotation_valid, rotation_correction, is_table, and is_diagram parameters."
)

_IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"))
_NAMED_AT_MOST = 5


class Images(msgspec.Struct, kw_only=True):
    """Files to send, in order of their names. notes: files of the directory that are no images and are not sent."""

    paths: list[Path]
    name: str
    notes: list[str] = []


def drawn_page(seed: int, number: int) -> bytes:
    """Page `number` of a seeded document, as PNG: a heading and paragraphs in Pillow's own font."""
    from PIL import Image, ImageDraw, ImageFont

    draw_words = random.Random(f"page/{seed}/{number}")
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(page)
    margin, y = 80, 90
    pen.text((margin, y), f"{number + 1}. " + " ".join(draw_words.choices(WORDS, k=5)).title(), "black", ImageFont.load_default(30))
    font = ImageFont.load_default(19)
    y += 70
    while y < HEIGHT - 2 * margin:
        for _ in range(draw_words.randint(3, 8)):
            line = ""
            while pen.textlength(line, font) < WIDTH - 2 * margin - 90:
                line += draw_words.choice(WORDS) + " "
            pen.text((margin, y), line, "black", font)
            y += 27
            if y > HEIGHT - margin:
                break
        y += 20
    pen.text((WIDTH // 2 - 10, HEIGHT - 60), str(number + 1), "black", font)
    out = io.BytesIO()
    page.save(out, "PNG")
    return out.getvalue()


def load_images(directory: Path) -> Images:
    """The images of a directory (not below it). Raises UsageError when it is missing, has none, or has files that should be and are not."""
    if not directory.is_dir():
        raise UsageError(f"--images-dir: {str(directory)!r} is no directory; takes one that holds images")
    good: list[Path] = []
    bad: list[str] = []
    others: list[str] = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                head = file.read(64)
        except OSError as error:
            bad.append(f"{path.name} ({error.strerror})")
            continue
        if sniff(head) is not None:
            good.append(path)
        elif path.suffix.lower() in _IMAGE_SUFFIXES:
            bad.append(f"{path.name} ({'empty' if not head else 'not an image by its content'})")
        else:
            others.append(path.name)
    if bad:
        raise UsageError(f"--images-dir: {directory}: {len(bad)} of its files cannot be sent: {_few(bad)}")
    if not good:
        raise UsageError(f"--images-dir: {str(directory)!r} has no image in it; takes PNG, JPEG, WebP, GIF or BMP files")
    notes = [f"--images-dir: not sent, being no images: {_few(others)}"] if others else []
    return Images(paths=good, name=f"{len(good)} images of {directory.name}", notes=notes)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(names[:_NAMED_AT_MOST]) + more
