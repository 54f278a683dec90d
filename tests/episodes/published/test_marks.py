"""Images stand where they stood in a question; marks that do not match the images leave the row out."""

import time

import pytest
from row_fakes import bad_row, read_row, shown

from m2io_jax.episodes.published.draft import BadRow
from m2io_jax.episodes.published.marks import MOST_MARKS, ImagePart, place_images

TWO = ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("question", "images", "expected"),
    [
        ("Left <image>, right <image>: alike?", TWO, ["Left ", 10, ", right ", 20, ": alike?"]),
        ("Go from <image> to <image> to <image>.", [*TWO, "c.png"], ["Go from ", 10, " to ", 20, " to ", 30, "."]),
        ("How many dots?\n<image>", "a.png", ["How many dots?\n", 10]),
        ("<image>\nWhich is unlike <image>?", TWO, [10, "\nWhich is unlike ", 20, "?"]),
        ("<image>How many?", "a.png", [10, "\n", "How many?"]),
        ("<image>\n<image>\nWhich?", TWO, [10, "\n", 20, "\n", "Which?"]),
        ("Which of these?", TWO, [10, "\n", 20, "\n", "Which of these?"]),
        ("<image 2> after <image 1>: what?", TWO, [20, " after ", 10, ": what?"]),
        ("<image1> or <image2>? Look at <image1>.", TWO, [10, " or ", 20, "? Look at ", 10, "."]),
        ("<image_1> or <image_0>?", TWO, [20, " or ", 10, "?"]),
        ("<|image_1|>\nWhat is new in <|image_2|>?", TWO, [10, "\nWhat is new in ", 20, "?"]),
        ("See <|vision_start|><|image_pad|><|vision_end|> now?", "a.png", ["See ", 10, " now?"]),
        ("See <img><IMG_CONTEXT><IMG_CONTEXT></img> now?", "a.png", ["See ", 10, " now?"]),
        ("Is <start_of_image> like <start_of_image>?", TWO, ["Is ", 10, " like ", 20, "?"]),
        ("Is <img>b.png</img> like <img>a.png</img>?", None, ["Is ", 20, " like ", 10, "?"]),
        ("<Image>How many?", "a.png", [10, "\n", "How many?"]),
        ("<image>\nWhat does `<image>` stand for here?", "a.png", [10, "\n", "What does `<image>` stand for here?"]),
    ],
)
def test_images_stand_where_their_marks_stood(tmp_path, question, images, expected):
    assert shown(read_row(tmp_path, {"problem": question, "images": images, "answer": "3"})) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            [{"type": "text", "text": "Here"}, {"type": "image", "image": "a.png"}, {"type": "text", "text": "what?"}],
            ["Here", 10, "what?"],
        ),
        (
            [{"type": "image_url", "image_url": {"url": "b.png"}}, {"type": "text", "text": "What?"}],
            [20, "\n", "What?"],
        ),
        (
            [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": "c.png"}],
            ["What?", 30],
        ),
        ([{"text": "Two lines,"}, {"text": "one image?"}, {"image": "a.png"}], ["Two lines,\none image?", 10]),
        ("Is <img>a.png</img> red?", ["Is ", 10, " red?"]),
    ],
)
def test_parts_of_a_turn_keep_their_order(tmp_path, content, expected):
    row = {"messages": [{"role": "user", "content": content}], "answer": "3"}
    assert shown(read_row(tmp_path, row)) == expected


def test_parts_without_a_source_take_the_images_of_the_column(tmp_path):
    parts = [{"type": "image", "text": None}, {"type": "text", "text": "then"}, {"type": "image", "text": None}]
    row = {"prompt": [{"role": "user", "content": parts}], "images": TWO, "answer": "3"}
    assert shown(read_row(tmp_path, row)) == [10, "then", 20]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"problem": "<image>Is it <image>?", "images": ["a.png"]}, "2 marks and 1 image"),
        ({"problem": "<image>How many?", "images": TWO}, "1 mark and 2 images"),
        ({"problem": "<image>How many?"}, "1 mark and 0 images"),
        ({"problem": "<image>How many?", "images": None, "image": ""}, "1 mark and 0 images"),
        ({"problem": "How many are in <image>?", "images": []}, "1 mark and 0 images"),
        ({"problem": "Look at <image>. Answer in <answer> </answer> tags."}, "1 mark and 0 images"),
        ({"problem": "<image>Which HTML tag is shown?"}, "1 mark and 0 images"),
        ({"problem": "<|vision_start|><|image_pad|><|vision_end|>How many?"}, "1 mark and 0 images"),
        ({"problem": "<image 1> and <image 3>?", "images": [*TWO, "c.png"]}, "number the images"),
        ({"problem": "<image 2>?", "images": ["a.png"]}, "number the images"),
        ({"problem": "<image>" * 65 + "?", "images": ["a.png"] * 65}, "more than 64 images"),
        ({"problem": "<image>" * 5000 + "?", "images": ["a.png"]}, "more than 1000 <image> marks"),
        ({"problem": "<image 1>" * 70 + "?", "images": ["a.png"]}, "more than 64 images"),
        ({"problem": "<video>How many?"}, "a video or audio"),
        ({"problem": "How many?", "videos": ["a.mp4"]}, "a video or audio"),
    ],
)
def test_marks_that_do_not_match_leave_the_row_out_with_both_counts(tmp_path, row, reason):
    assert reason in bad_row(tmp_path, row | {"answer": "3"})


@pytest.mark.parametrize(
    "question",
    [
        "Which of the tags shows a drawing, <image> or <canvas>?",
        "What does the <image> element of SVG draw?",
        "Is <image> a valid HTML tag?",
        "What does `<image>` mean in a prompt?",
        "In HTML, what does <image> become: <img> or nothing?",
        'Which placeholder stands for a photo, "<image>" or "<video>"?',
    ],
)
def test_a_question_about_the_tag_keeps_its_text(tmp_path, question):
    episode = read_row(tmp_path, {"problem": question, "answer": "img"})
    assert episode.question == question and not episode.candidates


def test_a_chat_and_a_column_that_hold_other_numbers_of_images_are_no_question():
    parts = ["What?", ImagePart("a.png"), ImagePart("b.png")]
    with pytest.raises(BadRow, match="2 images in the question and 1 in a column"):
        place_images(parts, ["x.png"])
    assert place_images(parts, ["x.png", "y.png"]).images == ("x.png", "y.png")


@pytest.mark.parametrize(
    "text",
    [
        "<image>" * 200_000,
        "`<image>` tag " * 70_000,
        "<img>" * 200_000,
        "<img><IMG_CONTEXT>" * 60_000,
        ("<img " + "src " * 70) * 10_000,
        "![](a " * 300_000,
        "![" * 500_000,
    ],
)
def test_long_questions_take_no_long_time(text):
    begun = time.perf_counter()
    try:
        place_images([text + "?"], [])
    except BadRow as error:
        assert f"{MOST_MARKS}" in error.reason or "Markdown" in error.reason
    assert time.perf_counter() - begun < 3


@pytest.mark.parametrize(
    "question",
    [
        "Look ![](https://example.com/cropped/7.jpg?h=1) and find x.",
        "Look ![figure](a.png) and find x.",
        'Look <img src="a.png" width="3"> and find x.',
    ],
)
def test_an_image_in_markdown_or_html_is_not_lost_silently(tmp_path, question):
    assert "Markdown or HTML" in bad_row(tmp_path, {"problem": question, "answer": "3"})
    both = {"problem": question, "answer": "3", "image": "b.png"}
    assert shown(read_row(tmp_path, both)) == [20, "\n", question]
    chat = [{"role": "user", "content": [{"type": "image", "image": "b.png"}, {"type": "text", "text": question}]}]
    assert shown(read_row(tmp_path, {"messages": chat, "answer": "3"})) == [20, "\n", question]


@pytest.mark.parametrize(
    "question",
    [
        "Which Markdown shows an image, `![](a.png)` or `[](a.png)`?",
        'In HTML, what does the tag <img src="a.png"> do?',
        "Why does a browser treat <image> as <img>?",
        "Which is a tag of HTML? (A) <image> (B) <img>",
        "In SVG, <image> embeds raster images. True or false?",
    ],
)
def test_code_of_images_is_text(tmp_path, question):
    assert shown(read_row(tmp_path, {"problem": question, "answer": "A"})) == [question]


@pytest.mark.parametrize(
    "question",
    [
        "On the page <image>, which <b>bold</b> word is last?",
        "Where is <ref>the cat</ref> in <image>?",
        "What HTML tag is shown in <image>?",
        "From the HTML page <image>, which element is red?",
        "Using <image>, find the HTML tag that is closed.",
        "The tag, <image>, is what colour?",
        "Look at <image> and <p>the dog</p>: how far?",
    ],
)
def test_words_about_tags_do_not_hide_that_an_image_is_missing(tmp_path, question):
    assert "1 mark and 0 images" in bad_row(tmp_path, {"problem": question, "answer": "3"})
