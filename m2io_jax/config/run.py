"""The run configuration: frozen, validated when loaded; and what must agree between its sections."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from m2io_jax.config.data import DataConfig
from m2io_jax.config.grpo import GRPOConfig, RolloutConfig
from m2io_jax.config.ppo import PPOConfig
from m2io_jax.config.section import Count, NotNegative, Pattern, Positive, Section, unfit
from m2io_jax.config.sections import (
    BatchConfig,
    CheckpointConfig,
    ComputationSection,
    EvaluateConfig,
    LoggingConfig,
    LoraSection,
    MeshConfig,
    OptimizerConfig,
)
from m2io_jax.errors import UserError

WITHOUT_FOLDER = ("base", "random")  # values of `init`; all others are paths
Misfit = tuple[str, str]  # the dotted key that was set so, and what is said of it


class RunConfig(Section):
    """One training run.

    Attributes:
        name: names the run and, unless `run` is given, its directory `runs/<name>`.
        init: `base` (the weights that ship), `random`, or the path of a finished run or of a Hugging Face folder.
        model: a size of `m2io_jax.models.sizes`, whose shapes the weights must have; null for the size of the folder
            that `init` names, whatever it is. Left out: null where `init` names a folder, `tiny` elsewhere.
        episodes: the folder of the episodes to train on; or, where tasks have data of their own, `task: folder`.
        tasks: weight of each task in the mixture.
        steps, seconds: the run ends at whichever comes first; at least one is given.
        rewards: weight of each reward part.
        lora: adapters to train in place of the weights.
        freeze: regular expressions for whole names of parameters that are not trained, such as `vision\\..*`.
        int8: what reads weights in eight bits: the frozen reference; the sampling of rollouts, whose log-probabilities
            are then not quite the trainer's.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    run: Path = Field(default_factory=lambda given: Path("runs") / given["name"])
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    init: str = "base"
    model: str | None = Field(default_factory=lambda given: "tiny" if given.get("init") in WITHOUT_FOLDER else None)
    episodes: Path | dict[str, Path] | None = None
    objective: Literal["supervised", "grpo", "ppo"]
    tasks: dict[str, NotNegative] = {"inserter": 1.0}
    steps: Count | None = None
    seconds: Positive | None = None
    batch: BatchConfig = BatchConfig()
    rollout: RolloutConfig = RolloutConfig()
    grpo: GRPOConfig = GRPOConfig()
    ppo: PPOConfig = PPOConfig()
    data: DataConfig = DataConfig()
    rewards: dict[str, NotNegative] = {"format": 0.1, "selection": 0.4, "placement": 0.4, "order": 0.1}
    lora: LoraSection | None = None
    freeze: tuple[Pattern, ...] = ()
    int8: tuple[Literal["reference", "rollouts"], ...] = ()
    computation: ComputationSection = ComputationSection()
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @field_validator("run", mode="before")
    @classmethod
    def _run_by_name(cls, run: Any, info) -> Any:
        return Path("runs") / info.data["name"] if run is None and "name" in info.data else run

    @field_validator("episodes", mode="before")
    @classmethod
    def _folders(cls, episodes: Any) -> Any:
        folders = episodes.values() if isinstance(episodes, dict) else [episodes]
        if episodes is not None and not all(isinstance(folder, str | Path) for folder in folders):
            raise ValueError("must be a folder, or a folder for each task, as `task: folder`")
        return episodes

    @field_validator("run", "init", "episodes", mode="before")
    @classmethod
    def _on_a_disk(cls, given: Any) -> Any:
        if any("://" in str(place) for place in (given.values() if isinstance(given, dict) else [given])):
            raise ValueError("must be on a disk that is mounted here; checkpoints may go to checkpoint.folder=gs://...")
        return given

    @field_validator("tasks", "rewards")
    @classmethod
    def _some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if not any(weights.values()):
            raise ValueError("must give at least one name a weight above 0")
        return weights

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.steps is None and self.seconds is None:
            raise ValueError("steps or seconds must be given, or the run would not end")
        for key, said in misfits(self):
            raise unfit(key, said)
        return self

    def episodes_of(self, task: str) -> Path:
        """The folder of a task's episodes.

        Raises:
            UserError: none is given.
        """
        folder = self.episodes.get(task) if isinstance(self.episodes, dict) else self.episodes
        if folder is None:
            mend = "add episodes=FOLDER (see m2io episodes, m2io generate, m2io read)"
            raise UserError(f"There are no episodes for the task `{task}`.", where="episodes", mend=mend)
        return folder

    @property
    def checkpoints(self) -> str:
        """Where the checkpoints lie: a path, or a bucket's address."""
        folder = self.checkpoint.folder
        return str(self.run / "checkpoints") if folder is None else f"{folder.rstrip('/')}/{self.name}"

    @property
    def prompts_a_step(self) -> int:
        """Prompts that a step samples for."""
        return self.rollout.prompts or self.batch.prompts

    @property
    def prompts_at_once(self) -> int:
        """Prompts of a step whose completions are sampled by one program."""
        return self.prompts_a_step // self.rollout.micro_batches

    @property
    def completions_at_once(self) -> int:
        """Completions of a prompt that are sampled at once: of a group half, where the other half sees noise."""
        return self.rollout.group_size // (2 if self.data.noise else 1)

    def to_yaml(self) -> str:
        """The whole configuration, defaults included; `load_config` reads it back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def flat(self) -> dict[str, Any]:
        """Dotted keys and JSON values of the whole configuration."""
        return dict(_flatten(self.model_dump(mode="json")))

    def resume_key(self) -> dict[str, Any]:
        """Dotted keys and JSON values that must not change when a run is resumed.

        Where a run stops, how often it saves, logs and evaluates, and which devices it runs on may change. The
        run's length may change only while neither the learning rate, the KL penalty's weight nor noise depends on it.
        """
        free = {"name", "run", "mesh", "checkpoint", "logging", "evaluate"}
        free |= {"optimizer.micro_batches", "computation.attention", "computation.unroll"}
        free |= {"rollout.micro_batches", "rollout.gather"}
        constant = self.optimizer.schedule == self.grpo.kl_schedule == "constant"
        if constant and self.optimizer.warmup == 0 and self.data.noise is None:
            free |= {"steps", "seconds"}
        key = self.flat()
        return {name: value for name, value in key.items() if name not in free and name.partition(".")[0] not in free}


def misfits(run: RunConfig) -> Iterator[Misfit]:
    """What does not fit together of a run's sections, each of which has checked its own settings."""
    if run.model is None and run.init == "random":
        yield "model", "`model` is null but `init` is 'random': no folder says which size is drawn"
    yield from _batches(run)
    yield from _groups(run)
    yield from _data(run)
    yield from _objective(run)


def _batches(run: RunConfig) -> Iterator[Misfit]:
    rows, sampled, parts = run.batch.prompts, run.rollout.prompts, run.optimizer.micro_batches
    buffer, longest = run.grpo.overlong_buffer, run.batch.completion_length
    for task, weight in run.tasks.items():
        if weight and isinstance(run.episodes, dict) and task not in run.episodes:
            yield "episodes", f"`episodes` names no folder for the task `{task}`"
    if sampled is not None and sampled < rows:
        said = f"`rollout.prompts` is {sampled} but must be at least batch.prompts, {rows}: these are trained on"
        yield "rollout.prompts", said
    if run.rollout.gather and run.mesh.fsdp == 1:
        yield "rollout.gather", "`rollout.gather` is true but `mesh.fsdp` is 1: there is nothing to gather"
    if run.grpo.overlong_penalty and buffer > longest:
        said = f"`grpo.overlong_buffer` is {buffer} but must be at most `batch.completion_length`, {longest}"
        yield "grpo.overlong_buffer", said
    if rows % parts:
        said = f"`optimizer.micro_batches` is {parts} but must divide the {rows} prompts of a batch"
        yield "optimizer.micro_batches", said
    if run.prompts_a_step % run.rollout.micro_batches:
        said = f"but must divide the {run.prompts_a_step} prompts that a step samples for"
        yield "rollout.micro_batches", f"`rollout.micro_batches` is {run.rollout.micro_batches} {said}"


def _groups(run: RunConfig) -> Iterator[Misfit]:
    """Where a group is too small for what goes by its completions."""
    size = run.rollout.group_size
    alone = run.data.single is not None or run.grpo.advantage in ("batch", "none")
    if run.objective == "grpo" and size < 2 and not alone:
        said = "`rollout.group_size` is 1 but must be 2 or more for grpo: an advantage is relative to its group"
        yield "rollout.group_size", f"{said}, unless `grpo.advantage` is 'batch' or 'none'"
    for name in ("filter", "curriculum"):
        if size < 2 and getattr(run.data, name) is not None:
            said = f"`data.{name}` goes by a group's accuracy, but `rollout.group_size` is 1: it must be 2 or more"
            yield f"data.{name}", said
    if run.data.noise is not None and size % 2:
        said = f"`rollout.group_size` is {size} but must be even for `data.noise`: half of a group sees noise"
        yield "rollout.group_size", said
    chosen = {"data.replay": run.data.replay is not None, "rollout.prompts": run.rollout.prompts is not None}
    for name, is_set in chosen.items():
        if run.objective == "ppo" and is_set and size < 2:
            said = f"`{name}` goes by how rewards differ in a group, but `rollout.group_size` is 1"
            yield name, said


def _data(run: RunConfig) -> Iterator[Misfit]:
    curriculum, longest = run.data.curriculum, run.batch.completion_length
    if curriculum and curriculum.length_weight and curriculum.length_target > longest:
        target, most = curriculum.length_target, "`batch.completion_length`"
        said = f"`data.curriculum.length_target` is {target} but must be at most {most}, {longest}"
        yield "data.curriculum.length_target", said
    replay, rows = run.data.replay, run.batch.prompts
    if replay is not None and not round(replay.share * rows):
        said = f"`data.replay.share` is {replay.share:g}, which of the {rows} groups of an update is none"
        yield "data.replay.share", said


def _objective(run: RunConfig) -> Iterator[Misfit]:
    grpo, single = run.grpo, run.data.single is not None
    if "reference" in run.int8 and run.objective != "supervised" and not grpo.kl_beta:
        yield "int8", "`int8` names the reference, but there is none: `grpo.kl_beta` is 0"
    if run.objective == "ppo":
        yield from _critic(run)
    elif single and grpo.advantage not in ("batch", "none"):
        said = f"`grpo.advantage` is '{grpo.advantage}' but must be 'batch' or 'none': `data.single` is the baseline"
        yield "grpo.advantage", said
    if run.objective == "grpo" and run.ppo != PPOConfig():
        yield "ppo", "`ppo` is set but `objective` is 'grpo': a critic is what `objective: ppo` has"


def _critic(run: RunConfig) -> Iterator[Misfit]:
    """What a critic takes the place of."""
    grpo, fresh = run.grpo, GRPOConfig()
    unfit = {
        "loss": grpo.loss in ("gspo", "gmpo") and "a completion's tokens share one advantage there",
        "advantage": grpo.advantage != fresh.advantage and "advantages are the critic's",
        "scale_rewards": not grpo.scale_rewards and "advantages are the critic's (see ppo.whiten)",
        "kl_estimator": grpo.kl_estimator != fresh.kl_estimator and "the KL is in the reward there, as k1",
    }
    for name, reason in unfit.items():
        if reason:
            yield f"grpo.{name}", f"`grpo.{name}` is {getattr(grpo, name)} but `objective` is 'ppo': {reason}"
    if run.ppo.value_clip != PPOConfig().value_clip and grpo.updates_per_rollout == 1:
        said = "but `grpo.updates_per_rollout` is 1: the first update on rollouts has no value to be clipped to"
        yield "ppo.value_clip", f"`ppo.value_clip` is {run.ppo.value_clip} {said}"
    if run.data.single is not None:
        yield "data.single", "`data.single` is a baseline, but with `objective: ppo` the critic is: leave it out"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
