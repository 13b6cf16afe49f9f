"""One door for every container."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import write_png

from coldchain.errors import FormatError, IncompleteFileError
from coldchain.formats import eer, mrc, tiff
from coldchain.formats.movie import MovieInfo, MovieReading, frames_per_fraction, load_movie, probe_movie

RNG = np.random.default_rng(19)
FRAMES = RNG.poisson(0.5, (3, 20, 28)).clip(0, 1).astype(np.uint8)


@pytest.fixture
def movies(tmp_path: Path) -> dict[str, Path]:
    """The same frames in every container."""
    paths = {kind: tmp_path / f"movie.{kind}" for kind in ("mrc", "tif", "eer")}
    mrc.write_mrc(paths["mrc"], FRAMES, pixel_size_angstrom=0.9, mode=0)
    tiff.write_tiff_movie(paths["tif"], FRAMES, pixel_size_angstrom=0.9)
    eer.write_eer(paths["eer"], FRAMES)
    return paths


@pytest.mark.parametrize(("suffix", "container"), [("mrc", "mrc"), ("tif", "tiff"), ("eer", "eer")])
def test_every_container_gives_the_same_frames(movies: dict[str, Path], suffix: str, container: str) -> None:
    """A specimen's picture has one orientation whatever the file: our writers and readers agree on the rows."""
    path = movies[suffix]
    frames = load_movie(path, MovieReading(threads=2)).frames
    assert frames.dtype == np.uint8
    assert frames.flags.c_contiguous
    assert np.array_equal(frames, FRAMES)
    size = None if suffix == "eer" else pytest.approx(0.9)
    assert probe_movie(path) == MovieInfo(path, container, 3, 20, 28, "uint8", size)


@pytest.mark.parametrize(("frames", "fractions"), [(13, None), (13, 5), (13, 40), (100, None), (100, 7)])
def test_fractions_say_how_many_camera_frames_they_hold(tmp_path: Path, frames: int, fractions: int | None) -> None:
    """An EER whose frames all hold one event gives in each fraction the number foretold: equal ones, but the last."""
    path = tmp_path / "movie.eer"
    eer.write_eer(path, np.ones((frames, 4, 6), np.uint8))
    counts = frames_per_fraction(probe_movie(path), eer_fractions=fractions)
    assert counts == tuple(load_movie(path, MovieReading(eer_fractions=fractions)).frames[:, 0, 0])
    assert sum(counts) == frames
    assert len(set(counts[:-1])) <= 1
    assert counts[0] <= counts[-1] < 2 * counts[0]


def test_other_movies_frames_are_the_cameras(movies: dict[str, Path]) -> None:
    """What is no EER has one camera frame in each frame, whatever the fractions."""
    assert frames_per_fraction(probe_movie(movies["tif"]), eer_fractions=2) == (1, 1, 1)


def test_one_image_is_a_movie_of_one_frame(tmp_path: Path) -> None:
    """Single MRC, TIFF, PNG and JPEG images have one frame."""
    mrc.write_mrc(tmp_path / "a.mrc", FRAMES[0].astype(np.float32), pixel_size_angstrom=1.5)
    tiff.write_tiff_movie(tmp_path / "a.tif", FRAMES[:1].astype(np.uint16))
    write_png(tmp_path / "a.png", FRAMES[0].astype(np.uint16) * 3)
    for name, dtype, factor in (("a.mrc", "float32", 1), ("a.tif", "uint16", 1), ("a.png", "uint16", 3)):
        path = tmp_path / name
        info = probe_movie(path)
        assert (info.frames, info.height, info.width, info.dtype) == (1, 20, 28, dtype)
        assert np.array_equal(load_movie(path).frames, FRAMES[:1].astype(np.int64) * factor)


def test_half_floats_become_floats(tmp_path: Path) -> None:
    """Mode 12 and 16-bit float TIFFs come as float32."""
    mrc.write_mrc(tmp_path / "a.mrc", FRAMES, pixel_size_angstrom=1.0, mode=12)
    tifffile.imwrite(tmp_path / "a.tif", FRAMES.astype(np.float16), photometric="minisblack", metadata=None)
    for name in ("a.mrc", "a.tif"):
        assert load_movie(tmp_path / name).frames.dtype == np.float32
    assert probe_movie(tmp_path / "a.mrc").dtype == "float32"


@pytest.mark.parametrize(
    ("name", "data", "kind", "words"),
    [
        ("a.mrc", b"", IncompleteFileError, "the file is empty"),
        ("a.dm4", b"\0\0\0\4 and so on", FormatError, "dm2mrc"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", FormatError, "89 48 44 46"),
        ("a.png", b"not a picture", FormatError, "a PNG or JPEG"),
        ("a.eer", b"ThermoFisherECComprOK000", FormatError, "an EER"),
    ],
)
def test_other_files_say_what_was_found(tmp_path: Path, name: str, data: bytes, kind: type, words: str) -> None:
    """What is no movie is refused with what it is and what to do."""
    path = tmp_path / name
    path.write_bytes(data)
    for act in (probe_movie, load_movie):
        with pytest.raises(kind) as caught:
            act(path)
        assert words in str(caught.value)


def test_content_counts_where_the_name_lies(movies: dict[str, Path]) -> None:
    """A TIFF that is called .mrc is read as the TIFF that it is."""
    path = movies["tif"].with_name("liar.mrc")
    path.write_bytes(movies["tif"].read_bytes())
    assert np.array_equal(load_movie(path).frames, FRAMES)


def test_an_eer_without_events_is_refused(movies: dict[str, Path]) -> None:
    """A plain TIFF named .eer has no events."""
    path = movies["tif"].with_name("plain.eer")
    path.write_bytes(movies["tif"].read_bytes())
    with pytest.raises(FormatError, match="no page is a stream of electron events"):
        load_movie(path)
