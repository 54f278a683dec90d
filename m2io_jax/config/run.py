"""The run configuration: frozen, validated when loaded; and which of it may change when a run is resumed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from m2io_jax.config.data import DataConfig
from m2io_jax.config.grpo import GRPOConfig, RolloutConfig
from m2io_jax.config.ppo import PPOConfig
from m2io_jax.config.section import Count, NotNegative, Pattern, Positive, Section
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


class RunConfig(Section):
    """One training run.

    Attributes:
        name: names the run and, unless `run` is given, its directory `runs/<name>`.
        model: a size of `m2io_jax.models.sizes`.
        init: `base` (the weights that ship), `random`, or the path of a run or checkpoint.
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
    model: str = "tiny"
    init: str = "base"
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

    @field_validator("tasks", "rewards")
    @classmethod
    def _some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if not any(weights.values()):
            raise ValueError("must give at least one name a weight above 0")
        return weights

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.steps is None and self.seconds is None:
            raise ValueError("steps or seconds must be given, or the run would not end")
        for task, weight in self.tasks.items():
            if weight and isinstance(self.episodes, dict) and task not in self.episodes:
                said = f"`episodes` names no folder for the task `{task}`"
                raise PydanticCustomError("episodes", said, {"key": "episodes"})
        if self.rollout.prompts is not None and self.rollout.prompts < self.batch.prompts:
            sampled, rows = self.rollout.prompts, self.batch.prompts
            said = f"`rollout.prompts` is {sampled} but must be at least batch.prompts, {rows}: these are trained on"
            raise PydanticCustomError("rollout_prompts", said, {"key": "rollout.prompts"})
        if self.rollout.gather and self.mesh.fsdp == 1:
            said = "`rollout.gather` is true but `mesh.fsdp` is 1: there is nothing to gather"
            raise PydanticCustomError("gather", said, {"key": "rollout.gather"})
        buffer, longest = self.grpo.overlong_buffer, self.batch.completion_length
        if self.grpo.overlong_penalty and buffer > longest:
            said = f"`grpo.overlong_buffer` is {buffer} but must be at most `batch.completion_length`, {longest}"
            raise PydanticCustomError("overlong_buffer", said, {"key": "grpo.overlong_buffer"})
        if self.batch.prompts % self.optimizer.micro_batches:
            parts, rows = self.optimizer.micro_batches, self.batch.prompts
            said = f"`optimizer.micro_batches` is {parts} but must divide the {rows} prompts of a batch"
            raise PydanticCustomError("micro_batches", said, {"key": "optimizer.micro_batches"})
        return self

    @model_validator(mode="after")
    def _data_fits(self) -> Self:
        group, single = self.rollout.group_size, self.data.single
        alone = single is not None or self.grpo.advantage in ("batch", "none")
        if self.objective == "grpo" and group < 2 and not alone:
            said = "`rollout.group_size` is 1 but must be 2 or more for grpo: an advantage is relative to its group"
            said += ", unless `grpo.advantage` is 'batch' or 'none'"
            raise PydanticCustomError("group_size", said, {"key": "rollout.group_size"})
        for name in ("filter", "curriculum"):
            if group < 2 and getattr(self.data, name) is not None:
                said = f"`data.{name}` goes by a group's accuracy, but `rollout.group_size` is 1: it must be 2 or more"
                raise PydanticCustomError("of_groups", said, {"key": f"data.{name}"})
        if self.data.noise is not None and group % 2:
            said = f"`rollout.group_size` is {group} but must be even for `data.noise`: half of a group sees noise"
            raise PydanticCustomError("halves", said, {"key": "rollout.group_size"})
        curriculum, longest = self.data.curriculum, self.batch.completion_length
        if curriculum and curriculum.length_weight and curriculum.length_target > longest:
            target, most = curriculum.length_target, "`batch.completion_length`"
            said = f"`data.curriculum.length_target` is {target} but must be at most {most}, {longest}"
            raise PydanticCustomError("length_target", said, {"key": "data.curriculum.length_target"})
        replay = self.data.replay
        if replay is not None and not round(replay.share * self.batch.prompts):
            rows = self.batch.prompts
            said = f"`data.replay.share` is {replay.share:g}, which of the {rows} groups of an update is none"
            raise PydanticCustomError("share", said, {"key": "data.replay.share"})
        if "reference" in self.int8 and self.objective != "supervised" and not self.grpo.kl_beta:
            said = "`int8` names the reference, but there is none: `grpo.kl_beta` is 0"
            raise PydanticCustomError("unread", said, {"key": "int8"})
        advantage = self.grpo.advantage
        if single is not None and advantage not in ("batch", "none"):
            said = f"`grpo.advantage` is '{advantage}' but must be 'batch' or 'none': `data.single` is the baseline"
            raise PydanticCustomError("baseline", said, {"key": "grpo.advantage"})
        return self

    @model_validator(mode="after")
    def _ppo_fits(self) -> Self:
        if self.objective == "grpo" and self.ppo != PPOConfig():
            said = "`ppo` is set but `objective` is 'grpo': a critic is what `objective: ppo` has"
            raise PydanticCustomError("unread", said, {"key": "ppo"})
        if self.objective != "ppo":
            return self
        grpo, fresh = self.grpo, GRPOConfig()
        unfit = {
            "loss": grpo.loss in ("gspo", "gmpo") and "a completion's tokens share one advantage there",
            "advantage": grpo.advantage != fresh.advantage and "advantages are the critic's",
            "scale_rewards": not grpo.scale_rewards and "advantages are the critic's (see ppo.whiten)",
            "kl_estimator": grpo.kl_estimator != fresh.kl_estimator and "the KL is in the reward there, as k1",
        }
        for name, reason in unfit.items():
            if reason:
                said = f"`grpo.{name}` is {getattr(grpo, name)} but `objective` is 'ppo': {reason}"
                raise PydanticCustomError("ppo", said, {"key": f"grpo.{name}"})
        if self.data.single is not None:
            said = "`data.single` is a baseline, but with `objective: ppo` the critic is: leave it out"
            raise PydanticCustomError("baseline", said, {"key": "data.single"})
        chosen = {"data.replay": self.data.replay is not None, "rollout.prompts": self.rollout.prompts is not None}
        for name, is_set in chosen.items():
            if is_set and self.rollout.group_size < 2:
                said = f"`{name}` goes by how rewards differ in a group, but `rollout.group_size` is 1"
                raise PydanticCustomError("of_groups", said, {"key": name})
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
        """Prompts that are sampled at once."""
        return self.rollout.prompts or self.batch.prompts

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
        free |= {"optimizer.micro_batches", "computation.attention", "computation.unroll", "rollout.gather"}
        constant = self.optimizer.schedule == self.grpo.kl_schedule == "constant"
        if constant and self.optimizer.warmup == 0 and self.data.noise is None:
            free |= {"steps", "seconds"}
        key = self.flat()
        return {name: value for name, value in key.items() if name not in free and name.partition(".")[0] not in free}


def resume_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Says, one line a key, where two `resume_key()`s differ; empty where a run may go on."""
    missing = object()

    def show(key: Mapping[str, Any], name: str) -> str:
        return repr(key[name]) if name in key else "nothing"

    changed = [name for name in {**saved, **current} if saved.get(name, missing) != current.get(name, missing)]
    return [f"{name}: was {show(saved, name)}, is now {show(current, name)}" for name in changed]


def require_resumable(saved: Mapping[str, Any], config: RunConfig) -> None:
    """Raises UserError, naming every key, where `config` would not continue the run whose `resume_key()` was saved."""
    changed = resume_differences(_stated_since(saved), config.resume_key())
    if changed:
        raise UserError(
            "The run was started with other settings and cannot be resumed with these:\n  " + "\n  ".join(changed),
            where=str(config.run),
            mend="put the settings back, or give another directory with run=...",
        )


def _stated_since(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved `resume_key()` with the defaults of settings that there were not when it was saved."""
    defaults = RunConfig(name="any", objective="supervised", steps=1).resume_key()
    named = ("tasks.", "rewards.")  # what these do not name has no weight, whatever the default says

    def is_missing(name: str) -> bool:
        whole = any(key.startswith(f"{name}.") for key in saved)  # a section that is off by default, and was on
        return "." in name and not name.startswith(named) and not whole

    return {name: value for name, value in defaults.items() if is_missing(name)} | dict(saved)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
