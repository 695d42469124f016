"""Writes docs/run-json.md from the Structs that run.json is made of: `python scripts/describe_run_json.py > docs/run-json.md`.

Knows msgspec's JSON schema; a test compares the file with what this writes.
"""

import sys
from typing import Any

import msgspec

from loadgen.document import Document
from loadgen.summary import SCHEMA

_HEAD = f"""# run.json, schema {SCHEMA}

Written by `python scripts/describe_run_json.py`; do not edit. Every run leaves one, `--json` prints it, `loadgen report RUN` makes it
again from the records. Times are seconds, rates are per second, shares lie in 0..1; `null` is "not measured", never 0. A field that
changes its meaning raises the schema; new fields do not.
"""


def described() -> str:
    """The whole page."""
    schema = msgspec.json.schema(Document)
    return "\n".join([_HEAD, *(_section(name, schema["$defs"][name]) for name in _in_order(schema))])


def _in_order(schema: dict[str, Any]) -> list[str]:
    """The objects, each after the one that first names it."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            order.append(name)
            for other in _named(schema["$defs"][name]):
                visit(other)

    visit("Document")
    return order


def _named(part: Any) -> list[str]:
    if isinstance(part, dict):
        found = [part["$ref"].rpartition("/")[2]] if "$ref" in part else []
        return found + [name for value in part.values() for name in _named(value)]
    if isinstance(part, list):
        return [name for value in part for name in _named(value)]
    return []


def _section(name: str, part: dict[str, Any]) -> str:
    text = "\n".join(line.strip() for line in part.get("description", "").splitlines())
    rows = [f"| `{field}` | {_type(kind)} |" for field, kind in part["properties"].items()]
    return "\n".join([f"## {name}", "", text, "", "| field | type |", "|---|---|", *rows, ""])


def _type(kind: dict[str, Any]) -> str:
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in kind:
        return " or ".join(_type(one) for one in kind["anyOf"])
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind.get("type") == "array":
        inner = kind.get("items") or kind.get("prefixItems", [{}])[0]
        return f"list of {_type(inner) if isinstance(inner, dict) else 'values'}"
    if kind.get("type") == "object" and isinstance(kind.get("additionalProperties"), dict):
        return f"object of {_type(kind['additionalProperties'])}"
    return str(kind.get("type", "any"))


if __name__ == "__main__":
    sys.stdout.write(described())
