"""The generated kitchen: illustrated recipes and questions about them, with exact places for every picture.

A recipe's text says little about its pictures on purpose (terse steps, few captions), and its steps are near each
other (same ingredient in another colour, same colour in another count), so that placing its pictures takes looking.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache

from m2io_jax.corpus import kitchen_words as words
from m2io_jax.corpus.documents import AnswerPicture, Block, Document, PictureBlock, Question, TextBlock
from m2io_jax.corpus.kitchen_drawing import draw
from m2io_jax.corpus.kitchen_words import Content
from m2io_jax.errors import UserError

FEWEST_STEPS, MOST_STEPS = 3, 6
LARGEST_PART = 4  # steps that a question about part of a recipe may ask for
MOST_DOCUMENTS = len(words.ADJECTIVES) * len(words.NOUNS) * len(words.DISHES) * (1 + len(words.SIDES))


@dataclass(frozen=True)
class KitchenConfig:
    """How much is cooked, and how hard it is to tell pictures apart.

    Attributes:
        documents: recipes to write.
        seed: everything follows from the seed and a document's index.
        questions_per_document: from 0 to 6.
        caption_rate: share of pictures with a caption.
        picture_rate: share of drawable steps whose picture is in the document.
        full_text_rate: share of drawable steps whose text says what the picture shows.
        plain_step_rate: share of steps that nothing can be drawn for.
        plain_question_rate: share of questions whose answer takes no picture.
        near_rate: share of drawable steps that differ from an earlier one in a single property.
    """

    documents: int = 400
    seed: int = 0
    questions_per_document: int = 3
    caption_rate: float = 0.15
    picture_rate: float = 0.65
    full_text_rate: float = 0.2
    plain_step_rate: float = 0.2
    plain_question_rate: float = 0.17
    near_rate: float = 0.6

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name.endswith("_rate") and not 0 <= value <= 1:
                raise UserError(f"{value} is not a share", where=f"kitchen.{setting.name}", mend="choose from 0 to 1")
        if not 0 <= self.questions_per_document <= 6:
            raise UserError(
                f"cannot ask {self.questions_per_document} questions about a recipe",
                where="kitchen.questions_per_document",
                mend="choose from 0 to 6",
            )
        if not 0 <= self.documents <= MOST_DOCUMENTS:
            raise UserError(
                f"cannot write {self.documents} recipes",
                where="kitchen.documents",
                mend=f"choose from 0 to {MOST_DOCUMENTS}: every recipe has a title of its own",
            )


@dataclass(frozen=True)
class KitchenRecipe:
    """A document, questions about it, and its pictures: PNG bytes by content hash (SHA-256, hexadecimal)."""

    document: Document
    questions: tuple[Question, ...]
    pictures: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Step:
    """One step: what could be drawn (or nothing), its picture where the document has one, and its text."""

    content: Content | None
    text: str
    paraphrases: tuple[str, ...]
    picture: str = ""
    caption: str = ""


def generate(config: KitchenConfig) -> Iterator[KitchenRecipe]:
    """Recipes one after the other, made when asked for; each depends on the seed and its index only."""
    return (recipe(config, index) for index in range(config.documents))


def recipe(config: KitchenConfig, index: int) -> KitchenRecipe:
    """The recipe at `index`, whatever else is generated.

    Raises:
        UserError: `index` is not below `config.documents`.
    """
    if not 0 <= index < config.documents:
        raise UserError(f"there is no recipe {index}", where="kitchen", mend=f"ask for 0 to {config.documents - 1}")
    rng = random.Random(f"kitchen {config.seed} {index}")
    dish, noun = _dish(config.seed, index)
    pictures: dict[str, bytes] = {}
    steps = _steps(config, noun, pictures, rng)
    id = f"kitchen-{index:05d}"
    source = f"kitchen/{dish.replace(' ', '-')}.md"
    document = Document(id=id, title=dish, source=source, group=dish, blocks=_blocks(dish, steps, rng))
    return KitchenRecipe(document, tuple(_questions(config, document, steps, rng)), pictures)


def describe(content: str) -> str:
    """Says a canonical description as a reader would: `three red tomatoes knife` → `three red tomatoes and a knife`.

    Raises:
        UserError: `content` is not a canonical description.
    """
    parsed = words.parse(content)
    return f"{parsed.things} and a {parsed.tool}" if parsed.tool else parsed.things


@lru_cache(maxsize=8)
def _dishes(seed: int) -> tuple[tuple[str, str], ...]:
    """Every dish (its name and main ingredient) once, in an order of the seed's own."""
    dishes = [(f"{a} {noun} {dish}", noun) for a in words.ADJECTIVES for noun in words.NOUNS for dish in words.DISHES]
    random.Random(f"dishes {seed}").shuffle(dishes)
    return tuple(dishes)


def _dish(seed: int, index: int) -> tuple[str, str]:
    dishes = _dishes(seed)
    turn, place = divmod(index, len(dishes))
    name, noun = dishes[place]
    return (f"{name} with {words.SIDES[turn - 1]}" if turn else name), noun


def _steps(config: KitchenConfig, noun: str, pictures: dict[str, bytes], rng: random.Random) -> list[_Step]:
    """Three to six steps; at least two can be drawn and at least one is. Their pictures are added to `pictures`."""
    drawable = [rng.random() >= config.plain_step_rate for _ in range(rng.randint(FEWEST_STEPS, MOST_STEPS))]
    for place in rng.sample(range(len(drawable)), 2):
        drawable[place] = True
    shown = [can and rng.random() < config.picture_rate for can in drawable]
    if not any(shown):
        shown[rng.choice([place for place, can in enumerate(drawable) if can])] = True
    contents = iter(_contents(sum(drawable), noun, config.near_rate, rng))
    plain = iter(rng.sample(words.PLAIN_STEPS, drawable.count(False)))
    steps = [
        _drawable_step(next(contents), config.full_text_rate, rng) if can else _plain_step(*next(plain), rng)
        for can in drawable
    ]
    return [
        _illustrated(step, config, pictures, rng) if show else step for step, show in zip(steps, shown, strict=True)
    ]


def _contents(count: int, noun: str, near_rate: float, rng: random.Random) -> list[Content]:
    """Different contents, the first of `noun`, many of them a single property away from an earlier one."""
    nouns = [noun, *rng.sample([other for other in words.NOUNS if other != noun], 2)]
    contents = [words.any_content(rng, noun)]
    while len(contents) < count:
        near = rng.random() < near_rate
        content = _neighbour(rng.choice(contents), nouns, rng) if near else words.any_content(rng, rng.choice(nouns))
        if content.things not in [other.things for other in contents]:
            contents.append(content)
    rng.shuffle(contents)
    return contents


def _neighbour(content: Content, nouns: list[str], rng: random.Random) -> Content:
    """`content` with one property drawn again (it may come out the same: the caller looks), and any tool."""
    content = replace(content, tool=rng.choice(words.TOOLS))
    match rng.choice(("count", "colour", "noun")):
        case "count":
            return replace(content, count=rng.randint(1, len(words.COUNTS)))
        case "colour":
            return replace(content, colour=rng.choice(words.COLOURS))
        case _:
            return replace(content, noun=rng.choice(nouns))


def _drawable_step(content: Content, full_text_rate: float, rng: random.Random) -> _Step:
    sentences = tuple(sentence.format(things=content.things) for sentence in words.STEP_SENTENCES[content.tool])
    terse = words.TERSE_STEPS[content.tool] + words.TERSEST_STEPS
    return _Step(content, rng.choice(sentences if rng.random() < full_text_rate else terse), sentences)


def _plain_step(text: str, paraphrases: tuple[str, ...], rng: random.Random) -> _Step:
    minutes = rng.choice(words.MINUTES)
    return _Step(None, text.format(minutes=minutes), tuple(said.format(minutes=minutes) for said in paraphrases))


def _illustrated(step: _Step, config: KitchenConfig, pictures: dict[str, bytes], rng: random.Random) -> _Step:
    data = draw(step.content, rng)
    picture = hashlib.sha256(data).hexdigest()
    pictures[picture] = data
    caption = describe(step.content.text) if rng.random() < config.caption_rate else ""
    return replace(step, picture=picture, caption=caption)


def _blocks(dish: str, steps: list[_Step], rng: random.Random) -> tuple[Block, ...]:
    """The document as its Markdown would stand: blocks apart by an empty line, list items close together."""
    needed = sorted({step.content.things for step in steps if step.content})
    rng.shuffle(needed)  # a list in the order of the steps would tell where pictures belong
    written: list[Block] = [
        TextBlock(dish.capitalize(), 0, "heading", 1),
        TextBlock(rng.choice(words.INTROS).format(dish=dish), 0),
        TextBlock("Ingredients", 0, "heading", 2),
        *(TextBlock(things, 0, "item") for things in needed),
        TextBlock("Method", 0, "heading", 2),
    ]
    for step in steps:
        written.append(TextBlock(step.text, 0))
        if step.picture:
            written.append(PictureBlock(step.picture, 0, step.caption, step.content.things))
    blocks, line, previous = [], 1, None
    for block in written:
        is_item = isinstance(block, TextBlock) and block.kind == "item"
        if previous is not None:
            line += 1 if is_item and previous == "item" else 2
        blocks.append(replace(block, line=line))
        previous = "item" if is_item else "block"
    return tuple(blocks)


def _questions(config: KitchenConfig, document: Document, steps: list[_Step], rng: random.Random) -> Iterator[Question]:
    """Questions, each worded differently: the whole recipe, then parts of it, now and then one without pictures."""
    asked: set[str] = set()
    whole_asked = False
    plain = iter(rng.sample(words.PLAIN_QUESTIONS, len(words.PLAIN_QUESTIONS)))
    for number in range(config.questions_per_document):
        id = f"{document.id}-q{number}"
        if rng.random() < config.plain_question_rate:
            yield _plain_question(id, document, steps, next(plain), rng)
            continue
        part = _part(steps, rng) if whole_asked else (0, len(steps))
        question = _wording(document.title, part, len(steps), asked, rng)
        whole_asked = True
        asked.add(question)
        yield _pictured_question(id, document, question, steps[part[0] : part[1]], rng)


def _part(steps: list[_Step], rng: random.Random) -> tuple[int, int]:
    """Two to four steps in a row (first, one past the last), fewer than all, with a picture among them; else all."""
    total = len(steps)
    parts = [
        (first, first + length)
        for length in range(2, min(LARGEST_PART, total - 1) + 1)
        for first in range(total - length + 1)
        if any(step.picture for step in steps[first : first + length])
    ]
    return rng.choice(parts) if parts else (0, total)


def _wording(dish: str, part: tuple[int, int], total: int, asked: set[str], rng: random.Random) -> str:
    first, end = part
    if end - first == total:
        forms = words.WHOLE_QUESTIONS
    elif first == 0:
        forms = words.FIRST_QUESTIONS
    elif end == total:
        forms = words.LAST_QUESTIONS
    else:
        forms = words.MIDDLE_QUESTIONS
    numbers = dict(
        number=words.STEP_NUMBERS[end - first - 1], first=words.STEP_NUMBERS[first], last=words.STEP_NUMBERS[end - 1]
    )
    wordings = [form.format(dish=dish, **numbers) for form in forms]
    return rng.choice([wording for wording in wordings if wording not in asked] or wordings)


def _pictured_question(id: str, document: Document, question: str, steps: list[_Step], rng: random.Random) -> Question:
    """One sentence a step; the picture of a step stands after its sentence."""
    return Question(
        id=id,
        document=document.id,
        question=question,
        sentences=tuple(rng.choice(step.paraphrases) for step in steps),
        pictures=tuple(AnswerPicture(step.picture, slot) for slot, step in enumerate(steps, 1) if step.picture),
        contents=tuple(step.content.things if step.content else "" for step in steps),
    )


def _plain_question(
    id: str,
    document: Document,
    steps: list[_Step],
    wording: tuple[str, tuple[str, ...], tuple[str, ...]],
    rng: random.Random,
) -> Question:
    """An answer of two to four sentences without a picture, though one may name a thing that looks as if it had one."""
    question, remarks, lures = wording
    said = [(remark, "") for remark in rng.sample(remarks, rng.randint(2, min(3, len(remarks))))]
    if lures:
        content = _absent(steps, rng)
        said.insert(rng.randint(0, len(said)), (rng.choice(lures).format(things=content.things), content.things))
    filling = dict(
        number=rng.choice(words.STEP_NUMBERS[1:]), minutes=rng.choice(words.MINUTES), side=rng.choice(words.SIDES)
    )
    return Question(
        id=id,
        document=document.id,
        question=question.format(dish=document.title),
        sentences=tuple(sentence.format(**filling) for sentence, _ in said),
        pictures=(),
        contents=tuple(content for _, content in said),
    )


def _absent(steps: list[_Step], rng: random.Random) -> Content:
    """Things that no step of the recipe uses, with whatever tool."""
    used = {step.content.things for step in steps if step.content}
    while True:
        content = replace(words.any_content(rng), tool="")
        if content.things not in used:
            return content
