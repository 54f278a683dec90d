"""The vision-language model: pictures encoded into the language model's sequence. The policy of everything here."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from m2io_jax.models.attention import GroupLayout
from m2io_jax.models.inputs import Completions, PromptBatch
from m2io_jax.models.language import LanguageModel
from m2io_jax.models.lora import add_adapters
from m2io_jax.models.sizes import ModelConfig
from m2io_jax.models.vision import VisionTower
from m2io_jax.parallel.sharding import parts_of

NEVER = -1e30  # logit of a token that is never sampled and never given probability
# That a device holds at a time when completions are scored; more are computed in parts, twice for a gradient.
MOST_LOGITS = 2**25


class Inserter(nnx.Module):
    """Qwen2.5-VL (arXiv 2502.13923). One class for every size."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.vision = VisionTower(config.vision, config.computation, rngs=rngs)
        self.language = LanguageModel(config.text, config.computation, rngs=rngs)
        if config.lora is not None:
            add_adapters(self, config.lora, rngs)

    def encode_pictures(self, prompts: PromptBatch) -> Float[Array, "rows media size"]:
        """The embeddings of every prompt's pictures, one picture after another."""
        flat = "rows pictures ... -> (rows pictures) ..."
        pictures = self.vision(
            rearrange(prompts.patches, flat), rearrange(prompts.patch_positions, flat), rearrange(prompts.windows, flat)
        )
        return rearrange(pictures, "(rows pictures) tokens size -> rows (pictures tokens) size", rows=prompts.rows)

    def embed_prompt(
        self, prompts: PromptBatch, pictures: Float[Array, "rows media size"] | None = None
    ) -> Float[Array, "rows prompt size"]:
        """Token embeddings with every picture's embeddings in the places of its tokens.

        `pictures` are what `encode_pictures` gave, where they need not be encoded again.
        """
        text = self.language.embed(prompts.tokens)
        pictures = self.encode_pictures(prompts) if pictures is None else pictures
        is_media = prompts.media_index >= 0
        gathered = jnp.take_along_axis(pictures, jnp.maximum(prompts.media_index, 0)[..., None], axis=1)
        return jnp.where(is_media[..., None], gathered.astype(text.dtype), text)

    def next_token_logits(
        self, hidden: Float[Array, "... size"], output: Float[Array, "size vocab"] | None = None
    ) -> Float[Array, "... vocab"]:
        """Logits a completion's token is drawn from: tokens that stand for pictures have none of the probability."""
        is_media = np.isin(np.arange(self.config.text.vocab_size), self.config.special.media)
        return jnp.where(is_media, NEVER, self.language.logits(hidden, output))

    def completion_log_probs(
        self,
        prompts: PromptBatch,
        completions: Completions,
        temperature: float = 1.0,
        pictures: Float[Array, "rows media size"] | None = None,
    ) -> tuple[Float[Array, "rows group time"], Float[Array, "rows group time"]]:
        """Log-probability of every completion token, and the entropy of the distribution it was drawn from, in nats."""
        hidden = self.before_tokens(prompts, completions, pictures)
        return self._scores(hidden, completions.tokens, temperature)

    def before_tokens(
        self, prompts: PromptBatch, completions: Completions, pictures: Float[Array, "rows media size"] | None = None
    ) -> Float[Array, "rows group time size"]:
        """The hidden state that each completion token is drawn from: that of the token before it.

        The prompt runs once for its whole group: one sequence [prompt | c1 | ... | cG] a row.
        """
        rows, group, time = completions.tokens.shape
        layout = GroupLayout(prompts.tokens.shape[1], group, time)
        own = self.language.embed(rearrange(completions.tokens, "rows group time -> rows (group time)"))
        x = jnp.concatenate([self.embed_prompt(prompts, pictures), own], axis=1)
        own_positions = prompts.next_position[:, None, None] + jnp.arange(time)
        own_positions = jnp.broadcast_to(own_positions, (rows, group, time)).reshape(rows, 1, -1)
        own_positions = jnp.broadcast_to(own_positions, (rows, 3, group * time))
        positions = jnp.concatenate([prompts.positions, own_positions], axis=2)
        hidden = self.language.group(x, positions.transpose(1, 0, 2), layout, prompts.mask)

        last = jnp.take_along_axis(hidden, prompts.mask.sum(1)[:, None, None] - 1, axis=1)
        last = jnp.broadcast_to(last[:, None], (rows, group, 1, hidden.shape[-1]))
        by_completion = "rows (group time) size -> rows group time size"
        own_hidden = rearrange(hidden[:, layout.prompt :], by_completion, group=group)
        return jnp.concatenate([last, own_hidden[:, :, :-1]], axis=2)

    def _scores(self, hidden: Float[Array, "rows group time size"], tokens: Int[Array, "rows group time"], temperature):
        """`token_log_probs` of what the hidden states predict, without holding more than about `MOST_LOGITS` logits."""
        output = self.language.output()

        def part(hidden_and_tokens):
            hidden, tokens = hidden_and_tokens
            return token_log_probs(self.next_token_logits(hidden, output), tokens, temperature)

        time, shape = tokens.shape[-1], (*tokens.shape, self.config.text.vocab_size)
        logits = math.prod(shape) / parts_of(("batch", None, None, "vocab"), shape)
        parts = next(n for n in range(1, time + 1) if time % n == 0 and (logits / n <= MOST_LOGITS or n == time))
        if parts == 1:
            return part((hidden, tokens))
        cut = "rows group (parts time) ... -> parts rows group time ..."
        pieces = (rearrange(hidden, cut, parts=parts), rearrange(tokens, cut, parts=parts))
        done = jax.lax.map(jax.checkpoint(part, prevent_cse=False), pieces)
        return tuple(rearrange(x, "parts rows group time -> rows group (parts time)") for x in done)


def token_log_probs(logits, tokens, temperature: float = 1.0):
    """Log-probability of `tokens` and entropy under `softmax(logits / temperature)`; float32, nats."""
    logits = logits.astype(jnp.float32) / temperature
    total = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0] - total
    mean = jnp.sum(jnp.exp(logits - total[..., None]) * logits, axis=-1)
    return chosen, total - mean
