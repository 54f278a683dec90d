"""Where the images of an answer's text stand. In the shorthand of these tests a number is an image."""

import time

import pytest

from m2io_jax.corpus.documents import AnswerPicture, Document, PictureBlock, Question, TextBlock
from m2io_jax.serving.text import section_text, written_text


def heading(text, level=2):
    return TextBlock(text, 1, "heading", level)


def item(text):
    return TextBlock(text, 1, "item")


def document(*pieces):
    """A document in which a number stands for an image and a string for a paragraph."""
    blocks = [
        PictureBlock(str(piece), 1)
        if isinstance(piece, int)
        else TextBlock(piece, 1)
        if isinstance(piece, str)
        else piece
        for piece in pieces
    ]
    return Document("d", "Title", "d.md", "d", tuple(blocks))


def shown(text):
    return [(slot, int(text.document.blocks[position].picture)) for position, slot in text.images]


CASES = {
    "between sentences": ([heading("H"), "One.", 1, "Two. Three.", 2], [(1, 1), (3, 2)]),
    "several in one slot": ([heading("H"), "One.", 1, 2, 3, "Two."], [(1, 1), (1, 2), (1, 3)]),
    "before the first sentence": ([heading("H"), 1, 2, "One.", 3], [(0, 1), (0, 2), (1, 3)]),
    "without a heading": ([1, "One.", 2], [(0, 1), (1, 2)]),
    "in a list": ([heading("H"), item("First one"), 1, item("Second one"), 2], [(1, 1), (2, 2)]),
    "in a table": ([heading("H"), TextBlock("a | b", 1, "table"), 1, TextBlock("c | d", 1, "table"), 2, "End."],
                   [(1, 1), (2, 2)]),
    "after code that is left out": ([heading("H"), "One.", TextBlock("x" * 400, 1, "code"), 1], [(1, 1)]),
    "twice": ([heading("H"), "One.", 1, "Two.", 1], [(1, 1), (2, 1)]),
    "of other sections": ([9, heading("H"), "One. Two. Three.", 1, heading("Other"), 8, "Four."], [(3, 1)]),
    "none": ([heading("H"), "One.", heading("Other"), 8], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_images_of_a_section_stand_where_they_stood(name):
    pieces, expected = CASES[name]
    first = next(i for i, piece in enumerate(pieces) if isinstance(piece, str | TextBlock) and piece != 9)
    text = section_text(document(*pieces), first, 12)
    assert shown(text) == expected and text.is_sourced


def test_subsections_that_a_short_section_goes_on_into_bring_their_images():
    text = section_text(
        document(heading("H"), 1, "One.", 2, heading("Deep", 3), 3, "Two.", 4, heading("Next"), 5), 0, 12
    )
    assert text.sentences == ("One.", "Two.")
    assert shown(text) == [(0, 1), (1, 2), (1, 3), (2, 4)]


def test_a_list_of_bare_words_gives_way_to_the_section_whose_images_stand_there():
    bare = [heading("Ingredients"), item("two eggs"), item("salt")]
    text = section_text(document(*bare, heading("Method"), 1, "Beat the eggs.", 2), 1, 12)
    assert text.sentences == ("Beat the eggs.",) and shown(text) == [(0, 1), (1, 2)]


def test_decorations_are_not_shown():
    badge = PictureBlock("7", 1, decoration="an icon")
    text = section_text(document(heading("H"), badge, "One is here.", badge, 1), 0, 12)
    assert shown(text) == [(1, 1)]
    assert shown(written([heading("H"), "One is here.", badge, 1], ["One is here."])) == [(1, 1)]


def test_images_of_sentences_that_are_cut_off_are_not_shown():
    paragraphs = [piece for i in range(8) for piece in (f"Sentence {i} is here.", i)]
    whole = document(heading("H"), 99, *paragraphs)
    assert shown(section_text(whole, 0, 3)) == [(0, 99), (1, 0), (2, 1), (3, 2)]
    text = section_text(whole, 2 + 2 * 4, 3)
    assert text.sentences[0] == "Sentence 4 is here."
    assert shown(text) == [(1, 4), (2, 5), (3, 6)]
    assert all(text.start <= position < text.stop for position, _ in text.images)
    # The paragraph goes on after the cut: its image follows a sentence that is not shown.
    assert shown(section_text(document(heading("H"), "A b. C d. E f. G h.", 1, "I j."), 0, 3)) == []


def test_a_section_without_text_is_no_answer():
    assert section_text(document(heading("H"), 1, 2), 0, 12) is None


def written(pieces, sentences, pictures=(), has_placements=False):
    question = Question("q", "d", "Why?", tuple(sentences), tuple(pictures))
    return written_text(question, document(*pieces), has_placements=has_placements)


PAGE = [heading("Lid"), 1, "Open the lid now.", 2, "Put it on a cloth.", 3, 4, heading("Seal"), 5, "Take the seal out."]


def test_sentences_of_the_document_keep_its_images_in_a_written_answer():
    text = written(PAGE, ["Put it on a cloth.", "Then have some tea outside.", "open the lid  now."])
    assert shown(text) == [(1, 3), (1, 4), (2, 1), (3, 2)]
    assert text.sourced == (True, False, True) and not text.is_sourced
    assert shown(written(PAGE, ["Take the seal out."])) == [(0, 5)]


def test_a_written_answer_that_the_document_does_not_hold_has_no_known_image():
    for sentences in (["Remove the cover first."], ["Yes."], ["Open the lid."]):
        text = written(PAGE, sentences)
        assert text.images == () and not any(text.sourced)


def test_many_images_after_one_sentence_take_no_time():
    many = ["Open the lid now.", *range(10_000), "Close the lid now."]
    began = time.perf_counter()
    assert len(written(many, ["Open the lid now."]).images) == 10_000
    assert len(section_text(document(*many), 0, 12).images) == 10_000
    assert time.perf_counter() - began < 5  # not quadratic in the images


def test_short_sentences_are_no_evidence_of_a_source():
    assert written(["Stir well.", 1], ["Stir well."]).images == ()


def test_a_sentence_that_stands_twice_is_taken_in_turn():
    pages = ["Turn the screw left.", 1, "Turn the screw left.", 2]
    assert shown(written(pages, ["Turn the screw left."] * 2)) == [(1, 1), (2, 2)]


def test_placements_of_the_author_come_before_those_of_the_document(caplog):
    text = written(PAGE, ["Open the lid now."], [AnswerPicture("4", 1), AnswerPicture("3", 0)], has_placements=True)
    assert shown(text) == [(0, 3), (1, 4)] and text.is_sourced
    assert written(PAGE, ["Open the lid now."], has_placements=True).images == ()
    text = written(PAGE, ["Open the lid now."], [AnswerPicture("77", 1), AnswerPicture("3", 5)], has_placements=True)
    assert text.images == () and caplog.text.count("is not shown") == 2
