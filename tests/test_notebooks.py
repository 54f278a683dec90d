"""The notebooks as they are committed: executed, small, and with nothing in them of the machine that executed them."""

import ast
import importlib.util
import json
import os
import re
import shutil
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 300_000  # bytes
PLACES = re.compile(  # 64@fsdp is no address: a dimension split over an axis of the mesh
    r"(?<![\w.])/(?:home|root|Users|tmp|work|mnt|workspace|opt|usr|var|content)/\w"
    r"|\b(?!\d+@)\w+@\w+|localhost|\b\d{1,3}(?:\.\d{1,3}){3}\b"
)


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def words(cell: dict) -> str:
    """All text that a cell put out; pictures are left out."""
    found = []
    for output in cell["outputs"]:
        found += [output["text"]] if "text" in output else []
        found += [text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")]
    return "".join("".join(each) for each in found)


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(1, len(NOTEBOOKS) + 1)]
    assert len(NOTEBOOKS) == 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_was_executed_from_top_to_bottom(path):
    code = cells(path, "code")
    for cell in code:
        ast.parse(re.sub(r"(?m)^(\s*)%.*$", r"\1pass", "".join(cell["source"])))
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs), "nothing is shown"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_small_and_tells_nothing_of_the_machine(path):
    assert path.stat().st_size < LARGEST
    told = [found.group() for cell in cells(path, "code") for found in PLACES.finditer(words(cell))]
    assert told == []


def test_all_begin_alike_with_their_own_badge():
    firsts = {"".join(cells(path, "code")[0]["source"]) for path in NOTEBOOKS}
    assert len(firsts) == 1, "the project's address is one, and installing it too"
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name})" in "".join(cells(path, "markdown")[0]["source"])


@pytest.mark.parametrize(
    ("variables", "gpu", "extra"),
    [({}, False, ""), ({"TPU_ACCELERATOR_TYPE": "v5e-1"}, False, "tpu"), ({}, True, "cuda")],
    ids=["cpu", "tpu", "gpu"],
)
def test_the_first_cell_installs_in_colab_and_nowhere_else(variables, gpu, extra, monkeypatch):
    asked, first = [], "".join(cells(NOTEBOOKS[0], "code")[0]["source"])
    # IPython fills in {names} as an f-string does.
    first = re.sub(r"%pip install (.*)", r"pip(f'\1')", first)
    for name in [name for name in os.environ if "TPU" in name]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os.path, "exists", lambda path: gpu)
    exec(first, {"pip": asked.append})
    assert asked == []
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(first, {"pip": asked.append})
    assert len(asked) == 1 and asked[0].startswith(f'-q "m2io_jax[{extra}] @ git+')


@pytest.fixture(scope="module")
def execute():
    pytest.importorskip("nbclient", reason="notebooks cannot be executed here (the extra `notebooks`)")
    spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_cell_that_fails_fails_the_command_and_leaves_the_notebook(execute, tmp_path, capsys):
    import nbformat

    right, wrong = tmp_path / "right.ipynb", tmp_path / "wrong.ipynb"
    for path, source in ((right, "import os\nprint(len(os.listdir()), 1 + 1)"), (wrong, "1 / 0")):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    before = wrong.read_bytes()
    assert execute.main([str(right), str(wrong)]) == 1
    assert "wrong.ipynb failed" in capsys.readouterr().err
    assert words(cells(right, "code")[0]) == "0 2\n"  # in an empty folder
    assert wrong.read_bytes() == before
    assert execute.main([str(right)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_again(path, execute, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)  # as a reader has it
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    copy = shutil.copy(path, tmp_path)
    execute.execute(Path(copy))
    assert len(cells(Path(copy), "code")) == len(cells(path, "code"))
