"""How many of the project's files one GRPO step runs through: `python -m benchmarks.step_trace --workload short-text`.

Prints, for the first step (which traces every program) and for a warm one, the number of files of `m2io_jax` in which a
function is called, and how often calls switch from one file to another: what a reader who follows the step has to open.
"""

import argparse
import itertools
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import jax

import m2io_jax
from benchmarks.workloads import Workload, names, workload
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.rl.grpo import GRPO

PACKAGE = str(Path(m2io_jax.__file__).parent) + "/"


@dataclass
class Trace:
    """Calls of the project's functions by file, and switches between files."""

    calls: Counter[str] = field(default_factory=Counter)
    switches: int = 0
    _last: str | None = None

    def __call__(self, frame: FrameType, event: str, _) -> None:
        """Count one event of `sys.setprofile`."""
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(PACKAGE):
            return
        self.calls[file.removeprefix(PACKAGE)] += 1
        self.switches += file != self._last
        self._last = file


def trace_steps(of: Workload, steps: int = 2) -> list[Trace]:
    """Trace the first steps of the workload, one `Trace` a step."""
    mesh = make_mesh(of.config.mesh)
    trainer = GRPO(of.config, of.policy, mesh)
    state, rows, traces = trainer.init_state(of.policy.params), itertools.cycle(of.rows), []
    for step in range(steps):
        traces.append(Trace())
        before = sys.getprofile()
        sys.setprofile(traces[-1])
        try:
            state, _ = trainer.step(state, rows, learning_rate=1e-6, progress=0.0, key=jax.random.key(step))
        finally:
            sys.setprofile(before)
    return traces


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=names(), default="short-text")
    first, warm = trace_steps(workload(parser.parse_args().workload))
    for name, trace in (("first", first), ("warm", warm)):
        found = {"step": name, "files": len(trace.calls), "switches": trace.switches, "calls": dict(trace.calls)}
        print(json.dumps(found))


if __name__ == "__main__":
    main()
