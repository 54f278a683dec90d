"""What may import what (docs/design.md), and what must not stand in the tree; read from the source, nothing is run."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "m2io_jax"

# A folder of the package → the folders and files that it must not import, however small the reason.
FORBIDDEN = {
    "corpus": {"retrieval", "episodes", "tasks", "models", "sampling", "training", "evaluation", "serving", "config"},
    "retrieval": {"episodes", "tasks", "models", "sampling", "training", "evaluation", "serving", "config"},
    "episodes": {"tasks", "sampling", "rl", "training", "evaluation", "serving"},
    "verification": {"corpus", "retrieval", "episodes", "tasks", "models", "sampling", "rl", "training", "evaluation",
                     "serving", "config", "parallel", "progress"},
    "tasks": {"corpus", "retrieval", "models", "sampling", "rl", "training", "evaluation", "serving", "config"},
    "models": {"corpus", "retrieval", "episodes", "tasks", "sampling", "rl", "training", "evaluation", "serving"},
    "sampling": {"corpus", "retrieval", "episodes", "tasks", "rl", "training", "evaluation", "serving"},
    "rl": {"corpus", "retrieval", "planning", "evaluation", "serving", "sweeps"},
    "parallel": {"corpus", "retrieval", "episodes", "tasks", "models", "rl", "training", "evaluation", "serving"},
    "training": {"corpus", "retrieval", "rl", "planning", "evaluation", "serving", "sweeps"},
    "planning": {"corpus", "retrieval", "evaluation", "serving", "sweeps"},
    "evaluation": {"serving", "sweeps"},
}
ON_TOP = {"cli", "demo", "base", "reproduce", "notebook"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The package's modules that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: imports are absolute here"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else node.module for name in whole}
    return {name for name in names if name in known and name != "m2io_jax"}


def part(module: str) -> str:
    return module.split(".")[1]


def test_no_module_imports_itself_by_a_detour():
    known = modules()
    order = TopologicalSorter({name: imports(path, known) - {name} for name, path in known.items()})
    assert set(order.static_order()) == set(known)  # raises CycleError, naming the cycle


def test_no_package_imports_itself_by_a_detour():
    """As for modules, with all that lies in one folder of the package taken as one."""
    known = modules()
    graph = {part(name): set() for name in known if "." in name}
    for name in known.keys() - {"m2io_jax"}:
        graph[part(name)] |= {part(other) for other in imports(known[name], known)} - {part(name)}
    order = TopologicalSorter(graph)
    assert set(order.static_order()) == set(graph)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_run_one_way(folder):
    known = modules()
    inside = {name: path for name, path in known.items() if name.startswith(f"m2io_jax.{folder}.")}
    assert inside, f"there is no folder {folder}"
    wrong = {
        f"{name} imports {other}"
        for name, path in inside.items()
        for other in imports(path, known)
        if part(other) in FORBIDDEN[folder] | ON_TOP
    }
    assert not wrong


@pytest.mark.parametrize("module", ["kl", "advantages", "losses"])
def test_the_formulas_of_rl_are_functions_of_arrays(module):
    known = modules()
    found = {part(other) for other in imports(known[f"m2io_jax.rl.{module}"], known)}
    assert found <= {"config", "rl"}


def test_every_forbidden_name_is_a_part_of_the_package():
    parts = {part(name) for name in modules() if "." in name}
    assert set().union(FORBIDDEN, *FORBIDDEN.values(), ON_TOP) <= parts


def test_the_command_line_starts_without_the_heavy_libraries():
    heavy = {"jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "scann", "transformers", "matplotlib"}
    tree = ast.parse((PACKAGE / "cli.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in top if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & heavy
    assert {name for name in names if name.startswith("m2io_jax")} == {"m2io_jax.errors"}


# Written in two pieces, so that this file does not hold them.
HOSTS = ("pypi" + ".org", "python" + "hosted", "index-" + "url", "find-" + "links", "npmjs" + ".com")
PLACES = re.compile(r"(?<![\w.~/])/(?:home|root|Users|tmp|work|mnt|workspace)/[\w.-]")


def test_the_tree_names_no_registry_and_no_place_of_one_machine():
    kinds = {".py", ".yaml", ".yml", ".toml", ".md", ".txt", ".html", ".css", ".json", ".ipynb", ""}
    left_out = {".git", ".venv", "runs", "build", "dist", "__pycache__", "shared"}
    wrong = []
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT)
        if left_out & set(inside.parts) or path.suffix not in kinds or not path.is_file():
            continue
        if path.name == "tokenizer.json" or inside.parts[0].startswith(".") and inside.parts[0] != ".ci":
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if any(host in line for host in HOSTS) or PLACES.search(line):
                wrong.append(f"{inside}, line {number}: {line.strip()[:100]}")
    assert not wrong
