"""Embeds and links in double brackets: Obsidian, GitHub's and GitLab's wikis, Gollum, MediaWiki."""

import pytest

CASES = {
    "a width is no words": ("![[a.png|300]]", [("a.png", 1)]),
    "width and height": ("![[a.png|100x200]]", [("a.png", 1)]),
    "an anchor and words": ("![[a.png#top|The lid]]", [("a.png", 1, "The lid")]),
    "words and a width": ("![[deep/a b.jpeg|The lid|300]]", [("deep/a b.jpeg", 1, "The lid")]),
    "upper case": ("![[A.PNG]]", [("A.PNG", 1)]),
    "embeds of pages are no pictures": ("See ![[note]] and ![[v1.2 of it#Head]].", ["See and ."]),
    "links are read as their words": ("See [[page|the page]], [[other]].", ["See the page, other."]),
    "a link to a heading": ("[[page#Part]] [[#Own part]]", ["page > Part Own part"]),
    "in a table": (
        "| a | b |\n|---|---|\n| ![[t.png\\|30]] | [[x\\|why]] |",
        ["a | b", "why", ("t.png", 3)],
    ),
    "in a list, a quote and a heading": (
        "- x ![[l.png]]\n\n> ![[q.png]]\n\n# H ![[h.png]]",
        ["x", ("l.png", 1), ("q.png", 3), "H", ("h.png", 5)],
    ),
    "several in one paragraph": ("One.\n![[a.png]]\nTwo.\n![[b.png]]", ["One.", ("a.png", 2), "Two.", ("b.png", 4)]),
    "video and sound": ("![[v.mp4]]\n\n![[s.mp3|words]]", [("unsupported", 1), ("unsupported", 3)]),
    "a drawing": ("![[plan.excalidraw]]", [("unsupported", 1)]),
    "escaped": ("\\![[a.png]]", ["!a.png"]),
    "code": ("`![[a.png]]`\n\n```\n![[b.png]]\n```", ["![[a.png]]", "![[b.png]]"]),
    "a wiki's options": ("[[images/a.png|alt=Lid|width=300px|frame]]", [("images/a.png", 1, "Lid")]),
    "a wiki's picture without options": ("Text\n\n[[/images/a.png]]", ["Text", ("/images/a.png", 3)]),
    "a remote picture": ("[[https://e.org/a.png]]", [("https://e.org/a.png", 1)]),
    "a file of MediaWiki": ("[[File:a.png|thumb|left|The lid]]", [("a.png", 1, "The lid")]),
    "contents": ("[[_TOC_]]\n\nText", ["Text"]),
    "three brackets include a page elsewhere": ("[[[generic-thing]]]", ["[[[generic-thing]]]"]),
    "a link whose words are in brackets": ("As shown [[1]](#ref).", ["As shown [1]."]),
    "a reference whose words are in brackets": ("See [[1]][ref].\n\n[ref]: x", ["See [1]."]),
    "callouts": ("> [!warning]- Hot\n> Let it cool ![[c.png]]", ["Hot Let it cool", ("c.png", 2)]),
    "comments": ("a [[x]] %% ![[no.png]] %% b\n\n%%\n![[no.png]]\n%%\nc", ["a x b", "c"]),
    "a percent sign twice is no comment": ("Use 50%% and 20%% of it.", ["Use 50%% and 20%% of it."]),
    "names of blocks": ("A sentence. ^37066d", ["A sentence."]),
    "a width in the words": ("![lid|300](a.png)", [("a.png", 1, "lid")]),
}


@pytest.mark.parametrize("name", CASES)
def test_brackets(name, outline):
    text, expected = CASES[name]
    found = outline(text)
    assert [" ".join(entry.split()) if isinstance(entry, str) else entry for entry in found] == expected
