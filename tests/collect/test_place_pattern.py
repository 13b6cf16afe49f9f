"""Files that a facility's own pattern places."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.catalog import events, exposures, files, places, sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect.completeness import Examination, Verdict
from coldchain.collect.intake import Intake
from coldchain.collect.layout import place
from coldchain.collect.place_pattern import PlacePattern
from coldchain.errors import UsageError
from coldchain.model.files import FileKind
from coldchain.model.policy import everywhere
from coldchain.model.session import ExposureState
from tests.collect.camera_folder import write_mdoc, write_movie

FLAT = r"(?P<session>[a-z]+[0-9]+)_sq(?P<grid_square>[0-9]+)_h(?P<foil_hole>[0-9]+)_(?P<exposure>[0-9]+)\..+"


@pytest.mark.parametrize(
    ("source", "path", "folder", "inside", "exposure"),
    [
        (FLAT, "visit42_sq7_h3_0001.mrc", "visit42", "visit42_sq7_h3_0001.mrc", "0001"),
        (r"raw/(?P<session>[^/]+)/.*?(?P<exposure>\d+)\.\w+", "raw/v1/day2/m_12.tif", "raw/v1", "day2/m_12.tif", "12"),
        (
            r"(?P<session>\d+/[^/]+)/(a|b)/(?P<exposure>.+)\.\w+",
            "2026/v1/b/x/m.mdoc",
            "2026/v1",
            "b/x/m.mdoc",
            "x/m",
        ),
        (r"old_(?P<session>v\d)/(?P<exposure>.+)\.\w+", "old_v1/m.tif", "v1", "old_v1/m.tif", "m"),
    ],
)
def test_a_pattern_says_session_and_exposure(source: str, path: str, folder: str, inside: str, exposure: str) -> None:
    """A folder's whole name makes it the session's; a part of a name makes a session that shares its folder."""
    found = PlacePattern(source).place(path)
    assert found is not None
    assert (found.session_folder, found.path_in_session, found.exposure_name) == (folder, inside, exposure)
    assert f"{found.lies_in or found.session_folder}/{inside}".removeprefix("./") == path


def test_squares_holes_and_kinds_come_with_it() -> None:
    """Groups that are given; the kind is that of the name."""
    found = PlacePattern(FLAT).place("visit42_sq7_h3_0001.mrc")
    assert found is not None
    assert (found.grid_square, found.foil_hole, found.kind) == ("7", "3", FileKind.MOVIE)
    gain = PlacePattern(r"(?P<session>v\d)_(?P<exposure>.+)\.mrc").place("v1_gain.mrc")
    assert gain is not None
    assert (gain.kind, gain.exposure_name) == (FileKind.GAIN, None)


@pytest.mark.parametrize(
    "path", ["other.mrc", "visit42_sq7_h3_0001", "deep/visit42_sq7_h3_0001.mrc", "visit42_sq7_h3_0001.mrc\n"]
)
def test_what_does_not_match_as_a_whole_is_not_placed(path: str) -> None:
    """The layouts that are known then place it."""
    assert PlacePattern(FLAT).place(path) is None


@pytest.mark.parametrize(
    "source",
    [
        "(",
        "",
        "(?P<session>a)",
        "(?P<exposure>a)",
        "(?P<session>a)(?P<exposure>b)(?P<movie>c)",
        "x" * 10_001,
        "(?P<session>a)(?P<exposure>b){99999999999}",
    ],
)
def test_a_pattern_that_cannot_work_is_refused(source: str) -> None:
    """Broken, without the groups that it needs, or with one that means nothing."""
    with pytest.raises(UsageError):
        PlacePattern(source)


@given(st.text("abx/._0", min_size=1, max_size=30), st.sampled_from([r".+", r"[^/]*", r"\.\.", "", r"a*/?"]))
def test_whatever_matches_the_place_is_inside_the_root(path: str, part: str) -> None:
    """No pattern leads out of a folder or makes a path that is not one; what it cannot place is left to the layouts."""
    if path.startswith("/") or any(piece in ("", ".", "..") for piece in path.split("/")):
        return
    found = PlacePattern(f"(?P<session>{part}).*?(?P<exposure>{part})").place(path)
    if found is None:
        return
    assert f"{found.lies_in or found.session_folder}/{found.path_in_session}".removeprefix("./") == path
    for name in (found.session_folder, found.exposure_name or "x"):
        assert ".." not in name.split("/") and not name.startswith("/") and name


class Taking:
    """An intake with a pattern."""

    def __init__(self, catalog: Catalog, root: Path, pattern: str) -> None:
        self.catalog, self.root = catalog, root
        self.intake = Intake(
            catalog, instrument_name="krios", source_root=root, copies=everywhere(()), pattern=PlacePattern(pattern)
        )
        self.intake.resume()

    def take(self, path: Path) -> None:
        """Take a file as it stands now."""
        status = path.lstat()
        relative = str(path.relative_to(self.root))
        assert self.intake.take(Examination(relative, (status.st_size, status.st_mtime_ns), False)) is Verdict.TAKEN


def test_sessions_that_share_a_folder_are_told_apart(catalog: Catalog, root: Path) -> None:
    """Each file is in its own session and remembers where it lies; movie and mdoc are one exposure; also after a
    restart."""
    for _ in range(2):
        taking = Taking(catalog, root, r"(?P<session>v\d)_(?P<exposure>\d+)(\.mrc)?\.\w+")
        for name in ("v1_001", "v1_002", "v2_001"):
            taking.take(write_mdoc(root / f"{name}.mrc.mdoc"))
            taking.take(root / f"{name}.mrc" if (root / f"{name}.mrc").exists() else write_movie(root / f"{name}.mrc"))
        taking.take(write_movie(root / "apart/x.mrc"))
    found = {session.folder: session for session in sessions.list_all(catalog)}
    assert set(found) == {"v1", "v2", "apart"}
    its = exposures.page(catalog, found["v1"].id, limit=9, before=None)
    assert {(exposure.name, exposure.state) for exposure in its} == {
        ("001", ExposureState.READY),
        ("002", ExposureState.READY),
    }
    assert {exposure.metadata.optics.pixel_size_angstrom for exposure in its} == {0.83}
    for file in files.of_session(catalog, found["v1"].id, limit=99):
        assert (places.folder_of(catalog, found["v1"], file) / file.relative_path).is_file()


def test_a_pattern_that_takes_for_ever_delays_a_file_and_loses_none(catalog: Catalog, root: Path) -> None:
    """The path is placed as if there were no pattern, which is told once."""
    taking = Taking(catalog, root, r"(?P<session>(x|xx)+)/(?P<exposure>y+)")
    taking.take(write_movie(root / "visit/x.mrc"))
    taking.take(write_movie(root / ("x" * 80) / "a.mrc"))
    taking.take(write_movie(root / ("x" * 80) / "b.mrc"))
    assert {session.folder for session in sessions.list_all(catalog)} == {"visit", "x" * 80}
    told = [event for event in events.recent(catalog, limit=999) if event.kind == "name_pattern.slow"]
    assert len(told) == 1


def test_without_a_pattern_nothing_lies_elsewhere() -> None:
    """The known layouts place files in their session's own folder."""
    assert place(PurePosixPath("a/b/c.mrc")).lies_in is None
