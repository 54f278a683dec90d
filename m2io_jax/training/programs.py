"""A step's programs. What a step does is written once, for two: `Ahead` compiles its programs before the first step, so
that a step is a step and a run bounded by time is trained; `Stopwatch` runs them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from jax.sharding import Mesh

from m2io_jax.parallel.mesh import compiler_options


class Program:
    """A jitted function, to be compiled for the arguments that it gets in every step.

    Attributes:
        name: of which there is one in a run.
        part: of a step's time, that it counts to.
        function: jitted; once compiled, what was.
    """

    def __init__(self, name: str, function: Callable, part: str | None = None):
        self.name, self.part, self.function = name, part or name, function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


class Ahead:
    """Compiles programs for the arguments they will get (arrays, or shapes with shardings), each once.

    Attributes:
        seconds: that each took, by name.
        programs: all that was compiled, by name.

    Args:
        mesh: that they run on.
    """

    def __init__(self, mesh: Mesh):
        self._options = compiler_options(mesh)
        self.seconds: dict[str, float] = {}
        self.programs: dict[str, jax.stages.Compiled] = {}

    def __call__(self, program: Program, *arguments: Any) -> Any:
        """Shapes and places of what the program returns."""
        if program.name not in self.programs:
            program.function = self.programs[program.name] = self.compile(program.name, program.function, *arguments)
        compiled = self.programs[program.name]
        return jax.tree.map(
            lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
            compiled.out_info,
            compiled.output_shardings,
        )

    def compile(self, name: str, function: Callable, *arguments: Any) -> jax.stages.Compiled:
        began = time.perf_counter()
        compiled = function.lower(*arguments).compile(self._options or None)
        self.seconds[name] = time.perf_counter() - began
        return compiled

    @staticmethod
    def together(*jobs: Callable[[], Any]) -> list[Any]:
        """What the jobs return, which need nothing of each other: in threads, for the compiler lets go of Python."""
        with ThreadPoolExecutor(len(jobs)) as pool:
            return [future.result() for future in [pool.submit(job) for job in jobs]]


class Stopwatch:
    """Runs programs, and waits for each.

    Attributes:
        seconds: of each part of a step, as `timing_s/PART`.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, program: Program, *arguments: Any) -> Any:
        """What the program returns."""
        result = jax.block_until_ready(program(*arguments))
        self.lap(program.part)
        return result

    @staticmethod
    def together(*jobs: Callable[[], Any]) -> list[Any]:
        """What the jobs return, which need nothing of each other: one after another."""
        return [job() for job in jobs]

    def lap(self, part: str) -> None:
        """All time since the last lap was the part's."""
        now = time.perf_counter()
        key = f"timing_s/{part}"
        self.seconds[key] = self.seconds.get(key, 0.0) + now - self._last
        self._last = now


Runner = Ahead | Stopwatch
