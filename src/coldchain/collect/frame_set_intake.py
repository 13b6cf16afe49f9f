"""Joins what mdocs of many movies say to the exposures that they mean, whichever comes first."""

from __future__ import annotations

from collections.abc import Sequence

from coldchain.catalog import exposures, frame_sets
from coldchain.catalog.engine import Catalog
from coldchain.catalog.frame_sets import KnownFrameSet
from coldchain.collect.frame_sets import choose, described, stem_of
from coldchain.collect.metadata import References, with_references
from coldchain.formats.mdoc import FrameSet
from coldchain.model.session import Exposure, Layout, Session

_OF_SERIALEM = (Layout.SERIALEM, Layout.PLAIN)


class FrameSetIntake:
    """Everything here may be done again: what has reached its exposure is noted last."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def arrived(self, session: Session, described_in: str, found: Sequence[FrameSet], references: References) -> None:
        """An mdoc, `described_in` its path in the session, says what it says to the exposures that are there, and is
        kept for those to come. Raises CatalogError."""
        given = [(stem_of(frame_set.movie), frame_set.movie, frame_set.metadata) for frame_set in found]
        waiting = frame_sets.record(self._catalog, session.id, described_in, given)
        alike = exposures.by_stems(self._catalog, session.id, [stem_of(frame_set.movie) for frame_set in waiting])
        used = []
        for frame_set in waiting:
            exposure = _meant(frame_set, alike.get(stem_of(frame_set.movie), []))
            if exposure is None:
                continue
            metadata = with_references(described(exposure.metadata, frame_set.metadata), references, exposure.name)
            if metadata != exposure.metadata:
                exposures.attach_metadata(self._catalog, exposure.id, metadata)
            used.append(frame_set)
        self.used(used)

    def said_of(self, session: Session, exposure: Exposure) -> list[KnownFrameSet]:
        """What earlier mdocs said of an image's exposure and nobody used yet. Raises CatalogError."""
        if session.layout not in _OF_SERIALEM:
            return []
        waiting = frame_sets.waiting_for(self._catalog, session.id, exposure.name)
        if not waiting:
            return []
        alike = exposures.by_stems(self._catalog, session.id, [exposure.name])[exposure.name]
        meant = ((frame_set, _meant(frame_set, alike)) for frame_set in waiting)
        return [frame_set for frame_set, its in meant if its is not None and its.id == exposure.id]

    def awaited(self, session: Session, names: Sequence[str]) -> set[str]:
        """Those of these exposures' names of which earlier mdocs said something that nobody used yet. Raises
        CatalogError."""
        if session.layout not in _OF_SERIALEM or not names:
            return set()
        return frame_sets.awaited(self._catalog, session.id, names)

    def used(self, reached: Sequence[KnownFrameSet]) -> None:
        """These have reached their exposures. Raises CatalogError."""
        if reached:
            frame_sets.mark_used(self._catalog, [frame_set.id for frame_set in reached])


def _meant(frame_set: KnownFrameSet, alike: Sequence[Exposure]) -> Exposure | None:
    name = choose(frame_set.movie, frame_set.described_in, [exposure.name for exposure in alike])
    return next((exposure for exposure in alike if exposure.name == name), None)
