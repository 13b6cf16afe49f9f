"""`coldchain align`: what may have been meant otherwise is said, and what is ended early leaves what was done."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from coldchain.formats.mrc import read_header, read_mrc, write_mrc
from coldchain.kernels.align import align_movie
from coldchain.preprocess import alignment
from tests.cli.answer import Typed
from tests.cli.conftest import PARAMETERS, Aligned

OPTICS = ["--pixel-size", 1.5, "--voltage", 300, "--dose-per-frame", 3, "--patches", "1x1"]


def test_an_option_that_contradicts_the_header_is_said(camera: Path, tmp_path: Path, aligned: Aligned) -> None:
    """It counts all the same."""
    (told,) = aligned(camera / "m.mrc", "--pixel-size", 2, *OPTICS[2:], "--gain", "none", "--out", tmp_path)
    assert "--pixel-size 2 Å was used; its metadata say 1.5 Å." in told["warnings"]
    assert told["pixel_size_angstrom"] == 2


def test_many_hot_pixels_ask_for_the_gain_reference(camera: Path, tmp_path: Path, aligned: Aligned) -> None:
    """Not where the user says that there is none."""
    movie = read_mrc(camera / "m.mrc")
    movie[:, 5::20, 7::20] = 60
    write_mrc(tmp_path / "hot.mrc", movie, pixel_size_angstrom=1.5)
    (told,) = aligned(tmp_path / "hot.mrc", *OPTICS, "--out", tmp_path / "out")
    assert told["hot_pixels"] > movie[0].size / 2000
    question = f"{told['hot_pixels']:,} hot pixels: was a gain reference forgotten?"
    assert any(warning.startswith(question) for warning in told["warnings"])
    (none,) = aligned(tmp_path / "hot.mrc", *OPTICS, "--gain", "none", "--out", tmp_path / "out")
    assert not any("forgotten" in warning for warning in none["warnings"])


@pytest.mark.parametrize("mark", "#:%")
def test_a_movie_that_relion_cannot_name_is_said(camera: Path, tmp_path: Path, aligned: Aligned, mark: str) -> None:
    """RELION takes what follows the mark for the kind of picture."""
    movie = tmp_path / f"m{mark}1.tif"
    movie.symlink_to(camera / "m.tif")
    (told,) = aligned(movie, *OPTICS, "--gain", "none", "--out", tmp_path / "out")
    assert any("RELION cannot read a movie of this name" in warning for warning in told["warnings"])


def test_a_gain_reference_among_the_movies_fails_alone(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """The others are aligned; what it is taken for is said."""
    answer = typed("align", camera / "m.mrc", camera / "gain.mrc", *OPTICS, "--out", tmp_path / "out")
    assert answer.status == 1
    assert "gain.mrc: it seems to be a gain reference and no movie" in answer.err
    assert "1 of 2 movies failed" in answer.err
    assert (tmp_path / "out" / "m.mrc").is_file()


def test_a_text_that_is_called_as_a_picture_is_said(tmp_path: Path, typed: Typed) -> None:
    """It may be no MRC at all, not only one that still grows."""
    (tmp_path / "notes.mrc").write_text("no picture at all\n")
    assert "it is no MRC, or is not whole" in typed("align", tmp_path / "notes.mrc", *OPTICS).err


def test_a_picture_in_a_name_is_none(tmp_path: Path, typed: Typed) -> None:
    """`:smile:` stays as it is, wherever a name is told."""
    assert ":smile:" in typed("align", tmp_path / ":smile:.tif", *OPTICS, "--out", tmp_path).err
    assert ":smile:" in typed("align", tmp_path / "a.tif", "--gain", ":smile:.mrc").err


def test_an_inverted_reference_is_said_in_words(camera: Path, tmp_path: Path, typed: Typed) -> None:
    """Its pattern is there, and not less than nothing of it."""
    gain = read_mrc(camera / "gain.mrc")
    inverted = gain.copy()
    inverted[gain > 0] = 1 / gain[gain > 0]
    write_mrc(tmp_path / "g.mrc", inverted, pixel_size_angstrom=1.5)
    answer = typed("align", camera / "m.mrc", *OPTICS, "--gain", tmp_path / "g.mrc", "--out", tmp_path / "out")
    assert answer.status == 1
    assert re.search(r"does not fit the movie: \d+ % of its pattern is there inverted", answer.err)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Let a signal come while so many movies have been aligned."""

    def after(count: int, number: int) -> None:
        begun = iter(range(count + 1))

        def until_then(*given: object, **named: object) -> object:
            if next(begun) == count:
                os.kill(os.getpid(), number)
            return align_movie(*given, **named)  # type: ignore[arg-type]  # handed on

        monkeypatch.setattr(alignment, "align_movie", until_then)

    return after


def movies(camera: Path, folder: Path) -> list[Path]:
    """Three links to the exposure."""
    paths = [folder / f"{name}.mrc" for name in "abc"]
    for path in paths:
        path.symlink_to(camera / "m.mrc")
    return paths


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("threads", [1, 2])
def test_what_was_done_before_an_end_is_told_and_listed(
    camera: Path,
    tmp_path: Path,
    typed: Typed,
    ended: Callable[[int, int], None],
    number: int,
    status: int,
    threads: int,
) -> None:
    """Two of three: the array is whole, RELION's list has both, a line says how far it came, nothing is half there."""
    ended(2, number)
    options = [*OPTICS, "--gain", "none", "--threads", threads, "--out", tmp_path / "out"]
    answer = typed("align", *movies(camera, tmp_path), *options, "--json")
    assert answer.status == status
    assert [Path(told["movie"]).name for told in json.loads(answer.out)] == ["a.mrc", "b.mrc"]
    assert "Ended after 2 of 3 movies." in answer.err
    listed = (tmp_path / "out" / "corrected_micrographs.star").read_text()
    assert ["a.mrc" in listed, "b.mrc" in listed, "c.mrc" in listed] == [True, True, False]
    assert {path.name[0] for path in (tmp_path / "out").iterdir()} == {"a", "b", "c"}
    assert not (tmp_path / "out" / "c.mrc").exists()
    assert read_header(tmp_path / "out" / "b.mrc").width == PARAMETERS.width


def test_an_end_before_the_first_result_leaves_no_folder(
    camera: Path, tmp_path: Path, typed: Typed, ended: Callable[[int, int], None]
) -> None:
    """Nor those that were made above it; a folder that was there stays."""
    (tmp_path / "there").mkdir()
    for out in ("new/folder", "there"):
        ended(0, signal.SIGINT)
        answer = typed("align", *movies(camera, tmp_path)[:1], *OPTICS, "--out", tmp_path / out)
        assert answer.status == 130
        assert "Ended after 0 of 1 movies." in answer.err
        (tmp_path / "a.mrc").unlink()
        (tmp_path / "b.mrc").unlink()
        (tmp_path / "c.mrc").unlink()
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "there").is_dir()
