"""Which micrographs of a folder are meant, and how each was taken."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import ProcessingError
from coldchain.formats.mrc import write_mrc
from coldchain.formats.relion_micrographs import CorrectedMicrograph, OpticsGroup, write_corrected_micrographs
from coldchain.formats.tiff import write_tiff_movie
from coldchain.model.optics import Optics
from coldchain.preprocess.imaging import Imaging, ImagingFinder
from coldchain.preprocess.micrographs import (
    UNWEIGHTED_FIRST,
    WEIGHTED_FIRST,
    gather,
    micrograph_of,
    probe_picture,
    read_templates,
)

PICTURE = np.arange(64 * 80, dtype=np.float32).reshape(64, 80)


def fill(folder: Path, *names: str) -> None:
    """Write a small picture under each name."""
    for name in names:
        path = folder / name
        if path.suffix == ".png":
            path.write_bytes(imagecodecs.png_encode(PICTURE.astype(np.uint16)))
        elif path.suffix in (".tif", ".tiff", ".TIF"):
            write_tiff_movie(path, [PICTURE])
        else:
            write_mrc(path, PICTURE, pixel_size_angstrom=1.3)


def names_of(folder: Path, variants: tuple[str, ...]) -> list[str]:
    """What of the folder is meant."""
    found, empty = gather([folder], variants)
    assert not empty
    return [path.name for path in found]


def test_an_exposure_counts_once(tmp_path: Path) -> None:
    """Fits take the sum without dose weighting and picks the one with it, whichever program named them."""
    fill(tmp_path, "a.mrc", "a_noDW.mrc", "a_even.mrc", "a_odd.mrc", "a_PS.mrc", "b.mrc", "b_DW.mrc", "b_DWS.mrc")
    fill(tmp_path, "c_noDW.mrc", "d.mrc", "d_EVN.mrc", "d_ODD.mrc")
    assert names_of(tmp_path, UNWEIGHTED_FIRST) == ["a_noDW.mrc", "b.mrc", "c_noDW.mrc", "d.mrc"]
    assert names_of(tmp_path, WEIGHTED_FIRST) == ["a.mrc", "b_DW.mrc", "c_noDW.mrc", "d.mrc"]


def test_what_is_no_micrograph_is_left_out(tmp_path: Path) -> None:
    """Movies, gains that were applied, what fits and picks leave, hidden and foreign files, and other folders."""
    fill(tmp_path, "a.mrc", "a_ctf.mrc", "a_junk.mrc", "a_ctf.png", "a_picks.png", "gain_applied_0a1b.mrc", ".b.mrc")
    write_mrc(tmp_path / "movie.mrc", np.stack([PICTURE] * 2), pixel_size_angstrom=1.3)
    write_tiff_movie(tmp_path / "movie2.tif", [PICTURE] * 2)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "e.mrc").mkdir()
    fill(tmp_path / "e.mrc", "f.mrc")
    assert names_of(tmp_path, WEIGHTED_FIRST) == ["a.mrc"]


def test_a_gain_reference_is_no_micrograph(tmp_path: Path) -> None:
    """By its name, or as an mdoc beside it names it; what only sounds like one counts."""
    fill(tmp_path, "a.mrc", "gain.mrc", "x_gain.tif", "GainRef_1.mrc", "CountRef_b.mrc", "s7.mrc", "again_1.mrc")
    fill(tmp_path, "gain_of_function_1.mrc")
    (tmp_path / "a.tif.mdoc").write_text("GainReference = C:\\frames\\s7.mrc\n[FrameSet = 0]\n")
    assert names_of(tmp_path, UNWEIGHTED_FIRST) == ["a.mrc", "again_1.mrc", "gain_of_function_1.mrc"]


def test_movies_alone_are_to_be_aligned_first(tmp_path: Path) -> None:
    """A folder that holds nothing else says how many there are."""
    for name in ("m.mrc", "n.mrc"):
        write_mrc(tmp_path / name, np.stack([PICTURE] * 2), pixel_size_angstrom=1.3)
    fill(tmp_path, "gain.mrc")
    found, (empty,) = gather([tmp_path], UNWEIGHTED_FIRST)
    assert not found
    assert "no micrograph in this folder, but 2 movies. Align them first (coldchain align)" in str(empty.error)


def test_one_picture_of_a_stem_counts(tmp_path: Path) -> None:
    """The MRC before the TIFF before the PNG; suffixes in capitals count."""
    fill(tmp_path, "a.mrc", "a.tif", "a.png", "b.tiff", "b.png", "c.png", "d.TIF")
    assert names_of(tmp_path, WEIGHTED_FIRST) == ["a.mrc", "b.tiff", "c.png", "d.TIF"]


def test_files_that_are_named_count_as_they_are(tmp_path: Path) -> None:
    """In their order and each once, also where a folder or a link leads to one again; an empty folder is said."""
    fill(tmp_path, "b_PS.mrc", "a.mrc")
    (tmp_path / "none").mkdir()
    (tmp_path / "link.mrc").symlink_to(tmp_path / "a.mrc")
    files = [tmp_path / "b_PS.mrc", tmp_path / "none", tmp_path / "a.mrc", tmp_path, tmp_path / "link.mrc"]
    found, empty = gather([*files, tmp_path / "gone.mrc"], WEIGHTED_FIRST)
    assert [path.name for path in found] == ["b_PS.mrc", "a.mrc", "gone.mrc"]
    assert [failed.path for failed in empty] == [tmp_path / "none"]
    assert "no micrograph in this folder" in str(empty[0].error)


@given(st.lists(st.sampled_from(["a", "b", "a_noDW", "b_DW", "x\ny", "_DW", "_noDW", "a_PS", "c_even"]), unique=True))
def test_every_exposure_of_any_folder_is_found(tmp_path_factory: pytest.TempPathFactory, stems: list[str]) -> None:
    """Whatever the names, each exposure with a sum gives one file, of which none is a spectrum or a half."""
    folder = tmp_path_factory.mktemp("folder")
    fill(folder, *(f"{stem}.mrc" for stem in stems))
    sums = [stem for stem in stems if not stem.endswith(("_PS", "_even"))]
    exposures = {stem.removesuffix("_noDW").removesuffix("_DW") for stem in sums}
    found, empty = gather([folder], UNWEIGHTED_FIRST)
    assert len(found) == len(exposures)
    assert {path.stem for path in found} <= set(sums)
    assert bool(empty) == (not exposures)


def test_a_fit_belongs_to_the_weighted_sum(tmp_path: Path) -> None:
    """Where that is there; a spectrum alone belongs to none."""
    fill(tmp_path, "a.mrc", "a_noDW.mrc", "a_PS.mrc", "b_noDW.mrc", "b_PS.mrc")
    assert micrograph_of(tmp_path / "a_noDW.mrc") == tmp_path / "a.mrc"
    assert micrograph_of(tmp_path / "a_PS.mrc") == tmp_path / "a.mrc"
    assert micrograph_of(tmp_path / "b_noDW.mrc") == tmp_path / "b_noDW.mrc"
    assert micrograph_of(tmp_path / "b_PS.mrc") is None
    fill(tmp_path, "c.mrc", "c_DW.mrc", "c_PS.mrc", "d.mrc")  # as MotionCor names them
    for name in ("c.mrc", "c_DW.mrc", "c_PS.mrc"):
        assert micrograph_of(tmp_path / name) == tmp_path / "c_DW.mrc"
    assert micrograph_of(tmp_path / "d.mrc") == tmp_path / "d.mrc"


def imaging(path: Path, stated: Optics = Optics(), *, needs_voltage: bool = False) -> Imaging:
    """What is known of a file."""
    return ImagingFinder(stated, needs_voltage=needs_voltage).find(probe_picture(path))


def test_the_header_knows_the_pixel_better_than_what_lies_beside(tmp_path: Path) -> None:
    """An mdoc speaks of the movie's pixel; it counts where the header says nothing."""
    fill(tmp_path, "a.mrc", "b.png")
    for name in ("a.mrc", "b.png"):
        (tmp_path / f"{name}.mdoc").write_text("PixelSpacing = 0.65\nVoltage = 200\n\n[FrameSet = 0]\nTiltAngle = 0\n")
    assert imaging(tmp_path / "a.mrc").pixel_size_angstrom == pytest.approx(1.3)
    assert imaging(tmp_path / "b.png").pixel_size_angstrom == pytest.approx(0.65)
    assert imaging(tmp_path / "b.png").voltage_kilovolt == 200


def test_an_option_that_contradicts_is_said(tmp_path: Path) -> None:
    """It counts; a value that agrees but for its rounding is not mentioned."""
    fill(tmp_path, "a.mrc")
    (tmp_path / "a.mrc.mdoc").write_text("Voltage = 200\n\n[FrameSet = 0]\nTiltAngle = 0\n")
    found = imaging(tmp_path / "a.mrc", Optics(pixel_size_angstrom=0.65, voltage_kilovolt=300))
    assert (found.pixel_size_angstrom, found.voltage_kilovolt) == (0.65, 300)
    assert found.warnings == (
        "--pixel-size 0.65 Å was used; its metadata say 1.3 Å.",
        "--voltage 300 kV was used; its metadata say 200 kV.",
    )
    assert not imaging(tmp_path / "a.mrc", Optics(pixel_size_angstrom=1.3004, voltage_kilovolt=200)).warnings


def test_what_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    """The sentence names the options that are needed, and no other."""
    fill(tmp_path, "a.mrc", "b.png")
    with pytest.raises(ProcessingError, match=r"voltage is not known.*Give with --voltage kV"):
        imaging(tmp_path / "a.mrc", needs_voltage=True)
    with pytest.raises(ProcessingError, match=r"pixel size and voltage are not known.*--pixel-size Å and --voltage kV"):
        imaging(tmp_path / "b.png", needs_voltage=True)
    with pytest.raises(ProcessingError, match=r"pixel size is not known.*--pixel-size Å\."):
        imaging(tmp_path / "b.png")


def test_files_of_one_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """Where a list names several files of this name that were taken otherwise, it says nothing of any."""
    groups = [
        OpticsGroup(
            name=name,
            movie_pixel_size_angstrom=0.65,
            pixel_size_angstrom=1.3,
            voltage_kilovolt=voltage,
            spherical_aberration_millimeter=2.7,
            amplitude_contrast=0.1,
        )
        for name, voltage in (("one", 200.0), ("two", 300.0))
    ]
    rows = [
        CorrectedMicrograph(
            name=name,
            metadata_name=f"{name}.star",
            total_motion_pixel=1,
            early_motion_pixel=1,
            late_motion_pixel=0,
            optics_group=group,
        )
        for name, group in (("x/a.mrc", 1), ("y/a.mrc", 2), ("x/b.mrc", 2), ("y/b.mrc", 2))
    ]
    write_corrected_micrographs(tmp_path / "corrected_micrographs.star", groups, rows)
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        fill(tmp_path / folder, "a.mrc", "b.mrc")
        assert imaging(tmp_path / folder / "a.mrc").voltage_kilovolt is None
        assert imaging(tmp_path / folder / "b.mrc").voltage_kilovolt == 300


@pytest.mark.parametrize(("pixel", "told"), [(2.0, 2.0), (1.0, None), (1e-6, None), (1e9, None)])
def test_templates_know_their_pixel_if_it_can_be_true(tmp_path: Path, pixel: float, told: float | None) -> None:
    """1 Å says nothing, nor does what no camera has; a single picture is a stack of one."""
    write_mrc(tmp_path / "t.mrcs", PICTURE, pixel_size_angstrom=pixel)
    stack, found = read_templates(tmp_path / "t.mrcs")
    assert stack.shape == (1, 64, 80)
    assert found == told


@pytest.mark.parametrize(
    "text", ["data_optics\n\nloop_\n_rlnOpticsGroup #1\n", "no STAR", "data_\n\nloop_\n_x #1\n1\n"]
)
def test_a_list_that_is_none_says_nothing(tmp_path: Path, text: str) -> None:
    """A damaged or foreign STAR beside a micrograph is as if it were not there."""
    fill(tmp_path, "a.mrc")
    (tmp_path / "corrected_micrographs.star").write_text(text)
    (tmp_path / "a.star").write_text(text)
    found = imaging(tmp_path / "a.mrc")
    assert (found.voltage_kilovolt, found.spherical_aberration_millimeter, found.warnings) == (None, 2.7, ())
