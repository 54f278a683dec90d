"""The parts of a run's configuration that every trainer reads."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from m2io_jax.config.section import Count, Fraction, NotNegative, Pattern, Positive, Section, unfit


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
            raise unfit("batch.shorter", said)
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
    targets: tuple[Pattern, ...] = (r"language\.blocks\.(q|k|v|o|mlp\.(gate|up|down))",)


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
    """Devices along each mesh axis; -1 takes all that the other axes leave. `slice` is as many as the devices say that
    they are of, unless it is given, for devices that do not say."""

    slice: Count | None = None
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
    """A checkpoint every `every_steps` steps, and which of them stay: the newest `keep`; where wanted, those of every
    `keep_every`-th step (a multiple of `every_steps`), and the `keep_best` with the highest or lowest (`best`) mean of
    the metric `best_by` over the steps since the checkpoint before.

    They lie in the run's folder, or in `folder`/NAME, which may be in a bucket: `gs://bucket/folder`."""

    every_steps: Count = 50
    keep: Count = 2
    keep_every: Count | None = None
    keep_best: Annotated[int, Field(ge=0)] = 0
    best_by: str | None = None
    best: Literal["highest", "lowest"] = "highest"
    folder: str | None = None

    @model_validator(mode="after")
    def _read(self) -> Self:
        every = self.every_steps
        if self.keep_every is not None and self.keep_every % every:
            said = f"`checkpoint.keep_every` is {self.keep_every} but must be a multiple of every_steps, {every}"
            raise unfit("checkpoint.keep_every", said)
        if self.keep_best and self.best_by is None:
            said = "`checkpoint.best_by` is not set but `checkpoint.keep_best` needs a metric, such as reward or loss"
            raise unfit("checkpoint.keep_best", said)
        unread = {"best_by": self.best_by is not None, "best": self.best != "highest"}
        for name, is_set in unread.items():
            if is_set and not self.keep_best:
                said = f"`checkpoint.{name}` is {getattr(self, name)} but only keep_best above 0 reads it"
                raise unfit(f"checkpoint.{name}", said)
        return self


class LoggingConfig(Section):
    """Where a run is logged beside its folder's `metrics.jsonl`, and how often.

    Attributes:
        every_steps: metrics every so many steps.
        samples_every_steps: prompts with pictures, completions and what they earned, every so many steps of GRPO (None:
            never), as `samples/STEP.html` in the run's folder and to each service below.
        samples: how many prompts then.
        tensorboard: TensorBoard's files in the run's folder.
        wandb: a project of Weights & Biases, as PROJECT or ENTITY/PROJECT; WANDB_MODE and the like are read by it.
        mlflow: an experiment of MLflow, on the server or in the folder that MLFLOW_TRACKING_URI names.
    """

    every_steps: Count = 1
    samples_every_steps: Count | None = 50
    samples: Count = 4
    tensorboard: bool = True
    wandb: str | None = None
    mlflow: str | None = None

    @field_validator("wandb")
    @classmethod
    def _project(cls, project: str | None) -> str | None:
        if project is not None and not re.fullmatch(r"([^/\s]+/)?[^/\s]+", project):
            raise ValueError("must be PROJECT or ENTITY/PROJECT")
        return project

    @field_validator("mlflow")
    @classmethod
    def _experiment(cls, experiment: str | None) -> str | None:
        if experiment is not None and not experiment.strip():
            raise ValueError("must be the name of an experiment")
        return experiment

    @model_validator(mode="after")
    def _read(self) -> Self:
        if self.samples_every_steps is None and self.samples != type(self).model_fields["samples"].default:
            said = f"`logging.samples` is {self.samples} but nothing is sampled: `logging.samples_every_steps` is empty"
            raise unfit("logging.samples", said)
        return self


class EvaluateConfig(Section):
    """Evaluation on `episodes` held-out episodes, `batch_prompts` at a time; `constrained` to the task's grammar;
    `int8`: by weights in eight bits, as answers are then too."""

    episodes: Count = 768
    batch_prompts: Count = 64
    constrained: bool = False
    int8: bool = False
