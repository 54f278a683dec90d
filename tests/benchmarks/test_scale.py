"""The tables of docs/scale.md from what was planned."""

from benchmarks import scale
from benchmarks.scale import run_of, smallest, tables
from m2io_jax.parallel.topologies import find_topology


def line(topology: str, fits: bool, **more) -> dict:
    update = {"program": "update", "hbm_gib": 12.5, "flops_per_chip": 3e12, "step_s_estimate": 0.5, "compile_s": 7.2}
    update |= {"collective_bytes": {"all-gather": 4e9, "send": 1e6}}
    made = {"jax": "0.12", "libtpu": "0.0.52"}
    return {"size": "3b", "trained": "adapters", "topology": topology, "fits": fits, "programs": [update]} | made | more


def test_the_smallest_slice_that_fits_is_looked_for_from_below():
    def next_of(*lines):
        return next((topology.name for topology in smallest(lines, "3b", "adapters", "v5e")), None)

    assert next_of() == "v5e:1x1"
    assert next_of(line("v5e:1x1", False)) == "v5e:2x2"
    assert next_of(line("v5e:1x1", False), line("v5e:2x2", True)) is None
    assert next_of(line("v5e:4x4", True)) == "v5e:1x1", "a larger one that fits says nothing of smaller ones"
    assert next_of(line("v5e:1x1", True) | {"size": "7b"}) == "v5e:1x1"


def test_tables_say_what_was_planned_and_what_was_not():
    ladder = [line(name, True) for name in scale.LADDER]
    alone = line("v5e:4x4", True, size="7b")
    drawn = tables([line("v5e:1x1", False), line("v5e:2x2", True), *ladder, alone, line("v6e:1x1", False)])
    assert "| 3B | adapters | `v5e:2x2` 12.5 GiB (update), 0.5 s | not planned yet | not planned yet |" in drawn
    assert "| 3B | adapters | `v5e:8x8` | update | 3 | 4 | all-gather 4 | 0.5 | 7 s |" in drawn
    assert [drawn.count(f"`{name}`") for name in scale.LADDER] == [1, 1, 1] and "v6e:1x1" not in drawn
    assert "7 by libtpu 0.0.52 and jax 0.12" in drawn


def test_a_slice_that_the_compiler_refused_is_told():
    drawn = tables([line("v5e:1x1", False, refused="an error of libtpu's"), line("v5e:2x2", True)])
    assert "0.5 s (libtpu could not compile `v5e:1x1`)" in drawn


def test_every_size_has_a_prompt_a_device():
    for size in scale.SIZES:
        config = run_of(size, "all weights", find_topology("tpu7x:2x2x1"))
        assert config.batch.prompts == 8 and config.lora is None and config.model == size
        assert run_of(size, "adapters", find_topology("v5e:2x2")).lora.rank == 64
