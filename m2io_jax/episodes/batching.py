"""From prompts to the arrays that the model reads: tokens, patches and geometry, padded to the run's static shapes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import jax
import numpy as np

from m2io_jax.config import BatchConfig
from m2io_jax.corpus.pictures import PictureError, decode
from m2io_jax.episodes.episode import Candidate
from m2io_jax.episodes.prompt import Picture, Prompt, Shortened
from m2io_jax.errors import RowError, UserError
from m2io_jax.models.inputs import Completions, PictureGrid, PromptBatch, patch_geometry, token_positions
from m2io_jax.models.preprocessing import preprocess
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.models.tokenizer import TextCodec


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PromptRow:
    """One prompt, padded: a `PromptBatch` without its first axis, field by field."""

    tokens: np.ndarray
    mask: np.ndarray
    positions: np.ndarray
    next_position: np.ndarray
    media_index: np.ndarray
    patches: np.ndarray
    patch_positions: np.ndarray
    windows: np.ndarray
    seeds: np.ndarray


class PromptEncoder:
    """Turns prompts into rows and completions into tokens, for one model and one set of static shapes.

    Raises:
        UserError: `batch.patches` is no multiple of the patches that become one token.
    """

    def __init__(self, model: ModelConfig, codec: TextCodec, batch: BatchConfig):
        self.model, self.codec, self.batch = model, codec, batch
        self._merge = model.vision.merge_unit
        if batch.patches % self._merge:
            what = f"{batch.patches} patches a picture cannot be merged by {self._merge}."
            raise UserError(what, where="batch.patches", mend=f"give a multiple of {self._merge}")

    def row(self, prompt: Prompt, candidates: Sequence[Candidate], *, seed: int) -> PromptRow:
        """One padded prompt.

        Raises:
            RowError: it does not fit the shapes, or a picture cannot be read. Nothing is cut to make it fit.
        """
        shown = [part.candidate for part in prompt.user if isinstance(part, Picture)]
        if len(shown) > self.batch.pictures:
            raise RowError("more pictures than batch.pictures")
        grids = [self._grid(candidates[index]) for index in shown]
        tokens = self._tokens(prompt, grids)
        if len(tokens) > self.batch.prompt_length:
            raise RowError("a prompt longer than batch.prompt_length")
        return self.pad(np.array(tokens, np.int32), grids, seed)

    def blank(self) -> PromptRow:
        """A row that says nothing, in the shapes of every other."""
        return self.pad(np.full(1, self.model.special.pad, np.int32), [], 0)

    def completion(self, text: str) -> list[int]:
        """A completion's tokens with the stop token.

        Raises:
            RowError: it is longer than `batch.completion_length`.
        """
        tokens = [*self.codec.encode(text), self.model.special.eos]
        if len(tokens) > self.batch.completion_length:
            raise RowError("a completion longer than batch.completion_length")
        return tokens

    def _grid(self, candidate: Candidate) -> PictureGrid:
        most, image = self.batch.max_pixels, self.model.image
        bounds = dict(min_pixels=min(most, image.min_pixels), max_pixels=most)
        try:
            grid = preprocess(decode(candidate.data), self.model.vision, image=image, **bounds)
        except PictureError as error:
            raise RowError(f"a picture that is {error.kind}") from error
        except ValueError as error:
            raise RowError("a picture that is too narrow") from error
        if grid.height * grid.width > self.batch.patches:
            raise RowError("a picture of more patches than batch.patches")
        return grid

    def _tokens(self, prompt: Prompt, grids: list[PictureGrid]) -> list[int]:
        """What the chat template renders, cut into tokens as one text: a served model is given the same."""
        encode, special = self.codec.encode, self.model.special
        start, end = self.codec.special("<|im_start|>"), self.codec.special("<|im_end|>")
        system = f"{prompt.system}\n\n{prompt.manual}" if self.batch.explain and prompt.manual else prompt.system
        tokens = [start, *encode(f"system\n{system}"), end, *encode("\n"), start]
        text, pictures = "user\n", iter(grids)
        for part in prompt.user:
            if isinstance(part, Picture):
                grid = next(pictures)
                pads = [special.image_pad] * (grid.height * grid.width // self._merge)
                tokens += [*encode(text), special.vision_start, *pads, special.vision_end]
                text = ""
            else:
                text += self._shortened(part.text) if isinstance(part, Shortened) else part
        return [*tokens, *encode(text), end, *encode("\n"), start, *encode("assistant\n")]

    def _shortened(self, text: str) -> str:
        tokens, most = self.codec.encode(text), self.batch.max_sentence_tokens
        # a character of several bytes that is cut in two is left out
        return text if len(tokens) <= most else self.codec.decode(tokens[:most]).rstrip("\ufffd")

    def pad(self, tokens: np.ndarray, grids: list[PictureGrid], seed: int) -> PromptRow:
        """A row from tokens and pictures that fit, by the fill rules of `models/inputs.py`.

        Raises:
            RowError: the picture tokens are not as many as the pictures' embeddings.
        """
        batch, vision = self.batch, self.model.vision
        length, room = len(tokens), batch.prompt_length
        positions, following = token_positions(tokens, grids, self.model)
        patches = np.zeros((batch.pictures, batch.patches, vision.patch_features), np.float32)
        patch_positions = np.zeros((batch.pictures, batch.patches, 2), np.int32)
        windows = np.full((batch.pictures, batch.patches), -1, np.int32)
        embeddings = []  # where each picture token finds its embedding among the padded ones
        for index, grid in enumerate(grids):
            count = grid.height * grid.width
            patches[index, :count] = grid.patches
            patch_positions[index, :count], windows[index, :count] = patch_geometry(grid.height, grid.width, vision)
            embeddings += range(index * batch.patches // self._merge, (index * batch.patches + count) // self._merge)
        media_index = np.full(room, -1, np.int32)
        is_picture = np.flatnonzero(tokens == self.model.special.image_pad)
        if len(is_picture) != len(embeddings):
            raise RowError("as many picture tokens as picture embeddings were expected")
        media_index[is_picture] = embeddings
        return PromptRow(
            tokens=np.pad(tokens, (0, room - length), constant_values=self.model.special.pad),
            mask=np.arange(room) < length,
            positions=np.pad(positions, ((0, 0), (0, room - length))),
            next_position=np.int32(following),
            media_index=media_index,
            patches=patches,
            patch_positions=patch_positions,
            windows=windows,
            seeds=np.int32(seed),
        )


def stack_prompts(rows: Sequence[PromptRow]) -> PromptBatch:
    """Rows of the same shapes become a batch."""
    names = [field.name for field in fields(PromptRow)]
    return PromptBatch(**{name: np.stack([getattr(row, name) for row in rows]) for name in names})


def stack_completions(groups: Sequence[Sequence[Sequence[int]]], length: int, pad: int) -> Completions:
    """Token lists, [rows][group], padded on the right to `length`."""
    tokens = np.full((len(groups), len(groups[0]), length), pad, np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, group in enumerate(groups):
        for member, completion in enumerate(group):
            tokens[row, member, : len(completion)] = completion
            mask[row, member, : len(completion)] = True
    return Completions(tokens, mask)
