"""A Leginon session → a session of the catalog: its exposures with what Leginon says of them, its files, and what
Appion found.

Everything here may be done again, and is, while a session is followed: an exposure is known by its name, a file by its
path, size and time stamp, a result by where it is from. Leginon's database says what there is; the files themselves are
taken as any that arrive (`Intake`), so that they are copied and computed like all others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from coldchain.catalog import events, exposures, foreign_runs, sessions
from coldchain.catalog.engine import Catalog
from coldchain.catalog.leginon.appion import AppionReader
from coldchain.catalog.leginon.images import TABLE, ImageReader
from coldchain.collect.completeness import Timing
from coldchain.collect.import_report import ImportReport
from coldchain.collect.import_target import ImportTarget
from coldchain.collect.leginon_files import LeginonFiles
from coldchain.collect.leginon_places import Home
from coldchain.collect.path_map import PathMap
from coldchain.errors import CatalogError, StorageError, printable
from coldchain.model.events import Severity
from coldchain.model.leginon import ForeignResult, LeginonImage, LeginonSession, Unusable
from coldchain.model.results import Pick, PickResult
from coldchain.model.session import DescribedExposure, Exposure, Layout, Session

log = logging.getLogger(__name__)

_SEEN_AGAIN = 500
"""So many of the last ids are asked for again: rows may appear in another order than that of their ids."""
_DESCRIBED_AT_ONCE = 50
_RESULTS_AT_ONCE = 50
_RESULTS_SECONDS = 60.0
_LONGEST_NAME = 200


class LeginonImport:
    """One session's import: `run` for what there is, `follow` for what comes.

    Parameters
    ----------
    catalog : where the session goes.
    session : Leginon's session.
    images, results : its readers; without `results` Appion's are left alone.
    target : the instrument, its roots and stores.
    path_map : Leginon's host's paths → this one's.
    timing : how long files stand still before they are taken, and how long they are waited for in following.
    advance : called after each image and each file.

    Raises CatalogError where Leginon's paths lead nowhere.
    """

    def __init__(
        self,
        catalog: Catalog,
        session: LeginonSession,
        images: ImageReader,
        results: AppionReader | None,
        *,
        target: ImportTarget,
        path_map: PathMap,
        timing: Timing,
        advance: Callable[[], None] = lambda: None,
    ) -> None:
        self._catalog = catalog
        self._leginon = session
        self._reader = images
        self._results = results
        self._target = target
        self._timing = timing
        self._advance = advance
        self.report = ImportReport(session.name)
        self._files = LeginonFiles(catalog, session, target=target, path_map=path_map, report=self.report)
        self._session: Session | None = None
        self._exposures: dict[int, UUID | None] = {}
        self._aligned: dict[int, str] = {}
        self._by_name: dict[str, int] = {}
        self._held: list[ForeignResult] = []
        self._last = 0
        self._under, self._over = 0, 0

    @property
    def folder(self) -> Path:
        """The session's own folder."""
        home = self._files.homes[0]
        return home.root / home.folder

    def survey(self) -> ImportReport:
        """What an import would find; nothing is written. Raises CatalogError."""
        self.report.folder = str(self.folder)
        for page in self._reader.pages(0):
            for image in self._usable(page):
                self._remember(image, None)
        self._files.look(take=False)
        self._conclude()
        return self.report

    def run(self) -> ImportReport:
        """Import what there is, and wait for files that still are written only as long as one must stand still.

        Raises CatalogError; what was done until then stands.
        """
        self._reader.check()
        self._begin(replace(self._timing, patience_seconds=self._timing.settle_seconds))
        self._read_images()
        self._files.look(take=True)
        self._files.take_all(self._taken)
        self._read_results()
        self._conclude()
        self._say()
        return self.report

    def follow(self, stopping: threading.Event, *, every_seconds: float, told: Callable[[ImportReport], None]) -> None:
        """Import what there is and what comes until `stopping` is set; `told` is called when there is something new.

        A database that does not answer, this facility's or Leginon's, is asked again by itself. Raises CatalogError
        only where that is so from the beginning.
        """
        self._begin(self._timing)
        results_at, trouble = 0.0, ""
        while not stopping.is_set():
            before = self.report.news
            try:
                self._read_images()
                self._files.look(take=True)
                self._files.take_due(self._taken)
                if time.monotonic() >= results_at:
                    self._read_results()
                    results_at = time.monotonic() + _RESULTS_SECONDS
                trouble = ""
            except (CatalogError, StorageError) as error:
                if str(error) != trouble:
                    log.error("following %s: %s", printable(self._leginon.name), error)  # noqa: TRY400
                trouble = str(error)
            if self.report.news != before:
                told(self.report)
            stopping.wait(every_seconds)
        self._conclude()
        self._say()

    # -- the session ------------------------------------------------------------------------------------------------

    def _begin(self, timing: Timing) -> None:
        own, *others = self._files.homes
        session = self._found([own, *others]) or sessions.create(
            self._catalog,
            name=printable(self._leginon.name)[:_LONGEST_NAME],
            instrument_name=self._target.instrument_name,
            source_root=str(own.root),
            folder=own.folder,
            layout=Layout.LEGINON,
            project_name=self._leginon.project or None,
            owner_name=self._leginon.owner_name,
            owner_mail=self._leginon.owner_mail,
        )
        if session.layout is not Layout.LEGINON:
            session = sessions.set_layout(self._catalog, session.id, Layout.LEGINON)
        self._session = session
        self._files.begin(session, timing)
        self.report.session_id = str(session.id)
        self.report.folder = str(Path(session.source_root, session.folder))

    def _found(self, homes: Sequence[Home]) -> Session | None:
        """The session, if it is known already, by its folder and Leginon's name of it, which is no other's; with
        project and owner, where it has none. Raises CatalogError where another session has the folder."""
        instrument = self._target.instrument_name
        for home in homes:
            session = sessions.find(self._catalog, instrument_name=instrument, folder=home.folder)
            if session is None:
                continue
            is_there = Path(session.source_root) in {each.root for each in homes}
            if not is_there and session.folder.rpartition("/")[2] != self._leginon.name:
                raise CatalogError(
                    f"the folder {printable(home.folder)} of {printable(instrument)} belongs to session "
                    f"{printable(session.name)}, whose files lie in {printable(session.source_root)}",
                    remedy="Map Leginon's paths to other folders, or import it for another instrument",
                )
            return self._with_owner(session)
        return None

    def _with_owner(self, session: Session) -> Session:
        """What staff has set stays."""
        project = self._leginon.project if session.project is None and self._leginon.project else None
        owner = self._leginon.owner_name if not session.owner_name and self._leginon.owner_name else None
        mail = self._leginon.owner_mail if owner is not None and not session.owner_mail else None
        if project is None and owner is None:
            return session
        return sessions.update(self._catalog, session.id, project_name=project, owner_name=owner, owner_mail=mail)

    def _taken(self, _path: str) -> None:
        self._advance()

    # -- images -----------------------------------------------------------------------------------------------------

    def _read_images(self) -> None:
        self._files.refresh()
        for page in self._reader.pages(max(0, self._last - _SEEN_AGAIN)):
            self._enter(list(self._usable(page)))
            self._last = max(self._last, page[-1].id)

    def _usable(self, page: Sequence[LeginonImage | Unusable]) -> Iterator[LeginonImage]:
        """The images that were not seen before; those that cannot be used are said and left out."""
        for found in page:
            if found.id in self._exposures:
                continue
            if not isinstance(found, Unusable):
                yield found
                continue
            self._exposures[found.id] = None
            self.report.images += 1
            self._leave_out(found)
            self._advance()

    def _leave_out(self, found: Unusable) -> None:
        self.report.unusable += 1
        self.report.complain(found.table, found.id, "", found.reason)

    def _enter(self, images: Sequence[LeginonImage]) -> None:
        """Write down the exposures of a page of images, with what is said of them."""
        assert self._session is not None
        taken = [image for image in images if not image.is_overview and image.derived_from is None]
        names = {image.id: self._files.exposure_name(image) for image in taken}
        known = exposures.by_stems(self._catalog, self._session.id, list(names.values()))
        changed: list[tuple[LeginonImage, DescribedExposure, bool]] = []
        for image in images:
            if image.id not in names:
                self._remember(image, None)
                continue
            name = names[image.id]
            exposure = next((each for each in known.get(name, []) if each.name == name), None)
            said = DescribedExposure(name, self._files.as_known(image, exposure), image.grid_square, image.foil_hole)
            if exposure is not None and _says_nothing_new(said, exposure):
                self._remember(image, exposure.id)
            else:
                changed.append((image, said, exposure is None))
        for start in range(0, len(changed), _DESCRIBED_AT_ONCE):
            self._describe(changed[start : start + _DESCRIBED_AT_ONCE])

    def _describe(self, changed: Sequence[tuple[LeginonImage, DescribedExposure, bool]]) -> None:
        assert self._session is not None
        written = exposures.describe(self._catalog, self._session.id, [said for _, said, _ in changed])
        for (image, _, is_new), exposure in zip(changed, written, strict=True):
            self.report.exposures += is_new
            self.report.described += not is_new
            self._remember(image, exposure.id)

    def _remember(self, image: LeginonImage, exposure_id: UUID | None) -> None:
        """Note that an image was dealt with: one that was not, as a catalog was away, is read again."""
        self._exposures[image.id] = exposure_id
        self._files.want(image, exposure_id)
        self.report.images += 1
        for words in image.complaints:
            self.report.complain(TABLE, image.id, image.name, words)
        if image.derived_from is not None:
            self._aligned[image.id] = image.derived_from
            self.report.aligned += 1
        elif image.is_overview:
            self.report.overviews += 1
        else:
            self._by_name[image.name] = image.id
            defocus = image.metadata.applied_defocus_micrometer or 0.0
            self._under, self._over = self._under + (defocus < 0), self._over + (defocus > 0)
        self._advance()

    # -- results ----------------------------------------------------------------------------------------------------

    def _read_results(self) -> None:
        """Write down what Appion found by now; what is of images that have not been read yet is held."""
        if self._results is None:
            return
        waiting = self._held
        self._held = [result for result in waiting if result.image_id not in self._exposures]
        self._record([result for result in waiting if result.image_id in self._exposures])
        for found in self._results.new():
            for each in found:
                if isinstance(each, Unusable):
                    self._leave_out(each)
            self._record([each for each in found if isinstance(each, ForeignResult)])

    def _record(self, found: Sequence[ForeignResult]) -> None:
        matched: list[tuple[UUID, ForeignResult]] = []
        for result in found:
            if result.image_id not in self._exposures:
                self._held.append(result)
                continue
            # What was found in an aligned sum was found in the exposure that it is a sum of.
            source = self._by_name.get(self._aligned.get(result.image_id, ""), result.image_id)
            exposure_id = self._exposures.get(source)
            if exposure_id is not None:
                matched.append((exposure_id, scaled(result, self._files.scale(source))))
        for start in range(0, len(matched), _RESULTS_AT_ONCE):
            self.report.results += foreign_runs.record(self._catalog, matched[start : start + _RESULTS_AT_ONCE])

    # -- what it came to ----------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        notes = self.report.notes
        notes.clear()
        if self._over > self._under:
            notes.append(
                f"{self._over:,} of {self._over + self._under:,} exposures are over focus, as Leginon says: it counts "
                "underfocus as negative. See whether that is meant"
            )
        if self._held:
            notes.append(f"{len(self._held):,} of Appion's results are of images that are not in this session")

    def _say(self) -> None:
        """Write down in the catalog that there was an import, if it brought anything."""
        assert self._session is not None
        report = self.report
        if not report.news:
            return
        message = (
            f"imported from Leginon: {report.exposures:,} new exposures, {report.files.taken:,} files, "
            f"{report.results:,} of Appion's results"
        )
        events.record(self._catalog, Severity.INFO, "session.imported", message, session_id=self._session.id)
        if wrong := [*report.kinds(), *report.notes]:
            message = f"not all that Leginon says can be: {'; '.join(wrong)}"
            events.record(
                self._catalog, Severity.WARNING, "session.import_faults", message, session_id=self._session.id
            )


def _says_nothing_new(said: DescribedExposure, exposure: Exposure) -> bool:
    placed = (exposure.grid_square or said.grid_square, exposure.foil_hole or said.foil_hole)
    is_placed = placed == (exposure.grid_square, exposure.foil_hole)
    return is_placed and said.metadata.over(exposure.metadata) == exposure.metadata


def scaled(result: ForeignResult, scale: float) -> ForeignResult:
    """A result with its picks in pixels of an image that has `scale` times as many along a side; another result, as its
    parameters say. Pure."""
    if scale == 1.0 or not isinstance(result.result, PickResult):
        return result
    picks = tuple(
        Pick((pick.x_pixel + 0.5) * scale - 0.5, (pick.y_pixel + 0.5) * scale - 0.5, pick.figure_of_merit)
        for pick in result.result.picks
    )
    parameters = {**result.parameters, "scale": scale}
    return replace(result, parameters=parameters, result=replace(result.result, picks=picks))
