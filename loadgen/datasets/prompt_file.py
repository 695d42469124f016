"""The data sets that are files: `custom` (JSONL of prompts) and `sharegpt` (JSON of conversations).

Knows their rows; must not know who counts tokens. Law: a row that cannot be used is refused by its number or, in a conversation file,
left out by vLLM's own rule; nothing is guessed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from clients.errors import UsageError
from loadgen.datasets.sample import DataSet, Sample, oversampled, shuffled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from loadgen.datasets.tokens import TextSource

# Which conversations vLLM takes: of 4 tokens or more each way (the answer's only where it decides the length), so long at most.
_SHORTEST, _LONGEST_PROMPT, _LONGEST_BOTH = 4, 1024, 2048


def custom(path: Path, count: int, source: TextSource | None, *, output_len: int, shuffle: bool, oversample: bool, seed: int) -> DataSet:
    """Rows of `{"prompt": …, "output_tokens": …}`. count 0: all of them; output_len -1: by each row's own output_tokens.

    source: None leaves it to the server how long the prompts are.
    """
    rows = [_sample(value, number, path, output_len, source) for number, value in _objects(path)]
    if not rows:
        raise UsageError(f"--dataset-path: {path} has no prompt in it; takes one JSON object a line, with prompt in it")
    return _data_set(rows if not shuffle else shuffled(rows, seed), path, count, seed, oversample=oversample)


def sharegpt(path: Path, count: int, source: TextSource, *, output_len: int | None, shuffle: bool, oversample: bool, seed: int) -> DataSet:
    """Conversations: the first turn is sent, as long as the second is answered. output_len: in place of that; count 0: all of them."""
    content = _content(path)
    try:
        entries = json.loads(content)
    except ValueError as error:
        raise UsageError(f"--dataset-path: {path} is no JSON: {error}") from None
    if not isinstance(entries, list):
        raise UsageError(f"--dataset-path: {path} is a JSON {type(entries).__name__}; takes a list of conversations")
    talks = [talk for entry in entries if (talk := _turns(entry)) is not None]
    samples: list[Sample] = []
    for talk in shuffled(talks, seed) if shuffle else talks:
        if count and len(samples) == count:
            break
        prompt, answer = talk
        sample = Sample(
            prompt=prompt, input_len=source.count(prompt), output_len=source.count(answer) if output_len is None else output_len
        )
        if _taken(sample, answered=output_len is None):
            samples.append(sample)
    if not samples:
        raise UsageError(
            f"--dataset-path: {path} has no conversation that is taken: two turns, a prompt of {_SHORTEST} to {_LONGEST_PROMPT} tokens, "
            f"at most {_LONGEST_BOTH} with the answer"
        )
    return _data_set(samples, path, count, seed, oversample=oversample, notes=[source.note])


def _turns(entry: Any) -> tuple[str, str] | None:
    """The first two turns' texts; None where there are not two."""
    turns = entry.get("conversations") if isinstance(entry, dict) else None
    if not isinstance(turns, list) or len(turns) < 2:
        return None
    first, second = (turn.get("value") if isinstance(turn, dict) else None for turn in turns[:2])
    return (first, second) if isinstance(first, str) and isinstance(second, str) else None


def _taken(sample: Sample, *, answered: bool) -> bool:
    if sample.input_len < _SHORTEST or (answered and sample.output_len < _SHORTEST):
        return False
    return sample.input_len <= _LONGEST_PROMPT and sample.input_len + sample.output_len <= _LONGEST_BOTH


def _data_set(rows: list[Sample], path: Path, count: int, seed: int, *, oversample: bool, notes: Sequence[str] = ()) -> DataSet:
    said = list(notes)
    samples = rows[:count] if count else rows
    if len(samples) < count:
        if oversample:
            samples = oversampled(samples, count, seed)
            said.append(f"{path.name}: {len(rows)} prompts for {count} requests: {count - len(rows)} are sent again")
        else:
            said.append(f"{path.name}: {len(rows)} prompts, {count} asked for: --no-oversample")
    return DataSet(samples=samples, name=f"{len(samples)} prompts of {path.name}", notes=said)


def _sample(value: Any, number: int, path: Path, output_len: int, source: TextSource | None) -> Sample:
    prompt = value.get("prompt") if isinstance(value, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError(f"--dataset-path: {path}: row {number} has no text as its prompt")
    if output_len == -1:
        tokens = value.get("output_tokens")
        if type(tokens) is not int or tokens < 1:
            raise UsageError(
                f"--dataset-path: {path}: row {number} has output_tokens {tokens!r}; takes a number from 1, or --custom-output-len"
            )
        output_len = tokens
    return Sample(prompt=prompt, input_len=source.count(prompt) if source else 0, output_len=output_len)


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    # Split at LF alone: U+2028 and its like stand in texts.
    for number, line in enumerate(_content(path).split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise UsageError(f"--dataset-path: {path}: row {number} is no JSON: {error}") from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"--dataset-path: cannot read {str(path)!r} ({error.strerror})") from None
