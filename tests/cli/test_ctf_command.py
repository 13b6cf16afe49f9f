"""`coldchain ctf`: a planted defocus is told, shown and handed to RELION; what cannot be fitted is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import imagecodecs
import numpy as np
import pytest
import starfile
from numpy.typing import NDArray
from PIL import Image

from coldchain.formats import star
from coldchain.formats.coordinates import write_coordinates
from coldchain.formats.mrc import read_header, read_mrc, write_mrc
from coldchain.formats.relion_micrographs import CorrectedMicrograph, OpticsGroup, write_corrected_micrographs
from coldchain.formats.relion_motion import RelionMotion, write_motion
from coldchain.formats.tiff import write_tiff_movie
from coldchain.model.results import Pick
from tests.cli.answer import Answer, Typed
from tests.formats import relion_project
from tests.kernels.planted_ctf import micrograph, planted_ctf, wavelength_angstrom

PIXEL_ANGSTROM, U_ANGSTROM, V_ANGSTROM, ANGLE_DEGREES = 1.2, 15000.0, 14200.0, 35.0
SHAPE = (768, 800)
OPTICS = ["--voltage", 300, "--threads", 1]
KEYS = [
    *("file", "defocus_u_angstrom", "defocus_v_angstrom", "defocus_angle_degrees", "phase_shift_degrees", "score"),
    *("fit_resolution_angstrom", "ice_ring_density", "uncertainty_angstrom", "trustworthy", "reason", "seconds"),
]


def planted(**changes: float) -> NDArray[np.float32]:
    """A micrograph whose CTF is known; row 0 is the first of the array."""
    ctf = planted_ctf(SHAPE, PIXEL_ANGSTROM, U_ANGSTROM, V_ANGSTROM, ANGLE_DEGREES, **changes)
    return micrograph(SHAPE, PIXEL_ANGSTROM, ctf, signal_to_noise=0.5, seed=1)


@pytest.fixture(scope="module")
def picture() -> NDArray[np.float32]:
    """The planted micrograph."""
    return planted()


@pytest.fixture
def folder(tmp_path: Path, picture: NDArray[np.float32]) -> Path:
    """A folder with the micrograph in `a.mrc`."""
    write_mrc(tmp_path / "a.mrc", picture, pixel_size_angstrom=PIXEL_ANGSTROM)
    return tmp_path


def spectrum_of(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root mean square amplitudes of tiles of 512 pixels, frequency 0 in the middle."""
    tiles = [picture[y : y + 512, x : x + 512] for y in (0, 128, 256) for x in (0, 144, 288)]
    window = np.outer(np.hanning(512), np.hanning(512))
    power = np.mean([np.abs(np.fft.fft2((tile - tile.mean()) * window)) ** 2 for tile in tiles], axis=0)
    return np.fft.fftshift(np.sqrt(power)).astype(np.float32)


def fitted(answer: Answer, *, angle_degrees: float = ANGLE_DEGREES, tolerance_angstrom: float = 80) -> dict[str, Any]:
    """What is told of the one file, which must be as planted."""
    assert answer.status == 0, answer.out + answer.err
    (told,) = json.loads(answer.out)
    assert told["trustworthy"], told
    assert told["defocus_u_angstrom"] == pytest.approx(U_ANGSTROM, abs=tolerance_angstrom)
    assert told["defocus_v_angstrom"] == pytest.approx(V_ANGSTROM, abs=tolerance_angstrom)
    assert abs((told["defocus_angle_degrees"] - angle_degrees + 90) % 180 - 90) < 6
    return dict(told)


def test_a_planted_defocus_is_told(folder: Path, typed: Typed) -> None:
    """JSON has the fit with all that belongs to it, and what it took from where; a line says the same."""
    told = fitted(typed("ctf", folder / "a.mrc", *OPTICS, "--out", folder / "out", "--json"))
    assert list(told)[: len(KEYS)] == KEYS
    assert (told["file"], told["reason"]) == (str(folder / "a.mrc"), "")
    assert told["warnings"] == ["The picture is 96 nm wide: is the pixel size right?"]
    assert told["pixel_size_angstrom"] == PIXEL_ANGSTROM
    assert all(value == round(value, 4) for value in told.values() if isinstance(value, float))
    assert (told["voltage_kilovolt"], told["spherical_aberration_millimeter"]) == (300, 2.7)
    assert {told[f"tilt_{what}degrees"] for what in ("", "axis_", "uncertainty_")} == {None}
    assert {path.name for path in (folder / "out").iterdir()} == {
        *("a_ctf.mrc", "a_ctf.png", "a_ctf_profile.txt", "a_ctf_profile.svg", "micrographs_ctf.star")
    }
    spoken = typed("ctf", folder / "a.mrc", *OPTICS, "--out", folder / "out").out
    assert f"{told['defocus_u_angstrom']:.0f} / {told['defocus_v_angstrom']:.0f} Å" in spoken


def test_every_container_and_the_spectrum_say_the_same(
    folder: Path, picture: NDArray[np.float32], typed: Typed
) -> None:
    """The angle counts from x towards the picture's top: the same numbers stored top row first are its mirror image."""
    grey = np.clip(128 + 4 * (picture - picture.mean()), 0, 255).astype(np.uint8)
    (folder / "b.png").write_bytes(imagecodecs.png_encode(grey))
    write_tiff_movie(folder / "c.tif", [grey], pixel_size_angstrom=PIXEL_ANGSTROM)  # its rows are reversed on writing
    write_mrc(folder / "d_PS.mrc", spectrum_of(picture), pixel_size_angstrom=PIXEL_ANGSTROM)
    options = [*OPTICS, "--out", folder, "--json"]
    fitted(typed("ctf", folder / "b.png", "--pixel-size", PIXEL_ANGSTROM, *options), angle_degrees=180 - ANGLE_DEGREES)
    fitted(typed("ctf", folder / "c.tif", *options))
    told = fitted(typed("ctf", folder / "d_PS.mrc", *options), tolerance_angstrom=200)
    assert "micrograph is not beside it" in told["warnings"][0]
    # An option that speaks of micrographs does not bend a spectrum whose header knows better.
    told = fitted(typed("ctf", folder / "d_PS.mrc", "--pixel-size", 0.6, *options), tolerance_angstrom=200)
    assert "--pixel-size is that of micrographs" in told["warnings"][0]


def test_the_pictures_show_measured_and_fitted_rings(folder: Path, typed: Typed) -> None:
    """Both halves of the diagnostic agree, the PNG shows it the right way up with words below, the profile has zeros
    where the CTF has them."""
    typed("ctf", folder / "a.mrc", *OPTICS, "--out", folder)
    picture, header = read_mrc(folder / "a_ctf.mrc"), read_header(folder / "a_ctf.mrc")
    side = picture.shape[0]
    assert picture.shape == (side, side)
    assert header.pixel_size_angstrom == pytest.approx(3.0 / 2, rel=0.05)  # to 3 Å
    left, right = picture[1:, 1 : side // 2], picture[:0:-1, : side // 2 : -1]
    y, x = np.mgrid[1:side, 1 : side // 2] - side // 2
    rings = (np.hypot(y, x) > 0.15 * side) & (np.hypot(y, x) < 0.3 * side)
    assert np.corrcoef(left[rings], right[rings])[0, 1] > 0.5
    shown = np.asarray(Image.open(folder / "a_ctf.png"))
    factor = shown.shape[1] // side
    assert shown.shape[1] == factor * side >= 512
    inside = slice(40, side - 40)
    assert np.abs(shown[: side * factor : factor, ::factor][inside] / 255 - picture[::-1][inside]).max() < 0.01
    assert shown[side * factor :].min() < 50
    k, resolution, _, curve, agreement = np.loadtxt(folder / "a_ctf_profile.txt").T
    assert np.allclose(k * resolution, 1, rtol=1e-3)
    wavelength = wavelength_angstrom(300)
    chi = np.pi * wavelength * k**2 * ((U_ANGSTROM + V_ANGSTROM) / 2 - 1.35e7 * wavelength**2 * k**2)
    assert np.corrcoef(curve, np.sin(chi + np.arcsin(0.1)) ** 2)[0, 1] > 0.95
    assert agreement[(k > 0.06) & (k < 0.12)].min() > 0.7
    plot = ET.parse(folder / "a_ctf_profile.svg").getroot()
    assert len(plot.findall("{http://www.w3.org/2000/svg}polyline")) == 3


def test_relion_goes_on_from_the_list(
    folder: Path, picture: NDArray[np.float32], typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The particles that it extracts have the defocus that was fitted; what cannot be believed is not listed."""
    if not shutil.which("relion_preprocess"):
        pytest.skip("the package relion is not installed")
    monkeypatch.chdir(folder)
    noise = np.random.default_rng(3).normal(10, 1, SHAPE).astype(np.float32)
    write_mrc(folder / "noise.mrc", noise, pixel_size_angstrom=PIXEL_ANGSTROM)
    shutil.move("a.mrc", "sum.mrc")
    write_mrc(folder / "sum_noDW.mrc", picture, pixel_size_angstrom=PIXEL_ANGSTROM)
    answer = typed("ctf", ".", *OPTICS, "--cs", 1.4, "--amplitude-contrast", 0.07, "--out", "fits", "--json")
    assert answer.status == 0
    told = json.loads(answer.out)
    assert [(record["file"], record["trustworthy"]) for record in told] == [
        ("noise.mrc", False),
        ("sum_noDW.mrc", True),
    ]
    Path("picks").mkdir()
    write_coordinates(Path("picks/sum_picks.star"), [Pick(300.0, 200.0, 1.0), Pick(100.0, 400.0, 0.5)])
    words = ["--i", "fits/micrographs_ctf.star", "--coord_dir", "picks", "--coord_suffix", "_picks.star"]
    words += ["--part_dir", "cut", "--part_star", "cut/p.star", "--extract", "--extract_size", "64"]
    relion_project.run(folder, "relion_preprocess", *words)
    blocks = starfile.read(folder / "cut" / "p.star", always_dict=True)
    assert list(blocks["particles"]["rlnMicrographName"]) == ["sum.mrc"] * 2
    for label, key in (
        ("rlnDefocusU", "defocus_u_angstrom"),
        ("rlnDefocusV", "defocus_v_angstrom"),
        ("rlnDefocusAngle", "defocus_angle_degrees"),
        ("rlnCtfMaxResolution", "fit_resolution_angstrom"),
        ("rlnCtfFigureOfMerit", "score"),
    ):
        assert list(blocks["particles"][label]) == pytest.approx([told[1][key]] * 2, rel=1e-4)
    optics = {label: float(blocks["optics"][label].iloc[0]) for label in blocks["optics"] if "Name" not in label}
    assert optics["rlnSphericalAberration"] == 1.4
    assert optics["rlnAmplitudeContrast"] == 0.07
    assert optics["rlnImagePixelSize"] == pytest.approx(PIXEL_ANGSTROM)
    kept = ["--i", "fits/micrographs_ctf.star", "--o", "kept.star", "--select", "rlnCtfMaxResolution"]
    relion_project.run(folder, "relion_star_handler", *kept, "--minval", "0", "--maxval", "100")
    columns = star.table(star.read_star(folder / "kept.star"), "micrographs", folder).columns
    assert list(columns["rlnCtfImage"]) == ["fits/sum_noDW_ctf.mrc"]
    assert float(columns["rlnCtfAstigmatism"][0]) == pytest.approx(U_ANGSTROM - V_ANGSTROM, abs=100)
    assert "rlnPhaseShift" not in columns


def test_a_list_of_nothing_is_no_list(folder: Path, typed: Typed) -> None:
    """Where no fit of a call can be believed, that of an earlier call goes."""
    typed("ctf", folder / "a.mrc", *OPTICS, "--out", folder)
    assert (folder / "micrographs_ctf.star").is_file()
    write_mrc(folder / "a.mrc", np.ones(SHAPE, np.float32), pixel_size_angstrom=PIXEL_ANGSTROM)
    (told,) = json.loads(typed("ctf", folder / "a.mrc", *OPTICS, "--out", folder, "--json").out)
    assert (told["trustworthy"], told["files"]) == (False, {})
    assert {path.name for path in folder.iterdir()} == {"a.mrc"}


def test_a_phase_shift_is_fitted_or_given(tmp_path: Path, typed: Typed) -> None:
    """A planted 60° is found where it is asked for, taken where it is known, and listed for RELION."""
    write_mrc(tmp_path / "a.mrc", planted(phase_shift_degrees=60.0), pixel_size_angstrom=PIXEL_ANGSTROM)
    for words in (["--phase-shift", "fit"], ["--phase-shift", 60]):
        told = fitted(typed("ctf", tmp_path / "a.mrc", *OPTICS, *words, "--out", tmp_path, "--json"))
        assert told["phase_shift_degrees"] == pytest.approx(60, abs=8)
        columns = star.table(star.read_star(tmp_path / "micrographs_ctf.star"), "micrographs", tmp_path).columns
        assert float(columns["rlnPhaseShift"][0]) == pytest.approx(told["phase_shift_degrees"], abs=1e-3)


def test_a_tilt_is_told_where_it_is_asked_for(folder: Path, picture: NDArray[np.float32], typed: Typed) -> None:
    """Of a flat specimen none is, but how small it must be, and the fit is the same; a spectrum alone does not show a
    tilt, and that is said."""
    told = fitted(typed("ctf", folder / "a.mrc", *OPTICS, "--tilt", "--out", folder, "--json"))
    flat = fitted(typed("ctf", folder / "a.mrc", *OPTICS, "--out", folder, "--json"))
    assert (told["tilt_degrees"], told["tilt_axis_degrees"]) == (0, 0)
    assert 0 < told["tilt_uncertainty_degrees"] < 30
    assert told["defocus_u_angstrom"] == flat["defocus_u_angstrom"]
    spoken = typed("ctf", folder / "a.mrc", *OPTICS, "--tilt", "--out", folder).out
    assert f"no tilt to be seen (less than ± {told['tilt_uncertainty_degrees']:.1f}°)" in spoken
    write_mrc(folder / "a_PS.mrc", spectrum_of(picture), pixel_size_angstrom=PIXEL_ANGSTROM)
    words = [folder / "a_PS.mrc", *OPTICS, "--tilt", "--out", folder, "--json"]
    told = fitted(typed("ctf", *words), tolerance_angstrom=200)
    assert told["tilt_degrees"] is None
    assert "does not show a tilt" in told["warnings"][0]


def motion(path: Path) -> None:
    """A motion STAR of a movie of which nothing moved, whose sum has pixels twice as large."""
    still = RelionMotion(
        width=100,
        height=100,
        movie_name="m.tif",
        shift_x_pixel=np.zeros(3),
        shift_y_pixel=np.zeros(3),
        pixel_size_angstrom=PIXEL_ANGSTROM / 2,
        bin_factor=2.0,
        voltage_kilovolt=300.0,
    )
    write_motion(path, still)


def test_what_an_alignment_left_is_used(folder: Path, picture: NDArray[np.float32], typed: Typed) -> None:
    """Voltage from the motion STAR, Cs and amplitude contrast from the list; options count over both."""
    write_mrc(folder / "a.mrc", picture, pixel_size_angstrom=1.0)  # which says nothing
    motion(folder / "a.star")
    options = [folder / "a.mrc", "--threads", 1, "--out", folder / "out", "--json"]
    told = fitted(typed("ctf", *options))
    assert (told["voltage_kilovolt"], told["pixel_size_angstrom"]) == (300, pytest.approx(PIXEL_ANGSTROM))
    assert (told["spherical_aberration_millimeter"], told["amplitude_contrast"]) == (2.7, 0.1)
    group = OpticsGroup(
        name="g",
        movie_pixel_size_angstrom=0.6,
        pixel_size_angstrom=1.2,
        voltage_kilovolt=200.0,
        spherical_aberration_millimeter=2.0,
        amplitude_contrast=0.07,
    )
    row = CorrectedMicrograph(
        name="x/a.mrc", metadata_name="x/a.star", total_motion_pixel=1, early_motion_pixel=1, late_motion_pixel=0
    )
    write_corrected_micrographs(folder / "corrected_micrographs.star", [group], [row])
    (told,) = json.loads(typed("ctf", *options).out)
    assert (told["voltage_kilovolt"], told["spherical_aberration_millimeter"]) == (300, 2.0)
    assert told["amplitude_contrast"] == 0.07
    (told,) = json.loads(typed("ctf", *options, "--cs", 0, "--voltage", 200).out)
    assert (told["voltage_kilovolt"], told["spherical_aberration_millimeter"]) == (200, 0)


def test_each_bad_micrograph_is_said_once_and_the_others_are_fitted(
    folder: Path, picture: NDArray[np.float32], typed: Typed
) -> None:
    """What cannot be read fails with one sentence; what can be read and not fitted is not to be trusted."""
    good = {"pixel_size_angstrom": PIXEL_ANGSTROM}
    write_mrc(folder / "nan.mrc", np.full(SHAPE, np.nan, np.float32), **good)
    write_mrc(folder / "movie.mrc", picture[np.newaxis].repeat(2, axis=0), **good)
    write_mrc(folder / "unknown.mrc", picture, pixel_size_angstrom=0.001)
    (folder / "foreign.tif").write_bytes(b"no picture" * 300)
    (folder / "cut.mrc").write_bytes((folder / "a.mrc").read_bytes()[:100_000])
    (folder / "empty").mkdir()
    write_mrc(folder / "blank.mrc", np.ones(SHAPE, np.float32), **good)
    write_mrc(folder / "small.mrc", picture[:100, :100], **good)
    holes = picture.copy()
    holes[100:103, 200:203] = np.nan
    write_mrc(folder / "holes.mrc", holes, **good)
    failing = {
        "nan.mrc": "not finite numbers",
        "movie.mrc": "it holds 2 frames; expected one picture. Align a movie first (coldchain align)",
        "unknown.mrc": "Give with --pixel-size Å",
        "foreign.tif": "expected a TIFF",
        "cut.mrc": "the file ends after 100,000",
        "empty": "there is no micrograph in this folder",
        "gone.mrc": "No such file",
    }
    doubtful = {"blank.mrc": "blank", "small.mrc": "too small"}
    names = [*failing, *doubtful, "holes.mrc", "a.mrc"]
    options = ["--voltage", 300, "--threads", 2, "--out", folder / "out"]
    answer = typed("ctf", *(folder / name for name in names), *options, "--json")
    assert answer.status == 1
    told = {Path(record["file"]).name: record for record in json.loads(answer.out)}
    assert set(told) == set(names)
    assert {name: words for name, words in failing.items() if words not in told[name].get("error", "")} == {}
    for name, words in doubtful.items():
        assert (told[name]["trustworthy"], words in told[name]["reason"]) == (False, True)
    assert told["a.mrc"]["trustworthy"]
    assert told["holes.mrc"]["defocus_u_angstrom"] == pytest.approx(U_ANGSTROM, abs=100)
    assert "9 pixels are no finite numbers" in told["holes.mrc"]["warnings"][0]
    assert not [path for path in (folder / "out").iterdir() if path.name.startswith(".")]
    spoken = typed("ctf", *(folder / name for name in names), *options)
    assert "Traceback" not in spoken.err
    assert f"{len(failing)} of {len(names)} micrographs failed" in spoken.err
    assert "blank.mrc: not to be trusted: the picture is blank" in spoken.out


def test_a_missing_voltage_is_asked_for(folder: Path, typed: Typed) -> None:
    """The sentence names the option; the pixel size, which the header has, is not asked for."""
    answer = typed("ctf", folder / "a.mrc", "--out", folder)
    assert answer.status == 1
    assert "voltage is not known" in answer.err
    assert "Give with --voltage kV." in answer.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--voltage", 300000], "another unit"),
        (["--pixel-size", 0], "--pixel-size is 0 Å"),
        (["--phase-shift", "much"], "'fit'"),
        (["--phase-shift", "nan"], "--phase-shift is nan"),
        (["--min-resolution", 3, "--max-resolution", 30], "--max-resolution below --min-resolution"),
        (["--min-defocus", 50000, "--max-defocus", 20000], "--min-defocus below --max-defocus"),
        (["--min-defocus", -1], "--min-defocus is -1 Å"),
        (["--amplitude-contrast", 1], "--amplitude-contrast is 1"),
        (["--cs", -1], "--cs is -1 mm"),
    ],
)
def test_a_mistaken_fit_is_answered_in_a_sentence(folder: Path, typed: Typed, words: list[object], says: str) -> None:
    """What is wrong and what would be right, with status 2; nothing is written."""
    answer = typed("ctf", folder / "a.mrc", *words, "--out", folder / "out")
    assert answer.status == 2
    assert says in answer.err
    assert not (folder / "out").exists()


def test_no_fit_takes_the_place_of_a_file_that_is_read(folder: Path, typed: Typed) -> None:
    """A result's name that an input has, and two inputs of one stem, are refused before anything is done."""
    shutil.copy(folder / "a.mrc", folder / "a_ctf.mrc")
    taken = typed("ctf", folder / "a.mrc", folder / "a_ctf.mrc", *OPTICS, "--out", folder)
    assert (taken.status, "would replace" in taken.err) == (2, True)
    (folder / "b").mkdir()
    shutil.copy(folder / "a.mrc", folder / "b" / "a.mrc")
    twice = typed("ctf", folder / "a.mrc", folder / "b", *OPTICS, "--out", folder / "out")
    assert (twice.status, "2 of the micrographs are called a" in twice.err) == (2, True)


def test_a_real_micrograph_is_fitted_as_others_fit_it(real_data: Path, tmp_path: Path, typed: Typed) -> None:
    """Its own header says pixel and voltage; CTFFIND 5 found 27,294 / 27,148 Å, to 3.5 Å."""
    import gzip

    path = tmp_path / "epu.mrc"
    path.write_bytes(gzip.decompress((real_data / "micrographs" / "epu2.9_example.mrc.gz").read_bytes()))
    (told,) = json.loads(typed("ctf", path, "--out", tmp_path, "--threads", 2, "--json").out)
    assert told["trustworthy"]
    assert told["voltage_kilovolt"] == 300
    assert told["defocus_u_angstrom"] == pytest.approx(27294, abs=150)
    assert told["defocus_v_angstrom"] == pytest.approx(27148, abs=150)
    assert told["fit_resolution_angstrom"] <= 3.6
