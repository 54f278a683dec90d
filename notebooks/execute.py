"""Executes notebooks where they lie and keeps their outputs: python notebooks/execute.py [NOTEBOOK...]

Each runs in a new folder of its own, so that it finds nothing of another run and leaves nothing. What differs from one
execution to the next without meaning anything (times of execution, progress) is not kept.
"""

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parent
LIMIT_S = 900  # for one cell, or for the kernel to start; a machine may be slow


def execute(path: Path) -> float:
    """Runs a notebook's cells and writes their outputs into it; returns the seconds that it took.

    Raises:
        CellExecutionError: a cell failed; the file is then as it was.
    """
    notebook, began = nbformat.read(path, as_version=4), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="m2io-") as folder:
        work = Path(folder) / "work"
        work.mkdir()
        # The kernel is spoken to by files, which are ours alone, and not over a network that others may listen to.
        kernel = Config(KernelManager={"transport": "ipc", "ip": str(Path(folder) / "kernel")})
        resources = {"metadata": {"path": str(work)}}
        limits = {"timeout": LIMIT_S, "startup_timeout": LIMIT_S}
        NotebookClient(notebook, resources=resources, config=kernel, **limits).execute()
    seconds = time.monotonic() - began
    nbformat.write(tidied(notebook), path)
    return seconds


def tidied(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without what no reader needs."""
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.pop("transient", None)
    return notebook


def main(names: list[str]) -> int:
    """Executes the notebooks named, or all; the exit status is 1 where one fails."""
    failed = 0
    for path in map(Path, names) if names else sorted(FOLDER.glob("*.ipynb")):
        try:
            print(f"{path.name}: {execute(path):.0f} s", flush=True)
        except CellExecutionError as error:
            print(f"{path.name} failed:\n{error}", file=sys.stderr, flush=True)
            failed += 1
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
