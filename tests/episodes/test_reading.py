"""Sentences and placements in reading order, on a case worked by hand."""

from m2io_jax.episodes.episode import Placement
from m2io_jax.episodes.reading import PicturePart, TextPart, by_slot, parts


def test_parts_put_pictures_after_their_sentences_and_keep_the_text():
    slots = by_slot([Placement(0, 5), Placement(2, 1), Placement(2, 0)], 4)
    read = list(parts(["One.", "Two.", "list item", "a\nb"], slots))
    assert read == [
        PicturePart(0, (5,)),
        TextPart(("One.", "Two.")),
        PicturePart(2, (1, 0)),
        TextPart(("list item",)),
        TextPart(("a\nb",), verbatim=True),
    ]
