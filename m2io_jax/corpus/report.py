"""What an import did with every picture reference it met: counted by outcome, and listed where it went wrong."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["kept", "missing", "broken", "unsupported", "remote"]
FAULTS: tuple[Outcome, ...] = ("missing", "broken", "unsupported", "remote")

REPORT_FILE = "import_report.json"


@dataclass(frozen=True)
class Problem:
    """A reference whose picture is not in the corpus: which one, at which line (from 1) of which file, and why."""

    kind: Outcome
    file: str
    line: int
    reference: str
    reason: str


@dataclass(frozen=True)
class SkippedFile:
    """A text file that could not be read."""

    file: str
    reason: str


@dataclass(frozen=True)
class Decoration:
    """An image of the corpus that illustrates nothing: why, at how many places, and where it stands first."""

    picture: str
    reason: str
    places: int
    file: str
    line: int
    reference: str


@dataclass(frozen=True)
class EmptyCaption:
    """A caption that says nothing about its image and was left out: where it stands."""

    file: str
    line: int
    caption: str


@dataclass
class ImportReport:
    """Filled while an import runs, then written into its corpus as `import_report.json`.

    Attributes:
        source: what was imported.
        documents: number of documents written.
        kept: references whose picture is in the corpus (a picture used twice counts twice), decorations included.
        addresses: how many addresses each rule of `references.Resolver` has resolved.
        encodings: how many files were read in each encoding.
        decorations: images that illustrate nothing; they stay in the corpus and are in no question.
        empty_captions: captions that say nothing about their image and were left out.
    """

    source: str
    documents: int = 0
    kept: int = 0
    problems: list[Problem] = field(default_factory=list)
    skipped_files: list[SkippedFile] = field(default_factory=list)
    addresses: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    decorations: list[Decoration] = field(default_factory=list)
    empty_captions: list[EmptyCaption] = field(default_factory=list)

    @property
    def pictures(self) -> dict[str, int]:
        """`references`, and the five outcomes that add up to it."""
        counts = Counter(problem.kind for problem in self.problems)
        faults = {kind: counts[kind] for kind in FAULTS}
        return {"references": self.kept + sum(faults.values()), "kept": self.kept} | faults

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "source": self.source,
            "documents": self.documents,
            "pictures": self.pictures,
            "addresses": dict(self.addresses.most_common()),
            "encodings": dict(self.encodings.most_common()),
            "skipped_files": [asdict(skipped) for skipped in self.skipped_files],
            "problems": [asdict(problem) for problem in self.problems],
            "decorations": [asdict(decoration) for decoration in self.decorations],
            "empty_captions": [asdict(caption) for caption in self.empty_captions],
        }

    def text(self) -> str:
        """The report as the text of its file."""
        return json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n"

    def summary(self) -> str:
        """A few lines for people: what came in, what did not, and where the list is."""
        pictures = self.pictures
        faults = ", ".join(f"{pictures[kind]:,} {kind}" for kind in FAULTS if pictures[kind])
        lines = [
            f"{_count(self.documents, 'document')}, {_count(pictures['references'], 'picture reference')}: "
            f"{pictures['kept']:,} kept" + (f", {faults}" if faults else "")
        ]
        if notes := self._notes():
            lines.append("; ".join(notes))
        if self.skipped_files:
            lines.append(f"{_count(len(self.skipped_files), 'file')} could not be read")
        if self.problems or self.skipped_files or self.decorations or self.empty_captions:
            lines.append(f"Each one is listed by file and line in {REPORT_FILE}.")
        return "\n".join(lines)

    def _notes(self) -> list[str]:
        notes = []
        if self.decorations:
            places = sum(decoration.places for decoration in self.decorations)
            notes.append(f"{places:,} of the kept show decorations (icons, badges, images on many pages)")
        if captions := self.empty_captions:
            notes.append(f"{_count(len(captions), 'caption')} left out, saying nothing")
        foreign = [
            f"{_count(count, 'file')} as {name}" for name, count in self.encodings.most_common() if name != "utf-8"
        ]
        if foreign:
            notes.append("read " + ", ".join(foreign))
        return notes


def _count(number: int, noun: str) -> str:
    """Return a number with its noun in the right number: "1 file", "2 files"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
