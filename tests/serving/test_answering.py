"""Answering from a small corpus on disk, with the real retrieval."""

import io

import numpy as np
import pytest
from PIL import Image

from m2io_jax.corpus.documents import AnswerPicture, Document, PictureBlock, Question, TextBlock
from m2io_jax.corpus.store import Corpus, CorpusWriter
from m2io_jax.episodes.building import EpisodeConfig, build_episodes
from m2io_jax.episodes.episode import Placement
from m2io_jax.errors import UserError
from m2io_jax.retrieval.search import Retriever, build_index
from m2io_jax.serving.answering import Answerer
from m2io_jax.serving.text import section_bounds

THINGS = ("sensor", "lamp", "motor", "camera", "button", "buzzer")


def png(value):
    stored = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 40, 90)).save(stored, format="PNG")
    return stored.getvalue()


@pytest.fixture(scope="module")
def pictures():
    return {}


@pytest.fixture(scope="module")
def made(tmp_path_factory, pictures):
    """Six documents about connecting a thing; each has a section with two pictures and a long one without."""
    folder = tmp_path_factory.mktemp("answering")
    with CorpusWriter(folder / "corpus", name="things") as writer:
        for number, thing in enumerate(THINGS):
            first, second = (writer.add_picture(png(10 * number + i), extension="png") for i in (1, 2))
            pictures[thing] = (first, second)
            long = [TextBlock(f"The {thing} has rule {i} of care and storage.", 20 + i, "item") for i in range(30)]
            blocks = (
                TextBlock(f"The {thing}", 1, "heading", 1),
                TextBlock(f"Connect the {thing}", 3, "heading", 2),
                TextBlock(f"Plug the {thing} cable into the board. Turn the {thing} on.", 5),
                PictureBlock(first, 7),
                TextBlock(f"Check that the {thing} works.", 9),
                PictureBlock(second, 11),
                TextBlock("Store it", 13, "heading", 2),
                *long,
            )
            writer.add_document(Document(thing, f"The {thing}", f"{thing}.md", thing, blocks))
        placed = (AnswerPicture(pictures["lamp"][0], 1),)
        said = ("Put the lamp in.", "It glows.")
        writer.add_question(Question("q", "lamp", "Why does the lamp glow so brightly?", said, placed))
    corpus = Corpus.open(folder / "corpus")
    build_index(corpus, folder / "index")
    return corpus, Retriever.open(folder / "index", corpus)


def place_nothing(episode):
    return (), ""


def answer_question(question, corpus, retriever, place, **most):
    return Answerer(corpus, retriever, **most).answer(question, place)


def test_the_section_that_answers_is_the_text_and_its_pictures_are_candidates(made, pictures):
    answer = answer_question("How do I connect the motor cable?", *made, place_nothing)
    assert answer.sentences == (
        "Plug the motor cable into the board.",
        "Turn the motor on.",
        "Check that the motor works.",
    )
    offered = [candidate.picture for candidate in answer.candidates]
    assert set(pictures["motor"]) <= set(offered)
    assert len(offered) == len(set(offered)) == 8
    assert answer.sources[0].document == "motor" and answer.sources[0].line == 3


def test_placements_and_reasoning_are_the_inserters(made):
    seen = []

    def place(episode):
        seen.append(episode)
        foreign = next(i for i, c in enumerate(episode.candidates) if c.document != "motor")
        return [Placement(2, foreign)], "because"

    answer = answer_question("How do I connect the motor cable?", *made, place)
    assert answer.reasoning == "because" and answer.placements[0].slot == 2
    assert seen[0].gold == seen[0].labels == () and seen[0].candidates == answer.candidates
    assert [source.document for source in answer.sources] == [
        "motor",
        answer.candidates[answer.placements[0].picture].document,
    ]


def test_a_long_section_is_cut_from_the_passage_on(made):
    answerer = Answerer(*made, max_sentences=4, max_candidates=3)
    episode, text = answerer.episode("Rule 27 of care and storage of the camera?")
    assert len(episode.sentences) == 4 and len(episode.candidates) == 3
    assert text.document.id == "camera" and text.start > 6


@pytest.mark.parametrize("asked", ["Why does the lamp glow so brightly?", " why does the LAMP glow  so brightly"])
def test_a_question_that_was_answered_in_writing_gets_that_answer(made, pictures, asked):
    answer = answer_question(asked, *made, place_nothing)
    assert answer.sentences == ("Put the lamp in.", "It glows.")
    assert set(pictures["lamp"]) <= {candidate.picture for candidate in answer.candidates}


def test_another_question_does_not_get_it(made):
    assert "It glows." not in answer_question("How do I plug in the lamp cable?", *made, place_nothing).sentences


def test_the_same_question_is_answered_the_same_way(made):
    first, second = (answer_question("Check the buzzer works", *made, place_nothing) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("asked", ["", "  ", "xyzzy qwertz"])
def test_what_cannot_be_answered_is_said(made, asked):
    with pytest.raises(UserError):
        answer_question(asked, *made, place_nothing)


def test_unreadable_pictures_are_not_offered(made, pictures):
    corpus, retriever = made
    path = corpus.picture_path(pictures["motor"][0])
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    try:
        answer = answer_question("How do I connect the motor cable?", corpus, retriever, place_nothing)
    finally:
        path.write_bytes(whole)
    assert pictures["motor"][0] not in {candidate.picture for candidate in answer.candidates}


def test_large_pictures_are_those_of_episodes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    stored = io.BytesIO()
    Image.fromarray(noise).save(stored, format="PNG")
    with CorpusWriter(tmp_path / "corpus", name="large") as writer:
        picture = writer.add_picture(stored.getvalue(), extension="png")
        blocks = (
            TextBlock("Fit the valve", 1, "heading", 1),
            TextBlock("The valve fits the pipe. Turn it left. Press it in.", 2),
            PictureBlock(picture, 4),
        )
        writer.add_document(Document("d", "Valve", "d.md", "d", blocks))
    corpus = Corpus.open(tmp_path / "corpus")
    build_index(corpus, tmp_path / "index")
    retriever = Retriever.open(tmp_path / "index", corpus)
    (built,) = build_episodes(corpus, retriever, EpisodeConfig(max_pixels=1000))
    answer = answer_question("Which pipe does the valve fit?", corpus, retriever, place_nothing, max_pixels=1000)
    assert answer.candidates[0].data == built.candidates[0].data != corpus.picture(picture)
    assert answer_question("valve", corpus, retriever, place_nothing).candidates[0].data == corpus.picture(picture)


def test_section_bounds_are_the_headings(made):
    document = made[0].document("motor")
    assert section_bounds(document, 4) == (1, 6)
    assert section_bounds(document, 0) == (0, 1)
    assert section_bounds(document, 6) == (6, len(document.blocks))


def test_a_short_section_goes_on_into_its_subsections(tmp_path):
    def heading(text, level):
        return TextBlock(text, 1, "heading", level)

    with CorpusWriter(tmp_path / "corpus", name="deep") as writer:
        picture = writer.add_picture(png(3), extension="png")
        blocks = (
            heading("Valve", 1),
            heading("Fit the valve", 2),
            TextBlock("The valve fits the pipe.", 2),
            heading("Task", 3),
            TextBlock("Turn it left. Press it in.", 3),
            PictureBlock(picture, 4),
            heading("Hose", 2),
            TextBlock("Roll up the hose.", 5),
        )
        writer.add_document(Document("d", "Valve", "d.md", "d", blocks))
    corpus = Corpus.open(tmp_path / "corpus")
    build_index(corpus, tmp_path / "index")
    retriever = Retriever.open(tmp_path / "index", corpus)
    answer = answer_question("Which pipe does the valve fit?", corpus, retriever, place_nothing)
    assert answer.sentences == ("The valve fits the pipe.", "Turn it left.", "Press it in.")
    assert [candidate.picture for candidate in answer.candidates] == [picture]


@pytest.mark.parametrize("illustrated, expected", [(True, "Peel the turnips."), (False, "three turnips")])
def test_the_illustrated_section_after_a_list_of_bare_words_is_the_answer(tmp_path, illustrated, expected):
    with CorpusWriter(tmp_path / "corpus", name="recipes") as writer:
        picture = writer.add_picture(png(7), extension="png")
        blocks = (
            TextBlock("Turnip stew", 1, "heading", 1),
            TextBlock("Ingredients", 3, "heading", 2),
            TextBlock("three turnips", 5, "item"),
            TextBlock("turnip oil", 6, "item"),
            TextBlock("Method", 8, "heading", 2),
            TextBlock("Peel the turnips.", 10),
            *([PictureBlock(picture, 12)] if illustrated else []),
            TextBlock("Let everything rest and stir it now and then until the guests have come to the table.", 14),
        )
        writer.add_document(Document("stew", "Turnip stew", "stew.md", "stew", blocks))
    corpus = Corpus.open(tmp_path / "corpus")
    build_index(corpus, tmp_path / "index")
    retriever = Retriever.open(tmp_path / "index", corpus)
    assert retriever.passages("turnips", 1)[0].passage.text.startswith("three turnips")
    assert answer_question("turnips", corpus, retriever, place_nothing).sentences[0] == expected


def test_of_near_questions_the_one_with_most_words_in_common_is_taken(tmp_path):
    with CorpusWriter(tmp_path / "corpus", name="near") as writer:
        writer.add_document(Document("d", "Lemon tart", "d.md", "d", (TextBlock("A lemon tart with cream.", 1),)))
        for word in ("begin", "finish"):
            writer.add_question(Question(word, "d", f"How do I {word} the lemon tart?", (f"Do {word}.",), ()))
    corpus = Corpus.open(tmp_path / "corpus")
    build_index(corpus, tmp_path / "index")
    retriever = Retriever.open(tmp_path / "index", corpus)
    for word in ("begin", "finish"):
        assert answer_question(f"So how do I {word} the lemon tart?", corpus, retriever, place_nothing).sentences == (
            f"Do {word}.",
        )
