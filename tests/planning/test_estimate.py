"""Counted work against the products in the programs as JAX traces them; the roofline by hand."""

import math

import jax
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh

from m2io_jax.config import DataConfig, MeshConfig, RunConfig
from m2io_jax.models import inserter, sizes
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.topologies import find_topology
from m2io_jax.planning.abstract import abstract_trainer, model_of
from m2io_jax.planning.estimate import decode_bytes, estimate, program_flops, times_a_step
from m2io_jax.training.programs import AOTCompiler

ROWS, PROMPT, GROUP, TIME = 2, 32, 3, 8


def run(objective="grpo", remat="full", **more) -> RunConfig:
    batch = {"prompts": ROWS, "prompt_length": PROMPT, "completion_length": TIME, "pictures": 2, "patches": 16}
    computed = {"remat": remat, "unroll": False, "attention": "blocks"}
    values = dict(name="x", objective=objective, steps=1, batch=batch, computation=computed, grpo={"kl_beta": 0})
    return RunConfig(**values, rollout={"group_size": GROUP}, **more)


def products(jaxpr, times: int = 1) -> float:
    """Operations of every matrix product, those in loops as often as the loop runs."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * times * math.prod(equation.outvars[0].aval.shape) * depth
        inside = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += sum(products(inner, times * inside) for inner in jaxprs_in_params(equation.params))
    return total


class Enough(Exception):
    """What was asked for has been traced; nothing need be compiled."""


class Traced(AOTCompiler):
    """Traces one of the programs that a run would compile."""

    def __init__(self, name: str, mesh: Mesh):
        super().__init__(mesh)
        self.name, self.found = name, None

    def compile(self, name, function, *arguments):
        if name == "encode" and self.name == "prefill":
            return super().compile(name, function, *arguments)
        if name == self.name:
            self.found = function.trace(*arguments).jaxpr.jaxpr
        raise Enough


def traced(config: RunConfig, program: str):
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    objective, record = abstract_trainer(config, mesh), Traced(program, mesh)
    with pytest.raises(Enough):
        objective.compile(objective.abstract_state(), record)
    return record.found


def masked_attention(model, passes: int) -> float:
    """What is computed of attention although the mask hides it: half of each square of scores, which is not counted."""
    text = model.text
    hidden = ROWS * (PROMPT**2 / 2 + GROUP * TIME**2 / 2)
    return passes * 4 * hidden * text.num_attention_heads * text.head_dim * text.num_hidden_layers


@pytest.fixture(autouse=True)
def logits_in_parts(monkeypatch):
    monkeypatch.setattr(inserter, "MOST_LOGITS", 1)


@pytest.mark.parametrize(("remat", "passes"), [("none", 3), ("dots", 4), ("full", 4)])
def test_an_update_is_counted_with_what_it_computes_again(remat, passes):
    config = run(remat=remat, freeze=(r"vision\..*",))
    model = model_of(config)
    counted = program_flops(config, model, {"language": "kernels"}, "update")
    assert counted + masked_attention(model, passes) == pytest.approx(products(traced(config, "update")), rel=1e-6)


def test_a_critic_is_counted_without_logits():
    config = run("ppo", freeze=(r"vision\..*",))
    model, tokens = model_of(config), ROWS * GROUP * TIME
    names = ("values", "critic", "update")
    counted = {name: program_flops(config, model, {"language": "kernels"}, name) for name in names}
    head = 2 * tokens * model.text.hidden_size
    found = products(traced(config, "values"))
    assert counted["values"] + head + masked_attention(model, 1) == pytest.approx(found, rel=1e-6)
    # forward, two ways back, and once more in parts
    assert counted["update"] - counted["critic"] == pytest.approx(4 * head * model.text.vocab_size)


def test_with_noise_half_a_group_is_sampled_twice():
    one = run()
    halves = one.rollout.model_copy(update={"group_size": 2 * GROUP})
    noisy = one.model_copy(update={"rollout": halves, "data": DataConfig(noise={})})
    for name in ("decode", "clean"):
        assert program_flops(noisy, model_of(one), {}, name) == program_flops(one, model_of(one), {}, name)
    often = {name: times_a_step(noisy, name) for name in ("encode", "prefill", "decode", "clean", "update")}
    assert often == {"encode": 2, "prefill": 2, "decode": 2, "clean": 1, "update": 1}


def test_a_step_has_one_update_of_a_length_or_as_many_as_are_asked_for():
    config = run()
    config = config.model_copy(update={"grpo": config.grpo.model_copy(update={"updates_per_rollout": 3})})
    assert [times_a_step(config, name) for name in ("update", "critic", "values", "reference")] == [3, 3, 1, 1]
    assert times_a_step(config, "update of 4") == times_a_step(config, "reference of 4") == 0


def test_adapters_need_no_gradient_of_kernels():
    config = run(lora={"rank": 1, "targets": ["language.blocks.k"]})
    model = model_of(config)
    counted = program_flops(config, model, {"language": "adapters"}, "update")
    adapters = products(traced(config, "update")) - counted - masked_attention(model, 4)
    inputs, outputs, tokens = model.text.hidden_size, 64, ROWS * (PROMPT + GROUP * TIME)
    one = 2 * tokens * (inputs + outputs) * model.text.num_hidden_layers
    assert adapters == pytest.approx(4 * one, rel=1e-6)


def test_the_other_programs():
    config = run()
    model = sizes.SIZES["tiny"]
    text, trained = model.text, {"language": "kernels", "vision": "kernels"}
    of = {name: program_flops(config, model, trained, name) for name in ("prefill", "decode", "encode", "reference")}
    assert of["prefill"] + of["decode"] + of["encode"] == pytest.approx(of["reference"])
    last_logits = 2 * ROWS * text.hidden_size * text.vocab_size  # of the token after the prompt: counted with decoding
    full = 4 * ROWS * PROMPT**2 / 2 * text.hidden_size * text.num_hidden_layers
    assert of["prefill"] + full + last_logits == pytest.approx(products(traced(config, "prefill")), rel=1e-6)


def test_the_slowest_of_three_decides():
    two = find_topology("2xv5e:2x2")
    found = estimate(two, flops=197e12, memory_bytes=819e9 / 2, sent={"all-gather": 100e9, "send": 25e9 / 8 * 4})
    assert (found.arithmetic, found.memory) == pytest.approx((1.0, 0.5))
    assert found.network == pytest.approx(0.5 + 4.0) and found.seconds == found.network
    assert found.bound == "network"
    half = estimate(find_topology("tpu7x:1x1x1"), flops=2307e12, memory_bytes=0.0, sent={})
    assert half.seconds == pytest.approx(2.0), "a device of tpu7x is half a chip"


def test_decoding_reads_weights_and_caches_for_every_token():
    config, text = run(), sizes.SIZES["tiny"].text
    found = decode_bytes(config, sizes.SIZES["tiny"], weights=1000.0, rows=2, heads=1)
    by_hand = sum(
        1000 + 2 * 2 * text.num_hidden_layers * text.head_dim * 4 * (PROMPT + GROUP * TIME / 2) for _ in range(1, TIME)
    )
    assert found == pytest.approx(by_hand)
