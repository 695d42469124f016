"""How many tokens a prompt has, and which blocks of it a prefix cache would know.

Knows a written rule, for there is no tokenizer: ceil(UTF-8 bytes / 4) of each text, 4 per chat message, 3 per chat, and of each image one
per square of `image_token_pixels` of the size in its header, plus 2. Must not know JSON or HTTP.
Law: equal prompts have equal counts and blocks, and prompts that differ early share no block after the difference.
"""

import math
from typing import Final

from loadgen.simulator.kvcache import BLOCK_TOKENS
from loadgen.simulator.settings import SimulatorSettings

BYTES_PER_TOKEN: Final = 4
MESSAGE_TOKENS: Final = 4  # role and separators, about what ChatML takes
CHAT_TOKENS: Final = 3  # the start of the answer's turn
IMAGE_EXTRA_TOKENS: Final = 2  # vision start and end


class Prompt:
    """Counts of one prompt; `blocks` identify its prefixes of 16, 32, ... tokens."""

    __slots__ = ("blocks", "pixels", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.pixels = 0
        self.blocks: list[int] = []


def text_tokens(text: str) -> int:
    """The written rule: a quarter of the UTF-8 bytes, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def image_tokens(width: int, height: int, settings: SimulatorSettings) -> tuple[int, int]:
    """(tokens, pixels that are encoded) of an image, after scaling down to `image_max_pixels`."""
    shrink = min(1.0, math.sqrt(settings.image_max_pixels / (width * height)))
    width, height = max(1, int(width * shrink)), max(1, int(height * shrink))
    side = settings.image_token_pixels
    return math.ceil(width / side) * math.ceil(height / side) + IMAGE_EXTRA_TOKENS, width * height


class Chain:
    """Block hashes of a prompt, each over all that comes before it, as vLLM's prefix cache has them."""

    __slots__ = ("_blocks", "_last", "_rest", "_wanted")

    def __init__(self, prompt: Prompt, *, wanted: bool) -> None:
        self._blocks = prompt.blocks
        self._wanted = wanted
        self._rest = ""
        self._last = 0

    def text(self, text: str) -> None:
        if not self._wanted:
            return
        size = BLOCK_TOKENS * BYTES_PER_TOKEN
        text = self._rest + text
        whole = len(text) - len(text) % size
        for start in range(0, whole, size):
            self._last = hash((self._last, text[start : start + size]))
            self._blocks.append(self._last)
        self._rest = text[whole:]

    def image(self, uri: str, tokens: int) -> None:
        if not self._wanted:
            return
        self._last = hash((self._last, self._rest, uri))
        self._rest = ""
        for number in range(tokens // BLOCK_TOKENS):
            self._last = hash((self._last, number))
            self._blocks.append(self._last)
