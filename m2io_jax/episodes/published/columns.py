"""The columns that hold a row's question, answer and images, by the names that trainers give them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from m2io_jax.episodes.published.chats import Chat, as_turns, read_chat
from m2io_jax.episodes.published.choices import refuse_unread_choices
from m2io_jax.episodes.published.draft import BadRow, ReadConfig, plain
from m2io_jax.episodes.published.images import (
    IMAGE_NAMES,
    image_sources,
    is_filled,
    is_named_as,
    looks_like_image,
)
from m2io_jax.episodes.published.marks import UNFILLED, ImagePart, Question, place_images
from m2io_jax.episodes.published.solutions import (
    Solution,
    answer_text,
    is_sentence,
    read_solution,
    with_reasoning,
)

# Names are tried in this order; the first filled column counts.
CHATS = ("message",)
OFTEN_CHATS = ("prompt", "messages", "conversations", "conversation")
QUESTIONS = ("problem", "question", *OFTEN_CHATS, "query", "instruction")
ANSWERS = ("answer", "solution", "ground_truth", "reward_model.ground_truth", "final_answer")
SPOKEN = ("response", "completion", "output")  # where a chat has no turn of the assistant
REASONING = ("reasoning", "reasoning_content", "rationale", "cot", "chain_of_thought", "thinking", "thought",
             "thoughts", "explanation")  # fmt: skip
IMAGES = ("images", "image", "multi_modal_data.image", "multi_modal_data.images", "mm_data.image", "mm_data.images")
NUMBERED = re.compile(r"image_?([0-9]{1,2})")
OTHER_MEDIA = ("video", "videos", "audio", "audios")
MEDIA_NAMES = re.compile(r"(?:\w+_)?(?:videos?|audios?)(?:_(?:paths?|files?|urls?|names?|ids?|bytes))?", re.IGNORECASE)
# Text between a template's turns: it would be encoded as one turn, inside another template.
TEMPLATE = re.compile(r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|(?:user|assistant)\|>|\[INST\]")
COLUMNS_READ = (
    f"question {', '.join((*CHATS, *QUESTIONS))}; answer {', '.join((*ANSWERS, *SPOKEN))}; reasoning "
    f"{', '.join(REASONING)}; images {', '.join(IMAGES)}, image_1 and so on; others by prompt_key=, answer_key=, "
    "image_key="
)
# Columns that are read or looked at, beside those of COLUMNS_READ.
OTHER_READ = ("system", "history", "input", "objects", "split", "extra_info")
SYSTEM = "its system turn"
RESPONSE = "its response, which answers otherwise"


def is_read(name: str, config: ReadConfig) -> bool:
    """Return whether a column of this name is read."""
    given = (config.prompt_key, config.answer_key, config.image_key)
    known = (*CHATS, *QUESTIONS, *ANSWERS, *SPOKEN, *REASONING, *IMAGES, *OTHER_READ, *given)
    return NUMBERED.fullmatch(name) is not None or name in {each.partition(".")[0] for each in known} | {*given}


@dataclass(frozen=True)
class Asked:
    """The question of a row, before its images and its answer are read.

    Attributes:
        spoken: the assistant's turn in the chat; None where there is none.
        notes: names of the parts of the row that are not kept.
    """

    question: Question
    spoken: str | None
    notes: tuple[str, ...]


def read_question(values: Mapping[str, Any], config: ReadConfig) -> Asked:
    """Read the question of a row and pair it with its images.

    Raises:
        BadRow: there is no question, it is more than one, or its images are not all to be had.
    """
    name, found = _first(values, (config.prompt_key,) if config.prompt_key else (*CHATS, *QUESTIONS))
    images, image_names = _images(values, config)
    _refuse_other_media(values)
    if found is None:
        raise BadRow("no question", f"columns: {', '.join(map(str, list(values)[:40]))}")
    chat = _chat(name, found, values)
    if template := TEMPLATE.search("".join(part for part in chat.question if isinstance(part, str))):
        raise BadRow("a prompt in a chat template, which is not read", template[0])
    if not images and not any(isinstance(part, ImagePart) and part.source is not None for part in chat.question):
        _refuse_named_media(values)
        _refuse_unread_images(values, {name, *image_names})
    _refuse_unfilled(values, chat.question)
    question = place_images(chat.question, images)
    has_system = chat.system or isinstance(values.get("system"), str) and is_filled(values["system"])
    return Asked(question, chat.answer, (SYSTEM,) * has_system)


def read_answer(values: Mapping[str, Any], asked: Asked, config: ReadConfig) -> Solution:
    """Read the answer of a row, and its reasoning wherever that stands.

    Raises:
        BadRow: there is no answer, there are several, or two that differ.
    """
    names = (config.answer_key,) if config.answer_key else ANSWERS
    name, value = _first(values, names)
    written = None if config.answer_key else _completion(values)
    if value is None:
        spoken = asked.spoken if asked.spoken is not None else written
        if spoken is None or config.answer_key:
            raise BadRow("no answer", f"columns: {', '.join(map(str, list(values)[:40]))}")
        found = read_solution(plain(spoken).strip())
    else:
        found = read_solution(answer_text(value))
        found = _with_other_answers(found, {other: dotted(values, other) for other in names if other != name})
        if asked.spoken is not None:
            _check_spoken(found.answer, asked.spoken)
            found = with_reasoning(found, plain(asked.spoken).strip())
        elif written is not None:
            found = _with_response(found, written)
    for column in REASONING:
        text = values.get(column)
        if isinstance(text, list) and all(isinstance(step, str) for step in text):
            text = "\n".join(text)
        if not found.reasoning and isinstance(text, str) and text.strip():
            found = with_reasoning(found, plain(text if "<" in text else f"<think>{text}</think>"))
    if is_sentence(found.answer):
        raise BadRow("an answer in a sentence, which cannot be compared", found.answer)
    refuse_unread_choices(values, asked.question.text, found.answer, value)
    return found


def _with_other_answers(found: Solution, others: Mapping[str, Any]) -> Solution:
    """Compare an answer with the row's other columns of answers, and take the reasoning of its solution.

    Raises:
        BadRow: two answers surely differ.
    """
    for name, value in others.items():
        if isinstance(value, str | int | float) and is_filled(value):
            other = with_reasoning(found, plain(str(value)).strip())
            found = other if name == "solution" else found
    return found


def _with_response(found: Solution, response: str) -> Solution:
    """Add the reasoning of a response beside an answer. A model may have written it, so it may be wrong."""
    try:
        return with_reasoning(found, plain(response).strip())
    except BadRow:
        return replace(found, notes=(*found.notes, RESPONSE))


def dotted(values: Mapping[str, Any], name: str) -> Any:
    """Return a column, or what lies in one: `reward_model.ground_truth`."""
    if name in values or "." not in name:
        return values.get(name)
    found: Any = values
    for key in name.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _first(values: Mapping[str, Any], names: Sequence[str]) -> tuple[str, Any]:
    for name in names:
        found = dotted(values, name)
        if is_filled(found):
            return name.partition(".")[0] if name not in values else name, found
    return "", None


def _chat(name: str, found: Any, values: Mapping[str, Any]) -> Chat:
    """Return the question as a chat of one turn, whatever its column holds."""
    if name in CHATS or as_turns(found) is not None or (isinstance(found, list) and name in OFTEN_CHATS):
        return read_chat(found)
    if not isinstance(found, str):
        raise BadRow("no question", f"{name} holds {type(found).__name__}")
    parts = [found]
    if name in ("query", "instruction"):
        if is_filled(values.get("history")):
            raise BadRow("a chat that is not one question", "history")
        if is_filled(more := values.get("input")):
            if not isinstance(more, str):
                raise BadRow("no question", f"input holds {type(more).__name__}")
            parts.append(more)
    return Chat(tuple(parts))


def _images(values: Mapping[str, Any], config: ReadConfig) -> tuple[list[Any], tuple[str, ...]]:
    """Return the images of a row, and the names of the columns that are read for images."""
    if config.image_key:
        return image_sources(dotted(values, config.image_key)), (config.image_key,)
    found = next(filter(None, (image_sources(dotted(values, name)) for name in IMAGES)), [])
    numbered = _numbered_images(values)
    numbers = [number for number, _ in numbered]
    names = [name for _, name in numbered]
    if found and numbered and numbers != list(range(1, len(found) + 1)):
        raise BadRow(f"images in a column that is not read: {', '.join(names)}", f"{len(found)} in images or image")
    if not found and numbers != list(range(1, len(numbered) + 1)):
        raise BadRow("numbered images of which some are missing", ", ".join(names))
    return found or [values[name] for name in names], (*IMAGES, *names)


def _numbered_images(values: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Return the numbers and names of the filled columns image_1, image_2 (or image1, image2) and so on."""
    found = ((NUMBERED.fullmatch(name), name) for name in values)
    return sorted((int(match[1]), name) for match, name in found if match and is_filled(values[name]))


def _completion(values: Mapping[str, Any]) -> str | None:
    """Return the response beside the question: text, or the assistant's turn as in TRL's `completion`."""
    _, found = _first(values, SPOKEN)
    turns = as_turns(found)
    if turns is not None and len(turns) == 1:
        chat = read_chat([{"role": "user", "content": "?"}, *turns])
        return chat.answer
    return found if isinstance(found, str) else None


def _check_spoken(answer: str, spoken: str) -> None:
    """Raise BadRow where a few words of the assistant are neither the answer nor a solution."""
    words, known = spoken.strip().strip("$(). ").casefold(), answer.strip("$(). ").casefold()
    is_short = 0 < len(words.split()) < 4 and "<" not in words and "\\" not in words
    if is_short and known not in words and words not in known and not read_solution(spoken).worked:
        raise BadRow("a chat that is not one question", f"the answer is {answer[:100]}, the assistant says {spoken}")


def _refuse_other_media(values: Mapping[str, Any]) -> None:
    found = [name for name in OTHER_MEDIA if is_filled(values.get(name))]
    if found:
        raise BadRow("a video or audio, which is not read", ", ".join(found))


def _refuse_named_media(values: Mapping[str, Any]) -> None:
    """Raise BadRow for a row without images that names a video. Beside images it may be where these come from."""
    found = [name for name, value in values.items() if is_named_as(MEDIA_NAMES, name, value)]
    if found:
        raise BadRow("a video or audio, which is not read", plain(", ".join(found)))


def _refuse_unread_images(values: Mapping[str, Any], read: set[str]) -> None:
    """Raise BadRow for a row without images that has one in a column that nobody reads."""
    skipped = read | {*ANSWERS, *SPOKEN, *REASONING, *QUESTIONS, *CHATS}
    found = [
        name
        for name, value in values.items()
        if name not in skipped and (is_named_as(IMAGE_NAMES, name, value) or looks_like_image(value))
    ]
    if found:
        names = ", ".join(plain(str(name))[:60] for name in sorted(found, key=str)[:5])
        raise BadRow(f"images in a column that is not read: {names}", "give its name as image_key=NAME")


def _refuse_unfilled(values: Mapping[str, Any], parts: Sequence[str | ImagePart]) -> None:
    text = "".join(part for part in parts if isinstance(part, str))
    if is_filled(values.get("objects")) and (mark := UNFILLED.search(text)):
        raise BadRow(f"a mark that the column objects fills, which is not read: {mark[0]}", text)
