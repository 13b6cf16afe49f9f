"""Movies of one file a frame: found by their list, read as one, and no list leads out of its folder."""

from pathlib import Path

import numpy as np
import pytest
from pictures import write_png

from coldchain.errors import FormatError, IncompleteFileError, StorageError, UsageError
from coldchain.formats import mrc, tiff
from coldchain.formats.image import read_image
from coldchain.formats.movie import MovieInfo, MovieReading, load_movie, probe_movie

RNG = np.random.default_rng(41)
FRAMES = RNG.poisson(0.7, (4, 20, 28)).astype(np.uint8)


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    """Four frames, in MRC and TIFF, in a folder below their list."""
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(FRAMES):
        if number % 2:
            mrc.write_mrc(tmp_path / "frames" / f"{number}.mrc", frame, pixel_size_angstrom=0.9, mode=0)
        else:
            tiff.write_tiff_movie(tmp_path / "frames" / f"{number}.tif", [frame], pixel_size_angstrom=0.9)
    path = tmp_path / "movie.lst"
    path.write_text("# four frames\nframes/0.tif\n\nframes/1.mrc\n  frames/2.tif\r\nframes/3.mrc")
    return path


@pytest.mark.parametrize("threads", [1, 2])
def test_the_frames_come_as_one_movie(movie: Path, threads: int) -> None:
    """In the list's order, in one orientation whatever the container; comments and empty lines are no frames."""
    loaded = load_movie(movie, MovieReading(threads=threads))
    assert np.array_equal(loaded.frames, FRAMES)
    assert loaded.frames.flags.c_contiguous
    assert loaded.numbers == (1, 2, 3, 4)
    assert probe_movie(movie) == MovieInfo(movie, "list", 4, 20, 28, "uint8", pytest.approx(0.9))
    assert np.array_equal(load_movie(movie.rename(movie.with_suffix(".txt"))).frames, FRAMES)


def test_a_run_of_frames_can_be_chosen(movie: Path) -> None:
    """What lies outside it is not even opened."""
    (movie.parent / "frames" / "0.tif").unlink()
    loaded = load_movie(movie, MovieReading(first_frame=2, last_frame=3))
    assert np.array_equal(loaded.frames, FRAMES[1:3])
    assert loaded.numbers == (2, 3)
    with pytest.raises(UsageError, match="the movie has 4 frames"):
        load_movie(movie, MovieReading(first_frame=5))


def spoil(movie: Path, how: str) -> None:
    """Make the second frame a bad one."""
    path = movie.parent / "frames" / "1.mrc"
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "smaller":
        mrc.write_mrc(path, FRAMES[1, :10], pixel_size_angstrom=0.9, mode=0)
    elif how == "wider":
        mrc.write_mrc(path, FRAMES[1].astype(np.uint16), pixel_size_angstrom=0.9)
    elif how == "stack":
        mrc.write_mrc(path, FRAMES, pixel_size_angstrom=0.9, mode=0)
    elif how == "picture":
        write_png(path, FRAMES[1])
    elif how == "list":
        path.unlink()
        movie.write_text(movie.read_text().replace("frames/1.mrc", "movie.lst"))
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "frame 2, 1.mrc: the file cannot be read: No such file"),
        ("cut", "frame 2, 1.mrc: the file ends after"),
        ("smaller", "frame 2, 1.mrc: 28 × 10 pixels of type uint8; expected 28 × 20 of type uint8, as the others"),
        ("wider", "frame 2, 1.mrc: 28 × 20 pixels of type uint16"),
        ("stack", "frame 2, 1.mrc: the list names a file of 4 frames"),
        ("picture", "frame 2, 1.mrc: the list names what is no MRC or TIFF"),
        ("list", "frame 2, movie.lst: the list names what is no MRC or TIFF"),
        ("empty", "frame 2, 1.mrc: the file is empty"),
    ],
)
def test_bad_frames_are_named_and_may_be_left_out(movie: Path, how: str, words: str) -> None:
    """A frame that is missing, damaged or of another kind is told with its file; the others come where it may be."""
    spoil(movie, how)
    with pytest.raises(FormatError) as caught:
        load_movie(movie)
    assert words in str(caught.value)
    assert caught.value.path == movie
    loaded = load_movie(movie, MovieReading(tolerate_frames=1))
    assert np.array_equal(loaded.frames, FRAMES[[0, 2, 3]])
    assert loaded.numbers == (1, 3, 4)
    assert loaded.left_out[0].number == 2
    assert loaded.left_out[0].reason.startswith("frame 2, ")


def test_a_missing_first_frame_can_be_left_out(movie: Path) -> None:
    """Shape and type are those of the first that can be looked at."""
    (movie.parent / "frames" / "0.tif").unlink()
    assert probe_movie(movie).width == 28
    assert load_movie(movie, MovieReading(tolerate_frames=1)).numbers == (2, 3, 4)
    for file in (movie.parent / "frames").iterdir():
        file.unlink()
    for act in (probe_movie, load_movie):
        with pytest.raises(StorageError, match="No such file"):
            act(movie)


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside.mrc", "frames/../../outside.mrc", ".", "frames/.."])
def test_no_list_leads_out_of_its_folder(movie: Path, name: str) -> None:
    """Absolute names and those with dots are refused before anything is opened."""
    movie.write_text(f"frames/0.tif\n{name}\n")
    for act in (probe_movie, load_movie):
        with pytest.raises(FormatError, match="in the list's folder or below it") as caught:
            act(movie)
        assert caught.value.path == movie


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", IncompleteFileError, "the file is empty"),
        (b"# nothing\n\n", IncompleteFileError, "names no frame"),
        (b"frames/0.tif\n\0\1\2", FormatError, "is no text"),
        (b"a\n" * 3_000_000, FormatError, "too long"),
    ],
)
def test_what_is_no_list_is_refused(movie: Path, data: bytes, kind: type, words: str) -> None:
    """Nothing, binary rubbish and endless texts are stated errors."""
    movie.write_bytes(data)
    for act in (probe_movie, load_movie):
        with pytest.raises(kind, match=words):
            act(movie)


def test_a_list_is_no_image(movie: Path) -> None:
    """What wants one image does not take a movie's list for it."""
    with pytest.raises(FormatError, match="a text; expected an image"):
        read_image(movie)


def test_names_that_are_no_text_are_read(tmp_path: Path) -> None:
    """A file name's bytes need not be UTF-8."""
    folder = str(tmp_path).encode()
    mrc.write_mrc(tmp_path / "a.mrc", FRAMES[0], pixel_size_angstrom=1.0, mode=0)
    (tmp_path / "a.mrc").rename((folder + b"/\xff\xfe it's.mrc").decode("utf-8", "surrogateescape"))
    (tmp_path / "movie.txt").write_bytes(b"\xff\xfe it's.mrc\n")
    assert np.array_equal(load_movie(tmp_path / "movie.txt").frames, FRAMES[:1])
