"""One start of a small run that kills itself: EPISODES RUN OBJECTIVE[+lora|+data] STEPS DEATH.

DEATH: never, `step N`, or `saving SECONDS`.
"""

import os
import signal
import sys
import threading
from dataclasses import replace

import jax

from m2io_jax import tasks
from m2io_jax.config import RunConfig
from m2io_jax.models import sizes
from m2io_jax.training import run
from m2io_jax.training.checkpoints import Checkpoints
from m2io_jax.training.metrics import MetricsLog


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_when(words: str) -> None:
    """Arranges the death."""
    kind, _, number = words.partition(" ")
    write, save = MetricsLog.write, Checkpoints.save

    def write_and_die(self, step, metrics):
        write(self, step, metrics)
        if step == int(number):
            die()

    def die_while_saving(self, *arguments):
        timer = threading.Timer(float(number), die)
        timer.daemon = True
        timer.start()
        save(self, *arguments)

    if kind == "step":
        MetricsLog.write = write_and_die
    elif kind == "saving":
        Checkpoints.save = die_while_saving


class Sums:
    """An inserter whose completions are right where their letters add up to nothing that three divides: two of three
    are, whatever the policy."""

    name, rewards = "sums", ("format", "accuracy")

    def __init__(self):
        self.prompt = tasks.TASKS["inserter"].prompt

    def score(self, completion: str, episode) -> dict[str, float]:
        total = sum(map(ord, completion))
        return {"format": float(total % 2), "accuracy": float(total % 3 > 0)}


# Every data-side method at once, rollouts made a step ahead, and two updates by each.
ALL_DATA = dict(
    tasks={"sums": 1.0},
    rewards={"format": 0.5, "accuracy": 1.0},
    rollout={"group_size": 4, "prompts": 3, "ahead": 1},
    data={
        "history": True,
        "filter": {"rounds": 2},
        "curriculum": {"difficulty": "hard", "length_weight": 0.5, "length_target": 4, "length_limit": 6},
        "replay": {"size": 3},
        "noise": {"middle": 0.5},
        "single": {"kl_target": 0.001},
    },
    grpo={"kl_beta": 0.02, "advantage": "batch", "rollout_correction": "truncate", "updates_per_rollout": 2},
)


def small_run(episodes: str, folder: str, objective: str, steps: int) -> RunConfig:
    """A run that takes a moment, with OBJECTIVE[+lora|+data]."""
    tiny = sizes.SIZES["tiny"]
    vision = replace(tiny.vision, depth=1, hidden_size=16, num_heads=2, intermediate_size=16, out_hidden_size=16,
                     fullatt_block_indexes=(0,))  # fmt: skip
    text = replace(tiny.text, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                   num_key_value_heads=1, head_dim=8, mrope_section=(1, 1, 2))  # fmt: skip
    sizes.SIZES["small"] = replace(tiny, vision=vision, text=text)
    tasks.TASKS["sums"] = Sums()
    objective, _, variant = objective.partition("+")
    values = dict(
        name="killed",
        run=folder,
        model="small",
        init="random",
        episodes=episodes,
        objective=objective,
        tasks={"look": 0.5, "inserter": 0.5},
        rewards={"format": 1.0, "seen": 1.0},
        steps=steps,
        lora={"rank": 2, "alpha": 4.0} if variant == "lora" else None,
        batch={"prompts": 2, "prompt_length": 256, "completion_length": 64 if objective == "supervised" else 6,
               "pictures": 3},  # fmt: skip
        rollout={"group_size": 2},
        grpo={"kl_schedule": "grpo_d", "kl_beta": 0.02, "entropy_coef": 0.01, "entropy_target": 100.0},
        optimizer={"learning_rate": 1e-2, "schedule": "cosine"},
        checkpoint={"every_steps": 2},
        logging={"tensorboard": False},
    )
    return RunConfig(**values | (ALL_DATA if variant == "data" else {}))


def main(episodes: str, folder: str, objective: str, steps: str, kill: str) -> None:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    kill_when(kill)
    run.train(small_run(episodes, folder, objective, int(steps)))


if __name__ == "__main__":
    main(*sys.argv[1:])
