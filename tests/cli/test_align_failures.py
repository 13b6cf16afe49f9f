"""`coldchain align` on bad input: each mistake is answered in a sentence, and nothing half-written is left."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coldchain.cli import align
from coldchain.errors import StoreFullError
from coldchain.formats.ifd import read_pages
from coldchain.formats.mrc import read_mrc, write_mrc
from coldchain.formats.relion_motion import read_motion
from coldchain.formats.tiff import write_tiff_movie
from coldchain.kernels.align import LARGEST_GRID
from coldchain.preprocess import alignment_files, publishing
from tests.cli.answer import Typed
from tests.cli.conftest import PARAMETERS

SHAPE = (PARAMETERS.height, PARAMETERS.width)
OPTICS = ["--pixel-size", 1.5, "--voltage", 300, "--dose-per-frame", 3, "--threads", 1]


def corrupt(camera: Path, path: Path, *frames: int) -> Path:
    """The exposure with a strip of each of these frames, from 1, overwritten."""
    data = bytearray((camera / "m.tif").read_bytes())
    for number in frames:
        offset, count = read_pages(camera / "m.tif")[number - 1].segments[0]
        data[int(offset) + 8 : int(offset + count)] = b"\xff" * int(count - 8)
    path.write_bytes(data)
    return path


def names(folder: Path) -> set[str]:
    """Everything in a folder, hidden or not."""
    return {path.name for path in folder.iterdir()}


def test_a_corrupt_movie_fails_alone(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """Frame and strip are named, the movies beside it are aligned, and the status says that one was not."""
    bad = corrupt(camera, tmp_path / "bad.tif", 4)
    movies = [camera / "m.tif", bad, camera / "m.mrc", tmp_path / "gone.tif"]
    movies[2] = tmp_path / "other.mrc"
    movies[2].symlink_to(camera / "m.mrc")
    options = [*OPTICS[:-1], 2, "--gain", camera / "gain.mrc", "--out", tmp_path / "out"]
    answer = typed("align", *movies, *options, "--json")
    assert answer.status == 1
    told = json.loads(answer.out)
    assert [record["movie"] for record in told] == [str(movie) for movie in movies]
    assert ["error" in record for record in told] == [False, True, False, True]
    assert "strip 1 of frame 4 cannot be decoded" in told[1]["error"]
    assert "gone.tif" in told[3]["error"]
    assert names(tmp_path / "out") == {
        *(f"{stem}{end}" for stem in ("m", "other") for end in (".mrc", "_noDW.mrc", "_PS.mrc", ".star")),
        "corrected_micrographs.star",
    }
    spoken = typed("align", bad, *options)
    assert spoken.status == 1
    assert "coldchain: " in spoken.err
    assert "strip 1 of frame 4" in spoken.err
    assert "Traceback" not in spoken.err


def test_bad_frames_can_be_tolerated(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """The rest is aligned, the frame is named, and the STAR has it as not used; one more is too many."""
    options = [*OPTICS, "--gain", camera / "gain.mrc", "--out", tmp_path, "--json"]
    one, two = corrupt(camera, tmp_path / "one.tif", 4), corrupt(camera, tmp_path / "two.tif", 4, 7)
    answer = typed("align", one, two, *options, "--tolerate-frames", 1)
    assert answer.status == 1
    told, failed = json.loads(answer.out)
    assert (told["frames"], told["frames_of_movie"]) == (9, 10)
    assert told["dose_e_per_square_angstrom"] == pytest.approx(30)  # the specimen saw them all
    assert any("Frame 4 is left out" in warning for warning in told["warnings"])
    assert "at least 2 frames cannot be used" in failed["error"]
    motion = read_motion(tmp_path / "one.star")
    assert np.flatnonzero(np.isnan(motion.shift_x_pixel)).tolist() == [3]
    assert typed("align", two, *options, "--tolerate-frames", 2).status == 0


def test_a_cut_movie_is_aligned_as_far_as_it_goes_if_that_is_allowed(
    camera: Path, tmp_path: Path, typed: Typed
) -> None:
    """An MRC that ends in its ninth frame has eight, and two that are tolerated."""
    data = (camera / "m.mrc").read_bytes()
    (tmp_path / "cut.mrc").write_bytes(data[: 1024 + 17 * SHAPE[0] * SHAPE[1]])  # two bytes a pixel: 8½ frames
    options = [tmp_path / "cut.mrc", *OPTICS, "--out", tmp_path / "out", "--json"]
    answer = typed("align", *options)
    assert answer.status == 1
    assert "the file ends" in json.loads(answer.out)[0]["error"]
    (told,) = json.loads(typed("align", *options, "--tolerate-frames", 2).out)
    assert told["frames"] == 8


def test_frames_before_a_cut_can_be_used(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """A TIFF that ends in its ninth page is aligned up to its eighth, where no more is asked for."""
    cut = int(read_pages(camera / "m.tif")[8].segments[0][0]) + 10
    (tmp_path / "cut.tif").write_bytes((camera / "m.tif").read_bytes()[:cut])
    options = [tmp_path / "cut.tif", *OPTICS, "--out", tmp_path / "out"]
    assert typed("align", *options).status == 1
    assert typed("align", *options, "--last", 8).status == 0


@pytest.mark.parametrize(
    ("gain", "says"),
    [
        (np.zeros(SHAPE), "all values of the gain reference are 0"),
        (np.full(SHAPE, np.nan), "negative or no numbers"),
        (np.ones((100, 120)), "120 × 100 pixels"),
        (np.ones((2, *SHAPE)), "holds 2 images"),
    ],
)
def test_an_impossible_gain_is_refused(
    camera: Path, tmp_path: Path, typed: Typed, gain: np.ndarray[tuple[int, ...], np.dtype[np.float64]], says: str
) -> None:
    """Zeros, no numbers, another shape, several images: each is said, and nothing is written."""
    write_mrc(tmp_path / "gain.mrc", gain.astype(np.float32), pixel_size_angstrom=1)
    options = ["--gain", tmp_path / "gain.mrc", "--out", tmp_path / "out"]
    answer = typed("align", camera / "m.mrc", *OPTICS, *options)
    assert answer.status == 1
    assert says in answer.err
    assert "Give" in answer.err
    assert not (tmp_path / "out").exists()


def test_a_movie_of_zeros_fails_with_its_name(tmp_path: Path, typed: Typed) -> None:
    """No beam, no picture."""
    write_tiff_movie(tmp_path / "dark.tif", np.zeros((4, 128, 128), np.uint8))
    answer = typed("align", tmp_path / "dark.tif", *OPTICS, "--out", tmp_path / "out")
    assert answer.status == 1
    assert f"{tmp_path / 'dark.tif'}: frame 1 of 4 holds the same value, 0" in answer.err


def test_one_frame_is_a_micrograph(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """There is nothing to align, and no motion."""
    write_mrc(tmp_path / "one.mrc", read_mrc(camera / "m.mrc")[0], pixel_size_angstrom=1.5)
    answer = typed("align", tmp_path / "one.mrc", *OPTICS, "--out", tmp_path / "out", "--json")
    assert answer.status == 0, answer.err
    (told,) = json.loads(answer.out)
    assert (told["frames"], told["total_motion_angstrom"], told["error_angstrom"]) == (1, 0, None)
    assert "It holds one frame: there was nothing to align." in told["warnings"]
    assert read_motion(tmp_path / "out" / "one.star").frames == 1


def test_what_is_not_known_is_asked_for(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """Without pixel size or voltage nothing is done, and the options are named."""
    neither = typed("align", camera / "m.tif", "--out", tmp_path)
    assert neither.status == 1
    assert "pixel size and voltage are not known" in neither.err
    assert "--pixel-size Å and --voltage kV" in neither.err
    voltage = typed("align", camera / "m.tif", "--pixel-size", 1.5, "--out", tmp_path)
    assert "voltage is not known" in voltage.err
    assert "--pixel-size" not in voltage.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pixel-size", "0"], "--pixel-size is 0 Å"),
        (["--voltage", "300000"], "another unit"),
        (["--dose-per-frame", "-1"], "--dose-per-frame is -1"),
        (["--pre-exposure", "-1"], "--pre-exposure is -1"),
        (["--bin", "0.5"], "--bin is 0.5"),
        (["--cs", "2700"], "--cs is 2700 mm"),
        (["--amplitude-contrast", "7"], "--amplitude-contrast is 7"),
        (["--counts-per-electron", "0"], "--counts-per-electron is 0"),
        (["--patches", "many"], "COLSxROWS"),
        (["--patches", "0x3"], "COLSxROWS"),
        (["--patches", "70x5"], "up to 64"),
        (["--first", "5", "--last", "4"], "--last is 4"),
        (["--first", "0"], "--first"),
        (["--eer-upsampling", "3"], "--eer-upsampling"),
        (["--eer-dose", "1", "--eer-fractions", "40"], "contradict"),
        (["--threads", "0"], "--threads"),
        (["--gain", "nowhere.mrc"], "no such file"),
        (["--dark", "nowhere.mrc"], "no such file"),
        (["--defects", "nowhere.txt"], "no such file"),
        (["--out", "{camera}/m.tif"], "--out is no folder"),
        (["{camera}"], "Name the movies, or {camera}/*.tiff"),
    ],
)
def test_wrong_usage_is_answered_before_any_work(
    camera: Path, tmp_path: Path, typed: Typed, words: list[str], says: str
) -> None:
    """Status 2 and a sentence; no folder is made."""
    words = [word.format(camera=camera) for word in words]
    answer = typed("align", camera / "m.tif", "--out", tmp_path / "out", *words)
    assert answer.status == 2
    assert says.format(camera=camera) in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--bin", "0.5"], ["--counts-per-electron", "0"], ["--amplitude-contrast", "7"]])
def test_a_plain_number_has_no_other_unit(camera: Path, typed: Typed, words: list[str]) -> None:
    """What has no unit is not asked about it."""
    answer = typed("align", camera / "m.tif", *words)
    assert f"{words[0]} is {words[1]}; expected from " in answer.err
    assert "unit" not in answer.err


def test_a_folder_that_cannot_be_made_is_that_of_the_option(camera: Path, typed: Typed) -> None:
    """The system's own words would not say which folder is meant."""
    answer = typed("align", camera / "m.tif", *OPTICS, "--out", "/proc/nope")
    assert answer.status == 1
    assert "/proc/nope: the folder of --out cannot be made" in answer.err


def test_a_frame_that_there_is_not_is_said(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """A movie may have fewer frames than the others: it fails alone, and the option is named."""
    answer = typed("align", camera / "m.tif", *OPTICS, "--last", 11, "--out", tmp_path)
    assert answer.status == 1
    assert "--last is 11, and the movie has 10 frames" in answer.err
    eer = typed("align", camera / "m.eer", *OPTICS, "--eer-fractions", 4, "--first", 5, "--out", tmp_path)
    assert "--first is 5, and the movie has 4 frames" in eer.err


def test_movies_of_one_name_are_not_taken_together(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """Their results would overwrite each other."""
    answer = typed("align", camera / "m.tif", camera / "m.mrc", *OPTICS, "--out", tmp_path / "out")
    assert answer.status == 2
    assert "2 of the movies are called m" in answer.err
    assert not (tmp_path / "out").exists()


def test_the_most_patches_are_those_that_the_kernels_take() -> None:
    """The command does not wait for the kernels to be imported, and says the same."""
    assert align.LARGEST_GRID == LARGEST_GRID


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("movie", "words", "lost"),
    [
        ("m.mrc", [], "m.mrc"),
        ("./m.mrc", ["--out", "{raw}"], "m.mrc"),
        ("link.mrc", ["--out", "{raw}/alias"], "link.mrc"),
        ("name/m.mrc", [], "m.mrc"),
        ("K3.tif", ["--gain", "K3.mrc"], "K3.mrc"),
        ("K3.tif", ["--dark", "K3_PS.mrc"], "K3_PS.mrc"),
        ("K3.tif", ["--defects", "K3.star"], "K3.star"),
        ("list.txt", [], "list_even.mrc"),
    ],
)
def test_nothing_that_is_read_is_replaced(
    camera: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch, movie: str, words: list[str], lost: str
) -> None:
    """Movies, frames and references stay what they are, under whatever name they are read: status 2, no work."""
    raw = tmp_path / "raw"
    (raw / "name").mkdir(parents=True)
    for name in ("m.mrc", "K3.mrc", "K3_PS.mrc", "K3.star", "list_even.mrc", "frame.mrc"):
        (raw / name).write_bytes(name.encode())
    (raw / "list.txt").write_text("frame.mrc\nlist_even.mrc\n")
    (raw / "K3.tif").write_bytes((camera / "m.tif").read_bytes())
    (raw / "link.mrc").symlink_to("m.mrc")
    (raw / "name" / "m.mrc").symlink_to("../m.mrc")
    (raw / "alias").symlink_to(raw)
    before = contents(raw)
    monkeypatch.chdir(raw)
    answer = typed("align", movie, *OPTICS, *(word.format(raw=raw) for word in words))
    assert answer.status == 2
    assert "would replace" in answer.err
    assert lost in answer.err
    assert contents(raw) == before


def test_results_beside_the_movies_are_welcome_where_nothing_is_lost(
    camera: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TIFF can be aligned in its own folder, and again over its own results."""
    (tmp_path / "m.tif").write_bytes((camera / "m.tif").read_bytes())
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert typed("align", "m.tif", *OPTICS).status == 0
    assert (tmp_path / "m.tif").read_bytes() == (camera / "m.tif").read_bytes()


def test_a_reference_that_only_the_metadata_name_is_spared_too(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """That movie fails, and the reference is as it was."""
    (tmp_path / "K3.tif").write_bytes((camera / "m.tif").read_bytes())
    (tmp_path / "K3.mrc").write_bytes((camera / "gain.mrc").read_bytes())
    (tmp_path / "K3.tif.mdoc").write_text("[FrameSet = 0]\nGainReference = K3.mrc\n")
    before = contents(tmp_path)
    answer = typed("align", tmp_path / "K3.tif", *OPTICS, "--out", tmp_path)
    assert answer.status == 1
    assert "would replace" in answer.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("other", ["m_noDW.tif", "m_even.tif", "m_PS.eer"])
def test_results_of_two_movies_may_not_meet(camera: Path, tmp_path: Path, typed: Typed, other: str) -> None:
    """The sum of one would be the plain sum of the other."""
    answer = typed("align", camera / "m.tif", tmp_path / other, *OPTICS, "--out", tmp_path / "out")
    assert answer.status == 2
    assert "would both leave a file" in answer.err
    assert not (tmp_path / "out").exists()


def test_halves_of_an_earlier_run_do_not_stay(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """After a run without them there are none: they would be those of another sum."""
    options = [camera / "m.tif", *OPTICS, "--patches", "1x1", "--out", tmp_path]
    assert typed("align", *options, "--halves").status == 0
    assert {"m_even.mrc", "m_odd.mrc"} <= names(tmp_path)
    assert typed("align", *options).status == 0
    assert not {"m_even.mrc", "m_odd.mrc"} & names(tmp_path)


def test_a_folder_in_the_way_is_found_before_anything_is_replaced(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """The results of the last run stay as they were, all of them."""
    options = [camera / "m.tif", *OPTICS, "--patches", "1x1", "--out", tmp_path]
    assert typed("align", *options).status == 0
    (tmp_path / "m.star").unlink()
    (tmp_path / "m.star").mkdir()
    before = contents(tmp_path)
    answer = typed("align", *options, "--first", 3)
    assert answer.status == 1
    assert "m.star is a folder" in answer.err
    assert contents(tmp_path) == before


class _Interrupted(BaseException):
    pass


@pytest.mark.parametrize("failure", [StoreFullError("the disk is full"), _Interrupted()])
def test_a_failure_while_writing_leaves_the_last_results_as_they_were(
    camera: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """A full disk is a stated error; whatever stops the writing, no part of a movie's new files is left."""
    options = [camera / "m.tif", *OPTICS, "--out", tmp_path / "out"]
    assert typed("align", *options).status == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def write(path: Path, picture: np.ndarray[tuple[int, ...], np.dtype[np.float32]], **how: float) -> None:
        write_mrc(path, picture, **how)  # type: ignore[arg-type]  # the pixel size
        if path.name.endswith("_noDW.mrc"):
            raise failure

    monkeypatch.setattr(alignment_files, "write_mrc", write)
    if isinstance(failure, StoreFullError):
        answer = typed("align", *options, "--first", 3)
        assert answer.status == 1
        assert f"{tmp_path / 'out'}: the disk is full" in answer.err
        assert "--out" in answer.err
    else:
        with pytest.raises(_Interrupted):
            typed("align", *options, "--first", 3)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for two of the exposure's pictures and no more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = int(2.5 * 4 * SHAPE[0] * SHAPE[1])
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a file system")
def test_a_full_disk_is_left_empty(camera: Path, small_disk: Path, typed: Typed) -> None:
    """On a disk that has no room for a movie's files nothing of it stays, and the next movie is tried."""
    other = small_disk.parent / "other.mrc"
    other.symlink_to(camera / "m.mrc")
    answer = typed("align", camera / "m.tif", other, *OPTICS, "--halves", "--out", small_disk)
    assert answer.status == 1
    assert answer.err.count("the disk is full") == 2
    assert "2 of 2 movies failed" in answer.err
    assert not names(small_disk)


def test_a_folder_that_may_not_be_written_is_said(
    camera: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is named, with what to do."""

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(publishing.tempfile, "mkdtemp", refuse)
    answer = typed("align", camera / "m.tif", *OPTICS, "--out", tmp_path)
    assert answer.status == 1
    assert f"{tmp_path}: the results cannot be written: Permission denied" in answer.err


def test_defects_that_are_named_on_the_command_line_must_fit(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """A list that cannot be used is an error where the user gave it."""
    (tmp_path / "defects.txt").write_text("5000 5000 2 2\n")
    answer = typed("align", camera / "m.tif", *OPTICS, "--defects", tmp_path / "defects.txt", "--out", tmp_path / "out")
    assert answer.status == 1
    assert "at column 5000, row 5000" in answer.err
