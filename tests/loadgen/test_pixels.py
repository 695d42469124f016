"""Images that differ by their pixels."""

import base64
import io

from PIL import Image

from loadgen.pixels import varied


def prompt(size=(40, 20)):
    file = io.BytesIO()
    Image.new("RGB", size, (9, 9, 9)).save(file, "JPEG")
    uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "read"}]}]


def pixels(message):
    uri = message[0]["content"][0]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGB")


def test_two_markers_give_two_images_that_differ_in_the_last_row_alone():
    """What a server that hashes pixels sees is new each time, and it is still the page."""
    one, two = (pixels(message) for message in varied([prompt()], [b"0" * 18, b"1" * 18]))
    rows = [y for y in range(one.height) if [one.getpixel((x, y)) for x in range(40)] != [two.getpixel((x, y)) for x in range(40)]]
    assert rows == [19]
    assert one.size == pixels(prompt()).size


def test_prompts_are_taken_in_turn():
    """Three requests over two prompts: the first one comes again, and differs."""
    found = varied([prompt((40, 20)), prompt((60, 20))], [b"0" * 18, b"1" * 18, b"2" * 18])
    assert [pixels(message).width for message in found] == [40, 60, 40]


def test_what_has_no_image_or_none_that_can_be_read_is_left():
    """Text stays text; a broken image is the server's to refuse."""
    broken = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]
    assert varied(["text", broken], [b"0" * 18, b"1" * 18]) == ["text", broken]
