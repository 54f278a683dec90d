"""How long a program would take: arithmetic by this project's own count, the rest by what was compiled.

A roofline: the slowest of three that are each taken to run at their published peak, all at the same time.

    arithmetic   floating-point operations of matrix products. XLA's own count takes the body of a loop once, and
                 layers are a loop; so they are counted from the model's dimensions (models/flops.py), with what is
                 computed again, shared out evenly to the devices
    memory       decoding: for every token the weights a device multiplies by and the caches it reads; elsewhere what
                 the program takes, gives and holds, each written or read once: a lower bound
    network      bytes sent (planning/collectives.py)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from m2io_jax.config import RunConfig
from m2io_jax.models.flops import group_flops, picture_flops
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.parallel.peak import TPU_CHIPS
from m2io_jax.parallel.topologies import Topology
from m2io_jax.planning.collectives import BETWEEN_SLICES

BYTES = {"float32": 4, "bfloat16": 2}
SAMPLING = ("encode", "prefill", "decode")


@dataclass(frozen=True)
class Estimate:
    """Seconds that each of the three would take by itself."""

    arithmetic: float
    memory: float
    network: float

    @property
    def seconds(self) -> float:
        return max(self.arithmetic, self.memory, self.network)

    @property
    def bound(self) -> str:
        """What it waits for."""
        return max(("arithmetic", "memory", "network"), key=lambda name: getattr(self, name))


def estimate(topology: Topology, *, flops: float, memory_bytes: float, sent: Mapping[str, float]) -> Estimate:
    """Of a program of which a device does so much."""
    peaks, share = TPU_CHIPS[topology.family.name], topology.family.devices_a_chip
    outside = sent.get(BETWEEN_SLICES, 0.0)
    inside = sum(sent.values()) - outside
    network = inside / (peaks.ici / share) + outside / (peaks.dcn / share)
    return Estimate(flops / (peaks.flops / share), memory_bytes / (peaks.hbm / share), network)


@dataclass(frozen=True)
class Work:
    """Of one pass, all devices together: operations of products with weights, of attention, and of the logits.

    `last` are those of each block's last product, a part of `kernels`: no gradient needs its result again.
    """

    kernels: float
    attention: float
    last: float
    logits: float = 0.0

    @property
    def forward(self) -> float:
        return self.kernels + self.attention + self.logits


def program_flops(config: RunConfig, model: ModelConfig, trained: Mapping[str, str], program: str) -> float:
    """Floating-point operations of a program of a trainer's `compile`, all devices together. Values,
    one number a token, and what is made of them are not counted.

    Args:
        trained: for each tower with trained weights, "kernels" or "adapters".
        program: its name; what follows " of " is the completions' length.
    """
    name, _, length = program.partition(" of ")
    batch, grouped = config.batch, config.objective != "supervised"
    group = config.rollout.group_size if grouped else 1
    if name in ("decode", "clean"):
        group = config.completions_at_once
    rows = config.prompts_at_once if name in (*SAMPLING, "clean") else batch.prompts
    completion = int(length) if length else batch.completion_length
    pictures = _pictures(config, model, rows)
    encoded_before = grouped and "vision" not in trained and not config.int8
    text = _groups(config, model, rows, group, completion)
    prompt = _groups(config, model, rows, 0, 0)
    if name == "encode":
        return pictures.forward
    if name == "prefill":
        return prompt.forward
    if name == "decode":
        return text.forward - prompt.forward
    if name in ("reference", "old", "clean"):
        return text.forward + (0.0 if encoded_before else pictures.forward)
    if name == "values":
        return text.forward - text.logits + (0.0 if encoded_before else pictures.forward)
    if name == "advantages":
        return 0.0
    if name == "critic":
        text = replace(text, logits=0.0)
    seen = 0.0 if encoded_before else _with_backward(config, pictures, trained.get("vision"))
    return seen + _with_backward(config, text, trained.get("language", "passed through"))


def times_a_step(config: RunConfig, program: str) -> int:
    """How often a step runs a program, where completions have their full length and the first round of sampling is
    enough: of the lengths that an update is compiled for (`batch.shorter`) it runs one."""
    name, _, shorter = program.partition(" of ")
    if shorter:
        return 0
    if name in (*SAMPLING, "clean"):
        return config.rollout.micro_batches * (2 if config.data.noise and name in SAMPLING else 1)
    return config.grpo.updates_per_rollout if name in ("update", "critic") else 1


def _with_backward(config: RunConfig, work: Work, trained: str | None) -> float:
    """Of forward and backward: once more for activations, once more for kernels that are trained, and what is computed
    again. Nothing but forward where no gradient is needed."""
    if trained is None:
        return work.forward
    again = {"none": 0.0, "dots": work.attention, "full": work.kernels - work.last + work.attention}
    passes = 3 if trained == "kernels" else 2
    computed = passes * (work.kernels + work.logits) + 3 * work.attention
    return computed + again[config.computation.remat] + work.logits


def decode_bytes(config: RunConfig, model: ModelConfig, weights: float, rows: float, heads: float) -> float:
    """Bytes that a device reads to decode completions of full length.

    Args:
        weights: bytes of the language model that a device multiplies by.
        rows: prompts a device decodes for; heads: the key-value heads of each that it has.
    """
    text, batch, group = model.text, config.batch, config.completions_at_once
    of_token = 2 * text.num_hidden_layers * heads * text.head_dim * BYTES[config.computation.dtype]
    cached = batch.prompt_length + group * batch.completion_length / 2  # a completion's own: half of it on average
    return (batch.completion_length - 1) * (weights + rows * cached * of_token)


def _groups(config: RunConfig, model: ModelConfig, rows: int, group: int, completion: int) -> Work:
    shapes = dict(prompt=config.batch.prompt_length, group=group, completion=completion)
    kernels, attention = group_flops(model, rows=rows, **shapes)
    logits = 2.0 * rows * group * completion * model.text.hidden_size * model.text.vocab_size
    tokens = rows * (config.batch.prompt_length + group * completion)
    last = 2.0 * tokens * model.text.num_hidden_layers * model.text.intermediate_size * model.text.hidden_size
    return Work(kernels - logits, attention, last, logits)


def _pictures(config: RunConfig, model: ModelConfig, rows: int) -> Work:
    batch, vision = config.batch, model.vision
    pictures = rows * batch.pictures
    last = 2.0 * pictures * batch.patches * vision.depth * vision.intermediate_size * vision.hidden_size
    return Work(*picture_flops(model, pictures=pictures, patches=batch.patches), last)
