"""Truths as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import FormatError, UsageError
from coldchain.simulate.truth import ExposureTruth, MovieParameters, MovieTruth, SessionTruth, write_truth

finite = st.floats(allow_nan=False, allow_infinity=False)
tracks = st.lists(finite, max_size=5).map(tuple)


@st.composite
def movie_truths(draw: st.DrawFn) -> MovieTruth:
    """Any truth that a movie can have."""
    defocus_v = draw(st.floats(1000, 30000))
    parameters = MovieParameters(
        frames=draw(st.integers(1, 99)),
        pixel_size_angstrom=draw(st.floats(0.3, 10)),
        defocus_u_angstrom=defocus_v + draw(st.floats(0, 2000)),
        defocus_v_angstrom=defocus_v,
        particles=draw(st.none() | st.integers(0, 50)),
        gain=draw(st.booleans()),
        seed=draw(st.integers(0, 2**31)),
    )
    return MovieTruth(
        parameters=parameters,
        specimen=draw(st.text()),
        particle_diameter_angstrom=draw(finite),
        shift_x_angstrom=draw(tracks),
        shift_y_angstrom=draw(tracks),
        particle_x_pixel=draw(tracks),
        particle_y_pixel=draw(tracks),
    )


@given(truth=movie_truths())
def test_a_movies_truth_comes_back_exactly(truth: MovieTruth) -> None:
    """Whatever was planted, JSON gives it back to the last bit."""
    assert MovieTruth.from_json(truth.to_json()) == truth


@given(movie=movie_truths(), name=st.text(), square=st.none() | st.text())
def test_a_sessions_truth_comes_back_exactly(movie: MovieTruth, name: str, square: str | None) -> None:
    """A session's truth holds its movies' truths, and any name."""
    exposure = ExposureTruth(name=name, movie_path=name + ".mrc", grid_square=square, foil_hole=None, movie=movie)
    truth = SessionTruth(session=name, layout="epu", gain_path=None, defects_path="d", exposures=(exposure, exposure))
    assert SessionTruth.from_json(truth.to_json()) == truth


@given(text=st.text() | st.sampled_from(["{}", "[]", "null", '{"exposures": [1]}', '{"parameters": {"x": 1}}', "{"]))
def test_what_is_no_truth_is_a_stated_error(text: str) -> None:
    """Any other text is refused as such."""
    for kind in (MovieTruth, SessionTruth):
        with pytest.raises(FormatError):
            kind.from_json(text)


@given(truth=movie_truths(), value=st.none() | st.text() | st.floats() | st.lists(st.none()), data=st.data())
def test_a_truth_with_a_wrong_value_is_refused_or_read(truth: MovieTruth, value: object, data: st.DataObject) -> None:
    """Whatever stands where a number or a list should, there is no other error than the stated one."""
    values = json.loads(truth.to_json())
    place = data.draw(st.sampled_from([(values, key) for key in values] + [(values["parameters"], "frames")]))
    place[0][place[1]] = value
    try:
        MovieTruth.from_json(json.dumps(values))
    except FormatError as error:
        assert "truth" in error.found


def test_a_truth_is_written_whole(tmp_path: Path) -> None:
    """The file is there under its name alone, in a folder that is made."""
    truth = SessionTruth(session="s", layout="plain", gain_path=None, defects_path=None, exposures=())
    path = tmp_path / "new" / "truth.json"
    write_truth(path, truth)
    assert SessionTruth.from_json(path.read_text()) == truth
    assert [p.name for p in path.parent.iterdir()] == ["truth.json"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 0},
        {"drift_angstrom": float("nan")},
        {"dose_per_frame_e_per_square_angstrom": float("inf")},
        {"pixel_size_angstrom": -1.0},
        {"height": 8},
        {"drift_angstrom": -1.0},
        {"defocus_v_angstrom": 99999.0},
        {"dose_per_frame_e_per_square_angstrom": 0.0},
    ],
)
def test_parameters_that_cannot_be_are_refused_at_once(wrong: dict[str, float]) -> None:
    """They are said before anything is simulated."""
    with pytest.raises(UsageError):
        MovieParameters(**wrong)  # type: ignore[arg-type]  # one field at a time
