"""An instrument's sessions whose files lie on several computers: movies on one, metadata on another."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from coldchain.catalog import engine, events, exposures, files, places, replicas, sessions, tasks
from coldchain.catalog.engine import Catalog
from coldchain.collect.completeness import Examination, Verdict
from coldchain.collect.intake import Intake
from coldchain.model.files import DataFile, FileState, ReplicaState
from coldchain.model.policy import everywhere
from coldchain.model.session import Exposure, ExposureState, Layout, Session
from coldchain.storage.copies.copier import Copier
from coldchain.storage.posix.store import PosixStore
from tests.collect.camera_folder import STEM, wait_for, write_mdoc, write_movie, write_xml

DATA = "Images-Disc1/GridSquare_8999138/Data"
NAME = f"{DATA}/{STEM}"


class Roots:
    """The camera's and the microscope's computer, and what was taken from them."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        self.catalog = catalog
        self.camera, self.scope = folder / "movies", folder / "scope"
        self.scope.mkdir(exist_ok=True)
        self.restart()

    def restart(self) -> None:
        """Forget all that is not in the catalog."""
        movies = Intake(
            self.catalog,
            instrument_name="krios",
            source_root=self.camera,
            copies=everywhere(("live",)),
            metadata_roots=(self.scope,),
        )
        self.intakes = {self.camera: movies, self.scope: movies.beside(self.scope)}
        for intake in self.intakes.values():
            intake.resume()

    def take(self, path: Path, *, last_try: bool = False) -> Verdict:
        """Take a file as it stands now, by the intake of its root."""
        root = next(root for root in self.intakes if path.is_relative_to(root))
        status = path.lstat()
        signature = status.st_size, status.st_mtime_ns
        return self.intakes[root].take(Examination(str(path.relative_to(root)), signature, last_try))

    def take_all(self, *roots: Path) -> None:
        """Take every file under these roots, one root after the other."""
        for root in roots:
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    assert self.take(path) is Verdict.TAKEN

    def is_known(self, path: Path) -> bool:
        """Whether a file need not be taken as it stands now."""
        root = next(root for root in self.intakes if path.is_relative_to(root))
        relative, status = str(path.relative_to(root)), path.lstat()
        return relative in self.intakes[root].known_among({relative: (status.st_size, status.st_mtime_ns)})

    def session(self) -> Session:
        """The one session that there is."""
        (found,) = sessions.list_all(self.catalog)
        return found

    def exposure(self, name: str = NAME) -> Exposure:
        """An exposure of it."""
        found = exposures.by_name(self.catalog, self.session().id, name)
        assert found is not None
        return found

    def files(self) -> dict[str, DataFile]:
        """Its files that stand."""
        found = files.of_session(self.catalog, self.session().id, limit=1000)
        return {file.relative_path: file for file in found if file.state is not FileState.REPLACED}

    def events(self, kind: str) -> list[str]:
        """The messages of one kind of event."""
        return [event.message for event in events.recent(self.catalog, limit=1000) if event.kind == kind]


@pytest.fixture
def roots(catalog: Catalog, root: Path) -> Roots:
    """Two empty roots and an empty catalog."""
    return Roots(catalog, root.parent)


def plant(camera: Path, scope: Path) -> None:
    """One exposure: its movie with the camera, its XML, picture and the session's own files with the microscope."""
    write_movie(camera / DATA / f"{STEM}_Fractions.mrc")
    write_xml(scope / DATA / f"{STEM}.xml")
    (scope / "EpuSession.dm").write_text("<EpuSession/>")
    (scope / "Metadata").mkdir()
    (scope / "Metadata/GridSquare_8999138.dm").write_text("<GridSquare/>")


@pytest.mark.parametrize(
    ("where", "camera_first", "restart"),
    [("visit", True, False), ("2026/visit", False, True), (".", False, False), ("2026/visit", True, True)],
)
def test_two_computers_make_one_exposure(roots: Roots, where: str, camera_first: bool, restart: bool) -> None:
    """Whichever is seen first, also over a restart; every file remembers where it was read."""
    plant(roots.camera / where, roots.scope / where)
    order = (roots.camera, roots.scope) if camera_first else (roots.scope, roots.camera)
    roots.take_all(order[0])
    if restart:
        roots.restart()
    roots.take_all(order[1])
    session, exposure = roots.session(), roots.exposure()
    assert (session.folder, session.source_root, session.layout) == (where, str(roots.camera), Layout.EPU)
    assert exposure.state is ExposureState.READY
    assert exposure.metadata.optics.pixel_size_angstrom == pytest.approx(0.66)  # the XML's, not the header's 1.3
    assert exposure.grid_square == "8999138"
    for path, file in roots.files().items():
        its = places.folder_of(roots.catalog, session, file)
        assert its == (roots.camera if path.endswith(".mrc") else roots.scope) / where
    assert len(roots.files()) == 4


@pytest.mark.parametrize(
    ("here", "there", "camera_first", "restart"),
    [
        ("visit/S1", "2026/march/visit/S1", True, True),
        ("visit/S1", "2026/march/visit/S1", False, True),
        ("S1", "a/S1", False, False),
        ("x/S1", "S1", True, False),
    ],
)
def test_a_session_at_another_depth_is_joined_by_its_name_and_its_squares(
    roots: Roots, here: str, there: str, camera_first: bool, restart: bool
) -> None:
    """Where no folder of the same path is there, one of the same name with a grid square in common is the same."""
    plant(roots.camera / here, roots.scope / there)
    order = (roots.camera, roots.scope) if camera_first else (roots.scope, roots.camera)
    roots.take_all(order[0])
    if restart:
        roots.restart()
    roots.take_all(order[1])
    exposure = roots.exposure()
    assert exposure.state is ExposureState.READY
    assert exposure.metadata.optics.pixel_size_angstrom == pytest.approx(0.66)
    for path, file in roots.files().items():
        expected = roots.camera / here if path.endswith(".mrc") else roots.scope / there
        assert places.folder_of(roots.catalog, roots.session(), file) == expected
    write_xml(roots.scope / there / DATA / f"{STEM.replace('_6_', '_7_')}.xml")
    roots.restart()
    roots.take_all(roots.scope, roots.camera)
    assert len(roots.files()) == 5
    assert roots.events("file.second") == []


def test_a_name_alone_joins_no_epu_sessions(roots: Roots) -> None:
    """Two visits may call their sessions the same: with no grid square in common they stay apart."""
    plant(roots.camera / "visit1/Session", roots.scope / "visit1/Session")
    shutil.rmtree(roots.scope / "visit1")
    write_xml(roots.scope / "x/visit2/Session/Images-Disc1/GridSquare_1/Data" / f"{STEM}.xml")
    roots.take_all(roots.camera, roots.scope)
    assert {session.folder for session in sessions.list_all(roots.catalog)} == {"visit1/Session", "x/visit2/Session"}


def test_of_two_folders_of_a_name_only_one_joins(roots: Roots) -> None:
    """A second folder of one root is another session, even where its squares are the same."""
    plant(roots.camera / "visit/S", roots.scope / "a/S")
    write_xml(roots.scope / "b/S" / DATA / f"{STEM}.xml", pixel_size_angstrom=0.9)
    roots.take_all(roots.camera, roots.scope)
    assert {session.folder for session in sessions.list_all(roots.catalog)} == {"visit/S", "b/S"}
    roots.restart()
    roots.take_all(roots.scope, roots.camera)
    assert len(sessions.list_all(roots.catalog)) == 2


@pytest.mark.parametrize(("first", "same_size"), [("camera", True), ("scope", False)])
def test_of_two_files_of_one_path_the_first_stays(roots: Roots, first: str, same_size: bool) -> None:
    """The second is said once, with its size where that differs, and changes nothing, however often it is seen."""
    one, other = (roots.camera, roots.scope) if first == "camera" else (roots.scope, roots.camera)
    write_xml(one / "visit" / DATA / f"{STEM}.xml")
    path = write_xml(other / "visit" / DATA / f"{STEM}.xml", pixel_size_angstrom=0.77 if same_size else 0.7712)
    for _ in range(3):
        roots.take_all(one, other)
        roots.restart()
    assert roots.exposure().metadata.optics.pixel_size_angstrom == pytest.approx(0.66)
    (file,) = roots.files().values()
    assert places.folder_of(roots.catalog, roots.session(), file) == one / "visit"
    (message,) = roots.events("file.second")
    assert str(other / "visit") in message or "own folder" in message
    assert ("of the same size" in message) == same_size
    assert len(roots.events("file.arrived")) == 1
    assert roots.events("file.replaced") == []
    os.utime(path, ns=(5, 5))
    roots.take_all(other, one)
    assert len(roots.events("file.second")) == 2  # other content is another matter


def test_a_second_file_that_is_the_same_in_all_is_said_and_then_known(roots: Roots) -> None:
    """A copy that kept its time stamp, too; once said, neither is taken again while it stays as it is."""
    first = write_movie(roots.camera / "visit/x.mrc")
    second = roots.scope / "visit/x.mrc"
    second.parent.mkdir()
    shutil.copy2(first, second)
    roots.take(first)
    assert roots.is_known(first) and not roots.is_known(second)
    roots.take(second)
    roots.restart()
    assert roots.is_known(first) and roots.is_known(second)
    assert len(roots.events("file.second")) == 1
    write_movie(first, value=9)
    write_movie(second, value=9)
    assert not roots.is_known(first) and not roots.is_known(second)
    roots.take_all(roots.scope, roots.camera)
    shutil.copy2(second, first)
    assert not roots.is_known(first)  # as it once was, but not as it was last


def test_a_damaged_second_file_harms_nothing(roots: Roots) -> None:
    """Nor does one that cannot be read."""
    movie = write_movie(roots.camera / "visit/x.mrc")
    roots.take_all(roots.camera)
    broken = roots.scope / "visit/x.mrc"
    broken.parent.mkdir()
    broken.write_bytes(movie.read_bytes()[:1100])
    assert roots.take(broken, last_try=True) is Verdict.DAMAGED
    assert roots.exposure("x").state is ExposureState.READY
    assert roots.files()["x.mrc"].state is FileState.ARRIVED


def test_references_are_known_whichever_root_they_came_from(roots: Roots) -> None:
    """A gain beside the metadata counts for movies on the camera's computer, before and after it."""
    for name in ("before", "after"):
        write_movie(roots.camera / f"visit/{name}.mrc")
    roots.take(roots.camera / "visit/before.mrc")
    roots.take(write_movie(roots.scope / "visit/K3_gain.mrc", frames=1))
    roots.take(roots.camera / "visit/after.mrc")
    for name in ("before", "after"):
        assert roots.exposure(name).metadata.optics.gain == "K3_gain.mrc"


def test_the_copier_reads_each_file_where_it_lies(roots: Roots, tmp_path: Path) -> None:
    """All copies of a session lie together under its own folder, whatever computer they came from."""
    plant(roots.camera / "visit/S1", roots.scope / "2026/S1")
    roots.take_all(roots.camera, roots.scope)
    (tmp_path / "live").mkdir()
    copier = Copier(roots.catalog, {"live": PosixStore("live", tmp_path / "live")})
    copier.start()
    wait_for(copier.idle, "the copies")
    copier.stop()
    assert tasks.to_copy(roots.catalog, state=ReplicaState.WANTED, stores=["live"], limit=9, exclude=())[0] == []
    for path, file in roots.files().items():
        (replica,) = replicas.of_file(roots.catalog, file.id)
        assert replica.state is ReplicaState.VERIFIED, replica.detail
        copied = tmp_path / "live/krios/visit/S1" / path
        assert copied.read_bytes() == (places.folder_of(roots.catalog, roots.session(), file) / path).read_bytes()


def test_leginons_two_trees_are_one_session(roots: Roots) -> None:
    """Frames in one tree, images in the other, one of them with the user's folder: names of sessions are unique."""
    image = "19jan31a_grid1_00005gr_00003sq_00001hl_v01_00002en"
    write_movie(roots.camera / f"anna/19jan31a/rawdata/{image}.frames.mrc")
    write_movie(roots.scope / f"19jan31a/rawdata/{image}.mrc", frames=1)
    write_movie(roots.scope / "19jan31a/rawdata/19jan31a_grid1_00005gr_00003sq.mrc", frames=1)
    roots.take_all(roots.scope, roots.camera)
    assert roots.session().layout is Layout.LEGINON
    exposure = roots.exposure(f"rawdata/{image}")
    assert exposure.input_file_id == roots.files()[f"rawdata/{image}.frames.mrc"].id
    assert (exposure.grid_square, exposure.foil_hole) == ("grid1_00005gr_00003sq", "00001hl")
    assert len(exposures.page(roots.catalog, roots.session().id, limit=9, before=None)) == 1


def test_a_metadata_root_that_moved_is_followed(roots: Roots) -> None:
    """What was not copied from it yet is looked for where it is mounted now."""
    plant(roots.camera / "visit", roots.scope / "visit")
    roots.take_all(roots.camera, roots.scope)
    roots.scope = roots.scope.rename(roots.scope.with_name("mounted-elsewhere"))
    roots.restart()
    xml = roots.files()[f"{NAME}.xml"]
    assert places.folder_of(roots.catalog, roots.session(), xml) == roots.scope / "visit"
    roots.take_all(roots.scope)
    assert roots.events("file.second") == []


def test_a_session_is_not_moved_by_another_root(roots: Roots) -> None:
    """Its own folder stays under the movie root, though the metadata's root has one of the same name."""
    (roots.scope / "visit").mkdir()
    write_mdoc(roots.scope / "visit/x.mrc.mdoc")
    roots.take_all(roots.scope)
    assert roots.session().source_root == str(roots.camera)
    roots.restart()
    assert roots.session().source_root == str(roots.camera)
    write_movie(roots.camera / "visit/x.mrc")
    roots.take_all(roots.camera)
    assert roots.exposure("x").state is ExposureState.READY


def test_two_collectors_of_one_session_do_not_undo_each_other(tmp_path: Path, empty_catalog: bytes) -> None:
    """Headers and XMLs are read at the same time by two threads: the XML's pixel size always counts."""
    (tmp_path / "catalog.sqlite").write_bytes(empty_catalog)
    with closing(engine.open_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}", "here")) as catalog:
        roots = Roots(catalog, tmp_path)
        for number in range(15):
            stem = f"FoilHole_1_Data_2_{number}_20250108_154915"
            write_movie(roots.camera / "visit" / DATA / f"{stem}_fractions.mrc")
            write_xml(roots.scope / "visit" / DATA / f"{stem}.xml")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(roots.take_all, (roots.camera, roots.scope)))
        found = exposures.page(catalog, roots.session().id, limit=100, before=None)
        assert len(found) == 15
        assert {exposure.state for exposure in found} == {ExposureState.READY}
        assert {round(exposure.metadata.optics.pixel_size_angstrom or 0, 6) for exposure in found} == {0.66}
