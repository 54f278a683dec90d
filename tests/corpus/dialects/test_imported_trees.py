"""Whole trees of every dialect: an independent count finds as many pictures as the report, and time stays in bounds."""

import re
import time

import pytest

from m2io_jax.corpus.documents import PictureBlock
from m2io_jax.corpus.markdown import import_markdown
from m2io_jax.corpus.markdown_blocks import parse_markdown
from m2io_jax.corpus.store import Corpus

# Each syntax that shows one picture, as a reader of the source would count it.
SYNTAXES = re.compile(
    r"""!\[\[[^\]\n]+\.(?:png|svg|mp4|excalidraw)[^\]\n]*\]\]   # Obsidian
    |(?<!!)\[\[[^\]\n|]+\.png(?:\|[^\]\n]*)?\]\]                # GitHub's wiki
    |!\[[^\]\n]*\]\(                                            # Markdown
    |<(?:img|Image|ThemedImage|amp-img|video|audio|embed|object)\b
    |\{(?:figure|image)\}[ ]\S
    |\.\.[ ](?:figure|image)::
    |\{\{[<%]\s*(?:figure|image|imgproc|video)\s[^/]
    |\{%\s*include\s+(?:figure|image)
    |\{\{\s*image\(
    |:::image\s
    |include_graphics\("
    |\\includegraphics
    """,
    re.VERBOSE,
)


UNREAD = (
    r"<!--.*?-->",
    r"\{% comment %\}.*?\{% endcomment %\}",
    r"\{/\*.*?\*/\}",
    r"%%.*?%%",
    r"\{\{</\*.*?>\}\}",
)


def count(text: str) -> int:
    """Count picture syntaxes by regular expressions, with comments and code that is only shown taken out."""
    for unread in UNREAD:
        text = re.sub(unread, "", text, flags=re.DOTALL)
    shown = []
    in_code = False
    directives = 0
    for line in text.splitlines():
        fence = re.match(r"[ >]*```+(\{?)(\w*)", line)
        if not fence:
            shown += [] if in_code else [line]
        elif in_code:
            in_code = bool(fence[1] or fence[2])
        elif fence[1]:
            directives += 1
            shown.append(line)
        elif directives and not fence[2]:
            directives -= 1
        else:
            in_code = True
    return len(SYNTAXES.findall(re.sub(r"`[^`r\n][^`\n]*`", "", "\n".join(shown))))


WIKI = """# A

One.

![[img/a.png|300]]

![[note]] ![[v.mp4]] `![[no.png]]`

%% ![[no.png]] %%

[[img/a.png|alt=A]]
"""
MYST = """# A

```{figure} img/a.png
The lid.
```

:::{note}
![x](img/a.png)
```{image} gone.png
```
:::

```{eval-rst}
.. image:: img/a.png
```

```
```{figure} no.png
```
"""
MDX = """import lid from './a.png'

# A

<img src={lid}/>

<Tabs>
<TabItem>
    ![x](./a.png)
</TabItem>
</Tabs>

<Image src={name.of.it}/>

<ThemedImage sources={{light: useBaseUrl('/b.png'), dark: 'c.png'}}/>

{/* <img src='no.png'/> */}
"""
MATERIAL = """# A

!!! note "N"

    ![x](a.png)

=== "T"

    1. One

        ![y](a.png){ width=3 }

<figure markdown>
  ![z](a.png)
  <figcaption>Z</figcaption>
</figure>
"""
HUGO = """# A

{{< figure
  src="a.png"
  caption="C"
>}}

{{% image link='a.png' %}}

{{< imgproc a.png Fit "4x3" >}}
C
{{< /imgproc >}}

{{</* figure src="no.png" */>}}

{{< video src="v.mp4" >}}
"""
JEKYLL = """{% assign d = "/img" %}
# A

![x]({{ d }}/a.png) ![y]({% link img/a.png %})

{% include figure.html url="/img/a.png" %}

{% comment %}
![](no.png)
{% endcomment %}

![z]({{ page.header }})
"""
QUARTO = """# A

```{r x, fig.cap="C"}
knitr::include_graphics("a.png")
```

\\includegraphics{a.png}

![w](a.png =3x2)
"""
HTML = """# B

<div>
![x](a.png)
</div>

<video poster="a.png"></video> <object data="d.svg"></object>

<audio src="s.mp3"></audio>
"""
OTHERS = """# C

:::image source="a.png" alt-text="A":::

{{ image(path="a.png") }}

<!-- ![](no.png) -->
"""

# A name without a text is a picture.
TREES = {
    "wiki": {"a.md": WIKI, "img/a.png": ""},
    "myst": {"a.md": MYST, "img/a.png": ""},
    "mdx": {"docs/a.mdx": MDX, "docs/a.png": "", "static/b.png": ""},
    "material": {"a.md": MATERIAL, "a.png": ""},
    "hugo": {"content/a.md": HUGO, "content/a.png": ""},
    "jekyll": {"a.md": JEKYLL, "img/a.png": ""},
    "others": {"a.qmd": QUARTO, "b.Rmd": HTML, "c.md": OTHERS, "a.png": ""},
    "all in one": {"a.md": "\n".join((WIKI, MYST, MATERIAL, HUGO, JEKYLL, QUARTO, HTML, OTHERS)), "a.png": ""},
}


@pytest.mark.parametrize("name", TREES)
def test_reports_count_every_syntax(name, tree, tmp_path):
    files = TREES[name]
    report = import_markdown(tree(files), tmp_path / "out")
    texts = {file: text for file, text in files.items() if text}
    assert report.pictures["references"] == sum(count(text) for text in texts.values()) > 2
    assert report.documents == len(texts) and not report.skipped_files
    corpus = Corpus.open(tmp_path / "out")
    lines = {document.source: texts[document.source].splitlines() for document in corpus.documents}
    for document in corpus.documents:
        for block in document.blocks:
            if isinstance(block, PictureBlock):
                # A tag over several lines, and a code chunk, are named by a line of theirs.
                near = " ".join(lines[document.source][block.line - 1 : block.line + 2])
                assert re.search(r"img|image|figure|include|!\[|\[\[|poster|Image", near), (document.source, block.line)


def test_what_is_not_supported_is_listed_with_its_line(tree, tmp_path):
    files = {"a.md": "# A\n\n![[v.mp4]]\n\n<img src={props.src} />\n\n![s](s.mp3)"}
    report = import_markdown(tree(files), tmp_path / "out")
    assert report.pictures == {"references": 3, "kept": 0, "missing": 0, "broken": 0, "unsupported": 3, "remote": 0}
    assert [(problem.line, problem.reference) for problem in report.problems] == [
        (3, "v.mp4"),
        (5, "props.src"),
        (7, "s.mp3"),
    ]
    assert all(problem.reason for problem in report.problems)


HOSTILE = {
    "embeds": lambda size: "![[" * (size // 3),
    "embeds with an end": lambda size: "![[" * (size // 3) + "]",
    "shortcodes": lambda size: "{{<" * (size // 3),
    "tags": lambda size: "{% " * (size // 3),
    "colons": lambda size: ":::" * (size // 3),
    "lines of colons": lambda size: "::: a\n" * (size // 6),
    "fences by length": lambda size: "\n".join("`" * count + "{note}" for count in range(3, int((2 * size) ** 0.5))),
    "directives": lambda size: "```{note}\n" * (size // 10),
    "elements": lambda size: "<div>" * (size // 5),
    "elements on lines": lambda size: "<Tabs>\n  <TabItem>\n" * (size // 18),
    "components": lambda size: "<a x={" * (size // 6),
    "expressions": lambda size: "import a from 'b'\n\n" + " {a" * (size // 3),
    "admonitions in each other": lambda size: "".join(
        "    " * depth + "!!! a\n" for depth in range(int((size / 2) ** 0.5))
    ),
    "comments": lambda size: "<!--" * (size // 4),
    "addresses": lambda size: "![a](" * (size // 5),
    "addresses with an end": lambda size: "![a](b (" * (size // 8) + ")",
    "variables": lambda size: "](" + "{{ a }}" * (size // 7),
    "a long value many times": lambda size: "{% assign a = '" + "a" * 900 + "' %}" + "{{ a }} " * (size // 8),
    "spaces in a tag": lambda size: "{{x" + " " * size,
    "figures": lambda size: "<figure>" * (size // 40) + "<img src=a><figcaption>x</figcaption>" * (size // 40),
    "captions": lambda size: "{{< imgproc a >}}x{{< /imgproc >}}\n" * (size // 36),
    "backticks": lambda size: "".join("`" * count + " " for count in range(1, int((2 * size) ** 0.5))),
    "chunks": lambda size: "```{r x}\n" + "include_graphics(" * (size // 17),
    "brackets": lambda size: "[" * size,
    "images of one paragraph": lambda size: "![a](b.png) " * (size // 12),
    "images among words": lambda size: "w ![a](b.png) w\n" * (size // 16),
    "shortcodes of one paragraph": lambda size: "{{< figure src=a.png >}} " * (size // 25),
    "tags that end below": lambda size: "<a b=c\n>" * (size // 8),
}


def seconds(text: str) -> float:
    """Return the processor's time that reading a text takes."""
    start = time.process_time()
    assert parse_markdown(text).pieces is not None
    return time.process_time() - start


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_linear(name):
    make = HOSTILE[name]
    few, many = seconds(make(20_000)), seconds(make(80_000))
    # Four times the text: a square would take sixteen times as long.
    assert many < 9 * few + 0.5, f"{few:.2f} s for 20 kB, {many:.2f} s for 80 kB"


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_is_read_within_a_minute(name):
    assert seconds(HOSTILE[name](1_000_000)) < 60
