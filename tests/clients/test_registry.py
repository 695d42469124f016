"""Models by name, from the package, from files and from code."""

from __future__ import annotations

import pytest

from clients.errors import UsageError
from clients.registry import ModelProfile, ModelRegistry
from clients.secret import Secret


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """No variable and no models.yaml of the machine that runs this."""
    for name in ("LOADGEN_MODELS", "LOADGEN_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_three_profiles_are_shipped() -> None:
    """With the limits and recommendations of the original documentation."""
    registry = ModelRegistry()
    assert [p.name for p in registry.list()] == ["gpt-oss-20b", "qwen2.5-coder-14b-qiskit", "olmocr"]
    for name in ("gpt-oss-20b", "qwen2.5-coder-14b-qiskit"):
        profile = registry.get(name)
        assert (profile.kind, profile.hardware, profile.max_num_seqs, profile.max_num_batched_tokens) == ("llm", "A100 80GB", 128, 65536)
        assert (profile.recommended_batch_size, profile.recommended_concurrency) == ((20, 32), (50, 100))
    olmocr = registry.get("olmocr")
    assert (olmocr.kind, olmocr.hardware, olmocr.max_num_seqs) == ("vlm", "RTX 5090", 4)
    assert (olmocr.recommended_batch_size, olmocr.recommended_concurrency) == ((2, 4), (2, 4))
    assert {p.base_url for p in registry.list()} == {"http://localhost:8000/v1"}


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    """One line to correct the command by."""
    with pytest.raises(UsageError, match="'olmoc'; did you mean olmocr.*gpt-oss-20b, olmocr, qwen"):
        ModelRegistry().get("olmoc")


def test_a_profile_can_be_registered() -> None:
    """It is found by its name, which requests carry unless it is served under another."""
    registry = ModelRegistry()
    registry.register(ModelProfile(name="mine", served_name="org/mine-7b", base_url="https://gpu.example/v1"))
    assert registry.get("mine").model == "org/mine-7b"
    assert registry.get("olmocr").model == "olmocr"
    assert registry.list()[-1].name == "mine"


YAML = """
models:
  mine:
    kind: vlm
    base_url: http://gpu-3:9000/v1
    max_num_seqs: 8
    recommended_batch_size: [2, 4]
  olmocr:
    base_url: http://gpu-4:8000/v1   # everything else stays as shipped
"""
TOML = """
[models.mine]
kind = "vlm"
base_url = "http://gpu-3:9000/v1"
max_num_seqs = 8
recommended_batch_size = [2, 4]
[models.olmocr]
base_url = "http://gpu-4:8000/v1"
"""


@pytest.mark.parametrize(("name", "text"), [("models.yaml", YAML), ("m.yml", YAML), ("m.toml", TOML)])
def test_a_file_adds_profiles_and_changes_keys_of_known_ones(tmp_path, name, text) -> None:
    """YAML and TOML say the same."""
    path = tmp_path / name
    path.write_text(text)
    registry = ModelRegistry(path)
    mine = registry.get("mine")
    assert (mine.kind, mine.base_url, mine.max_num_seqs, mine.recommended_batch_size) == ("vlm", "http://gpu-3:9000/v1", 8, (2, 4))
    assert registry.get("olmocr").base_url == "http://gpu-4:8000/v1"
    assert registry.get("olmocr").max_num_seqs == 4


def test_the_file_is_the_argument_else_the_variable_else_models_yaml(tmp_path, monkeypatch) -> None:
    """In this order, and only one of them."""
    for name in ("models.yaml", "by-variable.yaml", "by-argument.yaml"):
        (tmp_path / name).write_text(f"models: {{from-{name.removesuffix('.yaml')}: {{}}}}")
    assert "from-models" in repr(ModelRegistry())
    monkeypatch.setenv("LOADGEN_MODELS", str(tmp_path / "by-variable.yaml"))
    assert "from-by-variable" in repr(ModelRegistry())
    assert "from-by-argument" in repr(ModelRegistry(tmp_path / "by-argument.yaml"))
    assert "from-models" not in repr(ModelRegistry(tmp_path / "by-argument.yaml"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("models: {a: {base_ur: x}}", "models.a.base_ur: no key of a profile; did you mean base_url?"),
        ("models: {a: {zzz: x}}", "models.a.zzz: no key of a profile; takes kind, base_url"),
        ("models: {a: {name: b}}", "models.a.name: no key of a profile"),
        ("models: {a: {kind: audio}}", "models.a.kind: Invalid enum value 'audio'"),
        ("models: {a: {max_num_seqs: many}}", "models.a.max_num_seqs: Expected `int | null`, got `str`"),
        ("models: {a: {max_num_seqs: 0}}", "models.a.max_num_seqs: got 0"),
        ("models: {a: {recommended_batch_size: [4, 2]}}", "models.a.recommended_batch_size: got [4, 2]"),
        ("models: {a: {recommended_batch_size: [4]}}", "models.a.recommended_batch_size: Expected `array` of length 2"),
        ("models: {a: {base_url: gpu-3}}", "models.a.base_url: got 'gpu-3'"),
        ("models: {a: 5}", "models.a: is int"),
        ("model: {a: {}}", "has no table models"),
        ("models: {}\nextra: 1", "extra: not a key of a models file"),
        ("models: [a", "not YAML"),
    ],
)
def test_an_error_names_the_file_and_the_key(tmp_path, text, named) -> None:
    """One line, nothing of the file is registered."""
    path = tmp_path / "m.yaml"
    path.write_text(text)
    registry = ModelRegistry()
    with pytest.raises(UsageError) as caught:
        registry.load(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert len(registry.list()) == 3


@pytest.mark.parametrize(
    ("name", "named"), [("m.json", "takes a name that ends in"), ("none.yaml", "cannot be read"), ("none.toml", "cannot be read")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, named) -> None:
    """Suffix and existence."""
    with pytest.raises(UsageError, match=named):
        ModelRegistry(tmp_path / name)


def test_a_broken_toml_file_is_named_with_its_line(tmp_path) -> None:
    """tomllib knows the place."""
    (tmp_path / "m.toml").write_text("[models.a]\nkind = \n")
    with pytest.raises(UsageError, match=r"m\.toml: not TOML: .*line 2"):
        ModelRegistry(tmp_path / "m.toml")


def test_a_key_is_looked_up_when_it_is_needed_and_never_shown(monkeypatch) -> None:
    """A file that names a variable can be loaded without it; using it cannot."""
    profile = ModelProfile(name="a", api_key="${GATEWAY_KEY}")
    with pytest.raises(UsageError, match="api_key of model a: the environment variable GATEWAY_KEY is not set"):
        profile.secret()
    monkeypatch.setenv("GATEWAY_KEY", "sk-topsecret")
    assert profile.secret() == Secret("sk-topsecret")
    assert "sk-topsecret" not in repr(profile)
    assert "sk-plain" not in repr(ModelProfile(name="a", api_key="sk-plain"))
    assert ModelProfile(name="a", api_key="pre-${GATEWAY_KEY}").secret() == Secret("pre-sk-topsecret")


def test_without_a_key_of_its_own_the_variable_is_asked(monkeypatch) -> None:
    """OPENAI_API_KEY unless the profile names another; none is no key."""
    assert ModelProfile(name="a").secret() is None
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("OTHER", "sk-2")
    assert ModelProfile(name="a").secret() == Secret("sk-1")
    assert ModelProfile(name="a", api_key_env="OTHER").secret() == Secret("sk-2")


def test_the_environment_overrides_the_base_url(monkeypatch) -> None:
    """LOADGEN_BASE_URL, for all profiles."""
    assert ModelProfile(name="a", base_url="http://x/v1").resolved_base_url() == "http://x/v1"
    monkeypatch.setenv("LOADGEN_BASE_URL", "http://y/v1")
    assert ModelProfile(name="a", base_url="http://x/v1").resolved_base_url() == "http://y/v1"
