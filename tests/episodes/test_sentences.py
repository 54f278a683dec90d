import pytest

from m2io_jax.corpus.documents import TextBlock
from m2io_jax.episodes.sentences import MAX_VERBATIM, block_sentences, split_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Use 3.5 V, e.g. Lithium cells. Then stop.", ["Use 3.5 V, e.g. Lithium cells.", "Then stop."]),
        ("See Fig. 3 by J. R. Smith. It helps.", ["See Fig. 3 by J. R. Smith.", "It helps."]),
        ("Made in the U.S. Army's lab. Good.", ["Made in the U.S. Army's lab.", "Good."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("Run `a. B` first. **Next**, wait.", ["Run `a. B` first.", "**Next**, wait."]),
        ("Run ``a. B` c. D`` now. Then `wait. Done", ["Run ``a. B` c. D`` now.", "Then `wait.", "Done"]),
        ("1. Open it. Close it.", ["1. Open it.", "Close it."]),
        ("Wires, pins, etc. are here. See No. 5. Done.", ["Wires, pins, etc. are here.", "See No. 5.", "Done."]),
        ("Visit example.com. 42 is fine… Really?! Yes.", ["Visit example.com.", "42 is fine…", "Really?!", "Yes."]),
        ("第一句。第二句！", ["第一句。", "第二句！"]),
        ("broken\nover  lines. And on.", ["broken over lines.", "And on."]),
        ("  \n ", []),
    ],
)
def test_sentences_of_a_paragraph(text, expected):
    assert list(split_sentences(text)) == expected


@pytest.mark.parametrize("text", ["`", ".", ".'", "A. ", "see e.g. Apples ", "`a. B` ", ". '"])
def test_a_long_hostile_paragraph_takes_no_more_than_its_length(text):
    # Hours and more, were it the square or the cube.
    assert "".join("".join(split_sentences(text * 100_000 + " a")).split()) == (text * 100_000 + "a").replace(" ", "")


def test_no_character_is_lost():
    text = "Dr. Who? A (see B. C.) thing... `x. Y` costs 1.50! 'Fine.' \"Ok.\" etc. Is it No. 3? No. Maybe."
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


def test_items_and_code_are_one_sentence_and_long_code_and_headings_none():
    assert block_sentences(TextBlock("Open it. Then\nclose it.", 1, "item")) == ("Open it. Then close it.",)
    assert block_sentences(TextBlock("a = 1\nb = 2\n", 1, "code")) == ("a = 1\nb = 2",)
    assert block_sentences(TextBlock("x" * (MAX_VERBATIM + 1), 1, "code")) == ()
    assert block_sentences(TextBlock("Title", 1, "heading", 1)) == ()
    assert block_sentences(TextBlock("One. Two.", 1)) == ("One.", "Two.")
