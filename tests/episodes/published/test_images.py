"""Images of rows: base64 in every form, lists of bytes, and files that only the set's own folders may hold."""

import base64
import json
import os

import pytest
from row_fakes import bad_row, image, read_all, read_row, shades, write_images, write_lines

from m2io_jax.episodes.published import images
from m2io_jax.episodes.published.draft import BadRow
from m2io_jax.episodes.published.images import decode_data, is_base64, looks_like_image

BARE = base64.b64encode(image(40)).decode()
# The alphabets differ in two signs only: these bytes have both.
ODD = image(40) + bytes(range(256))
URL_SAFE = base64.urlsafe_b64encode(ODD).decode()
assert "-" in URL_SAFE and "_" in URL_SAFE


@pytest.mark.parametrize(
    "source",
    [
        BARE,
        f"data:image/png;base64,{BARE}",
        f"data:image/png;charset=utf-8;base64,{BARE}",
        f"data:image;base64,{BARE}",
        f"data:;base64,{BARE}",
        f"DATA:image/png;BASE64,{BARE}",
        f"image/png;base64,{BARE}",
        f"base64,{BARE}",
        f"base64://{BARE}",
        "\n".join(BARE[start : start + 76] for start in range(0, len(BARE), 76)),
        f"  {BARE}\n",
        BARE.rstrip("="),
        URL_SAFE,
        URL_SAFE.rstrip("="),
        "data:image/png;base64," + BARE.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in image(40)),
        {"bytes": BARE, "path": None},
        {"bytes": f"data:image/png;base64,{BARE}"},
        {"url": f"data:image/png;base64,{BARE}"},
        {"type": "base64", "media_type": "image/png", "data": BARE},
        {"bytes": list(image(40))},
        list(image(40)),
    ],
)
def test_an_image_that_lies_in_the_row(tmp_path, source):
    for row in ({"image": source}, {"images": [source]}):
        assert shades(read_row(tmp_path, {"problem": "<image>How many?", "answer": "3"} | row)) == [40]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_base64_of_each_format_is_known_by_its_first_bytes(kind):
    assert is_base64(base64.b64encode(image(40, kind, (40, 40))).decode())


@pytest.mark.parametrize("text", ["images/abcdefghijklmnopqrstuvwxyz0123", "Qk0x" * 40, "a" * 64, "iVBORw0KGgo.png"])
def test_other_words_are_no_base64(text):
    assert not is_base64(text)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("data:image/png;base64,%%%", "a picture in broken base64"),
        ("data:image/png;base64,A", "a picture in broken base64"),
        (BARE[:60] + "!" + BARE[60:], "a picture that is missing"),
        ({"bytes": BARE[:60] + "!" + BARE[60:]}, "a picture in broken base64"),
        ({"bytes": BARE[: len(BARE) // 2]}, "a picture that is broken"),
        ("data:text/plain;base64,aGVsbG8=", "a picture that is broken"),
        ("data:image/png;base64,", "a picture that is broken"),
        ("A" * 5000, "a picture without an address"),
        ({"bytes": {"bytes": {"bytes": {"bytes": {"bytes": BARE}}}}}, "a picture without an address"),
        ([256] * 40, "a picture without an address"),
    ],
)
def test_a_damaged_image_is_a_bad_row(tmp_path, source, reason):
    row = {"problem": "<image>How many?", "answer": "3", "image": source}
    assert bad_row(tmp_path, row) == reason


def test_base64_is_bounded_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(images, "MOST_CHARACTERS", 100)
    with pytest.raises(BadRow, match="broken"):
        decode_data("data:;base64," + "A" * 101)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (image(1), True),
        ({"bytes": image(1), "path": None}, True),
        ({"array": image(1)}, True),
        (["x/y.webp"], True),
        ("C:\\x\\y.jpeg", True),
        ([BARE], True),
        ("y.png?size=3", True),
        ("a text about y.png\nand more", False),
        ("see y.png for it", False),
        ("train", False),
        (b"text", False),
        ({"style": "rule"}, False),
        ([1, 2, 3], False),
        (None, False),
    ],
)
def test_what_looks_like_an_image(value, expected):
    assert looks_like_image(value) is expected


def test_files_are_found_beside_the_rows_and_above_up_to_the_root(tmp_path):
    root = tmp_path / "set"
    write_images(root / "images")
    write_images(tmp_path / "outside")
    rows = [{"problem": f"Q{n}", "answer": "3", "image": name} for n, name in enumerate(
        ("images/a.png", "./images/b.png", "images\\c.png", "../../outside/a.png", "../images/../../outside/a.png")
    )]  # fmt: skip
    write_lines(root / "data" / "deep" / "rows.jsonl", *rows)
    report, found = read_all(root)
    assert [shades(found[number]) for number in (1, 2, 3)] == [[10], [20], [30]]
    assert report.bad == {"a picture that is missing": 2}


def cache(tmp_path):
    """A set in the layout of huggingface_hub's cache: files are links into `blobs`."""
    repository = tmp_path / "hub" / "datasets--x--set"
    snapshot = repository / "snapshots" / "abc"
    (snapshot / "images").mkdir(parents=True)
    (repository / "blobs").mkdir()
    rows = write_lines(tmp_path / "rows", *({"problem": "Q", "answer": "3", "image": "images/a.png"},) * 2)
    for blob, data, name in (("0f", rows.read_bytes(), "train.jsonl"), ("1e", image(40), "images/a.png")):
        (repository / "blobs" / blob).write_bytes(data)
        link = snapshot / name
        link.symlink_to(os.path.relpath(repository / "blobs" / blob, link.parent))
    return snapshot


def test_a_snapshot_of_a_cache_is_read_with_its_images(tmp_path):
    snapshot = cache(tmp_path)
    for source in (snapshot, snapshot / "train.jsonl", snapshot.parents[1]):
        report, found = read_all(source)
        assert [shades(row) for row in found.values()] == [[40], [40]] and not report.unread


def test_a_part_of_a_snapshot_finds_the_images_of_the_whole(tmp_path):
    snapshot = cache(tmp_path)
    (snapshot / "data").mkdir()
    (snapshot / "data" / "train.jsonl").symlink_to(os.path.join("..", os.readlink(snapshot / "train.jsonl")))
    for source in (snapshot / "data", snapshot / "data" / "train.jsonl"):
        report, found = read_all(source)
        assert [shades(row) for row in found.values()] == [[40], [40]] and not report.bad


def test_links_that_were_written_as_text_are_followed_too(tmp_path):
    snapshot = cache(tmp_path)
    for link in [path for path in snapshot.rglob("*") if path.is_symlink()]:
        target = os.readlink(link)
        link.unlink()
        link.write_text(target)
    report, found = read_all(snapshot)
    assert [shades(row) for row in found.values()] == [[40], [40]] and not report.bad


def test_links_of_a_cache_that_lead_elsewhere_are_counted_and_not_followed(tmp_path):
    snapshot = cache(tmp_path)
    secret = write_lines(tmp_path / "secret.jsonl", {"problem": "Q", "answer": "3"})
    (snapshot / "more.jsonl").symlink_to(secret)
    (snapshot / "images" / "a.png").unlink()
    (snapshot / "images" / "a.png").symlink_to(write_images(tmp_path / "other") / "a.png")
    report, found = read_all(snapshot)
    assert not found and report.bad == {"a picture that is missing": 2}
    assert report.unread_files == [("more.jsonl", "a link that leads out of the folder")]
    assert "1 file not read: a link that leads out of the folder" in report.summary()


def test_a_row_may_not_name_a_blob_or_leave_the_cache(tmp_path):
    snapshot = cache(tmp_path)
    rows = [{"problem": "Q", "answer": "3", "image": name} for name in ("../../blobs/1e", "/etc/hostname")]
    write_lines(snapshot / "more.jsonl", *rows)
    report, _ = read_all(snapshot / "more.jsonl")
    assert report.bad == {"a picture that is missing": 2}


def test_json_that_holds_no_image_at_all_is_told(tmp_path):
    assert bad_row(tmp_path, json.dumps({"problem": "Q", "answer": "3", "image": {"size": 3}})).startswith("a picture")
