"""How long a text is in tokens, and texts of a wanted length: by a tokenizer, or by what a server said of a few probes.

Knows texts, numbers of tokens and the `tokenizers` library (an extra, imported on first use); must not know endpoints: a probe is a function.
Law: a length is counted, or what says it is called an estimate; both kinds draw from the generator they are given and from nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from clients.errors import UsageError
from loadgen.prompts import WORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator

_FITS = 10  # decoded text may read as other tokens: vLLM tries so often to come to the wanted number


class TextSource(Protocol):
    """Makes texts and measures them. specials: tokens that are put around a text; vocabulary: how many places a text may begin at."""

    @property
    def specials(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def note(self) -> str:
        """How lengths are known, for the report."""

    def count(self, text: str) -> int:
        """Tokens of a text, specials included."""

    def prefix(self, length: int, draw: Generator) -> list[int]:
        """The beginning that all texts share, as the source's own numbers."""

    def text(self, prefix: list[int], length: int, total: int, begin: int, draw: Generator) -> tuple[str, int]:
        """A text of the prefix and `length` tokens more, `total` together (a prefix may be a token off), and the tokens it has."""


class Tokens:
    """A tokenizer: exact, and for the same tokenizer and seed the very texts that vLLM's client makes."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.name = name
        self.note = f"lengths counted with the tokenizer {name}"
        self._tokenizer = tokenizer
        self.specials: int = tokenizer.num_special_tokens_to_add(False)
        self.vocabulary: int = tokenizer.get_vocab_size(with_added_tokens=False)
        special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._allowed = np.array([number for number in range(self.vocabulary) if number not in special])

    @classmethod
    def load(cls, name: str, *, fetch: bool = True) -> Self | None:
        """The tokenizer of a file, a directory or a name on the hub. fetch: it was asked for by name.

        None where it was not asked for and is not on this machine. Raises UsageError where it was and cannot be had.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError:
            if not fetch:
                return None
            raise UsageError(
                "--tokenizer: needs the library: pip install 'loadgen[tokenizers]'; takes none with --skip-tokenizer-init"
            ) from None
        path = Path(name)
        path = path / "tokenizer.json" if path.is_dir() else path
        kept = path if path.is_file() else None if fetch else _kept(name)
        if kept is None and not fetch:
            return None
        try:
            tokenizer = Tokenizer.from_pretrained(name) if kept is None else Tokenizer.from_file(str(kept))
        except Exception as error:
            raise UsageError(
                f"--tokenizer: cannot read {name!r}: {error}; takes tokenizer.json, its directory, or a name on the hub"
            ) from None
        return cls(tokenizer, name)

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text).ids)

    def prefix(self, length: int, draw: Generator) -> list[int]:
        if not length:
            return []
        return self._fitted(self._allowed[draw.integers(0, len(self._allowed), size=length)].tolist(), length, draw)[1]

    def text(self, prefix: list[int], length: int, total: int, begin: int, draw: Generator) -> tuple[str, int]:
        following = self._allowed[(begin + np.arange(length)) % len(self._allowed)].tolist()
        text, numbers = self._fitted(prefix + following, total, draw)
        return text, len(numbers)

    def _fitted(self, numbers: list[int], length: int, draw: Generator) -> tuple[str, list[int]]:
        """Text whose tokens are as many as wanted, as near as it comes: what was decoded is encoded again, cut or lengthened."""
        for left in range(_FITS, -1, -1):
            text = self._tokenizer.decode(numbers, skip_special_tokens=False)
            numbers = self._tokenizer.encode(text, add_special_tokens=False).ids
            if not left or len(numbers) == length:
                break
            numbers = numbers[:length] + draw.integers(0, self.vocabulary, size=max(0, length - len(numbers))).tolist()
        return text, numbers


class Calibration:
    """No tokenizer: words, and how many tokens the server says they are.

    overhead: what the server puts around a prompt (its template, specials); specials: the part of it that a wanted length includes.
    """

    def __init__(self, overhead: int, per_word: float, per_character: float, *, templated: bool) -> None:
        self.overhead = overhead
        self.per_word = per_word
        self.per_character = per_character
        self.specials = 0 if templated else overhead
        self.vocabulary = len(WORDS)
        self.note = f"lengths estimated: by 3 probes the server counts {per_word:.3f} tokens a word, and {overhead} around a prompt"

    @classmethod
    def measured(cls, ask: Callable[[str], int | None], *, templated: bool) -> Self:
        """Ask the server how long three prompts are: one half of the words, the other, and all of them.

        What is around a prompt is in the halves twice and in the whole once. ask: its usage.prompt_tokens of a prompt, None where it tells
        none. templated: the server puts a template around prompts, which a length does not include. Raises UsageError where it tells none.
        """
        half = len(WORDS) // 2
        texts = [" ".join(words) for words in (WORDS[:half], WORDS[half:], WORDS)]
        told = [tokens for text in texts if (tokens := ask(text)) is not None]
        if len(told) < len(texts):
            raise UsageError("--tokenizer: missing, and the server tells no usage.prompt_tokens to calibrate the length of prompts by")
        overhead = max(0, told[0] + told[1] - told[2])
        words = max(1, told[2] - overhead)
        return cls(overhead, words / len(WORDS), words / len(texts[2]), templated=templated)

    def count(self, text: str) -> int:
        return max(1, round(len(text) * self.per_character)) + self.specials

    def prefix(self, length: int, draw: Generator) -> list[int]:
        return self._drawn(round(length / self.per_word), draw)

    def text(self, prefix: list[int], length: int, total: int, begin: int, draw: Generator) -> tuple[str, int]:  # noqa: ARG002  # the protocol's: words are few, and rows of them would repeat
        numbers = prefix + self._drawn(max(0 if prefix else 1, round(length / self.per_word)), draw)
        return " ".join(WORDS[number] for number in numbers), round(len(numbers) * self.per_word)

    def _drawn(self, count: int, draw: Generator) -> list[int]:
        """Every word once before any comes again: then so many words have about the tokens of as many others."""
        numbers: list[int] = []
        while len(numbers) < count:
            numbers += draw.permutation(len(WORDS)).tolist()
        return numbers[:count]


def _kept(name: str) -> Path | None:
    """The hub's own copy on this machine."""
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, "tokenizer.json")
    except Exception:  # whatever it does not like of a name, there is no copy of it
        return None
    return Path(found) if isinstance(found, str) else None
