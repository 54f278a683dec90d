"""Samples as a page and as tables: everything is there, and nothing foreign is markup."""

import base64
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

from PIL import Image

from m2io_jax.episodes.episode import Candidate, QuestionImage
from m2io_jax.pages import LEAST_TILE, LINE, picture_sheet
from m2io_jax.training.logging.samples import Samples


class Seen(HTMLParser):
    """The tags of a page, and the cells of its tables by row."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self._cell = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data


ROWS = [
    ["reward", "advantage", "format", "selection", "completion"],
    ["0.38", "+1.50", "1.00", "0.25", "<answer>none</answer>"],
    ["not scored", "+0.00", "", "", "other"],
]


def test_the_page_shows_pictures_completions_parts_and_advantages(samples):
    page = Seen(samples.page)
    assert page.rows == ROWS
    shown = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    pixels = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).getpixel((0, 0)) for uri in shown]
    assert pixels == [(255, 0, 0), (0, 0, 255)]
    words = html.unescape(samples.page)
    assert all(part in words for part in ("Samples of step 7", "Soup?", "Stir.", "right is B:1, A:2"))


def test_the_page_shows_where_images_stand_in_the_question(samples):
    group = samples.groups[0]
    places = (QuestionImage(3, 1), QuestionImage(9, 0))
    episode = replace(group.episode, question="Is  like ?", question_images=places)
    shown = html.unescape(Samples(7, [replace(group, episode=episode)]).page)
    assert "Is [B] like [A]?" in shown and "Is [" not in html.unescape(samples.page)


def test_a_table_holds_the_same_rows_without_the_page(samples):
    (table,) = samples.tables
    assert Seen(table).rows == ROWS
    assert "<html" not in table and "<img" not in table


def test_nothing_foreign_is_markup(hostile, attack):
    for text in (hostile.page, *hostile.tables):
        assert "<script" not in text and "49" not in re.sub(r"base64,[^\"]*", "", text)
        assert attack in html.unescape(text)
        for tag, attributes in Seen(text).tags:
            assert tag not in ("script", "link", "iframe", "object", "a")
            assert not any(name.startswith("on") or name == "href" for name in attributes)
            assert attributes.get("src", "data:image/").startswith("data:image/")


def test_an_answer_is_what_is_right_where_there_is_one(samples):
    group = samples.groups[0]
    assert replace(group, episode=replace(group.episode, answer="42")).expected == "42"
    assert replace(group, episode=replace(group.episode, gold=())).expected == "none"


def test_a_sheet_has_each_picture_below_its_label_and_grey_for_a_broken_one(samples):
    candidates = (*samples.groups[0].episode.candidates, Candidate("2" * 64, b"broken"))
    sheet = picture_sheet(candidates)
    assert sheet.size == (3 * LEAST_TILE, LINE + LEAST_TILE)
    assert [sheet.getpixel((index * LEAST_TILE + 3, LINE + 3)) for index in range(3)] == [
        (255, 0, 0),
        (0, 0, 255),
        (211, 211, 211),
    ]
    labels = [sheet.crop((index * LEAST_TILE, 0, (index + 1) * LEAST_TILE, LINE)).convert("L") for index in range(3)]
    assert all(label.getextrema()[0] < 128 for label in labels)  # something dark is written there
    assert len({label.tobytes() for label in labels}) == 3


def test_no_pictures_no_sentences_is_a_page_all_the_same(samples):
    group = samples.groups[0]
    bare = replace(group, episode=replace(group.episode, candidates=(), sentences=(), gold=(), answer="3"))
    page = Seen(Samples(1, [bare]).page)
    assert page.rows == ROWS and not [tag for tag, _ in page.tags if tag in ("img", "ol")]
