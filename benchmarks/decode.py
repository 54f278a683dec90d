"""Sampling alone: `python -m benchmarks.decode --workload short --json`; medians, seconds and tokens a second."""

import argparse
import json
import statistics

import jax

from benchmarks.workloads import names, workload
from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import param_shardings, place, place_batch
from m2io_jax.sampling.rollouts import Sampler
from m2io_jax.sampling.sampler import SamplingConfig
from m2io_jax.training.grpo import Stopwatch

PARTS = ("encode", "prefill", "decode")


def measure(name: str, repeats: int) -> dict[str, float]:
    of = workload(name)
    mesh, draw = make_mesh(of.config.mesh), of.config.rollout
    settings = SamplingConfig((draw.temperature,) * draw.group_size, of.config.batch.completion_length)
    sampler = Sampler(of.policy.structure, settings, mesh)
    params = place(of.policy.params, param_shardings(of.policy.params, mesh))
    prompts = place_batch(stack_prompts([row.prompt for row in of.rows]), mesh)
    repeats_timed: list[dict[str, float]] = []
    for repeat in range(2 + repeats):
        timing = Stopwatch()
        pictures = timing.measure("encode", sampler.encode, params, prompts)
        prefilled = timing.measure("prefill", sampler.prefill, params, prompts, pictures)
        key = jax.random.key(repeat)
        rollouts = timing.measure("decode", sampler.decode, params, prompts, prefilled, key, None)
        repeats_timed.append(timing.seconds)
    steady = repeats_timed[2:]
    found = {f"{part}_s": statistics.median(each[f"timing_s/{part}"] for each in steady) for part in PARTS}
    return found | {"decode_tokens_per_s": int(rollouts.completions.mask.sum()) / found["decode_s"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=names(), default="short")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    given = parser.parse_args()
    found = {"workload": given.workload, **measure(given.workload, given.repeats)}
    print(json.dumps(found) if given.json else "\n".join(f"{name:20} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
