"""Models by name: where each is served, what its server admits, what is recommended for it.

Knows profiles and the files they come from; opens no connection. Grid values and simulator timing are not here: they belong to
loadgen. A models file is TOML or YAML with one table `models`, by name; what it says of a name that is known changes only the
keys it gives.
Invariant: a profile that exists can be used; every error of a file names the file and the key, and no repr shows a key.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from clients.config import read_yaml
from clients.endpoint import Endpoint
from clients.errors import UsageError
from clients.secret import Secret
from clients.settings import API_KEY_ENV, BASE_URL_ENV, DEFAULT_BASE_URL

MODELS_ENV = "LOADGEN_MODELS"
MODELS_FILE = "models.yaml"  # of the working directory, where neither argument nor environment names one
_SHIPPED = Path(__file__).with_name("models.toml")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class ModelProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model. served_name: what requests call it, its own name if None. Limits are the server's; None: not known.

    api_key: best `"${VARIABLE}"`, looked up when the key is needed; None: the variable that api_key_env names, if it is set.
    recommended_*: (lowest, highest). max_pixels: images are scaled down to it; None: files are sent as they are.
    """

    name: str
    kind: Literal["llm", "vlm"] = "llm"
    base_url: str = DEFAULT_BASE_URL
    served_name: str | None = None
    api_key_env: str = API_KEY_ENV
    api_key: str | None = None
    hardware: str = ""
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    recommended_batch_size: tuple[int, int] | None = None
    recommended_concurrency: tuple[int, int] | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        Endpoint.parse(self.base_url)
        for field in ("max_num_seqs", "max_num_batched_tokens", "max_pixels"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise UsageError(f"{field}: got {value}, takes a whole number of at least 1")
        for field in ("recommended_batch_size", "recommended_concurrency"):
            span = getattr(self, field)
            if span is not None and not 1 <= span[0] <= span[1]:
                raise UsageError(f"{field}: got {list(span)}, takes the lowest and the highest, from 1")

    @property
    def model(self) -> str:
        """The name that requests carry."""
        return self.served_name or self.name

    def resolved_base_url(self) -> str:
        """The profile's base URL, unless LOADGEN_BASE_URL names another."""
        return os.environ.get(BASE_URL_ENV) or self.base_url

    def secret(self) -> Secret | None:
        """The key, environment variables filled in. Raises UsageError naming a variable that is not set, never a value."""
        if self.api_key is None:
            return Secret.from_env(self.api_key_env)

        def value(match: re.Match[str]) -> str:
            found = os.environ.get(match[1])
            if not found:
                raise UsageError(f"api_key of model {self.name}: the environment variable {match[1]} is not set")
            return found

        return Secret(_VARIABLE.sub(value, self.api_key))

    def __rich_repr__(self) -> list[tuple[str, object]]:
        shown = {field: getattr(self, field) for field in self.__struct_fields__ if field != "api_key"}
        return [(field, value) for field, value in shown.items() if value is not None and value != ""]

    def __repr__(self) -> str:
        return f"ModelProfile({', '.join(f'{field}={value!r}' for field, value in self.__rich_repr__())})"


class ModelRegistry:
    """The shipped profiles, and over them those of a file: `path`, else of LOADGEN_MODELS, else ./models.yaml if it is there.

    Raises UsageError for a file that cannot be read or used.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._profiles: dict[str, ModelProfile] = {}
        self.load(_SHIPPED)
        chosen = path or os.environ.get(MODELS_ENV) or (MODELS_FILE if Path(MODELS_FILE).is_file() else None)
        if chosen is not None:
            self.load(chosen)

    def __repr__(self) -> str:
        return f"<ModelRegistry {', '.join(self._profiles)}>"

    def register(self, profile: ModelProfile) -> None:
        """Adds a profile, or puts it in the place of the one of its name."""
        self._profiles[profile.name] = profile

    def get(self, name: str) -> ModelProfile:
        """The profile of a name. Raises UsageError with the nearest name and all there are."""
        profile = self._profiles.get(name)
        if profile is None:
            nearest = difflib.get_close_matches(name, self._profiles, n=1)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            raise UsageError(f"model: no profile named {name!r}; {hint}there are: {', '.join(sorted(self._profiles))}")
        return profile

    def list(self) -> list[ModelProfile]:
        """All profiles, in the order they were registered."""
        return [*self._profiles.values()]

    def load(self, path: str | os.PathLike[str]) -> None:
        """Registers what a file has, over what is known: all of it, or nothing where it raises UsageError."""
        entries = _read(path)
        loaded = [self._updated(name, entry, path) for name, entry in entries.items()]
        for profile in loaded:
            self.register(profile)

    def _updated(self, name: str, entry: object, path: str | os.PathLike[str]) -> ModelProfile:
        where = f"{os.fspath(path)}: models.{name}"
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: is {type(entry).__name__}, takes the keys of a profile")
        known = ModelProfile.__struct_fields__[1:]  # its name is the key it stands under
        for key in entry:
            if key not in known:
                nearest = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {nearest[0]}?" if nearest else f"takes {', '.join(known)}"
                raise UsageError(f"{where}.{key}: no key of a profile; {hint}")
        before = self._profiles.get(name)
        fields = {"name": name, **(msgspec.structs.asdict(before) if before else {}), **entry}
        try:
            return msgspec.convert(fields, ModelProfile)
        except msgspec.ValidationError as fault:
            message, _, key = str(fault).partition(" - at `$")
            # Of one key msgspec names the place; what __post_init__ refuses names its field itself.
            raise UsageError(f"{where}{key.rstrip('`')}: {message}" if key else f"{where}.{message}") from None


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The table `models` of a file; its suffix says whether it is TOML or YAML."""
    shown = os.fspath(path)
    suffix = Path(path).suffix.lower()
    document: object
    if suffix in (".yaml", ".yml"):
        document = read_yaml(path)
    elif suffix == ".toml":
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"{shown}: cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{shown}: not TOML: {error}") from None
    else:
        raise UsageError(f"models file: got {shown!r}, takes a name that ends in .yaml, .yml or .toml")
    if not isinstance(document, dict) or not isinstance(document.get("models"), dict):
        raise UsageError(f"{shown}: has no table models, takes models: {{name: {{kind: …, base_url: …}}}}")
    others = sorted(set(document) - {"models"})
    if others:
        raise UsageError(f"{shown}: {others[0]}: not a key of a models file, takes models")
    return {str(name): entry for name, entry in document["models"].items()}
