"""The workloads of workloads.yaml as what `rl/grpo.py` runs on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml
from flax import nnx

from m2io_jax.config import BatchConfig, RunConfig
from m2io_jax.episodes.batching import PromptEncoder
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.policy import Policy
from m2io_jax.models.preprocessing import preprocess
from m2io_jax.models.sizes import Computation, ModelConfig, SpecialTokens, TextConfig, VisionConfig
from m2io_jax.rl.grpo import GRPORow

FILE = Path(__file__).with_name("workloads.yaml")
NO_TOKEN = -1  # the stop token's id: none that is sampled


@dataclass(frozen=True)
class Workload:
    """A model with random weights, a run's configuration, and the prompts of a step."""

    name: str
    config: RunConfig
    policy: Policy
    rows: tuple[GRPORow, ...]


class Ids:
    """In place of a tokenizer: a completion's text is its ids."""

    eos_token_id = NO_TOKEN

    @property
    def tokenizer(self):
        return self

    def decode(self, ids) -> str:
        return " ".join(map(str, ids))


class Spread:
    """A reward that costs nothing and differs inside a group: the share of even ids."""

    name, rewards = "spread", ("spread",)

    def score(self, completion: str, episode) -> Mapping[str, float]:
        ids = [int(word) for word in completion.split()]
        return {"spread": sum(number % 2 == 0 for number in ids) / max(1, len(ids))}


def names() -> list[str]:
    return list(_file()["workloads"])


def workload(name: str, **changes: Any) -> Workload:
    """A workload by name; `changes` to its entry, such as `group_size=4`."""
    stated = _file()
    entry = stated["workloads"][name] | changes
    model = _model(stated["models"][entry["model"]], stated["special"])
    patches = (entry["picture_size"] // model.vision.patch_size) ** 2
    batch = BatchConfig(
        prompts=entry["prompts"],
        prompt_length=entry["prompt_tokens"],
        completion_length=stated["max_new_tokens"],
        pictures=max(1, entry["pictures"]),  # a row without pictures has the same shapes
        patches=patches if entry["pictures"] else model.vision.merge_unit,
        max_pixels=entry["picture_size"] ** 2,
    )
    run = stated["run"]
    config = RunConfig(
        name=f"benchmark-{name}",
        objective="grpo",
        steps=1,
        tasks={"spread": 1.0},
        rewards={"spread": 1.0},
        batch=batch,
        computation={"remat": entry.get("remat", "none")},
        **run | {"rollout": run["rollout"] | {"group_size": entry.get("group_size", run["rollout"]["group_size"])}},
    )
    params = nnx.split(Inserter(model, rngs=nnx.Rngs(0)))[1]
    random, encoder = np.random.default_rng(0), PromptEncoder(model, None, batch)
    rows = tuple(_row(entry, model, encoder, stated["text_ids"], random) for _ in range(entry["prompts"]))
    policy = Policy(model, jax.block_until_ready(params), Ids())
    return Workload(name, config, policy.computed(Computation(**config.computation.model_dump())), rows)


def _row(entry: Mapping[str, Any], model: ModelConfig, encoder: PromptEncoder, text_ids, random) -> GRPORow:
    """One prompt: each picture's tokens between its marks, then its share of the text."""
    size, special = entry["picture_size"], model.special
    grids, media = [], []
    for _ in range(entry["pictures"]):
        pixels = random.integers(0, 256, (size, size, 3), np.uint8)
        grids.append(preprocess(pixels, model.vision, min_pixels=size**2, max_pixels=size**2))
        pads = grids[-1].height * grids[-1].width // model.vision.merge_unit
        media.append([special.vision_start, *[special.image_pad] * pads, special.vision_end])
    text = random.integers(*text_ids, entry["prompt_tokens"] - sum(map(len, media)))
    shares = np.array_split(text, max(1, len(media)))
    tokens = np.concatenate([np.concatenate(pair) for pair in zip(media or [[]], shares, strict=True)])
    return GRPORow(encoder.pad(tokens.astype(np.int32), grids, int(random.integers(2**31))), None, Spread())


def _model(stated: Mapping[str, Any], special: Mapping[str, int]) -> ModelConfig:
    text, vision = dict(stated["text"]), dict(stated["vision"])
    text["mrope_section"] = tuple(text["mrope_section"])
    vision["fullatt_block_indexes"] = tuple(vision["fullatt_block_indexes"])
    return ModelConfig(VisionConfig(**vision), TextConfig(**text), SpecialTokens(eos=NO_TOKEN, **special))


def _file() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())
