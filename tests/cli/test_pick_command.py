"""`coldchain pick`: particles that were planted are told where the file has them, to people and to programs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import imagecodecs
import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from coldchain.formats import star
from coldchain.formats.mrc import read_header, read_mrc, write_mrc
from coldchain.formats.tiff import write_tiff_movie
from tests.cli.answer import Typed
from tests.formats import relion_project

DIAMETER_ANGSTROM, PIXEL_ANGSTROM = 120.0, 4.0
SHAPE = (384, 320)
# Columns and rows from the first row of the array; unlike when turned upside down.
PLACES = [(60, 40), (150, 70), (250, 60), (90, 150), (200, 160), (280, 200), (70, 250), (160, 290), (240, 330)]
OPTIONS = ["--diameter", 120, "--pixel-size", 4, "--threads", 1]


def planted() -> NDArray[np.float32]:
    """Dark balls in noise."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    picture = rng.normal(0, 1, SHAPE)
    radius = DIAMETER_ANGSTROM / PIXEL_ANGSTROM / 2
    for column, row in PLACES:
        picture -= 1.6 * np.sqrt(np.clip(1 - ((x - column) ** 2 + (y - row) ** 2) / radius**2, 0, None))
    return picture.astype(np.float32)


def as_bytes(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey values of 8 bits."""
    return np.clip(128 + 20 * picture, 0, 255).astype(np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """One picture in every container: row 0 of the array is the first that the file stores."""
    picture = planted()
    write_mrc(tmp_path / "a.mrc", picture, pixel_size_angstrom=PIXEL_ANGSTROM)
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(as_bytes(picture)))
    write_tiff_movie(tmp_path / "c.tif", [as_bytes(picture)[::-1]])  # the writer reverses rows, and so do we
    return tmp_path


def distances(picks: list[dict[str, float]]) -> NDArray[np.float64]:
    """From each planted place to the nearest pick, in pixels."""
    found = np.array([[pick["x_pixel"], pick["y_pixel"]] for pick in picks])
    return np.asarray(np.linalg.norm(found[:, None] - np.array(PLACES)[None], axis=2).min(axis=0))


def upside_down(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same places counted from the picture's other edge."""
    return np.column_stack([places[:, 0], SHAPE[0] - 1 - places[:, 1]])


def coordinates(path: Path) -> NDArray[np.float64]:
    """x and y of a coordinate STAR."""
    columns = star.table(star.read_star(path), "", path).columns
    return np.array([columns["rlnCoordinateX"], columns["rlnCoordinateY"]], dtype=float).T


def test_picks_lie_where_the_file_has_the_particles(files: Path, typed: Typed) -> None:
    """In an MRC, a PNG and a TIFF alike x is the column and y the row, counted from the first that the file stores."""
    answer = typed("pick", files / "a.mrc", files / "b.png", files / "c.tif", *OPTIONS, "--out", files, "--json")
    assert answer.status == 0, answer.err
    told = json.loads(answer.out)
    assert [Path(record["file"]).name for record in told] == ["a.mrc", "b.png", "c.tif"]
    for record in told:
        assert list(record)[:4] == ["file", "diameter_angstrom", "picks", "seconds"]
        assert len(record["picks"]) == len(PLACES)
        assert set(record["picks"][0]) == {"x_pixel", "y_pixel", "figure_of_merit"}
        assert distances(record["picks"]).max() < 3
        merits = [pick["figure_of_merit"] for pick in record["picks"]]
        assert merits == sorted(merits, reverse=True)
        assert (record["diameter_angstrom"], record["dark_on_light"]) == (120, True)


def test_other_programs_find_the_particles_too(files: Path, typed: Typed) -> None:
    """STAR and box file count rows as RELION and EMAN do when they read the file: a TIFF's from its last one."""
    (mrc, png, tiff) = json.loads(
        typed("pick", files / "a.mrc", files / "b.png", files / "c.tif", *OPTIONS, "--out", files, "--json").out
    )
    for record, turned in ((mrc, False), (png, False), (tiff, True)):
        stem = Path(record["file"]).stem
        places = np.array([[pick["x_pixel"], pick["y_pixel"]] for pick in record["picks"]])
        wanted = upside_down(places) if turned else places
        assert np.allclose(coordinates(files / f"{stem}_picks.star"), wanted, atol=1e-3)
        boxes = np.loadtxt(files / f"{stem}_picks.box")
        assert (boxes[:, 2:] == 46).all()  # one and a half diameters
        assert np.abs(boxes[:, :2] + 23 - wanted).max() <= 0.5
    listed = star.table(star.read_star(files / "autopick.star"), "coordinate_files", files).columns
    assert [Path(str(name)).name for name in listed["rlnMicrographName"]] == ["a.mrc", "c.tif"]
    assert [Path(str(name)).name for name in listed["rlnMicrographCoordinates"]] == ["a_picks.star", "c_picks.star"]
    # RELION stops at a list with a picture that it cannot read.
    assert ["Not in autopick.star" in str(record["warnings"]) for record in (mrc, png, tiff)] == [False, True, False]


def test_relion_extracts_what_was_picked(files: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an MRC and from a TIFF every box has a particle in its middle."""
    if not shutil.which("relion_preprocess"):
        pytest.skip("the package relion is not installed")
    monkeypatch.chdir(files)
    assert typed("pick", "a.mrc", "c.tif", *OPTIONS, "--out", "picks").status == 0
    optics = "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographPixelSize #3\n"
    optics += "_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\nog 1 4.0 300 2.7 0.1\n\n"
    table = "data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\na.mrc 1\nc.tif 1\n\n"
    Path("mics.star").write_text(optics + table)
    words = ["--i", "mics.star", "--coord_dir", "picks", "--coord_suffix", "_picks.star", "--part_dir", "cut"]
    words += ["--part_star", "cut/p.star", "--extract", "--extract_size", "46"]
    relion_project.run(files, "relion_preprocess", *words)
    for stem in "ac":
        stack = np.asarray(mrcfile.read(files / "cut" / f"{stem}.mrcs"))
        assert len(stack) == len(PLACES)
        middle, edge = stack[:, 17:29, 17:29].mean(axis=(1, 2)), stack[:, :6].mean(axis=(1, 2))
        assert (middle < edge).all()


ICE = (240, 80, 45)  # column, row and radius


def with_ice() -> NDArray[np.float32]:
    """The picture with a dark ball of ice in its first rows."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    picture = planted()
    picture[np.hypot(x - ICE[0], y - ICE[1]) < ICE[2]] -= 12
    return picture


def test_junk_is_masked_and_outlined(tmp_path: Path, typed: Typed) -> None:
    """A dark body is in the mask and within a polygon, in the file's pixels; no particle is sought there."""
    write_mrc(tmp_path / "a.mrc", with_ice(), pixel_size_angstrom=PIXEL_ANGSTROM)
    grey = np.clip(160 + 10 * with_ice(), 0, 255).astype(np.uint8)
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(grey))
    told = json.loads(typed("pick", tmp_path / "a.mrc", tmp_path / "b.png", *OPTIONS, "--out", tmp_path, "--json").out)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    from_ice = np.hypot(x - ICE[0], y - ICE[1])
    for record, stem in zip(told, "ab", strict=True):
        assert 0.03 < record["contamination_fraction"] < 0.4
        places = np.array([[pick["x_pixel"], pick["y_pixel"]] for pick in record["picks"]])
        assert np.linalg.norm(places - ICE[:2], axis=1).min() > ICE[2]
        mask = read_mrc(tmp_path / f"{stem}_junk.mrc")
        assert (mask.shape, mask.dtype) == (SHAPE, np.int8)
        assert read_header(tmp_path / f"{stem}_junk.mrc").pixel_size_angstrom == pytest.approx(PIXEL_ANGSTROM)
        mask = mask if stem == "a" else mask[::-1]  # an MRC's first row is the picture's bottom, a PNG's its top
        assert mask[from_ice < 35].mean() > 0.9
        assert mask[from_ice > 120].mean() < 0.05
        outlines = json.loads((tmp_path / f"{stem}_junk.json").read_text())
        assert (outlines["width_pixel"], outlines["height_pixel"]) == (SHAPE[1], SHAPE[0])
        longest = np.array(max(outlines["polygons"], key=len))
        assert np.abs(longest.min(axis=0) - np.subtract(ICE[:2], ICE[2])).max() < 70
        assert longest[:, 1].max() < 200


def test_the_picture_shows_the_picks(files: Path, typed: Typed) -> None:
    """There is a coloured ring round each particle, where a viewer of the file sees it."""
    typed("pick", files / "b.png", *OPTIONS, "--out", files)
    shown = np.asarray(Image.open(files / "b_picks.png").convert("RGB")).astype(int)
    assert shown.shape[1] == SHAPE[1]
    assert shown.shape[0] > SHAPE[0]  # the caption is below
    coloured = np.abs(shown[:, :, 2] - shown[:, :, 0]) > 80
    radius = DIAMETER_ANGSTROM / PIXEL_ANGSTROM / 2
    for column, row in PLACES:
        block = coloured[row - 22 : row + 23, column - 22 : column + 23]
        distance = np.hypot(*np.mgrid[-22 : block.shape[0] - 22, -22 : block.shape[1] - 22])
        assert block[np.abs(distance - radius) < 4].mean() > 0.2
        assert not block[distance < radius - 6].any()


def test_the_diameter_can_be_estimated(files: Path, typed: Typed) -> None:
    """`auto` finds about the planted size, and says it."""
    words = ["--diameter", "auto", "--pixel-size", 4, "--threads", 1, "--out", files]
    (record,) = json.loads(typed("pick", files / "a.mrc", *words, "--json").out)
    assert record["diameter_angstrom"] == pytest.approx(DIAMETER_ANGSTROM, rel=0.25)
    assert "9 particles of" in typed("pick", files / "a.mrc", *words).out


def test_threshold_and_false_alarms_decide_how_many(files: Path, typed: Typed) -> None:
    """A high threshold leaves none, a low one more than the default."""

    def count(*words: object) -> int:
        (record,) = json.loads(typed("pick", files / "a.mrc", *OPTIONS, *words, "--out", files, "--json").out)
        return len(record["picks"])

    assert count("--threshold", 0.99) == 0
    assert count("--threshold", 0.05) > len(PLACES)
    assert count("--false-alarm-rate", 0.01) <= len(PLACES) <= count("--false-alarm-rate", 100)
    assert star.read_star(files / "a_picks.star")


def test_a_folder_counts_each_exposure_once(tmp_path: Path, typed: Typed) -> None:
    """Of an alignment's folder the sums alone are picked, and a second call does not pick what the first one left."""
    picture = planted()
    for name in ("x.mrc", "x_noDW.mrc", "x_even.mrc", "x_PS.mrc", "y_noDW.mrc"):
        write_mrc(tmp_path / name, picture, pixel_size_angstrom=PIXEL_ANGSTROM)
    write_mrc(tmp_path / "movie.mrc", np.stack([picture] * 2), pixel_size_angstrom=PIXEL_ANGSTROM)
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(as_bytes(picture)))
    for _ in range(2):
        told = json.loads(typed("pick", tmp_path, "--diameter", 120, "--threads", 1, "--out", tmp_path, "--json").out)
        assert [Path(record["file"]).name for record in told] == ["x.mrc", "y_noDW.mrc"]


def test_templates_are_read(files: Path, typed: Typed) -> None:
    """A stack of pictures of the particle is taken with its own pixel; what is none is refused."""
    y, x = np.mgrid[-20:20, -20:20] + 0.5
    ball = -np.sqrt(np.clip(1 - (x**2 + y**2) / 15**2, 0, None)).astype(np.float32)
    write_mrc(files / "t.mrcs", np.stack([ball] * 2), pixel_size_angstrom=PIXEL_ANGSTROM)
    options = [*OPTIONS, "--out", files, "--json"]
    (record,) = json.loads(typed("pick", files / "a.mrc", *options, "--templates", files / "t.mrcs").out)
    assert distances(record["picks"]).max() < 3
    refused = typed("pick", files / "a.mrc", *options, "--templates", files / "b.png")
    assert refused.status == 2
    assert "no MRC" in refused.err
    ball[0, 0] = np.nan
    write_mrc(files / "t.mrcs", ball, pixel_size_angstrom=PIXEL_ANGSTROM)
    refused = typed("pick", files / "a.mrc", *options, "--templates", files / "t.mrcs")
    assert refused.status == 1
    assert "no finite numbers" in refused.err
    assert typed("pick", files / "a.mrc", *options, "--templates", files / "gone.mrcs").status == 1


def test_what_finds_nothing_is_questioned(tmp_path: Path, typed: Typed) -> None:
    """A diameter that finds next to nothing where another finds many particles, and a pixel with which the picture is
    narrower or wider than any; without a diameter it is estimated."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:640, :640]
    picture = rng.normal(0, 1, (640, 640))
    for row, column in ((r, c) for r in range(60, 600, 100) for c in range(60, 600, 100)):
        picture -= 2.5 * np.sqrt(np.clip(1 - ((x - column) ** 2 + (y - row) ** 2) / 15**2, 0, None))
    write_mrc(tmp_path / "a.mrc", picture.astype(np.float32), pixel_size_angstrom=4)

    def told(*words: object) -> dict[str, Any]:
        answer = typed("pick", tmp_path / "a.mrc", *words, "--threads", 1, "--out", tmp_path, "--json")
        assert answer.status == 0, answer.err
        (record,) = json.loads(answer.out)
        return dict(record)

    estimated = told()
    assert len(estimated["picks"]) == 36
    assert estimated["diameter_angstrom"] == pytest.approx(120, rel=0.2)
    assert estimated["warnings"] == []
    (warning,) = told("--diameter", 600)["warnings"]
    assert warning.startswith("--diameter 600 finds ")
    assert "there are 36 of" in warning
    assert told("--pixel-size", 1, "--diameter", 30)["warnings"][-1].startswith("The picture is 64 nm wide")
    assert told("--pixel-size", 40, "--diameter", 1200)["warnings"][-1].startswith("The picture is 2.56e+03 nm wide")


def test_what_relion_cannot_read_is_said_once(files: Path, typed: Typed) -> None:
    """At the end and with their number, however many they are."""
    shutil.copy(files / "b.png", files / "d.png")
    said = typed("pick", *(files / name for name in ("a.mrc", "b.png", "d.png")), *OPTIONS, "--out", files).out
    assert said.count("autopick.star") == 1
    assert "2 of 3 micrographs not in autopick.star: RELION cannot read files of this name or kind." in said


def bad(folder: Path) -> dict[str, str]:
    """Files that cannot be picked, and what is said of each."""
    picture = planted()
    write_mrc(folder / "nan.mrc", np.full((200, 200), np.nan, np.float32), pixel_size_angstrom=4)
    write_mrc(folder / "small.mrc", picture[:20, :20], pixel_size_angstrom=4)
    write_mrc(folder / "movie.mrc", np.stack([picture] * 3), pixel_size_angstrom=4)
    write_mrc(folder / "unknown.mrc", picture, pixel_size_angstrom=1)
    (folder / "foreign.mrc").write_bytes(b"This is no picture at all." * 100)
    whole = imagecodecs.png_encode(as_bytes(picture))
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "none").mkdir()
    return {
        "nan.mrc": "not finite numbers",
        "small.mrc": "Is the pixel size right?",
        "movie.mrc": "it holds 3 frames",
        "unknown.mrc": "Give with --pixel-size",
        "foreign.mrc": "foreign.mrc",
        "cut.png": "cut.png",
        "none": "there is no micrograph in this folder",
        "gone.mrc": "No such file",
    }


def test_each_bad_file_is_said_once_and_the_others_are_picked(tmp_path: Path, typed: Typed) -> None:
    """One sentence each, with a status of 1; what is good is picked, and nothing half-written is left."""
    said = bad(tmp_path)
    write_mrc(tmp_path / "good.mrc", planted(), pixel_size_angstrom=PIXEL_ANGSTROM)
    names = [*said, "good.mrc"]
    options = ["--diameter", 120, "--threads", 2, "--out", tmp_path / "out"]
    answer = typed("pick", *(tmp_path / name for name in names), *options, "--json")
    assert answer.status == 1
    told: list[dict[str, Any]] = json.loads(answer.out)
    by_name = {Path(record["file"]).name: record for record in told}
    assert set(by_name) == set(names)
    for name, words in said.items():
        assert words in by_name[name]["error"]
    assert len(by_name["good.mrc"]["picks"]) == len(PLACES)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"good{end}" for end in ("_picks.star", "_picks.box", "_picks.png", "_junk.mrc", "_junk.json")),
        "autopick.star",
    }
    spoken = typed("pick", *(tmp_path / name for name in names), *options)
    assert spoken.status == 1
    assert "Traceback" not in spoken.err
    assert f"{len(said)} of {len(names)} micrographs failed" in spoken.err


def test_a_blank_picture_has_no_particles(tmp_path: Path, typed: Typed) -> None:
    """It is no failure, and it is said."""
    write_mrc(tmp_path / "a.mrc", np.full(SHAPE, 7, np.float32), pixel_size_angstrom=4)
    (record,) = json.loads(typed("pick", tmp_path / "a.mrc", *OPTIONS, "--out", tmp_path, "--json").out)
    assert record["picks"] == []
    assert "blank" in record["warnings"][0]
    assert len(coordinates(tmp_path / "a_picks.star")) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--diameter", "wide"], "'auto'"),
        (["--diameter", "0"], "--diameter is 0 Å"),
        (["--diameter", "nan"], "--diameter"),
        (["--diameter", "120", "--threshold", "2"], "--threshold is 2; expected from 0 to 1"),
        (["--diameter", "120", "--threshold", "0.3", "--false-alarm-rate", "1"], "contradict"),
        (["--diameter", "120", "--pixel-size", "1000"], "another unit"),
    ],
)
def test_a_mistaken_pick_is_answered_in_a_sentence(tmp_path: Path, typed: Typed, words: list[str], says: str) -> None:
    """What is wrong and what would be right, with status 2; nothing is written."""
    answer = typed("pick", tmp_path / "a.mrc", *words, "--out", tmp_path / "out")
    assert answer.status == 2
    assert says in answer.err
    assert not (tmp_path / "out").exists()


def test_no_result_takes_the_place_of_another(files: Path, typed: Typed) -> None:
    """Two files of one stem, a result with the name of a file that is read, a folder that is none: refused at once."""
    (files / "other").mkdir()
    shutil.copy(files / "a.mrc", files / "other" / "a.mrc")
    twice = typed("pick", files / "a.mrc", files / "other" / "a.mrc", *OPTIONS, "--out", files / "out")
    assert (twice.status, "2 of the micrographs are called a" in twice.err) == (2, True)
    shutil.copy(files / "a.mrc", files / "a_junk.mrc")
    taken = typed("pick", files / "a.mrc", files / "a_junk.mrc", *OPTIONS, "--out", files)
    assert (taken.status, "would replace" in taken.err) == (2, True)
    no_folder = typed("pick", files / "a.mrc", *OPTIONS, "--out", files / "b.png")
    assert (no_folder.status, "--out is no folder" in no_folder.err) == (2, True)
