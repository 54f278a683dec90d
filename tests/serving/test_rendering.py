"""Answers as Markdown, HTML and JSON: every picture in its slot, no foreign markup, no foreign bytes."""

import base64
import html
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image, PngImagePlugin

from m2io_jax.episodes.episode import Candidate, Placement
from m2io_jax.errors import UserError
from m2io_jax.pages import shown_picture
from m2io_jax.serving.answer import Answer, Source
from m2io_jax.serving.rendering import escape_markdown, to_html, to_json, to_markdown

ATTACK = '<script>alert("x")</script><img src=http://evil.example/x onerror=y> {{ 7*7 }} "\'&'


def png(colour, size=(8, 6), note=""):
    stored, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("Comment", note)
    Image.new("RGB", size, colour).save(stored, format="PNG", pnginfo=info)
    return stored.getvalue()


COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def answer(**changes):
    values = dict(
        question="How?",
        sentences=("One.", "Two.", "Three."),
        candidates=tuple(Candidate(f"{i}" * 64, png(c), document=f"doc{i}") for i, c in enumerate(COLOURS)),
        placements=(Placement(2, 1), Placement(0, 0)),
    )
    return Answer(**values | changes)


class Page(HTMLParser):
    """What a browser would see: text and pictures (by colour) in order, and every tag."""

    def __init__(self, page):
        super().__init__()
        self.seen, self.tags, self.inside = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("style", "title", "summary", "p", "h1", "pre", "figcaption"):
            self.inside.append(tag)
        if tag == "img":
            data = base64.b64decode(dict(attributes)["src"].partition(",")[2])
            self.seen.append(Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 0)))

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data):
        if self.inside and self.inside[-1] in ("p", "h1", "pre", "figcaption") and data.strip():
            self.seen.append(data.strip())


@pytest.mark.parametrize("placement", [Placement(4, 0), Placement(-1, 0), Placement(1, 3), Placement(1, -1)])
def test_placements_that_do_not_exist_are_refused(placement):
    with pytest.raises(ValueError):
        answer(placements=(placement,))


def test_html_shows_pictures_in_their_slots():
    page = Page(to_html(answer()))
    red, green, blue = COLOURS
    assert page.seen[:5] == ["How?", red, "One. Two.", green, "Three."]
    assert page.seen[5:] == ["Offered and not used:", blue, "C"]


def test_html_escapes_everything_foreign_and_loads_nothing():
    candidate = Candidate("0" * 64, png((1, 2, 3)), caption=ATTACK, context=ATTACK, document=ATTACK)
    hostile = answer(
        question=ATTACK,
        sentences=(ATTACK, "code\n" + ATTACK, ATTACK),
        candidates=(candidate, candidate, Candidate("1" * 64, b"<svg onload=alert(1)>", caption=ATTACK)),
        placements=(Placement(1, 0), Placement(2, 2)),
        reasoning=ATTACK,
        sources=(Source(ATTACK, ATTACK, ATTACK, 3),),
    )
    text = to_html(hostile)
    assert "<script" not in text and "<svg" not in text and "49" not in re.sub(r"base64,[^\"]*", "", text)
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "svg", "object")
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:image/").startswith("data:image/") and "href" not in attributes
    assert ATTACK in html.unescape(text)
    assert "http" not in re.sub(r"http://evil|http-equiv", "", text)


def test_pictures_are_made_anew_from_their_pixels():
    data, kind, width, height = shown_picture(png((9, 8, 7), note="secret") + b"<script>tail</script>")
    assert b"secret" not in data and b"tail" not in data
    assert (kind, width, height) == ("png", 8, 6)
    assert (np.asarray(Image.open(io.BytesIO(data))) == (9, 8, 7)).all()


def test_large_pictures_are_scaled_and_photographs_become_jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    stored = io.BytesIO()
    Image.fromarray(noise).save(stored, format="PNG")
    data, kind, width, height = shown_picture(stored.getvalue(), 400)
    assert (kind, width, height) == ("jpeg", 400, 300)
    assert Image.open(io.BytesIO(data)).size == (400, 300)


@pytest.mark.parametrize(
    "text",
    [ATTACK, "1. one", "- item", "+ x", "# no heading", "a *b* _c_ `d` [e](f) <b>", r"back\slash", "> quote", "~~x~~"]
    + ["Title\n---", "Title\n==", "Title\n-", "---", "It costs $5 to $10."],
)
def test_escaped_markdown_shows_the_text_as_it_was(text):
    rendered = MarkdownIt("commonmark").render(escape_markdown(text))
    assert re.fullmatch(r"<p>[^<]*</p>\n", rendered)
    assert html.unescape(rendered)[3:-5] == text
    assert not re.search(r"(?<!\\)\$", escape_markdown(text)), "two of them are mathematics on many pages"


def test_markdown_has_pictures_in_their_slots_and_writes_them(tmp_path):
    candidates = tuple(Candidate("../../x", png(c), caption="a *b*]( <i>") for c in COLOURS)
    text = to_markdown(answer(candidates=candidates), tmp_path / "my pictures")
    assert sorted(file.name for file in (tmp_path / "my pictures").iterdir()) == ["picture-a.png", "picture-b.png"]
    tokens = [t for t in MarkdownIt("commonmark").parse(text) if t.type == "inline"]
    assert [t.content if not t.children or t.children[0].type != "image" else "picture" for t in tokens] == [
        "How?",
        "picture",
        "One. Two.",
        "picture",
        "Three.",
    ]
    images = [t.children[0] for t in tokens if t.children[0].type == "image"]
    assert [i.attrs["src"] for i in images] == ["my%20pictures/picture-a.png", "my%20pictures/picture-b.png"]
    assert images[0].content.replace("\\", "") == "a *b*]( <i>"


def test_markdown_without_a_folder_names_the_pictures():
    lines = to_markdown(answer(sources=(Source("doc0", "Title", "a_b.md", 3),))).split("\n\n")
    assert lines == [
        "# How?",
        r"\[picture A (doc0)\]",
        "One. Two.",
        r"\[picture B (doc1)\]",
        "Three.",
        "Sources:",
        "- Title (a\\_b.md, line 3)\n",
    ]


def test_code_stays_code_whatever_fences_it_holds():
    text = to_markdown(answer(sentences=("x\n```\n<b>\n````\ny", "Two.", "Three."), placements=()))
    fences = [t.content for t in MarkdownIt("commonmark").parse(text) if t.type == "fence"]
    assert fences == ["x\n```\n<b>\n````\ny\n"]


def test_no_text_steers_the_terminal_that_markdown_is_printed_to():
    steers = "\x1b[2J\x1b]0;title\x07\x9b31m\rgone\x08\x7f\x00"
    candidates = (Candidate("0" * 64, png(COLOURS[0]), caption=steers, document=steers),)
    said = answer(
        question=steers,
        sentences=("One." + steers, "x\n\ty" + steers),
        candidates=candidates,
        placements=(Placement(1, 0),),
        sources=(Source(steers, steers, steers, 3),),
    )
    written = to_markdown(said)
    assert not [sign for sign in written if ord(sign) < 32 and sign not in "\n\t" or 127 <= ord(sign) < 160]
    assert "x\n\ty" in written and "One." in written and "gone" in written


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        to_markdown(answer(), tmp_path / "file")


def test_json_names_pictures_by_hash():
    row = json.loads(json.dumps(to_json(answer(reasoning="because"))))
    assert row["sentences"] == ["One.", "Two.", "Three."] and row["reasoning"] == "because"
    assert row["placements"] == [
        {"slot": 2, "candidate": 1, "picture": "1" * 64},
        {"slot": 0, "candidate": 0, "picture": "0" * 64},
    ]
    assert "data" not in row["candidates"][0]
