"""What is ready together is journalled together, and nobody can tell afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldchain.catalog import arrivals, engine, events, exposures, files, replicas, sessions
from coldchain.catalog.arrivals import Arrival
from coldchain.catalog.engine import Catalog
from coldchain.collect.completeness import Examination, Verdict
from coldchain.collect.intake import Intake
from coldchain.errors import CatalogAwayError, CatalogError
from coldchain.model.files import DataFile, FileKind, FileState
from coldchain.model.policy import everywhere
from coldchain.model.session import ExposureState
from tests.collect.camera_folder import DATA, write_mdoc, write_movie, write_xml
from tests.collect.test_collector import Collecting, collect
from tests.collect.test_frame_sets import series

__all__ = ["collect"]  # a fixture
STORES = ("live", "archive")
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Hundreds of transactions: this is not about disks."""
HOLE = f"{DATA}/FoilHole_1_Data_2_3_20250108_15491"


def new_intake(catalog: Catalog, root: Path) -> Intake:
    """An intake of a root."""
    return Intake(catalog, instrument_name="krios", source_root=root, copies=everywhere(STORES))


def as_it_stands(root: Path, path: str) -> Examination:
    """The last examination of a file as it stands now."""
    status = (root / path).lstat()
    return Examination(path, (status.st_size, status.st_mtime_ns), last_try=True)


def take_in_groups(intake: Intake, due: Sequence[Examination], sizes: Sequence[int]) -> None:
    """As a collector does, so many files at a time."""
    left, turn = list(due), count()
    while left:
        verdicts = intake.take_together(left[: sizes[next(turn) % len(sizes)]], clock=lambda: 0.0)
        for examination, verdict in zip(left, verdicts, strict=False):
            if verdict is None:
                intake.take(examination)
        left = left[len(verdicts) :]


def everything(catalog: Catalog) -> object:
    """All that the catalog says of files, copies and exposures, without keys and times."""
    said = []
    for session in sessions.list_all(catalog):
        its = {each.id: each for each in exposures.page(catalog, session.id, limit=10_000, before=None)}
        rows = {row.id: row for row in files.of_session(catalog, session.id, limit=10_000)}
        of_files = [
            (
                *(row.relative_path, row.kind, row.size_bytes, row.modified_ns, row.state, row.detail),
                None if row.exposure_id is None else its[row.exposure_id].name,
                sorted((copy.store, copy.state) for copy in replicas.of_file(catalog, row.id)),
            )
            for row in rows.values()
        ]
        of_exposures = [
            (
                *(each.name, each.state, each.reason, each.grid_square, each.foil_hole, each.metadata),
                None if each.input_file_id is None else rows[each.input_file_id].relative_path,
            )
            for each in its.values()
        ]
        said.append((session.folder, session.layout, sorted(of_files, key=str), sorted(of_exposures, key=str)))
    return sorted(said, key=str)


def _cut(path: Path) -> None:
    write_movie(path)
    path.write_bytes(path.read_bytes()[:-7])


def _text(path: Path, said: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(said)


CAMERA: dict[str, Callable[[Path], object]] = {
    f"{HOLE}1.xml": write_xml,
    f"{HOLE}1_fractions.mrc": write_movie,
    f"{HOLE}1.mrc": lambda path: write_movie(path, frames=1),
    f"{HOLE}1.jpg": lambda path: _text(path, "no picture"),
    f"{HOLE}2.xml": lambda path: write_xml(path, pixel_size_angstrom=0.5),
    f"{HOLE}2_fractions.mrc": _cut,
    f"{HOLE}3.xml": lambda path: _text(path, "<no"),
    f"{HOLE}3_fractions.mrc": lambda path: write_movie(path, pixel_size_angstrom=0.9),
    f"{HOLE}4.mrc": lambda path: write_movie(path, frames=1),
    "visit/gain.mrc": lambda path: write_movie(path, frames=1),
    "visit/gain2.mrc": lambda path: write_movie(path, frames=1),
    "visit/notes.txt": _text,
    "tomo/a.mrc": write_movie,
    "tomo/a.mrc.mdoc": write_mdoc,
    "tomo/ref.mrc": lambda path: write_movie(path, frames=1),
    "tomo/deep/b.mrc": write_movie,
    "tilts/TS_01_000.mrc": write_movie,
    "tilts/TS_01_001.mrc": write_movie,
    "tilts/TS_01.mdoc": lambda path: series(path, 2),
    "tilts/bytes\udcff.log": _text,
    "alone.mrc": write_movie,
}
"""What a root holds, by path, with what writes it: whole, cut, nonsense, of every kind."""


@settings(max_examples=4, deadline=None)
@given(
    order=st.permutations(list(CAMERA)),
    changed=st.sets(st.sampled_from(["visit/notes.txt", f"{HOLE}1_fractions.mrc", "tomo/a.mrc", f"{HOLE}2.xml"])),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
)
def test_it_is_as_if_each_had_come_alone(
    empty_catalog: bytes, order: list[str], changed: set[str], sizes: list[int]
) -> None:
    """Whatever comes in whatever order and groups, and some of it again with other content: files, versions, copies,
    exposures, their metadata, inputs and states are the same."""
    with TemporaryDirectory(prefix="coldchain-", dir=_MEMORY) as folder, ExitStack() as opened:
        root = Path(folder, "movies")
        for path, write in CAMERA.items():
            write(root / path)
        catalogs = []
        for name in ("alone", "together"):
            Path(folder, name).write_bytes(empty_catalog)
            catalogs.append(opened.enter_context(closing(engine.open_catalog(f"sqlite:///{folder}/{name}", "here"))))
        alone, together = (new_intake(catalog, root) for catalog in catalogs)
        for paths in (order, changed):
            if paths is changed:
                for path in changed:
                    with (root / path).open("ab") as stream:
                        stream.write(b"more")
            due = [as_it_stands(root, path) for path in paths]
            for examination in due:
                alone.take(examination)
            take_in_groups(together, due, sizes)
            assert everything(catalogs[0]) == everything(catalogs[1])


@pytest.fixture
def visit(root: Path, catalog: Catalog) -> Iterator[tuple[Intake, list[Examination]]]:
    """An intake that knows its session, and eight other files of it that are ready."""
    write_movie(root / "visit/first.mrc")
    intake = new_intake(catalog, root)
    assert intake.take(as_it_stands(root, "visit/first.mrc")) is Verdict.TAKEN
    for number in range(8):
        write_movie(root / f"visit/{number}.mrc")
    yield intake, [as_it_stands(root, f"visit/{number}.mrc") for number in range(8)]


def said(catalog: Catalog, kind: str) -> list[str]:
    """The messages of one kind of event, newest first."""
    return [event.message for event in events.recent(catalog, limit=1000) if event.kind == kind]


def test_many_are_one_event_and_one_is_its_own(catalog: Catalog, visit: tuple[Intake, list[Examination]]) -> None:
    """A line for each of a thousand files would hide all others."""
    intake, due = visit
    assert intake.take_together(due) == [Verdict.TAKEN] * 8
    assert said(catalog, "file.arrived") == ["8 files arrived", "first.mrc (movie) is arrived"]
    assert said(catalog, "exposure.found") == ["8 exposures", "exposure first"]
    assert said(catalog, "exposure.ready") == ["8 exposures are ready", "first is ready"]


def test_a_file_that_comes_alone_waits_for_no_other(visit: tuple[Intake, list[Examination]]) -> None:
    """It is the caller's to take at once; of several no more are gathered than fit the time."""
    intake, due = visit
    assert intake.take_together(due[:1]) == [None]
    hours = count(0, 3600)
    assert intake.take_together(due, clock=lambda: float(next(hours))) == [Verdict.TAKEN]


def test_what_stands_already_is_left_to_be_taken_alone(
    root: Path, catalog: Catalog, visit: tuple[Intake, list[Examination]]
) -> None:
    """New content of a path is a new version; the others go together all the same."""
    intake, due = visit
    intake.take_together(due[:3])
    write_movie(root / "visit/1.mrc", frames=5)
    again = as_it_stands(root, "visit/1.mrc")
    assert intake.take_together([again, *due[3:]]) == [None, *[Verdict.TAKEN] * 5]
    assert intake.take(again) is Verdict.TAKEN
    rows = [row for row in all_files(catalog) if row.relative_path == "1.mrc"]
    assert sorted(row.state for row in rows) == [FileState.ARRIVED, FileState.REPLACED]


def test_one_that_the_catalog_refuses_stops_no_other(
    root: Path, catalog: Catalog, visit: tuple[Intake, list[Examination]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is undone as a whole and nothing of it is left; each is then taken alone."""
    intake, due = visit
    real = arrivals._Together._file

    def refusing(self: arrivals._Together, arrival: Arrival, *rest: object) -> object:
        if arrival.relative_path == "5.mrc":
            raise CatalogError("not this one")
        return real(self, arrival, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(arrivals._Together, "_file", refusing)
    assert intake.take_together(due) == [None] * 8
    assert [row.relative_path for row in all_files(catalog)] == ["first.mrc"]
    assert [verdict for _, verdict in intake.take_all(due)] == [Verdict.TAKEN] * 8
    assert len(all_files(catalog)) == 9


def all_files(catalog: Catalog) -> list[DataFile]:
    """Every row of every session."""
    return [row for each in sessions.list_all(catalog) for row in files.of_session(catalog, each.id, limit=1000)]


@pytest.mark.parametrize("fault", [CatalogError("not this"), CatalogAwayError("away"), ZeroDivisionError("a bug")])
def test_a_collector_takes_one_by_one_what_fails_together(
    root: Path, collect: Callable[..., Collecting], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """Whatever is the matter with the transaction of many, each file of it arrives."""
    tried = count()

    def fail(*_arguments: object) -> list[bool]:
        next(tried)
        raise fault

    monkeypatch.setattr(arrivals, "record", fail)
    for number in range(12):
        write_movie(root / f"visit/{number}.mrc")
    collecting = collect()
    collecting.wait(collecting.collector.idle, "idleness")
    assert next(tried) > 0
    assert len(collecting.files()) == 12
    assert {exposure.state for exposure in collecting.exposures().values()} == {ExposureState.READY}
    assert not collecting.events("file.failed")


def test_a_burst_is_journalled_together(root: Path, collect: Callable[..., Collecting]) -> None:
    """What a scan finds at once takes few events, which speak of every file, each of which stands once."""
    for number in range(60):
        write_movie(root / f"visit/{number}.mrc")
    collecting = collect()
    collecting.wait(lambda: len(collecting.files()) == 60, "the movies")
    collecting.wait(collecting.collector.idle, "idleness")
    told = [event.message for event in collecting.events("file.arrived")]
    together = [int(message.split()[0]) for message in told if message.endswith(" files arrived")]
    assert sum(together) + len(told) - len(together) == 60
    assert together
    assert {(row.kind, row.state) for row in collecting.files()} == {(FileKind.MOVIE, FileState.ARRIVED)}
