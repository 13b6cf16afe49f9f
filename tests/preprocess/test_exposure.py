"""What is known of a lone movie: options over metadata beside it over its own headers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from coldchain.errors import ProcessingError
from coldchain.formats.ifd import read_pages
from coldchain.formats.movie import probe_movie
from coldchain.formats.mrc import write_mrc
from coldchain.formats.tiff import write_tiff_movie
from coldchain.preprocess.exposure import KnownExposure, Stated, find_exposure, share_of_dose
from coldchain.simulate.epu import EpuImage, image_xml
from coldchain.simulate.serialem import FrameSet, frame_set_mdoc

FRAMES = np.ones((4, 64, 64), np.uint8)
FRAME_SET = FrameSet(
    movie_name="m.tif",
    acquired_at=datetime(2024, 5, 1, 12, tzinfo=UTC),
    pixel_size_angstrom=0.83,
    voltage_kilovolt=200.0,
    spherical_aberration_millimeter=2.7,
    magnification=105_000,
    exposure_time_seconds=2.0,
    dose_e_per_square_angstrom=40.0,
    frames=4,
    target_defocus_micrometer=-1.5,
    stage_x_micrometer=0.0,
    stage_y_micrometer=0.0,
)
IMAGE = EpuImage(
    unique_id="1",
    acquired_at=datetime(2024, 5, 1, 12, tzinfo=UTC),
    pixel_size_meter=1.06e-10,
    width=64,
    height=64,
    magnification=105_000,
    voltage_volt=300e3,
    exposure_time_seconds=2.0,
    applied_defocus_meter=-1.5e-6,
    stage_x_meter=0.0,
    stage_y_meter=0.0,
    dose_e_per_square_meter=50e20,
    fractions=4,
)


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    """A movie whose header gives 1.2 Å, in a folder of its own."""
    path = tmp_path / "frames" / "m.tif"
    path.parent.mkdir()
    write_tiff_movie(path, FRAMES, pixel_size_angstrom=1.2)
    return path


def find(movie: Path, stated: Stated = Stated(), *, camera_frames_per_frame: int = 1) -> KnownExposure:  # noqa: B008  # frozen
    """What is known of a movie."""
    return find_exposure(probe_movie(movie), stated, camera_frames_per_frame=camera_frames_per_frame)


@pytest.mark.parametrize("name", ["m.tif.mdoc", "m.mdoc"])
def test_an_mdoc_beside_the_movie_says_how_it_was_taken(movie: Path, name: str) -> None:
    """Its values count over the header's, and the options over both."""
    movie.with_name(name).write_text(frame_set_mdoc(FRAME_SET))
    found = find(movie)
    assert (found.pixel_size_angstrom, found.voltage_kilovolt) == (0.83, 200.0)
    assert found.frame_dose_e_per_square_angstrom == pytest.approx(10.0)
    assert (found.gain, found.defects, found.counts_per_electron, found.warnings) == (None, None, 1.0, ())
    given = find(movie, Stated(pixel_size_angstrom=0.9, voltage_kilovolt=120.0, dose_per_frame_e_per_square_angstrom=2))
    assert (given.pixel_size_angstrom, given.voltage_kilovolt) == (0.9, 120.0)
    assert given.frame_dose_e_per_square_angstrom == 2
    assert given.warnings == (
        "--pixel-size 0.9 Å was used; its metadata say 0.83 Å.",
        "--voltage 120 kV was used; its metadata say 200 kV.",
        "--dose-per-frame 2 e⁻/Å² was used; its metadata say 10 e⁻/Å².",
    )
    rounded = Stated(pixel_size_angstrom=0.8302, voltage_kilovolt=200, dose_per_frame_e_per_square_angstrom=9.9)
    assert find(movie, rounded).warnings == ()


def test_what_lies_beside_a_links_target_belongs_to_the_movie(movie: Path, tmp_path: Path) -> None:
    """Metadata and the references that they name; what lies beside the link itself counts more."""
    movie.with_name("m.tif.mdoc").write_text(frame_set_mdoc(replace(FRAME_SET, gain_name="Ref.mrc")))
    movie.with_name("Ref.mrc").touch()
    link = tmp_path / "links" / "exposure7.tif"
    link.parent.mkdir()
    link.symlink_to(movie)
    found = find(link)
    assert (found.movie, found.pixel_size_angstrom, found.gain) == (link, 0.83, movie.with_name("Ref.mrc"))
    link.with_name("exposure7.mdoc").write_text(frame_set_mdoc(replace(FRAME_SET, pixel_size_angstrom=0.7)))
    assert find(link).pixel_size_angstrom == 0.7


@pytest.mark.parametrize("end", ["_fractions.tiff", "_Fractions.mrc", ".tif"])
def test_epus_xml_belongs_to_the_movie_of_its_name(tmp_path: Path, end: str) -> None:
    """Whatever EPU adds to a movie's name, its XML has the exposure's."""
    stem = "FoilHole_1_Data_2_3_20240501_120000"
    path = tmp_path / f"{stem}{end}"
    write_mrc(path, FRAMES, pixel_size_angstrom=7) if end.endswith("mrc") else write_tiff_movie(path, FRAMES)
    (tmp_path / f"{stem}.xml").write_text(image_xml(IMAGE))
    found = find(path)
    assert found.pixel_size_angstrom == pytest.approx(1.06)
    assert found.voltage_kilovolt == 300
    assert found.frame_dose_e_per_square_angstrom == pytest.approx(12.5)


def test_the_header_says_what_nothing_else_does(movie: Path, tmp_path: Path) -> None:
    """A pixel size of a TIFF's resolution, or of an MRC; but 1 Å in an MRC is what is written by who does not know."""
    assert find(movie, Stated(voltage_kilovolt=300)).pixel_size_angstrom == pytest.approx(1.2, rel=1e-6)
    write_mrc(tmp_path / "m.mrc", FRAMES, pixel_size_angstrom=1.3)
    assert find(tmp_path / "m.mrc", Stated(voltage_kilovolt=300)).pixel_size_angstrom == pytest.approx(1.3)
    write_mrc(tmp_path / "m.mrc", FRAMES, pixel_size_angstrom=1.0)
    with pytest.raises(ProcessingError, match="pixel size is not known"):
        find(tmp_path / "m.mrc", Stated(voltage_kilovolt=300))


@pytest.mark.parametrize("place", [".", ".."])
def test_references_that_the_mdoc_names_are_found(movie: Path, place: str) -> None:
    """Beside the movie or one folder up, even if they are named with the camera computer's path."""
    named = replace(FRAME_SET, gain_name="X:\\frames\\Ref_1.mrc", defects_name="defects_1.txt")
    movie.with_name("m.mdoc").write_text(frame_set_mdoc(named))
    folder = (movie.parent / place).resolve()
    (folder / "Ref_1.mrc").touch()
    (folder / "defects_1.txt").touch()
    found = find(movie)
    assert found.gain is not None
    assert found.gain.resolve() == folder / "Ref_1.mrc"
    assert found.defects is not None
    assert found.defects.resolve() == folder / "defects_1.txt"
    assert not found.defects_stated
    assert find(movie, Stated(no_gain=True)).gain is None
    assert find(movie, Stated(gain=Path("mine.mrc"))).gain == Path("mine.mrc")


def test_a_gain_that_is_not_there_is_missed_and_a_defect_list_is_not(movie: Path) -> None:
    """Without its gain the movie would be wrong; its defects it shows itself."""
    movie.with_name("m.mdoc").write_text(frame_set_mdoc(replace(FRAME_SET, gain_name="Ref.mrc", defects_name="d.txt")))
    with pytest.raises(ProcessingError, match=r"Ref\.mrc.*--gain none"):
        find(movie)
    found = find(movie, Stated(no_gain=True))
    assert found.defects is None
    assert "d.txt is not there" in found.warnings[0]


def test_metadata_that_cannot_be_used_is_said(movie: Path) -> None:
    """An mdoc that is none is as if it were not there; if it is missed then, the error tells why."""
    movie.with_name("m.mdoc").write_text("no mdoc at all")
    found = find(movie, Stated(voltage_kilovolt=300))
    assert found.pixel_size_angstrom == pytest.approx(1.2, rel=1e-6)
    assert "no FrameSet" in found.warnings[0]
    with pytest.raises(ProcessingError, match=r"voltage is not known.*no FrameSet"):
        find(movie)


@pytest.mark.parametrize(
    ("written", "becomes", "says"),
    [
        ("PixelSpacing = 0.83", "PixelSpacing = 1e-320", "the pixel size is 9.99989e-321 Å; expected from 0.05 to 50"),
        ("PixelSpacing = 0.83", "PixelSpacing = 106", "the pixel size is 106 Å; expected from 0.05 to 50"),
        ("Voltage = 200", "Voltage = 200000", "the voltage is 200000 kV; expected from 10 to 3000"),
        ("ExposureDose = 40.0", "ExposureDose = 4e21", "the dose is 4e+21 e⁻/Å²; expected from 0.001 to 10000"),
        ("NumSubFrames = 4", "NumSubFrames = 1e300", "the number of frames is 1e+300 frames"),
        ("CountsPerElectron = 1", "CountsPerElectron = 1e-300", "the scale is 1e-300 counts per electron"),
    ],
)
def test_a_value_that_cannot_be_true_is_said_and_the_next_source_is_asked(
    movie: Path, written: str, becomes: str, says: str
) -> None:
    """The mdoc's name and its value are told; the pixel size is then the header's; what nobody knows is missing."""
    text = frame_set_mdoc(FRAME_SET)
    assert written in text
    movie.with_name("m.mdoc").write_text(text.replace(written, becomes))
    if written.startswith("Voltage"):
        with pytest.raises(ProcessingError, match=r"voltage is not known.*m\.mdoc: the voltage is 200000 kV"):
            find(movie)
        assert find(movie, Stated(voltage_kilovolt=200)).warnings == ()  # nobody asks the mdoc
        return
    found = find(movie, Stated(dark=Path("dark.mrc")))
    (warning,) = found.warnings
    assert warning.startswith(f"{movie.with_name('m.mdoc')}: {says}")
    assert warning.endswith(". It was not used.")
    assert found.pixel_size_angstrom == pytest.approx(1.2 if "Pixel" in written else 0.83, rel=1e-6)
    assert found.frame_dose_e_per_square_angstrom == (None if "Dose" in written else pytest.approx(10.0))
    assert found.counts_per_electron == 1


def test_a_header_that_cannot_be_true_leaves_the_pixel_size_to_be_asked_for(tmp_path: Path) -> None:
    """An MRC of 106 Å a pixel is said, with its name; it stops nobody who gives the pixel size."""
    write_mrc(tmp_path / "m.mrc", FRAMES, pixel_size_angstrom=106)
    with pytest.raises(ProcessingError, match=r"pixel size is not known.*m\.mrc: the pixel size is 106 Å"):
        find(tmp_path / "m.mrc", Stated(voltage_kilovolt=300))
    assert find(tmp_path / "m.mrc", Stated(voltage_kilovolt=300, pixel_size_angstrom=1.06)).warnings == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"pixel_size_angstrom": 106.0},
        {"voltage_kilovolt": 300e3},
        {"dose_per_frame_e_per_square_angstrom": float("nan")},
        {"dose_per_camera_frame_e_per_square_angstrom": -1.0},
        {"counts_per_electron": float("inf")},
    ],
)
def test_what_the_user_says_must_be_possible(movie: Path, wrong: dict[str, float]) -> None:
    """It is not passed over for another source: the movie fails, and the error asks about the unit."""
    known = {"pixel_size_angstrom": 1.0, "voltage_kilovolt": 300.0}
    with pytest.raises(ProcessingError, match=r"m\.tif: .* is .*another unit\?"):
        find(movie, Stated(**{**known, **wrong}))  # type: ignore[arg-type]  # only numbers


def test_a_movie_that_is_cut_has_the_dose_of_a_frame_only_where_the_frames_are_counted(movie: Path) -> None:
    """The four pages that a cut TIFF still has are not all that were exposed: without the mdoc's count nobody knows."""
    frames = np.random.default_rng(2).integers(0, 9, (8, 64, 64), dtype=np.uint8)
    write_tiff_movie(movie, frames)
    data = movie.read_bytes()
    text = frame_set_mdoc(replace(FRAME_SET, frames=8))
    movie.with_name("m.mdoc").write_text(text)
    movie.write_bytes(data[: int(read_pages(movie)[4].segments[0][0])])
    info = probe_movie(movie, whole=False)
    assert info.is_cut
    assert info.frames < 8
    found = find_exposure(info, Stated())
    assert found.frame_dose_e_per_square_angstrom == pytest.approx(5.0)
    movie.with_name("m.mdoc").write_text(text.replace("NumSubFrames = 8", ""))
    found = find_exposure(info, Stated())
    assert found.frame_dose_e_per_square_angstrom is None
    assert "nothing says how many there were" in found.warnings[0]
    given = find_exposure(info, Stated(dose_per_frame_e_per_square_angstrom=1.5))
    assert (given.frame_dose_e_per_square_angstrom, given.warnings) == (1.5, ())
    assert share_of_dose(40.0, 8, replace(info, container="eer"))[0] is None


def test_each_frame_has_its_share_of_the_dose_that_was_meant(movie: Path) -> None:
    """Half a movie has half of the dose, and that is said."""
    movie.with_name("m.mdoc").write_text(frame_set_mdoc(replace(FRAME_SET, frames=8)))
    found = find(movie)
    assert found.frame_dose_e_per_square_angstrom == pytest.approx(5.0)
    assert "says 8 frames, the file has 4" in found.warnings[0]


def test_the_dose_of_a_fraction_is_shared_out_among_its_camera_frames(movie: Path) -> None:
    """What is said of a frame as read is divided; what is said of a camera frame is not."""
    a_fraction = Stated(voltage_kilovolt=300, dose_per_frame_e_per_square_angstrom=1.0)
    assert find(movie, a_fraction, camera_frames_per_frame=20).frame_dose_e_per_square_angstrom == 0.05
    a_camera_frame = Stated(voltage_kilovolt=300, dose_per_camera_frame_e_per_square_angstrom=1.0)
    assert find(movie, a_camera_frame, camera_frames_per_frame=20).frame_dose_e_per_square_angstrom == 1.0


def test_counts_per_electron_are_the_mdocs_for_an_integrating_camera(movie: Path) -> None:
    """It is one whose dark reference is given; SerialEM's number says nothing of a counting camera's frames."""
    text = frame_set_mdoc(FRAME_SET).replace("CountsPerElectron = 1", "CountsPerElectron = 36.5")
    movie.with_name("m.mdoc").write_text(text)
    dark = Path("dark.mrc")
    assert find(movie).counts_per_electron == 1
    assert find(movie, Stated(dark=dark)).counts_per_electron == 36.5
    assert find(movie, Stated(dark=dark, counts_per_electron=9.0)).counts_per_electron == 9
    assert find(movie, Stated(counts_per_electron=9.0)).counts_per_electron == 9
