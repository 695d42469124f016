"""The client of models that see: prompts of text and images.

Knows how a prompt with images becomes a request, in a thread, a few items ahead; the images themselves are `images.py`'s.
Law: nothing is read, encoded or resized on the event loop; no more than max_concurrent encoded items wait to be sent; an image that
cannot be sent is its own item's error, and nothing is sent for that item.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias, Unpack

import msgspec

from clients.client import LLMClient, checked_items, encoded
from clients.dialects import DIALECTS
from clients.errors import UsageError
from clients.images import data_uri, image_message
from clients.lanes import Lanes
from clients.loop import private_loop
from clients.messages import Sampling, SamplingOptions, checked_text, invalid_item
from clients.registry import ModelRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from clients.completion import Completion
    from clients.exchange import Request
    from clients.images import ImageSource
    from clients.secret import Secret
    from clients.settings import ClientOptions

    Images: TypeAlias = ImageSource | Sequence[ImageSource]
    ImagePrompt: TypeAlias = tuple[str, Images]


class VLMClient(LLMClient):
    """An LLMClient that also sends images: a Path, a file's name, bytes, a data URI, an http(s) URL or a Pillow image.

    A file's own bytes are sent untouched, with the type their content has. max_pixels: images with more are scaled down to it;
    None sends all as they are. Batches take 4 requests in flight by default: each has an image to be processed.
    """

    default_concurrency = 4

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | Secret | None = None,
        model_name: str | None = None,
        *,
        max_pixels: int | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(base_url, api_key, model_name, **options)
        if max_pixels is not None and (not isinstance(max_pixels, int) or max_pixels < 1):
            raise UsageError(f"max_pixels: got {max_pixels!r}, takes a whole number of at least 1, or None")
        if self.settings.dialect != "chat":
            raise UsageError(f"endpoint: got {self.settings.dialect!r}, which takes no images; a VLMClient takes chat")
        self._adopt(msgspec.structs.replace(self.settings, max_pixels=max_pixels))

    @classmethod
    def from_profile(cls, name: str, registry: ModelRegistry | None = None, **options: Any) -> Self:
        """See `LLMClient.from_profile`; the profile's max_pixels too. Raises UsageError for a model of kind llm."""
        known = registry or ModelRegistry()
        profile = known.get(name)
        if profile.kind != "vlm":
            raise UsageError(f"model: {name} is of kind {profile.kind}, a VLMClient takes one of kind vlm")
        return super().from_profile(name, known, **{"max_pixels": profile.max_pixels, **options})

    def generate_with_image(self, text: str, image: Images, **sampling: Unpack[SamplingOptions]) -> Completion:
        """The answer to a text about one image or several. Raises the typed RequestError."""
        return private_loop().run(partial(self.generate_with_image_async, text, image, **sampling))

    async def generate_with_image_async(self, text: str, image: Images, **sampling: Unpack[SamplingOptions]) -> Completion:
        """See `generate_with_image`."""
        options = self._sampling(sampling, self.generate_with_image)
        [completion] = await self._run_images([(text, image)], Lanes(max_concurrent=1, count=1), options, ahead=0)
        if completion.error is not None:
            raise completion.error
        return completion

    def generate_batch_with_images(
        self,
        prompts: Iterable[ImagePrompt],
        max_concurrent: int | None = None,
        batch_size: int | None = None,
        delay_between_batches: float = 0.0,
        progress: bool = False,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Completion]:
        """One completion for each `(text, image)` or `(text, [image, …])`, in order; otherwise as `generate_batch`."""
        return private_loop().run(
            partial(self.generate_batch_with_images_async, prompts, max_concurrent, batch_size, delay_between_batches, progress, **sampling)
        )

    async def generate_batch_with_images_async(
        self,
        prompts: Iterable[ImagePrompt],
        max_concurrent: int | None = None,
        batch_size: int | None = None,
        delay_between_batches: float = 0.0,
        progress: bool = False,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Completion]:
        """See `generate_batch_with_images`."""
        items = checked_items(prompts)
        options = self._sampling(sampling, self.generate_batch_with_images)
        lanes = self._lanes(len(items), max_concurrent, batch_size, delay_between_batches)
        return await self._run_images(items, lanes, options, ahead=lanes.slots, progress=progress)

    async def _run_images(
        self, items: Sequence[ImagePrompt], lanes: Lanes, options: Sampling, *, ahead: int, progress: bool = False
    ) -> list[Completion]:
        model = await self._model.name() if items else ""
        settings = self.settings

        def encode(index: int) -> Request:
            message = image_prompt(items[index], settings.max_pixels)
            return encoded(DIALECTS["chat"], model, [message], options, stream=settings.streaming)

        return await self._run(lanes, _Ahead(encode, len(items), ahead), len(items), progress=progress)


def image_prompt(item: object, max_pixels: int | None) -> dict[str, Any]:
    """The message of one item. Blocks; raises the item's error."""
    if not isinstance(item, tuple | list) or len(item) != 2 or not isinstance(item[0], str):
        raise invalid_item(f"prompt is {type(item).__name__}: it takes a pair of text and image, or text and a list of images")
    text, given = item
    sources = given if isinstance(given, tuple | list) else [given]
    if not sources:
        raise invalid_item("prompt has no image: it takes a pair of text and image, or text and a list of images")
    return image_message(checked_text(text, "prompt"), [data_uri(source, max_pixels=max_pixels) for source in sources])


class _Ahead:
    """Encodes items in threads: the one asked for, and up to `ahead` of those that come next, so that a free slot need not wait."""

    def __init__(self, encode: Callable[[int], Request], count: int, ahead: int) -> None:
        self._encode = encode
        self._ahead = ahead
        self._begun = bytearray(count)  # lanes do not take items in order: which have been, one byte each
        self._next = 0
        self._waiting: dict[int, asyncio.Future[Request]] = {}

    def __call__(self, index: int) -> asyncio.Future[Request]:
        future = self._waiting.pop(index, None) or self._begin(index)
        while len(self._waiting) < self._ahead and self._next < len(self._begun):
            if not self._begun[self._next]:
                self._waiting[self._next] = self._begin(self._next)
            self._next += 1
        return future

    def _begin(self, index: int) -> asyncio.Future[Request]:
        self._begun[index] = True
        future = asyncio.get_running_loop().run_in_executor(None, self._encode, index)
        future.add_done_callback(_seen)
        return future


def _seen(future: asyncio.Future[Request]) -> None:
    """An error of an item that a cancelled batch no longer asks for is nobody's: asyncio must not report it as forgotten."""
    if not future.cancelled():
        future.exception()
