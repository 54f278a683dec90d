"""The same corpus bit for bit, by any number of workers, with a cache that is empty, full, damaged or shared."""

import io
import os
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m2io_jax.cli import _with
from m2io_jax.corpus import file_reader, import_cache
from m2io_jax.corpus.import_cache import FILE, ImportCache
from m2io_jax.corpus.markdown import MarkdownSettings, import_markdown
from m2io_jax.errors import UserError


def encoded(seed: int, format: str) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(noise).save(written, format)
    return written.getvalue()


def animation() -> bytes:
    frames = [Image.new("L", (60, 60), 0), Image.linear_gradient("L").resize((60, 60))]
    written = io.BytesIO()
    frames[0].save(written, "GIF", save_all=True, append_images=frames[1:])
    return written.getvalue()


@pytest.fixture
def tree(tmp_path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(6):
        text = (
            f"---\ntitle: Page {number}\n---\n# Head\n\nText é.\n\n![Noise](p{number}.png) ![](run.gif) ![](cut.png)\n"
        )
        (root / f"page{number}.md").write_text(text + "- item\n\n```\ncode\n```\n\n|a|b|\n|-|-|\n|c|d|\n")
        (root / f"p{number}.png").write_bytes(encoded(number, "PNG" if number % 2 else "JPEG"))
    (root / "run.gif").write_bytes(animation())
    (root / "cut.png").write_bytes(encoded(9, "PNG")[:200])
    (root / "old.md").write_bytes("# Größe\n\nöffnen".encode("cp1252"))
    (root / "binary.md").write_bytes(b"PK\x03\x04")
    return root


def corpus(tree: Path, out: Path, **settings) -> dict[str, bytes]:
    import_markdown(tree, out, settings=MarkdownSettings(**settings))
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


def count_reads(monkeypatch) -> list[str]:
    """The files that are read anew from now on."""
    read: list[str] = []
    reply = file_reader.reply
    monkeypatch.setattr(file_reader, "reply", lambda request: read.append(request["path"]) or reply(request))
    return read


def test_workers_and_cache_change_nothing(tree, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    plain = corpus(tree, tmp_path / "plain", workers=1, cache="none")
    # Six pictures, a still of the animation, documents, questions, the report and the manifest.
    assert len(plain) == 11
    monkeypatch.setattr(file_reader, "WORTH_FILES", 0)
    assert corpus(tree, tmp_path / "workers", workers=2, cache=cache) == plain
    assert corpus(tree, tmp_path / "cached", workers=2, cache=cache) == plain
    assert corpus(tree, tmp_path / "again", workers=1, cache=cache) == plain


def test_a_second_import_reads_nothing_anew(tree, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    first = corpus(tree, tmp_path / "first", workers=1, cache=cache)
    read = count_reads(monkeypatch)
    assert corpus(tree, tmp_path / "second", workers=1, cache=cache) == first and read == []
    (tree / "page0.md").write_text("# Other")
    os.utime(tree / "page1.md")
    corpus(tree, tmp_path / "third", workers=1, cache=cache)
    assert read == ["page0.md"], "what counts is the content"
    corpus(tree, tmp_path / "fourth", workers=1, cache=cache, encoding="cp1252")
    assert set(read[1:]) == {path.name for path in tree.glob("*.md")}, "and the settings"


def test_files_of_one_content_are_read_once(tree, tmp_path, monkeypatch):
    for name in ("copy1.md", "copy2.md"):
        (tree / name).write_bytes((tree / "page0.md").read_bytes())
    read = count_reads(monkeypatch)
    written = corpus(tree, tmp_path / "out", workers=1, cache="none")
    assert len([path for path in read if path in ("page0.md", "copy1.md", "copy2.md")]) == 1
    assert written["documents.jsonl"].count(b'"title": "Page 0"') == 3


def test_a_new_version_of_the_importer_reads_anew(tree, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    corpus(tree, tmp_path / "first", workers=1, cache=cache)
    monkeypatch.setattr(import_cache, "reader_version", lambda: "another")
    read = count_reads(monkeypatch)
    corpus(tree, tmp_path / "second", workers=1, cache=cache)
    assert "page0.md" in read and "p0.png" in read


def damage_all(file: Path) -> None:
    file.write_bytes(b"no database" * 100)


def damage_half(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    file.write_bytes(bytes(data))


def damage_values(file: Path) -> None:
    with sqlite3.connect(file) as rows:
        rows.execute("UPDATE entries SET value = substr(value, 1, 16) || zeroblob(40)")


def exchange_values(file: Path) -> None:
    with sqlite3.connect(file) as rows:
        rows.execute("UPDATE entries SET value = (SELECT value FROM entries LIMIT 1)")


@pytest.mark.parametrize("damage", [damage_all, damage_half, damage_values, exchange_values])
def test_a_damaged_cache_is_only_a_slow_one(tree, tmp_path, damage, monkeypatch):
    cache = tmp_path / "cache"
    first = corpus(tree, tmp_path / "first", workers=1, cache=str(cache))
    damage(cache / FILE)
    assert corpus(tree, tmp_path / "second", workers=1, cache=str(cache)) == first
    corpus(tree, tmp_path / "third", workers=1, cache=str(cache))
    read = count_reads(monkeypatch)
    assert corpus(tree, tmp_path / "fourth", workers=1, cache=str(cache)) == first and read == []


def test_a_cache_that_cannot_be_written_is_none(tree, tmp_path):
    (tmp_path / "file").write_text("no folder")
    first = corpus(tree, tmp_path / "first", workers=1, cache="none")
    assert corpus(tree, tmp_path / "second", workers=1, cache=str(tmp_path / "file")) == first


def test_two_imports_at_once_share_a_cache(tree, tmp_path):
    first = corpus(tree, tmp_path / "first", workers=1, cache="none")
    found: dict[int, dict] = {}

    def run(number: int) -> None:
        found[number] = corpus(tree, tmp_path / f"out{number}", workers=1, cache=str(tmp_path / "cache"))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] == first for number in range(4)] == 4 * [True]


def test_the_cache_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(import_cache, "MAX_BYTES", 20_000)
    cache = ImportCache(tmp_path)
    for number in range(50):
        monkeypatch.setattr(import_cache.time, "time", lambda number=number: 1e9 + number)
        cache.save({f"key{number}": {"value": np.random.default_rng(number).bytes(500).hex()}})
    kept = cache.load([f"key{number}" for number in range(50)])
    assert "key49" in kept and "key0" not in kept
    assert sum(len(each["value"]) for each in kept.values()) < 2 * 20_000
    monkeypatch.setattr(import_cache, "MAX_ENTRY_BYTES", 100)
    cache.save({"large": {"value": np.random.default_rng(0).bytes(500).hex()}})
    assert cache.load(["large"]) == {}


def test_a_file_that_its_reader_does_not_survive_is_listed(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(file_reader, "WORTH_FILES", 0)
    command = "import sys\nprint('\"ready\"', flush=True)\nfor line in sys.stdin:\n sys.exit(3)"
    monkeypatch.setattr(file_reader, "WORKER", (file_reader.sys.executable, "-c", command))
    with pytest.raises(UserError, match="the program that reads it ends"):
        import_markdown(tree, tmp_path / "out", settings=MarkdownSettings(workers=2, cache=str(tmp_path / "cache")))
    assert not (tmp_path / "cache" / FILE).exists(), "a failure is not remembered"


@pytest.mark.parametrize("setting", ["workers=-1", "workers=5000", "workers=two", "encoding=none-such", "colour=red"])
def test_settings_are_checked(setting):
    with pytest.raises(UserError):
        _with(MarkdownSettings(), [setting], "corpus import markdown")


def test_settings_of_the_command_line():
    settings = _with(MarkdownSettings(), ["encoding=gb18030", "workers=3", "cache=none"], "corpus import markdown")
    assert settings == MarkdownSettings("gb18030", 3, "none") and settings.cache_folder() is None
    assert MarkdownSettings(cache="kept/here").cache_folder() == Path("kept/here")
    assert MarkdownSettings().cache_folder().name == "m2io_jax"


@pytest.mark.parametrize(
    "forged",
    [
        {"title": "x", "encoding": "utf-8", "pieces": [["TextBlock", 1, 1, "paragraph", 0]]},
        {"title": "x", "encoding": "utf-8", "pieces": [["Popen", "ls"]]},
        {"extension": "/../../../evil", "hash": "0", "width": 1, "height": 1},
        ["no", "dictionary"],
    ],
)
def test_a_forged_entry_is_not_taken(tree, tmp_path, monkeypatch, forged):
    settings = {"workers": 1, "cache": str(tmp_path / "cache")}
    first = corpus(tree, tmp_path / "first", **settings)
    with sqlite3.connect(tmp_path / "cache" / FILE) as entries:
        for (key,) in entries.execute("SELECT key FROM entries").fetchall():
            entries.execute("UPDATE entries SET value = ? WHERE key = ?", (import_cache._pack(forged, key), key))
    assert corpus(tree, tmp_path / "second", **settings) == first


def test_an_entry_that_grows_without_bound_is_not_unpacked(tmp_path, monkeypatch):
    cache = ImportCache(tmp_path)
    cache.save({"key": "0" * 10_000})
    assert cache.load(["key"])
    monkeypatch.setattr(import_cache, "MAX_VALUE_BYTES", 5_000)
    assert cache.load(["key"]) == {}


def test_a_large_text_is_read_where_time_is_limited(tmp_path, monkeypatch):
    command = "import sys\nprint('\"ready\"', flush=True)\nfor line in sys.stdin:\n sys.exit(3)"
    monkeypatch.setattr(file_reader, "WORKER", (file_reader.sys.executable, "-c", command))
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.md").write_text("a\n\n" * 60_000)
    with pytest.raises(UserError, match="the program that reads it ends"):
        import_markdown(tmp_path / "tree", tmp_path / "out", settings=MarkdownSettings(workers=1, cache="none"))
