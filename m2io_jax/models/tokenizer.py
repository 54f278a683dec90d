"""A small byte-level BPE with Qwen's special tokens and chat format, as a `transformers` fast tokenizer."""

import json
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would tell every user that PyTorch is missing

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from m2io_jax.errors import UserError  # noqa: E402

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# How Qwen2's tokenizer cuts text before merging: contractions, words with one leading mark, digits, marks, space. And
# before all of these a slot's mark, `=2` or `=none`, in one piece: what comes straight after a word is read with it.
WORDS = (
    r"=(?:none|\p{N})|(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# Byte-level vocabularies write each byte as one printable character: itself where it is one, else from 256 on.
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose first ids are `SPECIAL`, in that order; any text can be written with it."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _as_fast(tokenizer)


def _as_fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in SPECIAL if token not in ("<|im_end|>", "<|endoftext|>")],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT
    return fast


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes the tokenizer's files so that version 4 of transformers, which others still use, reads them too."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    special = settings.pop("extra_special_tokens", None) or settings.get("additional_special_tokens", [])
    settings["additional_special_tokens"] = list(special)
    for key in ("backend", "is_local", "local_files_only"):
        settings.pop(key, None)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder.

    Raises:
        UserError: the folder has none, or it is damaged.
    """
    if not (folder / "tokenizer.json").is_file():
        hint = "take this file from the model that it was made of"
        if (folder / "vocab.json").is_file():
            hint = "make it of vocab.json and merges.txt: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        raise UserError("There is no tokenizer here.", where=str(folder / "tokenizer.json"), mend=hint)
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:  # transformers and tokenizers raise many types on files that are cut short
        what, mend = f"The tokenizer cannot be read: {type(error).__name__}: {error}", "take its files again, whole"
        raise UserError(what, where=str(folder), mend=mend) from error


class TextCodec:
    """Text to ids and back, where text never turns into a special token, whatever it says.

    Args:
        stops: the tokens that end a completion, which are no part of its text; the tokenizer's eos and pad where none
            are given.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stops: Iterable[int] | None = None):
        self.tokenizer = tokenizer
        self._stops = frozenset((tokenizer.eos_token_id, tokenizer.pad_token_id) if stops is None else stops)
        self._plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self.encode = lru_cache(maxsize=65_536)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._plain.encode(text, add_special_tokens=False).ids)

    def special(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)

    def token_bytes(self) -> list[bytes | None]:
        """The bytes of every token by its id; None for special ones."""
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        tokens = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        return [
            None if number in special or token is None else bytes(BYTES[character] for character in token)
            for number, token in enumerate(tokens)
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a completion without the stop token at its end; other special tokens are written out, for they
        are learnt from too, and no answer has them."""
        ids = list(ids)
        ends = ids and ids[-1] in self._stops
        return self.tokenizer.decode(ids[:-1] if ends else ids, skip_special_tokens=False)
