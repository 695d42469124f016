"""Sizes from headers, and vLLM's words for what is no image."""

import base64
import io

import pytest
from PIL import Image

from loadgen.simulator.images import ImageError, pixel_size
from loadgen.simulator.prompts import image_tokens
from loadgen.simulator.settings import load_settings


def data_uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def encoded(kind: str, size: tuple[int, int] = (995, 1288), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "white").save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": b"Exif\0\0" + bytes(60_000)}),  # the frame header is far behind the start
        ("JPEG", {"comment": b"x" * 40}),
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": False}),
    ],
)
def test_the_size_is_read_from_the_header(kind, options):
    """As Pillow wrote it; the type in the URI is not believed."""
    assert pixel_size(data_uri(encoded(kind, **options), "png")) == (995, 1288)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hello", "The URL must be either a HTTP, data or file URL."),
        (data_uri(b"this is not an image, it only looks long enough"), "cannot identify image file"),
        (data_uri(b""), "cannot identify image file"),
        (data_uri(encoded("PNG")[:-20]), "image file is truncated"),
        ("data:image/png;base64,iVBO*w0KGgo=", "Non-base64 digit found"),
        ("data:image/png;base64,iVBORw0KGg", "Incorrect padding"),
    ],
)
def test_what_is_no_image_is_refused_in_vllms_words(uri, message):
    """One message per fault."""
    with pytest.raises(ImageError, match=message.replace(".", r"\.")):
        pixel_size(uri)


def test_image_tokens_are_squares_of_28_pixels_and_large_images_count_as_scaled_down():
    """A page of 995 x 1288 is 36 x 46 squares; ten times the pixels cost no more than the largest allowed image."""
    olmocr = load_settings("olmocr")
    assert image_tokens(995, 1288, olmocr) == (36 * 46 + 2, 995 * 1288)
    tokens, pixels = image_tokens(5000, 5000, olmocr)
    assert pixels <= olmocr.image_max_pixels
    assert tokens == 46 * 46 + 2
