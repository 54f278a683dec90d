"""The jitted programs of a step. A step's code is written once and serves two runners: `AOTCompiler` compiles its
programs before the first step (ahead-of-time compilation), so that a run bounded by time spends it on training;
`TimedRunner` runs and times them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from jax.sharding import Mesh

from m2io_jax.parallel.mesh import compiler_options


class Program:
    """A jitted function that every step calls with arguments of the same shapes.

    Attributes:
        name: unique within a run.
        timing_key: name under `timing_s/` that its time counts to.
        function: the jitted function; after compilation, the compiled one.
    """

    def __init__(self, name: str, function: Callable, timing_key: str | None = None):
        self.name, self.timing_key, self.function = name, timing_key or name, function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


class AOTCompiler:
    """Compiles programs ahead of time for the arguments they will get (arrays, or shapes with shardings), each once.

    Attributes:
        seconds: compilation time by program name.
        programs: everything that was compiled, by name.

    Args:
        mesh: the devices that the programs run on.
    """

    def __init__(self, mesh: Mesh):
        self._options = compiler_options(mesh)
        self.seconds: dict[str, float] = {}
        self.programs: dict[str, jax.stages.Compiled] = {}

    def __call__(self, program: Program, *arguments: Any) -> Any:
        """Compile a program and return the shapes and shardings of its results."""
        if program.name not in self.programs:
            program.function = self.programs[program.name] = self.compile(program.name, program.function, *arguments)
        compiled = self.programs[program.name]
        return jax.tree.map(
            lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
            compiled.out_info,
            compiled.output_shardings,
        )

    def compile(self, name: str, function: Callable, *arguments: Any) -> jax.stages.Compiled:
        """Lower and compile a jitted function."""
        began = time.perf_counter()
        compiled = function.lower(*arguments).compile(self._options or None)
        self.seconds[name] = time.perf_counter() - began
        return compiled

    @staticmethod
    def run_jobs(*jobs: Callable[[], Any]) -> list[Any]:
        """Run independent jobs in threads (XLA releases the GIL) and return their results."""
        with ThreadPoolExecutor(len(jobs)) as pool:
            return [future.result() for future in [pool.submit(job) for job in jobs]]


class TimedRunner:
    """Runs programs, waits for each and adds up their time.

    Attributes:
        seconds: of each part of a step, as `timing_s/KEY`.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, program: Program, *arguments: Any) -> Any:
        """Run a program and return its results."""
        result = jax.block_until_ready(program(*arguments))
        self.lap(program.timing_key)
        return result

    @staticmethod
    def run_jobs(*jobs: Callable[[], Any]) -> list[Any]:
        """Run independent jobs one after another and return their results."""
        return [job() for job in jobs]

    def lap(self, key: str) -> None:
        """Count all time since the last lap to `timing_s/KEY`."""
        now = time.perf_counter()
        key = f"timing_s/{key}"
        self.seconds[key] = self.seconds.get(key, 0.0) + now - self._last
        self._last = now


Runner = AOTCompiler | TimedRunner
