"""Chats: one turn of the user, perhaps one of the assistant that answers it, in the forms that trainers read.

    TRL, verl, LLaMA-Factory, ms-swift   [{"role": "user", "content": "..."}]
    VLM-R1, LLaVA, ShareGPT              [{"from": "human", "value": "..."}]
    Qwen, OpenAI, Anthropic              content as a list of parts: text, image, image_url, input_image

A chat may lie in a string as JSON (LMM-R1).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m2io_jax.episodes.published.draft import BadRow
from m2io_jax.episodes.published.marks import ImagePart

ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
IMAGE_KEYS = ("image", "image_url", "input_image", "source", "url", "path", "bytes", "base64", "data", "file_name")
TEXTS = ("text", "input_text", "output_text")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # beside the content of a turn, or the type of a part
IMAGES = ("image", "image_url", "input_image")
OTHER_MEDIA = ("video", "video_url", "input_video", "audio", "audio_url", "input_audio")


@dataclass(frozen=True)
class Chat:
    """A question, in parts, and what answers it.

    Attributes:
        answer: the assistant's words, with its thoughts in a <think> block; None where the chat ends with the question.
        system: whether instructions of the system were left out.
    """

    question: tuple[str | ImagePart, ...]
    answer: str | None = None
    system: bool = False


def as_turns(value: Any) -> list[Any] | None:
    """Return the turns of a chat, which may be JSON in a string; None where the value is no chat at all."""
    if isinstance(value, str):
        if not value.lstrip()[:1] == "[":
            return None
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, Mapping) and _is_turn(value):
        value = [value]
    is_chat = isinstance(value, list) and bool(value) and any(_is_turn(turn) for turn in value)
    return value if is_chat else None


def read_chat(value: Any) -> Chat:
    """Read a chat of one question.

    Raises:
        BadRow: it is no chat, has several questions or turns of tools, or parts that are neither text nor image.
    """
    turns = as_turns(value)
    if turns is None or not all(_is_turn(turn) for turn in turns):
        raise BadRow("a message that is no chat", f"{str(value)[:300]}" if isinstance(value, str) else "")
    said = [(*_role_and_content(turn), turn) for turn in turns]
    spoken = [(role, content, turn) for role, content, turn in said if role != "system"]
    if [role for role, _, _ in spoken] not in (["user"], ["user", "assistant"]):
        raise BadRow("a chat that is not one question", ", ".join(role for role, _, _ in said[:20]))
    answer = _answer(*spoken[1][1:]) if len(spoken) == 2 else None
    return Chat(read_parts(spoken[0][1]), answer, len(spoken) < len(said))


def _answer(content: Any, turn: Mapping[str, Any]) -> str:
    """Return what the assistant says, after its thoughts where these stand outside of the text."""
    thoughts, parts = [turn.get(key) for key in THOUGHTS], []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, Mapping) and part.get("type") in THOUGHTS:
            thoughts += [part.get(key) for key in (*THOUGHTS, "text")]
        elif part is not None:
            parts.append(part)
    said = read_parts(parts)
    if not all(isinstance(part, str) for part in said):
        raise BadRow("an answer with an image")
    text, thought = "\n".join(said), "\n".join(each for each in thoughts if isinstance(each, str) and each.strip())
    return f"<think>{thought}</think>\n{text}" if thought and "<think>" not in text else text


def read_parts(content: Any) -> tuple[str | ImagePart, ...]:
    """Read the parts of a turn, in their order.

    Raises:
        BadRow: a part is neither text nor image.
    """
    if content is None:
        return ()
    return tuple(_part(part) for part in (content if isinstance(content, list) else [content]))


def _part(part: Any) -> str | ImagePart:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise BadRow("a message with a part that is neither text nor picture", f"{type(part).__name__}")
    kind = part.get("type")
    if kind is None:
        filled = [key for key in (*TEXTS, *IMAGES, *OTHER_MEDIA) if part.get(key) is not None]
        kind = filled[0] if len(filled) == 1 else None
    if kind in TEXTS and isinstance(text := part.get("text", part.get(kind)), str):
        return text
    if kind in IMAGES:
        return ImagePart(next((part[key] for key in IMAGE_KEYS if part.get(key) not in (None, "", [], {})), None))
    raise BadRow("a message with a part that is neither text nor picture", f"type {kind!r}, keys {list(part)[:20]}")


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, Mapping):
        return False
    return any(isinstance(turn.get(key), str) for key in ("role", "from")) and any(
        key in turn for key in ("content", "value")
    )


def _role_and_content(turn: Mapping[str, Any]) -> tuple[str, Any]:
    role = turn["role"] if isinstance(turn.get("role"), str) else turn["from"]
    content = turn["content"] if turn.get("content") is not None else turn.get("value")
    calls = [key for key in ("tool_calls", "function_call") if turn.get(key) not in (None, "", [], {})]
    return ("tool" if calls else ROLES.get(role.lower()[:40], role[:40])), content
