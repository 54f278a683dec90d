"""CLEVR (arXiv 1612.06890) as TFDS prepares it: its counting questions, read without TensorFlow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from m2io_jax.episodes.episode import Episode
from m2io_jax.episodes.published.draft import BadRow, ReadConfig, ReadReport, checked_answer, checked_question, episode
from m2io_jax.errors import UserError

NOT_COUNTING = "a picture with no question that counts"
PREPARE = "prepare it for random access: tfds build clevr --file_format=array_record"
# Their questions have no answers in TFDS's own test split.
THEIRS = {"train": "train", "validation": "train", "test": "validation"}


class ClevrReader:
    """Reads a prepared data set.

    Args:
        source: the folder of one version, which holds dataset_info.json.
        report: is filled.

    Raises:
        UserError: it is none, or cannot be read by random access, or without questions (versions before 3.1).
    """

    def __init__(self, source: Path, config: ReadConfig, report: ReadReport):
        self.config, self.report = config, report
        if not (source / "dataset_info.json").is_file():
            mend = "name the folder of one version, such as tensorflow_datasets/clevr/3.1.0"
            raise UserError(
                "This is no data set that TFDS prepared: no dataset_info.json.", where=str(source), mend=mend
            )
        try:
            self._builder = tfds.builder_from_directory(str(source))
            self._examples = {
                split: self._open(split) for split in set(THEIRS.values()) & set(self._builder.info.splits)
            }
        except Exception as error:  # TFDS raises many types on other formats and damaged files
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"CLEVR cannot be read: {first_line}", where=str(source), mend=PREPARE) from error
        if "question_answer" not in self._builder.info.features:
            raise UserError("This CLEVR has no questions.", where=str(source), mend="prepare version 3.1.0 or later")

    def episodes(self, split: str) -> Iterator[Episode]:
        """The episodes of a split: test is CLEVR's validation split, the others share its train split by picture."""
        theirs = THEIRS[split]
        examples = self._examples.get(theirs, ())
        for index in range(min(len(examples), self.config.most or len(examples))):
            example = examples[index]
            name = _text(example["file_name"])
            if theirs == "train" and self._share(name) != split:
                continue
            self.report.rows += 1
            asked = self._counting(example["question_answer"])
            if not asked:
                self.report.passed_over[NOT_COUNTING] += 1
            for number, (question, answer) in enumerate(asked):
                try:
                    made = episode(
                        f"{theirs}:{name}:{number}",
                        checked_question(question),
                        checked_answer(answer),
                        [bytes(example["image"])],
                        group=name,
                        max_pixels=self.config.max_pixels,
                    )
                except BadRow as error:
                    self.report.add(theirs, index + 1, error)
                    continue
                self.report.kept += 1
                yield made

    def _open(self, split: str) -> Any:
        # The bytes of the pictures: this project's own bounds are kept before anything is decoded.
        return self._builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})

    def _share(self, name: str) -> str:
        """Train or validation: the shares of these two alone."""
        return "train" if self.config.split(name) != "validation" else "validation"

    def _counting(self, asked: dict[str, list]) -> list[tuple[str, str]]:
        """Of CLEVR's questions those that count, and no other, are answered by digits."""
        pairs = [(_text(q), _text(a)) for q, a in zip(asked["question"], asked["answer"], strict=True)]
        return [(question, answer) for question, answer in pairs if answer.isdecimal()][: self.config.per_picture]


def _text(value: bytes | str) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
