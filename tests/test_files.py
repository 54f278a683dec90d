"""What appears whole, or not at all."""

from contextlib import suppress
from pathlib import Path

import pytest

from m2io_jax.errors import UserError
from m2io_jax.files import put_in_place, replace_text, replaced_whole, sampled_digest, write_at_once


def folder_with(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "a.txt").write_text(text)
    return path


def test_a_text_takes_the_place_of_the_former(tmp_path):
    for text in ("one", "two"):
        write_at_once(tmp_path / "deep" / "a.txt", text, what="text")
        assert (tmp_path / "deep" / "a.txt").read_text() == text
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_a_text_that_cannot_be_written_leaves_the_former_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("former")

    def full(self, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        replace_text(path, "new")
    with pytest.raises(UserError, match=r"(?s)The text cannot be written: No space.*a\.txt"):
        write_at_once(path, "new", what="text")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["former"]


def test_a_folder_is_replaced_when_the_new_one_is_whole(tmp_path):
    folder = folder_with(tmp_path / "it", "former")
    with pytest.raises(KeyError), replaced_whole(folder) as draft:
        (draft / "a.txt").write_text("new")
        raise KeyError
    assert (folder / "a.txt").read_text() == "former"
    with replaced_whole(folder) as draft:
        (draft / "a.txt").write_text("new")
        assert (folder / "a.txt").read_text() == "former"
    assert (folder / "a.txt").read_text() == "new"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_draft_of_another_process_is_left_to_it(tmp_path):
    other = folder_with(tmp_path / ".it.unfinished", "of another")
    with replaced_whole(tmp_path / "it", alone=False) as draft:
        assert draft != other
    assert (other / "a.txt").exists()
    with replaced_whole(tmp_path / "it"):  # it was killed
        assert not (other / "a.txt").exists()


def test_a_folder_that_cannot_take_its_place_leaves_the_former_there(tmp_path, monkeypatch):
    folder, draft = folder_with(tmp_path / "it", "former"), folder_with(tmp_path / "draft", "new")
    rename = Path.rename

    def refuse(self, target):
        if self == draft:
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="denied"):
        put_in_place(draft, folder)
    assert (folder / "a.txt").read_text() == "former"


@pytest.mark.parametrize("ends", [KeyError, None])
def test_what_a_killed_writer_moved_aside_is_found_by_the_next(tmp_path, monkeypatch, ends):
    folder, draft = folder_with(tmp_path / "it", "former"), folder_with(tmp_path / "draft", "new")
    with monkeypatch.context() as killed:
        killed.setattr(Path, "rename", lambda self, target: killing(self, target, draft))
        with pytest.raises(KeyboardInterrupt):
            put_in_place(draft, folder)
    assert not folder.exists()
    with suppress(KeyError), replaced_whole(folder) as another:
        (another / "a.txt").write_text("newer")
        if ends:
            raise ends
    assert (folder / "a.txt").read_text() == ("former" if ends else "newer")
    assert {path.name for path in tmp_path.iterdir()} == {"it", "draft"}


def killing(path, target, draft, rename=Path.rename):
    if path == draft:
        raise KeyboardInterrupt
    return rename(path, target)


def test_a_digest_is_of_names_and_sizes_and_samples_wherever_the_files_lie(tmp_path):
    def made(name: str, content: bytes, file: str = "a.bin") -> str:
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / file).write_bytes(content)
        (tmp_path / name / "other.txt").write_text(name)
        return sampled_digest(tmp_path / name, "*.bin")

    small, large = bytes(5000), bytes(2**20)
    assert made("one", small) == made("two", small)
    others = [made("longer", small + b"1"), made("last", small[:-1] + b"1"), made("named", small, "b.bin")]
    others += [made("large", large), made("large, first", b"1" + large[1:])]
    assert len({made("again", small), *others}) == 6
