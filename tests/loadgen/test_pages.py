"""Pages drawn for a vlm, and the images of a directory."""

import io

import pytest
from PIL import Image

from clients.errors import UsageError
from loadgen.pages import HEIGHT, WIDTH, drawn_page, load_images


def test_a_page_is_drawn_by_its_seed():
    """995x1288 pixels, text on it, the same bytes again for the same seed and number, others for another."""
    page = drawn_page(0, 0)
    image = Image.open(io.BytesIO(page))
    assert (image.format, image.size) == ("PNG", (WIDTH, HEIGHT))
    assert max(image.size) == 1288
    dark = sum(image.convert("L").histogram()[:128]) / (WIDTH * HEIGHT)
    assert 0.01 < dark < 0.5  # there is text, and it is not a black page
    assert page == drawn_page(0, 0)
    assert page not in (drawn_page(0, 1), drawn_page(1, 0))


def filled(tmp_path, **files):
    for name, content in files.items():
        (tmp_path / name.replace("_", ".")).write_bytes(content)
    return tmp_path


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 50


def test_images_are_told_by_their_content(tmp_path):
    """A PNG named .jpg is sent; a text beside it is not, and is named; hidden files are passed over."""
    directory = filled(tmp_path, b_jpg=PNG, a_png=PNG, README_md=b"hello", _hidden=b"x")
    (directory / "deeper").mkdir()
    images = load_images(directory)
    assert [path.name for path in images.paths] == ["a.png", "b.jpg"]
    assert images.name == f"2 images of {tmp_path.name}"
    assert images.notes == ["--images-dir: not sent, being no images: README.md"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no image in it"),  # an empty directory
        ({"notes_txt": b"hello"}, "has no image in it"),  # nothing that is one
        ({"a_png": PNG, "b_png": b""}, "1 of its files cannot be sent: b.png (empty)"),  # B29
        ({"a_png": b"hello"}, "a.png (not an image by its content)"),  # B29
    ],
)
def test_a_directory_that_cannot_be_sent_is_refused(tmp_path, files, said):
    """Files are named, before any load."""
    with pytest.raises(UsageError) as caught:
        load_images(filled(tmp_path, **files))
    assert said in str(caught.value)


def test_a_missing_directory_is_refused(tmp_path):
    """A file is no directory either."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(UsageError, match="is no directory"):
            load_images(path)
