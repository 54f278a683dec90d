"""MkDocs Material: admonitions, tabs, details, captions; footnotes and definitions, whose bodies are indented too."""

import pytest

CASES = {
    "admonition": (
        '!!! note "Mind"\n\n    Close.\n\n    ![V](v.png)\n\n\nAfter.',
        ["Mind", "Close.", ("v.png", 5, "V"), "After."],
    ),
    "without a title or a blank line": (
        "!!! note\n    Close ![V](v.png)\nAfter.",
        ["Close", ("v.png", 2, "V"), "After."],
    ),
    "an empty title": ('!!! danger ""\n    Text.', ["Text."]),
    "several classes": ('!!! info inline end "Lorem"\n    Text.', ["Lorem", "Text."]),
    "details": ('??? tip\n    Text.\n\n???+ note "Open"\n    More.', ["Text.", "Open", "More."]),
    "by a tab": ("!!! note\n\tText.\n\n\t![a](a.png)\nAfter", ["Text.", ("a.png", 4, "a"), "After"]),
    "tabs": (
        '=== "Linux"\n\n    Run ![l](l.png)\n\n=== "Mac"\n\n    1. One\n\n        ![m](m.png)\n\nAfter.',
        ["Run", ("l.png", 3, "l"), "One", ("m.png", 9, "m"), "After."],
    ),
    "numbered tabs": (
        '=== "<1>"\n    ![s](s.png)\n\n=== "<2>"\n    ![t](t.png)',
        [("s.png", 2, "s"), ("t.png", 5, "t")],
    ),
    "nested": (
        '!!! note\n\n    === "A"\n\n        ??? tip "T"\n\n            Deep ![d](d.png)\n\n    Back.\n\nOut.',
        ["T", "Deep", ("d.png", 7, "d"), "Back.", "Out."],
    ),
    "in a list": (
        "1. One\n\n    !!! warning\n\n        Hot ![h](h.png)\n\n2. Two",
        ["One", "Hot", ("h.png", 5, "h"), "Two"],
    ),
    "after a list's mark": (
        "10. !!! note\n\n        Text ![a](a.png)\n\n11. Two",
        ["Text", ("a.png", 3, "a"), "Two"],
    ),
    "nested in a list": (
        '1.  One\n\n    === "A"\n\n        !!! tip\n\n            Deep ![d](d.png)\n\n        Back.\n\n2.  Two',
        ["One", "Deep", ("d.png", 7, "d"), "Back.", "Two"],
    ),
    "after a list": ("- a\n- b\n\n!!! note\n    Text\n\n        ![](no.png)", ["a", "b", "Text", "![](no.png)"]),
    "in a quote": ("> !!! note\n>     Text ![a](a.png)\n\nOut.", ["Text", ("a.png", 2, "a"), "Out."]),
    "code in it": ("!!! note\n    ```\n    ![](no.png)\n    ```\n    Text", ["![](no.png)", "Text"]),
    "code that never ends ends with it": (
        "!!! note\n    ```\n    x\nAfter ![a](a.png)",
        ["x", "After", ("a.png", 4, "a")],
    ),
    "in code": ("    !!! note\n        ![](no.png)\n", ["!!! note\n    ![](no.png)"]),
    "a sentence with such marks": ("!!! Look at this before you go on", ["!!! Look at this before you go on"]),
    "caption": (
        "![Lid](a.png)\n/// caption\nThe box, open\n///\n\nAfter.",
        [("a.png", 1, "Lid. The box, open"), "After."],
    ),
    "caption with settings": (
        "![](a.png)\n\n/// figure-caption | < #fig\n    attrs: {id: x}\nThe box.\n///",
        [("a.png", 1, "The box.")],
    ),
    "a table's caption stays text": ("| a |\n|---|\n| b |\n\n/// caption\nThe table.\n///", ["a", "b", "The table."]),
    "blocks": (
        "/// details | More\n    type: tip\n\nText ![a](a.png)\n///\n\n//// tab | A\n/// note\nIn.\n///\n////",
        ["More", "Text", ("a.png", 4, "a"), "In."],
    ),
    "figure": (
        '<figure markdown="span">\n  ![Lid](a.png){ width="300" }\n'
        "  <figcaption>The **box**</figcaption>\n</figure>\n\nAfter.",
        [("a.png", 2, "Lid. The box"), "After."],
    ),
    "attributes are not shown": (
        "![a](a.png){ width=300 loading=lazy } [b](c){ .md-button }\n\nText.\n{: .lead }",
        [("a.png", 1, "a"), "b", "Text."],
    ),
    "braces in code are shown": ("Write `{ .x }` or `{width=3}`.", ["Write { .x } or {width=3}."]),
    "grid": (
        '<div class="grid cards" markdown>\n\n-   ![c](c.png)\n\n    ---\n\n    Card\n\n</div>',
        [("c.png", 3, "c"), "Card"],
    ),
    "footnote": ("Text[^1].\n\n[^1]: Note ![f](f.png)\n\n    More.", ["Text.", "Note", ("f.png", 3, "f"), "More."]),
    "a footnote that is a picture": ("[^1]: ![f](f.png)", [("f.png", 1, "f")]),
    "definition": (
        "Term\n:   Said ![d](d.png)\n\n    ![e](e.png)",
        ["Term : Said", ("d.png", 2, "d"), ("e.png", 4, "e")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_indented_blocks(name, outline):
    text, expected = CASES[name]
    assert outline(text) == expected
