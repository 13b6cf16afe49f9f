"""Where an import goes, and what is a session's folder there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coldchain.model.policy import CopyPlan


@dataclass(frozen=True, slots=True)
class ImportTarget:
    """The instrument with its roots, which stores want what, and where what this facility writes lies."""

    instrument_name: str
    movie_root: Path
    metadata_roots: tuple[Path, ...]
    copies: CopyPlan
    results_root: Path

    @property
    def roots(self) -> tuple[Path, ...]:
        """The instrument's roots, the movie root first."""
        return (self.movie_root, *self.metadata_roots)


def place_of(folder: Path, roots: Sequence[Path]) -> tuple[Path, str]:
    """The root and the session's folder in it, of a folder that is imported: below one of the instrument's roots, by
    whatever name it is reached, that root, so that a running service takes it for the same; elsewhere the folder above.
    """
    real = folder.resolve()
    for root in roots:
        if (there := root.resolve()) in real.parents:
            return root, real.relative_to(there).as_posix()
    return folder.parent, folder.name
