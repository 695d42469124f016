"""VLMClient: images go out as they are, encoded off the loop, a few ahead; a bad one is its own item's error."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading

import pytest
from fakes import FakeTransport, answers, hangs
from PIL import Image

from clients import Outcome, RequestError, RetryPolicy, UsageError, VLMClient, transports, vlm
from clients.registry import ModelProfile, ModelRegistry
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    for name in ("LOADGEN_MODELS", "LOADGEN_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def sim():
    with Simulator(load_settings("olmocr", time_scale=0.05)) as simulator:
        yield simulator


@pytest.fixture
def client(sim):
    with VLMClient(sim.base_url, model_name="olmocr", max_tokens=4) as made:
        yield made


def encoded(size=(64, 48), kind="PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "white").save(out, kind)
    return out.getvalue()


@pytest.fixture
def page(tmp_path):
    """A PNG that calls itself a JPEG."""
    path = tmp_path / "page.jpg"
    path.write_bytes(encoded())
    return path


@pytest.fixture
def scripted(monkeypatch):
    """A function that makes a client over a scripted transport, and the list of transports it opens."""
    opened: list[FakeTransport] = []

    def make(*script, **options) -> VLMClient:
        def open_fake(endpoint, timeouts) -> FakeTransport:
            opened.append(FakeTransport(*script))
            return opened[-1]

        monkeypatch.setitem(transports.TRANSPORTS, "fake", open_fake)
        return VLMClient(model_name="m", transport="fake", retry=RetryPolicy(max_retries=0), **options)

    return make, opened


def parts(request) -> list[dict]:
    [message] = json.loads(request.body)["messages"]
    return message["content"]


def test_every_kind_of_image_is_read_by_the_server(client, page) -> None:
    """Path, name, bytes, data URI, Pillow image, several at once: all are one prompt."""
    uri = f"data:image/png;base64,{base64.b64encode(encoded()).decode()}"
    kinds = [page, str(page), page.read_bytes(), uri, Image.new("RGB", (10, 10)), [page, uri]]
    completions = client.generate_batch_with_images([("Describe this image", kind) for kind in kinds])
    assert [c.error for c in completions] == [None] * len(kinds)
    assert completions[5].usage.prompt_tokens > completions[0].usage.prompt_tokens


def test_one_prompt_with_an_image_is_answered(client, page) -> None:
    """Sync and async, one image and two."""
    assert client.generate_with_image("Describe this image", page).ok
    assert asyncio.run(client.generate_with_image_async("Compare", [page, page])).ok


def test_a_files_bytes_are_sent_untouched_with_the_type_of_their_content(scripted, page) -> None:
    """The suffix says JPEG; the bytes are a PNG's, and stay as they are. The image stands before the text."""
    make, opened = scripted
    with make() as client:
        client.generate_with_image("Read this", page)
    image, text = parts(opened[0].sent[0])
    assert text == {"type": "text", "text": "Read this"}
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == page.read_bytes()


def test_an_url_is_left_to_the_server(scripted) -> None:
    """Nothing is fetched here."""
    make, opened = scripted
    with make() as client:
        client.generate_with_image("Read this", "https://example.org/page.png")
    assert parts(opened[0].sent[0])[0]["image_url"]["url"] == "https://example.org/page.png"


def test_max_pixels_scales_images_down(scripted) -> None:
    """A setting of the client; smaller images stay as they are."""
    make, opened = scripted
    small, large = encoded((20, 20)), encoded((400, 100))
    with make(max_pixels=10_000) as client:
        client.generate_batch_with_images([("a", small), ("b", large)], 1)
    sizes = []
    for request in opened[0].sent:
        data = base64.b64decode(parts(request)[0]["image_url"]["url"].partition(",")[2])
        sizes.append(Image.open(io.BytesIO(data)).size)
    assert sizes[0] == (20, 20)
    assert sizes[1][0] * sizes[1][1] <= 10_000
    assert sizes[1] == (200, 50)


def test_a_bad_image_is_its_own_items_error_and_nothing_is_sent_for_it(scripted, page, tmp_path) -> None:
    """Missing, empty, no image, wrong shape, blank text: five errors, two answers, two requests."""
    make, opened = scripted
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image at all")
    items = [
        ("ok", page),
        ("missing", tmp_path / "none.png"),
        ("empty", tmp_path / "empty.png"),
        ("no image", tmp_path / "text.png"),
        ("none given", []),
        ("  ", page),
        "no pair",
        ("ok", page),
    ]
    with make() as client:
        completions = client.generate_batch_with_images(items)
    assert [c.ok for c in completions] == [True, *[False] * 6, True]
    assert {c.outcome for c in completions if not c.ok} == {Outcome.INVALID_ITEM}
    assert "none.png" in str(completions[1].error)
    assert len(opened[0].sent) == 2


def test_a_single_bad_image_raises(scripted, tmp_path) -> None:
    """With its name, before anything is sent."""
    make, opened = scripted
    with make() as client, pytest.raises(RequestError, match=r"none\.png: no such file"):
        client.generate_with_image("x", tmp_path / "none.png")
    assert opened[0].sent == []


def test_images_are_read_in_threads_never_on_the_loop(monkeypatch, scripted, page) -> None:
    """An image of 60 MB must not stop the streams of the others."""
    where: list[int] = []
    real = vlm.data_uri

    def spy(source, *, max_pixels=None) -> str:
        where.append(threading.get_ident())
        return real(source, max_pixels=max_pixels)

    monkeypatch.setattr(vlm, "data_uri", spy)
    make, _ = scripted

    async def go(client) -> int:
        await client.generate_batch_with_images_async([("x", page)] * 6, 2)
        await client.aclose()
        return threading.get_ident()

    assert asyncio.run(go(make())) not in where
    assert len(where) == 6


def test_no_more_than_max_concurrent_are_encoded_ahead(monkeypatch, scripted, page) -> None:
    """Three in flight, three ready behind them, of a hundred; cancelled, nothing is left and nothing is reported as forgotten."""
    begun: list[int] = []
    real = vlm.data_uri

    def spy(source, *, max_pixels=None) -> str:
        begun.append(1)
        return real(source, max_pixels=max_pixels)

    monkeypatch.setattr(vlm, "data_uri", spy)
    make, opened = scripted

    async def go(client) -> None:
        complaints: list[dict] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        task = asyncio.create_task(client.generate_batch_with_images_async([("x", page)] * 100, 3))
        while not opened or len(opened[0].in_flight) < 3 or len(begun) < 6:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # long enough for a seventh, were there one
        assert len(begun) == 6
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not opened[0].in_flight
        await client.aclose()
        assert complaints == []

    asyncio.run(go(make(hangs)))


def test_a_slot_that_frees_finds_its_item_encoded_in_every_order(scripted, page) -> None:
    """Batch lanes do not take items in order: each is encoded once, and each is answered."""
    make, opened = scripted
    with make(answers()) as client:
        completions = client.generate_batch_with_images([(f"item {i}", page) for i in range(40)], 6, 4)
    assert all(c.ok for c in completions)
    assert sorted(parts(r)[1]["text"] for r in opened[0].sent) == sorted(f"item {i}" for i in range(40))
    assert opened[0].peak <= 6


def test_four_are_in_flight_by_default(sim, client, page) -> None:
    """Images are work for the server: fewer than texts."""
    sim.wait_idle()
    sim.reset()
    client.generate_batch_with_images([("x", page)] * 12, max_tokens=16)
    assert sim.wait_idle()["requests_inflight_peak"] == 4


def test_text_prompts_work_as_in_the_llm_client(client) -> None:
    """The same client, without an image."""
    assert client.generate("Hello").ok
    assert all(c.ok for c in client.generate_batch(["a", "b"]))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_pixels": 0}, "max_pixels: got 0"),
        ({"max_pixel": 9}, "max_pixel: not an option of VLMClient; did you mean max_pixels?"),
        ({"base_ulr": "x"}, "base_ulr: not an option of VLMClient; did you mean base_url?"),
        ({"endpoint": "completions"}, "endpoint: got 'completions', which takes no images"),
    ],
)
def test_a_wrong_setting_is_named_at_once(options, named) -> None:
    """As in the LLMClient, its own option included."""
    with pytest.raises(UsageError, match=named):
        VLMClient(**options)


def test_a_profiles_max_pixels_is_the_clients_and_an_llm_is_refused() -> None:
    """A text model's server would refuse every image."""
    registry = ModelRegistry()
    registry.register(ModelProfile(name="pages", kind="vlm", max_pixels=5000))
    assert VLMClient.from_profile("pages", registry).settings.max_pixels == 5000
    assert VLMClient.from_profile("pages", registry, max_pixels=7000).settings.max_pixels == 7000
    with pytest.raises(UsageError, match="gpt-oss-20b is of kind llm"):
        VLMClient.from_profile("gpt-oss-20b", registry)
