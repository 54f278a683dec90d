"""Questions made of titles and headings."""

import re
import time

import pytest

from m2io_jax.corpus.documents import Document, PictureBlock, TextBlock
from m2io_jax.episodes.questions import ask
from m2io_jax.episodes.sections import Rejected, section_drafts


@pytest.mark.parametrize(
    ("title", "heading", "parent", "question"),
    [
        # Titles that are questions, or end with other marks.
        ("Pump?", "", "", "Pump?"),
        ("Pump??", "", "", "Pump?"),
        ("Really?!", "", "", "Really?"),
        ("Wait...?", "", "", "Wait?"),
        ("泵是什么？", "", "", "泵是什么？"),
        ("Pump!", "", "", "What is there to know about Pump?"),
        ("Pump.", "", "", "What is there to know about Pump?"),
        ("Pump:", "", "", "What is there to know about Pump?"),
        ("Pump …", "", "", "What is there to know about Pump?"),
        ("Pump?", "Seal", "", "What does Pump say about Seal?"),
        ("Pump?", "Add oil!", "", "How do I add oil, in Pump?"),
        ("泵？", "密封", "", "What does 泵 say about 密封?"),
        ("Pump?", "Why does it leak??", "", "Pump: Why does it leak?"),
        ("Pump.", "Why does it leak？", "", "Pump: Why does it leak？"),
        ("Pump", 'Is it "dry?"', "", 'Pump: Is it "dry?"'),
        ("C#", "C++", "", "What does C# say about C++?"),
        # What stands for the page's own title, or for nothing.
        ("Pump", "Pump?", "", "What is there to know about Pump?"),
        ("Challenge: More lines", "Challenge: More lines", "", "What is there to know about Challenge: More lines?"),
        ("", "Seal", "", "What is there to know about Seal?"),
        ("  ", "Why?", "", "Why?"),
        ("", "", "", ""),
        ("***", "---", "", ""),
        ("🚀", "", "", ""),
        # Headings that say what kind of section it is, or its number.
        ("Pump", "Note", "", "What is there to know about Pump?"),
        ("Pump", "Note:", "Seal", "What does Pump say about Seal: Note?"),
        ("Pump", "🚀 Challenge", "Seal", "What does Pump say about Seal: Challenge?"),
        ("Pump", "Solution", "Exercise 3", "What is there to know about Pump?"),
        ("Pump", "Solution 2", "Exercise 3: Seal", "What does Pump say about Seal: Solution 2?"),
        ("Pump", "Overview", "", "What is there to know about Pump?"),
        ("Pump", "Introduction", "Pump", "What is there to know about Pump?"),
        ("Introduction", "Introduction", "", "What is there to know about Introduction?"),
        ("Pump", "3", "Seal", "What does Pump say about Seal?"),
        ("Pump", "3.", "", "What is there to know about Pump?"),
        ("Pump", "---", "Seal", "What is there to know about Pump?"),
        # What is no part of the topic.
        ("Pompe ?", "", "", "Pompe?"),
        ("Pump", "Check the seal!", "", "How do I check the seal, in Pump?"),
        ("Pump", "Greasing the seal (10 min)", "", "How does greasing the seal go, in Pump?"),
        ("Pump", "Seal (optional, not included in timing)", "", "What does Pump say about Seal?"),
        ("Pump", "Seal (two of them)", "", "What does Pump say about Seal (two of them)?"),
        ("Pump", "⚠️ Tip: Clean the seal", "", "How do I clean the seal, in Pump?"),
        ("Pump", "What you need", "", "What does Pump say about what you need?"),
        ("Pump", "WHO guidelines", "", "What does Pump say about WHO guidelines?"),
        ("How it works", "", "", "What is there to know about how it works?"),
        # Instructions, and what only looks like one.
        ("Connect the components", "", "", "How do I connect the components?"),
        ("Give your robot eyes", "", "", "How do I give your robot eyes?"),
        ("Pump", "Open the lid", "", "How do I open the lid, in Pump?"),
        ("Pump", "Test results", "", "What does Pump say about Test results?"),
        ("Pump", "Open source licence", "", "What does Pump say about Open source licence?"),
        ("Pump", "Set of screws", "", "What does Pump say about Set of screws?"),
        ("Start menu", "", "", "What is there to know about Start menu?"),
        ("Pump", "King size bed", "", "What does Pump say about King size bed?"),
        ("Pump", "During the night", "", "What does Pump say about During the night?"),
        ("Pump", "Greasing the seal", "", "How does greasing the seal go, in Pump?"),
        # Titles that are clauses or questions, and marks of other scripts and of code.
        ("What you need", "Camera", "", 'What does "What you need" say about Camera?'),
        ("¿Qué es?", "Tapa", "", "What does Qué es say about Tapa?"),
        ("¿Qué es?", "¿Cómo funciona?", "", "Qué es: ¿Cómo funciona?"),
        ("ما هي المضخة؟", "", "", "ما هي المضخة؟"),
        ("पंप।", "", "", "What is there to know about पंप?"),
        ("`npm` install", "`--force`", "", "What does `npm` install say about `--force`?"),
        ("Pump", ".NET and -v", "", "What does Pump say about .NET and -v?"),
    ],
)
def test_questions_are_made_of_what_says_something(title, heading, parent, question):
    assert ask(title, heading, parent) == question


MARKS = ["", "?", "??", "？", "؟", "؟؟", "؟?", "!", "?!", ".", "...", "…", ":", "? ", " ?", "?)", '?"', "！？", " -"]


def test_no_question_ends_in_two_marks():
    for title in MARKS:
        for heading in [None, *MARKS]:
            for word in ("Seal", "Add oil", "Adding oil", "Note"):
                asked = ask(f"Pump{title}", "" if heading is None else f"{word}{heading}", "Lid?")
                assert re.search(r"[\w)\"][?？؟][)\"]?$", asked), (title, heading, asked)
                assert not re.search(r"[?？؟!！.:…]\s*[?？؟]", asked), (title, heading, asked)


def drafts(*blocks, title="Pump"):
    return list(section_drafts(Document("d", title, "d.md", "d", blocks), 12))


def test_hostile_headings_take_no_time():
    for text in (
        "?" * 50_000,
        "." * 50_000 + "x",
        "! ? " * 20_000 + "x",
        "(" * 50_000,
        "(min " * 10_000,
        "1." * 30_000,
    ):
        began = time.perf_counter()
        ask(text, f"Seal {text}", text)
        assert time.perf_counter() - began < 2


@pytest.mark.parametrize("text", ["Done.", "!!!", "---", "2511", "1. 2. 3", "好", "🚀 🚀"])
def test_a_section_of_one_word_is_no_episode(text):
    (rejected,) = drafts(TextBlock(text, 1), PictureBlock("p", 2))
    assert isinstance(rejected, Rejected) and "single word" in rejected.reason


@pytest.mark.parametrize("text", ["All done.", "打开盖子。", "Öl wechseln", "npm install", "Step 3"])
def test_a_section_of_two_words_is_one(text):
    (draft,) = drafts(TextBlock(text, 1), PictureBlock("p", 2))
    assert draft.gold == ((1, 1),)


def test_a_section_that_nothing_names_is_counted():
    (rejected,) = drafts(TextBlock("Open the lid.", 1), PictureBlock("p", 2), title="")
    assert isinstance(rejected, Rejected) and "names the section" in rejected.reason


def test_a_kind_of_section_is_asked_by_the_heading_above_it():
    def heading(text, level):
        return TextBlock(text, 1, "heading", level)

    blocks = [
        heading("Pump", 1),
        TextBlock("A pump moves water.", 2),
        heading("Seal", 2),
        TextBlock("Grease the seal.", 3),
        heading("Solution", 3),
        TextBlock("It is round now.", 4),
        heading("Note", 2),
        TextBlock("Keep it dry.", 5),
    ]
    assert [draft.question for draft in drafts(*blocks)] == [
        "What is there to know about Pump?",
        "What does Pump say about Seal?",
        "What does Pump say about Seal: Solution?",
        "What is there to know about Pump?",
    ]
