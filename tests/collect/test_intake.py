"""Every file stands in the catalog exactly once, with its session, its exposure and what is known about it."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldchain.catalog import engine, events, exposures, files, replicas, sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect import content as content_module
from coldchain.collect.completeness import Examination, Verdict
from coldchain.collect.content import words
from coldchain.collect.intake import Intake, inputs_left
from coldchain.collect.notice import Notice
from coldchain.errors import CatalogError, FormatError
from coldchain.model.events import Severity
from coldchain.model.files import DataFile, FileKind, FileState
from coldchain.model.identity import new_id
from coldchain.model.policy import everywhere
from coldchain.model.session import Exposure, ExposureState, Layout, Session, SessionState
from tests.collect.camera_folder import DATA, STEM, movie_bytes, somebody_else, write_mdoc, write_movie, write_xml

STORES = ("live", "archive")


class Facility:
    """An intake with a catalog, and short ways to ask what it did."""

    def __init__(self, catalog: Catalog, root: Path) -> None:
        self.catalog = catalog
        self.root = root
        self.intake = Intake(catalog, instrument_name="krios", source_root=root, copies=everywhere(STORES))

    def take(self, path: Path, *, last_try: bool = False) -> Verdict:
        """Take a file as it stands now."""
        status = path.lstat()
        relative = str(path.relative_to(self.root))
        return self.intake.take(Examination(relative, (status.st_size, status.st_mtime_ns), last_try))

    def take_all(self) -> None:
        """Take every file under the root."""
        for path in sorted(self.root.rglob("*")):
            if path.is_file():
                assert self.take(path) is Verdict.TAKEN

    def known(self) -> set[str]:
        """Of the files under the root those that need not be taken."""
        found = {path.relative_to(self.root): path.lstat() for path in self.root.rglob("*") if path.is_file()}
        return self.intake.known_among({str(path): (its.st_size, its.st_mtime_ns) for path, its in found.items()})

    def session(self, folder: str = "visit") -> Session:
        """The session of a folder."""
        found = sessions.find(self.catalog, instrument_name="krios", folder=folder)
        assert found is not None
        return found

    def exposure(self, name: str, folder: str = "visit") -> Exposure:
        """The exposure of a name."""
        found = exposures.by_name(self.catalog, self.session(folder).id, name)
        assert found is not None
        return found

    def exposures(self, folder: str = "visit") -> list[Exposure]:
        """All exposures of a session."""
        return exposures.page(self.catalog, self.session(folder).id, limit=10_000, before=None)

    def files(self, folder: str = "visit") -> dict[str, DataFile]:
        """The files that stand for their paths."""
        rows = files.of_session(self.catalog, self.session(folder).id, limit=100_000)
        standing = [row for row in rows if row.state is not FileState.REPLACED]
        assert len({row.relative_path for row in standing}) == len(standing)
        return {row.relative_path: row for row in standing}

    def events(self, kind: str) -> list[str]:
        """The messages of one kind of event."""
        return [event.message for event in events.recent(self.catalog, limit=10_000) if event.kind == kind]


@pytest.fixture
def facility(catalog: Catalog, root: Path) -> Facility:
    """An intake on an empty movie root with an empty catalog."""
    return Facility(catalog, root)


NAME = f"{DATA}/{STEM}".removeprefix("visit/")


def test_an_epu_exposure_is_joined_from_its_files(facility: Facility, root: Path) -> None:
    """XML alone makes it wait; its movie makes it ready; optics, square and hole are known."""
    facility.take(write_xml(root / DATA / f"{STEM}.xml"))
    waiting = facility.exposure(NAME)
    assert waiting.state is ExposureState.WAITING
    assert "no movie" in waiting.reason
    assert (waiting.grid_square, waiting.foil_hole) == ("8999138", "9015883")
    facility.take(write_movie(root / DATA / f"{STEM}_Fractions.mrc"))
    ready = facility.exposure(NAME)
    assert ready.state is ExposureState.READY
    optics = ready.metadata.optics
    assert optics.pixel_size_angstrom == pytest.approx(0.66)
    assert (optics.voltage_kilovolt, optics.dose_e_per_square_angstrom) == (300, pytest.approx(41))
    assert optics.frame_count == 3
    assert facility.session().layout is Layout.EPU
    assert len(facility.exposures()) == 1


def test_a_session_is_known_as_epu_whatever_of_it_is_taken_first(facility: Facility, root: Path) -> None:
    """A reference beside the discs does not make it a plain folder."""
    write_xml(root / DATA / f"{STEM}.xml")
    facility.take(write_movie(root / "visit/gain.mrc", frames=1))
    assert facility.session().layout is Layout.EPU


def test_every_file_is_wanted_on_every_store(facility: Facility, root: Path) -> None:
    """Journalled with its replicas before anybody copies it."""
    facility.take(write_movie(root / "visit/x.mrc"))
    (file,) = facility.files().values()
    assert {replica.store for replica in replicas.of_file(facility.catalog, file.id)} == set(STORES)


@pytest.mark.parametrize("header_first", [True, False])
def test_a_header_never_overrules_a_description(facility: Facility, root: Path, header_first: bool) -> None:
    """XML and mdoc count whichever comes first; the header fills in what they leave out."""
    movie = write_movie(root / DATA / f"{STEM}_Fractions.mrc", pixel_size_angstrom=9)
    xml = write_xml(root / DATA / f"{STEM}.xml")
    for path in (movie, xml) if header_first else (xml, movie):
        facility.take(path)
    optics = facility.exposure(NAME).metadata.optics
    assert optics.pixel_size_angstrom == pytest.approx(0.66)
    assert optics.frame_count == 3


def test_the_movie_wins_over_the_camera_softwares_own_sum(facility: Facility, root: Path) -> None:
    """The sum is good enough until the movie comes, and never takes its place again."""
    total = write_movie(root / DATA / f"{STEM}.mrc", frames=1)
    facility.take(total)
    first = facility.exposure(NAME)
    assert first.input_file_id == facility.files()[f"{NAME}.mrc"].id
    facility.take(write_movie(root / DATA / f"{STEM}_fractions.mrc"))
    os.utime(total, ns=(1, 1))
    facility.take(total)
    assert facility.exposure(NAME).input_file_id == facility.files()[f"{NAME}_fractions.mrc"].id
    assert facility.files()[f"{NAME}.mrc"].kind is FileKind.MICROGRAPH


def test_equal_names_in_two_folders_are_two_exposures(facility: Facility, root: Path) -> None:
    """Identity is the path, never the base name."""
    for folder in ("visit/a", "visit/b", "other/a"):
        facility.take(write_movie(root / folder / "x.mrc"))
    assert {exposure.name for exposure in facility.exposures()} == {"a/x", "b/x"}
    assert {exposure.name for exposure in facility.exposures("other")} == {"a/x"}


def test_files_in_the_root_itself_are_a_session_of_their_own(facility: Facility, root: Path) -> None:
    """Its folder is "."."""
    facility.take(write_movie(root / "x.mrc"))
    assert facility.exposure("x", ".").state is ExposureState.READY
    assert facility.session(".").name == "movies"


def test_serialem_is_known_by_its_mdoc(facility: Facility, root: Path) -> None:
    """Whether the movie or the mdoc comes first."""
    write_mdoc(root / "visit/x.mrc.mdoc")
    facility.take(write_movie(root / "visit/x.mrc"))
    facility.take(root / "visit/x.mrc.mdoc")
    assert facility.session().layout is Layout.SERIALEM
    exposure = facility.exposure("x")
    assert exposure.state is ExposureState.READY
    assert exposure.metadata.optics.pixel_size_angstrom == pytest.approx(0.83)
    assert exposure.metadata.gain_name == "ref.mrc"


def test_one_frame_is_a_micrograph_and_several_are_a_movie(facility: Facility, root: Path) -> None:
    """Decided by what is in the file, even where the name speaks of a gain."""
    facility.take(write_movie(root / "visit/one.mrc", frames=1))
    facility.take(write_movie(root / "visit/several.mrc"))
    facility.take(write_movie(root / "visit/gain_of_function.mrc"))
    facility.take(write_movie(root / "visit/gain.mrc", frames=1))
    kinds = {path: file.kind for path, file in facility.files().items()}
    assert kinds == {
        "one.mrc": FileKind.MICROGRAPH,
        "several.mrc": FileKind.MOVIE,
        "gain_of_function.mrc": FileKind.MOVIE,
        "gain.mrc": FileKind.GAIN,
    }
    assert facility.exposure("gain_of_function").state is ExposureState.READY


def test_a_grey_png_is_a_micrograph_where_nothing_else_is_its_exposure(facility: Facility, root: Path) -> None:
    """Beside a movie of the same name it is a preview of it; in colours it is a picture."""
    (root / "visit").mkdir()
    (root / "visit/sum.png").write_bytes(imagecodecs.png_encode(np.zeros((4, 4), np.uint16)))
    (root / "visit/x.png").write_bytes(imagecodecs.png_encode(np.zeros((4, 4), np.uint16)))
    write_movie(root / "visit/x.mrc")
    grey = (root / "visit/sum.png").read_bytes()
    chunk = grey[12:25] + b"\x02" + grey[26:29]  # IHDR with the colour type of RGB
    (root / "visit/rgb.png").write_bytes(grey[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + grey[33:])
    facility.take_all()
    kinds = {path: file.kind for path, file in facility.files().items()}
    assert kinds["sum.png"] is FileKind.MICROGRAPH
    assert kinds["x.png"] is FileKind.PREVIEW
    assert kinds["rgb.png"] is FileKind.PREVIEW
    assert {exposure.name for exposure in facility.exposures()} == {"sum", "x"}
    assert facility.files()["x.png"].exposure_id == facility.exposure("x").id


def test_a_gain_counts_for_exposures_before_and_after_it(facility: Facility, root: Path) -> None:
    """One in the session's folder, where no metadata names another."""
    facility.take(write_movie(root / "visit/before.mrc"))
    facility.take(write_movie(root / "visit/K3_gain.mrc", frames=1))
    (root / "visit/defects.txt").write_text("1 2 3 4\n")
    facility.take(root / "visit/defects.txt")
    facility.take(write_movie(root / "visit/after.mrc"))
    for name in ("before", "after"):
        metadata = facility.exposure(name).metadata
        assert (metadata.optics.gain, metadata.defects_name) == ("K3_gain.mrc", "defects.txt")


def test_a_second_gain_is_said_and_the_first_stays(facility: Facility, root: Path) -> None:
    """A wrong gain spoils everything silently: nobody changes it but a person."""
    facility.take(write_movie(root / "visit/a_gain.mrc", frames=1))
    facility.take(write_movie(root / "visit/b_gain.mrc", frames=1))
    facility.take(write_movie(root / "visit/x.mrc"))
    assert facility.exposure("x").metadata.optics.gain == "a_gain.mrc"
    (message,) = facility.events("reference.second")
    assert "coldchain session set" in message


def test_the_gain_that_the_mdoc_names_is_the_one(facility: Facility, root: Path) -> None:
    """Not another that lies in the session's folder, and whenever it comes."""
    facility.take(write_movie(root / "visit/other_gain.mrc", frames=1))
    facility.take(write_mdoc(root / "visit/frames/x.mrc.mdoc", gain="X:\\refs\\SuperRef_1.mrc"))
    facility.take(write_movie(root / "visit/frames/x.mrc"))
    assert facility.exposure("frames/x").metadata.optics.gain == "SuperRef_1.mrc"
    facility.take(write_movie(root / "visit/SuperRef_1.mrc", frames=1))
    assert facility.exposure("frames/x").metadata.optics.gain == "SuperRef_1.mrc"


@pytest.mark.parametrize("cut", [0, 100, 1024, 1200])
def test_a_truncated_movie_waits_then_is_damaged_then_whole(facility: Facility, root: Path, cut: int) -> None:
    """Its exposure says why it is quarantined; nothing else stops; when the rest arrives it is processed."""
    whole = movie_bytes(root.parent)
    path = root / "visit/x.mrc"
    path.parent.mkdir()
    path.write_bytes(whole[:cut])
    assert facility.take(path) is Verdict.INCOMPLETE
    assert sessions.find(facility.catalog, instrument_name="krios", folder="visit") is None
    assert facility.take(path, last_try=True) is Verdict.DAMAGED
    damaged = facility.exposure("x")
    assert damaged.state is ExposureState.QUARANTINED
    assert "damaged" in damaged.reason
    assert facility.files()["x.mrc"].state is FileState.DAMAGED
    assert len(facility.events("file.damaged")) == 1
    path.write_bytes(whole)
    assert facility.take(path) is Verdict.TAKEN
    assert facility.exposure("x").state is ExposureState.READY
    assert facility.files()["x.mrc"].state is FileState.ARRIVED


def test_a_movie_that_became_damaged_is_not_processed(facility: Facility, root: Path) -> None:
    """A whole movie that is written over with a part of itself quarantines its exposure."""
    path = write_movie(root / "visit/x.mrc")
    facility.take(path)
    path.write_bytes(path.read_bytes()[:1100])
    assert facility.take(path, last_try=True) is Verdict.DAMAGED
    assert facility.exposure("x").state is ExposureState.QUARANTINED


def test_a_file_that_is_no_movie_at_all_is_damaged_at_once(facility: Facility, root: Path) -> None:
    """No patience would make it one; the remedy stands in the event."""
    path = root / "visit/x.tif"
    path.parent.mkdir()
    path.write_bytes(b"this is no TIFF" * 100)
    assert facility.take(path) is Verdict.DAMAGED
    (message,) = facility.events("file.damaged")
    assert "expected" in message


def test_metadata_that_cannot_be_used_is_kept_and_said(facility: Facility, root: Path) -> None:
    """An exposure's XML that is none: the file arrives, an event says it, no exposure is made up."""
    path = root / DATA / f"{STEM}.xml"
    path.parent.mkdir(parents=True)
    path.write_text("<Other/>")
    assert facility.take(path) is Verdict.TAKEN
    assert facility.exposures() == []
    assert len(facility.events("metadata.unusable")) == 1
    (root / "visit/settings.xml").write_text("<Settings/>")
    assert facility.take(root / "visit/settings.xml") is Verdict.TAKEN
    assert len(facility.events("metadata.unusable")) == 1


def test_an_empty_file_that_is_no_data_is_simply_there(facility: Facility, root: Path) -> None:
    """Marker files are whole when empty."""
    (root / "visit").mkdir()
    (root / "visit/DONE").touch()
    assert facility.take(root / "visit/DONE") is Verdict.TAKEN


def test_an_unreadable_file_is_said_once_and_taken_when_it_may_be(open_folder: Path, empty_catalog: bytes) -> None:
    """Tried again by itself; one event, whatever the number of tries."""
    (open_folder / "catalog.sqlite").write_bytes(empty_catalog)
    (open_folder / "catalog.sqlite").chmod(0o666)
    with somebody_else(), closing(engine.open_catalog(f"sqlite:///{open_folder}/catalog.sqlite", "here")) as its:
        facility = Facility(its, open_folder)
        path = write_movie(open_folder / "visit/x.mrc")
        path.chmod(0)
        assert facility.take(path) is Verdict.UNREADABLE
        assert facility.take(path) is Verdict.UNREADABLE
        (message,) = facility.events("file.unreadable")
        assert "permission" in message
        assert "cannot be read" in facility.exposure("x").reason
        assert facility.known() == set()
        path.chmod(0o600)
        assert facility.take(path) is Verdict.TAKEN
        assert facility.exposure("x").state is ExposureState.READY


def test_a_file_that_changed_or_went_is_left_for_later(facility: Facility, root: Path) -> None:
    """What was sighted is not there any more: nothing is journalled."""
    path = write_movie(root / "visit/x.mrc")
    stale = Examination("visit/x.mrc", (1, 1), last_try=False)
    assert facility.intake.take(stale) is Verdict.CHANGED
    path.unlink()
    assert facility.intake.take(stale) is Verdict.GONE
    os.mkfifo(path)
    assert facility.intake.take(stale) is Verdict.GONE
    assert sessions.list_all(facility.catalog) == []


@pytest.mark.parametrize(
    "name", [b"sp ace", b"quote'\"`$(x)", b"new\nline", "µ-Träger 日本".encode(), b"\xff\xfe", b"a" * 240]
)
def test_any_name_is_journalled_exactly(facility: Facility, root: Path, name: bytes) -> None:
    """As session, as folder, as movie: the catalog gives the very bytes back."""
    text = os.fsdecode(name)
    facility.take(write_movie(root / text / text / f"{text}.mrc"))
    facility.take(write_mdoc(root / text / text / f"{text}.mrc.mdoc"))
    (session,) = sessions.list_all(facility.catalog)
    assert os.fsencode(session.folder) == name
    assert session.name.isprintable()
    (exposure,) = facility.exposures(text)
    assert os.fsencode(exposure.name) == name + b"/" + name
    assert exposure.state is ExposureState.READY
    assert facility.known() == {f"{text}/{text}/{text}.mrc", f"{text}/{text}/{text}.mrc.mdoc"}


def test_content_that_changes_is_a_new_file_of_the_same_exposure(facility: Facility, root: Path) -> None:
    """The old row is replaced, the exposure processes the new one."""
    path = write_movie(root / "visit/x.mrc")
    facility.take(path)
    write_movie(path, frames=5)
    facility.take(path)
    (file,) = facility.files().values()
    assert facility.exposure("x").input_file_id == file.id
    assert len(facility.exposures()) == 1


def test_a_kill_between_journalling_and_attaching_is_made_up_for(
    facility: Facility, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process gives the exposure its input and its gain, and takes nothing twice."""

    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    path = write_movie(root / "visit/x.mrc")
    with monkeypatch.context() as patch:
        patch.setattr(exposures, "attach_input", killed)
        with pytest.raises(KeyboardInterrupt):
            facility.take(path)
    gain = write_movie(root / "visit/gain.mrc", frames=1)
    with monkeypatch.context() as patch:
        patch.setattr(exposures, "attach_metadata", killed)
        with pytest.raises(KeyboardInterrupt):
            facility.take(gain)
    assert facility.exposure("x").state is ExposureState.WAITING
    again = Facility(facility.catalog, root)
    again.intake.resume()
    assert again.known() == {"visit/x.mrc"}
    again.take(gain)
    exposure = again.exposure("x")
    assert exposure.state is ExposureState.READY
    assert exposure.metadata.optics.gain == "gain.mrc"
    assert exposure.input_file_id == again.files()["x.mrc"].id


def test_a_restart_changes_nothing_that_is_in_order(facility: Facility, root: Path) -> None:
    """No state is touched and no event is written."""
    write_movie(root / "visit/gain.mrc", frames=1)
    write_movie(root / "visit/x.mrc")
    write_movie(root / DATA / f"{STEM}.mrc", frames=1)
    write_movie(root / DATA / f"{STEM}_fractions.mrc")
    facility.take_all()
    for exposure in facility.exposures():
        exposures.set_state(facility.catalog, exposure.id, ExposureState.DONE)
    before = events.recent(facility.catalog, limit=1000)
    again = Facility(facility.catalog, root)
    again.intake.resume()
    assert len(again.known()) == 4
    again.take_all()
    assert events.recent(facility.catalog, limit=1000) == before


def test_sessions_of_other_instruments_are_left_alone(facility: Facility, root: Path) -> None:
    """Two microscopes may use the same folder names."""
    facility.take(write_movie(root / "visit/x.mrc"))
    other = Intake(facility.catalog, instrument_name="glacios", source_root=root, copies=everywhere(STORES))
    other.resume()
    status = (root / "visit/x.mrc").stat()
    assert not other.known_among({"visit/x.mrc": (status.st_size, status.st_mtime_ns)})


def test_a_refusing_catalog_is_the_callers_to_handle(
    facility: Facility, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the file's fault, so the file is not judged."""

    def refuse(*arguments: object, **options: object) -> None:
        raise CatalogError("the catalog is away")

    monkeypatch.setattr(files, "record_arrival", refuse)
    with pytest.raises(CatalogError):
        facility.take(write_movie(root / "visit/x.mrc"))


def test_a_notice_stands_with_its_session(facility: Facility, root: Path) -> None:
    """What the watcher says about a path shows on the page of the session that it lies in."""
    facility.take(write_movie(root / "visit/x.mrc"))
    facility.intake.report(Notice(Severity.WARNING, "link.refused", "no", "visit/sub/link"))
    facility.intake.report(Notice(Severity.ERROR, "folder.missing", "no", ""))
    inside, outside = (
        next(event for event in events.recent(facility.catalog) if event.kind == kind)
        for kind in ("link.refused", "folder.missing")
    )
    assert inside.session_id == facility.session().id
    assert outside.session_id is None


def test_the_inputs_that_are_left_are_found_without_asking_anybody(facility: Facility, root: Path) -> None:
    """A movie outdoes a micrograph; what is in order is not listed."""
    facility.take(write_movie(root / DATA / f"{STEM}.mrc", frames=1))
    facility.take(write_movie(root / DATA / f"{STEM}_fractions.mrc"))
    standing = sorted(facility.files().values(), key=lambda file: file.id)
    (exposure,) = facility.exposures()
    assert inputs_left(standing, [exposure]) == []
    micrograph, movie = standing
    assert inputs_left(standing, [replace(exposure, input_file_id=micrograph.id)]) == [(exposure.id, movie)]
    unfed = replace(exposure, input_file_id=None)
    assert inputs_left(standing, [unfed]) == [(exposure.id, micrograph), (exposure.id, movie)]
    assert inputs_left([micrograph], [unfed]) == [(exposure.id, micrograph)]
    damaged = replace(movie, state=FileState.DAMAGED)
    assert inputs_left([damaged], [unfed]) == [(exposure.id, damaged)]
    assert inputs_left([micrograph, damaged], [replace(exposure, input_file_id=micrograph.id)]) == []
    assert inputs_left([damaged, micrograph], [exposure]) == []
    whole = replace(movie, id=new_id())
    assert inputs_left([damaged, whole], [exposure]) == [(exposure.id, whole)]


@pytest.fixture(scope="module")
def visit() -> Iterator[Path]:
    """A movie root with a few sessions' files, for properties that only read it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_movie(root / "visit/a.mrc")
        write_mdoc(root / "visit/a.mrc.mdoc", gain="gain.mrc")
        write_movie(root / "visit/gain.mrc", frames=1)
        write_movie(root / "visit/sub/a.mrc", frames=1)
        write_xml(root / f"epu/Images-Disc1/GridSquare_1/Data/{STEM}.xml")
        write_movie(root / f"epu/Images-Disc1/GridSquare_1/Data/{STEM}_fractions.mrc")
        write_movie(root / f"epu/Images-Disc1/GridSquare_1/Data/{STEM}.mrc", frames=1)
        (root / "visit/bad.mrc").write_bytes(b"\0" * 2000)
        yield root


@settings(max_examples=8)
@given(order=st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=16))
def test_whatever_is_sighted_however_often_stands_once(
    order: list[tuple[int, bool]], visit: Path, empty_catalog: bytes
) -> None:
    """Any order, any repetition, any number of restarts: the same catalog as from taking each file once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.sqlite"
        path.write_bytes(empty_catalog)
        with closing(engine.open_catalog(f"sqlite:///{path}", "here")) as catalog:
            facility = Facility(catalog, visit)
            paths = sorted(path for path in visit.rglob("*") if path.is_file())
            for index, restart in [*order, *((index, False) for index in range(len(paths)))]:
                if restart:
                    facility = Facility(catalog, visit)
                    facility.intake.resume()
                facility.take(paths[index], last_try=True)
            assert_whole_visit(facility)


def assert_whole_visit(facility: Facility) -> None:
    """The catalog holds the visit's files and exposures, each once."""
    assert len(sessions.list_all(facility.catalog)) == 2
    every = files.of_session(facility.catalog, facility.session().id, limit=1000)
    assert sorted(file.relative_path for file in every) == [
        "a.mrc",
        "a.mrc.mdoc",
        "bad.mrc",
        "gain.mrc",
        "sub/a.mrc",
    ]
    assert {e.name: (e.state, e.metadata.optics.gain) for e in facility.exposures()} == {
        "a": (ExposureState.READY, "gain.mrc"),
        "sub/a": (ExposureState.READY, "gain.mrc"),
        "bad": (ExposureState.QUARANTINED, facility.exposure("bad").metadata.optics.gain),
    }
    (epu,) = facility.exposures("epu")
    assert epu.input_file_id == facility.files("epu")[f"{epu.name}_fractions.mrc"].id
    assert epu.metadata.optics.pixel_size_angstrom == pytest.approx(0.66)


def test_a_session_takes_the_layout_that_its_files_turn_out_to_have(facility: Facility, root: Path) -> None:
    """A session that began with a gain reference is EPU's as soon as a file of EPU's arrives."""
    facility.take(write_movie(root / "visit/gain.mrc", frames=1))
    facility.take(write_movie(root / "visit/Images-Disc1/GridSquare_1/Data/FoilHole_2_Data_3_4_20250108_154915.mrc"))
    session = sessions.find(facility.catalog, instrument_name="krios", folder="visit")
    assert session is not None
    assert session.layout is Layout.EPU


def test_a_store_that_is_new_gets_what_arrived_before_it(facility: Facility, root: Path) -> None:
    """Added to facility.toml, and started again: its copies are wanted, and the others' are not wanted twice."""
    facility.take(write_movie(root / "visit/x.mrc"))
    facility.take(write_movie(root / "other/x.mrc"))
    sessions.set_state(facility.catalog, facility.session("other").id, SessionState.CLOSED)
    stores = (*STORES, "tape")
    Intake(facility.catalog, instrument_name="krios", source_root=root, copies=everywhere(stores)).resume()
    for folder in ("visit", "other"):
        (file,) = facility.files(folder).values()
        found = [replica.store for replica in replicas.of_file(facility.catalog, file.id)]
        assert sorted(found) == sorted(stores)


def test_a_movie_root_that_moved_is_followed(facility: Facility, root: Path) -> None:
    """A session's files are looked for where they are now; nothing is taken twice."""
    facility.take(write_movie(root / "visit/x.mrc"))
    moved = root.rename(root.with_name("moved"))
    again = Facility(facility.catalog, moved)
    again.intake.resume()
    assert again.known() == {"visit/x.mrc"}
    assert again.session().source_root == str(moved)
    assert again.take(moved / "visit/x.mrc") is Verdict.TAKEN
    assert len(again.files()) == 1


def test_what_stays_on_the_old_disk_stays_there(facility: Facility, root: Path, tmp_path: Path) -> None:
    """A movie root that is pointed at a new disk does not cut off what is still to be copied from the old one."""
    facility.take(write_movie(root / "visit/x.mrc"))
    new = tmp_path / "new"
    new.mkdir()
    again = Facility(facility.catalog, new)
    again.intake.resume()
    assert again.session().source_root == str(root)
    again.take(write_movie(new / "visit/y.mrc"))
    assert again.session().source_root == str(new)


def test_a_kill_before_a_damaged_movie_is_given_to_its_exposure_is_made_up_for(
    facility: Facility, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exposure is quarantined with the reason, as it would have been, and may be tried on request."""

    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    path = root / "visit/x.mrc"
    path.parent.mkdir()
    path.write_bytes(movie_bytes(root)[:-1])
    with monkeypatch.context() as patch:
        patch.setattr(exposures, "attach_input", killed)
        with pytest.raises(KeyboardInterrupt):
            facility.take(path, last_try=True)
    assert facility.exposure("x").state is ExposureState.WAITING
    Facility(facility.catalog, root).intake.resume()
    exposure = facility.exposure("x")
    assert exposure.state is ExposureState.QUARANTINED
    assert "movie is damaged" in exposure.reason
    assert exposure.input_file_id == facility.files()["x.mrc"].id
    sessions.reprocess(facility.catalog, exposure.session_id, only_quarantined=True, force=False)
    Facility(facility.catalog, root).intake.resume()
    assert facility.exposure("x").state is ExposureState.READY


def test_a_gain_that_the_mdoc_names_and_that_never_comes_is_missed(facility: Facility, root: Path) -> None:
    """The exposure asks for it by its name; a movie that is normalised, whose mdoc names none, asks for nothing."""
    facility.take(write_mdoc(root / "visit/x.mrc.mdoc", gain="C:\\refs\\SuperRef_1.mrc"))
    facility.take(write_movie(root / "visit/x.mrc"))
    assert facility.exposure("x").metadata.optics.gain == "SuperRef_1.mrc"
    described = write_mdoc(root / "visit/n.mrc.mdoc")
    described.write_text(described.read_text().partition("GainReference")[0])
    facility.take(described)
    facility.take(write_movie(root / "visit/n.mrc"))
    assert facility.exposure("n").metadata.optics.gain is None
    facility.take(write_movie(root / "visit/refs/SuperRef_1.mrc", frames=1))
    assert facility.exposure("x").metadata.optics.gain == "refs/SuperRef_1.mrc"
    assert facility.exposure("n").metadata.optics.gain is None


def test_a_session_that_was_announced_gets_the_files_of_its_folder(facility: Facility, root: Path) -> None:
    """At any depth, announced before or while others run; the folders beside it are no business of its."""
    facility.intake.resume()
    facility.take(write_movie(root / "2024/other/x.mrc"))
    announce(facility, "2024/visit")
    facility.take(write_movie(root / "2024/visit/deep/x.mrc"))
    facility.take(write_mdoc(root / "2024/visit/deep/x.mrc.mdoc"))
    facility.take(write_movie(root / "2024/other/y.mrc"))
    assert {exposure.name for exposure in facility.exposures("2024/visit")} == {"deep/x"}
    assert {exposure.name for exposure in facility.exposures("2024")} == {"other/x", "other/y"}
    assert facility.session("2024/visit").name == "announced"
    assert facility.known() == {
        "2024/other/x.mrc",
        "2024/other/y.mrc",
        "2024/visit/deep/x.mrc",
        "2024/visit/deep/x.mrc.mdoc",
    }


def announce(facility: Facility, folder: str) -> None:
    """Create a session as the command line does."""
    sessions.create(
        facility.catalog,
        name="announced",
        instrument_name="krios",
        source_root=str(facility.root),
        folder=folder,
        layout=Layout.PLAIN,
    )


def test_only_sessions_that_may_be_unfinished_are_gone_through_at_the_start(
    facility: Facility, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a closed one that waits for nothing only the files are known; what arrives for it joins it all the same."""
    for folder in ("open", "closed", "waiting"):
        facility.take(write_movie(root / folder / "gain.mrc", frames=1))
        facility.take(write_movie(root / folder / "x.mrc"))
    sessions.set_state(facility.catalog, facility.session("closed").id, SessionState.CLOSED)
    sessions.set_state(facility.catalog, facility.session("waiting").id, SessionState.RELEASED)
    exposures.set_state(facility.catalog, facility.exposure("x", "waiting").id, ExposureState.WAITING, "for something")
    read: set[UUID] = set()
    real = files.of_session

    def of_session(catalog: Catalog, session_id: UUID, **options: Any) -> list[DataFile]:
        read.add(session_id)
        return real(catalog, session_id, **options)

    monkeypatch.setattr(files, "of_session", of_session)
    again = Facility(facility.catalog, root)
    again.intake.resume()
    assert read == {facility.session("open").id, facility.session("waiting").id}
    assert len(again.known()) == 6
    again.intake.report(Notice(Severity.WARNING, "link.refused", "no", "closed/link"))
    (notice,) = (event for event in events.recent(facility.catalog) if event.kind == "link.refused")
    assert notice.session_id == facility.session("closed").id
    again.take(write_movie(root / "closed/y.mrc"))
    assert again.exposure("y", "closed").metadata.optics.gain == "gain.mrc"


def test_a_file_behind_a_folder_that_became_a_link_is_gone(facility: Facility, root: Path, tmp_path: Path) -> None:
    """Swapped between sighting and taking: nothing behind the link is opened, and nothing is journalled."""
    path = write_movie(root / "visit/sub/x.mrc")
    status = path.lstat()
    with path.open("rb"):
        (root / "visit").rename(tmp_path / "away")
        (root / "visit").symlink_to(tmp_path / "away")  # even to the very same file
        examination = Examination("visit/sub/x.mrc", (status.st_size, status.st_mtime_ns), last_try=True)
        assert facility.intake.take(examination) is Verdict.GONE
    assert sessions.list_all(facility.catalog) == []


@pytest.mark.parametrize("content", ["whole", "cut", "no movie"])
def test_what_was_read_through_a_swapped_folder_is_thrown_away(
    facility: Facility, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """A link while the readers were at work, to a file of the same size and time stamp: no word of it is kept."""
    path = write_movie(root / "visit/sub/x.mrc")
    status = path.lstat()
    secret = write_movie(tmp_path / "outside/sub/x.mrc", pixel_size_angstrom=7)
    whole = secret.read_bytes()
    secret.write_bytes({"whole": whole, "cut": whole[:-1], "no movie": b"secret".ljust(len(whole))}[content])
    os.utime(secret, ns=(status.st_atime_ns, status.st_mtime_ns))
    real = content_module.check_structure

    def swap(absolute: Path) -> None:
        (root / "visit").rename(tmp_path / "away")
        (root / "visit").symlink_to(tmp_path / "outside")
        real(absolute)

    with monkeypatch.context() as patch:
        patch.setattr(content_module, "check_structure", swap)
        assert facility.take(path, last_try=True) is Verdict.GONE
    assert sessions.list_all(facility.catalog) == []
    assert events.recent(facility.catalog) == []


def test_a_file_that_another_took_the_place_of_while_it_was_read_is_taken_later(
    facility: Facility, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same size, same time stamp, another inode: what was read may be of either."""
    path = write_movie(root / "visit/x.mrc")
    status = path.lstat()
    other = write_movie(root / "visit/other.mrc", value=2)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    real = content_module.check_structure

    def swap(absolute: Path) -> None:
        other.rename(path)
        real(absolute)

    with monkeypatch.context() as patch:
        patch.setattr(content_module, "check_structure", swap)
        assert facility.take(path) is Verdict.CHANGED
    assert facility.take(path) is Verdict.TAKEN


def test_what_an_error_found_is_printable() -> None:
    """A format's error may quote what stands in the file."""
    assert words(FormatError("the value is \x1b[31m\nred", expected="a\tnumber")).isprintable()


def test_no_name_can_forge_a_line_of_an_event(facility: Facility, root: Path) -> None:
    """Files, folders and what a file says of itself: events are printable whatever they are about."""
    evil = "visit\n\x1b[31m"
    first = write_movie(root / evil / "gain\n1.mrc", frames=1)
    facility.take(first)
    facility.take(write_movie(root / evil / "gain\n2.mrc", frames=1))
    (root / evil / "x\n.tif").write_bytes(b"this is no TIFF" * 100)
    facility.take(root / evil / "x\n.tif")
    described = write_mdoc(root / evil / "y\n.mrc.mdoc")
    described.write_text(described.read_text().replace("0.83", "\x1b[31mred"))
    facility.take(described)
    found = events.recent(facility.catalog, limit=1000)
    assert {"reference.second", "file.damaged", "exposure.quarantined", "metadata.unusable"} <= {e.kind for e in found}
    for event in found:
        assert event.message.isprintable(), event
    assert all(exposure.reason.isprintable() for exposure in facility.exposures(evil))
