"""Answers whose own images stay where they stand: the default without a policy."""

import io

import pytest
from PIL import Image

from m2io_jax.corpus.documents import Document, PictureBlock, Question, TextBlock
from m2io_jax.corpus.store import Corpus, CorpusWriter
from m2io_jax.episodes.episode import Placement
from m2io_jax.retrieval.search import Retriever, build_index, index_folder
from m2io_jax.serving import command
from m2io_jax.serving.answering import Answerer

MANUAL = {
    "Lid": ["Open the lid.", "Lid", "Put it on a cloth.", "Cloth", "Keep the screws in a box.", "Box"],
    "Seal": ["Take the old seal out.", "Old seal", "Grease the new one.", "Grease", "Press it into the housing.", ""],
    "Warranty": ["The warranty lasts two years. It covers the housing and the seal. Keep the invoice. The lid is"
                 " excluded. The shop answers within a week. Send the pump back in its box."],
    "Gallery": ["The gallery shows all pumps.", *[f"Pump {i}" for i in range(9)], "Choose any of them for the garden."],
}  # fmt: skip


def png(value):
    stored = io.BytesIO()
    Image.new("RGB", (40, 40), (value % 256, value // 256, 90)).save(stored, format="PNG")
    return stored.getvalue()


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    """Four pages of a manual; text that ends without a full stop is the caption of an image."""
    folder = tmp_path_factory.mktemp("source") / "manual"
    with CorpusWriter(folder, name="manual") as writer:
        for number, (title, pieces) in enumerate(MANUAL.items()):
            blocks = [TextBlock(title, 1, "heading", 1)]
            for line, piece in enumerate(pieces, 2):
                if piece.endswith("."):
                    blocks.append(TextBlock(piece, line))
                else:
                    picture = writer.add_picture(png(100 * number + line), extension="png")
                    blocks.append(PictureBlock(picture, line, piece))
            writer.add_document(Document(title, title, f"{title}.md", title, tuple(blocks)))
        said = ("Put it on a cloth.", "Have a rest until the oil is cold.")
        writer.add_question(Question("rest", "Lid", "When may I have a rest?", said, ()))
    build_index(Corpus.open(folder), index_folder(folder))
    return folder


def placed(answer):
    return [(p.slot, answer.candidates[p.picture].caption) for p in answer.placements]


@pytest.mark.parametrize(
    ("asked", "document", "expected"),
    [
        ("How do I put in a new seal?", "Seal", [(1, "Old seal"), (2, "Grease"), (3, "")]),
        ("Where are the screws kept while the lid is off?", "Lid", [(1, "Lid"), (2, "Cloth"), (3, "Box")]),
        ("How long does the warranty last?", "Warranty", []),
        ("Which pumps does the gallery show?", "Gallery", [(1, f"Pump {i}") for i in range(9)]),
    ],
)
def test_own_images_stand_where_they_stand_and_no_others(manual, asked, document, expected):
    answer = command.ask(asked, corpus=manual)
    assert answer.sources[0].document == document and placed(answer) == expected
    assert answer == command.ask(asked, corpus=manual, inserter="source")


@pytest.mark.parametrize("asked", ["How long does the warranty last?", "What does the warranty cover?"])
def test_match_places_nothing_where_no_image_belongs(manual, asked):
    answer = command.ask(asked, corpus=manual, inserter="match")
    assert answer.sources[0].document == "Warranty" and answer.candidates and not answer.placements


def test_match_places_own_images_whose_captions_the_text_says(manual):
    answer = command.ask("Where are the screws kept while the lid is off?", corpus=manual, inserter="match")
    assert answer.placements and set(placed(answer)) <= {(1, "Lid"), (2, "Cloth"), (3, "Box")}


def test_match_places_nothing_where_captions_have_proved_wrong(tmp_path):
    """Each page shows what the other pages talk about, so no likeness of words is a reason."""
    things = ["lid", "seal", "valve", "hose", "filter", "motor"]
    with CorpusWriter(tmp_path / "corpus", name="misleading") as writer:
        for number, thing in enumerate(things):
            blocks = [TextBlock(f"The {thing}", 1, "heading", 1)]
            for line, other in enumerate(things):
                picture = writer.add_picture(png(10 * number + line), extension="png")
                if other != thing:
                    blocks += [TextBlock(f"Fit the {thing} to the board.", line), PictureBlock(picture, line, other)]
            blocks.append(TextBlock(f"Care of the {thing}", 20, "heading", 2))
            blocks += [TextBlock(f"Clean the {other} of the {thing} now.", 21) for other in things if other != thing]
            writer.add_document(Document(thing, f"The {thing}", f"{thing}.md", thing, tuple(blocks)))
    corpus = Corpus.open(tmp_path / "corpus")
    build_index(corpus, index_folder(corpus.path))
    answer = command.answerer(corpus=corpus.path, inserter="match")
    for thing in things:
        said = answer(f"How do I care for the {thing}?")
        assert said.sources[0].document == thing and said.candidates and not said.placements


def test_only_sentences_without_a_source_are_the_rules(manual):
    corpus = Corpus.open(manual)
    seen = []

    def place(episode):
        seen.append(episode)
        every = range(len(episode.candidates))
        return [Placement(2, picture) for picture in every], "by the rule"

    answerer = Answerer(corpus, Retriever.open(index_folder(manual), corpus), max_candidates=4)
    answer = answerer.answer("When may I have a rest?", place, keep_own=True)
    assert seen[0].sentences == ("", "Have a rest until the oil is cold.")
    own = [pair for pair in placed(answer) if pair[0] == 1]
    assert own == [(1, "Cloth")] and answer.reasoning == "by the rule"
    assert len(answer.placements) == len(answer.candidates) == 4, "the rule does not move the text's own image"
    answerer.answer("How do I put in a new seal?", place, keep_own=True)
    assert len(seen) == 1, "a text with a source needs no rule"
    answerer.answer("How do I put in a new seal?", place)
    assert len(seen) == 2 and len(seen[1].candidates) == 4


def test_an_own_image_that_cannot_be_read_is_left_out_and_the_others_stay(manual):
    corpus = Corpus.open(manual)
    path = corpus.picture_path(corpus.document("Lid").blocks[4].picture)
    whole = path.read_bytes()
    path.write_bytes(whole[:30])
    try:
        answer = command.ask("Where are the screws kept while the lid is off?", corpus=manual)
    finally:
        path.write_bytes(whole)
    assert placed(answer) == [(1, "Lid"), (3, "Box")]


def test_a_page_of_thumbnails_is_bounded(manual, monkeypatch, caplog):
    monkeypatch.setattr("m2io_jax.serving.answering.MAX_OWN", 5)
    answer = command.ask("Which pumps does the gallery show?", corpus=manual)
    assert placed(answer) == [(1, f"Pump {i}") for i in range(5)] and "5 of the 9 images" in caplog.text


def test_the_policy_stays_the_default_of_a_run(manual, monkeypatch):
    asked = []
    monkeypatch.setattr(command, "_placer", lambda inserter, *_: asked.append(inserter))
    monkeypatch.setattr(command, "run_config", lambda run: command.run_config)
    monkeypatch.setattr(command.run_config, "batch", type("Batch", (), {"pictures": 6}), raising=False)
    monkeypatch.setattr(command, "_pixels_of", lambda run: command.MAX_PIXELS)
    for run, inserter in ((None, None), ("runs/mine", None), ("runs/mine", "source"), (None, "model")):
        command.answerer(run, corpus=manual, inserter=inserter)
    assert asked == ["source", "model", "source", "model"]
