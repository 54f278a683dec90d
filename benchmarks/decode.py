"""Sampling alone: `python -m benchmarks.decode --workload short --json`; medians, seconds and tokens a second.

`--constrained` decodes at temperature 2 without and with the inserter's grammar over the shipped tokenizer's tokens;
`constrained` is what part of the tokens a second is left.
"""

import argparse
import json
import statistics
from dataclasses import replace

import jax

from benchmarks.workloads import Workload, names, workload
from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.grammar import Grammar
from m2io_jax.models.policy import BASE
from m2io_jax.models.tokenizer import TextCodec, load_tokenizer
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import param_shardings, place, place_batch
from m2io_jax.sampling.constraints import Constraints
from m2io_jax.sampling.sampler import Sampler, SamplingConfig
from m2io_jax.tasks import find_task
from m2io_jax.training.programs import Program, TimedRunner

PARTS = ("encode", "prefill", "decode")
STOP = 2047  # the stop token of a constrained workload: none of the tokenizer's text


def measure(of: Workload, repeats: int, temperature: float = 1.0, grammar: Grammar | None = None) -> dict[str, float]:
    mesh, length = make_mesh(of.config.mesh), of.config.batch.completion_length
    settings = SamplingConfig((temperature,) * of.config.rollout.group_size, length)
    sampler = Sampler(of.policy.structure, settings, mesh, constrained=grammar is not None)
    encode, prefill, decode = (Program(part, getattr(sampler, part)) for part in PARTS)
    constraint = None
    if grammar is not None:
        tokens = TextCodec(load_tokenizer(BASE)).token_bytes()
        constraints = Constraints(grammar, tokens, of.policy.config, mesh, max_length=length)
        constraint = constraints.batch([(8, 8)] * len(of.rows))
    params = place(of.policy.params, param_shardings(of.policy.params, mesh))
    prompts = place_batch(stack_prompts([row.prompt for row in of.rows]), mesh)
    repeats_timed: list[dict[str, float]] = []
    for repeat in range(2 + repeats):
        run, key = TimedRunner(), jax.random.key(repeat)
        pictures = run(encode, params, prompts)
        prefilled = run(prefill, params, prompts, pictures)
        rollouts = run(decode, params, prompts, prefilled, key, constraint)
        repeats_timed.append(run.seconds)
    steady = repeats_timed[2:]
    found = {f"{part}_s": statistics.median(each[f"timing_s/{part}"] for each in steady) for part in PARTS}
    return found | {"decode_tokens_per_s": int(rollouts.completions.mask.sum()) / found["decode_s"]}


def both_ways(name: str, repeats: int) -> dict[str, float]:
    """Without and with the grammar, in turns, so that both meet the same machine."""
    of, grammar = workload(name), find_task("inserter").grammar
    stops = replace(of.policy.config, special=replace(of.policy.config.special, eos=STOP))
    of = replace(of, policy=replace(of.policy, config=stops))
    free, kept = [], []
    for _ in range(3):
        free.append(measure(of, repeats, 2.0)["decode_tokens_per_s"])
        kept.append(measure(of, repeats, 2.0, grammar)["decode_tokens_per_s"])
    rates = {"free_tokens_per_s": statistics.median(free), "constrained_tokens_per_s": statistics.median(kept)}
    return rates | {"constrained": rates["constrained_tokens_per_s"] / rates["free_tokens_per_s"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=names(), default="short")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--constrained", action="store_true", help="with the grammar beside without")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    given = parser.parse_args()
    if given.constrained:
        found = {"workload": given.workload, **both_ways(given.workload, given.repeats)}
    else:
        found = {"workload": given.workload, **measure(workload(given.workload), given.repeats)}
    print(json.dumps(found) if given.json else "\n".join(f"{name:20} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
