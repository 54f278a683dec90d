"""Small trees made by hand for each way in which a document can show a picture, and the real trees where they are."""

import io
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from m2io_jax.corpus.documents import PictureBlock, TextBlock
from m2io_jax.corpus.html_blocks import Reference
from m2io_jax.corpus.markdown import import_markdown
from m2io_jax.corpus.markdown_blocks import parse_markdown
from m2io_jax.corpus.pictures import PictureLimits
from m2io_jax.corpus.store import Corpus
from m2io_jax.errors import UserError

SHARED = Path(os.environ.get("M2IO_SHARED", Path(__file__).resolve().parents[2] / ".." / "shared")) / "data" / "docs"


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def make(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def references(text: str) -> list[tuple[str, int, str]]:
    pieces = parse_markdown(text).pieces
    return [(piece.address, piece.line, piece.caption) for piece in pieces if isinstance(piece, Reference)]


def texts(text: str) -> list[tuple[str, int, str]]:
    pieces = parse_markdown(text).pieces
    return [(piece.text, piece.line, piece.kind) for piece in pieces if isinstance(piece, TextBlock)]


CASES = {
    "inline": ("![a cat](x.png 'T')", [("x.png", 1, "a cat")]),
    "title for alt": ("![](x.png 'T')", [("x.png", 1, "T")]),
    "angle brackets": ("![](<a b.png>)", [("a b.png", 1, "")]),
    "percent kept for later": ("![](a%20b.png?v=1)", [("a%20b.png?v=1", 1, "")]),
    "full reference": ("\n![r][Ref]\n\n[ref]: y.png", [("y.png", 2, "r")]),
    "collapsed reference": ("![ref][]\n\n[ref]: y.png", [("y.png", 1, "ref")]),
    "shortcut reference": ("![ref]\n\n[ref]: y.png", [("y.png", 1, "ref")]),
    "reference without definition": ("![ref][gone]", []),
    "in a link": ("[![l](m.png)](page.html)", [("m.png", 1, "l")]),
    "in a heading": ("## H ![h](h.png)", [("h.png", 1, "h")]),
    "setext heading": ("H ![h](h.png)\n===", [("h.png", 1, "h")]),
    "nested list": ("- a\n  1. b\n\n     c\n     ![n](n.png)", [("n.png", 5, "n")]),
    "quote": ("> q\n> ![n](n.png)", [("n.png", 2, "n")]),
    "table": ("|a|b|\n|-|-|\n|x|y|\n|z ![t](t.png)|![u](u.png)|", [("t.png", 4, "t"), ("u.png", 4, "u")]),
    "alt over lines": ("one\n![two\nthree](x.png)\n![](y.png)", [("x.png", 2, "two three"), ("y.png", 4, "")]),
    "after code over lines": ("`a\nb` and\n![](y.png)", [("y.png", 3, "")]),
    "after a title over lines": ("[a](b\n'c\nd')\n![](y.png)", [("y.png", 4, "")]),
    "html, double quotes": ('<img src="x.png" alt="a &amp; b">', [("x.png", 1, "a & b")]),
    "html, single quotes": ("<IMG ALT='>' SRC='x.png'/>", [("x.png", 1, ">")]),
    "html, no quotes": ("<img src=x.png>", [("x.png", 1, "")]),
    "html in text": ("see\nthis <img\nsrc='x.png'> now", [("x.png", 2, "")]),
    "html block lines": (
        "\n<div>\n<p>\n<img\nsrc='x.png'><img src='y.png'>\n</div>",
        [("x.png", 4, ""), ("y.png", 5, "")],
    ),
    "figure": (
        "<figure>\n<img src='x.png'>\n<figcaption>A <b>cat</b></figcaption>\n</figure>",
        [("x.png", 2, "A cat")],
    ),
    "picture": ("<picture>\n<source srcset='x.webp'>\n<img src='x.png'>\n</picture>", [("x.png", 3, "")]),
    "srcset only": ("<div><img srcset='x.png 1x, y.png 2x'></div>", [("x.png", 1, "")]),
    "markdown between html": ("<details>\n\n![d](d.png)\n\n</details>", [("d.png", 3, "d")]),
    "after an iframe": ("<div>\n<iframe src='https://v'></iframe>\n<img src='x.png'>\n</div>", [("x.png", 3, "")]),
    "no address": ("<img alt='lost'>", [("", 1, "lost")]),
    "fenced code": ("```\n![](x.png)\n<img src=y.png>\n```", []),
    "indented code": ("a\n\n    ![](x.png)", []),
    "code span": ("`![](x.png)` and `<img src=x.png>`", []),
    "comment": ("<!-- ![](x.png) <img src='y.png'> -->\n\na <!-- <img src='z.png'> -->", []),
    "escaped": (r"\![a](x.png)", []),
    "script": ("<script>\nlet a = \"<img src='x.png'>\"\n</script>", []),
    "front matter": ("---\ntitle: T\nimage: no.png\n---\n![](x.png)", [("x.png", 5, "")]),
    "windows line ends": ("a\r\n\r\n![](x.png)\r\n", [("x.png", 3, "")]),
    "kramdown": ("![a](x.png){: width='9' .wide}", [("x.png", 1, "a")]),
    "pandoc's alt": (
        "![](x.png){alt='a {cat'}\n\n![](y.png){#me alt=\"b\n\"}",
        [("x.png", 1, "a {cat"), ("y.png", 3, "b")],
    ),
    "hugo": ('{{< figure src="x.png" alt="a" >}}\n{{< youtube id="x" >}}', [("x.png", 1, "a")]),
    "jekyll include": ('\n{% include figure.html src="x.png" caption="c" %}', [("x.png", 2, "c")]),
    "jekyll address": (
        "![]({{ site.baseurl }}/x.png) ![]({{ '/y.png' | relative_url }})",
        [("/x.png", 1, ""), ("/y.png", 1, "")],
    ),
    "lesson code": (
        "--- code ---\n---\nlanguage: html\n---\n<img src='x.png'>\n--- /code ---\n![](y.png)",
        [("y.png", 7, "")],
    ),
    "a directive is no front matter": ("--- task ---\n![](x.png)\n--- /task ---\n", [("x.png", 2, "")]),
    "odd schemes": (
        "![](javascript:x) ![](data:image/svg+xml,x)",
        [("javascript:x", 1, ""), ("data:image/svg+xml,x", 1, "")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_references_and_their_lines(name):
    text, expected = CASES[name]
    assert references(text) == expected


def test_reading_text():
    text = """---
title: "A: B"
---
# Head {#anchor}

Some *soft*
text with `code`{:class="x"} &amp; [a link](y){:target="_blank"}.<br>More.

::: challenge
1. one
   - two

     three
:::

> quoted

```python
x = 1
```

<h2 align="center">Html <i>head</i></h2>
<p>para</p>

| a | b |
|---|---|
| c | d |
"""
    assert parse_markdown(text).title == "A: B"
    assert texts(text) == [
        ("Head", 4, "heading"),
        ("Some soft text with code & a link. More.", 6, "paragraph"),
        ("one", 10, "item"),
        ("two", 11, "item"),
        ("three", 13, "item"),
        ("quoted", 16, "paragraph"),
        ("x = 1", 19, "code"),
        ("Html head", 22, "heading"),
        ("para", 23, "paragraph"),
        ("a | b", 25, "table"),
        ("c | d", 27, "table"),
    ]


def test_text_and_pictures_keep_their_order():
    text = "First.\n![](a.png)\nSecond, press ![](b.png) now. Third: ![](c.png) fourth."
    pieces = parse_markdown(text).pieces
    found = [(piece.text if isinstance(piece, TextBlock) else piece.address, piece.line) for piece in pieces]
    # b.png is an icon inside its sentence: it comes when a sentence has ended.
    assert found == [
        ("First.", 1),
        ("a.png", 2),
        ("Second, press now. Third:", 3),
        ("b.png", 3),
        ("c.png", 3),
        ("fourth.", 3),
    ]


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "---\n", "---\ntitle: [\n---\n", "---\n---", "> " * 5000 + "a", "[" * 5000, "![" * 1000, "{" * 9000]
    + ["<" * 5000, "<img src='", "- " * 3000, "\x00\ufffe", "{{< figure", "![](x.png){" + "a=b=" * 3000, "**a" * 3000]
    # Each took minutes, by searches that began again at every letter.
    + ["{%" + " " * 20_000 + "x", "{{<" + " " * 20_000, "{%" + "a" * 300_000 + "%}"],
)
def test_no_text_is_too_odd(text):
    assert parse_markdown(text).pieces is not None


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(9 * [f'*{former}'])}]\n" for former, name in zip("abcde", "bcdef", strict=True)
)


@pytest.mark.parametrize(
    "settings, title",
    [
        ("draft: !!bool maybe\ntitle: A: B", "A: B"),
        ("draft: !!bool maybe\ntitle: T # of it", "T"),
        (r'title: "a\ud800b"', "a?b"),
        (r'title: "\UFFFFFFFF"', r"\UFFFFFFFF"),
        ("title: !!timestamp foo", "foo"),
        ("title: !!int ''", "Head"),
        ("title: 0x" + "f" * 5000, "0x" + "f" * 5000),
        ("title: 2024-01-01", "2024-01-01"),
        ("title: >\n  a\n  b", "a b"),
        ("title: ~", "Head"),
        (BOMB + "title: [*f]", "Head"),
        ("title: " + "[" * 5000, "[" * 5000),
    ],
)
def test_a_title_is_what_stands_there(settings, title):
    assert parse_markdown(f"---\n{settings}\n---\n# Head\n").title == title


def blocks_of(corpus: Corpus, id: str) -> list[PictureBlock]:
    return [block for block in corpus.document(id).blocks if isinstance(block, PictureBlock)]


def test_a_tree_with_everything_wrong(tmp_path):
    truncated = png()[:40]
    root = make(
        tmp_path / "tree",
        {
            "a/one.md": "# One\n\n![](x.png)\n![](../b/./x.png#f)\n![](/b/x%20y.png?v=2)\n![](../../secret.png)\n"
            "![](gone.png)\n![](cut.png)\n![](v.svg)\n![](https://e.org/i.png)\n![](//e.org/i.png)\n"
            "![](data:image/png;base64,AA==)\n![](file:///etc/x.png)\n![](liar.jpg)\n![](big.png)\n![](/a)\n![]()\n",
            "a/x.png": png(1),
            "a/cut.png": truncated,
            "a/v.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
            "a/liar.jpg": png(3),
            "a/big.png": png(4) + bytes(5000),
            "b/x.png": png(1),
            "b/x y.png": png(2),
            "b/binary.md": b"PK\x03\x04\x00\x01",
            ".hidden/h.md": "# hidden",
        },
    )
    make(tmp_path, {"secret.png": png(9)})
    report = import_markdown(root, tmp_path / "out", limits=PictureLimits(max_bytes=4096))
    assert report.pictures == {
        "references": 15,
        "kept": 4,
        "missing": 5,
        "broken": 2,
        "unsupported": 2,
        "remote": 2,
    }
    corpus = Corpus.open(tmp_path / "out")
    kept = blocks_of(corpus, "a/one")
    assert [block.line for block in kept] == [3, 4, 5, 14]
    assert kept[0].picture == kept[1].picture, "the same content is stored once"
    assert [corpus.picture(block.picture) for block in kept] == [png(1), png(1), png(2), png(3)]
    assert len(list((tmp_path / "out" / "pictures").rglob("*.png"))) == 3
    written = json.loads((tmp_path / "out" / "import_report.json").read_text())
    assert written["pictures"] == report.pictures and written["documents"] == 1
    assert [(skip["file"], skip["reason"]) for skip in written["skipped_files"]] == [
        ("b/binary.md", "a binary file (ZIP), not text")
    ]
    listed = {
        problem["line"]: (problem["kind"], problem["file"], problem["reference"]) for problem in written["problems"]
    }
    assert listed[6] == ("missing", "a/one.md", "../../secret.png")
    assert listed[8] == ("broken", "a/one.md", "cut.png")
    assert {line: kind for line, (kind, _, _) in listed.items()} == {
        6: "missing",
        7: "missing",
        8: "broken",
        9: "unsupported",
        10: "remote",
        11: "remote",
        12: "unsupported",
        13: "missing",
        15: "broken",
        16: "missing",
        17: "missing",
    }
    assert "out of the imported tree" in next(row["reason"] for row in written["problems"] if row["line"] == 6)
    assert "15 picture references" in report.summary() and len(report.summary().splitlines()) <= 4


def test_a_text_that_no_parser_takes_is_skipped(tmp_path):
    odd = "<div>\n<![foo[ bar]]>\n</div>"  # html.parser asserts that there is none such, in some releases of Python
    report = import_markdown(make(tmp_path / "tree", {"odd.md": odd, "plain.md": "# Plain"}), tmp_path / "corpus")
    assert "plain" in {document.id for document in Corpus.open(tmp_path / "corpus").documents}
    try:
        parse_markdown(odd)
    except AssertionError as error:
        assert [(skipped.file, skipped.reason) for skipped in report.skipped_files] == [("odd.md", str(error))]


def test_a_picture_of_several_frames_from_a_phone_is_a_jpeg(tmp_path):
    written = io.BytesIO()
    frames = [Image.new("RGB", (8, 4), (shade, 0, 0)) for shade in (10, 20)]
    frames[0].save(written, "MPO", save_all=True, append_images=frames[1:])
    tree = make(tmp_path / "tree", {"a.md": "![](x.jpg)", "x.jpg": written.getvalue()})
    assert import_markdown(tree, tmp_path / "corpus").pictures["kept"] == 1
    corpus = Corpus.open(tmp_path / "corpus")
    (block,) = blocks_of(corpus, "a")
    assert corpus.picture_path(block.picture).suffix == ".jpg"


def test_links_out_of_the_tree_are_not_followed(tmp_path):
    root = make(
        tmp_path / "tree", {"d.md": "![](link.png) ![](folder/secret.png) ![](inner.png) ![](loop.png)", "x.png": png()}
    )
    make(tmp_path, {"out/secret.png": png(5), "out/secret.md": "# secret"})
    (root / "link.png").symlink_to(tmp_path / "out" / "secret.png")
    (root / "folder").symlink_to(tmp_path / "out")
    (root / "secret.md").symlink_to(tmp_path / "out" / "secret.md")
    (root / "inner.png").symlink_to(root / "x.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    report = import_markdown(root, tmp_path / "corpus")
    assert report.pictures | {"kept": 1, "missing": 3} == report.pictures
    assert [skipped.file for skipped in report.skipped_files] == ["secret.md"]


def test_a_pipe_is_not_waited_for(tmp_path):
    root = make(tmp_path / "tree", {"page.md": "# Page\n\n![](pipe.png)"})
    for name in ("pipe.md", "pipe.png"):
        os.mkfifo(root / name)
    report = import_markdown(root, tmp_path / "corpus")
    assert [skipped.file for skipped in report.skipped_files] == ["pipe.md"] and report.pictures["missing"] == 1


def test_site_rooted_paths(tmp_path):
    root = make(
        tmp_path / "tree",
        {
            "site/posts/p.md": "![](/pix/root.png)\n![](/pix/site.png)\n![](/pix/static.png)\n![](pix/static.png)",
            "pix/root.png": png(1),
            "site/pix/root.png": png(2),
            "site/pix/site.png": png(3),
            "static/pix/static.png": png(4),
        },
    )
    import_markdown(root, tmp_path / "out")
    corpus = Corpus.open(tmp_path / "out")
    kept = blocks_of(corpus, "site/posts/p")
    assert [corpus.picture(block.picture) for block in kept] == [png(1), png(3), png(4), png(4)]


def test_names_ids_groups_and_titles(tmp_path):
    root = make(
        tmp_path / "tree",
        {
            "lesson/en/step_10.md": "ten",
            "lesson/en/step_2.md": "## Two",
            "lesson/en/about.markdown": "---\ntitle: About us\n---\n# Other",
            "solo/step_1.md": "x",
            "b.md": "![](we%20ird%3F.png) ![](100%.png)",
            "b.markdown": "twin",
            "we ird?.png": png(),
            "100%.png": png(7),
        },
    )
    assert import_markdown(root, tmp_path / "out").pictures["kept"] == 2
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.name == "tree"
    assert [(d.id, d.title, d.group) for d in corpus.documents] == [
        ("b", "b", "b"),
        ("b.md", "b", "b.md"),
        ("lesson/en/about", "About us", "lesson/en/about"),
        ("lesson/en/step_2", "Two", "lesson/en"),
        ("lesson/en/step_10", "step_10", "lesson/en"),
        ("solo/step_1", "step_1", "solo/step_1"),
    ]
    assert corpus.document("b").source == "b.markdown"


def test_nothing_to_import_is_a_user_error(tmp_path):
    (tmp_path / "empty").mkdir()
    make(tmp_path / "plain", {"x.txt": "text"})
    for name in ("nowhere", "empty", "plain"):
        with pytest.raises(UserError, match=name):
            import_markdown(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def plain_count(root: Path) -> int:
    """References counted by regular expressions, with nothing of the importer's: code and comments taken out."""
    total = 0
    for file in root.rglob("*.md"):
        text = re.sub(r"<!--.*?-->", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        text = re.sub(r"^\s*(```+|~~~+).*?^\s*\1\s*$", "", text, flags=re.DOTALL | re.MULTILINE)
        text = re.sub(r"^--- code ---.*?^--- /code ---", "", text, flags=re.DOTALL | re.MULTILINE)
        text = re.sub(r"`[^`\n]+`", "", text)
        total += len(re.findall(r"!\[[^\]]*\](?:\(|\[)|<img\b", text))
    return total


FOLDERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("based-cooking", "image-processing")] + [
    "iot-for-beginners",
    "python-ecology",
    "rpi-balloons",
    "rpi-build-a-robot",
    "rpi-getting-started-with-picamera",
    "rpi-interactive-traffic-lights-python",
    "rpi-turtle-race",
]


@pytest.mark.parametrize("name", FOLDERS)
def test_real_documents(name, tmp_path):
    if not (SHARED / name).is_dir():
        pytest.skip(f"the real documents are not at {SHARED}")
    report = import_markdown(SHARED / name, tmp_path / "out")
    counts = report.pictures
    assert counts["references"] == plain_count(SHARED / name)
    assert counts["references"] == sum(counts[kind] for kind in ("kept", "missing", "broken", "unsupported", "remote"))
    assert report.documents == len(list((SHARED / name).rglob("*.md"))) and not report.skipped_files
    corpus = Corpus.open(tmp_path / "out")
    blocks = [(d, block) for d in corpus.documents for block in d.blocks if isinstance(block, PictureBlock)]
    assert len(blocks) == counts["kept"]
    for document, block in blocks:
        line = (SHARED / name / document.source).read_text(encoding="utf-8").splitlines()[block.line - 1]
        assert "![" in line or "<img" in line, f"{document.source}:{block.line}"
        assert corpus.picture(block.picture)
