"""Data sets: text by text what vLLM's client makes of the same tokenizer, file and seed; without a tokenizer, of the wanted length."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from clients.errors import UsageError
from loadgen.datasets.prompt_file import custom, sharegpt
from loadgen.datasets.synthetic import Pictures, Texts, random_requests
from loadgen.datasets.tokens import Calibration, Tokens

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "vllm-bench"
VLLMS = json.loads((FIXTURES / "requests.json").read_text())
FILE = {"shuffle": True, "oversample": True, "seed": 5}


@pytest.fixture(scope="module")
def tokens():
    return Tokens.load(str(FIXTURES))


def rows(data):
    return [[sample.prompt, sample.input_len, sample.output_len] for sample in data.samples]


def test_random_prompts_are_those_of_vllm(tokens):
    """A prefix, lengths within a ratio, and texts whose tokens are counted again after decoding."""
    texts = Texts(input_len=20, output_len=10, prefix_len=5, input_ratio=0.4, output_ratio=0.4)
    assert rows(random_requests(texts, 8, tokens, 7)) == VLLMS["random"]


def test_random_images_come_in_vllms_numbers_and_leave_its_texts_as_they_are(tokens):
    """Pixels are drawn from the generator that draws the texts: one pixel more or less would change the next text."""
    pictures = Pictures(count=2, ratio=0.5, limit=255, buckets={(32, 48, 1): 0.5, (16, 16, 1): 0.5, (8, 8, 2): 0.0})
    data = random_requests(Texts(input_len=12, output_len=10, input_ratio=0.2, output_ratio=0.2), 4, tokens, 3, pictures)
    assert [[*row, len(sample.images)] for row, sample in zip(rows(data), data.samples, strict=True)] == VLLMS["random-mm"]
    uris = [uri for sample in data.samples for uri in sample.images]
    sizes = {Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))).size for uri in uris}
    assert len(set(uris)) == len(uris)
    assert sizes <= {(48, 32), (16, 16)}


def test_conversations_are_those_of_vllm(tokens):
    """Shuffled, too short ones left out, the rest drawn again up to the number."""
    assert rows(sharegpt(FIXTURES / "conversations.json", 12, tokens, output_len=None, **FILE)) == VLLMS["sharegpt"]


def test_custom_prompts_are_those_of_vllm(tokens):
    """By each row's output_tokens; without a tokenizer how long they are is the server's to say."""
    assert rows(custom(FIXTURES / "prompts.jsonl", 14, tokens, output_len=-1, **FILE)) == VLLMS["custom"]
    assert rows(custom(FIXTURES / "prompts.jsonl", 14, None, output_len=-1, **FILE)) == [
        [text, 0, asked] for text, _, asked in VLLMS["custom"]
    ]


def test_a_file_in_order_is_sent_in_order_and_not_again():
    """--disable-shuffle and --no-oversample; 0 is the whole file."""
    path = FIXTURES / "prompts.jsonl"
    in_file = [json.loads(line)["prompt"] for line in path.read_text().splitlines()]
    for count, sent in ((4, in_file[:4]), (0, in_file), (20, in_file)):
        data = custom(path, count, None, output_len=9, shuffle=False, oversample=False, seed=0)
        assert [one.prompt for one in data.samples] == sent
        assert {one.output_len for one in data.samples} == {9}
    assert data.notes == [f"prompts.jsonl: {len(in_file)} prompts, 20 asked for: --no-oversample"]


# Name of a file, its content, what is said of it.
BROKEN = [
    ("none.jsonl", None, "cannot read"),
    ("empty.jsonl", "\n\n", "no prompt in it"),
    ("json.jsonl", '{"prompt": "a", "output_tokens": 1}\n{"prompt": ', "row 2 is no JSON"),
    ("list.jsonl", "[1]", "row 1 has no text as its prompt"),
    ("blank.jsonl", '{"prompt": " "}', "row 1 has no text as its prompt"),
    ("tokens.jsonl", '{"prompt": "a", "output_tokens": 0}', "row 1 has output_tokens 0"),
    ("tokens.jsonl", '{"prompt": "a"}', "row 1 has output_tokens None"),
]


@pytest.mark.parametrize(("name", "content", "said"), BROKEN)
def test_a_row_that_cannot_be_sent_is_refused_by_its_number(tmp_path, name, content, said):
    """Before any load."""
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=f"--dataset-path: .*{said}"):
        custom(tmp_path / name, 5, None, output_len=-1, **FILE)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is no JSON"), ("{}", "a JSON dict"), ("[1, {}]", "no conversation"), ('[{"conversations": [{}, {}]}]', "no conversation")],
)
def test_a_file_without_conversations_is_refused(tmp_path, tokens, content, said):
    """By what it is instead."""
    (tmp_path / "talks.json").write_text(content)
    with pytest.raises(UsageError, match=f"--dataset-path: .*{said}"):
        sharegpt(tmp_path / "talks.json", 5, tokens, output_len=None, **FILE)


class Server:
    """Counts words as tokens, so many to a word on average, with something around every prompt."""

    def __init__(self, overhead, short, long):
        self.overhead, self.short, self.long, self.asked = overhead, short, long, 0

    def tokens(self, text):
        return self.overhead + sum(self.short if len(word) < 5 else self.long for word in text.split())

    def __call__(self, text):
        self.asked += 1
        return self.tokens(text)


@pytest.mark.parametrize(("overhead", "short", "long"), [(0, 1, 1), (1, 1, 2), (26, 1, 2), (7, 2, 5)])
@pytest.mark.parametrize("templated", [True, False])
def test_without_a_tokenizer_prompts_have_the_wanted_length_on_average(overhead, short, long, templated):
    """A template comes on top of it, special tokens do not. Three probes; words of the shared prefix are its luck: 3 % with this seed."""
    server = Server(overhead, short, long)
    source = Calibration.measured(server, templated=templated)
    assert (server.asked, source.overhead) == (3, overhead)
    data = random_requests(Texts(input_len=200, output_len=5, prefix_len=100), 50, source, 0)
    mean = sum(server.tokens(sample.prompt) for sample in data.samples) / 50
    assert mean == pytest.approx(300 + (overhead if templated else 0), rel=0.03)
    shared = data.samples[0].prompt.split()[: round(100 / source.per_word)]
    assert all(sample.prompt.split()[: len(shared)] == shared for sample in data.samples)
    assert len({sample.prompt for sample in data.samples}) == 50


def test_a_server_that_tells_no_usage_cannot_be_calibrated_by():
    """Then a tokenizer is needed, and the line says so."""
    with pytest.raises(UsageError, match="--tokenizer: missing"):
        Calibration.measured(lambda _: None, templated=False)


def test_a_tokenizer_is_read_from_a_file_or_its_directory_only(tmp_path):
    """One that was not named and is not on this machine is none; one that was named is refused."""
    assert Tokens.load(str(FIXTURES / "tokenizer.json")).count("hello") == Tokens.load(str(FIXTURES)).count("hello")
    assert Tokens.load(str(tmp_path), fetch=False) is None
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="--tokenizer: cannot read"):
        Tokens.load(str(tmp_path))


def test_lengths_that_leave_no_text_and_pictures_that_cannot_be_are_refused(tokens):
    """By the flag that asks for them."""
    texts = Texts(input_len=1, output_len=5)
    with pytest.raises(UsageError, match="--random-input-len: got 1, which with 1 special tokens"):
        random_requests(texts, 1, tokens, 0)
    texts = Texts(input_len=8, output_len=5)
    with pytest.raises(UsageError, match="--random-mm-bucket-config: got a video"):
        random_requests(texts, 1, tokens, 0, Pictures(count=1, ratio=0, limit=1, buckets={(8, 8, 2): 1.0}))
    with pytest.raises(UsageError, match="--random-mm-limit-mm-per-prompt: got 1 images"):
        random_requests(texts, 1, tokens, 0, Pictures(count=2, ratio=0, limit=1, buckets={(8, 8, 1): 1.0}))


def test_a_sharegpt_file_that_cannot_be_read_is_not_called_bad_json(tmp_path):
    """The refusal is the system's word, said once."""
    with pytest.raises(UsageError) as refused:
        sharegpt(tmp_path / "none.json", 1, None, output_len=None, shuffle=False, oversample=True, seed=0)
    assert str(refused.value) == f"--dataset-path: cannot read '{tmp_path / 'none.json'}' (No such file or directory)"
