"""Sampling alone: `python -m benchmarks.decode --workload short --json`; medians, seconds and tokens a second."""

import argparse
import json
import statistics
import time

import jax

from benchmarks.workloads import names, workload
from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import param_shardings, place, place_batch
from m2io_jax.sampling.rollouts import Sampler
from m2io_jax.sampling.sampler import SamplingConfig


def measure(name: str, repeats: int) -> dict[str, float]:
    of = workload(name)
    mesh, draw = make_mesh(of.config.mesh), of.config.rollout
    settings = SamplingConfig((draw.temperature,) * draw.group_size, of.config.batch.completion_length)
    sampler = Sampler(of.policy.structure, settings, mesh)
    params = place(of.policy.params, param_shardings(of.policy.params, mesh))
    prompts = place_batch(stack_prompts([row.prompt for row in of.rows]), mesh)
    seconds: dict[str, list[float]] = {"encode_s": [], "prefill_s": [], "decode_s": []}
    for repeat in range(2 + repeats):
        key = jax.random.key(repeat)
        moments = [time.perf_counter()]
        pictures = jax.block_until_ready(sampler.encode(params, prompts))
        moments.append(time.perf_counter())
        prefilled = jax.block_until_ready(sampler.prefill(params, prompts, pictures))
        moments.append(time.perf_counter())
        rollouts = jax.block_until_ready(sampler.decode(params, prompts, prefilled, key, None))
        moments.append(time.perf_counter())
        if repeat >= 2:
            for part, begin, end in zip(seconds, moments, moments[1:], strict=False):
                seconds[part].append(end - begin)
    found = {part: statistics.median(each) for part, each in seconds.items()}
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
