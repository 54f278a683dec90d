"""Directives of MyST and reStructuredText; colon blocks of pandoc, Quarto, Docusaurus, VuePress and Microsoft."""

import pytest

MYST = {
    "figure with colons": (
        ":::{figure} a.png\n:name: lid\n\nThe lid.\n:::\nAfter.",
        [("a.png", 1, "The lid."), "After."],
    ),
    "figure with backticks": ("```{figure} /img/a.png\nThe *lid*.\n```", [("/img/a.png", 1, "The lid.")]),
    "figure with YAML": (
        "```{figure} a.png\n---\nname: lid\nalt: A box\nscale: 50%\n---\nThe lid.\n```",
        [("a.png", 1, "A box. The lid.")],
    ),
    "the same words twice": ("```{figure} a.png\n:alt: The lid\n\nThe lid.\n```", [("a.png", 1, "The lid")]),
    "a caption over two blocks": ("~~~{figure} a.png\nOne.\n\nTwo [x](y).\n~~~", [("a.png", 1, "One. Two x.")]),
    "image": ("```{image} a.png\n:alt: Lid\n:width: 200px\n```\nAfter.", [("a.png", 1, "Lid"), "After."]),
    "figure-md": (
        ":::{figure-md} fig\n<img src='a.png' alt='A'>\n\nThe lid.\n:::",
        [("a.png", 2, "A. The lid.")],
    ),
    "a figure-md that never ends": (
        ":::{figure-md} fig\n![](a.png)\n\nThe lid.\n\n## Next\n\nText.",
        [("a.png", 2), "The lid.", "Next", "Text."],
    ),
    "a figure that never ends": (
        "```{figure} a.png\nThe lid.\n\n## Next\n\nText.",
        [("a.png", 1), "The lid.", "Next", "Text."],
    ),
    "figure-md in a list": (
        "- One\n\n  :::{figure-md} fig\n  ![A](a.png)\n\n  The lid.\n  :::\n- Two",
        ["One", ("a.png", 4, "A. The lid."), "Two"],
    ),
    "figure without an address": (
        ":::{figure}\n![](a.png)\n![](b.png)\n\nBoth.\n:::",
        [("a.png", 2), ("b.png", 3, "Both.")],
    ),
    "note": ("```{note}\nClose it.\n\n![Lid](a.png)\n```", ["Close it.", ("a.png", 4, "Lid")]),
    "words on the opening line": ("```{note} Close it.\n```", ["Close it."]),
    "admonition": ("````{admonition} Mind\n:class: tip\n\nText.\n````", ["Mind", "Text."]),
    "nested by length": (
        "````{tip}\n```{figure} a.png\nIn it.\n```\nAfter ![b](b.png)\n````\nOut.",
        [("a.png", 2, "In it."), "After", ("b.png", 5, "b"), "Out."],
    ),
    "labels of tabs are no sentences": (
        "::::{tab-set}\n:::{tab-item} Linux\nRun ![s](s.png)\n:::\n:::{tab-item} Mac\nOpen.\n:::\n::::",
        ["Run", ("s.png", 3, "s"), "Open."],
    ),
    "a dropdown of colons around backticks": (
        ":::{dropdown} More\n```{figure} a.png\nDeep.\n```\n:::",
        ["More", ("a.png", 2, "Deep.")],
    ),
    "cards": ("```{card} Title\n:img-top: a.png\nBody\n```", ["Title", ("a.png", 1), "Body"]),
    "in a list": (
        "- item\n\n  ```{figure} a.png\n  The lid.\n  ```\n\n  after",
        ["item", ("a.png", 3, "The lid."), "after"],
    ),
    "after a list's mark": ("1. :::{figure} a.png\n   The lid.\n   :::\n2. two", [("a.png", 1, "The lid."), "two"]),
    "code after a list's mark": (
        "10. ```{code-block} python\n    a = 1\n    b = 2\n    ```\n\n    After ![a](a.png)",
        ["a = 1\nb = 2", "After", ("a.png", 6, "a")],
    ),
    "settings that never end": ("```{note}\n---\na: b\n- ![a](a.png)\n```", [("a.png", 4, "a")]),
    "in a quote": ("> ```{note}\n> Quoted ![q](q.png)\n> ```\n\nOut.", ["Quoted", ("q.png", 2, "q"), "Out."]),
    "code stays code": ("```{code-block} python\n:linenos:\n\n![](no.png)\n```", ["![](no.png)"]),
    "code in a note": ("````{note}\n```python\n![](no.png)\n```\n````", ["![](no.png)"]),
    "lists of files are not shown": ("```{toctree}\na\nb\n```\n\nText.", ["Text."]),
    "labels, breaks, comments": ("(lid)=\n# Lid\n\n+++\n\n% ![](no.png)\n\nText.", ["Lid", "Text."]),
    "roles": (
        "(x)=\nSee {numref}`lid` and {ref}`the box <lid>`, press {kbd}`Ctrl`.",
        ["See and the box, press Ctrl."],
    ),
    "substitutions": (
        '---\nmyst:\n  substitutions:\n    lid: "![Lid](a.png)"\n    version: 1.2\n---\n'
        "Version {{ version }}\n\n{{ lid }}",
        ["Version 1.2", ("a.png", 9, "Lid")],
    ),
    "substitutions, Windows": (
        '---\r\nsubstitutions:\r\n  lid: "![Lid](a.png)"\r\n---\r\n{{ lid }}\r\n',
        [("a.png", 5, "Lid")],
    ),
    "never closed": ("```{note}\nText ![a](a.png)", ["Text", ("a.png", 2, "a")]),
    "eval-rst": ("```{eval-rst}\n.. image:: a.png\n   :alt: Lid\n```", [("a.png", 2, "Lid")]),
    "figure of reStructuredText": (
        "Text.\n\n.. figure:: a.png\n   :width: 50%\n   :alt: Lid\n\n   The box.\n\nAfter.",
        ["Text.", ("a.png", 3, "Lid. The box."), "After."],
    ),
    "note of reStructuredText": (
        "```{eval-rst}\n.. note::\n\n   Close it.\n\n   .. image:: a.png\n\n.. code-block:: c\n\n   ![](no.png)\n```",
        ["Close it.", ("a.png", 6), "![](no.png)"],
    ),
    "a named picture of reStructuredText": (".. |lid| image:: a.png\n   :alt: Lid", [("a.png", 1, "Lid")]),
}

COLONS = {
    "Docusaurus": (":::note[Mind it]\nText ![a](a.png)\n:::", ["Mind it", "Text", ("a.png", 2, "a")]),
    "Docusaurus, older": (":::tip Mind it\n\nText\n\n:::\nAfter", ["Mind it", "Text", "After"]),
    "nested": ("::::info\n:::tip\n![a](a.png)\n:::\nText\n::::\nOut", [("a.png", 3, "a"), "Text", "Out"]),
    "in a list": ("1. One\n\n   :::note\n   ![a](a.png)\n   :::\n\n2. Two", ["One", ("a.png", 4, "a"), "Two"]),
    "VuePress": ("::: details 更多\n文字\n:::", ["更多", "文字"]),
    "Carpentries": (":::::::: challenge\n\nDo.\n\n::::: solution\nDone.\n:::::\n\n::::::::", ["Do.", "Done."]),
    "pandoc": ("::: {.warning}\nText ![a](a.png)\n:::", ["Text", ("a.png", 2, "a")]),
    "Quarto's title": ('::: {.callout-note title="Mind it"}\nText\n:::', ["Mind it", "Text"]),
    "Quarto's figure": (
        "::: {#fig-two layout-ncol=2}\n![A](a.png)\n\n![B](b.png)\n\nBoth.\n:::\nAfter.",
        [("a.png", 2, "A"), ("b.png", 4, "B. Both."), "After."],
    ),
    "Quarto's attributes": ('![Lid](a.png){#fig-x width=50% fig-alt="Box"}', [("a.png", 1, "Lid. Box")]),
    "a diagram": ("::: mermaid\ngraph ![](no.png)\n:::\nText", ["graph ![](no.png)", "Text"]),
    "Microsoft's image": (
        ':::image type="content" source="media/a.png" alt-text="Lid" lightbox="big.png":::',
        [("media/a.png", 1, "Lid")],
    ),
    "Microsoft's image in a list": ('1. Open :::image source="a.png" alt-text="A":::', ["Open", ("a.png", 1, "A")]),
    "Microsoft's rows": (":::row:::\n![a](a.png)\n:::row-end:::\n\nText", [("a.png", 2, "a"), "Text"]),
    "not closed": ("::: note\nText\n\n![a](a.png)", ["Text", ("a.png", 4, "a")]),
    "in code": ("```\n::: note\n![](no.png)\n:::\n```", ["::: note\n![](no.png)\n:::"]),
}


@pytest.mark.parametrize("name", MYST)
def test_directives(name, outline):
    text, expected = MYST[name]
    assert outline(text) == expected


@pytest.mark.parametrize("name", COLONS)
def test_colon_blocks(name, outline):
    text, expected = COLONS[name]
    assert outline(text) == expected
