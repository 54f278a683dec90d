"""The generated kitchen: the same every time, says what it shows, and shows what it says."""

import hashlib
import io
import random
import re
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from m2io_jax.corpus.documents import PictureBlock, TextBlock
from m2io_jax.corpus.kitchen import KitchenConfig, describe, generate, recipe
from m2io_jax.corpus.kitchen_drawing import INK, draw
from m2io_jax.corpus.kitchen_words import COLOURS, COUNTS, NOUNS, STEP_SENTENCES, TOOLS, Content, any_content, parse
from m2io_jax.errors import UserError

EVERYTHING_DRAWABLE = [Content(n, c, noun, t) for n in (1, 2, 3, 4) for c in COLOURS for noun in NOUNS for t in TOOLS]


@pytest.fixture(scope="module")
def recipes():
    return list(generate(KitchenConfig(documents=200, seed=3)))


def questions(recipes):
    return [(question, recipe) for recipe in recipes for question in recipe.questions]


def pixels(data: bytes) -> np.ndarray:
    """The picture as a model of 56 × 56 pixels sees it."""
    picture = Image.open(io.BytesIO(data)).convert("RGB").resize((56, 56), Image.Resampling.BICUBIC)
    return np.asarray(picture).astype(int)


def test_canonical_descriptions():
    assert Content(1, "blue", "egg").text == "one blue egg"
    assert Content(3, "red", "tomato", "knife").text == "three red tomatoes knife"
    assert Content(4, "green", "leaf", "pan").text == "four green leaves pan"
    assert describe("three red tomatoes knife") == "three red tomatoes and a knife"
    assert describe("one blue egg") == "one blue egg"


def test_every_description_is_read_back_and_unlike_any_other():
    assert all(parse(content.text) == content for content in EVERYTHING_DRAWABLE)
    assert len({content.text for content in EVERYTHING_DRAWABLE}) == len(EVERYTHING_DRAWABLE) == 4 * 6 * 12 * 4


@pytest.mark.parametrize(
    "text", ["", "red tomatoes", "one red tomatoes", "two pink eggs", "two red eggs fork", "x y z"]
)
def test_what_no_picture_shows_is_refused(text):
    with pytest.raises(UserError, match="three red tomatoes knife"):
        parse(text)


def test_a_recipe_depends_on_seed_and_index_only():
    few, many = KitchenConfig(documents=4, seed=5), KitchenConfig(documents=1000, seed=5)
    assert list(generate(few)) == list(islice(generate(many), 4))
    assert recipe(many, 3) == list(generate(few))[3]
    assert recipe(many, 3) != recipe(replace(many, seed=6), 3)


def test_titles_never_repeat_and_ids_are_unique(recipes):
    documents = [recipe.document for recipe in recipes]
    assert len({document.title for document in documents}) == len({document.id for document in documents}) == 200
    assert all(document.group == document.title for document in documents)
    beyond_plain_dishes = recipe(KitchenConfig(documents=20_000), 10_000).document.title
    assert " with " in beyond_plain_dishes


def test_pictures_are_png_files_under_their_hash(recipes):
    for cooked in recipes:
        placed = [block.picture for block in cooked.document.blocks if isinstance(block, PictureBlock)]
        assert sorted(placed) == sorted(cooked.pictures) and placed
        for picture, data in cooked.pictures.items():
            assert hashlib.sha256(data).hexdigest() == picture
    file = Image.open(io.BytesIO(data))
    assert file.format == "PNG" and file.mode == "RGB" and 48 <= min(file.size) <= max(file.size) <= 84


def test_no_content_twice_in_a_recipe(recipes):
    for cooked in recipes:
        shown = [block.content for block in cooked.document.blocks if isinstance(block, PictureBlock)]
        assert len(shown) == len(set(shown))
        for question in cooked.questions:
            drawable = [content for content in question.contents if content]
            assert len(drawable) == len(set(drawable))


def test_answers_say_what_their_contents_say(recipes):
    for question, _ in questions(recipes):
        assert 2 <= len(question.sentences) <= 6 and len(question.contents) == len(question.sentences)
        for sentence, content in zip(question.sentences, question.contents, strict=True):
            assert 4 < len(sentence.split()) <= 12
            assert "{" not in sentence
            coloured = re.search(rf"\b({'|'.join(COUNTS)}) ({'|'.join(COLOURS)}) (\w+)", sentence)
            assert (coloured.group() if coloured else "") == (parse(content).things if content else "")


def test_gold_is_the_documents_picture_after_the_sentence_it_shows(recipes):
    for question, cooked in questions(recipes):
        shown = {b.picture: b.content for b in cooked.document.blocks if isinstance(b, PictureBlock)}
        order = list(shown)
        assert all(question.contents[gold.slot - 1] == shown[gold.picture] for gold in question.pictures)
        places = [(gold.slot, order.index(gold.picture)) for gold in question.pictures]
        assert places == sorted(places)
        expected = {slot for slot, content in enumerate(question.contents, 1) if content in shown.values()}
        assert {gold.slot for gold in question.pictures} == expected


def test_whole_recipes_use_every_picture(recipes):
    whole = [(q, r) for q, r in questions(recipes) if q.question == f"How do I make {r.document.title}?"]
    assert whole
    assert all({gold.picture for gold in q.pictures} == set(r.pictures) for q, r in whole)


def test_shares_are_as_configured(recipes):
    asked = [question for question, _ in questions(recipes)]
    assert len(asked) == 600 and len({question.id for question in asked}) == 600
    assert 0.13 < np.mean([not question.pictures for question in asked]) < 0.21
    pictures = [b for r in recipes for b in r.document.blocks if isinstance(b, PictureBlock)]
    assert 0.1 < np.mean([bool(block.caption) for block in pictures]) < 0.2
    whole = [q for q in asked if re.match("How do I make|How is .* cooked", q.question)]
    drawable = sum(bool(content) for q in whole for content in q.contents)
    assert 0.58 < sum(len(q.pictures) for q in whole) / drawable < 0.75


def test_most_step_texts_do_not_give_the_picture_away(recipes):
    before = [
        (text.text, picture.content)
        for cooked in recipes
        for text, picture in zip(cooked.document.blocks, cooked.document.blocks[1:], strict=False)
        if isinstance(picture, PictureBlock) and isinstance(text, TextBlock)
    ]
    assert 0.1 < np.mean([parse(content).things in text for text, content in before]) < 0.3


def test_ingredients_name_all_that_is_shown(recipes):
    for cooked in recipes:
        listed = {b.text for b in cooked.document.blocks if isinstance(b, TextBlock) and b.kind == "item"}
        shown = {parse(b.content).things for b in cooked.document.blocks if isinstance(b, PictureBlock)}
        assert shown <= listed


def test_questions_about_one_document_are_worded_differently():
    for cooked in generate(KitchenConfig(documents=60, questions_per_document=6)):
        assert len({question.question for question in cooked.questions}) == 6


def test_lines_are_those_of_the_markdown(recipes):
    blocks = recipes[0].document.blocks
    text, previous = "", None
    for block in blocks:
        is_item = isinstance(block, TextBlock) and block.kind == "item"
        text += ("" if previous is None else "\n" if is_item and previous else "\n\n") + f"<{block.line}>"
        previous = is_item
    assert all(line == f"<{number}>" for number, line in enumerate(text.splitlines(), 1) if line)


def test_the_vocabulary_stays_small(recipes):
    seen: set[str] = set()
    for cooked in recipes:
        texts = [b.text if isinstance(b, TextBlock) else b.caption for b in cooked.document.blocks]
        texts += [text for question in cooked.questions for text in (question.question, *question.sentences)]
        seen |= set(re.findall("[a-z]+", " ".join(texts).lower()))
    assert len(seen) < 400


def test_the_tool_is_plain_from_the_sentence():
    telling = {"knife": "knife|chop|cut|slice", "pan": "pan|fry", "bowl": "bowl|mix|stir"}
    for tool, sentences in STEP_SENTENCES.items():
        for sentence in sentences:
            assert [t for t, verbs in telling.items() if re.search(rf"\b({verbs})\b", sentence.lower())] == [
                tool
            ] * bool(tool)


@pytest.mark.parametrize("noun", NOUNS)
def test_a_picture_shows_as_many_pieces_of_its_colour_as_it_says(noun):
    rng = random.Random(noun)
    for _ in range(12):
        content = any_content(rng, noun)
        picture = np.asarray(Image.open(io.BytesIO(draw(content, rng)))).astype(int)
        inked = np.abs(picture - INK[content.colour]).max(-1) < 40
        whole = ndimage.binary_closing(np.pad(inked, 3), iterations=1 + (noun == "fish"))
        pieces, found = ndimage.label(whole, np.ones((3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        assert (sizes > 0.3 * sizes.max()).sum() == content.count, content
        others = [colour for colour in COLOURS if colour != content.colour]
        assert all((np.abs(picture - INK[colour]).max(-1) < 25).sum() < inked.sum() / 4 for colour in others)


@pytest.mark.parametrize("change", [{"count": 3}, {"colour": "blue"}, {"noun": "pear"}, {"tool": "bowl"}, {"tool": ""}])
def test_each_property_shows_after_the_resize(change):
    content = Content(2, "red", "fish", "knife")
    for seed in range(5):
        one, other = (pixels(draw(c, random.Random(seed))) for c in (content, replace(content, **change)))
        assert (np.abs(one - other).max(-1) > 60).mean() > 0.03


def test_the_same_state_draws_the_same_file_and_another_does_not():
    content = Content(2, "red", "fish", "knife")
    assert draw(content, random.Random(1)) == draw(content, random.Random(1)) != draw(content, random.Random(2))


@pytest.mark.parametrize(
    "wrong", [{"caption_rate": 1.5}, {"questions_per_document": 7}, {"documents": -1}, {"documents": 10**9}]
)
def test_a_wrong_setting_is_named(wrong):
    with pytest.raises(UserError) as error:
        KitchenConfig(**wrong)
    assert error.value.where == f"kitchen.{next(iter(wrong))}" and str(next(iter(wrong.values()))) in error.value.what


def test_there_is_no_recipe_beyond_the_last():
    with pytest.raises(UserError, match="0 to 3"):
        recipe(KitchenConfig(documents=4), 4)
