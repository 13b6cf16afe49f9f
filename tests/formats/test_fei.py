"""The extended header of Thermo Fisher's MRC files."""

import gzip
import shutil
from datetime import UTC, datetime
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import get_ext_header_dtype

from coldchain.errors import IncompleteFileError, MetadataError
from coldchain.formats import mrc
from coldchain.formats.fei import read_extended_header
from coldchain.formats.structure import check_structure


def planted(path: Path, kind: bytes = b"FEI1", *, sections: int = 1, **fields: object) -> Path:
    """A small MRC whose extended header has these fields (underscores for blanks)."""
    record = np.zeros(1, dtype=get_ext_header_dtype(kind, "<"))
    for name, value in fields.items():
        record[name.replace("_", " ")] = value
    with mrcfile.new(path, data=np.zeros((sections, 4, 4), np.int16), overwrite=True) as file:
        file.set_extended_header(record)
        file.header.exttyp = kind
    return path


@pytest.mark.parametrize("kind", [b"FEI1", b"FEI2"])
def test_fields_come_in_our_units(tmp_path: Path, kind: bytes) -> None:
    """Both versions of the record are read, in our units; zeros are unknown."""
    path = planted(
        tmp_path / "a.mrc",
        kind,
        sections=5,
        HT=200e3,
        Dose=4e21,
        Pixel_size_X=1.2e-10,
        Applied_defocus=-1.8e-6,
        Timestamp=44138.75,
        Alpha_tilt=12.5,
        Slit_inserted=True,
        Slit_width=10.0,
        Camera_name=b"BM-Falcon",
    )
    metadata = read_extended_header(path, zone=UTC)
    assert metadata is not None
    assert metadata.optics.voltage_kilovolt == pytest.approx(200)
    assert metadata.optics.dose_e_per_square_angstrom == pytest.approx(40)
    assert metadata.optics.pixel_size_angstrom == pytest.approx(1.2)
    assert metadata.optics.frame_count == 5
    assert metadata.applied_defocus_micrometer == pytest.approx(-1.8)
    assert metadata.acquired_at == datetime(2020, 11, 3, 18, 0, tzinfo=UTC)
    assert metadata.tilt_degrees == 12.5
    assert metadata.energy_slit_electronvolt == 10
    assert metadata.detector == "BM-Falcon"
    assert metadata.magnification is None
    assert metadata.source == kind.decode().lower()


def test_files_without_such_a_header_say_nothing(tmp_path: Path) -> None:
    """A plain MRC gives None, which is no error."""
    mrc.write_mrc(tmp_path / "a.mrc", np.zeros((2, 2), np.int16), pixel_size_angstrom=1.0)
    assert read_extended_header(tmp_path / "a.mrc") is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Dose": np.nan}, "Dose is nan"),
        ({"HT": np.inf}, "HT is inf"),
        ({"Pixel_size_X": -1e-10}, "Pixel size X is -1"),
        ({"Timestamp": 1e12}, "Timestamp is"),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    """A damaged record is named by its field."""
    with pytest.raises(MetadataError, match=words):
        read_extended_header(planted(tmp_path / "a.mrc", **fields), zone=UTC)  # type: ignore[arg-type]


def test_a_record_that_is_cut_or_too_short(tmp_path: Path) -> None:
    """A file that ends inside the record is incomplete; a header that leaves no room for one is wrong."""
    path = planted(tmp_path / "a.mrc")
    whole = path.read_bytes()
    path.write_bytes(whole[:1500])
    with pytest.raises(IncompleteFileError):
        read_extended_header(path)
    path.write_bytes(whole[:92] + (100).to_bytes(4, "little") + whole[96:])
    with pytest.raises(MetadataError, match="has 100 bytes"):
        read_extended_header(path)


def test_the_real_epu_2_9_micrograph(real_data: Path, tmp_path: Path) -> None:
    """The Falcon micrograph of EPU 2.9: 4096², 0.667 Å, 300 kV, 41 e/Å², applied defocus −2.2 µm, mode 6."""
    path = tmp_path / "epu2.9_example.mrc"
    with gzip.open(real_data / "micrographs" / "epu2.9_example.mrc.gz") as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    check_structure(path)
    header = mrc.read_header(path)
    assert (header.width, header.height, header.sections, header.mode) == (4096, 4096, 1, 6)
    assert (header.extended_type, header.extended_bytes) == ("FEI2", 909312)
    assert header.pixel_size_angstrom == pytest.approx(0.66655, rel=1e-4)
    metadata = read_extended_header(path, zone=UTC)
    assert metadata is not None
    assert metadata.optics.pixel_size_angstrom == pytest.approx(0.666551328, rel=1e-8)
    assert metadata.optics.voltage_kilovolt == pytest.approx(300)
    assert metadata.optics.dose_e_per_square_angstrom == pytest.approx(41.171287, rel=1e-7)
    assert metadata.optics.frame_count is None
    assert metadata.optics.spherical_aberration_millimeter is None
    assert metadata.applied_defocus_micrometer == pytest.approx(-2.2)
    assert metadata.exposure_time_seconds == pytest.approx(12.207756)
    assert metadata.magnification == 120000
    assert (metadata.detector, metadata.microscope) == ("BM-Falcon", "TITAN52337720")
    assert metadata.acquired_at == datetime(2020, 11, 3, 17, 36, 4, 917000, tzinfo=UTC)
    image = mrc.read_mrc(path)
    assert (image.dtype, int(image.min()), int(image.max())) == (np.uint16, 2790, 9661)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IncompleteFileError):
        check_structure(path)
