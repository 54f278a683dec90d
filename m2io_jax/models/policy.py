"""A policy on disk and in memory: a folder of weights, dimensions and tokenizer, and what a step needs of it.

    FOLDER/model.safetensors   weights
    FOLDER/config.json         dimensions (models/sizes.py)
    FOLDER/tokenizer.json ...  tokenizer
    FOLDER/*.json              what came with published weights (models/huggingface.py)

A Hugging Face folder is read as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError
from m2io_jax.models import huggingface
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.lora import fold, fresh
from m2io_jax.models.sizes import Computation, LoraConfig, ModelConfig, model_config
from m2io_jax.models.tokenizer import TextCodec, load_tokenizer
from m2io_jax.models.weights import WeightType, load_weights, save_weights
from m2io_jax.parallel.mesh import make_mesh

BASE = Path(__file__).parent / "base"


@dataclass(frozen=True)
class Policy:
    """A model's dimensions, its weights, the tokenizer it speaks, and the files that came with published weights."""

    config: ModelConfig
    params: nnx.State
    codec: TextCodec
    companions: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def structure(self) -> nnx.GraphDef:
        """What `nnx.merge` needs beside the weights."""
        return structure_of(self.config)

    def with_params(self, params: nnx.State) -> "Policy":
        return replace(self, params=params)

    def computed(self, by: Computation) -> "Policy":
        """The same weights, computed with in another way."""
        return replace(self, config=replace(self.config, computation=by))

    def with_adapters(self, lora: LoraConfig, seed: int) -> "Policy":
        """The same policy with adapters that change nothing yet."""
        config = replace(self.config, lora=lora)
        abstract = nnx.state(nnx.eval_shape(lambda: Inserter(config, rngs=nnx.Rngs(0))), nnx.Param)
        both = [*nnx.to_flat_state(self.params), *nnx.to_flat_state(fresh(abstract, seed))]
        return replace(self, config=config, params=nnx.from_flat_state(both))

    def without_adapters(self) -> "Policy":
        """The policy that computes the same with the adapters added to the weights."""
        if self.config.lora is None:
            return self
        folded = fold(self.params, self.config.lora)
        return replace(self, config=replace(self.config, lora=None), params=folded)

    def save(self, folder: Path, dtype: WeightType = "float32") -> None:
        """Writes a folder that `load_policy` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / "model.safetensors", self.params, dtype=dtype)
        self.config.save(folder / "config.json")
        self.codec.tokenizer.save_pretrained(folder)
        for name, content in self.companions.items():
            (folder / name).write_bytes(content)


def structure_of(config: ModelConfig) -> nnx.GraphDef:
    """The model without its weights; nothing is allocated."""
    return nnx.split(nnx.eval_shape(lambda: Inserter(config, rngs=nnx.Rngs(0))))[0]


def load_policy(init: str, *, size: str | None = "tiny", seed: int = 0, mesh: Mesh | None = None) -> Policy:
    """A policy to start from.

    Args:
        init: `base` (the weights that ship with the package), `random`, or the path of a run, of a policy's folder or
            of a Hugging Face folder.
        size: a name of `models/sizes.py`; what is loaded must have its dimensions. None takes any.
        seed: of random weights.
        mesh: where published weights are streamed to, shard by shard; None is the first device.

    Raises:
        UserError: the path holds no policy, or one of other dimensions.
    """
    if init == "random":
        config = model_config(size)
        params = nnx.split(Inserter(config, rngs=nnx.Rngs(seed)))[1]
        return Policy(config, params, TextCodec(load_tokenizer(BASE)))
    folder = BASE if init == "base" else policy_folder(Path(init))
    published = huggingface.is_published(folder)
    if not published and not (folder / "model.safetensors").is_file():
        mend = "give `base`, `random`, or the path of a finished run or of a policy's folder"
        raise UserError("There are no weights here.", where=str(folder / "model.safetensors"), mend=mend)
    config = huggingface.read_config(folder) if published else ModelConfig.load(folder / "config.json")
    if size is not None and not config.same_shapes(model_config(size)):
        raise UserError(f"These weights are not of size `{size}`.", where=str(folder), mend="give `model` their size")
    if published:
        mesh = mesh or make_mesh(MeshConfig(data=1), jax.devices()[:1])
        params = huggingface.load_weights(folder, config, mesh, "float32")
    else:
        params = load_weights(folder / "model.safetensors", config)
    return Policy(config, params, TextCodec(load_tokenizer(folder)), huggingface.companions(folder))


def policy_folder(path: Path) -> Path:
    """Where a run keeps the policy it ended with; a policy's own folder is returned as it is."""
    return path / "model" if (path / "model").is_dir() else path
