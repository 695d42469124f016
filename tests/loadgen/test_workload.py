"""The workload file: bodies encoded once, markers spliced in."""

import base64
import io
import json
import zlib

import pytest
from PIL import Image

from clients.messages import Sampling
from loadgen.plan import Plan
from loadgen.target import Target
from loadgen.workload import Marker, Workload, unmarked_images, write_workload

TARGET = Target(base_url="http://127.0.0.1:1/v1", model="m")


def plan(number=1, salt=7):
    return Plan(number=number, label="p", max_concurrent=1, workers=1, num_requests=1, salt=salt)


def written(tmp_path, prompts, *, cache="unique", target=TARGET, sampling=None):
    head = write_workload(tmp_path / "workload.bin", prompts, target=target, sampling=sampling or Sampling(max_tokens=8), cache=cache)
    return head, Workload(tmp_path / "workload.bin")


def picture(kind, size=(37, 21)):
    image = Image.new("RGB", size, (10, 200, 30))
    image.putpixel((3, 4), (255, 0, 0))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def image_prompt(data, kind):
    uri = f"data:image/{kind};base64," + base64.b64encode(data).decode()
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "read it"}]}]


def test_bodies_differ_by_their_marker_alone(tmp_path):
    """Two requests of one item: valid JSON of one length, the prompt after its marker untouched."""
    _, workload = written(tmp_path, ["Grüße, wie geht's? \u2028 end"])
    bodies = [workload.body(0, Marker(plan(), k)) for k in (0, 99_999_999)]
    assert len({len(body) for body in bodies}) == 1
    texts = [json.loads(body)["messages"][0]["content"] for body in bodies]
    assert texts[0] != texts[1]
    assert all(text.endswith("] Grüße, wie geht's? \u2028 end") for text in texts)


def test_markers_differ_between_plans_and_between_runs(tmp_path):
    """The same request of another cell, or of another run, is another prompt to a prefix cache."""
    _, workload = written(tmp_path, ["x"])
    assert len({workload.body(0, Marker(plan(number, salt), 5)) for number in range(20) for salt in (1, 2)}) == 40


def test_shared_cache_sends_the_prompt_as_it_is(tmp_path):
    """--cache shared: no marker anywhere."""
    _, workload = written(tmp_path, ["as it is"], cache="shared")
    body = workload.body(0, Marker(plan(), 3))
    assert json.loads(body)["messages"] == [{"role": "user", "content": "as it is"}]


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_image_with_its_marker_has_the_pixels_of_the_file(tmp_path, kind):
    """Other bytes (vLLM hashes them), the same pixels, still a valid file."""
    data = picture(kind)
    _, workload = written(tmp_path, [image_prompt(data, kind)])
    sent = []
    for k in (1, 2):
        parts = json.loads(workload.body(0, Marker(plan(), k)))["messages"][0]["content"]
        encoded = parts[0]["image_url"]["url"].split(",", 1)[1]
        sent.append(base64.b64decode(encoded, validate=True))
        assert parts[1]["text"].endswith("read it")
    assert sent[0] != sent[1]
    original = Image.open(io.BytesIO(data))
    for image in sent:
        decoded = Image.open(io.BytesIO(image))
        decoded.load()
        assert decoded.tobytes() == original.tobytes()


def test_a_png_marker_carries_a_right_checksum():
    """A strict decoder checks the checksum of every chunk."""
    chunk = base64.b64decode(Marker(plan(), 42).png())
    assert zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
    assert int.from_bytes(chunk[:4], "big") == len(chunk) - 12


def test_several_images_of_both_kinds_each_get_their_marker(tmp_path):
    """Two images in one message: all three places are cut in order."""
    first, second = picture("jpeg"), picture("png")
    prompt = image_prompt(first, "jpeg")
    prompt[0]["content"].insert(1, image_prompt(second, "png")[0]["content"][0])
    head, workload = written(tmp_path, [prompt])
    assert head.items[0].splices == ["jpeg", "png", "text"]
    parts = json.loads(workload.body(0, Marker(plan(), 1)))["messages"][0]["content"]
    for part, data in zip(parts[:2], (first, second), strict=True):
        image = Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].split(",", 1)[1])))
        assert image.tobytes() == Image.open(io.BytesIO(data)).tobytes()


def test_an_image_that_takes_no_marker_is_counted(tmp_path):
    """A GIF is sent as it is, and the report can say so."""
    prompts = [image_prompt(picture("gif"), "gif"), image_prompt(picture("png"), "png"), "text"]
    head, _ = written(tmp_path, prompts)
    assert unmarked_images(head, prompts) == 1


def test_one_prompt_a_hundred_times_is_stored_once(tmp_path):
    """The file grows with what differs."""
    written(tmp_path, ["y" * 10_000] * 100)
    assert (tmp_path / "workload.bin").stat().st_size < 20_000


def test_the_marker_comes_before_the_first_text_of_a_conversation(tmp_path):
    """A system message is the prefix a cache would keep, so the marker goes there."""
    prompt = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    _, workload = written(tmp_path, [prompt])
    messages = json.loads(workload.body(0, Marker(plan(), 0)))["messages"]
    assert messages[0]["content"].endswith("] be brief")
    assert messages[1]["content"] == "hi"


def test_each_prompt_of_a_completions_list_gets_a_marker(tmp_path):
    """A list of prompts is a list of prefixes."""
    target = Target(base_url="http://127.0.0.1:1/v1", model="m", dialect="completions")
    _, workload = written(tmp_path, [["one", "two"]], target=target)
    prompts = json.loads(workload.body(0, Marker(plan(), 0)))["prompt"]
    assert [p.rsplit(" ", 1)[1] for p in prompts] == ["one", "two"]
    assert all(p.startswith("[") for p in prompts)


def test_a_file_that_is_none_is_refused(tmp_path):
    """A worker never sends what it cannot vouch for."""
    (tmp_path / "other").write_bytes(b"not a workload, but long enough")
    with pytest.raises(ValueError, match="no workload file"):
        Workload(tmp_path / "other")
