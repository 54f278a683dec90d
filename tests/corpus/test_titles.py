"""Titles: from front matter in three languages, from the main heading, or from the file's or folder's name."""

import pytest

from m2io_jax.corpus.documents import TextBlock
from m2io_jax.corpus.markdown import import_markdown
from m2io_jax.corpus.markdown_blocks import parse_markdown
from m2io_jax.corpus.store import Corpus
from m2io_jax.corpus.titles import page_title

MATTERS = {
    "toml": ('+++\ntitle = "Pump"\ndate = 2024-01-01\n+++\n', "Pump"),
    "toml, single quotes and tables": ("+++\n# who\ntitle = 'Pump'\n[extra]\nimage = \"a.png\"\n+++\n", "Pump"),
    "toml that is none": ("+++\ntitle = Pump: the book\nx = =\n+++\n", "Pump: the book"),
    "toml without title": ("+++\ndraft = true\n+++\n", "Head"),
    "toml over several lines": ('+++\ntitle = """\nPump and\nseal"""\n+++\n', "Pump and seal"),
    "empty toml": ("+++\n+++\n", "Head"),
    "yaml": ("---\ntitle: Pump\ncover: a.png\n---\n", "Pump"),
    "toml between dashes": ('---toml\ntitle = "Pump"\n---\n', "Pump"),
    "json": ('{\n  "title": "Pump",\n  "tags": {"a": ["b"]}\n}\n', "Pump"),
    "json between semicolons": (';;;\n{"title": "Pump"}\n;;;\n', "Pump"),
    "json between dashes": ('---json\n{"title": "Pump"}\n---\n', "Pump"),
    "json with half a surrogate": ('{"title": "a\\ud800b"}\n', "a?b"),
}


@pytest.mark.parametrize("name", MATTERS)
def test_front_matter_gives_the_title_and_is_not_shown(name):
    matter, title = MATTERS[name]
    page = parse_markdown(matter + "# Head\n\nText.\n")
    assert page.title == title
    first = matter.count("\n") + 1
    assert [(piece.text, piece.line) for piece in page.pieces] == [("Head", first), ("Text.", first + 2)]


@pytest.mark.parametrize(
    "text",
    ["+++\nA block of text.\n+++\n", '{"title": "x"', "{{< note >}}\n", "{ braces } in text\n", ";;;\nno\n;;;\n"],
)
def test_what_only_looks_like_front_matter_stays_text(text):
    assert parse_markdown(text).title == ""


@pytest.mark.parametrize(
    "text", ["+++\n" * 20_000, "{" * 100_000, '{"a":' * 20_000, ";;;\n{" * 20_000, "---toml\n" * 9000]
)
def test_odd_front_matter_takes_no_time(text):
    assert parse_markdown(text).title == ""


TITLES = [
    # A page without a heading of level 1 is named by its file.
    (
        "Yearly check.\n\n## Open the lid\n\nLoosen.\n\n## Clean the seat\n\nWipe.",
        "Pump maintenance.md",
        "Pump maintenance",
    ),
    ("## Open the lid\n\nLoosen.\n\n## Clean the seat\n\nWipe.", "pump.md", "pump"),
    ("## Open the lid\n\nLoosen.", "Pump maintenance.md", "Pump maintenance"),
    ("Text.", "wiki/Pump-maintenance.md", "Pump maintenance"),
    ("Text.", "wiki/Pump_maintenance.md", "Pump maintenance"),
    ("Text.", "2024-01-31-change-the-seal.md", "change the seal"),
    ("Text.\n\n# One\n\n# Two", "Notes.md", "Notes"),
    # A heading that names the page.
    ("# Pump\n\nText.", "x.md", "Pump"),
    ("![logo](a.png)\n\n# Pump\n\n# Seal", "x.md", "Pump"),
    ("Text.\n\n# Pump\n\n## Seal", "x.md", "Pump"),
    ("Pump\n====\n\nText.", "x.md", "Pump"),
    ("<h1 align='center'>Pump <i>A</i></h1>\n\nText.", "x.md", "Pump A"),
    ("## Pump\n\n### Seal", "x.md", "Pump"),
    ("## Introduction\n\n## Next", "lesson/step_1.md", "Introduction"),
    ("Text first.\n\n## Seal", "lesson/03.md", "Seal"),
    # Code is no heading.
    ("```\n# not a title\n```\n", "x.md", "x"),
    ("    # not a title\n", "x.md", "x"),
    # A page that stands for its folder.
    ("Text.", "docs/pump/README.md", "pump"),
    ("## Install\n\n## Use", "docs/heat-pump/index.md", "heat pump"),
    ("Text.", "docs/pump/README.zh-CN.md", "pump"),
    ("Text.", "docs/pump/_index.en.md", "pump"),
    ("Text.", "README.md", "manual"),
    ("# Pump", "docs/README.md", "Pump"),
]


@pytest.mark.parametrize("text, path, title", TITLES)
def test_titles_without_front_matter(text, path, title):
    page = parse_markdown(text)
    assert (page.title or page_title(page.pieces, path, "manual")) == title


def test_titles_of_an_imported_vault(tmp_path):
    vault = tmp_path / "vault"
    vault.mkdir()
    (vault / "Pump maintenance.md").write_text("Yearly.\n\n## Open the lid\n\nLoosen.\n\n## Clean the seat\n\nWipe.\n")
    (vault / "README.md").write_text("Text.\n")
    (vault / "seal.md").write_text('+++\ntitle = "Seal"\n+++\n\nText one.\n')
    import_markdown(vault, tmp_path / "out")
    corpus = Corpus.open(tmp_path / "out")
    assert {d.id: d.title for d in corpus.documents} == {
        "Pump maintenance": "Pump maintenance",
        "README": "vault",
        "seal": "Seal",
    }
    assert corpus.document("seal").blocks == (TextBlock("Text one.", 5),)
