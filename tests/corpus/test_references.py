"""Addresses of pictures as authors, site generators, forges and other file systems write them."""

import unicodedata
from pathlib import Path

import pytest

from m2io_jax.corpus.references import Resolver, Unresolved, resolve
from m2io_jax.corpus.tree_index import TreeIndex


def tree(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def resolver(root: Path) -> Resolver:
    return Resolver(TreeIndex(root.resolve()), (".md",))


def found(root: Path, address: str, document: str) -> str:
    try:
        return resolver(root).resolve(address, document).path
    except Unresolved as error:
        return f"{error.kind}: {error.reason}"


GONE, OUT, REMOTE = (
    "missing: no such file",
    "missing: leads out of the imported tree",
    "remote: remote pictures are not fetched",
)

SEVERAL = "missing: 2 files have this name, and none is nearest"

# address, document, files of the tree (the first is the right one where there is one), what is found
SERVED = [
    ("a.png", "content/docs/page.md", ["content/docs/page/a.png"], 0),
    ("../a.png", "content/docs/page.md", ["content/docs/a.png"], 0),
    ("../../img/a.png", "docs/guide/page.md", ["docs/img/a.png"], 0),
    ("img/a.png", "docs/pump.md", ["docs/pump/img/a.png"], 0),
    ("../a.png", "page.md", ["a.png"], 0),
    # What is exact comes before what the site would serve.
    ("a.png", "docs/page.md", ["docs/a.png", "docs/page/a.png"], 0),
    ("../a.png", "docs/guide/page.md", ["docs/a.png", "docs/guide/a.png"], 0),
    # index.md and README.md are served as their folder itself.
    ("../a.png", "docs/index.md", ["docs/a.png"], GONE),
    ("../../../a.png", "docs/page.md", ["a.png"], OUT),
]
STATIC = [
    ("/img/a.png", "docs/guide/page.md", ["docs/public/img/a.png"], 0),
    ("/img/a.png", "docs/page.md", ["docs/.vuepress/public/img/a.png"], 0),
    ("/img/a.png", "docs/a/b/page.md", ["docs/.vitepress/public/img/a.png"], 0),
    ("/img/a.png", "docs/page.md", ["website/static/img/a.png"], 0),
    ("/img/a.png", "manual/site/content/en/page.md", ["manual/site/static/img/a.png"], 0),
    ("img/a.png", "site/content/page.md", ["site/assets/img/a.png"], 0),
    ("/img/a.png", "docs/page.md", ["docs/public/img/a.png", "public/img/a.png"], 0),
    ("/img/a.png", "docs/page.md", ["img/a.png", "docs/public/img/a.png"], 0),
    ("@site/static/img/a.png", "website/docs/page.md", ["website/static/img/a.png"], 0),
    ("@site/static/img/a.png", "docs/page.md", ["static/img/a.png"], 0),
    ("@/assets/a.png", "src/pages/page.md", ["src/assets/a.png"], 0),
    ("~@/assets/a.png", "docs/page.md", ["docs/assets/a.png"], 0),
    ("~/assets/a.png", "docs/page.md", ["assets/a.png"], 0),
    ("pathname:///img/a.png", "docs/page.md", ["static/img/a.png"], 0),
    ("$withBase('/img/a.png')", "docs/page.md", ["docs/.vuepress/public/img/a.png"], 0),
    ("useBaseUrl('/img/a.png')", "docs/page.md", ["static/img/a.png"], 0),
    # Below a base path, which only the site's settings know.
    ("/project/img/a.png", "docs/page.md", ["docs/public/img/a.png"], 0),
    ("/project/a.png", "docs/page.md", ["static/a.png"], 0),
    ("/img/a.png", "docs/page.md", ["other/static/img/b.png"], GONE),
]
NAMES = [
    ("img/A.PNG", "docs/page.md", ["docs/img/a.png"], 0),
    ("Img/a.png", "docs/page.md", ["docs/img/a.png"], 0),
    ("img/a.png", "docs/page.md", ["docs/img/a.png", "docs/img/A.png"], 0),
    ("img/A.PNG", "docs/page.md", ["docs/img/a.png", "docs/img/A.png"], SEVERAL),
    (unicodedata.normalize("NFD", "img/Gerät.png"), "page.md", [unicodedata.normalize("NFC", "img/Gerät.png")], 0),
    (unicodedata.normalize("NFC", "img/Gerät.png"), "page.md", [unicodedata.normalize("NFD", "img/Gerät.png")], 0),
    ("img/Ger%C3%A4t.png", "page.md", [unicodedata.normalize("NFD", "img/gerät.png")], 0),
    ("img/Ger%E4t.png", "page.md", ["img/Gerät.png"], 0),
    ("img/a%20b.png", "page.md", ["img/a b.png"], 0),
    ("img/a%2520b.png", "page.md", ["img/a b.png"], 0),
    ("img/a+b.png", "page.md", ["img/a b.png"], 0),
    ("img/a+b.png", "page.md", ["img/a+b.png", "img/a b.png"], 0),
    ("img\\a.png", "page.md", ["img/a.png"], 0),
    ("img/a.png?v=1#top", "page.md", ["img/a.png"], 0),
    ("img/a.png =300x200", "page.md", ["img/a.png"], 0),
    ("img/a.*", "docs/page.md", ["docs/img/a.png", "docs/img/a.svg", "docs/img/a.pdf"], 0),
    ("img/a.*", "docs/page.md", ["docs/img/a.jpg"], 0),
    ("img/a", "docs/page.md", ["docs/img/a.webp", "docs/img/a.md"], 0),
    ("img/a.*", "docs/page.md", ["docs/img/ab.png"], GONE),
    ("img/*", "docs/page.md", ["docs/img/a.png"], GONE),
]
REPOSITORY = [
    ("../blob/main/docs/img/a.png", "docs/page.md", ["docs/img/a.png"], 0),
    ("../../raw/main/img/a.png", "docs/guide/page.md", ["img/a.png"], 0),
    ("/acme/pump/blob/main/img/a.png?raw=true", "page.md", ["img/a.png"], 0),
    ("/-/raw/main/img/a.png", "page.md", ["img/a.png"], 0),
    ("https://raw.githubusercontent.com/acme/pump/main/docs/img/a.png", "docs/page.md", ["docs/img/a.png"], 0),
    ("https://raw.githubusercontent.com/acme/pump/refs/heads/main/img/a%20b.png", "page.md", ["img/a b.png"], 0),
    ("https://github.com/acme/pump/blob/v1/img/a.png?raw=true", "docs/page.md", ["img/a.png"], 0),
    ("https://github.com/acme/pump/raw/main/img/a.png", "docs/page.md", ["img/a.png"], 0),
    ("https://gitlab.com/acme/sub/pump/-/raw/main/img/a.png?inline=false", "page.md", ["img/a.png"], 0),
    ("https://cdn.jsdelivr.net/gh/acme/pump@main/img/a.png", "page.md", ["img/a.png"], 0),
    ("https://codeberg.org/acme/pump/raw/branch/main/img/a.png", "page.md", ["img/a.png"], 0),
    # Of an unknown repository a name alone is no sign, and a web page of any site is none.
    ("https://raw.githubusercontent.com/acme/pump/main/a.png", "page.md", ["a.png"], REMOTE),
    ("https://example.org/img/a.png", "page.md", ["img/a.png"], REMOTE),
    ("https://raw.githubusercontent.com/acme/pump/main/../img/a.png", "page.md", ["img/a.png"], REMOTE),
    ("https://example.org/a/b/src/main/img/a.png", "page.md", ["img/a.png"], REMOTE),
    ("https://[bad/img/a.png", "page.md", ["img/a.png"], REMOTE),
]
ELSEWHERE = [
    ("a.png", "docs/page.md", ["Attachments/a.png"], 0),
    ("a.png", "docs/page.md", ["docs/attachments/a.png", "Attachments/a.png"], 0),
    ("a.png", "notes/x/page.md", ["notes/pool/a.png", "other/pool/a.png"], 0),
    ("a.png", "page.md", ["x/a.png", "y/a.png"], SEVERAL),
    # A picture beside other pages is theirs, except in a vault.
    ("a.png", "one/page.md", ["two/a.png", "two/page.md"], GONE),
    ("img/a.png", "one/page.md", ["two/img/a.png", "two/page.md"], GONE),
    ("a.png", "one/page.md", ["two/images/a.png", "two/page.md"], GONE),
    ("a.png", "one/page.md", ["two/a.png", "two/page.md", ".obsidian/app.json"], 0),
    ("a.png", "one/page.md", ["pool/img/a.png", "two/page.md", "README.md"], 0),
    ("../a.png", "one/page.md", ["pool/a.png"], GONE),
    ("/a.png", "one/page.md", ["pool/a.png"], GONE),
]


@pytest.mark.parametrize("address, document, files, expected", SERVED + STATIC + NAMES + REPOSITORY + ELSEWHERE)
def test_what_an_address_means(tmp_path, address, document, files, expected):
    root = tree(tmp_path / "imported", document, *files)
    assert found(root, address, document) == (files[expected] if isinstance(expected, int) else expected)


def test_only_the_own_repository_is_looked_into_where_it_is_known(tmp_path):
    root = tree(tmp_path / "imported", "page.md", "img/a.png", "a.png")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text('[remote "origin"]\n\turl = git@github.com:acme/pump.git\n')
    assert found(root, "https://raw.githubusercontent.com/me/Pump/main/a.png", "page.md") == "a.png", "a fork's"
    assert found(root, "https://github.com/acme/pump/blob/feature/x/img/a.png", "page.md") == "img/a.png"
    assert found(root, "https://raw.githubusercontent.com/acme/other/main/img/a.png", "page.md") == REMOTE


def test_a_folder_of_the_repository_may_be_the_tree(tmp_path):
    root = tree(tmp_path / "docs", "page.md", "img/a.png")
    assert found(root, "https://github.com/acme/pump/blob/main/docs/img/a.png", "page.md") == "img/a.png"
    assert found(root, "../blob/main/docs/img/a.png", "page.md") == "img/a.png"


def test_links_stay_in_the_tree(tmp_path):
    root = tree(tmp_path / "imported", "page.md", "real/img/a.png")
    tree(tmp_path, "secret/img/a.png", "secret/b.png")
    (root / "linked").symlink_to(root / "real")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "b.png").symlink_to(tmp_path / "secret" / "b.png")
    (root / "loop").symlink_to(root / "loop")
    (root / "round").symlink_to(root)
    assert found(root, "linked/img/a.png", "page.md") == "real/img/a.png"
    assert found(root, "round/round/linked/img/a.png", "page.md") == "real/img/a.png"
    assert found(root, "out/b.png", "page.md") == OUT
    assert found(root, "b.png", "page.md") == OUT
    assert found(root, "B.PNG", "page.md") == GONE
    assert found(root, "loop/a.png", "page.md") == GONE
    assert found(root, "out/../../secret/b.png", "page.md") == OUT


@pytest.mark.parametrize(
    "address",
    [
        "",
        " ",
        ".",
        "..",
        "/",
        "//",
        "///",
        "\\",
        "a\0b.png",
        "x" * 100_000,
        "../" * 5000 + "a.png",
        "a" + " " * 200_000 + "=",
        "https://e.org/" + "blob/" * 50_000,
        "a" + " " * 4000 + "=",
        "%",
        "%00",
        "~",
        "@/",
        "*",
    ]
    + ["a/" * 5000, "/blob/" * 3000, "?", "#", "a.png" + "?" * 5000, "$withBase('')", ".*", "a:b", "https://", "~@/"],
)
def test_no_address_is_too_odd(tmp_path, address):
    root = tree(tmp_path / "imported", "docs/page.md", "img/a.png")
    with pytest.raises(Unresolved):
        resolver(root).resolve(address, "docs/page.md")


def test_guesses_cost_no_looks_at_the_disk(tmp_path, monkeypatch):
    root = tree(tmp_path / "imported", "docs/page.md", "static/img/a.png")
    looking = resolver(root)

    def refuse(*_, **__):
        raise AssertionError("looked at the disk")

    for name in ("is_file", "stat", "resolve", "exists"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr("os.stat", refuse)
    assert looking.resolve("/img/a.png", "docs/page.md").rule == "folder of served files"
    with pytest.raises(Unresolved):
        looking.resolve("/img/b.png", "docs/page.md")


def test_rows_of_data_sets_are_resolved_without_guesses(tmp_path):
    root = tree(tmp_path / "imported", "rows/a.jsonl", "rows/img/a.png", "static/b.png", "rows/a/c.png").resolve()
    document = root / "rows" / "a.jsonl"
    assert resolve("img/a.png?x", document, root) == root / "rows/img/a.png"
    assert resolve("b.png", document, root) == root / "static/b.png"
    for address, kind in {
        "c.png": "missing",
        "IMG/a.png": "missing",
        "../../x.png": "missing",
        "https://e.org": "remote",
    }.items():
        with pytest.raises(Unresolved) as caught:
            resolve(address, document, root)
        assert caught.value.kind == kind
