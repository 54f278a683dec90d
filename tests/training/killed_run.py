"""One start of a small run, alone or as one of several processes, in which something happens:
EPISODES RUN OBJECTIVE[+lora|+data|+four] STEPS DEED, where the deed is

    never
    step N            dies by SIGKILL after step N
    in N              dies when it would begin the N-th step of this start, into which the other processes go
    moment SEED       dies at a moment drawn from the first steps of this start
    saving SECONDS    dies so long after the first save begins
    SIGNAL N          gets SIGTERM or SIGINT in step N
    raise N           fails when it would begin the N-th step
"""

import os
import random
import signal
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import jax

from m2io_jax import tasks
from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.models import sizes
from m2io_jax.parallel.hosts import find_place, together
from m2io_jax.training import run
from m2io_jax.training.checkpoints import Checkpoints
from m2io_jax.training.metrics import MetricsLog
from m2io_jax.training.trainer import TRAINERS, trainer_class


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def soon(seconds: float) -> None:
    timer = threading.Timer(seconds, die)
    timer.daemon = True
    timer.start()


def before_step(deed) -> None:
    """`deed(n, seconds)` is done before the n-th step of this start, when the one before took so many seconds."""
    took = [0.01]

    def watched(step):
        def watched_step(*arguments, **rates):
            deed(len(took), took[-1])
            began = time.perf_counter()
            stepped = step(*arguments, **rates)
            took.append(time.perf_counter() - began)
            return stepped

        return watched_step

    for trainer in map(trainer_class, TRAINERS):
        if "step" in vars(trainer):  # others inherit one that is watched
            trainer.step = watched(trainer.step)


def arrange(words: str) -> None:
    """Sees to it that the deed will be done."""
    kind, _, number = words.partition(" ")
    if kind == "step":
        write = MetricsLog.write

        def write_and_die(self, step, metrics):
            write(self, step, metrics)
            if step == int(number):
                die()

        MetricsLog.write = write_and_die
    elif kind == "saving":
        save = Checkpoints.save

        def die_while_saving(self, *arguments, **named):
            soon(float(number))
            save(self, *arguments, **named)

        Checkpoints.save = die_while_saving
    elif kind == "moment":
        draw = random.Random(number)
        at, share = draw.randint(1, 5), draw.uniform(0, 1.5)  # before the fifth step a checkpoint is whole
        before_step(lambda n, took: soon(share * took) if n == at else None)
    elif kind != "never":
        deeds = {"in": die, "raise": fail}
        deeds |= {name: partial(get, signal.Signals[name]) for name in ("SIGTERM", "SIGINT")}
        before_step(lambda n, _: deeds[kind]() if n == int(number) else None)


def fail() -> None:
    raise UserError("The dog ate the data.")


def get(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


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
    """A run that takes a moment, with OBJECTIVE[+lora|+data|+four]; `four` is for as many processes."""
    tiny = sizes.SIZES["tiny"]
    vision = replace(tiny.vision, depth=1, hidden_size=16, num_heads=2, intermediate_size=16, out_hidden_size=16,
                     fullatt_block_indexes=(0,))  # fmt: skip
    text = replace(tiny.text, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                   num_key_value_heads=1, head_dim=8, mrope_section=(1, 1, 2))  # fmt: skip
    sizes.SIZES["small"] = replace(tiny, vision=vision, text=text)
    tasks.TASKS["sums"] = Sums()
    objective, _, variant = objective.partition("+")
    four = variant == "four"
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
        batch={"prompts": 4 if four else 2, "prompt_length": 256, "pictures": 3,
               "completion_length": 64 if objective == "supervised" else 6},  # fmt: skip
        rollout={"group_size": 2},
        grpo={"kl_schedule": "grpo_d", "kl_beta": 0.02, "entropy_coef": 0.01, "entropy_target": 100.0},
        # Adam would scale up a gradient that is zero but for rounding, such as that of a bias of keys: to be compared
        optimizer={"learning_rate": 1e-2, "schedule": "cosine", "eps": 1e-3 if four else 1e-8},
        checkpoint={"every_steps": 2},
        logging={"tensorboard": False},
    )
    return RunConfig(**values | (ALL_DATA if variant == "data" else {}))


def main(episodes: str, folder: str, objective: str, steps: str, deed: str) -> None:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    arrange(deed)
    with together(find_place()):
        run.train(small_run(episodes, folder, objective, int(steps)))


if __name__ == "__main__":
    main(*sys.argv[1:])
