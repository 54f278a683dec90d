"""Programs compiled before the first step, side by side: a step is a step, and a run bounded by time is trained."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from jax.sharding import Mesh

from m2io_jax.parallel.mesh import compiler_options


class Ahead:
    """Compiles jitted functions for the arguments they will get (arrays, or shapes with shardings); keeps the time.

    Attributes:
        seconds: of each program, by name.
        programs: all that was compiled, by name.

    Args:
        mesh: that they run on.
    """

    def __init__(self, mesh: Mesh):
        self._options = compiler_options(mesh)
        self.seconds: dict[str, float] = {}
        self.programs: dict[str, jax.stages.Compiled] = {}

    def __call__(self, name: str, function: Callable, *arguments: Any) -> jax.stages.Compiled:
        began = time.perf_counter()
        program = self.programs[name] = function.lower(*arguments).compile(self._options or None)
        self.seconds[name] = time.perf_counter() - began
        return program


def side_by_side(*jobs: Callable[[], None]) -> None:
    """Runs jobs in threads of their own: the compiler lets go of Python."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()


def returned(program: jax.stages.Compiled) -> Any:
    """Shapes and places of what a compiled program returns."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        program.out_info,
        program.output_shardings,
    )
