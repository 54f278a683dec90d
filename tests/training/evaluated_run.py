"""Evaluates a run of killed_run.py, alone or as one of several processes: EPISODES RUN."""

import sys
from pathlib import Path

from killed_run import small_run
from rich.console import Console

from m2io_jax.evaluation.command import evaluate_run
from m2io_jax.parallel.hosts import find_place, together

if __name__ == "__main__":
    episodes, run = sys.argv[1:]
    small_run(episodes, run, "supervised", 1)  # its model and its tasks get their names
    with together(find_place()):
        evaluate_run(Path(run), "train", as_json=False, out=Console(width=200))
