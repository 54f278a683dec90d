"""Cutting documents into passages and picture places, on hand-made documents."""

from m2io_jax.corpus.documents import Document, PictureBlock, TextBlock
from m2io_jax.retrieval.passages import (
    AFTER_CHARACTERS,
    BEFORE_CHARACTERS,
    PASSAGE_WORDS,
    cut_passages,
    picture_places,
)


def heading(text, level):
    return TextBlock(text, 1, "heading", level)


def document(*blocks):
    return Document("d", "Title", "d.md", "d", blocks)


def test_passages_follow_headings_and_carry_their_path():
    made = document(
        TextBlock("before all headings", 1),
        heading("Soup", 1),
        TextBlock("boil water", 2),
        PictureBlock("p", 3),
        heading("Salt", 2),
        heading("Bread", 1),
        TextBlock("bake", 4),
    )
    found = [(p.start, p.stop, p.section, p.text) for p in cut_passages(made)]
    assert found == [
        (0, 1, (), "before all headings"),
        (1, 4, ("Soup",), "boil water"),
        (4, 5, ("Soup", "Salt"), ""),
        (5, 7, ("Bread",), "bake"),
    ]


def test_long_sections_are_cut_between_blocks_and_long_blocks_between_words():
    short = " ".join(["word"] * 70)
    long = " ".join(str(i) for i in range(PASSAGE_WORDS + 5))
    found = cut_passages(document(TextBlock(short, 1), TextBlock(short, 2), TextBlock(long, 3)))
    sizes = [(p.start, p.stop, len(p.text.split())) for p in found]
    assert sizes == [(0, 1, 70), (1, 2, 70), (2, 3, PASSAGE_WORDS), (2, 3, 5)]
    assert " ".join(p.text for p in found[2:]) == long


def test_every_block_is_covered_once():
    blocks = [heading("H", 1)] + [TextBlock(f"{i} " * 50, i) if i % 3 else PictureBlock(f"p{i}", i) for i in range(20)]
    ranges = [(p.start, p.stop) for p in cut_passages(document(*blocks))]
    assert ranges[0][0] == 0 and ranges[-1][1] == len(blocks)
    assert all(stop == start for (_, stop), (start, _) in zip(ranges, ranges[1:], strict=False))


def test_documents_without_text_give_no_passages():
    assert cut_passages(document()) == []
    assert cut_passages(document(PictureBlock("p", 1))) == []


def test_a_picture_is_described_by_its_section_only():
    made = document(
        heading("Soup", 1),
        TextBlock("boil water", 2),
        PictureBlock("p", 3, caption="a pot", content="secret"),
        TextBlock("add salt", 4),
        heading("Bread", 1),
        TextBlock("bake", 5),
    )
    (place,) = picture_places(made)
    assert (place.picture, place.position, place.caption) == ("p", 2, "a pot")
    assert (place.before, place.after, place.section, place.title) == ("boil water", "add salt", "Soup", "Title")
    assert "secret" not in repr(place)


def test_the_text_around_a_picture_is_bounded_and_ends_at_words():
    words = " ".join(f"w{i}" for i in range(400))
    (place,) = picture_places(document(TextBlock(words, 1), PictureBlock("p", 2), TextBlock(words, 3)))
    assert len(place.before) <= BEFORE_CHARACTERS and words.endswith(" " + place.before)
    assert len(place.after) <= AFTER_CHARACTERS and words.startswith(place.after + " ")


def test_a_picture_used_twice_has_two_places():
    made = document(PictureBlock("p", 1), TextBlock("text", 2), PictureBlock("p", 3))
    assert [place.position for place in picture_places(made)] == [0, 2]
