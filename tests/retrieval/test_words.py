import pytest

from m2io_jax.retrieval.words import content_words, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How do I put in a new seal?", "new seal"),
        ("What is it?", ""),
        ("Don't pour OIL out of the pan", "pour oil out pan"),
        ("Schraube lösen, 2 mm", "schraube lösen 2 mm"),
        ("拧紧螺丝", "拧 紧 螺 丝"),
        ("", ""),
    ],
)
def test_content_words_are_those_that_say_what_a_text_is_about(text, expected):
    assert content_words(text) == expected


def test_words_keep_their_order_and_repeats():
    assert words("The lid, the_box!") == ["the", "lid", "the_box"]
