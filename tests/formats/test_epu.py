"""EPU's metadata: the real documents' values, and documents that do harm."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import FormatError, IncompleteFileError, MetadataError
from coldchain.formats.epu import read_exposure_xml

ARRAYS = 'xmlns:a="http://schemas.microsoft.com/2003/10/Serialization/Arrays"'
EXPOSURE = f"""<?xml version="1.0" encoding="utf-8"?>
<MicroscopeImage xmlns="http://schemas.datacontract.org/2004/07/Fei.SharedObjects">
<CustomData {ARRAYS}>
<a:KeyValueOfstringanyType><a:Key>Dose</a:Key><a:Value>5E+21</a:Value></a:KeyValueOfstringanyType>
<a:KeyValueOfstringanyType><a:Key>AppliedDefocus</a:Key><a:Value>-1.5E-06</a:Value></a:KeyValueOfstringanyType>
</CustomData>
<SpatialScale><pixelSize><x><numericValue>1.06E-10</numericValue></x></pixelSize></SpatialScale>
<microscopeData>
<acquisition><acquisitionDateTime>2026-03-01T10:00:00.1234567+01:00</acquisitionDateTime>
<camera><ExposureTime>2.5</ExposureTime><CameraSpecificInput {ARRAYS}>
<a:KeyValueOfstringanyType><a:Key>SuperResolutionFactor</a:Key><a:Value>2</a:Value></a:KeyValueOfstringanyType>
<a:KeyValueOfstringanyType><a:Key>FractionationSettings</a:Key><a:Value><NumberOffractions>40</NumberOffractions>
</a:Value></a:KeyValueOfstringanyType>
</CameraSpecificInput></camera></acquisition>
<gun><AccelerationVoltage>200000</AccelerationVoltage></gun>
<stage><Position><A>0.5235987755982988</A><X>1E-05</X><Y>-2E-05</Y><Z>3E-06</Z></Position></stage>
</microscopeData></MicroscopeImage>"""


def saved(folder: Path, content: str, name: str = "exposure.xml") -> Path:
    """The content as a file."""
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_an_exposure_is_read_in_our_units(tmp_path: Path) -> None:
    """Metres become ångströms and micrometres, radians degrees, volts kilovolts, local times UTC."""
    metadata = read_exposure_xml(saved(tmp_path, EXPOSURE))
    assert metadata.optics.pixel_size_angstrom == pytest.approx(0.53)
    assert metadata.optics.dose_e_per_square_angstrom == pytest.approx(50.0)
    assert metadata.optics.voltage_kilovolt == pytest.approx(200.0)
    assert metadata.optics.frame_count == 40
    assert metadata.optics.spherical_aberration_millimeter is None
    assert metadata.applied_defocus_micrometer == pytest.approx(-1.5)
    assert metadata.acquired_at == datetime(2026, 3, 1, 9, 0, 0, 123456, tzinfo=UTC)
    assert metadata.tilt_degrees == pytest.approx(30.0)
    stage = (metadata.stage_x_micrometer, metadata.stage_y_micrometer, metadata.stage_z_micrometer)
    assert stage == pytest.approx((10.0, -20.0, 3.0))
    assert metadata.source == "epu-xml"


# File, pixel of the movie (Å), dose (e/Å²), applied defocus (µm), frames, exposure (s), magnification, detector, slit.
F3, K3 = "BM-Falcon", "BioQuantum K3"
REAL = [
    ("FoilHole_18890345_Data_18881924_18881926_20200320_090200", 1.06847, 40.05405, -3.25, 40, 70.36, 75e3, F3, None),
    ("FoilHole_5850127_Data_5798426_5798428_20221104_061329", 0.642598, 63.99304, -1.4, 70, 2.0, 130e3, K3, 20),
    ("FoilHole_9015883_Data_9017347_6_20250108_154915", 0.527941, 14.41084, -2.7, 50, 0.89, 165e3, K3, 20),
    ("FoilHole_9015883_Data_9017354_6_20250108_154918", 0.527941, 14.55775, -2.7, 50, 0.89, 165e3, K3, 20),
    ("FoilHole_9028219_Data_9017347_50_20250109_062621", 0.527941, 14.05544, -1.5, 50, 0.89, 165e3, K3, 20),
    ("FoilHole_9028219_Data_9017354_50_20250109_062624", 0.527941, 14.15390, -1.5, 50, 0.89, 165e3, K3, 20),
]  # fmt: skip


@pytest.mark.parametrize("row", REAL, ids=lambda row: row[0])
def test_real_exposures_of_epu_2_6_to_3_9(real_data: Path, row: tuple) -> None:  # type: ignore[type-arg]
    """The real documents give the values that they hold, the pixel that of the movie."""
    name, pixel, dose, defocus, frames, seconds, magnification, detector, slit = row
    metadata = read_exposure_xml(next(real_data.rglob(f"{name}.xml")))
    assert metadata.optics.pixel_size_angstrom == pytest.approx(pixel, rel=1e-5)
    assert metadata.optics.dose_e_per_square_angstrom == pytest.approx(dose, rel=1e-6)
    assert metadata.optics.voltage_kilovolt == pytest.approx(300.0)
    assert metadata.optics.frame_count == frames
    assert metadata.optics.spherical_aberration_millimeter is None
    assert metadata.applied_defocus_micrometer == pytest.approx(defocus)
    assert metadata.exposure_time_seconds == seconds
    assert metadata.magnification == magnification
    assert metadata.detector == detector
    assert metadata.energy_slit_electronvolt == slit
    assert metadata.acquired_at is not None
    assert metadata.acquired_at.tzinfo is UTC


def test_the_dose_on_the_camera_confirms_which_pixel_the_document_means(real_data: Path) -> None:
    """DoseOnCamera is Dose times the area of `pixelSize` in the real K3 document, so that pixel is the preview's, and
    the movie's is half of it."""
    metadata = read_exposure_xml(next(real_data.rglob("FoilHole_9015883_Data_9017347_6_*.xml")))
    assert metadata.optics.pixel_size_angstrom is not None
    assert metadata.optics.dose_e_per_square_angstrom is not None
    preview = 2 * metadata.optics.pixel_size_angstrom
    assert metadata.optics.dose_e_per_square_angstrom * preview**2 == pytest.approx(16.066434, rel=1e-5)


def test_times_with_another_zone_become_utc(real_data: Path) -> None:
    """The exposure from a microscope five hours behind is dated in UTC."""
    metadata = read_exposure_xml(next(real_data.rglob("FoilHole_5850127*.xml")))
    assert metadata.acquired_at == datetime(2022, 11, 4, 11, 13, 35, 537803, tzinfo=UTC)


def test_other_real_documents_are_named(real_data: Path) -> None:
    """An atlas is no exposure, and an image of a grid square has no frames."""
    atlas = next(real_data.rglob("Atlas.dm"))
    with pytest.raises(MetadataError, match="AtlasSessionXml"):
        read_exposure_xml(atlas)
    square = read_exposure_xml(next(real_data.rglob("GridSquare_20250108_151151.xml")))
    assert square.magnification == 470


def test_a_bare_exposure_says_nothing(tmp_path: Path) -> None:
    """Missing elements are unknown values, not errors; a factor and a dose of 0 count as unsaid."""
    metadata = read_exposure_xml(saved(tmp_path, "<MicroscopeImage/>"))
    assert metadata.optics.pixel_size_angstrom is None
    assert metadata.acquired_at is None
    unsaid = EXPOSURE.replace("<a:Value>2</a:Value>", "<a:Value>0</a:Value>").replace("5E+21", "0")
    optics = read_exposure_xml(saved(tmp_path, unsaid)).optics
    assert optics.pixel_size_angstrom == pytest.approx(1.06)
    assert optics.dose_e_per_square_angstrom is None


@pytest.mark.parametrize(
    ("found", "put", "words"),
    [
        ("5E+21", "much", "Dose is 'much'"),
        ("5E+21", "NaN", "Dose is 'NaN'"),
        ("5E+21", "-5E+21", "Dose is -50"),
        ("1.06E-10", "-1E-10", "pixelSize is"),
        ("1.06E-10", "1E+308", "pixelSize is inf"),
        ("200000", "1E999", "AccelerationVoltage is '1E999'"),
        ("2026-03-01T10", "2026-13-01T10", "a time is"),
        ("2026-03-01", "9999999-03-01", "a time is"),
        ("MicroscopeImage", "Recipe", "is a Recipe"),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, found: str, put: str, words: str) -> None:
    """A value that is no number, or cannot be true, is named."""
    with pytest.raises(MetadataError, match=words):
        read_exposure_xml(saved(tmp_path, EXPOSURE.replace(found, put)))


BOMBS = [
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]><a>&y;</a>',
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    '<!DOCTYPE a SYSTEM "http://example.org/a.dtd"><a/>',
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_documents_that_do_harm_are_refused(tmp_path: Path, bomb: str) -> None:
    """Entities that multiply, entities that fetch files and foreign document types are refused unexpanded."""
    with pytest.raises(MetadataError, match="declares what no microscope writes"):
        read_exposure_xml(saved(tmp_path, bomb))


def test_a_cut_document_may_still_grow(tmp_path: Path) -> None:
    """A document whose end is missing is incomplete."""
    with pytest.raises(IncompleteFileError):
        read_exposure_xml(saved(tmp_path, EXPOSURE[:-20]))


def test_deep_documents_do_no_harm(tmp_path: Path) -> None:
    """A hundred thousand nested elements are read like any other document."""
    depth = 100_000
    path = saved(tmp_path, "<MicroscopeImage>" + "<a>" * depth + "</a>" * depth + "</MicroscopeImage>")
    assert read_exposure_xml(path).acquired_at is None


@given(st.integers(0, len(EXPOSURE) - 1), st.characters(codec="utf-8"))
def test_a_changed_character_gives_metadata_or_a_stated_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, character: str
) -> None:
    """No single changed character makes reading fail in an unstated way."""
    path = tmp_path_factory.getbasetemp() / "changed.xml"
    path.write_bytes((EXPOSURE[:place] + character + EXPOSURE[place + 1 :]).encode())
    try:
        read_exposure_xml(path)
    except FormatError as error:
        assert error.path == path
