"""The benchmark's own instruments: its bars, its floor, its clock and its reading of motion STAR files."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import movies, score
from benchmarks.alignment import find_structure
from benchmarks.decode import decode
from benchmarks.movies import bench_movie, kept_movie
from benchmarks.processes import ProcessError, by_turns, run_whole
from benchmarks.score import track_error_angstrom
from benchmarks.table import Bar, Table
from coldchain.formats.relion_motion import RelionMotion, opposite, write_motion
from coldchain.formats.tiff import read_tiff
from coldchain.simulate.movie import local_displacement_angstrom
from coldchain.simulate.truth import MovieParameters

SMALL = MovieParameters(
    frames=4, height=160, width=224, pixel_size_angstrom=2.0, local_motion_angstrom=3.0, particles=1, gain=True, seed=5
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A movie of the benchmark that takes no time."""
    monkeypatch.setitem(movies.MOVIES, "small", SMALL)
    monkeypatch.setitem(score.PATCHES, "small", (3, 2))


@pytest.mark.usefixtures("small")
def test_movies_are_kept_and_made_again_from_other_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call finds the first one's files; changed parameters make new ones; what has no truth is not whole."""
    made = bench_movie("small", structure=None, cache=tmp_path, threads=1)
    before = made.movie.stat().st_mtime_ns
    assert bench_movie("small", structure=None, cache=tmp_path).truth == made.truth
    assert made.movie.stat().st_mtime_ns == before
    monkeypatch.setitem(movies.MOVIES, "small", replace(SMALL, contrast=0.5))
    again = bench_movie("small", structure=None, cache=tmp_path, threads=1)
    assert again.truth.parameters.contrast == 0.5
    assert again.movie.stat().st_mtime_ns != before
    (tmp_path / "small" / "truth.json").unlink()
    assert kept_movie("small", tmp_path) is None


@pytest.mark.usefixtures("small")
def test_the_floor_decodes_every_frame(tmp_path: Path) -> None:
    """The decoder that others are measured against gives the frames, in the file's own order of rows."""
    made = bench_movie("small", structure=None, cache=tmp_path, threads=1)
    assert np.array_equal(decode(made.movie, 2)[:, ::-1], read_tiff(made.movie))


@pytest.mark.usefixtures("small")
def test_tracks_are_read_from_the_star_as_it_means_them(tmp_path: Path) -> None:
    """The planted whole-frame track in a motion STAR, in RELION's sign, leaves the local motion as the only error."""
    made = bench_movie("small", structure=None, cache=tmp_path, threads=1)
    track_x, track_y = (np.array(track) / 2 for track in (made.truth.shift_x_angstrom, made.truth.shift_y_angstrom))
    star = tmp_path / "motion.star"
    write_motion(
        star,
        RelionMotion(
            width=224,
            height=160,
            movie_name="movie.tiff",
            shift_x_pixel=opposite(track_x),
            shift_y_pixel=opposite(track_y),
        ),
    )
    x, y = np.meshgrid((np.arange(3) + 0.5) * 224 / 3, (np.arange(2) + 0.5) * 160 / 2)
    local = np.array([local_displacement_angstrom(SMALL, frame, x, y) for frame in range(4)])
    left = local - local.mean(axis=0)
    assert track_error_angstrom(made, star) == pytest.approx(np.sqrt((left**2).sum(axis=1).mean()), abs=1e-4)


def test_bars_are_met_within_and_missed_outside(capsys: pytest.CaptureFixture[str]) -> None:
    """The bound itself is met; what is no number is missed; the table remembers what was missed."""
    assert Bar(most=3.0).is_met_by(3.0)
    assert not Bar(most=3.0, aim=2.0).is_met_by(3.01)
    assert Bar(least=0.9, most=1.1).is_met_by(1.1)
    assert not Bar(least=0.9, most=1.1).is_met_by(0.89)
    assert not any(bar.is_met_by(float("nan")) for bar in (Bar(most=3.0), Bar(least=0.0)))
    table = Table()
    table.judge("slow", 4.0, Bar(most=3.0))
    table.judge("quick", 2.0, Bar(most=3.0))
    assert table.missed == ["slow"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("missed")
    assert printed[1].endswith("met")


def test_processes_are_timed_by_turns_and_their_failures_quoted(tmp_path: Path) -> None:
    """Median and largest of each way; the process's own words where it fails."""
    order = tmp_path / "order"

    def way(name: str, megabytes: int) -> list[str]:
        code = f"x = bytearray({megabytes} << 20); open({str(order)!r}, 'a').write({name!r}); print({name!r})"
        return [sys.executable, "-c", code]

    runs = by_turns(
        {"a": lambda: run_whole(way("a", 1), threads=1), "b": lambda: run_whole(way("b", 400), threads=1)}, 2
    )
    assert order.read_text() == "abab"
    assert runs["a"].last.output == "a\n"
    assert runs["b"].peak_bytes > 400 << 20
    assert 0 < runs["a"].seconds <= max(run.seconds for run in runs["a"].runs)
    with pytest.raises(ProcessError, match=r"status 3\n.*no such thing"):
        run_whole([sys.executable, "-c", "import sys; print('no such thing'); sys.exit(3)"], threads=1)


def test_the_structure_is_the_named_one_or_that_of_the_real_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named file counts; else 5A1A of the real data's folder; else none, and a generated particle stands in."""
    monkeypatch.delenv("COLDCHAIN_REAL_DATA", raising=False)
    assert find_structure(None) is None
    monkeypatch.setenv("COLDCHAIN_REAL_DATA", str(tmp_path))
    assert find_structure(None) is None
    structure = tmp_path / "structures" / "5a1a.pdb.gz"
    structure.parent.mkdir()
    structure.touch()
    assert find_structure(None) == structure
    assert find_structure(Path("mine.cif")) == Path("mine.cif")
