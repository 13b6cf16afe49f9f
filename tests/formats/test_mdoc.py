"""SerialEM's mdocs: the real files' values, and text of every other kind."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import FormatError, IncompleteFileError, MetadataError
from coldchain.formats.mdoc import is_stack_of_images, read_frame_sets, read_mdoc

FRAME_SET = """T = SerialEM: Some Krios            01-Mar-26  10:00:00
Voltage = 300

[FrameSet = 0]
TiltAngle = 1.5
StagePosition = 10.5 -20.25
StageZ = 30
Magnification = 105000
ExposureDose = 50
PixelSpacing = 0.415
ExposureTime = 2.5
Binning = 0.5
TargetDefocus = -1.2
SubFramePath = X:\\Data set\\grid 1\\m_001.tif
NumSubFrames = 40
FrameDosesAndNumber = 1.25 40
DateTime = 01-Mar-26  10:00:07
GainReference = Gain_1.dm4
DefectFile = defects_1.txt
FilterSlitAndLoss = 20 0
"""


def saved(folder: Path, content: str) -> Path:
    """The content as an mdoc."""
    path = folder / "m_001.tif.mdoc"
    path.write_text(content, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_frame_set_is_read(tmp_path: Path, ending: str) -> None:
    """Every value that we keep, with either line ending."""
    metadata = read_mdoc(saved(tmp_path, FRAME_SET.replace("\n", ending)), zone=UTC)
    assert metadata.optics.pixel_size_angstrom == 0.415
    assert metadata.optics.voltage_kilovolt == 300
    assert metadata.optics.dose_e_per_square_angstrom == 50
    assert metadata.optics.frame_count == 40
    assert metadata.optics.spherical_aberration_millimeter is None
    assert metadata.acquired_at == datetime(2026, 3, 1, 10, 0, 7, tzinfo=UTC)
    assert metadata.applied_defocus_micrometer == -1.2
    assert metadata.exposure_time_seconds == 2.5
    assert metadata.magnification == 105000
    assert metadata.microscope == "Some Krios"
    assert (metadata.stage_x_micrometer, metadata.stage_y_micrometer, metadata.stage_z_micrometer) == (10.5, -20.25, 30)
    assert metadata.tilt_degrees == 1.5
    assert metadata.energy_slit_electronvolt == 20
    assert metadata.gain_name == "Gain_1.dm4"
    assert metadata.defects_name == "defects_1.txt"
    assert metadata.movie_name == "m_001.tif"
    assert metadata.source == "mdoc"


def test_times_are_in_the_zone_that_is_told(tmp_path: Path) -> None:
    """An mdoc has no time zone: the caller's counts, or else this machine's."""
    path = saved(tmp_path, FRAME_SET)
    behind = read_mdoc(path, zone=timezone(timedelta(hours=-5))).acquired_at
    assert behind == datetime(2026, 3, 1, 15, 0, 7, tzinfo=UTC)
    assert read_mdoc(path).acquired_at == datetime(2026, 3, 1, 10, 0, 7).astimezone(UTC)
    long_year = saved(tmp_path, FRAME_SET.replace("01-Mar-26  10:00:07", "01-Mar-2026 10:00:07"))
    assert read_mdoc(long_year, zone=UTC).acquired_at == datetime(2026, 3, 1, 10, 0, 7, tzinfo=UTC)


def test_the_first_frame_set_counts(tmp_path: Path) -> None:
    """Later sections change nothing, whatever their kind."""
    later = "\n[ZValue = 0]\nTiltAngle = 60\n\n[FrameSet = 1]\nTiltAngle = 70\nDoseRate = 3\n"
    assert read_mdoc(saved(tmp_path, FRAME_SET + later), zone=UTC) == read_mdoc(saved(tmp_path, FRAME_SET), zone=UTC)


def test_an_uncalibrated_dose_is_unknown_or_that_of_the_frames(tmp_path: Path) -> None:
    """ExposureDose 0 means that nobody calibrated it; the frames' own doses then count."""
    no_dose = FRAME_SET.replace("ExposureDose = 50", "ExposureDose = 0")
    assert read_mdoc(saved(tmp_path, no_dose)).optics.dose_e_per_square_angstrom == 50
    two_parts = no_dose.replace("1.25 40", "1 10 2 20")
    assert read_mdoc(saved(tmp_path, two_parts)).optics.dose_e_per_square_angstrom == 50
    none = no_dose.replace("1.25 40", "0 40")
    assert read_mdoc(saved(tmp_path, none)).optics.dose_e_per_square_angstrom is None


def test_a_binned_image_does_not_tell_the_movies_pixel(tmp_path: Path) -> None:
    """Where SerialEM's image is binned the movie's pixel is unknown rather than wrong."""
    assert (
        read_mdoc(saved(tmp_path, FRAME_SET.replace("Binning = 0.5", "Binning = 2"))).optics.pixel_size_angstrom is None
    )
    assert (
        read_mdoc(saved(tmp_path, FRAME_SET.replace("Binning = 0.5", "Binning = 1"))).optics.pixel_size_angstrom
        == 0.415
    )


# File, pixel (Å), dose, frames, target defocus, time in the microscope's zone, gain, defects, movie.
REAL = [
    ("20220605_75157_20220605-aav2spr_1-1_counted_frames.mrc.mdoc", None, None, 46, -2.0, (2022, 6, 5, 23, 45, 28),
     None, None, "20220605_75157_20220605-aav2spr_1-1_counted_frames.mrc"),
    ("frame_set_single.mdoc", 1.2827, 7.65892, 12, -4.5, (2021, 10, 8, 7, 39, 8),
     "SuperRef_s_mmm_00000_-15.0_Oct08_01.59.24.dm4", None, "s_mmm_00993_33.0_Oct08_07.39.05.tif"),
    ("frame_set_multiple.mdoc", 1.2827, 291.302, 243, -4.5, (2021, 10, 8, 7, 47, 29),
     "SuperRef_s_mmm_00000_-15.0_Oct08_01.59.24.dm4", None, "s_mmm_01013_33.0_Oct08_07.46.46.tif"),
    ("img_h1_s2_i374_movie_00001_Jul30_07.56.47.tif.mdoc", 0.50226, 30.0, 40, -2.3, (2019, 8, 11, 14, 13, 22),
     "SuperRef_00000_Aug11_14.13.17.mrc", "defects_00000_Aug11_14.13.17.txt", "00000_Aug11_14.13.17.tif"),
    ("tilt_series.mdoc", None, None, 8, -4.0, (2015, 11, 30, 15, 21, 38), None, None, "TS_01_000_0.0.mrc"),
]  # fmt: skip


@pytest.mark.parametrize("row", REAL, ids=lambda row: row[0])
def test_real_mdocs(real_data: Path, row: tuple) -> None:  # type: ignore[type-arg]
    """The real files of K3, Apollo and an old tilt series give the values that they hold."""
    name, pixel, dose, frames, defocus, time, gain, defects, movie = row
    metadata = read_mdoc(real_data / "serialem" / name, zone=UTC)
    assert metadata.optics.pixel_size_angstrom == pixel
    assert metadata.optics.dose_e_per_square_angstrom == dose
    assert metadata.optics.frame_count == frames
    assert metadata.optics.voltage_kilovolt == (None if name.startswith("tilt") else 300)
    assert metadata.applied_defocus_micrometer == defocus
    assert metadata.acquired_at == datetime(*time, tzinfo=UTC)
    assert (metadata.gain_name, metadata.defects_name, metadata.movie_name) == (gain, defects, movie)


def test_a_facility_that_notes_the_spherical_aberration_is_believed(real_data: Path) -> None:
    """One real file has an added line `Cs = 2.7`; the others say nothing."""
    found = {
        path.name: read_mdoc(path).optics.spherical_aberration_millimeter
        for path in (real_data / "serialem").glob("*.mdoc")
    }
    assert found.pop("img_h1_s2_i374_movie_00001_Jul30_07.56.47.tif.mdoc") == 2.7
    assert set(found.values()) == {None}


@pytest.mark.parametrize(
    ("found", "put", "words"),
    [
        ("PixelSpacing = 0.415", "PixelSpacing = fine", "PixelSpacing is 'fine'"),
        ("ExposureDose = 50", "ExposureDose = nan", "ExposureDose is 'nan'"),
        ("01-Mar-26  10:00:07", "32-Mar-26  10:00:07", "DateTime is"),
        ("01-Mar-26  10:00:07", "01-Mrz-26  10:00:07", "DateTime is"),
        ("01-Mar-26  10:00:07", "yesterday", "DateTime is"),
        ("[FrameSet = 0]", "[Something = 0]", "no FrameSet and no ZValue"),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, found: str, put: str, words: str) -> None:
    """What is no number, no date or no mdoc is named."""
    with pytest.raises(MetadataError, match=words):
        read_mdoc(saved(tmp_path, FRAME_SET.replace(found, put)))


def test_an_empty_mdoc_may_still_grow(tmp_path: Path) -> None:
    """Zero bytes are incomplete."""
    with pytest.raises(IncompleteFileError):
        read_mdoc(saved(tmp_path, ""))


@given(st.binary(max_size=300) | st.text().map(str.encode) | st.text(alphabet="[]FrameSet=ZValue 0\n.").map(str.encode))
def test_any_text_is_an_mdoc_or_a_stated_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """No content makes reading fail in an unstated way."""
    path = tmp_path_factory.getbasetemp() / "any.mdoc"
    for content in (data, FRAME_SET.encode() + data, b"[FrameSet = 0]\nTiltAngle = " + data):
        path.write_bytes(content)
        try:
            read_mdoc(path, zone=UTC)
        except FormatError as error:
            assert error.path == path


def many(kind: str, movies: list[str]) -> str:
    """An mdoc with a section for each of these movies."""
    sections = [f"[{kind} = {n}]\nTiltAngle = {n}\nSubFramePath = {movie}\n" for n, movie in enumerate(movies)]
    return "PixelSpacing = 1.5\nVoltage = 200\n\n" + "\n".join(sections)


@pytest.mark.parametrize("kind", ["FrameSet", "ZValue"])
def test_every_section_is_read_with_what_stands_before_all(tmp_path: Path, kind: str) -> None:
    """Each movie with its own values; the file's own values count for all."""
    mdoc = read_frame_sets(saved(tmp_path, many(kind, ["X:\\a\\m1.tif", "X:\\a\\m2.tif"])))
    assert mdoc.is_stack == (kind == "ZValue")
    assert [found.movie for found in mdoc.frame_sets] == ["X:/a/m1.tif", "X:/a/m2.tif"]
    assert [found.metadata.tilt_degrees for found in mdoc.frame_sets] == [0, 1]
    assert {found.metadata.optics.voltage_kilovolt for found in mdoc.frame_sets} == {200}
    assert {found.metadata.source for found in mdoc.frame_sets} == {"mdoc-section"}


def test_a_section_that_cannot_be_read_spoils_no_other(tmp_path: Path) -> None:
    """It is left out and named; where none is left that is an error."""
    text = many("ZValue", ["a.tif", "b.tif", "c.tif"])
    mdoc = read_frame_sets(saved(tmp_path, text.replace("TiltAngle = 1", "TiltAngle = one")))
    assert [found.movie for found in mdoc.frame_sets] == ["a.tif", "c.tif"]
    assert mdoc.fault == "1 of 3 sections cannot be used; the first: TiltAngle is 'one'"
    with pytest.raises(MetadataError, match="Voltage is 'high'"):
        read_frame_sets(saved(tmp_path, text.replace("Voltage = 200", "Voltage = high")))


def test_a_stack_is_told_from_frames(tmp_path: Path) -> None:
    """Two images at least, and no frame set."""
    assert is_stack_of_images(saved(tmp_path, many("ZValue", ["a.tif", "b.tif"])))
    assert not is_stack_of_images(saved(tmp_path, many("ZValue", ["a.tif"])))
    assert not is_stack_of_images(saved(tmp_path, many("FrameSet", ["a.tif", "b.tif"])))
    assert not is_stack_of_images(saved(tmp_path, FRAME_SET + many("ZValue", ["a.tif", "b.tif"])))


@pytest.mark.parametrize(
    "hostile",
    [
        "[FrameSet = 0]\n" + "[" + " " * 60_000 + "x\n" + "T = SerialEM: " + "a " * 30_000 + "b\n",
        "[FrameSet = 0]\nFrameDosesAndNumber = " + "0.1 1 " * 10_000 + "\n",
        "[FrameSet = 0]\n" + "".join(f"key{n} = {n}\n" for n in range(50_000)),
        "[a=" + " " * 60_000 + "x\n[FrameSet = 0]\nTiltAngle = 1\n",
        "[FrameSet = 0]\nFrameDosesAndNumber = 1e300 1e300\n",
    ],
)
def test_long_lines_and_many_keys_take_no_longer_than_reading_them(tmp_path: Path, hostile: str) -> None:
    """Work grows with the file and not with its square; what no dose can be is an error."""
    path = saved(tmp_path, hostile * 5)
    for read in (read_mdoc, read_frame_sets):
        try:
            read(path)
        except MetadataError as error:
            assert "FrameDosesAndNumber" in str(error)


def test_more_sections_than_anybody_takes_are_refused(tmp_path: Path) -> None:
    """20,000 are read, one more is an error."""
    text = many("ZValue", [f"m{n}.tif" for n in range(20_001)])
    with pytest.raises(MetadataError, match="more than 20,000 sections"):
        read_frame_sets(saved(tmp_path, text))
