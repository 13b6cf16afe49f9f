"""Files looked into, journalled in the catalog, joined to their sessions and their exposures: one at a time, or those
that are ready together and that nothing sets apart in one transaction (`together`).

Everything here may be done again: the catalog gives the row that is there for a path, size and time stamp that it
knows, so a file that is taken twice stands there once. The order of the writes makes a kill harmless: an exposure gets
its metadata before the file is journalled, and what is left after that (the exposure's input, its quarantine, its
references) is made up for by `resume`.

A damaged file is journalled as such and its exposure quarantined with the reason; an unreadable one is waited for.
Nothing here stops for either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from coldchain.catalog import events, exposures, files, page, scans, wants
from coldchain.catalog.arrivals import MOST_TOGETHER
from coldchain.catalog.engine import Catalog
from coldchain.collect.completeness import Examination, Signature, Verdict
from coldchain.collect.content import IMAGES, REFERENCES, Content, words
from coldchain.collect.examining import NotWell, examine
from coldchain.collect.folder_stamps import Stamp
from coldchain.collect.frame_set_intake import FrameSetIntake
from coldchain.collect.frame_sets import described
from coldchain.collect.layout import Placement
from coldchain.collect.metadata import References, with_references
from coldchain.collect.notice import Notice
from coldchain.collect.one_session import OneSession
from coldchain.collect.place_pattern import PlacePattern
from coldchain.collect.roster import SessionRoster
from coldchain.collect.together import TogetherIntake, Whole, goes_along, over_and_below
from coldchain.errors import FormatError, printable
from coldchain.model.events import Severity
from coldchain.model.files import DataFile, FileKind, FileState
from coldchain.model.policy import CopyPlan
from coldchain.model.session import Exposure, ExposureState, Session, SessionState

_EVERY = 1 << 62
_PAGE = 500
_LAST = 200
"""Beyond what one step of a collector takes one by one; what is taken together is done at once."""
_STACK = "it is a stack of images, as its mdoc says, and not the frames of one exposure"
_STANDING = (FileState.ARRIVED, FileState.DAMAGED)
_GATHERING_SECONDS = 0.05
"""So long a file that was examined may wait for others to be journalled with."""


class Intake:
    """Takes the files of one of an instrument's roots into the catalog.

    Parameters
    ----------
    catalog : where everything is journalled.
    instrument_name : as facility.toml names it.
    source_root : the root whose files are taken: the movie root, or with `beside` a metadata root.
    copies : on which stores each kind of file is wanted.
    metadata_roots : the instrument's other roots, where this one is the movie root.
    pattern : the facility's own pattern of paths.
    roster : says which session a file belongs to, where that is known otherwise: of an import, one for all.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        instrument_name: str,
        source_root: Path,
        copies: CopyPlan,
        metadata_roots: Sequence[Path] = (),
        pattern: PlacePattern | None = None,
        roster: OneSession | None = None,
        _of: Intake | None = None,
    ) -> None:
        self._catalog = catalog
        self._instrument_name = instrument_name
        self._root = source_root
        self._copies = copies
        self._roots: tuple[Path, ...] = (source_root, *metadata_roots) if _of is None else _of._roots
        self._pattern = pattern
        self._roster: SessionRoster | OneSession = roster or SessionRoster(
            catalog,
            instrument_name=instrument_name,
            root=source_root,
            movie_root=self._roots[0],
            others=[root for root in self._roots if root != source_root],
            pattern=pattern,
        )
        # Of one session the files of all roots are journalled one after the other: what one of them finds out about its
        # references and exposures, the next must see.
        self._frame_sets = FrameSetIntake(catalog)
        self._together = TogetherIntake(catalog, copies, self._frame_sets)
        self._references: dict[UUID, References] = {} if _of is None else _of._references
        self._turn: AbstractContextManager[bool] = threading.RLock() if _of is None else _of._turn

    def beside(self, root: Path, *, roster: OneSession | None = None) -> Intake:
        """The intake of one of the `metadata_roots`, or of another root of an import, whose files belong to the same
        sessions."""
        return Intake(
            self._catalog,
            instrument_name=self._instrument_name,
            source_root=root,
            copies=self._copies,
            pattern=self._pattern,
            roster=roster,
            _of=self,
        )

    def resume(self) -> None:
        """Finish what an earlier process began. Raises CatalogError.

        A store that is new gets what arrived before it. What a killed process may have left undone is looked for in
        sessions that are open or have an exposure that waits; another session's is when a file arrives for it. All of
        this costs by the number of sessions, but for one look for copies that are not wanted yet, for each store.
        """
        found = self._roster.refresh()
        if self._root != self._roots[0]:
            return  # the movie root's intake does it
        with self._turn:
            for session in found:
                if self._may_be_unfinished(session):
                    self._adopt(session)
                wants.want_missing(self._catalog, session.id, self._copies)

    def known_among(self, seen: Mapping[str, Signature]) -> set[str]:
        """Which of these files, by their paths relative to the root, need not be taken: they were before, as they are.

        Unreadable ones are not among them. Raises CatalogError.
        """
        of_session: dict[UUID, dict[tuple[str, UUID | None], str]] = {}
        for path, spot in self._roster.spots(seen):
            of_session.setdefault(spot.session_id, {})[spot.path, spot.place_id] = path
        known: set[str] = set()
        for session_id, paths in of_session.items():
            found = files.signatures(self._catalog, session_id, [inside for inside, _ in paths])
            for where in found.keys() & paths.keys():
                size_bytes, modified_ns, state = found[where]
                if state is not FileState.UNREADABLE and seen[paths[where]] == (size_bytes, modified_ns):
                    known.add(paths[where])
        return known

    def stamps(self) -> dict[str, Stamp]:
        """The stamps at which all files of a folder, relative to the root, had been dealt with. Raises CatalogError."""
        return scans.stamps(self._catalog, str(self._root))

    def note_stamps(self, changes: Mapping[str, Stamp | None]) -> None:
        """Note them; None: a folder is to be listed again. Raises CatalogError."""
        scans.note(self._catalog, str(self._root), changes)

    def take(self, examination: Examination) -> Verdict:
        """Examine a file and journal it, whole or not.

        What was read counts only where the path leads to the same file, unchanged, before and after the reading: GONE
        or CHANGED otherwise. Raises CatalogError where the catalog refuses; the file may then be taken again.
        """
        found = examine(self._root, examination, self._roster.place)
        if isinstance(found, Verdict):
            return found
        with self._turn:
            if isinstance(found, Content):
                self._journal(found, examination.signature)
                return Verdict.TAKEN
            state = FileState.DAMAGED if isinstance(found.error, FormatError) else FileState.UNREADABLE
            return self._hold_back(found.placement, examination.signature, state, words(found.error))

    def take_together(
        self, examinations: Sequence[Examination], *, clock: Callable[[], float] = time.monotonic
    ) -> list[Verdict | None]:
        """Examine the first of these files and journal in one transaction those that nothing sets apart.

        The verdicts of as many of them as were examined, in their order, at least one: not so many that the first would
        wait for long. None: it is to be taken alone. What comes after one that is set apart is not looked at before
        that is taken: it may make a session. Raises CatalogError.
        """
        if len(examinations) < 2:
            return [None] * len(examinations)
        until = clock() + _GATHERING_SECONDS
        verdicts: list[Verdict | None] = []
        whole: dict[int, tuple[Content, Signature]] = {}
        for number, examination in enumerate(examinations[:MOST_TOGETHER]):
            found = examine(self._root, examination, self._roster.place)
            verdicts.append(found if isinstance(found, Verdict) else None)
            if isinstance(found, NotWell):
                break
            if isinstance(found, Content):
                if not goes_along(found) or not self._roster.knows(found.placement):
                    break
                whole[number] = found, examination.signature
            if clock() >= until:
                break
        with self._turn:
            for number in self._journal_together(whole):
                verdicts[number] = Verdict.TAKEN
        return verdicts

    def take_all(self, examinations: Sequence[Examination]) -> Iterator[tuple[Examination, Verdict]]:
        """Take files in this order, together where that is possible; each with its verdict. Raises CatalogError."""
        taken = 0
        while taken < len(examinations):
            verdicts = self.take_together(examinations[taken : taken + MOST_TOGETHER])
            for examination, verdict in zip(examinations[taken:], verdicts, strict=False):
                yield examination, verdict or self.take(examination)
            taken += len(verdicts)

    def report(self, notice: Notice) -> None:
        """Put a notice on the page, with the session that it concerns if there is one. Raises CatalogError."""
        self._event(notice.severity, notice.kind, notice.message, self._roster.nearest(notice.path))

    # -- sessions ---------------------------------------------------------------------------------------------------

    def _session(self, placement: Placement) -> Session:
        session = self._roster.session(placement)
        if session.id not in self._references:
            self._adopt(session)
        return session

    def _may_be_unfinished(self, session: Session) -> bool:
        if session.state is SessionState.OPEN:
            return True
        troubles = page.troubles(self._catalog, session.id, limit=_EVERY)
        return any(trouble.state is ExposureState.WAITING for trouble in troubles)

    def _adopt(self, session: Session) -> None:
        """Know a session's references, and make up for what a killed process left undone in it.

        That concerns the files that were journalled last, a file of each root: the rest is done before a file is.
        """
        arrived = files.of_kinds(self._catalog, session.id, REFERENCES)
        references = References(
            gains=tuple(file.relative_path for file in arrived if file.kind is FileKind.GAIN),
            defects=tuple(file.relative_path for file in arrived if file.kind is FileKind.DEFECTS),
        )
        standing = files.of_session(self._catalog, session.id, states=_STANDING, limit=_LAST)
        standing.reverse()  # oldest first
        of_exposures = {file.exposure_id for file in standing if file.kind in IMAGES and file.exposure_id is not None}
        its_exposures = [exposures.get(self._catalog, exposure_id) for exposure_id in of_exposures]
        inputs = {each.input_file_id for each in its_exposures if each.input_file_id is not None}
        older = [files.get(self._catalog, file_id) for file_id in inputs - {file.id for file in standing}]
        older = [file for file in older if file.state in _STANDING]
        for exposure_id, file in inputs_left([*older, *standing], its_exposures):
            exposures.attach_input(self._catalog, exposure_id, file.id)
            if file.state is FileState.DAMAGED:
                exposures.set_state(self._catalog, exposure_id, ExposureState.QUARANTINED, _why(file))
        self._references[session.id] = references

    def _all_exposures(self, session: Session) -> Iterator[Exposure]:
        before: UUID | None = None
        while found := exposures.page(self._catalog, session.id, limit=_PAGE, before=before):
            yield from found
            before = found[-1].id

    # -- whole files ------------------------------------------------------------------------------------------------

    def _journal(self, content: Content, signature: Signature) -> None:
        session = self._session(content.placement)
        if self._has_a_first(session, content.placement):
            self._record(session, None, content.placement, signature, FileState.ARRIVED, "")
            return
        exposure = self._exposure(session, content)
        if exposure is not None:
            self._describe(session, exposure, content)
        if content.frame_sets:
            references, described_in = self._references[session.id], content.placement.path_in_session
            self._frame_sets.arrived(session, described_in, content.frame_sets, references)
        if content.placement.kind in REFERENCES:
            self._reference_arrived(session, content.placement)
        file = self._record(session, exposure, content.placement, signature, FileState.ARRIVED, "")
        if exposure is not None and file.kind in IMAGES:
            exposures.attach_input(self._catalog, exposure.id, file.id)
        if content.mistaken_for is not None:
            self._correct(session, content.mistaken_for)
        if content.complaint:
            self._event(Severity.WARNING, "metadata.unusable", content.complaint, session, file)

    def _journal_together(self, whole: Mapping[int, tuple[Content, Signature]]) -> list[int]:
        """Journal files of sessions that are known; the numbers of those that stand there now."""
        numbers: dict[UUID, list[int]] = {}
        known: dict[UUID, Session] = {}
        for number, (content, _) in whole.items():
            session = self._session(content.placement)
            known[session.id] = session
            numbers.setdefault(session.id, []).append(number)
        done = []
        for session_id, its in numbers.items():
            session, given = known[session_id], [whole[number] for number in its]
            along = [Whole(each, seen, self._roster.place_id(session, each.placement)) for each, seen in given]
            stand = self._together.journal(session, self._references[session_id], along)
            done += [number for number, stands in zip(its, stand, strict=True) if stands]
        return done

    def _correct(self, session: Session, name: str) -> None:
        """A stack that was taken for an exposure while its mdoc did not say yet what it is: it waits for nothing."""
        exposure = exposures.by_name(self._catalog, session.id, name)
        if exposure is not None:
            exposures.set_state(self._catalog, exposure.id, ExposureState.QUARANTINED, _STACK)

    def _has_a_first(self, session: Session, placement: Placement) -> bool:
        """Whether a file of another place of the session stands for the same path: this one then changes nothing."""
        first = files.standing(self._catalog, session.id, placement.path_in_session)
        return first is not None and first.place_id != self._roster.place_id(session, placement)

    def _exposure(self, session: Session, content: Content) -> Exposure | None:
        """The file's exposure. Images and descriptions make one; a preview joins one that is there."""
        placement = content.placement
        if placement.exposure_name is None:
            return None
        if placement.kind in IMAGES or content.description is not None:
            return self._ensure(session, placement)
        return exposures.by_name(self._catalog, session.id, placement.exposure_name)

    def _ensure(self, session: Session, placement: Placement) -> Exposure:
        assert placement.exposure_name is not None
        return exposures.ensure(
            self._catalog,
            session.id,
            placement.exposure_name,
            grid_square=placement.grid_square,
            foil_hole=placement.foil_hole,
        )

    def _describe(self, session: Session, exposure: Exposure, content: Content) -> None:
        metadata = over_and_below(content, exposure.metadata)
        said = self._frame_sets.said_of(session, exposure) if content.placement.kind in IMAGES else []
        for frame_set in said:
            metadata = described(metadata, frame_set.metadata)
        metadata = with_references(metadata, self._references[session.id], exposure.name)
        if metadata != exposure.metadata:
            exposures.attach_metadata(self._catalog, exposure.id, metadata)
        self._frame_sets.used(said)

    def _record(
        self,
        session: Session,
        exposure: Exposure | None,
        placement: Placement,
        signature: Signature,
        state: FileState,
        detail: str,
    ) -> DataFile:
        return files.record_arrival(
            self._catalog,
            session_id=session.id,
            relative_path=placement.path_in_session,
            kind=placement.kind,
            size_bytes=signature[0],
            modified_ns=signature[1],
            stores=self._copies.stores(placement.kind),
            priority=self._copies.priority(placement.kind),
            exposure_id=None if exposure is None else exposure.id,
            state=state,
            detail=detail,
            place_id=self._roster.place_id(session, placement),
        )

    # -- references -------------------------------------------------------------------------------------------------

    def _reference_arrived(self, session: Session, placement: Placement) -> None:
        """A gain or defect file counts for exposures that were there before it, too.

        All of them are told before it is journalled: where a kill or the catalog stops that, it is taken again.
        """
        references, path = self._references[session.id], placement.path_in_session
        listed = references.gains if placement.kind is FileKind.GAIN else references.defects
        if path in listed:
            return
        if placement.kind is FileKind.GAIN:
            references = replace(references, gains=(*listed, path))
        else:
            references = replace(references, defects=(*listed, path))
        self._refer(session, references)
        in_use = next((known for known in listed if "/" not in known), None)
        if in_use is not None and "/" not in path:
            message = (
                f"{printable(path)}: a second {placement.kind} reference; where the metadata names none, "
                f"{printable(in_use)} stays in use. Choose with `coldchain session set`"
            )
            self._event(Severity.WARNING, "reference.second", message, session)
        self._references[session.id] = references

    def _refer(self, session: Session, references: References) -> None:
        """Note references in every exposure of the session that lacks them."""
        for exposure in self._all_exposures(session):
            metadata = with_references(exposure.metadata, references, exposure.name)
            if metadata != exposure.metadata:
                exposures.attach_metadata(self._catalog, exposure.id, metadata)

    # -- files that are not well ------------------------------------------------------------------------------------

    def _hold_back(self, placement: Placement, signature: Signature, state: FileState, detail: str) -> Verdict:
        session = self._session(placement)
        if self._has_a_first(session, placement):
            self._record(session, None, placement, signature, state, detail)
            return Verdict.DAMAGED if state is FileState.DAMAGED else Verdict.UNREADABLE
        of_exposure = placement.exposure_name is not None and placement.kind in IMAGES
        exposure = self._ensure(session, placement) if of_exposure else None
        file = self._record(session, exposure, placement, signature, state, detail)
        damaged = state is FileState.DAMAGED
        if exposure is not None and self._has_nothing_else(exposure.input_file_id, placement):
            if damaged:  # it is the exposure's input all the same: whoever asks for it may have it tried
                exposures.attach_input(self._catalog, exposure.id, file.id)
            to = ExposureState.QUARANTINED if damaged else ExposureState.WAITING
            exposures.set_state(self._catalog, exposure.id, to, _why(file))
        return Verdict.DAMAGED if damaged else Verdict.UNREADABLE

    def _has_nothing_else(self, input_file_id: UUID | None, placement: Placement) -> bool:
        """Whether an exposure has no input, or one that this very file has just replaced."""
        if input_file_id is None:
            return True
        return files.get(self._catalog, input_file_id).relative_path == placement.path_in_session

    def _event(
        self, severity: Severity, kind: str, message: str, session: Session | None, file: DataFile | None = None
    ) -> None:
        events.record(
            self._catalog,
            severity,
            kind,
            message,
            session_id=None if session is None else session.id,
            exposure_id=None if file is None else file.exposure_id,
            file_id=None if file is None else file.id,
        )


def inputs_left(standing: Iterable[DataFile], known: Iterable[Exposure]) -> list[tuple[UUID, DataFile]]:
    """Which exposures still lack an input that is there, as (exposure id, file), in the order of arrival. Pure.

    A kill between journalling a file and giving it to its exposure leaves such pairs. `standing` are files that have
    arrived or are damaged, oldest first.
    """
    images = {file.id: file for file in standing if file.kind in IMAGES and file.exposure_id is not None}
    input_of = {exposure.id: images.get(exposure.input_file_id) for exposure in known if exposure.input_file_id}
    left = []
    for file in images.values():
        assert file.exposure_id is not None
        current = input_of.get(file.exposure_id)
        if current is None or _is_better(file, current):
            input_of[file.exposure_id] = file
            left.append((file.exposure_id, file))
    return left


def _is_better(file: DataFile, current: DataFile) -> bool:
    """A damaged file is better than none only; a micrograph is no better than a movie, even a damaged one."""
    if file.state is FileState.DAMAGED:
        return False
    if current.kind is not file.kind:
        return file.kind is FileKind.MOVIE
    return current.state is FileState.DAMAGED


def _why(file: DataFile) -> str:
    return f"its {file.kind} is {file.state}: {file.detail}"
