"""Rows of JSON Lines, JSON arrays or Parquet, in the forms that trainers of vision-language models read.

    R1-V, OThink-MR1      image or images, problem, solution: "<answer> 3 </answer>"
    DeepScaleR            problem, answer, solution
    EasyR1                problem, answer, images
    verl                  prompt: a chat, images, reward_model.ground_truth
    TRL                   prompt: text or a chat, image or images, solution or completion
    VLM-R1, LLaVA         conversations: from and value, image
    LLaMA-Factory         messages, or instruction, input and output; images
    ms-swift              messages, or query and response; images; solution
    LMM-R1 (VerMulti)     message: a chat as JSON in a string, with addresses of images; answer

Images are files below the folder of the data, or lie in the row as bytes or base64. The columns are listed in
`columns.py`, the marks that place images in `marks.py`, the forms of answers in `solutions.py`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from m2io_jax.episodes.building import SPLITS
from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.published.columns import COLUMNS_READ, Asked, is_read, read_answer, read_question
from m2io_jax.episodes.published.draft import BadRow, ReadConfig, ReadReport, checked_answer, episode, plain
from m2io_jax.episodes.published.images import ImageFinder, read_source
from m2io_jax.episodes.published.sources import find_source
from m2io_jax.episodes.published.splits import file_split, row_split
from m2io_jax.episodes.published.tables import Row, read_rows
from m2io_jax.errors import UserError

FIRST_ROWS = 64  # of a file, that are looked at for a column that tells the split


class RowsReader:
    """Reads every file of rows in a folder, or one of them.

    Args:
        source: the folder or the file. Images are looked for below it, or below the file's folder. Hidden files, and
            links that lead elsewhere, are passed over; a file that is named is read, and the links of a Hugging Face
            cache into its own blobs are followed.
        report: is filled.

    Raises:
        UserError: there is nothing to read.
    """

    def __init__(self, source: Path, config: ReadConfig, report: ReadReport):
        self.config, self.report = config, report
        report.columns_read = COLUMNS_READ
        found = find_source(source, report)
        self.root, self.files, self._data = found.root, found.files, found.data
        self.images = ImageFinder(found.images, found.blobs, _other_folder(config))
        self._names = {file: plain(file.relative_to(self.root).as_posix()) for file in self.files}
        self._file_splits = {file: file_split(file.relative_to(self.root), self.root.name) for file in self.files}
        self._published = self._published_splits()
        self._shown_in_train: set[str] = set()

    def episodes(self, split: str) -> Iterator[Episode]:
        """Yield the episodes of a split. A row too broken to belong to one is reported with the first."""
        for row in self._rows():
            name, belongs = self._names[row.file], split == SPLITS[0]
            if belongs and isinstance(row.values, Mapping):
                self.report.add_columns(row.values, self._is_read)
            made = None
            try:
                published = self._published_as(row)
                belongs = self._dealt(published, None) == split
                if isinstance(row.values, BadRow):
                    raise row.values
                asked = read_question(row.values, self.config)
                sources = [read_source(each) for each in asked.question.images]
                group = _group(asked.question.text, sources)
                belongs = self._dealt(published, group) == split
                if belongs:
                    made = self._episode(f"{name}:{row.number}", row, asked, sources, group)
            except BadRow as error:
                if belongs:
                    self.report.add(name, row.number, error)
            self.report.rows += belongs
            if made is not None:
                self._count(made, published, split)
                yield made

    def _episode(self, id: str, row: Row, asked: Asked, sources: list[str | bytes], group: str) -> Episode:
        solution = read_answer(row.values, asked, self.config)
        made = episode(
            id,
            asked.question.text,
            checked_answer(solution.answer),
            [self.images.read(source, row.file) for source in sources],
            group=group,
            max_pixels=self.config.max_pixels,
            reasoning=solution.reasoning,
            question_images=asked.question.places,
        )
        self.report.noted.update(dict.fromkeys((*asked.notes, *solution.notes), 1))
        return made

    def _count(self, made: Episode, published: str | None, split: str) -> None:
        self.report.kept += 1
        if published is not None:
            self.report.published.setdefault(published, Counter())[split] += 1
        if split == "train" and self._published - {"train"}:
            self._shown_in_train.add(made.group)
        elif published == split and made.group in self._shown_in_train:
            self.report.shared += 1

    def _rows(self) -> Iterator[Row]:
        for file in self.files:
            yield from self._rows_of(file)

    def _rows_of(self, file: Path) -> Iterator[Row]:
        return islice(read_rows(file, self._data.get(file)), self.config.most or None)

    def _is_read(self, name: str) -> bool:
        return is_read(name, self.config)

    def _good_rows(self, file: Path) -> Iterator[Mapping]:
        return (row.values for row in self._rows_of(file) if isinstance(row.values, Mapping))

    def _published_as(self, row: Row) -> str | None:
        """Return the split that a row is published in; None where it is in none, or all rows are dealt anew."""
        if not self.config.published_splits:
            return None
        of_file = self._file_splits[row.file]
        return of_file if isinstance(row.values, BadRow) else row_split(row.values, of_file)

    def _dealt(self, published: str | None, group: str | None) -> str:
        """Return the split of a row: as published, else among the other splits; the first where it has no group."""
        if published in SPLITS[1:]:
            return published
        if group is None:
            return SPLITS[0]
        return self.config.deal(group, [split for split in SPLITS if split == "train" or split not in self._published])

    def _published_splits(self) -> set[str]:
        """Return the splits that are published: by names of files, and by columns that the first rows have."""
        if not self.config.published_splits:
            return set()
        found = set(filter(None, self._file_splits.values()))
        for file in self.files:
            if any(row_split(values, None) for values in islice(self._good_rows(file), FIRST_ROWS)):
                found |= {row_split(values, self._file_splits[file]) for values in self._good_rows(file)} - {None}
        return found


def _other_folder(config: ReadConfig) -> Path | None:
    if not config.image_folder:
        return None
    folder = Path(config.image_folder)
    if not folder.is_dir():
        raise UserError("There is no folder of images here.", where=f"image_folder={folder}")
    return folder.resolve()


def _group(question: str, sources: list[str | bytes]) -> str:
    """Return the group of a row. Rows with the same images, or the same question and none, share a group."""
    shown = sources or [question]
    parts = [hashlib.sha256(part if isinstance(part, bytes) else part.encode("utf-8", "replace")) for part in shown]
    return hashlib.sha256(b"".join(part.digest() for part in parts)).hexdigest()[:16]
