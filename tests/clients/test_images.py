"""Images: bytes go out untouched, types by content, and a clear error for what is none."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from clients.errors import Outcome, RequestError, UsageError
from clients.images import SIZE_LIMIT, data_uri, image_message, sniff
from clients.messages import as_messages


def encoded(kind: str = "PNG", size: tuple[int, int] = (40, 20), mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind, **options)
    return out.getvalue()


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(payload(uri)))


def payload(uri: str) -> bytes:
    return base64.b64decode(uri.split(",", 1)[1])


KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp", "BMP": "image/bmp", "TIFF": "image/tiff"}


@pytest.mark.parametrize(("kind", "mime"), KINDS.items())
def test_a_file_goes_out_as_it_is_with_the_type_of_its_content(kind, mime, tmp_path):
    """The suffix says nothing; not a byte changes; a str is a path like a Path."""
    data = encoded(kind)
    path = tmp_path / "page.txt"
    path.write_bytes(data)
    uri = data_uri(path)
    assert uri.startswith(f"data:{mime};base64,")
    assert payload(uri) == data
    assert data_uri(str(path)) == data_uri(data) == data_uri(bytearray(data)) == uri


@pytest.mark.parametrize(
    "data", [b"", b"BM and other words that are no image", b"RIFF....WAVE", b"\x89PNG", b"%PDF-1.7", b"\xff\xd8", b"GIF88a"]
)
def test_what_has_no_image_signature_has_no_type(data):
    """Two letters that begin a word make no image."""
    assert sniff(data) is None


def test_an_avif_is_known_by_its_brand():
    """The signature is not at the start."""
    assert sniff(b"\0\0\0\x20ftypavif\0\0\0\0") == "image/avif"


@pytest.mark.parametrize("url", ["http://host/a.png", "https://host/a.png?x=1", "HTTPS://host/a"])
def test_a_url_passes_through(url):
    """The server fetches it."""
    assert data_uri(url, max_pixels=10) == url


def test_a_data_uri_keeps_its_bytes_and_gets_the_right_type():
    """A JPEG labelled PNG is sent as what it is."""
    data = encoded("JPEG")
    text = base64.b64encode(data).decode()
    for head in ("data:image/jpeg;base64,", "data:image/png;base64,", "DATA:;BASE64,", "data:image/jpeg;charset=x;base64,"):
        assert data_uri(head + text) == f"data:image/jpeg;base64,{text}"


def fails(source: object, **options: object) -> str:
    with pytest.raises(RequestError) as caught:
        data_uri(source, **options)
    assert caught.value.outcome is Outcome.INVALID_ITEM
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_no_image_is_the_items_error(tmp_path):
    """Missing, empty, a directory, a FIFO, text: named with the file."""
    empty, text, fifo = tmp_path / "empty.png", tmp_path / "text.png", tmp_path / "fifo"
    empty.touch()
    text.write_text("no image")
    os.mkfifo(fifo)
    assert fails(tmp_path / "none.png").endswith("none.png: no such file")
    assert fails(empty).endswith("empty.png: empty")
    assert "text.png: not an image (PNG, JPEG" in fails(text)
    assert fails(tmp_path).endswith("not a file")
    assert fails(fifo).endswith("not a file")


def test_a_file_over_the_limit_is_not_read_whole(tmp_path):
    """A sparse file one byte too large."""
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.write(encoded())
        file.truncate(SIZE_LIMIT + 1)
    assert "huge.png: larger than 67,108,864 bytes" in fails(path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("file:///etc/passwd", "a path, a data URI, or an http or https URL"),
        ("FILE:/etc/passwd", "a path, a data URI"),
        ("ftp://host/a.png", "a path, a data URI"),
        ("data:image/png,abc", "data:image/TYPE;base64,DATA"),
        ("data:image/png;base64,?!", "bad base64"),
        ("data:image/png;base64,AAA", "bad base64"),
        ("data:image/png;base64,é", "bad base64"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,AAAA", "not an image"),
        (b"", "empty"),
        (b"text", "not an image"),
        ("", "no such file"),
        ("a\0b", "null"),
        ("x" * 5000, "File name too long"),
        (None, "image NoneType: a path, bytes, a data URI"),
        (3, "image int"),
    ],
)
def test_a_source_that_cannot_be_sent_is_the_items_error(source, words):
    """Whatever is wrong is said in one line, with the beginning of what was given."""
    message = fails(source)
    assert words in message
    assert len(message) < 400


def test_max_pixels_leaves_a_small_enough_image_alone():
    """At the bound the bytes are still the file's."""
    data = encoded(size=(40, 20))
    assert payload(data_uri(data, max_pixels=800)) == data


@pytest.mark.parametrize(("kind", "mime"), [("PNG", "PNG"), ("JPEG", "JPEG"), ("BMP", "PNG"), ("GIF", "PNG")])
@pytest.mark.parametrize("size", [(400, 200), (3, 1000), (1000, 1), (33, 31)])
def test_max_pixels_shrinks_what_is_larger(kind, mime, size):
    """The bound holds for strips too; the aspect is kept as far as whole pixels go; JPEG stays JPEG, others become PNG."""
    image = opened(data_uri(encoded(kind, size), max_pixels=500))
    assert image.format == mime
    assert image.width * image.height <= 500
    if min(size) > 30:
        assert image.width / image.height == pytest.approx(size[0] / size[1], rel=0.1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_of_png_can_be_shrunk(mode):
    """Palettes, alpha and 16 bits too."""
    assert opened(data_uri(encoded(mode=mode, size=(100, 100)), max_pixels=400)).size == (20, 20)


def test_a_cmyk_jpeg_can_be_shrunk():
    """It becomes RGB, which every processor takes."""
    image = opened(data_uri(encoded("JPEG", mode="CMYK", size=(100, 100)), max_pixels=400))
    assert (image.mode, image.size) == ("RGB", (20, 20))


def test_sixteen_bits_of_grey_keep_their_grey():
    """Halfway stays halfway; a plain conversion would make it white."""
    out = io.BytesIO()
    Image.new("I;16", (100, 100), 0x8000).save(out, "PNG")
    assert opened(data_uri(out.getvalue(), max_pixels=400)).getpixel((5, 5)) == pytest.approx(0x80, abs=1)


def test_a_shrunk_photo_stands_upright():
    """The EXIF orientation is applied, since the shrunk file has none."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    image = opened(data_uri(encoded("JPEG", (200, 100), exif=exif), max_pixels=5000))
    assert image.width < image.height
    assert 0x0112 not in image.getexif()


def test_a_truncated_image_that_must_be_decoded_is_the_items_error(tmp_path):
    """Untouched it goes to the server, which says 400; to shrink it, it must be read."""
    out = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(out, "PNG")
    path = tmp_path / "half.png"
    path.write_bytes(out.getvalue()[:5000])
    assert payload(data_uri(path)) == path.read_bytes()
    assert "half.png: cannot be decoded" in fails(path, max_pixels=100)


def test_a_decompression_bomb_is_not_decoded():
    """A few bytes that would be 900 million pixels."""
    header = bytearray(encoded("BMP"))
    header[18:26] = (30_000).to_bytes(4, "little") * 2
    assert "too many pixels" in fails(bytes(header), max_pixels=100)


def test_a_pillow_image_is_sent_as_png():
    """Lossless, upright, in a mode that PNG holds, within max_pixels."""
    image = Image.new("RGB", (40, 20), (1, 2, 3))
    sent = opened(data_uri(image))
    assert (sent.format, sent.size, sent.getpixel((0, 0))) == ("PNG", (40, 20), (1, 2, 3))
    assert opened(data_uri(image, max_pixels=200)).size == (20, 10)
    assert opened(data_uri(Image.new("CMYK", (4, 4)))).mode == "RGB"
    assert "0x0" in fails(Image.new("RGB", (0, 0)))


def test_one_pillow_image_serves_several_threads():
    """Items of a batch may share an image that was opened and not yet read: all of them get all of it."""

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            time.sleep(0.001)  # lets the other threads in
            return data

    noise = Image.effect_noise((200, 200), 80)
    png = io.BytesIO()
    noise.save(png, "PNG")
    shared = Image.open(Slow(png.getvalue()))
    with ThreadPoolExecutor(4) as threads:
        sent = [opened(uri) for uri in threads.map(data_uri, [shared] * 4)]
    assert [image.tobytes() for image in sent] == [noise.tobytes()] * 4


def test_max_pixels_below_one_is_a_misuse():
    """Named before anything is read."""
    with pytest.raises(UsageError, match="max_pixels: got 0, takes a whole number from 1"):
        data_uri(b"", max_pixels=0)


def test_a_message_has_its_images_before_its_text():
    """One user message that the chat dialect takes as it is; a blank text leaves only the images."""
    message = image_message("Read this", ["data:a", "data:b"])
    assert message == {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": "data:a"}},
            {"type": "image_url", "image_url": {"url": "data:b"}},
            {"type": "text", "text": "Read this"},
        ],
    }
    assert as_messages([message]) == [message]
    assert [part["type"] for part in image_message("", ["data:a"])["content"]] == ["image_url"]


def test_pillow_is_not_imported_for_a_file(tmp_path):
    """`import clients` is light: a file's bytes need no Pillow."""
    path = tmp_path / "a.png"
    path.write_bytes(encoded())
    code = f"import sys; from clients.images import data_uri; data_uri({str(path)!r}); sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
