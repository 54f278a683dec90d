"""What a run needs of a topology: every program of its step, compiled by libtpu without a TPU and without weights."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.parallel.sharding import by_axes
from m2io_jax.parallel.topologies import Topology
from m2io_jax.planning.abstract import abstract_trainer, as_on_tpu, model_of, topology_mesh
from m2io_jax.planning.collectives import bytes_sent
from m2io_jax.planning.estimate import BYTES, Estimate, decode_bytes, estimate, program_flops
from m2io_jax.planning.hlo import read_program
from m2io_jax.training.programs import AOTCompiler

GIB = 2**30
# As libtpu says it: "Used 48.00G of 15.75G hbm", or "HLO temporaries (16.76G) exceeds available HBM", in which, to go
# by slices where the same program fits, arguments are counted too.
_TOO_MUCH = re.compile(r"(?:Used |temporaries \()(?P<used>[\d.]+)(?P<unit>[KMG])(?: of |\) exceeds )")
_UNITS = {"K": 2**10, "M": 2**20, "G": GIB}


@dataclass(frozen=True)
class Planned:
    """One program on one topology; numbers are of a device, which is a chip but on tpu7x, where it is half of one.

    Attributes:
        hbm_gib: what the program holds at its peak, and what else of the run lies in memory meanwhile.
        flops: floating-point operations of matrix products.
        sent: bytes by kind of collective; None where the program does not fit, and so was not compiled to its end.
        estimate: seconds of one run of it; None likewise.
        compile_s: seconds that compiling took here.
    """

    program: str
    topology: Topology
    hbm_gib: float
    flops: float
    sent: dict[str, float] | None
    estimate: Estimate | None
    compile_s: float

    @property
    def fits(self) -> bool:
        return self.sent is not None and self.hbm_gib <= self.topology.family.hbm_gib

    def as_json(self) -> dict[str, Any]:
        """Memory is of a device; operations and bytes sent are of a chip, as the keys say."""
        devices = self.topology.family.devices_a_chip
        return {
            "program": self.program,
            "topology": self.topology.name,
            "hbm_gib": round(self.hbm_gib, 3),
            "hbm_limit_gib": self.topology.family.hbm_gib,
            "flops_per_chip": self.flops * devices,
            "collective_bytes": None if self.sent is None else {kind: n * devices for kind, n in self.sent.items()},
            "step_s_estimate": self.estimate and self.estimate.seconds,
            "fits": self.fits,
        }


class DoesNotFit(Exception):
    """A program that others wait for does not fit the device's memory."""


def plan(
    config: RunConfig, topology: Topology, said: Callable[[Planned], None], *, all_programs: bool = True
) -> list[Planned]:
    """Plans every program of the run's step; `said` hears of each as it is compiled.

    Where one does not fit, those that take what it gives are left out; without `all_programs`, all that have not begun.

    Raises:
        UserError: there is no libtpu, it cannot compile a program, or the configuration does not suit the topology.
    """
    config = as_on_tpu(config)
    mesh = topology_mesh(config, topology)
    trainer = abstract_trainer(config, mesh)
    state = trainer.abstract_state()
    run = _Run(config, topology, mesh, trainer, state, said, all_programs)
    with suppress(DoesNotFit), _nothing_kept():
        trainer.compile(state, run)
    if run.refused:  # where one program did not fit meanwhile, that was told in its place
        raise run.refused
    return run.planned


@contextmanager
def _nothing_kept() -> Iterator[None]:
    """Between runs: what was compiled for devices that are not at hand could not be read back."""
    before = jax.config.jax_enable_compilation_cache
    _keep_programs(False)
    try:
        yield
    finally:
        _keep_programs(before)


def _keep_programs(kept: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", kept)
    compilation_cache.reset_cache()  # JAX asks once, at its first compilation


class _Run(AOTCompiler):
    """Compiles a run's programs, and notes what each needs."""

    def __init__(self, config: RunConfig, topology: Topology, mesh: Mesh, trainer, state, said, all_programs: bool):
        super().__init__(mesh)
        self.config, self.topology, self.mesh, self.said = config, topology, mesh, said
        self.model, self.planned, self.all_programs = model_of(config), [], all_programs
        self.refused: UserError | None = None
        self.trained = _trained_towers(trainer.trained)
        self.held = jax.tree.leaves((state, trainer.frozen, trainer.reference))

    def compile(self, name: str, function: Callable, *arguments: Any) -> jax.stages.Compiled:
        if not (self.all_programs or all(one.fits for one in self.planned)):
            raise DoesNotFit(name)
        beside = self._held_beside(arguments)
        flops = program_flops(self.config, self.model, self.trained, name) / self.topology.all_devices
        try:
            program = super().compile(name, function, *arguments)
        except jax.errors.JaxRuntimeError as error:
            found, said = _TOO_MUCH.search(str(error)), str(error).partition("\n")[0]
            if not found:
                mend = "try other shapes of the batch or the mesh, or another version of libtpu"
                what = f"libtpu cannot compile {name} for {self.topology.name}: {said}."
                self.refused = UserError(what, where="m2io plan", mend=mend)
                raise self.refused from error
            needed = beside + float(found["used"]) * _UNITS[found["unit"]]
            self._note(Planned(name, self.topology, needed / GIB, flops, None, None, float("nan")))
            raise DoesNotFit(name) from None
        given, temporary = program_bytes(program)
        needed = beside + unread_bytes(program, arguments) + given + temporary
        sent = bytes_sent(read_program(_text(program)), self.topology.chips * self.topology.family.devices_a_chip)
        touched = self._decoded_bytes(arguments[0]) if name == "decode" else given + 2 * temporary
        took = estimate(self.topology, flops=flops, memory_bytes=touched, sent=sent)
        self._note(Planned(name, self.topology, needed / GIB, flops, sent, took, self.seconds[name]))
        return program

    def _note(self, planned: Planned) -> None:
        self.planned.append(planned)
        self.said(planned)

    def _held_beside(self, arguments: Any) -> float:
        """Bytes of the run's weights and moments that lie on a device while a program runs that does not take them."""
        taken = {id(leaf) for leaf in jax.tree.leaves(arguments)}
        beside = {id(leaf): leaf for leaf in self.held if id(leaf) not in taken}
        return sum(bytes_on_device(leaf) for leaf in beside.values())

    def _decoded_bytes(self, weights: nnx.State) -> float:
        """For every token a device reads the language model, what `fsdp` splits of it gathered, and its caches."""
        language, tensor = weights["language"], self.mesh.shape["tensor"]
        looked_up = "head" in language  # of a table of embeddings that is not the head too, a few rows are read
        read = jax.tree.leaves([part for name, part in language.items() if name != "embedding" or not looked_up])
        most = BYTES[self.config.computation.dtype] if self.config.rollout.gather else 4
        split = [(leaf.size * min(leaf.dtype.itemsize, most), "tensor" in leaf.sharding.spec) for leaf in read]
        whole = sum(size / (tensor if is_split else 1) for size, is_split in split)
        axes, text = ("batch", "kv_heads"), self.model.text
        shape = (self.config.prompts_at_once, text.num_key_value_heads)
        rows, heads = by_axes(axes, shape, self.mesh).shard_shape(shape)
        return decode_bytes(self.config, self.model, weights=whole, rows=rows, heads=heads)


def _text(program: jax.stages.Compiled) -> str:
    """The program as XLA prints it. Raises UserError: this JAX cannot read what this libtpu wrote."""
    try:
        return program.as_text()
    except jax.errors.JaxRuntimeError as error:
        what = f"JAX {jax.__version__} cannot read what this libtpu compiled: {str(error).splitlines()[0]}."
        mend = "install the libtpu that belongs to this JAX, as the extra `tpu` does"
        raise UserError(what, where="topology", mend=mend) from error


def program_bytes(program: jax.stages.Compiled) -> tuple[int, int]:
    """What a program is given or returns on one device, and what it holds beside at its peak."""
    memory = program.memory_analysis()
    given = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    # `temp_size_in_bytes` of libtpu 0.0.50 counts what does not lie there at one time: with 15.1 GiB at the peak it
    # compiles programs for 15.75 GiB by whose temporary bytes they would need 17.9.
    peak = memory.peak_memory_in_bytes or given + memory.temp_size_in_bytes
    return given, max(0, peak - given)


def unread_bytes(program: jax.stages.Compiled, arguments: Any) -> int:
    """Of arguments that a program does not read, on one device: JAX leaves them out of it, but there they lie."""
    leaves, tree = jax.tree.flatten(arguments)
    places = tree.flatten_up_to(program.input_shardings[0])
    unread = [leaf for leaf, place in zip(leaves, places, strict=True) if place is None]
    return sum(bytes_on_device(leaf) for leaf in unread if getattr(leaf, "sharding", None) is not None)


def bytes_on_device(shape: jax.ShapeDtypeStruct) -> int:
    """Of an array as it is spread, on one device."""
    return math.prod(shape.sharding.shard_shape(shape.shape)) * shape.dtype.itemsize


def _trained_towers(begin: nnx.State) -> dict[str, str]:
    """What is trained of each tower: its kernels, or adapters alone."""
    paths = [path for path, _ in nnx.to_flat_state(begin)]
    kernels = {path[0] for path in paths if path[-1] == "kernel"}
    return {path[0]: "kernels" if path[0] in kernels else "adapters" for path in paths}
