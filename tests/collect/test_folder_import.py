"""Sessions that were taken before are imported from their folders: EPU's, SerialEM's, plain ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coldchain.catalog import exposures, files, places, sessions
from coldchain.catalog.engine import Catalog, open_catalog, upgrade
from coldchain.collect.completeness import Timing
from coldchain.collect.folder_import import FolderImport
from coldchain.collect.import_report import ImportReport
from coldchain.collect.import_target import ImportTarget, place_of
from coldchain.collect.intake import Intake
from coldchain.collect.one_pass import RootPass, TakenFiles, take_all
from coldchain.collect.one_session import OneSession
from coldchain.errors import CatalogError
from coldchain.model.files import FileKind
from coldchain.model.policy import everywhere
from coldchain.model.session import ExposureState, Layout
from coldchain.simulate.plan import SessionPlan
from coldchain.simulate.session import simulate_session
from coldchain.simulate.specimen import Specimen, generate_specimen
from coldchain.simulate.truth import MovieParameters
from tests.facility import write_small_movie

SMALL = MovieParameters(
    frames=3, width=64, height=64, pixel_size_angstrom=2.0, dose_per_frame_e_per_square_angstrom=2.0, gain=True, seed=1
)


@pytest.fixture(scope="module")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog without rows, to be copied."""
    path = tmp_path_factory.mktemp("catalog") / "catalog.sqlite"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="module")
def specimen() -> Specimen:
    """What is on the simulated grid."""
    return generate_specimen(seed=1, diameter_angstrom=40)


@pytest.fixture
def catalog(empty_catalog: Path, tmp_path: Path) -> Iterator[Catalog]:
    """A catalog of this test's own."""
    (tmp_path / "catalog.sqlite").write_bytes(empty_catalog.read_bytes())
    opened = open_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}", "main")
    yield opened
    opened.close()


def _job(
    catalog: Catalog, folder: Path, *, metadata: tuple[Path, ...] = (), layout: Layout | None = None
) -> FolderImport:
    root = folder.parent.parent
    target = ImportTarget("scope", root / "camera", (root / "xml",), everywhere(["live", "archive"]), root / "results")
    return FolderImport(catalog, folder, metadata=metadata, target=target, layout=layout, settle_seconds=0.05)


def _imported(catalog: Catalog, folder: Path, **options: object) -> ImportReport:
    job = _job(catalog, folder, **options)  # type: ignore[arg-type]
    job.survey()
    return job.run()


@pytest.mark.parametrize("layout", [Layout.EPU, Layout.SERIALEM, Layout.PLAIN])
def test_a_session_of_any_software_is_imported_as_it_would_have_arrived(
    catalog: Catalog, tmp_path: Path, specimen: Specimen, layout: Layout
) -> None:
    """Exposures have their movies and what the metadata says of them, every file is wanted on every store, and a second
    import finds nothing new."""
    folder = tmp_path / "old" / "visit"
    plan = SessionPlan(layout=layout, container="tiff", movie=SMALL, exposures=2, seed=3)
    simulate_session(plan, folder, specimen=specimen, truth_path=tmp_path / "truth.json")
    report = _imported(catalog, folder)
    session = sessions.by_name(catalog, "visit")
    assert (session.layout, session.source_root, session.folder) == (layout, str(folder.parent), "visit")
    assert report.exposures == 2 and report.is_clean
    found = exposures.page(catalog, session.id, limit=10, before=None)
    assert {each.state for each in found} == {ExposureState.READY}
    if layout is not Layout.PLAIN:
        assert all(each.metadata.optics.pixel_size_angstrom == pytest.approx(2.0, rel=1e-3) for each in found)
    counts = sessions.counts(catalog, session.id)
    assert counts.files_arrived == report.files.taken == sum(1 for path in folder.rglob("*") if path.is_file())
    again = _imported(catalog, folder)
    assert (again.news, again.files.known) == (0, report.files.taken)


def test_a_folder_is_one_session_whatever_lies_in_it(catalog: Catalog, tmp_path: Path, specimen: Specimen) -> None:
    """An EPU tree some folders deeper and a movie beside it belong to the session that was named."""
    folder = tmp_path / "old" / "visit"
    plan = SessionPlan(layout=Layout.EPU, container="tiff", movie=SMALL, exposures=1)
    simulate_session(plan, folder / "Supervisor_1", specimen=specimen, truth_path=tmp_path / "truth.json")
    write_small_movie(folder / "test.tif")
    assert _imported(catalog, folder).exposures == 2
    (session,) = sessions.list_all(catalog)
    names = {each.name for each in exposures.page(catalog, session.id, limit=10, before=None)}
    assert "test" in names and any(name.startswith("Supervisor_1/Images-Disc") for name in names)


def test_metadata_in_another_folder_meets_its_movies(catalog: Catalog, tmp_path: Path, specimen: Specimen) -> None:
    """EPU's XML that lies on another disk under the same paths describes the exposures."""
    folder, metadata = tmp_path / "old" / "visit", tmp_path / "elsewhere" / "visit-xml"
    plan = SessionPlan(layout=Layout.EPU, container="tiff", movie=SMALL, exposures=1)
    simulate_session(plan, folder, specimen=specimen, truth_path=tmp_path / "truth.json")
    for path in [path for path in folder.rglob("*.xml") if path.is_file()]:
        moved = metadata / path.relative_to(folder)
        moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)
    assert _imported(catalog, folder, metadata=(metadata,)).exposures == 1
    session = sessions.by_name(catalog, "visit")
    (exposure,) = exposures.page(catalog, session.id, limit=10, before=None)
    assert exposure.metadata.source == "epu-xml"
    xml = next(each for each in files.of_session(catalog, session.id, limit=50) if each.relative_path.endswith(".xml"))
    assert places.folder_of(catalog, session, xml) == metadata


def test_a_folder_in_the_instruments_root_is_the_session_of_the_service(tmp_path: Path) -> None:
    """Below a root, by whatever name it is reached, the session's folder counts from there; elsewhere it is the last
    part."""
    roots = [tmp_path / "camera", tmp_path / "xml"]
    (tmp_path / "xml").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "xml")
    assert place_of(tmp_path / "xml" / "user" / "visit", roots) == (tmp_path / "xml", "user/visit")
    assert place_of(tmp_path / "link" / "visit", roots) == (tmp_path / "xml", "visit")
    assert place_of(tmp_path / "old" / "visit", roots) == (tmp_path / "old", "visit")


def test_bad_files_are_said_and_stop_nothing(catalog: Catalog, tmp_path: Path) -> None:
    """A cut movie is damaged at once, a link is passed over with a word, hidden and temporary files without; a name of
    bytes that are no text is a name."""
    folder = tmp_path / "old" / "visit"
    for name in ("a.tif", "b.tif", "c\udcff.tif", "d.tif.part", ".hidden.tif"):
        write_small_movie(folder / name)
    cut = folder / "b.tif"
    cut.write_bytes(cut.read_bytes()[:-50])
    (folder / "link.tif").symlink_to(folder / "a.tif")
    report = _imported(catalog, folder)
    assert (report.files.taken, report.files.damaged, report.is_clean) == (2, 1, False)
    assert any("symbolic link" in note for note in report.notes)
    assert any("b.tif is damaged" in fault for fault in report.files.faults)
    session = sessions.by_name(catalog, "visit")
    states = {each.name: each.state for each in exposures.page(catalog, session.id, limit=10, before=None)}
    assert states == {"a": ExposureState.READY, "b": ExposureState.QUARANTINED, "c\udcff": ExposureState.READY}


def test_a_file_that_grows_is_left_for_the_next_import(catalog: Catalog, tmp_path: Path) -> None:
    """What does not stand still is not taken, and said."""
    root = tmp_path / "old"
    write_small_movie(root / "visit" / "a.tif")
    growing = root / "visit" / "b.mrc"
    growing.write_bytes(bytes(100))
    session = sessions.create(
        catalog, name="visit", instrument_name="scope", source_root=str(root), folder="visit", layout=Layout.PLAIN
    )
    roster = OneSession(catalog, session, root=root, folder="visit")
    intake = Intake(catalog, instrument_name="scope", source_root=root, copies=everywhere(["live"]), roster=roster)
    now, told = [0.0], TakenFiles()

    def grow(seconds: float) -> None:
        now[0] += seconds
        growing.write_bytes(bytes(growing.stat().st_size + 1))

    def clock() -> float:
        return now[0]

    files_there = RootPass(root, intake, timing=Timing(settle_seconds=1, patience_seconds=1), told=told, clock=clock)
    sightings = [files_there.look(f"visit/{name}") for name in ("a.tif", "b.mrc")]
    files_there.see([each for each in sightings if each is not None])
    take_all([files_there], seconds=3, clock=clock, sleep=grow)
    assert (told.taken, told.changing) == (1, 1)
    assert any("still being written" in fault for fault in told.faults)


def test_equal_names_in_two_places_are_not_mixed_up(catalog: Catalog, tmp_path: Path) -> None:
    """A second folder of the same name elsewhere is refused, naming the first."""
    for where in ("old", "older"):
        write_small_movie(tmp_path / where / "visit" / "a.tif")
    _imported(catalog, tmp_path / "old" / "visit")
    with pytest.raises(CatalogError, match=r"belongs to session visit, whose files lie in .*old"):
        _imported(catalog, tmp_path / "older" / "visit")


def test_a_mount_that_is_away_does_not_move_what_was_imported_from_it(catalog: Catalog, tmp_path: Path) -> None:
    """A service that starts while the imported folder cannot be seen leaves the session where it is; a folder of that
    name in the instrument's own root is refused beforehand."""
    folder = tmp_path / "old" / "visit"
    write_small_movie(folder / "a.tif")
    _imported(catalog, folder)
    folder.parent.rename(tmp_path / "unmounted")
    (tmp_path / "camera").mkdir()
    intake = Intake(catalog, instrument_name="scope", source_root=tmp_path / "camera", copies=everywhere(["live"]))
    intake.resume()
    assert sessions.by_name(catalog, "visit").source_root == str(folder.parent)
    (tmp_path / "camera" / "visit").mkdir()
    (tmp_path / "unmounted").rename(folder.parent)
    with pytest.raises(CatalogError, match="could not be told apart"):
        _imported(catalog, folder)


def test_a_gain_reference_beside_the_movies_is_theirs(catalog: Catalog, tmp_path: Path, specimen: Specimen) -> None:
    """References are taken before movies, so that an exposure is never ready without its own."""
    folder = tmp_path / "old" / "visit"
    plan = SessionPlan(layout=Layout.SERIALEM, container="tiff", movie=SMALL, exposures=1, seed=3)
    simulate_session(plan, folder, specimen=specimen, truth_path=tmp_path / "truth.json")
    _imported(catalog, folder)
    session = sessions.by_name(catalog, "visit")
    (exposure,) = exposures.page(catalog, session.id, limit=2, before=None)
    (gain,) = files.of_kinds(catalog, session.id, [FileKind.GAIN])
    assert exposure.metadata.optics.gain == gain.relative_path
