"""HTML among Markdown: captions, text read as Markdown, and each element that shows a picture."""

import pytest

CASES = {
    "a caption in a paragraph": (
        '<figure><img src="a.png" alt=""><figcaption><p>The lid</p></figcaption></figure>\n\nAfter.',
        [("a.png", 1, "The lid"), "After."],
    ),
    "words and a caption": (
        "<figure><img src='a.png' alt='Box'><figcaption><p>The <b>lid</b></p><p>open</p></figcaption></figure>",
        [("a.png", 1, "Box. The lid open")],
    ),
    "a caption before its picture": (
        "<figure>\n<figcaption>Lid</figcaption>\n<img src='a.png'>\n</figure>",
        [("a.png", 3, "Lid")],
    ),
    "two figures": (
        "<div><figure><img src='a.png'><figcaption></figcaption></figure>"
        "<figure><img src='b.png'><figcaption>B</figcaption></figure></div>",
        [("a.png", 1), ("b.png", 1, "B")],
    ),
    "a caption's tag in a sentence": (
        "Text.\n\n<figure>\n<img src='a.png'>\n<figcaption>\n\nLid <figcaption>x\n\n</figcaption>\n</figure>",
        ["Text.", ("a.png", 4, "Lid x")],
    ),
    "a caption of no picture": ("<figure><pre>x</pre><figcaption>Code</figcaption></figure>", ["x", "Code"]),
    "a figure over several blocks": (
        "<figure>\n\n![Lid](a.png)\n\n<figcaption>\n\nThe *box*\n\n</figcaption>\n</figure>\n\nAfter.",
        [("a.png", 3, "Lid. The box"), "After."],
    ),
    "a div": ('<div align="center">\n![Lid](a.png)\n</div>\n\nAfter.', [("a.png", 2, "Lid"), "After."]),
    "a paragraph and center": (
        "<p align=center>![a](a.png)</p>\n\n<center>\n![b](b.png)<br>\n*Below*\n</center>",
        [("a.png", 1, "a"), ("b.png", 4, "b"), "Below"],
    ),
    "details": (
        "<details><summary>More ![s](s.png)</summary>\n- one\n- ![a](a.png)\n</details>",
        ["More", ("s.png", 1, "s"), "one", ("a.png", 3, "a")],
    ),
    "cells": ("<table>\n<tr><td>![a](a.png)</td><td>**b** + 5</td></tr>\n</table>", [("a.png", 2, "a"), "b + 5"]),
    "a cell is one line": ("<table><tr><td>+ 5</td></tr><tr><td>1. x</td></tr></table>", ["+ 5", "1. x"]),
    "blocks in a div": ('<div markdown="1">\n## Head\n\n![a](a.png)\n</div>', ["Head", ("a.png", 4, "a")]),
    "code in a div": ("<div>\n```\n![](no.png)\n```\n![a](a.png)\n</div>", ["![](no.png)", ("a.png", 5, "a")]),
    "code elements": (
        "<p><code>![](no.png)</code> and <kbd>*</kbd></p>\n<pre>\n![](no.png)\n</pre>",
        ["![](no.png) and *", "![](no.png)"],
    ),
    "links between tags": (
        "<div>\n[![a](a.png)](big.png) <a href='big.png'><img src='b.png'></a>\n</div>",
        [("a.png", 2, "a"), ("b.png", 2)],
    ),
    "a definition elsewhere": ("<div>\n![a][x]\n</div>\n\n[x]: a.png", [("a.png", 2, "a")]),
    "in a list and a quote": (
        "- one\n  <div>\n  ![a](a.png)\n  </div>\n\n> <div>\n> ![b](b.png)\n> </div>",
        ["one", ("a.png", 3, "a"), ("b.png", 7, "b")],
    ),
    "entities": ("<p>a &lt; b &amp; c &copy; *d*</p>", ["a < b & c © d"]),
    "sources of a picture": (
        "<picture><source srcset='x.webp'><img src='a.png'></picture>\n\n<picture>\n"
        "<source srcset='b.webp 1x, c.webp 2x'>\n</picture>",
        [("a.png", 1), ("b.webp", 5)],
    ),
    "lazily loaded": (
        "<img src='data:image/gif;base64,x' data-src='a.png'>\n\n<img data-srcset='b.png 1x'>",
        [("a.png", 1), ("b.png", 3)],
    ),
    "a video's poster": ('<video poster="a.png" src="v.mp4"></video>', [("a.png", 1)]),
    "video and sound": (
        "<video controls>\n<source src='v.mp4'>\nNo video here.\n</video>\n\n"
        "<audio src='s.mp3'></audio>\n\n![](v.webm)",
        [("unsupported", 2), ("unsupported", 6), ("unsupported", 8)],
    ),
    "other elements": (
        "<object data='a.svg'></object><embed src='b.png'><amp-img src='c.png'></amp-img>\n"
        "<input type='image' src='d.png'>",
        [("a.svg", 1), ("b.png", 1), ("c.png", 1), ("d.png", 2)],
    ),
    "documents embedded": (
        "<object data='a.pdf'></object>\n\n<embed src='b.mp4'>",
        [("unsupported", 1), ("unsupported", 3)],
    ),
    "in a drawing": (
        "<svg><text>no</text><image href='a.png'/></svg>\n\n<svg><image xlink:href='b.png'></svg>",
        [("a.png", 1), ("b.png", 3)],
    ),
    "no pictures": ("<iframe src='https://e.org'></iframe><script src='a.js'></script><a href='a.png'>x</a>", ["x"]),
    "a comment that never ends": ("<div>\n![a](a.png)\n<!-- ![](no.png)\n</div>", [("a.png", 2, "a")]),
}

OTHER = {
    "a size of Azure": ("![Lid](/.att/a.png =300x200)", [("/.att/a.png", 1, "Lid")]),
    "a size of HackMD": (
        '![Lid](a.png =50%x) ![b](b.png =x20 "B") ![c](c.png =300x)',
        [("a.png", 1, "Lid"), ("b.png", 1, "b"), ("c.png", 1, "c")],
    ),
    "spaces in an address": (
        '![Lid](my pump (1).png "T") and ![](x y.png)',
        [("my pump (1).png", 1, "Lid"), "and", ("x y.png", 1)],
    ),
    "any case of a reference": ("![Ref] ![r][REF]\n\n[rEF]: a.png", [("a.png", 1, "Ref"), ("a.png", 1, "r")]),
    "LaTeX": ("As \\includegraphics[width=2cm]{a.png} shows", ["As shows", ("a.png", 1)]),
    "Doxygen": (
        '\\image html a.png "The lid" width=3\n\n@image html b.png',
        [("a.png", 1, "The lid"), "width=3", ("b.png", 3)],
    ),
    "forums": ("[img]a.png[/img] [IMG width=3]b.png[/IMG]", [("a.png", 1), ("b.png", 1)]),
    "alerts": ("> [!NOTE]\n> Mind ![a](a.png)", ["Mind", ("a.png", 2, "a")]),
}

CHUNKS = {
    "a caption in the header": (
        '```{r lid, fig.cap="The lid", echo=FALSE}\nknitr::include_graphics("img/a.png")\n```\n\nAfter.',
        [("img/a.png", 2, "The lid"), "After."],
    ),
    "quotes in a caption": (
        "```{r, fig.cap='It\\'s the lid'}\nknitr::include_graphics('a.png', dpi = NA)\n```",
        [("a.png", 2, "It's the lid")],
    ),
    "several": ("```{r x}\ninclude_graphics(c(\"a.png\",\n  'b.png'))\n```", [("a.png", 2), ("b.png", 2)]),
    "Quarto's options": (
        '```{r}\n#| fig-cap: "The lid"\n#| fig-alt: Box\n#| echo: false\nlibrary(knitr)\n'
        "include_graphics('a.png')\n```",
        [("a.png", 6, "Box. The lid")],
    ),
    "code that is shown": (
        '```{r x}\ny <- 1\nknitr::include_graphics("a.png")\n```',
        ['y <- 1\nknitr::include_graphics("a.png")', ("a.png", 3)],
    ),
    "code that is not run": ('```{r x, eval=FALSE}\ninclude_graphics("no.png")\n```', ['include_graphics("no.png")']),
    "a comment in code": ('```{r x}\n# include_graphics("no.png")\n```', ['# include_graphics("no.png")']),
    "parts of a path": ('```{r x}\nknitr::include_graphics(here::here("img", "a.png"))\n```', [("img/a.png", 2)]),
    "what code computes is counted": (
        '```{r x}\nknitr::include_graphics(paste0(d, "/a.png"))\n```',
        [("unsupported", 2)],
    ),
    "inline": ('See `r knitr::include_graphics("a.png")`.', ["See .", ("a.png", 1)]),
    "Python": (
        '```{python}\nImage("a.png")\n```\n\n```{code-cell} ipython3\nImage(filename="b.png")\n```',
        [("a.png", 2), ("b.png", 6)],
    ),
    "no chunk": ('```r\nknitr::include_graphics("no.png")\n```', ['knitr::include_graphics("no.png")']),
}


@pytest.mark.parametrize("name", CASES)
def test_html(name, outline):
    text, expected = CASES[name]
    assert outline(text) == expected


@pytest.mark.parametrize("name", OTHER)
def test_other_syntaxes(name, outline):
    text, expected = OTHER[name]
    assert outline(text) == expected


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks(name, outline):
    text, expected = CHUNKS[name]
    assert outline(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('![x](a.png "T" =300x200)', ("a.png", 1, "x")),
        ('![x](a.png =300x200 "T")', ("a.png", 1, "x")),
        ('![](a b.png "T" =50%x)', ("a b.png", 1, "T")),
        ("![x](a &amp; b.png)", ("a & b.png", 1, "x")),
        ("{% raw %}![x]({{ a }}.png){% endraw %}", ("{{ a }}.png", 1, "x")),
    ],
)
def test_addresses_with_spaces_keep_neither_sizes_nor_entities(outline, text, expected):
    assert outline(text) == [expected]
