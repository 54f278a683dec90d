"""What is read from compiled programs, against programs that were counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from m2io_jax.config import MeshConfig
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.planning.collectives import bytes_sent, group_size
from m2io_jax.planning.hlo import read_program, shape_bytes

# As libtpu writes them: a loop of 5, also in one that runs on from 4 to 10 by 2; a gather beside products, which stands
# in two fusions, and one that outlasts a loop, in it and before it; a reduce-scatter; what is for other slices.
TPU = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused.1 (p: bf16[8,4]) -> bf16[32,4] {
  %p = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[32,4]{1,0} all-gather(%p), channel_id=3, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
}

%fused.2 (p: bf16[8,4]) -> bf16[32,4] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[32,4]{1,0} all-gather(%p), channel_id=3, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
}

%fused.3 (p: bf16[8,4]) -> bf16[16,4] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %all-gather.3 = bf16[16,4]{1,0} all-gather(%p), channel_id=7, replica_groups=[4,2]<=[8], dimensions={0}
}

%all-reduce-scatter.1 (p: f32[16]) -> f32[8] {
  %p = f32[16]{0} parameter(0)
  %all-reduce = f32[16]{0} all-reduce(%p), channel_id=4, replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %cut = f32[8]{0} dynamic-slice(%all-reduce, %zero), dynamic_slice_sizes={8}
}

%inner_body (s: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %s = (s32[], bf16[8,4]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  %x = bf16[8,4]{1,0} get-tuple-element(%s), index=1
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  %start = bf16[32,4]{1,0} fusion(%x), kind=kCustom, calls=%fused.1
  %done = bf16[32,4]{1,0} fusion(%x), kind=kCustom, calls=%fused.2, backend_config={"kernel":"
}}, and what a kernel writes
"}
  ROOT %out = (s32[], bf16[8,4]{1,0}) tuple(%next, %x)
}

%inner_condition (s: (s32[], bf16[8,4])) -> pred[] {
  %s = (s32[], bf16[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %bound = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%outer_body (s: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %s = (s32[], bf16[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = bf16[8,4]{1,0} get-tuple-element(%s), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%two, %i)
  %zero = s32[] constant(0)
  %begin = (s32[], bf16[8,4]{1,0}) tuple(%zero, %x)
  %loop = (s32[], bf16[8,4]{1,0}) while(%begin), condition=%inner_condition, body=%inner_body
  %y = bf16[8,4]{1,0} get-tuple-element(%loop), index=1
  %step = bf16[16,4]{1,0} fusion(%y), kind=kCustom, calls=%fused.3
  %sent = (bf16[8,4]{1,0}, u32[], token[]) collective-permute-start(%y), channel_id=9, source_target_pairs={{0,1},{1,0}}
  ROOT %out = (s32[], bf16[8,4]{1,0}) tuple(%next, %y)
}

%outer_condition (s: (s32[], bf16[8,4])) -> pred[] {
  %s = (s32[], bf16[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %bound = s32[] constant(10)
  %less = pred[] compare(%i, %bound), direction=LT
  %alive = pred[] constant(true)
  ROOT %both = pred[] and(%less, %alive)
}

%first_condition (s: (s32[], bf16[8,4])) -> pred[] {
  %s = (s32[], bf16[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %bound = s32[] constant(4)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

ENTRY %main (x: bf16[8,4], g: f32[16]) -> bf16[8,4] {
  %x = bf16[8,4]{1,0} parameter(0)
  %g = f32[16]{0} parameter(1)
  %three = s32[] constant(3)
  %early = bf16[16,4]{1,0} fusion(%x), kind=kCustom, calls=%fused.3
  %begin = (s32[], bf16[8,4]{1,0}) tuple(%three, %x)
  %first = (s32[], bf16[8,4]{1,0}) while(%begin), condition=%first_condition, body=%inner_body
  %count = s32[] get-tuple-element(%first), index=0
  %copied = s32[] copy(%count)
  %y = bf16[8,4]{1,0} get-tuple-element(%first), index=1
  %again = (s32[], bf16[8,4]{1,0}) tuple(%copied, %y)
  %second = (s32[], bf16[8,4]{1,0}) while(%again), condition=%outer_condition, body=%outer_body
  %scattered = f32[8]{0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
  %after = token[] after-all()
  %away = (f32[8]{0}, u32[], token[]) send(%scattered, %after), channel_id=2, is_host_transfer=true
  ROOT %z = bf16[8,4]{1,0} get-tuple-element(%second), index=1
}
"""


def test_loops_run_as_often_as_their_counters_say():
    runs = read_program(TPU).runs()
    # once from 3 to 4, and in each of the three times from 4 to 10 by 2, five times
    assert runs["outer_body"] == 3 and runs["inner_body"] == 1 + 3 * 5


def test_bytes_are_those_of_rings():
    block = 8 * 4 * 2
    assert bytes_sent(read_program(TPU), 8) == {
        "all-gather": 16 * 3 * block + block,
        "reduce-scatter": 16 * 4 / 2,
        "collective-permute": 3 * block,
        "send": 8 * 4,
    }


def test_a_loop_that_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="while|first"):
        read_program(TPU.replace("constant(4)", "parameter(1)")).runs()
    with pytest.raises(ValueError, match="counts by multiply"):
        read_program(TPU.replace("add(%two, %i)", "multiply(%two, %i)")).runs()


@pytest.mark.parametrize(
    ("written", "members"),
    [
        ("replica_groups={{0,2,4,6},{1,3,5,7}}", 4),
        ("replica_groups=[8,2]<=[2,4,2]T(2,1,0)", 2),
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}", 2),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", 8),
        ("replica_groups=mesh['a'=8] {'a':(1)4}", 4),
        ("replica_groups={}", 8),
    ],
)
def test_groups_are_read_in_every_way_of_writing_them(written, members):
    assert group_size(f"channel_id=1, {written}, dimensions={{0}}", 8) == members


def test_bytes_of_shapes():
    assert shape_bytes("bf16[3,5]{1,0:T(8,128)(2,1)S(1)}") == 30
    assert shape_bytes("(f32[2]{0}, (pred[7], s4[4]{0:E(4)}), token[], u32[]{:S(2)})") == 8 + 7 + 2 + 4


def test_a_program_of_this_machine_sends_what_was_written():
    """Each collective once in six passes of a loop inside another, on eight devices of which four take part."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    rows, over = PartitionSpec(("data", "fsdp")), "fsdp"

    def once(x, _):
        gathered = jax.lax.all_gather(x, over, tiled=True)
        x = x + jax.lax.psum_scatter(jnp.sin(gathered), over, tiled=True)
        x = x + jax.lax.psum(jnp.cos(x), over)
        x = x + jax.lax.ppermute(jnp.tan(x), over, [(n, (n + 1) % 4) for n in range(4)])
        return jax.lax.all_to_all(x.reshape(4, -1), over, 0, 0).reshape(x.shape), None

    def twice(x, _):
        return jax.lax.scan(once, x, None, length=3)[0], None

    def program(x):
        return jax.lax.scan(twice, x, None, length=2)[0]

    mapped = jax.shard_map(program, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    text = jax.jit(mapped).lower(jax.ShapeDtypeStruct((64, 16), np.float32)).compile().as_text()
    block = 8 * 16 * 4
    expected = {
        "all-gather": 6 * 3 * block,
        "reduce-scatter": 6 * 3 * block,
        "all-reduce": 6 * 1.5 * block,
        "all-to-all": 6 * 0.75 * block,
        "collective-permute": 6 * block,
    }
    assert bytes_sent(read_program(text), 8) == expected
