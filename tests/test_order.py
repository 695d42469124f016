"""Rooms and layers: a file imports only from what is below it; no cycles."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def modules(package):
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in (ROOT / package).rglob("*.py")
    }


CLIENTS, LOADGEN = modules("clients"), modules("loadgen")


def imported(path, known):
    """The project's modules that a file imports when it is itself imported (not for types, not inside functions)."""
    found = set()

    def visit(nodes):
        for node in nodes:
            if isinstance(node, ast.If):
                typing_only = "TYPE_CHECKING" in ast.unparse(node.test)
                visit(node.orelse if typing_only else [*node.body, *node.orelse])
            elif isinstance(node, ast.Try):
                visit([*node.body, *node.orelse, *node.finalbody])
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                found.update(f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names)

    visit(ast.parse(path.read_text()).body)
    return found & known.keys()


def test_clients_knows_nothing_of_load():
    """The room that pipelines import reaches into no other one."""
    everything = CLIENTS | LOADGEN
    assert {m: sorted(i for i in imported(p, everything) if i.startswith("loadgen")) for m, p in CLIENTS.items()} == {
        m: [] for m in CLIENTS
    }


def test_the_simulator_stands_beside_the_load():
    """The simulator imports its own room only: what measures and what is measured share no code above the clients."""
    for module, path in LOADGEN.items():
        if module.startswith("loadgen.simulator"):
            above = {
                m
                for m in imported(path, LOADGEN)
                if not m.startswith(("loadgen.simulator", "loadgen.alarm", "loadgen.interpreter", "loadgen.quantities"))
            }
            assert not above - {"loadgen"}, module


def test_nothing_outside_the_wire_reaches_for_http():
    """Load reaches the wire only through clients."""
    for module, path in LOADGEN.items():
        names = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert "aiohttp" not in names, module
        assert "locust" not in names, module
        if not module.startswith("loadgen.simulator"):
            assert "httptools" not in names, module


def test_there_are_no_cycles():
    """Imports form an order: each module can be put after all that it imports."""
    everything = CLIENTS | LOADGEN
    below = {module: imported(path, everything) - {module} for module, path in everything.items()}
    placed = set()
    while ready := [m for m, needs in below.items() if m not in placed and needs <= placed]:
        placed.update(ready)
    assert sorted(below.keys() - placed) == []


def test_a_worker_imports_nothing_heavy():
    """What a worker holds is its loop and its share: no numpy, no tables, no images, no YAML."""
    heavy = ["numpy", "scipy", "rich", "PIL", "ruamel"]
    code = f"import loadgen.worker, sys; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert found.strip() == "[]"
