"""RELION goes on from what `coldchain align` leaves: it extracts from our sums and polishes along our motion."""

from __future__ import annotations

import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from coldchain.formats import star
from coldchain.formats.relion_motion import displacement
from tests.cli.answer import Typed
from tests.formats import relion_project as planted
from tests.formats.relion_project import PlantedMovie

OPTICS = ["--pixel-size", planted.PIXEL_ANGSTROM, "--voltage", 300, "--dose-per-frame", planted.DOSE, "--threads", 1]
LIST = "sums/corrected_micrographs.star"


def plant(folder: Path) -> list[PlantedMovie]:
    """Two movies in a project, without sums."""
    movies = [
        planted.plant_movie(folder, "movies/first.mrcs", "first", seed=1),
        planted.plant_movie(folder, "movies/second.tiff", "second", seed=2),
    ]
    shutil.rmtree(folder / "sums")
    return movies


def test_relion_goes_on_from_our_results(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Particles are where they were planted; polishing has their tracks from our motion, and sums them up sharp."""
    if not all(map(shutil.which, ("relion_preprocess", "relion_motion_refine"))):
        pytest.skip("the package relion is not installed")
    movies = plant(tmp_path)
    monkeypatch.chdir(tmp_path)
    answer = typed("align", "movies/first.mrcs", "movies/second.tiff", *OPTICS, "--gain", "none", "--out", "sums")
    assert answer.status == 0, answer.err
    planted.pick(tmp_path, movies)
    planted.write_reference(tmp_path)
    cut = ["--extract", "--extract_size", str(planted.BOX), "--norm", "--bg_radius", "26", "--invert_contrast"]
    places = ["--coord_dir", "picks", "--coord_suffix", "_pick.star"]
    parts = ["--part_dir", "extract", "--part_star", "extract/particles.star"]
    dust = ["--white_dust", "-1", "--black_dust", "-1"]
    planted.run(tmp_path, "relion_preprocess", "--i", LIST, *places, *parts, *cut, *dust)
    planted.refined_particles(tmp_path, movies, "extract/particles.star")
    reference = ["--f", "fsc.star", "--m1", "half1.mrc", "--m2", "half2.mrc", "--angpix_ref", "1.5"]
    words = ["--i", "particles.star", "--o", "polish", "--corr_mic", LIST, "--j", "1", "--max_iters", "0"]
    planted.run(tmp_path, "relion_motion_refine", *words, *reference, "--combine_frames")
    for movie in movies:
        extracted = mrcfile.read(tmp_path / "extract" / "sums" / f"{movie.stem}.mrcs")
        assert planted.likeness(extracted, movie.ideal).min() > 0.6
        found = planted.read_tracks(tmp_path / "polish" / "sums" / f"{movie.stem}_tracks.star")
        wanted = np.stack(displacement(movie.motion, movie.x_pixel, movie.y_pixel), axis=-1).transpose(1, 0, 2)
        assert np.sqrt(((found - wanted) ** 2).sum(axis=-1).mean()) < 1.5
        shiny = mrcfile.read(tmp_path / "polish" / "sums" / f"{movie.stem}_shiny.mrcs")
        assert planted.likeness(shiny, movie.ideal).mean() > 0.7


def test_the_list_names_what_went_well(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from the folder that the command ran in, with the lens that was given; a movie that failed is not there, and
    one that RELION could not read is said."""
    plant(tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.copy("movies/first.mrcs", "movies/12:30.mrcs")
    movies = ["movies/first.mrcs", "movies/gone.tif", tmp_path / "movies" / "second.tiff", "movies/12:30.mrcs"]
    options = ["--patches", "1x1", "--cs", 1.4, "--amplitude-contrast", 0.07, "--out", tmp_path / "sums"]
    answer = typed("align", *movies, *OPTICS, *options)
    assert answer.status == 1
    assert answer.out.count("Not in corrected_micrographs.star: RELION cannot read") == 1
    blocks = star.read_star(tmp_path / LIST)
    listed = star.table(blocks, "micrographs", tmp_path).columns
    assert list(listed["rlnMicrographName"]) == ["sums/first.mrc", "sums/second.mrc"]
    assert list(listed["rlnMicrographMetadata"]) == ["sums/first.star", "sums/second.star"]
    assert all(float(value) > 5 for value in listed["rlnAccumMotionTotal"])
    optics = star.table(blocks, "optics", tmp_path).columns
    found = {label: float(optics[label][0]) for label in ("rlnSphericalAberration", "rlnAmplitudeContrast")}
    assert found == {"rlnSphericalAberration": 1.4, "rlnAmplitudeContrast": 0.07}
