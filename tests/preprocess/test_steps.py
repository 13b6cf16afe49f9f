"""The steps as a worker runs them: what they leave, what they say, and that nothing half-done stands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coldchain.catalog import exposures, files, sessions
from coldchain.catalog.engine import open_catalog, upgrade
from coldchain.errors import FormatError, ProcessingError
from coldchain.formats.eer import write_eer
from coldchain.formats.mrc import read_mrc, write_mrc
from coldchain.formats.relion_motion import read_motion
from coldchain.model.files import FileKind
from coldchain.model.optics import ExposureMetadata, Optics
from coldchain.model.results import MotionResult, Pick, PickResult, Step
from coldchain.model.session import Layout
from coldchain.preprocess import previews
from coldchain.preprocess.sources import SourceFinder
from coldchain.preprocess.steps import StepJob, run_step
from coldchain.web.outputs import Scale, pick_centres
from tests.facility import write_small_movie

PARAMETERS: dict[str, object] = {
    "pixel_size_angstrom": 2.0,
    "voltage_kilovolt": 300.0,
    "dose_e_per_square_angstrom": 20.0,
    "frame_count": 4,
}


@pytest.fixture
def job(tmp_path: Path) -> StepJob:
    """An alignment of a small movie of four frames."""
    write_small_movie(tmp_path / "m.tif", frames=4)
    return StepJob(
        Step.ALIGN, {"movie": tmp_path / "m.tif"}, PARAMETERS, tmp_path / "out" / "align", tmp_path / "out" / ".part", 1
    )


def test_a_step_leaves_its_files_under_their_final_name_and_nothing_else(job: StepJob) -> None:
    """The folder holds the outputs that the outcome names; the scratch folder is gone."""
    outcome = run_step(job)
    assert sorted(path.name for path in job.folder.iterdir()) == sorted(outcome.outputs.values())
    assert not job.scratch.exists()
    assert isinstance(outcome.result, MotionResult)
    assert len(outcome.result.shift_x_angstrom) == 4


def test_relion_finds_the_gain_that_the_step_applied(job: StepJob, tmp_path: Path) -> None:
    """RELION does not multiply by a file of this name: the reference lies in the step's folder as it was applied."""
    gain = np.ones((128, 128), np.float32)
    write_mrc(tmp_path / "g.gain", gain, pixel_size_angstrom=2.0)
    outcome = run_step(replace(job, inputs={**job.inputs, "gain": tmp_path / "g.gain"}))
    named = read_motion(job.folder / "micrograph.star").gain_name
    assert named == str(job.folder / outcome.outputs["gain"])
    assert np.array_equal(read_mrc(Path(named)), gain)


def test_a_step_that_fails_leaves_nothing(job: StepJob) -> None:
    """A corrupt movie gives a stated error, no folder and no scratch."""
    movie = job.inputs["movie"]
    movie.write_bytes(movie.read_bytes()[:200])
    with pytest.raises(FormatError):
        run_step(job)
    assert not job.folder.exists()
    assert not job.scratch.exists()


def test_a_step_replaces_what_a_killed_run_left(job: StepJob) -> None:
    """A folder that the catalog never heard of is replaced by the whole result."""
    job.folder.mkdir(parents=True)
    (job.folder / "left.mrc").write_bytes(b"half")
    outcome = run_step(job)
    assert sorted(path.name for path in job.folder.iterdir()) == sorted(outcome.outputs.values())


def test_the_dose_is_spread_over_the_frames_that_were_meant(job: StepJob) -> None:
    """A movie with half of its frames is weighted as those frames were exposed, and says so."""
    whole = run_step(job)
    assert not any("metadata says" in warning for warning in whole.warnings)
    weighted = read_mrc(job.folder / "micrograph.mrc")
    short = replace(job, parameters=PARAMETERS | {"frame_count": 8, "dose_e_per_square_angstrom": 40.0})
    outcome = run_step(short)
    assert any("says 8 frames, the file has 4" in warning for warning in outcome.warnings)
    assert np.array_equal(read_mrc(job.folder / "micrograph.mrc"), weighted)


def test_a_preview_shows_the_picture_the_right_way_up_and_picks_lie_on_it(tmp_path: Path) -> None:
    """A bright square stands in the PNG where the page draws the circle of a pick at its centre, at any size."""
    for height, width in ((4092, 5760), (2046, 2880), (300, 200)):
        image = np.zeros((height, width), np.float32)
        y, x = height // 5, width // 3
        image[y - 40 : y + 41, x - 40 : x + 41] = 1.0
        previews.write_micrograph(image, tmp_path)
        shown = np.asarray(Image.open(tmp_path / previews.MICROGRAPH_NAME)) > 127
        rows, columns = np.nonzero(shown)
        scale = Scale(**json.loads((tmp_path / previews.SCALE_NAME).read_text()))
        ((across, down),) = pick_centres(PickResult(100.0, (Pick(x, y, 1.0),)), scale)
        assert columns.mean() + 0.5 == pytest.approx(across, abs=0.51)
        assert rows.mean() + 0.5 == pytest.approx(down, abs=0.51)


def test_references_are_found_in_the_sessions_folder_and_beside_the_movie(tmp_path: Path) -> None:
    """A defect list that the metadata names is used wherever it lies; one that is missing is said."""
    root = tmp_path / "camera"
    write_small_movie(root / "visit" / "sub" / "m.tif")
    write_mrc(root / "visit" / "gain.mrc", np.ones((128, 128), np.float32), pixel_size_angstrom=2.0)
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    upgrade(url)
    catalog = open_catalog(url, "main")
    session = sessions.create(
        catalog, name="visit", instrument_name="k", source_root=str(root), folder="visit", layout=Layout.PLAIN
    )
    exposure = exposures.ensure(catalog, session.id, "sub/m")
    file = files.record_arrival(
        catalog,
        session_id=session.id,
        relative_path="sub/m.tif",
        kind=FileKind.MOVIE,
        size_bytes=1,
        modified_ns=1,
        stores=[],
        exposure_id=exposure.id,
    )
    files.set_digest(catalog, file.id, "a" * 64)
    exposures.attach_input(catalog, exposure.id, file.id)
    optics = Optics(gain="gain.mrc")
    exposure = exposures.attach_metadata(catalog, exposure.id, ExposureMetadata(optics, defects_name="defects.txt"))
    finder = SourceFinder(catalog, {})
    missing = finder.find(exposure, session)
    assert missing is not None
    assert missing.defects is None
    assert "defects.txt is not there" in missing.warnings[0]
    assert missing.gain == root / "visit" / "gain.mrc"
    for place in ("sub/defects.txt", "defects.txt"):
        (root / "visit" / place).write_text("CameraSizeX 128\n")
        found = finder.find(exposure, session)
        assert found is not None
        assert found.defects == root / "visit" / place
        assert found.given.defects_sha256 is not None
        assert found.warnings == ()
    outside = exposures.attach_metadata(catalog, exposure.id, ExposureMetadata(defects_name="../../catalog.sqlite"))
    elsewhere = finder.find(outside, session)
    assert elsewhere is not None
    assert elsewhere.defects is None
    for file_name, says in (("gain.mrc", "gain reference is not there"), ("sub/m.tif", "movie is not there")):
        (root / "visit" / file_name).unlink()
        with pytest.raises(ProcessingError, match=says):
            finder.find(exposure, session)
    catalog.close()


def test_an_eer_movie_goes_through_with_fractions_of_unequal_length(tmp_path: Path) -> None:
    """81 camera frames make fractions of two and a last one of three; the movie is aligned all the same."""
    rng = np.random.default_rng(3)
    write_eer(tmp_path / "m.eer", (rng.poisson(0.2, (64, 64)).clip(0, 1).astype(np.uint8) for _ in range(81)))
    job = StepJob(
        Step.ALIGN,
        {"movie": tmp_path / "m.eer"},
        PARAMETERS | {"frame_count": 12},
        tmp_path / "out",
        tmp_path / ".part",
        1,
    )
    outcome = run_step(job)
    assert isinstance(outcome.result, MotionResult)
    assert len(outcome.result.shift_x_angstrom) == 40
    assert not any("metadata says" in warning for warning in outcome.warnings)


def test_a_defect_list_that_cannot_be_used_is_said_and_stops_nothing(job: StepJob, tmp_path: Path) -> None:
    """The movie is aligned with what it shows of its defects itself."""
    (tmp_path / "defects.txt").write_text("no list at all")
    outcome = run_step(replace(job, inputs={**job.inputs, "defects": tmp_path / "defects.txt"}))
    assert any("Defects are found from the movie alone" in warning for warning in outcome.warnings)
