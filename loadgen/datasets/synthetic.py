"""The data sets `random` and `random-mm`: prompts of drawn lengths, and images of drawn sizes beside them.

Knows lengths, ratios and pixels; must not know who counts tokens (`tokens.py`). Law: drawn in vLLM's order from one generator of the seed, so
that the same tokenizer gives the same requests as vLLM's client.
"""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from clients.errors import UsageError
from loadgen.datasets.sample import DataSet, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator

    from loadgen.datasets.tokens import TextSource

Size = tuple[int, int, int]  # height, width, frames: as in --random-mm-bucket-config


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """Lengths in tokens. A length lies within its ratio of the mean; the prefix comes on top of input_len."""

    input_len: int
    output_len: int
    prefix_len: int = 0
    input_ratio: float = 0.0
    output_ratio: float = 0.0


class Pictures(msgspec.Struct, frozen=True, kw_only=True):
    """How many of a request (within ratio of `count`, at most `limit`) and of which sizes; buckets: how often each, in any unit."""

    count: int
    ratio: float
    limit: int
    buckets: dict[Size, float]


def random_requests(texts: Texts, count: int, source: TextSource, seed: int, pictures: Pictures | None = None) -> DataSet:
    """`count` requests. Raises UsageError for lengths that leave no token, and for pictures that cannot be."""
    draw = np.random.default_rng(seed)
    inside = max(0, texts.input_len - source.specials)
    least, most = math.floor(inside * (1 - texts.input_ratio)), math.ceil(inside * (1 + texts.input_ratio))
    if texts.prefix_len + least < 1:
        raise UsageError(
            f"--random-input-len: got {texts.input_len}, which with {source.specials} special tokens and this ratio leaves none for the text"
        )
    shortest = max(1, math.floor(texts.output_len * (1 - texts.output_ratio)))
    longest = max(1, math.ceil(texts.output_len * (1 + texts.output_ratio)))
    input_lens = draw.integers(least, most + 1, size=count)
    output_lens = draw.integers(shortest, longest + 1, size=count)
    begins = draw.integers(0, source.vocabulary, size=count)
    prefix = source.prefix(texts.prefix_len, draw)
    samples = []
    for number in range(count):
        length = int(input_lens[number])
        text, tokens = source.text(prefix, length, texts.prefix_len + length, int(begins[number]) + number, draw)
        images = tuple(_images(pictures, draw)) if pictures else ()
        samples.append(Sample(prompt=text, input_len=tokens, output_len=int(output_lens[number]), images=images))
    beside = f" with {sum(len(sample.images) for sample in samples)} images" if pictures else ""
    name = f"{count} random prompts of {texts.prefix_len + texts.input_len} tokens{beside} (seed {seed})"
    return DataSet(samples=samples, name=name, notes=[source.note])


def _images(pictures: Pictures, draw: Generator) -> Iterator[str]:
    """The images of one request as data URIs: JPEG of noise, as vLLM's."""
    sizes = [size for size, share in pictures.buckets.items() if share > 0]
    if any(frames != 1 for _, _, frames in sizes):
        raise UsageError("--random-mm-bucket-config: got a video; takes images (1 frame)")
    least = math.floor(pictures.count * (1 - pictures.ratio))
    most = min(pictures.limit, math.ceil(pictures.count * (1 + pictures.ratio)))
    if least > most:
        raise UsageError(f"--random-mm-limit-mm-per-prompt: got {pictures.limit} images, but a request has {least} or more")
    shares = np.array([pictures.buckets[size] for size in sizes])
    for _ in range(int(draw.integers(least, most + 1))):
        height, width, _ = sizes[int(draw.choice(len(sizes), p=shares / shares.sum()))]
        yield _jpeg(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _jpeg(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
