"""Plans and tables of shardings against the run itself: the same programs, the same places, the same bytes."""

import dataclasses
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.core import ShapedArray
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from killed_run import small_run
from rich.console import Console

from m2io_jax.config import MeshConfig, RunConfig
from m2io_jax.errors import UserError
from m2io_jax.models.policy import load_policy
from m2io_jax.parallel.mesh import abstract_mesh, make_mesh
from m2io_jax.parallel.topologies import FAMILIES, find_topology
from m2io_jax.planning import plan as module
from m2io_jax.planning import shardings
from m2io_jax.planning.abstract import as_on_tpu, topology_devices, topology_mesh
from m2io_jax.planning.command import advice, plan_command, short
from m2io_jax.planning.command import table as plan_table
from m2io_jax.planning.plan import plan
from m2io_jax.planning.shardings import arrays_of, shardings_command, table
from m2io_jax.rl.grpo import GRPO
from m2io_jax.training.programs import AOTCompiler
from m2io_jax.training.run import prepared, weight_type

KEYS = {"program", "topology", "hbm_gib", "hbm_limit_gib", "flops_per_chip", "collective_bytes", "step_s_estimate",
        "fits"}  # fmt: skip
CONFIGS = Path(__file__).parents[2] / "configs"
PARTS = {"trained", "frozen", "optimizer", "reference", "cache", "batch"}
PROGRAMS = {"encode", "prefill", "decode", "reference", "update"}
CUBE = find_topology("v5e:2x4")  # eight devices, as these tests have


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """Adapters, half precision, an eight-bit reference, on a mesh that splits everything; as TPUs run it."""
    values = small_run("unused", "unused", "grpo+lora", 1).model_dump()
    values |= {"computation": {"dtype": "bfloat16", "attention": "blocks", "unroll": False}, "int8": ["reference"]}
    values |= {"batch": values["batch"] | {"prompts": 8}, "mesh": {"data": 2, "fsdp": 2, "tensor": 2}}
    return RunConfig.model_validate(values)


@pytest.fixture(scope="module")
def weights(config):
    """The policy that the run starts from."""
    start = load_policy("random", size=config.model)
    params = jax.tree.map(lambda leaf: leaf.astype(weight_type(config)), start.params)
    return prepared(start.with_params(params), config)


@pytest.fixture(scope="module")
def objective(config, weights):
    """The trainer with weights."""
    return GRPO(config, weights, make_mesh(config.mesh))


@pytest.fixture(scope="module")
def lowered() -> dict[str, tuple[str, jax.stages.Compiled]]:
    """What is planned, as text before it is compiled, and compiled; `planned` fills it."""
    return {}


@pytest.fixture(scope="module")
def planned(config, lowered):
    """A plan by this machine's compiler in place of libtpu; that writes its loops in another way."""

    def read_and_compile(self, name, function, *arguments):
        program = function.lower(*arguments)
        lowered[name], self.seconds[name] = (program.as_text(), program.compile()), 0.0
        return lowered[name][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AOTCompiler, "compile", read_and_compile)
        patch.setattr(module, "bytes_sent", lambda program, devices: {"all-gather": 100.0 * devices})
        patch.setattr(module, "topology_mesh", lambda config, _: make_mesh(config.mesh))
        patch.setattr(module, "read_program", lambda text: None)
        return plan(config, CUBE, lambda one: None)


def test_what_is_planned_are_the_programs_that_run(objective, weights, planned, lowered):
    seen = set()

    class Compared(AOTCompiler):
        def compile(self, name, function, *arguments):
            text, compiled = lowered[name]
            assert function.lower(*arguments).as_text() == text, name
            seen.add(name)
            return compiled

    objective.compile(objective.init_state(weights.params), Compared(objective.mesh))
    assert seen == PROGRAMS


def test_a_device_holds_what_the_table_says(config, objective, weights):
    found = arrays_of(config, abstract_mesh(config.mesh, 8, 1))
    state = objective.init_state(weights.params)
    real = {"trained": state.params, "frozen": objective.frozen, "optimizer": (state.opt_state, state.step)}
    for part, arrays in real.items():
        on_one = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(arrays))
        assert sum(lying.bytes for lying in found if lying.part == part) == on_one, part
    shared = {id(leaf) for leaf in jax.tree.leaves(objective.frozen)}
    own = [leaf for leaf in jax.tree.leaves(objective.reference) if id(leaf) not in shared]
    on_one = sum(leaf.addressable_shards[0].data.nbytes for leaf in own)
    assert sum(lying.bytes for lying in found if lying.part == "reference") == on_one
    cache = [lying.array for lying in found if lying.name == "prompts.keys"]
    assert cache[0].sharding.spec[1] == ("slice", "data", "fsdp")


def test_a_critic_lies_as_its_policy_does(config):
    ppo = RunConfig.model_validate(config.model_dump() | {"objective": "ppo"})
    found = arrays_of(ppo, abstract_mesh(config.mesh, 8, 1))
    held = {part: sum(each.bytes for each in found if each.part == part) for part in PARTS | {"critic"}}
    head = 4 * (16 / 2 + 1)  # the kernel split over fsdp, the bias whole; moments of both
    assert held["critic"] == held["trained"] + held["optimizer"] + 3 * head
    assert held["reference"] > 0 and held["cache"] > 0


def test_a_plan_says_what_each_program_needs(config, planned, lowered):
    found = {one.program: one for one in planned}
    assert found.keys() == PROGRAMS
    arrays = arrays_of(config, abstract_mesh(config.mesh, 8, 1))
    held = {part: sum(each.bytes for each in arrays if each.part == part) for part in {each.part for each in arrays}}
    weights = sum(size for part, size in held.items() if part not in ("cache", "batch"))
    beside = {"update": held["reference"]}  # it takes all weights but these
    for name, one in found.items():
        assert one.as_json().keys() == KEYS and json.dumps(one.as_json())
        assert one.fits and one.estimate.seconds > 0, name
        memory = lowered[name][1].memory_analysis()
        given = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        peak = memory.peak_memory_in_bytes
        assert given <= peak <= given + memory.temp_size_in_bytes, name
        assert one.hbm_gib * 2**30 >= weights + peak - given, "what is not read lies there too"
        if name in beside:
            assert one.hbm_gib * 2**30 == pytest.approx(peak + beside[name], abs=64)
    assert found["update"].sent == {"all-gather": 800.0}
    assert found["update"].flops > found["reference"].flops > found["prefill"].flops > 0


def test_what_does_not_fit_is_told_with_what_to_change(config, planned):
    small = dataclasses.replace(CUBE.family, hbm_gib=1e-6)
    large = [dataclasses.replace(one, topology=dataclasses.replace(CUBE, family=small)) for one in planned]
    assert not any(one.fits for one in large)
    lines = "\n".join(advice(config, large))
    assert "update needs" in lines and "computation.remat=full" in lines
    assert "optimizer.micro_batches=2" in lines and "fewer prompts" in lines, "a device has two of the rows"
    assert "gather" not in lines and "mesh.tensor=4" not in lines, "nothing is gathered; key-value heads are as many"
    few = config.model_copy(update={"batch": config.batch.model_copy(update={"prompts": 4})})
    assert not any("micro_batches" in line or "fewer prompts" in line for line in advice(few, large))
    held = config.model_copy(update={"rollout": config.rollout.model_copy(update={"gather": True})})
    decoding = "\n".join(advice(held, [one for one in large if one.program == "decode"]))
    assert "rollout.gather=false" in decoding and "remat" not in decoding and "optimizer.micro" not in decoding
    assert "rollout.micro_batches=2" in decoding
    assert "lora=" not in lines and "int8" not in lines and "bfloat16" not in lines, "they are set already"
    assert not any("Try" in line for line in advice(config, planned))


def test_the_table_of_the_3b_on_sixteen_chips():
    """With nothing but the configuration: no weights, no devices, no libtpu."""
    out = Console(record=True, width=200, file=io.StringIO())
    shardings_command(CONFIGS / "inserter_r1_3b.yaml", [], "v5e:4x4", out)
    rows = [line.split() for line in out.export_text().splitlines()]
    found = {row[0]: row[1:] for row in rows}
    mib = 36 * 2048 * 11008 * 2 / 16 / 2**20
    assert found["language.blocks.mlp.gate.kernel"] == ["bfloat16[36,2048@fsdp,11008]", f"{mib:.1f}"]
    assert found["prompts.keys"][0] == "bfloat16[36,16@fsdp,2,2048,128]"
    total = sum(float(cells[0].replace(",", "")) for name, cells in found.items() if name in PARTS)
    assert float(found["all"][0].replace(",", "")) == pytest.approx(total, abs=0.3)


@pytest.mark.parametrize("sizes", [dict(data=2, fsdp=2, tensor=2), dict(data=4, fsdp=2)], ids=str)
def test_arrays_are_typed_as_jax_types_them(config, sizes):
    """Where axes have more than one device; JAX names the others too."""
    mesh = abstract_mesh(MeshConfig(**sizes), 8, 1)
    for lying in arrays_of(config.model_copy(update={"mesh": MeshConfig(**sizes)}), mesh):
        spec = lying.array.sharding.spec
        many = [tuple(axis for axis in np.atleast_1d(axes or []) if mesh.shape[axis] > 1) for axes in spec]
        explicit = AbstractMesh(mesh.axis_sizes, mesh.axis_names, axis_types=(AxisType.Explicit,) * 4)
        theirs = NamedSharding(explicit, PartitionSpec(*(axes or None for axes in many)))
        shape = ShapedArray(lying.array.shape, lying.array.dtype, sharding=theirs)
        assert shardings._type(lying.array) == shape.str_short()


def test_80_columns_hold_a_plan(planned, config):
    out = Console(record=True, width=80, file=io.StringIO())
    out.print(plan_table("some", config, planned))
    _, heads, *rows = out.export_text().splitlines()
    for head in ("program", "GiB", "fits", "TFLOP", "GB sent", "mostly by", "seconds", "waits for"):
        assert head in heads
    names = [one.program for one in planned]
    assert [row.split()[0] for row in rows] == [*names, "step,"], "no line is broken"


@pytest.mark.parametrize(
    ("number", "said"), [(1234567.0, "1,230,000"), (999.9, "1,000"), (61.44, "61.4"), (0.5, "0.5"), (0, "0")]
)
def test_numbers_have_three_digits_and_large_ones_no_power_of_ten(number, said):
    assert short(number) == said


def test_what_is_not_drawn_of_a_part_is_added_up(config):
    arrays = [each for each in arrays_of(config, abstract_mesh(config.mesh, 8, 1)) if each.part == "frozen"]
    drawn = table("some", arrays, largest=2)
    names, *_, sizes = [list(column.cells) for column in drawn.columns]
    assert names[0] == "[bold]frozen" and names[3:] == [f"  {len(arrays) - 2} more", "all"]
    assert {name.strip() for name in names[1:3]} <= {each.name for each in arrays}
    rest = sorted(each.bytes for each in arrays)[:-2]
    assert float(sizes[3]) == pytest.approx(sum(rest) / 2**20, rel=0.05)
    assert float(sizes[4]) == pytest.approx(sum(each.bytes for each in arrays) / 2**20, rel=0.05)


def test_a_plan_keeps_no_programs(tmp_path):
    """They could not be read back; and JAX asks only once whether to keep any."""
    settings = {"compilation_cache_dir": str(tmp_path), "persistent_cache_min_compile_time_secs": 0.0}
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in settings}

    def kept_after(factor):
        jax.jit(lambda x: factor * x).lower(1.0).compile()
        return len([file for file in tmp_path.rglob("*") if file.is_file()])

    try:
        for name, value in settings.items():
            jax.config.update(f"jax_{name}", value)
        compilation_cache.reset_cache()
        first = kept_after(2)
        with module._nothing_kept():
            assert kept_after(3) == first > 0
        assert kept_after(4) > first
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.mark.parametrize(
    "said, gib",
    [
        ("Ran out of memory in memory space hbm. Used 48.00G of 15.75G hbm. Exceeded hbm capacity by", 48.0),
        ("Ran out of memory. Used 512.00M of 15.75G hbm. Exceeded", 0.5),
        ("the total memory required for HLO temporaries (16.76G) exceeds available HBM (15.75G)", 16.76),
    ],
)
def test_what_libtpu_says_of_too_large_a_program_is_read(config, monkeypatch, said, gib):
    def refuse(self, name, function, *arguments):
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: E1000: {said}.")

    monkeypatch.setattr(AOTCompiler, "compile", refuse)
    monkeypatch.setattr(module, "topology_mesh", lambda config, _: make_mesh(config.mesh))
    heard = []
    found = plan(config, CUBE, heard.append)
    assert heard == found and {one.program for one in found} == {"encode", "reference"}, "the first of each job"
    for one in found:
        assert not one.fits and one.hbm_gib == pytest.approx(gib, abs=0.01)
        assert one.as_json()["collective_bytes"] is one.as_json()["step_s_estimate"] is None


def test_without_libtpu_the_extra_is_named(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(UserError, match="extra `tpu`"):
        topology_mesh(config, CUBE)


def test_rows_that_do_not_divide_are_told_before_anything_is_compiled(config):
    odd = config.model_copy(update={"mesh": MeshConfig(data=1, fsdp=3)})
    with pytest.raises(UserError, match="8 rows cannot be shared out evenly to 3"):
        arrays_of(odd, abstract_mesh(odd.mesh, 3, 1))


def test_plans_are_of_what_tpus_run(config):
    auto = config.model_copy(update={"computation": config.computation.model_copy(update={"attention": "auto"})})
    assert as_on_tpu(auto).computation.attention == "blocks", "heads of 8 are too small for the kernel"
    assert as_on_tpu(auto.model_copy(update={"model": "3b"})).computation.attention == "splash"


ALL = [f"{name}:{shape}" for name, family in FAMILIES.items() for shape in family.shapes]


@pytest.mark.parametrize("slices", ["", "2x"])
def test_libtpu_has_as_many_hosts_and_devices(slices):
    pytest.importorskip("libtpu", reason="libtpu describes the slices (pip install -e '.[tpu]')")
    for topology in (find_topology(slices + name) for name in ALL):
        devices = topology_devices(topology)
        hosts = {device.process_index for device in devices}
        assert (len(hosts), len(devices)) == (topology.all_hosts, topology.all_devices), topology.name


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e:1x1", "2xv5e:2x2"])
def test_libtpu_compiles_the_step_of_the_tiny_size(tmp_path, capsys, topology):
    pytest.importorskip("libtpu", reason="compiling for TPUs needs libtpu (pip install -e '.[tpu]')")
    text = "name: x\nobjective: grpo\nsteps: 1\nbatch: {prompts: 8, prompt_length: 128, completion_length: 16}\n"
    (tmp_path / "x.yaml").write_text(text)
    plan_command(tmp_path / "x.yaml", [], topology, True, Console(), Console(stderr=True))
    found = {one["program"]: one for one in json.loads(capsys.readouterr().out)}
    assert found.keys() == PROGRAMS and all(one["fits"] for one in found.values())
    sent = found["update"]["collective_bytes"]
    if topology == "v5e:1x1":
        assert not any(one["collective_bytes"] for one in found.values()), "one chip has nobody to send to"
    else:
        assert sent["send"] > 0, "gradients go from slice to slice"
