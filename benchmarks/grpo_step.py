"""One GRPO step and its parts: `python -m benchmarks.grpo_step --workload short --json`.

Two steps to warm up, then medians of `--steps` more. Seconds but for:

    decode_tokens_per_s   sampled tokens a second of decoding
    mfu                   the update's matrix products a second, of the device's peak: published for accelerators
                          that are known, measured as by `benchmarks.matmul_peak` otherwise
    peak_rss_mb           the most memory the process held
    compile_s, programs   of everything that was compiled, and how many programs that was
"""

import argparse
import itertools
import json
import statistics
import time

import jax

from benchmarks.workloads import Workload, names, workload
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.rl.grpo import GRPO
from m2io_jax.training.run import host_memory_gb

PARTS = ("encode", "prefill", "decode", "reference", "update")


def measure(of: Workload, steps: int) -> dict[str, float]:
    """Runs the step of `rl/grpo.py` on the workload's prompts."""
    compiled = Compilations()
    mesh = make_mesh(of.config.mesh)
    grpo = GRPO(of.config, of.policy, mesh)
    state, rows = grpo.init_state(of.policy.params), itertools.cycle(of.rows)
    seconds, metrics = [], []
    for step in range(2 + steps):
        began = time.perf_counter()
        state, measured = grpo.step(state, rows, learning_rate=1e-6, progress=0.0, key=jax.random.key(step))
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - began)
        metrics.append(measured)
    steady = metrics[2:]
    found = {"step_s": statistics.median(seconds[2:])}
    found |= {f"{part}_s": statistics.median(each[f"timing_s/{part}"] for each in steady) for part in PARTS}
    found |= {name: statistics.median(each[name] for each in steady) for name in ("decode_tokens_per_s", "mfu")}
    found["peak_rss_mb"] = host_memory_gb() * 1e3
    return found | {"compile_s": compiled.seconds, "programs": compiled.programs}


class Compilations:
    """Counts what JAX compiles from now on."""

    EVENT = "/jax/core/compile/backend_compile_duration"

    def __init__(self):
        self.seconds, self.programs = 0.0, 0
        jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, seconds: float, **_) -> None:
        if event == self.EVENT:
            self.seconds, self.programs = self.seconds + seconds, self.programs + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=names(), default="short")
    parser.add_argument("--steps", type=int, default=5, help="steady steps to take the median of")
    parser.add_argument("--group-size", type=int, help="completions a prompt, in place of the workload's")
    parser.add_argument("--remat", choices=["none", "dots", "full"], help="in place of the workload's")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    given = parser.parse_args()
    changes = {name: value for name in ("group_size", "remat") if (value := getattr(given, name))}
    found = {"workload": given.workload, **measure(workload(given.workload, **changes), given.steps)}
    print(json.dumps(found) if given.json else "\n".join(f"{name:20} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
