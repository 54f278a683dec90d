"""A policy on disk and in memory: a folder of weights, dimensions and tokenizer, and what a step needs of it.

    FOLDER/   a Hugging Face folder of Qwen2.5-VL or Qwen2-VL: published ones are read as they are, ours load elsewhere
    FOLDER/adapter/   a PEFT folder, where the policy has adapters
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError
from m2io_jax.files import replaced_whole, sampled_digest
from m2io_jax.models.companions import consistent_files, read_folder
from m2io_jax.models.huggingface import read_config, write_config
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.json_files import json_bytes
from m2io_jax.models.lora import fold, fresh
from m2io_jax.models.peft import ADAPTER_FOLDER, adapter_folder, load_adapter, read_lora, save_adapter, show_adapter
from m2io_jax.models.sizes import Computation, LoraConfig, ModelConfig, model_config
from m2io_jax.models.tokenizer import TextCodec, load_tokenizer, save_tokenizer
from m2io_jax.models.weight_files import ADAPTER_SETTINGS, adapter_alone
from m2io_jax.models.weights import WeightType, declared, load_weights, save_weights
from m2io_jax.parallel.exchange import is_first, wait_for_all
from m2io_jax.parallel.mesh import make_mesh

BASE = Path(__file__).parent / "base"


@dataclass(frozen=True)
class Policy:
    """A model's dimensions, its weights, the tokenizer it speaks, and the files that it came with.

    Attributes:
        max_pixels: the largest image that a run showed it, which its folder then says; None before a run.
    """

    config: ModelConfig
    params: nnx.State
    codec: TextCodec
    companions: Mapping[str, bytes] = field(default_factory=dict)
    max_pixels: int | None = None

    @cached_property
    def structure(self) -> nnx.GraphDef:
        """What `nnx.merge` needs beside the weights."""
        return structure_of(self.config)

    def with_params(self, params: nnx.State) -> "Policy":
        return replace(self, params=params)

    def computed(self, by: Computation) -> "Policy":
        """The same weights, computed with in another way."""
        return replace(self, config=replace(self.config, computation=by))

    def with_adapters(self, lora: LoraConfig, adapters: nnx.State | None = None, *, seed: int = 0) -> "Policy":
        """The same policy with these adapters; without them, with new ones that change nothing yet.

        Raises:
            UserError: it has adapters already.
        """
        if self.config.lora is not None:
            raise UserError("This policy has adapters already.", mend="add them to the weights first (m2io convert)")
        config = self.config.with_lora(lora)
        added = fresh(declared(config), seed) if adapters is None else adapters
        both = [*nnx.to_flat_state(self.params), *nnx.to_flat_state(added)]
        return replace(self, config=config, params=nnx.from_flat_state(both))

    def without_adapters(self) -> "Policy":
        """The policy that computes the same with the adapters added to the weights."""
        if self.config.lora is None:
            return self
        folded = fold(self.params, self.config.lora)
        return replace(self, config=self.config.with_lora(None), params=folded)

    def save(self, folder: Path, dtype: WeightType = "float32") -> None:
        """Writes a folder that `load_policy`, transformers and vLLM read. It appears whole, in place of a former one.
        All processes call it together, and go on when it is there.

        Raises:
            UserError: it cannot be written.
        """
        if is_first():
            with model_folder(folder) as draft:
                self._write_companions(draft, dtype)
                self._write_weights(draft, dtype)
        else:
            self._write_weights(None, dtype)
        wait_for_all(f"policy in {folder}")

    def _write_companions(self, folder: Path, dtype: WeightType) -> None:
        if "tokenizer.json" not in self.companions:
            save_tokenizer(self.codec.tokenizer, folder)
        files = consistent_files(self.companions, self.config, str(folder), self.max_pixels)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (folder / "config.json").write_bytes(json_bytes(write_config(self.config, dtype)))
        if self.config.lora is not None:
            (folder / ADAPTER_FOLDER).mkdir()

    def _write_weights(self, folder: Path | None, dtype: WeightType) -> None:
        save_weights(folder, self.params, self.config, dtype=dtype)
        if self.config.lora is not None:
            save_adapter(folder and folder / ADAPTER_FOLDER, self.params, self.config)
            if folder is not None:
                show_adapter(folder)


@contextmanager
def model_folder(folder: Path) -> Iterator[Path]:
    """As `replaced_whole`, for a model's folder. Raises UserError where it cannot be written."""
    try:
        with replaced_whole(folder) as draft:
            yield draft
    except OSError as error:
        mend = "make room or allow writing there"
        what = f"The model cannot be written: {error.strerror or error}."
        raise UserError(what, where=str(folder), mend=mend) from error


def structure_of(config: ModelConfig) -> nnx.GraphDef:
    """The model without its weights; nothing is allocated."""
    return nnx.split(nnx.eval_shape(lambda: Inserter(config, rngs=nnx.Rngs(0))))[0]


def load_policy(
    init: str,
    *,
    size: str | None = "tiny",
    seed: int = 0,
    mesh: Mesh | None = None,
    dtype: WeightType = "float32",
) -> Policy:
    """A policy to start from.

    Args:
        init: `base` (the weights that ship), `random`, or the path of a run or of a Hugging Face folder.
        size: a name of `models/sizes.py`; what is loaded must have weights of its shapes. None takes any.
        seed: of random weights.
        mesh: where weights are streamed to, shard by shard; None is the first device.
        dtype: of the weights.

    Raises:
        UserError: the path holds no policy, or one of other dimensions.
    """
    if init == "random":
        config = model_config(size)
        params = nnx.split(Inserter(config, rngs=nnx.Rngs(seed)))[1]
        return Policy(config, params, TextCodec(load_tokenizer(BASE), config.special.stops))
    folder = _folder_of(init)
    read = read_folder(folder)
    config = read.config
    if size is not None and (differences := config.shape_differences(model_config(size))):
        what = "\n    ".join([f"These weights are not of size `{size}`:", *differences])
        raise UserError(what, where=str(folder), mend="give `model` their size, or model=null for any")
    mesh = mesh or make_mesh(MeshConfig(data=1), jax.devices()[:1])
    params = load_weights(folder, config, mesh, dtype)
    policy = Policy(config, params, TextCodec(read.tokenizer, config.special.stops), read.files)
    adapter = adapter_folder(folder)
    return policy if adapter is None else with_adapter_of(policy, adapter)


def config_of(init: str, size: str | None) -> ModelConfig:
    """Return the dimensions of the policy that `load_policy` would load, from config.json alone.

    Raises:
        UserError: there is no such size, or no model.
    """
    return read_config(_folder_of(init)) if size is None else model_config(size)


def with_adapter_of(policy: Policy, folder: Path) -> Policy:
    """The policy with the adapters of a PEFT folder.

    Raises:
        UserError: they are not for this model.
    """
    lora = read_lora(folder)
    return policy.with_adapters(lora, load_adapter(folder, policy.config.with_lora(lora)))


def fingerprint(init: str) -> str:
    """Of the weights that `load_policy` finds there."""
    return init if init == "random" else sampled_digest(_folder_of(init), "*.safetensors")


def existing_folder(path: Path) -> Path:
    """Return the folder of the model that a path leads to: the path itself, or that of a run's policy.

    Raises:
        UserError: there is no model; where the path looks like a name on the Hugging Face hub, how to download it.
    """
    folder, init = policy_folder(path), str(path)
    if (folder / "config.json").is_file():
        return folder
    named = re.fullmatch(r"(?:(?:hf|https?):/{1,2}(?:huggingface\.co/)?)?([\w-][\w.-]*/([\w-][\w.-]*))", init)
    if named and not folder.exists() and not path.parent.is_dir():
        repository, name = named.groups()
        hint = f"is it a name on the Hugging Face hub? hf download {repository} --local-dir {name}"
        raise UserError("There is no folder of this name.", where=init, mend=f"{hint}, then init={name}")
    if folder.is_file():
        raise UserError("This is a file, not the folder of a model.", where=init, mend=f"give {folder.parent}")
    if (folder / ADAPTER_SETTINGS).is_file():
        raise adapter_alone(folder)
    if snapshots := sorted((folder / "snapshots").glob("*/config.json")):
        mend = f"give {snapshots[0].parent}"
        raise UserError("This is a folder of the Hugging Face cache.", where=str(folder), mend=mend)
    mend = "give `base`, `random`, or the path of a finished run or of a Hugging Face folder"
    raise UserError("There is no model here.", where=str(folder / "config.json"), mend=mend)


def _folder_of(init: str) -> Path:
    return BASE if init == "base" else existing_folder(Path(init).expanduser())


def policy_folder(path: Path) -> Path:
    """Where a run keeps the policy it ended with; a policy's own folder is returned as it is."""
    return path / "model" if (path / "model").is_dir() else path
