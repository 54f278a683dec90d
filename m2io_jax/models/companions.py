"""A Hugging Face folder read whole but for its weights: dimensions, tokenizer, image processor, stop tokens.

    config.json                                   dimensions (models/huggingface.py)
    *.safetensors, model.safetensors.index.json   weights (models/weights.py)
    processor_config.json, preprocessor_config.json   images (models/image_processor.py)
    generation_config.json                        stop tokens
    tokenizer and all else of `COMPANIONS`        kept as they came, byte by byte

A policy's folder is such a folder, ours and those that are published alike.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from m2io_jax.errors import UserError
from m2io_jax.models.huggingface import config_stops, read_config, token_ids, unknown_settings
from m2io_jax.models.image_processor import (
    FLAT,
    NESTED,
    SECTION,
    bounded_processor,
    default_processor,
    read_image_config,
)
from m2io_jax.models.json_files import LFS_HINT, LFS_POINTER, json_bytes, parse_json
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.models.tokenizer import load_tokenizer
from m2io_jax.models.weight_files import require_weights
from m2io_jax.parallel.exchange import is_first

GENERATION = "generation_config.json"
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    FLAT,
    "video_preprocessor_config.json",
    NESTED,
    GENERATION,
)
IM_END, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"
LISTED = 5


@dataclass(frozen=True)
class ModelFolder:
    """What a folder says of its model, the files that it came with, and its tokenizer."""

    config: ModelConfig
    tokenizer: PreTrainedTokenizerFast
    files: Mapping[str, bytes]


def read_folder(folder: Path) -> ModelFolder:
    """Read everything of a model's folder but its weights, of which it checks that they are there.

    Settings of config.json that nobody here knows are told on standard error.

    Raises:
        UserError: something is missing, damaged, or asks for what is not implemented; the files do not fit each other.
    """
    config = read_config(folder)
    if (unknown := unknown_settings(folder)) and is_first():
        shown = ", ".join(unknown[:LISTED]) + f" and {len(unknown) - LISTED} more" * (len(unknown) > LISTED)
        told = f"{folder / 'config.json'}: settings that are not known here and not read: {shown}"
        print(told, file=sys.stderr, flush=True)
    require_weights(folder)
    files, tokenizer = companions(folder), load_tokenizer(folder)
    check_tokenizer(tokenizer, config, folder)
    image = read_image_config(files, config.vision, str(folder))
    return ModelFolder(_with_stops(replace(config, image=image), tokenizer, files, folder), tokenizer, files)


def companions(folder: Path) -> dict[str, bytes]:
    """Return the files of `COMPANIONS` that a folder has. Raises UserError: one is a Git LFS pointer."""
    files = {name: (folder / name).read_bytes() for name in COMPANIONS if (folder / name).is_file()}
    for name, content in files.items():
        if content.startswith(LFS_POINTER):
            # The words of `load_tokenizer`, which would find the tokenizer's files damaged.
            what = "The tokenizer cannot be read: this" if name.startswith("tokenizer") else "This"
            what = f"{what} is a Git LFS pointer, not the file itself."
            raise UserError(what, where=str(folder / name), mend=f"{LFS_HINT}, whole")
    return files


def consistent_files(
    files: Mapping[str, bytes], config: ModelConfig, where: str, max_pixels: int | None = None
) -> dict[str, bytes]:
    """Return the files to write beside the weights, which say what training did.

    generation_config.json names every stop token, and the image processor's files a run's bound. What says so already
    is kept byte by byte; what is missing is made.

    Args:
        max_pixels: the run's `batch.max_pixels`; None leaves the bounds that the files have.
    """
    made = dict(files)
    if FLAT not in made and not (NESTED in made and SECTION in parse_json(made[NESTED], f"{where}/{NESTED}")):
        made[FLAT] = json_bytes(default_processor(config))
    if max_pixels is not None:
        made |= bounded_processor(made, config, max_pixels, where)
    return made | _generation_with_stops(made, config, where)


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, config: ModelConfig, folder: Path) -> None:
    """Raise UserError unless the tokenizer's marks have the ids that config.json says and every id has an embedding."""
    special, vocabulary = config.special, tokenizer.get_vocab()
    marks = {
        "<|vision_start|>": special.vision_start,
        "<|vision_end|>": special.vision_end,
        "<|image_pad|>": special.image_pad,
        "<|video_pad|>": special.video_pad,
    }
    problems = [f"{mark} is not in it" for mark in (*marks, "<|im_start|>", IM_END) if mark not in vocabulary]
    for mark, expected in marks.items():
        if mark in vocabulary and vocabulary[mark] != expected:
            problems.append(f"{mark} is {vocabulary[mark]}, config.json says {expected}")
    rows = config.text.vocab_size
    beyond = sorted((number, token) for token, number in vocabulary.items() if number >= rows)
    if beyond:
        shown = ", ".join(f"{token} ({number})" for number, token in beyond[:LISTED])
        problems.append(f"{len(beyond)} of its tokens are beyond the {rows} rows of the embeddings: {shown}")
    if problems:
        mend = "give the tokenizer and the config.json of the same model"
        raise UserError("\n    ".join(["The tokenizer is not this model's:", *problems]), where=str(folder), mend=mend)


def _with_stops(
    config: ModelConfig, tokenizer: PreTrainedTokenizerFast, files: Mapping[str, bytes], folder: Path
) -> ModelConfig:
    """Return the configuration with every token that ends a completion.

    These are `<|im_end|>`, with which the chat format ends a turn; those of generation_config.json, or else of
    config.json; and `<|endoftext|>`. A token that only pads is none of them.
    """
    vocabulary = tokenizer.get_vocab()
    eos, end_of_text = vocabulary[IM_END], vocabulary.get(END_OF_TEXT)
    where = f"{folder / GENERATION}: eos_token_id"
    named = token_ids(_generation(files, str(folder)).get("eos_token_id"), config.text.vocab_size, where)
    named = named or config_stops(folder)
    stops = dict.fromkeys(token for token in (eos, *named, end_of_text) if token is not None)
    bos = config.special.bos if end_of_text is None else end_of_text
    return replace(config, special=replace(config.special, eos=eos, bos=bos, stops=tuple(stops)))


def _generation(files: Mapping[str, bytes], where: str) -> dict[str, Any]:
    return parse_json(files[GENERATION], f"{where}/{GENERATION}") if GENERATION in files else {}


def _generation_with_stops(files: Mapping[str, bytes], config: ModelConfig, where: str) -> dict[str, bytes]:
    special, found = config.special, _generation(files, where)
    named = found.get("eos_token_id")
    if set(special.stops) == set(named if isinstance(named, list) else [named]):
        return {}
    ids = {"bos_token_id": special.bos, "pad_token_id": special.pad} | found | {"eos_token_id": list(special.stops)}
    return {GENERATION: json_bytes(ids)}
