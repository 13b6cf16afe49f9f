"""Where an import goes."""

from __future__ import annotations

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
