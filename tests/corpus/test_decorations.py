"""Icons, badges, logos, rules and images on many pages illustrate nothing; and captions that say nothing."""

import io
import random

import pytest
from PIL import Image

from m2io_jax.corpus.captions import says_nothing
from m2io_jax.corpus.decorations import Place, decoration_reason, typical_pages
from m2io_jax.corpus.documents import PictureBlock
from m2io_jax.corpus.markdown import import_markdown
from m2io_jax.corpus.page_keys import page_key
from m2io_jax.corpus.store import Corpus, document_to_json
from m2io_jax.episodes.building import EpisodeConfig, build_episodes
from m2io_jax.retrieval.passages import picture_places


def png(seed: int, size=(120, 90)) -> bytes:
    written = io.BytesIO()
    shade = random.Random(seed).randbytes(3)
    Image.new("RGB", size, tuple(shade)).save(written, "PNG")
    return written.getvalue()


def imported(tmp_path, files: dict[str, str | bytes]):
    for name, content in files.items():
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    report = import_markdown(tmp_path / "tree", tmp_path / "out")
    return report, Corpus.open(tmp_path / "out")


def decorated(corpus: Corpus) -> dict[str, list[bool]]:
    return {
        document.id: [bool(block.decoration) for block in document.blocks if isinstance(block, PictureBlock)]
        for document in corpus.documents
    }


ONE = [Place("page", "img/valve.png", "Valve")]


@pytest.mark.parametrize(
    "size, decoration",
    [
        ((32, 32), True),
        ((47, 47), True),
        ((1, 1), True),
        ((90, 20), True),
        ((800, 4), True),
        ((1200, 30), True),
        # Drawings, buttons and single lines of a screen are small too.
        ((48, 48), False),
        ((64, 48), False),
        ((36, 64), False),
        ((90, 28), False),
        ((210, 24), False),
        ((696, 40), False),
        ((150, 40), False),
        ((40, 800), False),
    ],
)
def test_sizes(size, decoration):
    assert bool(decoration_reason(*size, ONE, 1)) is decoration


@pytest.mark.parametrize(
    "address, caption, size, decoration",
    [
        ("img/logo.png", "", (300, 100), True),
        ("img/acme-logo-dark.png", "Acme", (400, 200), True),
        ("badges/build.png", "Build", (120, 40), True),
        ("icons/gear.png", "Gear", (64, 64), True),
        ("img/me.png", "Author's avatar", (96, 96), True),
        ("img/gear.png", "settings icon", (100, 100), True),
        ("img/logo.png", "", (1200, 800), False),
        ("icons/dialog.png", "The dialog", (400, 300), False),
        ("img/change-the-icon-of-a-page.png", "", (400, 300), False),
        ("img/logon.png", "Log on", (400, 300), False),
        ("img/valve.png", "The icon is on the valve", (100, 100), False),
    ],
)
def test_names(address, caption, size, decoration):
    assert bool(decoration_reason(*size, [Place("page", address, caption)], 1)) is decoration


@pytest.mark.parametrize(
    "on, pages, decoration",
    [(5, 12, True), (12, 12, True), (20, 500, True), (5, 51, False), (4, 4, False), (1, 1, False)],
)
def test_images_on_many_pages(on, pages, decoration):
    places = [Place(f"page{number}", "img/valve.png", "") for number in range(on)] * 2
    assert bool(decoration_reason(300, 200, places, pages)) is decoration


@pytest.mark.parametrize(
    "counts, on, decoration",
    [([70] * 8, 70, False), ([1, 1, 2, 70], 70, True), ([70, 70, 70], 70, True), ([20] * 5 + [70], 70, True)],
)
def test_repetition_tells_nothing_where_all_images_of_a_tree_are_repeated(counts, on, decoration):
    places = [Place(f"page {number}", "a.png", "") for number in range(on)]
    assert bool(decoration_reason(300, 200, places, 70, typical_pages(counts))) is decoration


@pytest.mark.parametrize(
    "path, key",
    [
        ("README.zh-CN.md", "readme.md"),
        ("translations/README.fr.md", "readme.md"),
        ("docs/pt-br/pump.md", "docs/pump.md"),
        ("i18n/de/docs/pump.md", "docs/pump.md"),
        ("pump_es.md", "pump.md"),
        ("versioned_docs/version-1.0/pump.md", "pump.md"),
        ("docs/v2/pump.md", "docs/pump.md"),
        ("docs/it-works.md", "docs/it-works.md"),
        ("docs/pump.md", "docs/pump.md"),
        ("fr.md", "fr.md"),
    ],
)
def test_translations_and_versions_are_one_page(path, key):
    assert page_key(path) == key


def pages(count: int, picture: str) -> dict[str, str | bytes]:
    texts = {
        f"board{number}.md": f"# Board {number}\n\nNumber {number}.\n\n![Gold]({picture})\n\nSold by {number}.\n"
        for number in range(count)
    }
    return texts | {picture: png(0)}


def test_an_image_on_a_dozen_pages_is_no_gold_and_no_candidate(tmp_path):
    report, corpus = imported(
        tmp_path, pages(12, "medal.png") | {"a.md": "# A\n\nOne lid.\n\n![Lid](lid.png)\n", "lid.png": png(1)}
    )
    assert decorated(corpus) == {"a": [False]} | {f"board{number}": [True] for number in range(12)}
    assert report.kept == 13 and [(each.reason, each.places) for each in report.decorations] == [
        ("on 12 of 13 pages", 12)
    ]
    assert report.as_json()["decorations"][0]["file"] == "board0.md" and "12 of the kept" in report.summary()
    assert [len(picture_places(document)) for document in corpus.documents] == [1] + 12 * [0]
    config = EpisodeConfig(train=1.0, validation=0.0, min_candidates=1, empty=0.9)
    episodes = list(build_episodes(corpus, None, config))
    (lid,) = [block.picture for block in corpus.document("a").blocks if isinstance(block, PictureBlock)]
    assert {candidate.picture for episode in episodes for candidate in episode.candidates} == {lid}


def test_an_image_of_all_translations_and_of_a_lesson_stays(tmp_path):
    texts = {
        f"docs/{code}/pump.md": "# Pump\n\nText.\n\n![](../../pump.png)"
        for code in "de en es fr it ja ko pt ru zh".split()
    }
    steps = {f"lesson/step_{number}.md": "# S\n\nText.\n\n![](../wires.png)" for number in range(9)}
    report, _ = imported(tmp_path, texts | steps | {"pump.png": png(0), "wires.png": png(1)})
    assert report.kept == 19 and not report.decorations


def test_only_decorations_are_marked_in_the_file(tmp_path):
    _, corpus = imported(tmp_path, pages(5, "medal.png") | {"a.md": "![](lid.png)", "lid.png": png(1)})
    (plain,) = document_to_json(corpus.document("a"))["blocks"]
    assert "decoration" not in plain
    assert "on 5 of 6 pages" in [
        block.get("decoration") for block in document_to_json(corpus.document("board0"))["blocks"]
    ]


EMPTY = [
    "image",
    "Image",
    "IMG_1234",
    "figure 3",
    "Fig. 2.1",
    "Screenshot",
    "Screen Shot 2024-01-31 at 10.00.00",
    "3",
    "...",
]
EMPTY += ["Pasted image 20240131", "alt text", "an image", "DSC00012", "clip_image002", "a1b2c3d4e5f6", "图 3"]
EMPTY += [
    "Bildschirmfoto 2024-01-31",
    "captura 2",
    "截图",
    "スクリーンショット 1",
    "рисунок 4",
    "Abbildung 7:",
    "lid.png",
    "untitled",
]
TELLING = [
    "Lid",
    "The lid",
    "Figure 3: the lid",
    "App GUI",
    "clip",
    "frame",
    "screen",
    "Screenshot of the editor",
    "Image of 8",
]
TELLING += [
    "水泵",
    "图 3 水泵",
    "√2",
    "Насос",
    "Raspberry Pi 4",
    "decade",
    "ESP32",
    "a cafe",
    "3 screws",
    "raspberry-pi-4-model-b",
]


@pytest.mark.parametrize("caption", EMPTY)
def test_captions_that_say_nothing(caption):
    assert says_nothing(caption, "img/x.png")


@pytest.mark.parametrize("caption", TELLING)
def test_captions_that_say_something(caption):
    assert not says_nothing(caption, "img/x.png")


def test_a_file_name_is_no_caption():
    assert says_nothing("pump-lid_2", "img/pump-lid_2.png?v=1")
    assert not says_nothing("lid", "img/lid.png") and not says_nothing("pump-lid", "img/a.png")


def test_a_caption_that_many_images_share_is_left_out(tmp_path):
    parts = {f"part{number}.png": png(number) for number in range(4)}
    text = "# Parts\n\n" + "\n\n".join(f"Part {name}.\n\n![App GUI]({name})" for name in parts)
    text += "\n\nText.\n\n![screenshot](a.png)\n\nText.\n\n![The lid](b.png)"
    report, corpus = imported(tmp_path, {"a.md": text, "a.png": png(7), "b.png": png(8)} | parts)
    captions = [block.caption for block in corpus.document("a").blocks if isinstance(block, PictureBlock)]
    assert captions == ["", "", "", "", "", "The lid"]
    listed = [(row["file"], row["line"], row["caption"]) for row in report.as_json()["empty_captions"]]
    assert listed == [("a.md", 5 + 4 * part, "App GUI") for part in range(4)] + [("a.md", 21, "screenshot")]
    assert "5 captions left out" in report.summary()


def test_a_caption_of_one_image_in_many_languages_stays(tmp_path):
    languages = "de en es fr it".split()
    files: dict[str, str | bytes] = {f"{code}/lid.png": png(number) for number, code in enumerate(languages)}
    report, _ = imported(
        tmp_path, files | {f"{code}/a.md": "# A\n\nText.\n\n![The lid](lid.png)" for code in languages}
    )
    assert report.kept == 5 and not report.empty_captions
