"""Texts of many languages in the encodings that people keep them in, read back without being told which."""

import pytest

from m2io_jax.corpus.markdown import MarkdownSettings, import_markdown
from m2io_jax.corpus.store import Corpus
from m2io_jax.corpus.text_encoding import Undecodable, decode_text
from m2io_jax.errors import UserError

GERMAN = "# Pumpe öffnen\n\nDie Dichtung prüfen und den Deckel abnehmen. Größe beachten: 5 m³/h.\n"
FRENCH = "# Le café\n\nOuvrez le couvercle à l’aide d’une clé. Déjà vérifié.\n"
CHINESE = "# 水泵\n\n松开四个螺丝，然后取下盖子。\n\n- 清洁阀座\n"
TAIWANESE = "# 水泵\n\n鬆開四個螺絲，然後取下蓋子。\n"
JAPANESE = "# ポンプ\n\n四本のねじを緩めて、ふたを外します。\n"
KOREAN = "# 펌프\n\n나사 네 개를 풀고 덮개를 벗깁니다.\n"
RUSSIAN = "# Насос\n\nОткрутите четыре винта и снимите крышку.\n"
CZECH = "# Čerpadlo\n\nPovolte čtyři šrouby a sejměte víko. Příliš žluťoučký kůň.\n"
POLISH = "Zażółć gęślą jaźń. Odkręć cztery śruby i zdejmij pokrywę.\n"
GREEK = "# Αντλία\n\nΧαλαρώστε τις τέσσερις βίδες και αφαιρέστε το κάλυμμα.\n"

TEXTS = [
    (GERMAN, "cp1252", "windows-1252"),
    (FRENCH, "cp1252", "windows-1252"),
    ("café", "cp1252", "windows-1252"),
    (CHINESE, "gb18030", "gb18030"),
    ("# 标题\n", "gb18030", "gb18030"),
    (TAIWANESE, "big5", "big5"),
    (JAPANESE, "shift_jis", "shift-jis"),
    (JAPANESE, "euc_jp", "euc-jp"),
    (KOREAN, "euc_kr", "euc-kr"),
    (RUSSIAN, "koi8_r", "koi8-r"),
    (RUSSIAN, "cp1251", "windows-1251"),
    ("# Насос\n", "koi8_r", "koi8-r"),
    ("# Насос\n", "cp1251", "windows-1251"),
    (CZECH, "cp1250", "windows-1250"),
    (POLISH, "cp1250", "windows-1250"),
    (GREEK, "cp1253", "windows-1253"),
    (GERMAN, "utf-8", "utf-8"),
    (CHINESE, "utf-8-sig", "utf-8"),
    (GERMAN, "utf-16", "utf-16-le"),
    (CHINESE, "utf-16-le", "utf-16-le"),
    (CHINESE, "utf-16-be", "utf-16-be"),
    (GERMAN, "utf-16-be", "utf-16-be"),
    (GERMAN, "utf-32", "utf-32-le"),
    (CHINESE, "utf-32-le", "utf-32-le"),
    (RUSSIAN, "utf-32-be", "utf-32-be"),
]


@pytest.mark.parametrize("repeated", [1, 40])
@pytest.mark.parametrize("text, written, name", TEXTS)
def test_the_encoding_is_detected(text, written, name, repeated):
    found = decode_text((text * repeated).encode(written))
    assert (found.text, found.encoding) == (text * repeated, name)


@pytest.mark.parametrize("text, written", [(CHINESE, "utf-16-le"), (CHINESE, "utf-16-be"), (KOREAN, "utf-32-be")])
def test_a_byte_order_mark_is_no_text(text, written):
    assert decode_text(("\ufeff" + text).encode(written)).text == text


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG"),
        (b"PK\x03\x04 and text", "ZIP"),
        (b"%PDF-1.7\n", "PDF"),
        (bytes(range(256)) * 8, "binary"),
        (bytes(3001), "binary"),
        (b"plain text " + bytes(3), "binary"),
    ],
)
def test_a_binary_file_is_no_text(data, reason):
    with pytest.raises(Undecodable, match=reason):
        decode_text(data)


@pytest.mark.parametrize("cut", [1, 2])
def test_damaged_utf_8_is_taken_for_no_other_encoding(cut):
    text = CHINESE * 3
    found = decode_text(text.encode().replace("螺".encode(), "螺".encode()[:-cut], 1))
    assert found.encoding == "utf-8, damaged" and found.text.replace("\ufffd", "螺") == text


def test_a_named_encoding_is_taken_at_its_word():
    assert decode_text(JAPANESE.encode("iso2022_jp"), "iso2022_jp").text == JAPANESE
    assert decode_text("ж".encode("koi8_r"), "koi8_r").text == "ж"
    assert decode_text("\ufeffж".encode("utf-16-le"), "koi8_r").text == "ж", "a byte order mark still decides"
    assert decode_text(CHINESE.encode(), "gb18030").encoding == "utf-8", "a tree may hold both"
    with pytest.raises(Undecodable, match="gb18030"):
        decode_text(b"ab\xff", "gb18030")


@pytest.mark.parametrize("name", ["utf-9", "base64", "", "hex"])
def test_an_unknown_encoding_is_refused(name):
    with pytest.raises(UserError, match="encoding"):
        MarkdownSettings(encoding=name)


def test_a_tree_of_many_encodings(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.md").write_bytes(GERMAN.encode("utf-16"))
    (tree / "b.md").write_bytes(CHINESE.encode("gb18030"))
    (tree / "c.md").write_bytes(b"\x89PNG\r\n\x1a\n")
    report = import_markdown(tree, tmp_path / "out")
    assert [document.title for document in Corpus.open(tmp_path / "out").documents] == ["Pumpe öffnen", "水泵"]
    assert report.encodings == {"utf-16-le": 1, "gb18030": 1}
    assert [(skipped.file, skipped.reason) for skipped in report.skipped_files] == [
        ("c.md", "a binary file (PNG), not text")
    ]
    assert "1 file could not be read" in report.summary() and "1 file as gb18030" in report.summary()


def test_where_nothing_can_be_read_the_import_fails(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a.md", "b.md"):
        (tree / name).write_bytes(b"PK\x03\x04")
    (tree / "c.md").write_bytes(b"\x7fELF\x02")
    with pytest.raises(UserError) as caught:
        import_markdown(tree, tmp_path / "out")
    assert "none of the 3 Markdown files can be read" in str(caught.value)
    assert "a.md: a binary file (ZIP), not text" in str(caught.value) and "c.md: a binary file (ELF)" in str(
        caught.value
    )
    assert not (tmp_path / "out").exists()
    for name in ("a.md", "b.md"):
        (tree / name).unlink()
    with pytest.raises(UserError, match="the one Markdown file cannot be read"):
        import_markdown(tree, tmp_path / "out")


def test_counts_are_in_the_right_number(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.md").write_text("# A\n\n![](gone.png)")
    assert import_markdown(tree, tmp_path / "out").summary().startswith("1 document, 1 picture reference: 0 kept")
    (tree / "b.md").write_text("# B")
    (tree / "a.md").write_text("# A")
    assert import_markdown(tree, tmp_path / "out").summary() == "2 documents, 0 picture references: 0 kept"
