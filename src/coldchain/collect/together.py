"""Whole files of one session that are ready together: journalled in one transaction where nothing sets one apart.

What is set apart is taken alone (`Intake.take`): what changes more than its own exposure (references, mdocs of many
movies), what is worth an event of its own, images of which an mdoc said something beforehand, and what the catalog
leaves out because a file stands for its path already.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from coldchain.catalog import arrivals
from coldchain.catalog.arrivals import Arrival, ItsExposure
from coldchain.catalog.engine import Catalog
from coldchain.collect.completeness import Signature
from coldchain.collect.content import IMAGES, REFERENCES, Content
from coldchain.collect.frame_set_intake import FrameSetIntake
from coldchain.collect.metadata import References, with_references
from coldchain.errors import CatalogError, printable
from coldchain.model.optics import ExposureMetadata
from coldchain.model.policy import CopyPlan
from coldchain.model.session import Session

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole file, as it was examined, and the place of its session in which it lies; None: its own folder."""

    content: Content
    signature: Signature
    place_id: UUID | None


def goes_along(content: Content) -> bool:
    """Whether what is in a file concerns its own exposure at most, and is worth no event of its own. Pure."""
    is_plain = not content.frame_sets and not content.complaint and content.mistaken_for is None
    return is_plain and content.placement.kind not in REFERENCES


def over_and_below(content: Content, metadata: ExposureMetadata) -> ExposureMetadata:
    """An exposure's metadata with what one of its files says: its description over them, its header below. Pure."""
    if content.description is not None:
        metadata = content.description.over(metadata)
    return metadata if content.header is None else metadata.over(content.header)


class TogetherIntake:
    """Journals what goes along.

    Parameters
    ----------
    catalog : where everything is journalled.
    copies : on which stores each kind of file is wanted.
    frame_sets : knows of which images mdocs have said something.
    """

    def __init__(self, catalog: Catalog, copies: CopyPlan, frame_sets: FrameSetIntake) -> None:
        self._catalog = catalog
        self._copies = copies
        self._frame_sets = frame_sets

    def journal(self, session: Session, references: References, whole: Sequence[Whole]) -> list[bool]:
        """Journal files of a session that go along; which of them stand there now.

        None does where the catalog refuses one of them, or does not answer: each is then to be taken alone, and told
        what is the matter with it.
        """
        try:
            said_of = self._frame_sets.awaited(session, [name for each in whole if (name := _image(each)) is not None])
            is_along = [_image(each) not in said_of for each in whole]
            arrived = [self._arrival(each, references) for each, along in zip(whole, is_along, strict=True) if along]
            stands = iter(arrivals.record(self._catalog, session.id, arrived) if arrived else ())
        except CatalogError as error:
            log.info("%d files are taken one by one: %s", len(whole), printable(str(error)))
            return [False] * len(whole)
        return [along and next(stands) for along in is_along]

    def _arrival(self, whole: Whole, references: References) -> Arrival:
        content, placement = whole.content, whole.content.placement
        its = None
        if placement.exposure_name is not None:
            its = ItsExposure(
                placement.exposure_name,
                describe=partial(_described, content, references, placement.exposure_name),
                makes=placement.kind in IMAGES or content.description is not None,
                grid_square=placement.grid_square,
                foil_hole=placement.foil_hole,
            )
        return Arrival(
            relative_path=placement.path_in_session,
            kind=placement.kind,
            size_bytes=whole.signature[0],
            modified_ns=whole.signature[1],
            stores=self._copies.stores(placement.kind),
            priority=self._copies.priority(placement.kind),
            exposure=its,
            place_id=whole.place_id,
        )


def _described(content: Content, references: References, name: str, standing: ExposureMetadata) -> ExposureMetadata:
    return with_references(over_and_below(content, standing), references, name)


def _image(whole: Whole) -> str | None:
    """The exposure's name, if a file is an image of one."""
    placement = whole.content.placement
    return placement.exposure_name if placement.kind in IMAGES else None
