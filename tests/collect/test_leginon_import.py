"""A Leginon session comes into the catalog from rows that are added as Leginon adds them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldchain.catalog import events, exposures, files, foreign_runs, places, results, sessions, steps
from coldchain.catalog.engine import Catalog, open_catalog, upgrade
from coldchain.catalog.leginon.appion import AppionReader
from coldchain.catalog.leginon.images import ImageReader
from coldchain.catalog.leginon.server import LeginonServer
from coldchain.catalog.leginon.sessions import find_session, list_sessions
from coldchain.collect.completeness import Examination, Timing
from coldchain.collect.import_report import ImportReport
from coldchain.collect.import_target import ImportTarget
from coldchain.collect.intake import Intake
from coldchain.collect.leginon_import import LeginonImport
from coldchain.collect.path_map import PathMap
from coldchain.errors import CatalogError
from coldchain.formats.defects import read_defects
from coldchain.formats.mrc import write_mrc
from coldchain.model.files import FileKind, FileState
from coldchain.model.policy import everywhere
from coldchain.model.results import CtfResult, Step
from coldchain.model.session import Exposure, ExposureState, Layout, Session
from tests.facility import write_small_movie
from tests.leginon_tables import FRAMES, LeginonTables
from tests.mariadb_servers import MariaDbServer, running_server

NAME = "24mar28a"
EN = f"{NAME}_g_00010gr_00003sq_00001hl_00002en"
SETTLE = Timing(settle_seconds=0.05, patience_seconds=0.4, retry_seconds=0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """One server for all of these tests; each makes its databases anew."""
    yield from running_server(tmp_path_factory.mktemp("leginon") / "db")


@dataclass
class Bench:
    """A Leginon database and a facility beside it, whose camera folders Leginon knows as /mydata."""

    tables: LeginonTables
    root: Path
    catalog: Catalog
    session_id: int = 0
    opened: list[LeginonServer] = field(default_factory=list)

    @property
    def frames(self) -> Path:
        """Where the session's frames lie."""
        return self.root / "mnt" / "frames" / NAME / "rawdata"

    @property
    def images(self) -> Path:
        """Where its summed images lie."""
        return self.root / "mnt" / "leginon" / NAME / "rawdata"

    def job(self, name: str = NAME, **options: Any) -> LeginonImport:
        """An import of a session, as the command makes it."""
        leginon = LeginonServer(self.tables.url())
        self.opened.append(leginon)
        session = find_session(leginon, name)
        target = ImportTarget("scope", self.root / "camera", (), everywhere(["live", "archive"]), self.root / "results")
        path_map = PathMap([f"/mydata={self.root / 'mnt'}"])
        reader, appion = ImageReader(leginon, session), AppionReader(leginon, session)
        chosen = {"target": target, "path_map": path_map, "timing": SETTLE, **options}
        return LeginonImport(self.catalog, session, reader, appion, **chosen)

    def run(self, **options: Any) -> ImportReport:
        """Import the session."""
        return self.job(**options).run()

    def session(self) -> Session:
        """The session in the catalog."""
        return sessions.by_name(self.catalog, NAME)

    def exposure(self, name: str = EN) -> Exposure:
        """One of its exposures."""
        found = exposures.by_name(self.catalog, self.session().id, f"rawdata/{name}")
        assert found is not None
        return found


@pytest.fixture(scope="module")
def tables(server: MariaDbServer) -> Iterator[LeginonTables]:
    """Its tables."""
    made = LeginonTables(server)
    yield made
    made.close()


@pytest.fixture(scope="module")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog without rows, to be copied."""
    path = tmp_path_factory.mktemp("catalog") / "catalog.sqlite"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def bench(tables: LeginonTables, tmp_path: Path, empty_catalog: Path) -> Iterator[Bench]:
    """A session of Leginon's without images, and the facility."""
    tables.clear()
    shutil.copy(empty_catalog, tmp_path / "catalog.sqlite")
    made = Bench(tables, tmp_path, open_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}", "main"))
    made.session_id = tables.session(NAME, f"/mydata/leginon/{NAME}/rawdata", f"/mydata/frames/{NAME}/rawdata")
    tables.calibrate(105000, 0.83e-10)
    for folder in (made.frames, made.images, tmp_path / "camera"):
        folder.mkdir(parents=True)
    yield made
    for leginon in made.opened:
        leginon.close()
    made.catalog.close()


def _write_image(path: Path, *, width: int = 64, height: int = 48) -> None:
    write_mrc(path, np.ones((height, width), dtype=np.float32), pixel_size_angstrom=1.0)


def _write_frames(path: Path, *, width: int = 64, height: int = 48) -> None:
    write_mrc(path, np.ones((3, height, width), dtype=np.float32), pixel_size_angstrom=1.0)


def _wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_an_exposure_comes_with_all_that_leginon_says_of_it(bench: Bench) -> None:
    """Metres, volts, radians, milliseconds and electrons per m² are Å, kV, degrees, seconds and e⁻/Å²; the preset's
    dose is scaled to the exposure's time; the newest calibration before the exposure counts."""
    tables = bench.tables
    tables.calibrate(105000, 0.82e-10, datetime(2024, 1, 1, tzinfo=UTC))
    tables.calibrate(105000, 0.99e-10, datetime(2024, 6, 1, tzinfo=UTC))
    tables.image(
        bench.session_id,
        EN,
        camera={
            **FRAMES,
            "SUBD|binning|x": 2,
            "SUBD|binning|y": 2,
            "exposure time": 3000.0,
            "frame gain corrected": 1,
            "energy filter": 1,
            "energy filter width": 20.0,
        },
        preset_row={"dose": 40e20, "exposure time": 2000.0},
    )
    report = bench.run()
    assert (report.images, report.exposures, report.awaited_frames) == (1, 1, 1)
    session = bench.session()
    assert session.project is not None and session.project.name == "beta-gal"
    assert (session.owner_name, session.owner_mail, session.folder) == ("Mary Miller", "m@x.org", NAME)
    exposure = bench.exposure()
    assert (exposure.state, exposure.grid_square, exposure.foil_hole) == (
        ExposureState.WAITING,
        "g_00010gr_00003sq",
        "00001hl",
    )
    said, optics = exposure.metadata, exposure.metadata.optics
    assert optics.pixel_size_angstrom == pytest.approx(1.64)
    assert (optics.voltage_kilovolt, optics.spherical_aberration_millimeter) == (300.0, 2.7)
    assert optics.dose_e_per_square_angstrom == pytest.approx(60.0)
    assert (optics.frame_count, optics.gain) == (40, None)
    assert said.applied_defocus_micrometer == -1.5
    assert said.acquired_at == datetime(2024, 3, 28, 12, tzinfo=UTC)
    assert (said.detector, said.microscope, said.magnification) == ("K3", "Krios1", 105000.0)
    assert (said.stage_x_micrometer, said.energy_slit_electronvolt) == (100.0, 20.0)
    assert said.tilt_degrees == pytest.approx(28.6479, abs=1e-4)


def test_its_files_are_journalled_where_they_lie_and_wanted_on_the_stores(bench: Bench) -> None:
    """Frames and sum make one exposure, whose input are the frames; both are wanted on every store."""
    bench.tables.image(bench.session_id, EN, camera={**FRAMES, "frame gain corrected": 1})
    write_small_movie(bench.frames / f"{EN}.frames.tif")
    _write_image(bench.images / f"{EN}.mrc")
    report = bench.run()
    assert (report.files.taken, report.awaited_frames, report.awaited_images, report.is_clean) == (2, 0, 0, True)
    exposure = bench.exposure()
    assert exposure.state is ExposureState.READY and exposure.input_file_id is not None
    found = {file.kind: file for file in files.of_exposure(bench.catalog, exposure.id)}
    assert exposure.input_file_id == found[FileKind.MOVIE].id
    for kind, folder in ((FileKind.MOVIE, bench.frames), (FileKind.MICROGRAPH, bench.images)):
        where = places.folder_of(bench.catalog, bench.session(), found[kind])
        assert (where / found[kind].relative_path).parent == folder
    assert sessions.counts(bench.catalog, bench.session().id).files_arrived == 2


def test_a_second_import_doubles_nothing_and_changes_nothing(bench: Bench) -> None:
    """Exposures, files, results and events stand there once, and what was changed by hand since stays."""
    image = bench.tables.image(bench.session_id, EN, camera={**FRAMES, "frame gain corrected": 1})
    _write_frames(bench.frames / f"{EN}.frames.mrc", width=128, height=96)
    _add_fit(bench.tables, bench.session_id, image)
    bench.run()
    sessions.update(bench.catalog, bench.session().id, project_name="another", owner_name="Someone")
    before = bench.exposure(), len(events.recent(bench.catalog, limit=1000))
    report = bench.run()
    assert report.news == 0 and report.files.known == 1
    assert (bench.exposure(), len(events.recent(bench.catalog, limit=1000))) == before
    assert len(sessions.list_all(bench.catalog)) == 1
    assert bench.session().owner_name == "Someone"
    assert len(steps.runs_of(bench.catalog, bench.exposure().id)) == 1


def test_frames_finer_than_their_sum_have_finer_pixels(bench: Bench) -> None:
    """Super-resolution frames have half the sum's pixel size, whenever they come; what Appion picked in the sum is
    moved to their pixels."""
    image = bench.tables.image(bench.session_id, EN, camera={**FRAMES, "frame gain corrected": 1})
    _add_picks(bench.tables, bench.session_id, image, [(10, 20, 0.9), (30, 40, 0.5)])
    bench.run()
    assert bench.exposure().metadata.optics.pixel_size_angstrom == pytest.approx(0.83)
    _write_frames(bench.frames / f"{EN}.frames.mrc", width=96, height=128)  # and turned
    bench.run()
    assert bench.exposure().metadata.optics.pixel_size_angstrom == pytest.approx(0.415)
    found = results.newest(bench.catalog, bench.exposure().id).picks
    assert found is not None
    assert [(pick.x_pixel, pick.y_pixel) for pick in found.picks] == [(20.5, 40.5), (60.5, 80.5)]
    assert bench.run().news == 0
    assert bench.exposure().metadata.optics.pixel_size_angstrom == pytest.approx(0.415)


def test_overviews_focus_images_and_aligned_sums_are_no_exposures(bench: Bench) -> None:
    """An image of a grid, square or hole, one on which targets were picked, one to focus, and Appion's aligned sum are
    kept as previews; square and hole are told from the targets where the names do not."""
    tables, session = bench.tables, bench.session_id
    square = tables.image(session, f"{NAME}_g_00010gr_00003sq_v01", "sq2")
    hole = tables.image(
        session, "odd_name_00007hl", "hl", **{"REF|AcquisitionImageTargetData|target": tables.target(session, square)}
    )
    odd = {"REF|AcquisitionImageTargetData|target": tables.target(session, hole)}
    tables.image(session, "movie_a", "en", camera=FRAMES, **odd)
    tables.image(session, "movie_a-a-DW", "en-a", **odd)
    focus = {"REF|AcquisitionImageTargetData|target": tables.target(session, hole, "focus")}
    tables.image(session, "focusing", "xx", **focus)
    tables.image(session, "unrelated-b", "en")
    for name in ("odd_name_00007hl", "movie_a-a-DW"):
        _write_image(bench.images / f"{name}.mrc")
    report = bench.run()
    assert (report.images, report.overviews, report.aligned, report.exposures) == (6, 3, 1, 2)
    exposure = bench.exposure("movie_a")
    assert (exposure.grid_square, exposure.foil_hole) == ("g_00010gr_00003sq", "00007hl")
    kinds = {file.kind for file in files.of_session(bench.catalog, bench.session().id, limit=10)}
    assert kinds == {FileKind.PREVIEW}


def test_a_gain_reference_is_waited_for_and_taken_from_the_session_that_has_it(bench: Bench) -> None:
    """Frames that are not corrected wait for the reference that Leginon names, wherever its session lies."""
    tables = bench.tables
    references = tables.session("ref24", "/mydata/leginon/ref24/rawdata", None, None)
    norm = tables.row("NormImageData", {"REF|SessionData|session": references, "MRC|image": "norm_ch0.mrc"})
    tables.image(bench.session_id, EN, camera=FRAMES, **{"REF|NormImageData|norm": norm})
    write_small_movie(bench.frames / f"{EN}.frames.tif")
    assert bench.run().awaited_gains == ["norm_ch0.mrc"]
    assert bench.exposure().metadata.optics.gain == "norm_ch0.mrc"
    folder = bench.root / "mnt/leginon/ref24/rawdata"
    folder.mkdir(parents=True)
    _write_image(folder / "norm_ch0.mrc")
    assert bench.run().awaited_gains == []
    named = bench.exposure().metadata.optics.gain
    gain = next(iter(files.of_kinds(bench.catalog, bench.session().id, [FileKind.GAIN])))
    assert named == gain.relative_path
    assert places.folder_of(bench.catalog, bench.session(), gain) / gain.relative_path == folder / "norm_ch0.mrc"


def test_a_correction_plan_becomes_a_list_of_defects_for_the_frames(bench: Bench) -> None:
    """Bad rows, columns and pixels of the camera are marked in frames that are finer and flipped, and the list is kept
    with the session's data."""
    plan = bench.tables.row(
        "CorrectorPlanData",
        {"SEQ|bad_rows": "(3, 4L)", "SEQ|bad_cols": "[7]", "SEQ|bad_pixels": "((10, 20), (11, 21))"},
    )
    camera = {**FRAMES, "frame flip": 1}
    bench.tables.image(bench.session_id, EN, camera=camera, **{"REF|CorrectorPlanData|corrector plan": plan})
    _write_frames(bench.frames / f"{EN}.frames.mrc", width=128, height=96)
    bench.run()
    name = bench.exposure().metadata.defects_name
    listed = next(iter(files.of_kinds(bench.catalog, bench.session().id, [FileKind.DEFECTS])))
    assert name == listed.relative_path
    path = places.folder_of(bench.catalog, bench.session(), listed) / listed.relative_path
    expected = np.zeros((48, 64), dtype=bool)
    expected[[3, 4], :] = True
    expected[:, 7] = True
    expected[[20, 21], [10, 11]] = True
    assert np.array_equal(read_defects(path, (96, 128)), np.kron(expected[::-1], np.ones((2, 2), dtype=bool)))


def _add_fit(tables: LeginonTables, session: int, image: int, **columns: Any) -> int:
    run = tables.row(
        "ApAceRunData",
        {"REF|leginondata|SessionData|session": session, "name": "ctf1", "REF|ApCtfFind4ParamsData|ctffind4_params": 5},
        "ap7",
    )
    return tables.row(
        "ApCtfData",
        {
            **{"REF|ApAceRunData|acerun": run, "REF|leginondata|AcquisitionImageData|image": image},
            **{"defocus1": -1.2e-6, "defocus2": -1.5e-6, "angle_astigmatism": 100.0, "confidence": 0.9},
            **{"ctffind4_resolution": 3.5, "extra_phase_shift": np.pi / 2, **columns},
        },
        "ap7",
    )


def _add_picks(tables: LeginonTables, session: int, image: int, picks: list[tuple[Any, Any, Any]]) -> int:
    params = tables.row("ApSelectionParamsData", {"diam": 180}, "ap7")
    run = tables.row(
        "ApSelectionRunData",
        {"REF|leginondata|SessionData|session": session, "REF|ApSelectionParamsData|params": params, "name": "dog1"},
        "ap7",
    )
    for x, y, correlation in picks:
        its = {"REF|ApSelectionRunData|selectionrun": run, "REF|leginondata|AcquisitionImageData|image": image}
        tables.row("ApParticleData", {**its, "xcoord": x, "ycoord": y, "correlation": correlation}, "ap7")
    return run


def test_what_appion_found_comes_along_and_what_we_compute_counts_over_it(bench: Bench) -> None:
    """Metres under focus of either sign are Å, the azimuth that of the larger defocus; a run of ours, whenever it was,
    counts over Appion's, and Appion's newest over its older ones."""
    image = bench.tables.image(bench.session_id, EN)
    _add_fit(bench.tables, bench.session_id, image, defocus1=-9e-7, defocus2=-9e-7)
    _add_fit(bench.tables, bench.session_id, image)
    _add_picks(bench.tables, bench.session_id, image, [(10, 20, 0.5), (30, 40, 0.9)])
    assert bench.run().results == 3
    found = results.newest(bench.catalog, bench.exposure().id)
    assert found.ctf is not None and found.picks is not None
    assert (found.ctf.defocus_u_angstrom, found.ctf.defocus_v_angstrom) == (pytest.approx(15000), pytest.approx(12000))
    assert (found.ctf.defocus_angle_degrees, found.ctf.phase_shift_degrees) == (10.0, pytest.approx(90))
    assert (found.ctf.score, found.ctf.fit_resolution_angstrom) == (0.9, 3.5)
    assert not found.ctf.trustworthy and "ctf1" in found.ctf.reason
    assert [(pick.x_pixel, pick.y_pixel) for pick in found.picks.picks] == [(30, 40), (10, 20)]
    assert found.picks.diameter_angstrom == 180
    run = next(run for run in steps.runs_of(bench.catalog, bench.exposure().id) if run.step is Step.CTF)
    assert run.parameters["program"] == "Appion ctffind4"
    mine = steps.begin(bench.catalog, bench.exposure().id, Step.CTF, "ours", {})
    ours = CtfResult(9000.0, 8000.0, 0, 0, 1, 4, 1, 10, True, "")
    steps.finish(bench.catalog, mine.id, outputs={}, seconds=1, result=ours)
    _add_fit(bench.tables, bench.session_id, image)
    assert bench.run().results == 1
    newest = results.newest(bench.catalog, bench.exposure().id).ctf
    assert newest is not None and newest.defocus_u_angstrom == 9000


def test_fits_of_aligned_sums_belong_to_their_exposure(bench: Bench) -> None:
    """A fit in an aligned sum, which is an image of its own in Leginon, is a result of the exposure."""
    bench.tables.image(bench.session_id, EN, camera=FRAMES)
    aligned = bench.tables.image(bench.session_id, f"{EN}-a", "en-a")
    _add_fit(bench.tables, bench.session_id, aligned)
    assert bench.run().results == 1
    assert results.newest(bench.catalog, bench.exposure().id).ctf is not None


def test_rows_that_cannot_be_are_said_and_stop_nothing(bench: Bench) -> None:
    """Names that lead out, dangling references, absurd numbers and bytes that are no text are each reported with the
    row, and all the rest comes."""
    tables, session = bench.tables, bench.session_id
    for name in ("../../etc/passwd", "a/b", "new\nline", "", None, ".."):
        tables.image(session, name)
    tables.image(session, "dangling", **{"REF|ScopeEMData|scope": 99999, "REF|PresetData|preset": 99999})
    tables.image(
        session,
        "absurd",
        scope={"defocus": -1.5, "high tension": 300},
        camera={"SUBD|binning|x": 0},
        preset_row={"dose": 1e40},
    )
    tables.image(session, "elsewhere", **{"MRC|image": "../../../secret.mrc"})
    tables.image(
        session,
        "unread",
        camera=FRAMES,
        **{
            "REF|CorrectorPlanData|corrector plan": tables.row(
                "CorrectorPlanData", {"SEQ|bad_rows": "__import__('os')"}
            )
        },
    )
    good = tables.image(session, EN)
    _add_fit(tables, session, good, defocus1=1e-6, defocus2=-1e-6)
    _add_fit(tables, session, good, defocus1=12.0)
    _add_fit(tables, session, 424242)
    _add_picks(tables, session, good, [(-5, 1, None), (10**9, 3, None)])
    report = bench.run()
    assert (report.images, report.unusable, report.exposures) == (11, 9, 5)
    words = "\n".join(complaint.words for complaint in report.complaints)
    for said in (
        *("no filename", "can be no file's", "ScopeEMData 99999", "PresetData 99999", "defocus is -1.5e+06 µm"),
        *(
            "high tension is 0.3 kV",
            "binning",
            "dose is 1e+20",
            "secret.mrc",
            "correction plan",
            "under focus, or over",
        ),
        *("12 and", "none of 2 particles"),
    ):
        assert said in words, said
    assert "1 of Appion's results are of images that are not in this session" in report.notes
    assert not report.is_clean
    assert bench.exposure().metadata.optics.pixel_size_angstrom == pytest.approx(0.83)
    assert bench.exposure("absurd").metadata.applied_defocus_micrometer is None


def test_text_of_any_encoding_is_read(bench: Bench) -> None:
    """Latin-1 and UTF-8 in Latin-1 columns both come out as they were meant; neither stops the reading."""
    for index, raw in enumerate((b"Zo\xe9", "Zoé".encode(), b"\xff\xfe\x01")):
        bench.tables.session(f"s{index}", f"/mydata/leginon/s{index}/rawdata", None)
        bench.tables.run(
            f"UPDATE projectdb.projects SET name = CAST(0x{raw.hex()} AS BINARY) ORDER BY DEF_id DESC LIMIT 1"
        )
    leginon = LeginonServer(bench.tables.url())
    bench.opened.append(leginon)
    assert [each.project for each in list_sessions(leginon)][:3] == ["ÿþ", "Zoé", "Zoé"]


def test_a_database_that_lacks_tables_is_read_as_far_as_it_goes(bench: Bench) -> None:
    """Without presets, calibrations, targets, plans, projects and Appion's tables, what is known of an image comes."""
    lacking = (
        *("PresetData", "PixelSizeCalibrationData", "AcquisitionImageTargetData", "CorrectorPlanData"),
        *("NormImageData", "projectexperiments", "ApCtfData", "ApParticleData"),
    )
    bench.tables.make(without=lacking)
    bench.tables.run("ALTER TABLE leg.CameraEMData DROP COLUMN `frame flip`, DROP COLUMN nframes")
    bench.session_id = bench.tables.session(NAME, f"/mydata/leginon/{NAME}/rawdata", None, None)
    bench.tables.image(bench.session_id, EN)
    report = bench.run()
    bench.tables.run("DROP TABLE leg.InstrumentData")  # the next test gets all anew
    assert report.exposures == 1
    optics = bench.exposure().metadata.optics
    assert (optics.pixel_size_angstrom, optics.voltage_kilovolt) == (None, 300.0)


def test_a_database_without_images_or_sessions_is_refused_with_its_name(bench: Bench) -> None:
    """What is no database of Leginon's is said to be none; a session that is not there is said with the nearest."""
    with pytest.raises(CatalogError, match=r"no session named '24mar28b'.*nearest is '24mar28a'"):
        bench.job("24mar28b")
    bench.tables.run("DROP TABLE leg.AcquisitionImageData")
    with pytest.raises(CatalogError, match="lacks AcquisitionImageData"):
        bench.run()
    assert sessions.list_all(bench.catalog) == []
    bench.tables.run("DROP TABLE leg.SessionData")
    with pytest.raises(CatalogError, match="no database of Leginon's"):
        bench.job()


@pytest.mark.parametrize(
    ("path", "remedy"),
    [("relative/rawdata", "path-map"), ("/mydata/../etc/x", "path-map"), ("/", "path-map"), ("", "no folder")],
)
def test_a_session_whose_paths_lead_nowhere_is_refused(bench: Bench, path: str, remedy: str) -> None:
    """Leginon's path must be an absolute one that does not lead out of itself."""
    bench.tables.session("lost", path, path, None)
    with pytest.raises(CatalogError, match=remedy):
        bench.job("lost")


def test_the_session_of_a_running_service_is_the_same_one(bench: Bench) -> None:
    """Where the frames lie in the instrument's own folder, the import joins the session that collecting makes."""
    (bench.root / "camera").rmdir()
    (bench.root / "mnt" / "frames").rename(bench.root / "camera")
    path_map = PathMap([f"/mydata={bench.root / 'mnt'}", f"/mydata/frames={bench.root / 'camera'}"])
    bench.tables.image(bench.session_id, EN, camera={**FRAMES, "frame gain corrected": 1})
    write_small_movie(bench.root / "camera" / NAME / "rawdata" / f"{EN}.frames.tif")
    intake = Intake(
        bench.catalog, instrument_name="scope", source_root=bench.root / "camera", copies=everywhere(["live"])
    )
    path = f"{NAME}/rawdata/{EN}.frames.tif"
    status = (bench.root / "camera" / path).stat()
    intake.take(Examination(path, (status.st_size, status.st_mtime_ns), last_try=False))
    report = bench.run(path_map=path_map)
    assert len(sessions.list_all(bench.catalog)) == 1
    assert (report.exposures, report.described, report.files.known) == (0, 1, 1)
    assert bench.exposure().metadata.source == "leginon"


def test_another_sessions_folder_is_not_taken_over(bench: Bench) -> None:
    """A folder of the same name that belongs to another session elsewhere is refused, with where that one lies."""
    sessions.create(
        bench.catalog,
        name="x",
        instrument_name="scope",
        source_root="/elsewhere",
        folder="visit",
        layout=Layout.PLAIN,
    )
    bench.tables.session("24apr01a", "/mydata/leginon/visit", None, None)
    with pytest.raises(CatalogError, match="belongs to session x, whose files lie in /elsewhere"):
        bench.job("24apr01a").run()


def test_more_over_focus_than_under_is_asked_about(bench: Bench) -> None:
    """Leginon counts underfocus as negative; a session that is mostly positive is said to be."""
    for index in range(3):
        bench.tables.image(bench.session_id, f"{EN}{index}", scope={"defocus": 1.5e-6 if index else -1e-6})
    assert any("2 of 3 exposures are over focus" in note for note in bench.run().notes)


def test_damaged_and_swapped_files_are_kept_and_said(bench: Bench) -> None:
    """A cut frame file quarantines its exposure alone; a link in a file's place is not followed."""
    for index in range(3):
        bench.tables.image(bench.session_id, f"{EN}{index}", camera={**FRAMES, "frame gain corrected": 1})
        _write_frames(bench.frames / f"{EN}{index}.frames.mrc")
    cut = bench.frames / f"{EN}0.frames.mrc"
    cut.write_bytes(cut.read_bytes()[:-100])
    linked = bench.frames / f"{EN}1.frames.mrc"
    linked.rename(bench.root / "elsewhere.mrc")
    linked.symlink_to(bench.root / "elsewhere.mrc")
    report = bench.run()
    assert (report.files.taken, report.files.damaged, report.is_clean) == (1, 1, False)
    assert bench.exposure(f"{EN}0").state is ExposureState.QUARANTINED
    assert bench.exposure(f"{EN}1").state is ExposureState.WAITING
    assert bench.exposure(f"{EN}2").state is ExposureState.READY


def test_leginons_database_is_never_written(bench: Bench) -> None:
    """A user who may write cannot through this connection, and a whole import leaves every table as it was."""
    bench.tables.image(bench.session_id, EN)
    before = _checksums(bench.tables)
    bench.run()
    assert _checksums(bench.tables) == before
    leginon = LeginonServer(bench.tables.server.url("leg"))
    bench.opened.append(leginon)
    with pytest.raises(CatalogError, match="READ ONLY"), leginon.reading() as connection:
        connection.exec_driver_sql("DELETE FROM SessionData")


def _checksums(tables: LeginonTables) -> list[dict[str, Any]]:
    query = "SELECT table_schema AS s, table_name AS t FROM information_schema.tables"
    named = tables.run(f"{query} WHERE table_schema IN ('leg', 'projectdb', 'ap7')")
    return tables.run("CHECKSUM TABLE " + ", ".join(f"`{each['s']}`.`{each['t']}`" for each in named))


def test_a_followed_session_takes_what_comes(bench: Bench) -> None:
    """Images, frames that come later than their rows, an exposure that is still being written, rows whose ids appear
    out of order, and results all come while it is followed; a server that is restarted meanwhile stops nothing."""
    tables, session = bench.tables, bench.session_id
    corrected = {**FRAMES, "frame gain corrected": 1}
    tables.image(session, f"{EN}0", camera=corrected)
    job, stopping = bench.job(), threading.Event()
    follower = threading.Thread(
        target=job.follow, args=(stopping,), kwargs={"every_seconds": 0.05, "told": lambda _report: None}
    )
    follower.start()
    try:
        _wait_until(lambda: job.report.exposures == 1)
        _write_frames(bench.frames / f"{EN}0.frames.mrc")
        _wait_until(lambda: job.report.files.taken == 1)
        later = tables.image(session, f"{EN}2", camera=corrected)
        bench.tables.run(f"UPDATE leg.AcquisitionImageData SET DEF_id = {later + 2} WHERE DEF_id = {later}")
        _wait_until(lambda: job.report.exposures == 2)
        out_of_order = tables.image(session, f"{EN}1", camera=corrected)
        bench.tables.run(f"UPDATE leg.AcquisitionImageData SET DEF_id = {later} WHERE DEF_id = {out_of_order}")
        _wait_until(lambda: job.report.exposures == 3)
        whole = bench.root / "whole.mrc"
        _write_frames(whole)
        growing = bench.frames / f"{EN}1.frames.mrc"
        growing.write_bytes(whole.read_bytes()[:2000])
        time.sleep(0.2)
        growing.write_bytes(whole.read_bytes())
        _wait_until(lambda: job.report.files.taken == 2)
        tables.close()
        tables.server.restart()
        tables.image(session, f"{EN}3", camera=corrected)
        _wait_until(lambda: job.report.exposures == 4)
    finally:
        stopping.set()
        follower.join()
    assert job.report.files.damaged == 0
    assert all(
        file.state is FileState.ARRIVED for file in files.of_session(bench.catalog, bench.session().id, limit=100)
    )


def test_a_foreign_result_is_written_once_and_never_as_one_of_the_future(bench: Bench) -> None:
    """A result that says it is from the year 2099 still gives way to ours; equal ones are one."""
    image = bench.tables.image(bench.session_id, EN)
    _add_fit(bench.tables, bench.session_id, image)
    bench.run()
    exposure = bench.exposure()
    leginon = LeginonServer(bench.tables.url())
    bench.opened.append(leginon)
    reader = AppionReader(leginon, find_session(leginon, NAME))
    given = [each for page in reader.new() for each in page]
    future = [(exposure.id, replace(each, found_at=datetime(2099, 1, 1, tzinfo=UTC))) for each in given]
    assert foreign_runs.record(bench.catalog, future) == 0
    changed = [(exposure.id, replace(each, parameters={**each.parameters, "row": 7})) for _, each in future]
    assert foreign_runs.record(bench.catalog, changed * 2) == 1
    ours = steps.begin(bench.catalog, exposure.id, Step.CTF, "ours", {})
    assert max(run.id for run in steps.runs_of(bench.catalog, exposure.id)) == ours.id


def test_a_catalog_that_balks_loses_nothing_of_a_followed_session(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever write the catalog refuses while a session is followed, all of it comes once it answers again, once."""
    refusals = {"describe": 2, "by_stems": 1, "known_among": 1, "record": 1}

    def balking(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if refusals[name]:
                refusals[name] -= 1
                raise CatalogError(f"{name} was refused")
            return real(*arguments, **options)

        return call

    places_of = {"describe": exposures, "by_stems": exposures, "known_among": Intake, "record": foreign_runs}
    for name, owner in places_of.items():
        monkeypatch.setattr(owner, name, balking(name, getattr(owner, name)))
    for index in range(3):
        image = bench.tables.image(bench.session_id, f"{EN}{index}", camera={**FRAMES, "frame gain corrected": 1})
        write_small_movie(bench.frames / f"{EN}{index}.frames.tif")
        _add_picks(bench.tables, bench.session_id, image, [(5, 6, 0.5)])
    monkeypatch.setattr("coldchain.collect.leginon_import._RESULTS_SECONDS", 0.1)
    job, stopping = bench.job(), threading.Event()
    options = {"every_seconds": 0.05, "told": lambda _report: None}
    follower = threading.Thread(target=job.follow, args=(stopping,), kwargs=options)
    follower.start()
    try:
        _wait_until(lambda: (job.report.images, job.report.files.taken, job.report.results) == (3, 3, 3))
    finally:
        stopping.set()
        follower.join()
    assert set(refusals.values()) == {0}
    assert job.report.unusable == 0
    found = exposures.page(bench.catalog, bench.session().id, limit=10, before=None)
    assert [each.state for each in found] == [ExposureState.READY] * 3
