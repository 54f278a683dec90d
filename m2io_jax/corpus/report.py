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


@dataclass
class ImportReport:
    """Filled while an import runs, then written into its corpus as `import_report.json`.

    Attributes:
        source: what was imported.
        documents: number of documents written.
        kept: references whose picture is in the corpus (a picture used twice counts twice).
    """

    source: str
    documents: int = 0
    kept: int = 0
    problems: list[Problem] = field(default_factory=list)
    skipped_files: list[SkippedFile] = field(default_factory=list)

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
            "skipped_files": [asdict(skipped) for skipped in self.skipped_files],
            "problems": [asdict(problem) for problem in self.problems],
        }

    def text(self) -> str:
        """The report as the text of its file."""
        return json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n"

    def summary(self) -> str:
        """A few lines for people: what came in, what did not, and where the list is."""
        pictures = self.pictures
        faults = ", ".join(f"{pictures[kind]:,} {kind}" for kind in FAULTS if pictures[kind])
        lines = [
            f"{self.documents:,} documents, {pictures['references']:,} picture references: {pictures['kept']:,} kept"
            + (f", {faults}" if faults else "")
        ]
        if self.skipped_files:
            lines.append(f"{len(self.skipped_files):,} files could not be read")
        if self.problems or self.skipped_files:
            lines.append(f"Each one is listed by file and line in {REPORT_FILE}.")
        return "\n".join(lines)
