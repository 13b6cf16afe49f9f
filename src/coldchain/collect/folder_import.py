"""A folder that is there already → one session: each of its files is taken once, as if it had just arrived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from coldchain.catalog import events, sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect.completeness import Timing
from coldchain.collect.import_report import ImportReport
from coldchain.collect.import_target import ImportTarget, place_of
from coldchain.collect.intake import Intake
from coldchain.collect.one_pass import RootPass, list_folder, take_all
from coldchain.collect.one_session import OneSession
from coldchain.collect.watcher import Sighting
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.session import Layout, Session

_LONGEST_NAME = 200
_PATIENCE_SECONDS = 5.0


class FolderImport:
    """Imports a folder, and others of the same session beside it.

    Parameters
    ----------
    catalog : where the session goes.
    folder : the session's folder.
    metadata : other folders that stand for it: in them lies what could lie in it, under the same paths.
    target : the instrument, its roots and stores.
    layout : how its files lie; None: as they tell.
    settle_seconds : how long a file must stand still.
    """

    def __init__(
        self,
        catalog: Catalog,
        folder: Path,
        *,
        metadata: Sequence[Path] = (),
        target: ImportTarget,
        layout: Layout | None,
        settle_seconds: float,
    ) -> None:
        self._catalog = catalog
        self._folder = folder
        self._metadata = tuple(metadata)
        self._target = target
        self._layout = layout
        self._timing = Timing(settle_seconds=settle_seconds, patience_seconds=settle_seconds)
        self._found: dict[Path, list[Sighting]] = {}
        self.report = ImportReport(folder.name, folder=str(folder))

    def survey(self) -> int:
        """See which files there are; how many. Nothing is written."""
        for folder in (self._folder, *self._metadata):
            self._found[folder], notices = list_folder(folder)
            self.report.notes.extend(notices)
        return sum(map(len, self._found.values()))

    def run(
        self,
        *,
        name: str | None = None,
        project: str | None = None,
        owner: str = "",
        mail: str = "",
        advance: Callable[[str], None] = lambda _path: None,
    ) -> ImportReport:
        """Import what `survey` has seen. The session is named after its folder, unless it is known or a name is given.
        `advance` is called with each file that was dealt with.

        Raises CatalogError; what was done until then stands, and is passed over the next time.
        """
        session = self._session(name, project, owner, mail)
        self.report.session, self.report.session_id = session.name, str(session.id)
        before = sessions.counts(self._catalog, session.id).exposures
        intake: Intake | None = None
        passes = []
        for folder, sightings in self._found.items():
            root, inside = place_of(folder, self._target.roots)
            roster = OneSession(self._catalog, session, root=root, folder=inside)
            if intake is None:
                intake = its = self._intake(root, roster)
            else:
                its = intake.beside(root, roster=roster)
            passes.append(RootPass(root, its, timing=self._timing, told=self.report.files))
            passes[-1].see(each._replace(path=f"{inside}/{each.path}") for each in sightings)
        take_all(passes, seconds=self._timing.settle_seconds + _PATIENCE_SECONDS, advance=advance)
        self.report.exposures = sessions.counts(self._catalog, session.id).exposures - before
        if self.report.news:
            message = (
                f"imported from {printable(str(self._folder))}: {self.report.exposures:,} new exposures, "
                f"{self.report.files.taken:,} files"
            )
            events.record(self._catalog, Severity.INFO, "session.imported", message, session_id=session.id)
        return self.report

    def _intake(self, root: Path, roster: OneSession) -> Intake:
        return Intake(
            self._catalog,
            instrument_name=self._target.instrument_name,
            source_root=root,
            copies=self._target.copies,
            roster=roster,
        )

    def _session(self, name: str | None, project: str | None, owner: str, mail: str) -> Session:
        root, folder = place_of(self._folder, self._target.roots)
        if root not in self._target.roots and (self._target.movie_root / folder).exists():
            raise CatalogError(
                f"{printable(str(self._target.movie_root))} has a folder {printable(folder)} too: their sessions "
                "could not be told apart",
                remedy="Rename the folder that is imported, or import it for another instrument",
            )
        session = sessions.create(
            self._catalog,
            name=printable(name or self._folder.name)[-_LONGEST_NAME:],
            instrument_name=self._target.instrument_name,
            source_root=str(root),
            folder=folder,
            layout=self._layout or Layout.PLAIN,
            project_name=project,
            owner_name=owner,
            owner_mail=mail,
        )
        if Path(session.source_root) != root:
            raise CatalogError(
                f"the folder {printable(folder)} of {printable(self._target.instrument_name)} belongs to session "
                f"{printable(session.name)}, whose files lie in {printable(session.source_root)}",
                remedy="Rename the folder that is imported, or import it for another instrument",
            )
        return session
