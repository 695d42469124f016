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
_SHORT_WORDS, _LONG_WORDS = 8, 72  # the first two probes: short enough for any server's context
_PROBES = 4  # at the wanted length: the mean of so many words is within 1 % of theirs


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

    def text(self, prefix: list[int], length: int, begin: int, draw: Generator) -> tuple[str, int]:
        """A text of the prefix and `length` tokens more, and the tokens it has."""


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

    def text(self, prefix: list[int], length: int, begin: int, draw: Generator) -> tuple[str, int]:
        following = self._allowed[(begin + np.arange(length)) % len(self._allowed)].tolist()
        text, numbers = self._fitted(prefix + following, len(prefix) + length, draw)
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

    def __init__(self, overhead: float, per_word: float, per_character: float, *, templated: bool) -> None:
        self.overhead = overhead
        self.per_word = per_word
        self.per_character = per_character
        self.specials = 0 if templated else round(overhead)
        self.vocabulary = len(WORDS)
        self.note = (
            f"lengths estimated: the server counts {per_word:.3f} tokens a word and {overhead:.0f} around a prompt, by {2 + _PROBES} probes"
        )

    @classmethod
    def measured(cls, ask: Callable[[str], int | None], length: int, *, templated: bool, seed: int) -> Self:
        """Ask the server how long a few prompts are. ask: its usage.prompt_tokens of one, None where it tells none.

        length: tokens of the prompts to come. templated: the server puts a template around them, which a length does not include.
        Raises UsageError where it tells none.
        """
        draw = np.random.default_rng([seed, 1])  # prompts of no data set

        def told(words: int) -> tuple[int, int]:
            text = _words(draw.integers(0, len(WORDS), size=words).tolist())
            tokens = ask(text)
            if tokens is None:
                raise UsageError("--tokenizer: missing, and the server tells no usage.prompt_tokens to calibrate the length of prompts by")
            return tokens, len(text)

        (short, _), (long, _) = told(_SHORT_WORDS), told(_LONG_WORDS)
        per_word = max((long - short) / (_LONG_WORDS - _SHORT_WORDS), 1e-3)
        overhead = max(short - per_word * _SHORT_WORDS, 0.0)
        words = max(1, round(length / per_word))
        probes = [told(words) for _ in range(_PROBES)]
        tokens = sum(count for count, _ in probes) - _PROBES * overhead
        return cls(overhead, tokens / (_PROBES * words), tokens / sum(size for _, size in probes), templated=templated)

    def count(self, text: str) -> int:
        return max(1, round(len(text) * self.per_character)) + self.specials

    def prefix(self, length: int, draw: Generator) -> list[int]:
        numbers: list[int] = draw.integers(0, len(WORDS), size=round(length / self.per_word)).tolist()
        return numbers

    def text(self, prefix: list[int], length: int, begin: int, draw: Generator) -> tuple[str, int]:  # noqa: ARG002  # the protocol's: words are few, and rows of them would repeat
        words = max(0 if prefix else 1, round(length / self.per_word))
        numbers = prefix + draw.integers(0, len(WORDS), size=words).tolist()
        return _words(numbers), round(len(numbers) * self.per_word)


def _words(numbers: list[int]) -> str:
    return " ".join(WORDS[number] for number in numbers)


def _kept(name: str) -> Path | None:
    """The hub's own copy on this machine."""
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, "tokenizer.json")
    except Exception:  # whatever it does not like of a name, there is no copy of it
        return None
    return Path(found) if isinstance(found, str) else None
