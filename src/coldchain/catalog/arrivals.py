"""Whole files that arrive together: journalled in one transaction, as if each had come alone.

Taken alone, a small file costs several transactions and a dozen statements, which is most of what is done with it. Here
many share them, and what all of them have in common is one event: a line for each would hide all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from sqlalchemy import Select, insert, orm, select

from coldchain.catalog import exposures
from coldchain.catalog.columns import path_digest
from coldchain.catalog.documents import metadata_from_json
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import EventRow, ExposureRow, FileRow, ReplicaRow
from coldchain.catalog.wants import wanted_row
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.files import FileKind, FileState
from coldchain.model.identity import is_safe_relative, new_id
from coldchain.model.optics import ExposureMetadata
from coldchain.model.session import ExposureState

MOST_TOGETHER = 256
"""So many at a time, so that others may write between them."""
_INPUTS = (FileKind.MOVIE, FileKind.MICROGRAPH)


@dataclass(frozen=True, slots=True)
class ItsExposure:
    """The exposure that a file belongs to.

    `describe` makes the exposure's metadata what they are with the file's. Where there is none of that name it is made,
    if `makes`; else the file belongs to none.
    """

    name: str
    describe: Callable[[ExposureMetadata], ExposureMetadata]
    makes: bool
    grid_square: str | None = None
    foil_hole: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A whole file of a session. `modified_ns` is its own time stamp; `stores` and `priority` are those of its copies;
    `place_id` is the session's other place in which it lies."""

    relative_path: str
    kind: FileKind
    size_bytes: int
    modified_ns: int
    stores: Sequence[str]
    priority: int
    exposure: ItsExposure | None = None
    place_id: UUID | None = None


def record(catalog: Catalog, session_id: UUID, arrived: Sequence[Arrival]) -> list[bool]:
    """Journal files of a session: rows, WANTED replicas, exposures with their metadata and their inputs, and events.

    Which of them stand there now. A path for which a file stands already is left out, for `files.record_arrival` to say
    what its content and its place are against the other's. Raises CatalogError, and nothing stands there, where one of
    them is refused.
    """
    for each in arrived:
        if not is_safe_relative(PurePosixPath(each.relative_path)):
            raise CatalogError(
                f"the path {printable(each.relative_path)!r}", expected="a path inside its session's folder"
            )
    digests = [path_digest(each.relative_path) for each in arrived]
    with catalog.writing() as unit:
        taken = set(unit.execute(taken_query(session_id, digests)).scalars())
        is_new = []
        for digest in digests:
            is_new.append(digest not in taken)
            taken.add(digest)
        new = [(each, digest) for each, digest, is_its in zip(arrived, digests, is_new, strict=True) if is_its]
        _Together(unit, session_id).write(new)
        return is_new


def taken_query(session_id: UUID, digests: Sequence[bytes]) -> Select[bytes]:
    """Those of these paths of a session for which a file stands."""
    return select(FileRow.path_digest).where(
        FileRow.session_id == session_id, FileRow.path_digest.in_(digests), FileRow.state != FileState.REPLACED
    )


def exposures_query(session_id: UUID, digests: Sequence[bytes]) -> Select[ExposureRow]:
    """A session's exposures whose names have these digests; of each the oldest first: two sites may both have made one.

    In the order of the index: for that of the ids alone, SQLite would go through all of the session's exposures.
    """
    return (
        select(ExposureRow)
        .where(ExposureRow.session_id == session_id, ExposureRow.name_digest.in_(digests))
        .order_by(ExposureRow.name_digest, ExposureRow.id)
    )


def kinds_query(file_ids: Sequence[UUID]) -> Select[UUID, FileKind]:
    """Files with their kinds."""
    return select(FileRow.id, FileRow.kind).where(FileRow.id.in_(file_ids))


@dataclass(slots=True)
class _Together:
    """What is written of one session in one transaction."""

    unit: orm.Session
    session_id: UUID
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    known: dict[str, ExposureRow] = field(default_factory=dict)
    metadata: dict[UUID, ExposureMetadata] = field(default_factory=dict)
    input_kinds: dict[UUID, FileKind] = field(default_factory=dict)
    found: list[ExposureRow] = field(default_factory=list)
    ready: dict[UUID, ExposureRow] = field(default_factory=dict)

    def write(self, arrived: Sequence[tuple[Arrival, bytes]]) -> None:
        if not arrived:
            return
        self._know([each.exposure.name for each, _ in arrived if each.exposure is not None])
        files, copies = [], []
        for each, digest in arrived:
            exposure = None if each.exposure is None else self._joined(each.exposure)
            file = self._file(each, digest, exposure)
            files.append(file)
            copies += [
                wanted_row(self.unit.info["site"], file["id"], each.size_bytes, store, each.priority)
                for store in dict.fromkeys(each.stores)
            ]
            if exposure is not None and each.kind in _INPUTS:
                self._feed(exposure, file["id"], each.kind)
        self.unit.flush()  # files refer to their exposures
        connection = self.unit.connection()
        for statement, rows in (
            (insert(FileRow), files),
            (insert(ReplicaRow), copies),
            (insert(EventRow), list(self._events(files))),
        ):
            if rows:
                connection.execute(statement, rows)

    def _know(self, names: Iterable[str]) -> None:
        """Read the exposures of these names, and of which kinds their inputs are."""
        digests = [path_digest(name) for name in dict.fromkeys(names)]
        if not digests:
            return
        for row in self.unit.scalars(exposures_query(self.session_id, digests)):
            self.known.setdefault(row.name, row)
        inputs = [row.input_file_id for row in self.known.values() if row.input_file_id is not None]
        if inputs:
            self.input_kinds.update(dict(self.unit.execute(kinds_query(inputs)).all()))

    def _joined(self, its: ItsExposure) -> ExposureRow | None:
        """The exposure, made where there is none, with what the file says of it."""
        row = self.known.get(its.name)
        if row is None and not its.makes:
            return None
        if row is None:
            row = self.known[its.name] = exposures.new_row(self.unit, self.session_id, its.name)
            self.metadata[row.id] = ExposureMetadata()
            self.found.append(row)
        if its.makes:
            exposures.fill_in(row, its.grid_square, its.foil_hole)
        standing = self.metadata.get(row.id) or metadata_from_json(row.details)
        self.metadata[row.id] = standing
        said = its.describe(standing)
        if said != standing:
            self.metadata[row.id] = said.over(standing)
            if exposures.put_metadata(row, standing, self.metadata[row.id]):
                self._make_ready(row)
        return row

    def _feed(self, row: ExposureRow, file_id: UUID, kind: FileKind) -> None:
        """Give an exposure its input, as `exposures.attach_input` does."""
        old = None if row.input_file_id is None else self.input_kinds.get(row.input_file_id)
        if not (old is FileKind.MOVIE and kind is FileKind.MICROGRAPH):
            row.input_file_id = file_id
            self.input_kinds[file_id] = kind
            self._make_ready(row)

    def _make_ready(self, row: ExposureRow) -> None:
        if exposures.change(row, ExposureState.READY, ""):
            self.ready[row.id] = row

    def _file(self, arrival: Arrival, digest: bytes, exposure: ExposureRow | None) -> dict[str, Any]:
        return {
            "id": new_id(),
            "site": self.unit.info["site"],
            "session_id": self.session_id,
            "exposure_id": None if exposure is None else exposure.id,
            "relative_path": arrival.relative_path,
            "path_digest": digest,
            "kind": arrival.kind,
            "size_bytes": arrival.size_bytes,
            "modified_ns": arrival.modified_ns,
            "state": FileState.ARRIVED,
            "detail": "",
            "arrived_at": self.now,
            "place_id": arrival.place_id,
        }

    def _events(self, files: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        """One of each kind; that of a single exposure or file says which."""
        for row in self.found if len(self.found) == 1 else ():
            yield self._event("exposure.found", f"exposure {printable(row.name)}", exposure_id=row.id)
        if len(self.found) > 1:
            yield self._event("exposure.found", f"{len(self.found)} exposures")
        for row in self.ready.values() if len(self.ready) == 1 else ():
            yield self._event("exposure.ready", f"{printable(row.name)} is {row.state}", exposure_id=row.id)
        if len(self.ready) > 1:
            yield self._event("exposure.ready", f"{len(self.ready)} exposures are ready")
        if len(files) == 1:
            (file,) = files
            message = f"{printable(file['relative_path'])} ({file['kind']}) is {file['state']}"
            yield self._event("file.arrived", message, exposure_id=file["exposure_id"], file_id=file["id"])
        else:
            yield self._event("file.arrived", f"{len(files)} files arrived")

    def _event(
        self, kind: str, message: str, *, exposure_id: UUID | None = None, file_id: UUID | None = None
    ) -> dict[str, Any]:
        return {
            "id": new_id(),
            "site": self.unit.info["site"],
            "at": self.now,
            "severity": Severity.INFO,
            "kind": kind,
            "message": message,
            "session_id": self.session_id,
            "exposure_id": exposure_id,
            "file_id": file_id,
        }
