"""What an import came to, for people and machines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from coldchain.collect.one_pass import TakenFiles

_MOST_COMPLAINTS = 10_000
_MOST_KINDS = 20


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with one row: of which table, its id, the image's name where there is one, and the words."""

    table: str
    row: int
    name: str
    words: str


@dataclass(slots=True)
class ImportReport:
    """Counts of an import so far.

    `images` are those that were read, `overviews` and `aligned` those of them that are no exposures. `exposures` are
    new ones, `described` those that were known and about which something new was said. `awaited_frames` and
    `awaited_images` are files that are not there yet, `awaited_gains` names of references. `results` are new ones.
    `unusable` rows were left out; `complaints` has them, and what else was wrong, the first 10,000.
    """

    session: str
    session_id: str = ""
    folder: str = ""
    images: int = 0
    overviews: int = 0
    aligned: int = 0
    exposures: int = 0
    described: int = 0
    results: int = 0
    unusable: int = 0
    awaited_frames: int = 0
    awaited_images: int = 0
    awaited_gains: list[str] = field(default_factory=list)
    files: TakenFiles = field(default_factory=TakenFiles)
    complaints: list[Complaint] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether all that is there could be used."""
        return not (self.unusable or self.files.damaged or self.files.unreadable or self.files.changing)

    @property
    def news(self) -> int:
        """How much has changed in the catalog."""
        return self.exposures + self.described + self.results + self.files.taken + self.files.damaged

    def complain(self, table: str, row: int, name: str, words: str) -> None:
        """Note what is wrong with a row."""
        if len(self.complaints) < _MOST_COMPLAINTS:
            self.complaints.append(Complaint(table, row, name, words))

    def kinds(self) -> list[str]:
        """What is wrong in a sentence for each kind, with the first row that has it and how many others do."""
        first: dict[str, Complaint] = {}
        counts: Counter[str] = Counter()
        for complaint in self.complaints:
            first.setdefault(complaint.words, complaint)
            counts[complaint.words] += 1
        told = []
        for words, count in counts.most_common(_MOST_KINDS):
            its = first[words]
            others = f" (and {count - 1:,} more)" if count > 1 else ""
            told.append(f"{its.table} {its.row}{f' ({its.name})' if its.name else ''}: {words}{others}")
        if len(counts) > _MOST_KINDS:
            told.append(f"{len(counts) - _MOST_KINDS:,} more kinds of complaints; --json has them all")
        return told
