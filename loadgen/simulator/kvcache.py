"""The KV cache in tokens, and which prompt prefixes it remembers.

Knows token counts and block hashes; must not know sequences, steps or time.
Law: 0 <= used <= capacity, and remembered blocks never exceed the blocks that fit the capacity.
A hit saves computing, not space: each sequence holds its own tokens (vLLM shares the blocks; this errs to the fuller side).
"""

from collections import OrderedDict
from collections.abc import Sequence as Seq
from typing import Final

BLOCK_TOKENS: Final = 16  # vLLM's default block on CUDA


class KVCache:
    """Space of one engine, with an LRU of prefix blocks."""

    __slots__ = ("_blocks", "_max_blocks", "capacity", "prefix", "used")

    def __init__(self, capacity: int, *, prefix: bool) -> None:
        self.capacity = capacity
        self.used = 0
        self.prefix = prefix
        self._max_blocks = capacity // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        return self.capacity - self.used

    def take(self, tokens: int) -> None:
        self.used += tokens
        assert self.used <= self.capacity, "KV cache over capacity"

    def give_back(self, tokens: int) -> None:
        self.used -= tokens
        assert self.used >= 0, "KV cache below zero"

    def hit_tokens(self, hashes: Seq[int], prompt_tokens: int) -> int:
        """Tokens of the longest remembered prefix; at least the last prompt token is always computed (it yields the first output)."""
        if not self.prefix:
            return 0
        hits = 0
        for block in hashes:
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            hits += 1
        return min(hits, (prompt_tokens - 1) // BLOCK_TOKENS) * BLOCK_TOKENS

    def remember(self, hashes: Seq[int]) -> None:
        if not self.prefix:
            return
        for block in hashes:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._max_blocks:
            self._blocks.popitem(last=False)
