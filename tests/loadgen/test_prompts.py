"""Prompts from files and generated ones."""

import json

import pytest

from clients.errors import UsageError
from loadgen.prompts import generated_prompts, load_prompts


def test_generated_prompts_have_their_length_and_differ():
    """`input_len` words each, no two alike, the same for the same seed."""
    prompts = generated_prompts(20, 50, seed=3)
    assert {len(prompt.split()) for prompt in prompts} == {50}
    assert len(set(prompts)) == 20
    assert prompts == generated_prompts(20, 50, seed=3)
    assert prompts[:5] == generated_prompts(5, 50, seed=3)
    assert prompts != generated_prompts(20, 50, seed=0)


def loaded(tmp_path, content, name="prompts.txt"):
    path = tmp_path / name
    path.write_bytes(content)
    return load_prompts(path)


@pytest.mark.parametrize(
    "content",
    [
        "one\ntwo é\n".encode(),
        b"\xef\xbb\xbfone\r\n\r\ntwo \xc3\xa9",  # B20: BOM, CRLF, a blank line, no newline at the end
        "one\ntwo é\n".encode("utf-16"),  # B20: UTF-16 with its mark
        "\ufeffone\ntwo é".encode("utf-16-be"),
    ],
)
def test_a_text_file_is_one_prompt_a_line(tmp_path, content):
    """In any of the encodings that editors write."""
    prompts = loaded(tmp_path, content)
    assert prompts.items == ["one", "two é"]
    assert prompts.name.startswith("2 prompts of prompts.txt (sha256 ")


def test_a_line_separator_of_unicode_is_no_line_end(tmp_path):
    """U+2028 stands in texts and in JSON strings."""
    assert loaded(tmp_path, "one\u2028still one\n".encode()).items == ["one\u2028still one"]


def test_jsonl_rows_are_prompts_or_messages(tmp_path):
    """Other fields are passed over: data sets have ids."""
    rows = [{"prompt": "hi", "id": 1}, {"messages": [{"role": "user", "content": "yo"}]}]
    content = "\n".join(map(json.dumps, rows)).encode()
    assert loaded(tmp_path, content, "p.jsonl").items == ["hi", [{"role": "user", "content": "yo"}]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.txt", b"", "has no prompt in it"),  # B19
        ("p.txt", b"\n \n\r\n", "has no prompt in it"),  # B19: blank lines only
        ("p.txt", b"ok\n\xff\xfebad\n", "row 2: byte 0 is no UTF-8"),  # B20
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": }\n', "row 2: column 12: "),  # B21
        ("p.jsonl", b'{"text": "a"}\n', "row 1: has the fields 'text'; takes exactly one of prompt and messages"),  # B22
        ("p.jsonl", b"[1]\n", "row 1: is a JSON list"),  # B22
        ("p.jsonl", b'{"prompt": " "}\n', "row 1: prompt: takes text"),  # B22
        ("p.jsonl", b'{"prompt": 5}\n', "row 1: prompt: takes text"),  # B22
        ("p.jsonl", b'{"messages": []}\n', "row 1: messages: takes a list"),  # B22
        ("p.jsonl", b'{"messages": [{"content": "x"}]}\n', "row 1: message 0"),  # B22
        ("p.jsonl", b'{"prompt": "\\ud800"}\n', "row 1: "),  # B23: a lone surrogate
        ("p.jsonl", b'{"prompt": 1}\n{"prompt": 2}\n{"prompt": 3}\n', "(and 2 more bad rows)"),  # B21: counted
        ("p.txt", b"a" * (8 * 1024 * 1024 + 1), "row 1: has 8,388,609 bytes"),  # B24
        ("p.txt", b"\x1f\x8b\x08\x00", "is gzip; takes plain .txt or .jsonl"),  # B27
        ("p.jsonl", b"PAR1....", "is Parquet"),  # B27
        ("p.txt", b"\xff\xfea", "begins as UTF-16 and is none"),  # half a character
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_row(tmp_path, name, content, said):
    """One line, before any load."""
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, content, name)
    assert str(caught.value).startswith("--prompts: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_usage_error(tmp_path):
    """And so is a directory."""
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            load_prompts(path)


def test_repeated_prompts_are_noted(tmp_path):
    """B25: a prefix cache would make them fast."""
    assert loaded(tmp_path, b"a\nb\na\n").notes == ["prompts.txt: 1 of 3 prompts repeat an earlier one"]
