"""A training run, whatever it trains by: data, steps, metrics, checkpoints. Killed and started again, it goes on.

In several processes (parallel/hosts.py) each calls `train`, and the first of them writes what only one may write.

    runs/NAME/config.yaml      the configuration it was started with
    runs/NAME/metrics.jsonl    one line a step
    runs/NAME/samples/         what was sampled, a page now and then
    runs/NAME/checkpoints/     everything that makes the next step, unless the configuration puts it elsewhere
    runs/NAME/model/           the policy it ended with
    runs/NAME/.lock            held while it is at work
"""

import math
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
from flax import nnx
from rich.console import Console

from m2io_jax.config import RunConfig
from m2io_jax.episodes.pipeline import Portion, RowIterator, episode_pipeline
from m2io_jax.errors import Stopped, UserError
from m2io_jax.models.lora import adapted_modules
from m2io_jax.models.policy import Policy, load_policy
from m2io_jax.models.sizes import Computation, LoraConfig
from m2io_jax.models.weights import WeightType, declared
from m2io_jax.parallel.exchange import gathered, is_first, wait_for_all
from m2io_jax.progress import Progress
from m2io_jax.training.checkpoints import Checkpoints
from m2io_jax.training.checks import check, require_shared, suited_mesh
from m2io_jax.training.claim import claimed, note
from m2io_jax.training.logging.run_log import RunLog
from m2io_jax.training.optimizer import learning_rate
from m2io_jax.training.programs import AOTCompiler
from m2io_jax.training.resuming import Saves, dropped_by_all, fingerprints, open_sources, progress_of
from m2io_jax.training.state import TrainState, join
from m2io_jax.training.stopping import StopSignals
from m2io_jax.training.trainer import Trainer, trainer_class

PROGRESS_METRICS = {
    "supervised": {"loss": "loss", "grad_norm": "grad norm"},
    "grpo": {
        "reward": "reward",
        "rewards/selection/mean": "F1",
        "rewards/accuracy/mean": "accuracy",
        "kl": "kl",
        "completions/mean_length": "tokens",
    },
}
PROGRESS_METRICS["ppo"] = PROGRESS_METRICS["grpo"]


@dataclass(frozen=True)
class Finished:
    """What a run leaves: the policy, where it lies, and how long it trained (seconds, over all its starts).

    `already`: it had come to its end before this start, which trained nothing.
    """

    policy: Policy
    folder: Path
    steps: int
    seconds: float
    already: bool = False


def train(config: RunConfig) -> Finished:
    """Runs to the configured end and saves the policy.

    A time budget begins with the first step, after compiling and loading; what stands between steps, such as waiting
    for a checkpoint, counts.

    Raises:
        UserError: the episodes, the start weights, the run's folder or the configuration do not allow it; or a gradient
            is not finite.
        Stopped: SIGTERM or SIGINT asked for it; what was done is saved.
    """
    check(config)
    if config.objective != "supervised" and config.grpo.foreign_clip is not None:
        say(config.grpo.foreign_clip)
    if "://" not in config.checkpoints:
        require_shared(Path(config.checkpoints), config.name)
    with claimed(config) as folder:
        finished = _trained(config)
        seen = replace(finished.policy, max_pixels=config.batch.max_pixels)
        seen.save(folder / "model", weight_type(config))
    return finished


def _trained(config: RunConfig) -> Finished:
    """The run's end, but for the policy on disk."""
    begun_with = fingerprints(config)  # before anything is read, for files may be exchanged meanwhile
    policy, trainer, rows = set_up(config)
    with (
        StopSignals() as stop,
        Checkpoints(config.checkpoints, config.checkpoint) as checkpoints,
        RunLog(config) as log,
    ):
        saves = Saves(config, checkpoints, trainer, rows, begun_with)
        state, elapsed = saves.resume(policy.params)
        policy = policy.with_params(nnx.State({}))  # frees the initial weights: the state has a copy
        log.truncate_after(int(state.step))
        if is_first():
            note(config)
        already = progress_of(config, int(state.step), elapsed) >= 1
        if not already:
            say("compiling the programs of a step, which may take minutes the first time")
            announce(trainer.compile(state, AOTCompiler(trainer.mesh)))
        state, elapsed = run_steps(config, trainer, state, rows, saves, log, elapsed, stop)
    trained = policy.with_params(join(state.params, trainer.frozen))
    return Finished(trained, config.run, int(state.step), elapsed, already)


def trace(config: RunConfig, folder: Path, steps: int = 3) -> Path:
    """Runs the first steps of a run under JAX's profiler, after one to warm up; nothing of the run is kept.

    Raises:
        UserError: as `train`.
    """
    check(config)
    policy, trainer, rows = set_up(config)
    state, key = trainer.init_state(policy.params), jax.random.key(config.seed)
    del policy
    announce(trainer.compile(state, AOTCompiler(trainer.mesh)))
    state, _ = trainer.step(state, rows, learning_rate=0.0, progress=0.0, key=key)
    with jax.profiler.trace(str(folder)):
        for step in range(steps):
            with jax.profiler.StepTraceAnnotation("step", step_num=step):
                state, _ = trainer.step(state, rows, learning_rate=0.0, progress=0.0, key=key)
        jax.block_until_ready(state)
    return folder


def set_up(config: RunConfig) -> tuple[Policy, Trainer, RowIterator]:
    """Return the policy to start from, the trainer, and the rows of a run."""
    sources, mesh = open_sources(config), suited_mesh(config)
    start = load_policy(config.init, size=config.model, seed=config.seed, mesh=mesh, dtype=weight_type(config))
    policy = prepared(start, config)
    wait_for_all(f"weights of {config.run}")  # what first joins processes gives up on one that comes 30 s later
    trainer = trainer_class(config.objective)(config, policy, mesh)
    rows = episode_pipeline(
        [Portion(source, partial(trainer.row, tasks=tasks), sum(tasks.values())) for source, tasks in sources],
        seed=config.seed,
        batch_of=config.prompts_a_step,
        shard=(jax.process_index(), jax.process_count()),
    )
    return policy, trainer, rows


def weight_type(config: RunConfig) -> WeightType:
    """Of the policy's weights. Master weights are float32; under adapters nothing of what is loaded is trained."""
    return config.computation.dtype if config.lora else "float32"


def prepared(policy: Policy, config: RunConfig) -> Policy:
    """The policy computed as configured, with the adapters that are asked for: its own where they are the same, new
    ones where it has none. Adapters that nobody asks for are added to the weights.

    Raises:
        UserError: it has adapters of another kind.
    """
    policy = policy.computed(Computation(**config.computation.model_dump()))
    if config.lora is None:
        return policy.without_adapters()
    lora, own = LoraConfig(**config.lora.model_dump()), policy.config.lora
    if own is None:
        return policy.with_adapters(lora, seed=config.seed)
    asked = adapted_modules(declared(replace(policy.config, lora=lora)))
    if (own.rank, own.alpha, adapted_modules(policy.params)) != (lora.rank, lora.alpha, asked):
        what = f"The start has adapters of rank {own.rank} and alpha {own.alpha:g} on {', '.join(own.targets)}."
        raise UserError(what, where="lora", mend="ask for the same, or add them to the weights first (m2io convert)")
    return policy


def run_steps(
    config: RunConfig,
    trainer: Trainer,
    state: TrainState,
    rows: RowIterator,
    saves: Saves,
    log: RunLog,
    elapsed: float,
    stop: StopSignals,
) -> tuple[TrainState, float]:
    """The loop. Returns the last state and the seconds that all steps took, those before a restart included.

    Raises:
        UserError: a gradient is not finite.
        Stopped: a signal asked for it; the last step is saved.
    """
    step, begun_at, clock, saving, unlogged = int(state.step), elapsed, time.perf_counter(), {}, None
    key = jax.random.key(config.seed)
    title, shown = f"{config.name} ({config.objective})", PROGRESS_METRICS[config.objective]
    budget = dict(steps=config.steps, seconds=config.seconds, done_steps=step, done_seconds=elapsed)
    with Progress(title, shown=shown, quiet=not is_first(), **budget) as progress:
        while True:
            elapsed, status = agreed(elapsed, stop)
            share = progress_of(config, step, elapsed)
            if share >= 1 or status:
                break
            began = time.perf_counter()
            rates = dict(learning_rate=learning_rate(config.optimizer, share), progress=share)
            state, metrics = trainer.step(state, rows, **rates, key=jax.random.fold_in(key, step))
            step += 1
            now = time.perf_counter()
            elapsed = begun_at + now - clock
            metrics |= {"step_time": now - began, "host_memory_gb": host_memory_gb()}
            metrics |= {"dropped_rows": float(dropped_by_all(rows).total())} | saving
            saves.best.note(metrics)
            unlogged = metrics if step % config.logging.every_steps else None
            if unlogged is None:
                log.write(step, metrics)
            if log.wants_samples(step):
                log.show(step, trainer.samples(config.logging.samples))
            progress.update(step, metrics)
            if failure := not_finite(config, step, metrics):
                saves.wait()  # all processes end here alike: the one being written is whole
                raise failure
            saving, logged = {}, time.perf_counter()
            if step % config.checkpoint.every_steps == 0:
                log.flush()
                saves.save(step, state, elapsed)
                saving = {"timing_s/checkpoint": time.perf_counter() - logged}  # in the next line: this one is written
    if unlogged and share >= 1:
        log.write(step, unlogged)
    log.flush()
    saves.save(step, state, elapsed)
    if share < 1:
        saves.wait()
        say(f"stopped after step {step}, which is saved: the same command goes on")
        raise Stopped(status)
    return state, elapsed


def not_finite(config: RunConfig, step: int, metrics: Mapping[str, float]) -> UserError | None:
    """What to raise where a gradient was not finite: it has spoilt the weights, which are not to be saved."""
    for name, value in metrics.items():
        if name.rpartition("/")[2] == "grad_norm" and not math.isfinite(value):
            what = f"`{name}` of step {step} is not finite, and with it the weights: the run ends without saving them."
            mend = "its checkpoints are as they were; a new run may want a lower optimizer.learning_rate"
            return UserError(what, where=str(config.run / "metrics.jsonl"), mend=mend)
    return None


def agreed(elapsed: float, stop: StopSignals) -> tuple[float, int]:
    """What every process must take for the same: the first one's seconds, and the exit status where one was asked to
    stop (0: none was)."""
    every = gathered((elapsed, stop.status))
    return every[0][0], max(status for _, status in every)


def announce(compiled: Mapping[str, float]) -> None:
    """Says what was compiled, and how long each program took."""
    say("compiled " + ", ".join(f"{name} in {seconds:.1f} s" for name, seconds in compiled.items()))


def say(words: str) -> None:
    """To standard error, once for all processes."""
    if is_first():
        Console(stderr=True, force_jupyter=False).print(words, highlight=False, soft_wrap=True)


def host_memory_gb() -> float:
    """The process's peak resident memory, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
