"""The run configuration: frozen, validated when loaded, read from YAML with dotted overrides on top."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from m2io_jax.config_errors import as_user_error, key_lines
from m2io_jax.errors import UserError

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

_EXAMPLE = "give a YAML file of `key: value`, such as configs/tiny.yaml"


class Section(BaseModel):
    """What every part of the configuration shares: nothing unknown is accepted and nothing changes afterwards."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: Any, info) -> Any:
        # Pydantic reads `true` as 1; in a configuration that is a slip of the pen.
        kind = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise ValueError("must be a number or text, not true or false")
        return value


class BatchConfig(Section):
    """Prompts and the static shapes of a batch; what does not fit is dropped on the host, with a count.

    Attributes:
        prompts: prompts an update.
        prompt_length, completion_length: tokens.
        pictures: candidate pictures a prompt.
        patches: vision patches a picture, before merging.
        max_pixels: a picture is scaled down to at most this many pixels.
        max_sentence_tokens: longer sentences are shortened in the prompt; the answer itself never is.
        explain: every prompt says at length what a completion must look like, for models that were not taught it.
        shorter: lengths below `completion_length`, rising: an update runs at the first that its completions fit in.
    """

    prompts: Count = 12
    prompt_length: Count = 256
    completion_length: Count = 80
    pictures: Count = 8
    patches: Count = 16
    max_pixels: Count = 3136
    max_sentence_tokens: Count = 32
    explain: bool = False
    shorter: tuple[Count, ...] = ()

    @property
    def completion_lengths(self) -> tuple[int, ...]:
        """Every length that an update is compiled for, rising."""
        return (*self.shorter, self.completion_length)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.completion_lengths) != sorted(set(self.completion_lengths)):
            longest = self.completion_length
            said = f"`batch.shorter` is {list(self.shorter)} but must rise and stay below completion_length, {longest}"
            raise PydanticCustomError("shorter", said, {"key": "batch.shorter"})
        return self


class RolloutConfig(Section):
    """Sampling of `group_size` completions a prompt at `temperature`, from the `top_k` likeliest tokens (0: all), the
    fewest with a probability of `top_p` together, those with `min_p` of the likeliest's; `constrained`, from those
    that keep to the task's grammar. None of these is part of the policy: its log-probabilities are those without.

    `prompts` are sampled a step (None: `batch.prompts`); the groups whose rewards differ most are trained on."""

    prompts: Count | None = None
    group_size: Count = 8
    temperature: Positive = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    constrained: bool = False


class GRPOConfig(Section):
    """The objective: a loss, what advantages are relative to, how tokens are weighed (docs/objectives.md).

    Attributes:
        loss: of each token (`rl/losses`).
        clip_epsilon, clip_epsilon_high: how far below and above 1 the importance ratio counts (`gmpo`: its logarithm,
            from 0). Those of the papers for `gspo`, `gmpo` and `cispo`; a second that is empty is as the first.
        dual_clip: `clip` alone: the largest ratio that counts against a completion worse than its group.
        sapo_temperatures: `sapo` alone: of tokens with advantages above 0, and of the others.
        advantage: what a reward is compared with (`rl/advantages.py`).
        scale_rewards: `group` alone: divide by the group's standard deviation.
        loss_aggregation: how tokens are weighed (`rl/aggregation.py`).
        kl_beta: weight of the KL to the frozen reference, the largest where it changes. 0: no reference is kept.
        kl_schedule, kl_beta_min, kl_turn: how the weight changes over the run, the least it gets, and the share of the
            run after which `grpo_d` turns (`rl/schedules.py`).
        kl_estimator: of the KL (`rl/kl.py`).
        entropy_coef: weight of the entropy bonus.
        entropy_target, entropy_delta, entropy_coef_max: with a target (nats a token) the weight only starts there, and
            each step moves it by the second, up to the third (`rl/entropy.py`).
        rollout_correction: weigh tokens by the trainer's probability over the sampler's, with large weights truncated
            or weights out of bounds masked (`rl/importance.py`). `none`: the trust region is around the sampler.
        rollout_weight_min, rollout_weight_max: these bounds; `truncate` knows the second alone.
        overlong_penalty, overlong_buffer: what a completion of full length loses of its reward, and how many tokens
            before that it begins to (`rl/overlong.py`).
        overlong_filter: learn nothing from completions that were cut off.
        updates_per_rollout: updates on the same rollouts.
    """

    loss: Literal["clip", "gspo", "gmpo", "cispo", "sapo"] = "clip"
    clip_epsilon: Annotated[float, Field(gt=0, le=1)] = Field(
        default_factory=lambda given: {"gspo": 3e-4, "gmpo": 0.4, "cispo": 1.0}.get(given["loss"], 0.2)
    )
    clip_epsilon_high: Positive | None = Field(
        default_factory=lambda given: {"gspo": 4e-4, "cispo": 4.0}.get(given["loss"])
    )
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    sapo_temperatures: tuple[Positive, Positive] = (1.0, 1.05)
    advantage: Literal["group", "leave_one_out", "batch_std", "reinforce_baseline", "none"] = "group"
    scale_rewards: bool = True
    loss_aggregation: Literal["sequence_mean", "token_mean", "constant_length"] = "sequence_mean"
    kl_beta: NotNegative = 0.02
    kl_schedule: Literal["constant", "linear", "grpo_d"] = "constant"
    kl_beta_min: NotNegative = 0.0
    kl_turn: Annotated[float, Field(ge=0, lt=1)] = 0.3
    kl_estimator: Literal["k1", "k2", "k3", "k1+", "k3+"] = "k3"
    entropy_coef: NotNegative = 0.0
    entropy_target: Positive | None = None
    entropy_delta: Positive = 0.005
    entropy_coef_max: Positive = 0.1
    rollout_correction: Literal["none", "truncate", "mask"] = "none"
    rollout_weight_min: Fraction = 0.5
    rollout_weight_max: Annotated[float, Field(ge=1)] = Field(
        default_factory=lambda given: 5.0 if given["rollout_correction"] == "mask" else 2.0
    )
    overlong_penalty: NotNegative = 0.0
    overlong_buffer: Count = 16
    overlong_filter: bool = False
    updates_per_rollout: Count = 1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        # What is set but would not be read is a slip that no run should hide.
        if self.kl_beta_min > self.kl_beta:
            said = f"`grpo.kl_beta_min` is {self.kl_beta_min:g} but must be at most `grpo.kl_beta`, {self.kl_beta:g}"
            raise PydanticCustomError("kl_beta_min", said, {"key": "grpo.kl_beta_min"})
        unread = {
            "dual_clip": self.dual_clip is not None and self.loss != "clip" and "loss clip",
            "sapo_temperatures": self.sapo_temperatures != (1.0, 1.05) and self.loss != "sapo" and "loss sapo",
            "scale_rewards": not self.scale_rewards and self.advantage != "group" and "advantage group",
            "kl_beta_min": self.kl_beta_min and self.kl_schedule == "constant" and "kl_schedule linear or grpo_d",
        }
        for name, reader in unread.items():
            if reader:
                said = f"`grpo.{name}` is {getattr(self, name)} but only {reader} reads it"
                raise PydanticCustomError("unread", said, {"key": f"grpo.{name}"})
        return self


class OptimizerConfig(Section):
    """AdamW, or Muon for the matrices of the blocks and AdamW for the rest.

    `warmup` is a fraction of the run; `schedule` is what the rate does after it. `b1`, `b2` and `eps` are Adam's.
    `micro_batches`: how many parts the batch goes through in, for less memory; the gradient is the same.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: Positive = 1e-4
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup: Fraction = 0.0
    b1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    b2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    micro_batches: Count = 1


class LoraSection(Section):
    """Low-rank adapters on the modules that `targets` name by regular expressions; only they are trained."""

    rank: Count = 16
    alpha: Positive = 32.0
    targets: tuple[str, ...] = (r"language\.blocks\.(q|k|v|o|mlp\.(gate|up|down))",)


class ComputationSection(Section):
    """How a run computes: `dtype` of activations and products, and what the backward pass computes again (`remat`).

    Trained weights are float32 whatever is chosen; weights that are not trained, and the reference, are stored in it.
    `attention`: block by block in plain JAX, by TPU's splash kernel, by cuDNN's, or by what suits the devices (auto).
    `unroll`: the layers written out in the program in place of a loop over them (None: on CPU, where they are few).
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "full"] = "none"
    attention: Literal["auto", "blocks", "splash", "cudnn"] = "auto"
    unroll: bool | None = None


class MeshConfig(Section):
    """Devices along each mesh axis; -1 takes all that the other axes leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        sizes = (self.data, self.fsdp, self.tensor)
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise ValueError("each axis must be 1 or more, or -1 (what the others leave) for one of them")
        return self


class CheckpointConfig(Section):
    """A checkpoint every `every_steps` steps; the newest `keep` stay."""

    every_steps: Count = 50
    keep: Count = 2


class LoggingConfig(Section):
    """Metrics every `every_steps` steps, as JSON Lines and, where wanted, for TensorBoard."""

    every_steps: Count = 1
    tensorboard: bool = True


class EvaluateConfig(Section):
    """Evaluation on `episodes` held-out episodes, `batch_prompts` at a time; `constrained` to the task's grammar;
    `int8`: by weights in eight bits, as answers are then too."""

    episodes: Count = 768
    batch_prompts: Count = 64
    constrained: bool = False
    int8: bool = False


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
    objective: Literal["supervised", "grpo"]
    tasks: dict[str, NotNegative] = {"inserter": 1.0}
    steps: Count | None = None
    seconds: Positive | None = None
    batch: BatchConfig = BatchConfig()
    rollout: RolloutConfig = RolloutConfig()
    grpo: GRPOConfig = GRPOConfig()
    rewards: dict[str, NotNegative] = {"format": 0.1, "selection": 0.4, "placement": 0.4, "order": 0.1}
    lora: LoraSection | None = None
    freeze: tuple[str, ...] = ()
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
        if self.objective == "grpo" and self.rollout.group_size < 2:
            said = "`rollout.group_size` is 1 but must be 2 or more for grpo: an advantage is relative to its group"
            raise PydanticCustomError("group_size", said, {"key": "rollout.group_size"})
        for task, weight in self.tasks.items():
            if weight and isinstance(self.episodes, dict) and task not in self.episodes:
                said = f"`episodes` names no folder for the task `{task}`"
                raise PydanticCustomError("episodes", said, {"key": "episodes"})
        if self.rollout.prompts is not None and self.rollout.prompts < self.batch.prompts:
            sampled, rows = self.rollout.prompts, self.batch.prompts
            said = f"`rollout.prompts` is {sampled} but must be at least batch.prompts, {rows}: these are trained on"
            raise PydanticCustomError("rollout_prompts", said, {"key": "rollout.prompts"})
        buffer, longest = self.grpo.overlong_buffer, self.batch.completion_length
        if self.grpo.overlong_penalty and buffer > longest:
            said = f"`grpo.overlong_buffer` is {buffer} but must be at most `batch.completion_length`, {longest}"
            raise PydanticCustomError("overlong_buffer", said, {"key": "grpo.overlong_buffer"})
        if self.batch.prompts % self.optimizer.micro_batches:
            parts, rows = self.optimizer.micro_batches, self.batch.prompts
            said = f"`optimizer.micro_batches` is {parts} but must divide the {rows} prompts of a batch"
            raise PydanticCustomError("micro_batches", said, {"key": "optimizer.micro_batches"})
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
    def prompts_a_step(self) -> int:
        """Rows that a step takes from the data."""
        sampled = self.rollout.prompts if self.objective == "grpo" else None
        return sampled or self.batch.prompts

    def to_yaml(self) -> str:
        """The whole configuration, defaults included; `load_config` reads it back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def resume_key(self) -> dict[str, Any]:
        """Dotted keys and JSON values that must not change when a run is resumed.

        Where a run stops, how often it saves, logs and evaluates, and which devices it runs on may change. The
        run's length may change only while neither the learning rate nor the KL penalty's weight depends on it.
        """
        free = {"name", "run", "mesh", "checkpoint", "logging", "evaluate"}
        free |= {"optimizer.micro_batches", "computation.attention", "computation.unroll"}
        constant = self.optimizer.schedule == self.grpo.kl_schedule == "constant"
        if constant and self.optimizer.warmup == 0:
            free |= {"steps", "seconds"}
        key = _flatten(self.model_dump(mode="json"))
        return {name: value for name, value in key if name not in free and name.partition(".")[0] not in free}


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
    return {name: value for name, value in defaults.items() if "." in name and not name.startswith(named)} | dict(saved)


def load_config(path: Path | str, overrides: Iterable[str] = ()) -> RunConfig:
    """Reads a YAML file and applies overrides such as `rollout.group_size=4` (the value is YAML too).

    An override of one name of `tasks` or `rewards` leaves the other names as they are.

    Raises:
        UserError: naming the key, the value, what is allowed, and the line of the file.
    """
    data, lines = read_settings(Path(path))
    if "stages" in data:
        mend = "m2io train trains its stages; elsewhere give the config.yaml in a stage's folder"
        raise UserError("This configuration has stages where that of one run is needed.", where=str(path), mend=mend)
    origins = {key: f"{path}, line {line}" for key, line in lines.items()}
    for override in overrides:
        keys, value = parse_override(override)
        set_setting(data, keys, value)
        origins[".".join(keys)] = f"{override} on the command line"
    return parse_config(data, origins=origins, source=str(path))


def parse_config(data: Mapping[str, Any], *, origins: Mapping[str, str], source: str) -> RunConfig:
    """Validates nested values; `origins` says where each dotted key was set, `source` where the rest came from."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise as_user_error(error, RunConfig, origins, source) from None


def read_settings(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """What a YAML file sets, not yet validated, and the line of each dotted key. Raises UserError: it is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"The configuration cannot be read: {reason}.", where=str(path), mend=_EXAMPLE) from None
    try:
        lines = key_lines(yaml.compose(text, Loader=yaml.SafeLoader), path)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"The configuration is not valid YAML: {problem}.", where=where, mend=_EXAMPLE) from None
    if data is not None and not isinstance(data, dict):
        raise UserError("The configuration must be a list of `key: value`.", where=str(path), mend=_EXAMPLE)
    return data or {}, lines


def parse_override(override: str) -> tuple[list[str], Any]:
    """The keys and the value of `a.b=value`. Raises UserError: it is not of this form."""
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        mend = "write key=value, such as steps=20 or rollout.group_size=4"
        raise UserError(f"`{override}` is not an override.", where="the command line", mend=mend)
    try:
        return keys, yaml.safe_load(text)
    except yaml.YAMLError:
        return keys, text


def set_setting(data: dict[str, Any], keys: list[str], value: Any) -> None:
    """Sets a dotted key, starting from the defaults where the key is one name of a mapping."""
    field = RunConfig.model_fields.get(keys[0])
    if len(keys) > 1 and field is not None and isinstance(field.default, dict):
        data.setdefault(keys[0], dict(field.default))
    for key in keys[:-1]:
        if not isinstance(data.get(key), dict):
            data[key] = {}
        data = data[key]
    data[keys[-1]] = value


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
