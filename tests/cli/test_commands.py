"""The commands as a person types them: what they print, what they leave, and with which status they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coldchain import config
from coldchain.cli import demo
from coldchain.formats.movie import probe_movie
from coldchain.simulate.truth import MovieTruth, SessionTruth
from tests.cli.answer import Typed


@pytest.fixture
def facility(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A facility as `init` makes it; its file is the one that commands find."""
    assert typed("init", tmp_path / "facility").status == 0
    monkeypatch.setenv("COLDCHAIN_CONFIG", str(tmp_path / "facility" / "facility.toml"))
    return tmp_path / "facility"


def test_init_leaves_a_facility_that_runs(facility: Path) -> None:
    """The file loads, its folders and its catalog are there."""
    settings = config.load(facility / "facility.toml")
    assert all(store.folder.is_dir() for store in settings.store)
    assert settings.instrument[0].movie_root.is_dir()
    assert (facility / "catalog.sqlite").is_file()


def test_init_never_overwrites_a_facility(facility: Path, typed: Typed) -> None:
    """A second `init` in the same place is wrong usage and changes nothing."""
    before = (facility / "facility.toml").read_bytes()
    answer = typed("init", facility)
    assert answer.status == 2
    assert "there is a facility already" in answer.err
    assert (facility / "facility.toml").read_bytes() == before


def test_a_sessions_life(facility: Path, typed: Typed) -> None:
    """Created, changed, closed, released; what it is comes back as JSON and as a table."""
    create = ["session", "create", "visit", "--instrument", "microscope", "--project", "P7", "--owner", "Ada"]
    assert typed(*create, "--mail", "ada@example.org", "--pixel-size", 0.83, "--cs", 0).status == 0
    assert typed("session", "set", "visit", "--dose", 50, "--diameter", 150, "--gain", "none").status == 0
    shown = json.loads(typed("session", "show", "visit", "--json").out)["session"]
    assert shown["project"]["name"] == "P7"
    assert shown["owner_mail"] == "ada@example.org"
    optics = shown["parameters"]["optics"]
    assert (optics["pixel_size_angstrom"], optics["dose_e_per_square_angstrom"]) == (0.83, 50)
    assert (optics["spherical_aberration_millimeter"], optics["gain"]) == (0, "")
    assert typed("session", "set", "visit", "--clear", "pixel-size", "--clear", "diameter").status == 0
    cleared = json.loads(typed("session", "show", "visit", "--json").out)["session"]["parameters"]
    assert cleared["optics"]["pixel_size_angstrom"] is None
    assert cleared["particle_diameter_angstrom"] is None
    assert cleared["optics"]["dose_e_per_square_angstrom"] == 50
    assert typed("session", "close", "visit", "--released").status == 2
    assert typed("session", "close", "visit").status == 0
    assert typed("session", "close", "visit", "--released").status == 0
    (listed,) = json.loads(typed("session", "list", "--json").out)
    assert listed["session"]["state"] == "released"
    assert "visit" in typed("session", "list").out
    assert "as the metadata says" in typed("session", "show", "visit").out
    assert "0 exposure(s)" in typed("session", "reprocess", "visit").out


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["session", "show", "vist"], 1, "visit"),
        (["session", "set", "visit", "--pixel-size", "0"], 2, "--pixel-size is 0 Å"),
        (["session", "set", "visit", "--pixel-size", "83"], 2, "another unit"),
        (["session", "set", "visit", "--voltage", "300000"], 2, "another unit"),
        (["session", "set", "visit"], 2, "nothing to change"),
        (["session", "set", "visit", "--pixel-size", "nan"], 2, "--pixel-size is nan"),
        (["session", "set", "visit", "--amplitude-contrast", "2"], 2, "from 0 to below 1"),
        (["session", "set", "visit", "--gain", "nowhere.mrc"], 2, "no such gain reference"),
        (["session", "set", "visit", "--clear", "colour"], 2, "pixel-size"),
        (["session", "create", "other", "--instrument", "krios"], 1, "one of: microscope"),
        (["session", "create", "other", "--instrument", "microscope", "--folder", "../x"], 2, "relative path"),
        (["session", "create", "again", "--instrument", "microscope", "--folder", "visit"], 1, "already belongs"),
        (["session", "close", "visit", "--reopen", "--released"], 2, "contradict"),
        (["simulate", "movie", "x.png"], 2, "'.png'"),
        (["simulate", "session", "x", "--size", "big"], 2, "WIDTHxHEIGHT"),
        (["run", "--config", "nowhere.toml"], 1, "coldchain init"),
        (["demo", "--input", ".", "--pixel-size", "83"], 2, "another unit"),
        (["demo", "--diameter", "0"], 2, "--diameter is 0 Å"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(
    facility: Path, typed: Typed, words: list[str], status: int, says: str
) -> None:
    """Each mistake ends with its status and says what is wrong and what would be right; no traceback."""
    typed("session", "create", "visit", "--instrument", "microscope")
    answer = typed(*words)
    assert answer.status == status
    assert says in answer.err
    assert "Traceback" not in answer.err


def test_help_keeps_what_stands_in_brackets(typed: Typed) -> None:
    """What holds where an option is not given is part of the sentence, and no markup; of groups' commands, too."""
    assert "The last one [the last]." in typed("align", "--help").out
    assert "Its folder in the movie root [the name]." in typed("session", "create", "--help").out


def test_brackets_in_a_name_are_no_markup(facility: Path, typed: Typed) -> None:
    """A session's name is shown as it is, whatever a terminal's markup would make of it."""
    assert typed("session", "create", "a[/b]", "--instrument", "microscope").status == 0
    assert "a[/b]" in typed("session", "show", "a[/b]").out
    assert typed("session", "list").status == 0


def test_simulated_movie_and_session_bring_their_truth(tmp_path: Path, typed: Typed) -> None:
    """A movie and a session stand where they should, with JSON that says what is in them."""
    small = ["--frames", 3, "--size", "256x192", "--seed", 5]
    assert typed("simulate", "movie", tmp_path / "m.tif", *small, "--gain").status == 0
    info = probe_movie(tmp_path / "m.tif")
    assert (info.frames, info.width, info.height) == (3, 256, 192)
    truth = MovieTruth.from_json((tmp_path / "m.tif.truth.json").read_text(encoding="utf-8"))
    assert truth.parameters.seed == 5
    assert (tmp_path / "gain.mrc").is_file()
    session = ["simulate", "session", tmp_path / "visit", "--exposures", 2, "--layout", "plain", "--container", "mrc"]
    assert typed(*session, *small).status == 0
    planted = SessionTruth.from_json((tmp_path / ".visit.truth.json").read_text(encoding="utf-8"))
    assert [probe_movie(tmp_path / "visit" / e.movie_path).frames for e in planted.exposures] == [3, 3]


def test_the_demonstration_recovers_what_it_planted(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`coldchain demo` ends by itself without a terminal, every planted value recovered; half of a movie will do."""
    monkeypatch.setattr(demo, "_SIDE_PIXEL", 1536)
    answer = typed("demo", "--exposures", 1, "--folder", tmp_path / "demo")
    assert answer.status == 0, answer.out + answer.err
    assert "Every planted value was recovered." in answer.out
    assert "NO" not in answer.out
    assert "http://127.0.0.1:" in answer.out


def test_the_demonstration_takes_ones_own_files(tmp_path: Path, typed: Typed) -> None:
    """`demo --input` copies and computes a user's movie, tells what it found, and leaves the original alone."""
    movie = tmp_path / "mine" / "m.tif"
    assert typed("simulate", "movie", movie, "--frames", 4, "--size", "256x256").status == 0
    before = movie.read_bytes()
    optics = ["--pixel-size", 1.06, "--voltage", 300, "--dose", 6.4, "--diameter", 100]
    answer = typed("demo", "--input", movie, *optics)
    assert answer.status == 0, answer.out + answer.err
    assert "Found" in answer.out
    assert movie.read_bytes() == before
    assert typed("demo", "--input", movie).status == 1
