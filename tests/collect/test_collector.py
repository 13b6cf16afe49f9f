"""The whole room at work on a real file system: watching, settling, taking in, and coming back after a kill."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coldchain.catalog import engine, events, exposures, files, scans, sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect.collector import Collector
from coldchain.collect.completeness import Examination, Timing, Verdict
from coldchain.collect.folder_stamps import LIST_ANYWAY
from coldchain.collect.intake import Intake
from coldchain.collect.layout import GridSquare, places_seen
from coldchain.collect.watcher import FolderWatcher
from coldchain.errors import CatalogError
from coldchain.model.events import Event
from coldchain.model.files import DataFile, FileState
from coldchain.model.policy import everywhere
from coldchain.model.session import Exposure, ExposureState
from tests.collect.camera_folder import DATA, STEM, movie_bytes, somebody_else, wait_for, write_movie, write_xml
from tests.collect.collecting_process import collector_process

QUICK = Timing(settle_seconds=0.1, patience_seconds=0.6, growing_seconds=0.5, retry_seconds=0.2)
PATIENT = Timing(settle_seconds=0.1, patience_seconds=3600, growing_seconds=3600, retry_seconds=0.2)


class Collecting:
    """A collector with its catalog."""

    def __init__(self, catalog: Catalog, root: Path, **options: object) -> None:
        self.catalog = catalog
        self.intake = Intake(catalog, instrument_name="krios", source_root=root, copies=everywhere(("live",)))
        self.collector = Collector(root, self.intake, **{"timing": QUICK, "scan_seconds": 0.3, **options})  # type: ignore[arg-type]

    def files(self) -> list[DataFile]:
        """Every row of every session."""
        found = sessions.list_all(self.catalog)
        return [row for each in found for row in files.of_session(self.catalog, each.id, limit=10_000)]

    def exposures(self) -> dict[str, Exposure]:
        """Every exposure by its name."""
        found = sessions.list_all(self.catalog)
        pages = [exposures.page(self.catalog, each.id, limit=10_000, before=None) for each in found]
        return {exposure.name: exposure for page in pages for exposure in page}

    def events(self, kind: str) -> list[Event]:
        """The events of one kind."""
        return [event for event in events.recent(self.catalog, limit=10_000) if event.kind == kind]

    def state(self, path: str) -> FileState | None:
        """The state of the row that stands for a path."""
        return next((row.state for row in self.files() if row.relative_path == path), None)

    def state_of(self, name: str) -> ExposureState | None:
        """The state of an exposure."""
        exposure = self.exposures().get(name)
        return None if exposure is None else exposure.state

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Until the condition holds, the thread being alive."""
        wait_for(lambda: not self.collector.alive() or condition(), what)
        assert self.collector.alive()


@pytest.fixture
def collect(catalog: Catalog, root: Path) -> Iterator[Callable[..., Collecting]]:
    """Start collecting; stopped when the test ends."""
    begun: list[Collecting] = []

    def begin(its: Catalog = catalog, folder: Path = root, **options: object) -> Collecting:
        begun.append(Collecting(its, folder, **options))
        begun[-1].collector.start()
        return begun[-1]

    yield begin
    for each in begun:
        each.collector.stop()


def test_what_is_there_and_what_comes_is_taken(root: Path, collect: Callable[..., Collecting]) -> None:
    """Before the start, while running, in new folders; then the collector is idle."""
    write_movie(root / "visit/before.mrc")
    collecting = collect()
    collecting.wait(lambda: "before" in collecting.exposures(), "the first movie")
    for number in range(20):
        write_movie(root / f"visit/{number}/deep/m.mrc")
    collecting.wait(lambda: len(collecting.exposures()) == 21, "the later movies")
    collecting.wait(collecting.collector.idle, "idleness")
    assert {exposure.state for exposure in collecting.exposures().values()} == {ExposureState.READY}
    assert len(collecting.files()) == 21


def test_a_closed_file_does_not_wait_for_anything(root: Path, collect: Callable[..., Collecting]) -> None:
    """With a settling time and a period of a day, inotify's word alone brings it in."""
    (root / "visit").mkdir()
    collecting = collect(timing=Timing(settle_seconds=86_400), scan_seconds=86_400)
    wait_for(collecting.collector.idle, "the first scan")
    write_movie(root / "visit/x.mrc")
    collecting.wait(lambda: "x" in collecting.exposures(), "the movie")


def test_without_inotify_a_file_is_taken_when_it_has_settled(root: Path, collect: Callable[..., Collecting]) -> None:
    """Network mounts: scan and settling time alone."""
    collecting = collect(use_inotify=False)
    write_movie(root / "visit/x.mrc")
    collecting.wait(lambda: "x" in collecting.exposures(), "the movie")


def test_a_growing_movie_is_taken_once_when_it_is_whole(root: Path, collect: Callable[..., Collecting]) -> None:
    """Written slowly under its final name, as cameras do; a copy over the network looks the same without inotify."""
    data = movie_bytes(root, frames=20)
    collecting = collect(timing=PATIENT, use_inotify=False)
    (root / "visit").mkdir()
    with (root / "visit/x.mrc").open("wb") as stream:
        for start in range(0, len(data), 512):
            stream.write(data[start : start + 512])
            stream.flush()
            time.sleep(0.15)  # longer than the settling time: only its own structure says that more will come
    collecting.wait(lambda: collecting.state("x.mrc") is FileState.ARRIVED, "the whole movie")
    (row,) = collecting.files()
    assert row.size_bytes == len(data)
    assert [event.kind for event in events.recent(collecting.catalog) if event.kind.startswith("file.")] == [
        "file.arrived"
    ]


def test_a_truncated_movie_is_damaged_until_the_rest_arrives(root: Path, collect: Callable[..., Collecting]) -> None:
    """After patience it is said once, with its remedy; completed, it is processed; others are not held up."""
    data = movie_bytes(root)
    (root / "visit").mkdir()
    (root / "visit/cut.mrc").write_bytes(data[:-1])
    collecting = collect()
    write_movie(root / "visit/good.mrc")
    collecting.wait(lambda: collecting.state_of("cut") is ExposureState.QUARANTINED, "the quarantine")
    assert collecting.state("cut.mrc") is FileState.DAMAGED
    collecting.wait(lambda: collecting.state_of("good") is ExposureState.READY, "the other movie")
    wait_for(collecting.collector.idle, "idleness")
    assert len(collecting.events("file.damaged")) == 1
    with (root / "visit/cut.mrc").open("ab") as stream:
        stream.write(data[-1:])
    collecting.wait(lambda: collecting.exposures()["cut"].state is ExposureState.READY, "the whole movie")


def test_a_file_that_never_stops_growing_is_said_once(root: Path, collect: Callable[..., Collecting]) -> None:
    """It stays "growing", is never journalled, and keeps nothing else from arriving."""
    timing = Timing(settle_seconds=5, patience_seconds=3600, growing_seconds=0.4)
    collecting = collect(timing=timing, use_inotify=False, scan_seconds=0.05)
    (root / "visit").mkdir()
    with (root / "visit/endless.mrc").open("wb") as stream:

        def told() -> bool:
            stream.write(b"\0" * 1024)
            stream.flush()
            return bool(collecting.events("file.growing"))

        collecting.wait(told, "the event")
        for _ in range(20):
            told()
            time.sleep(0.02)
    assert len(collecting.events("file.growing")) == 1
    assert collecting.state("endless.mrc") is None
    assert not collecting.collector.idle()


def test_links_and_unreadable_folders_are_said_once(
    open_folder: Path, empty_catalog: bytes, collect: Callable[..., Collecting]
) -> None:
    """Each gives one event with its remedy over many scans, and stops nothing."""
    root = open_folder / "movies"
    path = open_folder / "catalog.sqlite"
    path.write_bytes(empty_catalog)
    path.chmod(0o666)
    with somebody_else(), closing(engine.open_catalog(f"sqlite:///{path}", "here")) as its:
        write_movie(root / "visit/x.mrc")
        (root / "visit/out").symlink_to("/etc")
        (root / "visit/closed").mkdir(mode=0)
        collecting = collect(its, root, scan_seconds=0.02)
        collecting.wait(lambda: "x" in collecting.exposures(), "the movie")
        collecting.wait(lambda: collecting.collector._watcher.finished_scans > 5, "some scans")
        (link,) = collecting.events("link.refused")
        (folder,) = collecting.events("folder.unreadable")
        assert "out of this folder" in link.message
        assert "permission" in folder.message
        assert folder.session_id == link.session_id == sessions.list_all(its)[0].id
        assert len(collecting.files()) == 1
        collecting.collector.stop()


def test_a_fault_of_ours_stops_only_the_file_that_meets_it(
    root: Path, collect: Callable[..., Collecting], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once, tried again; the rest goes on; when the fault is gone the file is taken."""
    faulty = True
    real = Intake.take

    def take(self: Intake, examination: Examination) -> Verdict:
        if faulty and "poison" in examination.path:
            raise ZeroDivisionError("a bug")
        return real(self, examination)

    monkeypatch.setattr(Intake, "take", take)
    write_movie(root / "visit/poison.mrc")
    write_movie(root / "visit/x.mrc")
    collecting = collect()
    collecting.wait(lambda: bool(collecting.events("file.failed")), "the event")
    collecting.wait(lambda: "x" in collecting.exposures(), "the other movie")
    time.sleep(2 * QUICK.retry_seconds)
    assert len(collecting.events("file.failed")) == 1
    faulty = False
    collecting.wait(lambda: "poison" in collecting.exposures(), "the movie")


@pytest.mark.parametrize("where", [(Intake, "resume"), (FolderWatcher, "poll"), (Intake, "take"), (Intake, "report")])
def test_no_fault_ends_the_collection(
    where: tuple[type, str], root: Path, collect: Callable[..., Collecting], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that runs out, wherever it does: said once where it can be, and gone on with when there is some again."""
    short, calls, real = True, 0, getattr(*where)

    def refuse(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if short:
            raise MemoryError
        return real(*arguments, **options)

    monkeypatch.setattr(*where, refuse)
    monkeypatch.setattr("coldchain.collect.collector._FAULT_WAIT_SECONDS", 0.02)
    write_movie(root / "visit/x.mrc")
    (root / "link").symlink_to("/etc")
    collecting = collect()
    collecting.wait(lambda: calls > 2 or (where[1] == "report" and calls > 0), "some tries")
    short = False
    collecting.wait(lambda: collecting.state_of("x") is ExposureState.READY, "the movie")
    collecting.wait(collecting.collector.idle, "idleness")
    said = {"take": "file.failed", "report": None}.get(where[1], "collector.failed")
    if said is not None:
        (event,) = collecting.events(said)
        assert "MemoryError" in event.message
    if where[1] != "report":
        assert len(collecting.events("link.refused")) == 1


def test_a_catalog_that_is_away_for_a_while_loses_nothing(
    root: Path, collect: Callable[..., Collecting], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and events wait for it."""
    away = True
    calls = 0
    record_arrival, record = files.record_arrival, events.record

    def refusing(real: Callable[..., object]) -> Callable[..., object]:
        def refuse(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if away:
                raise CatalogError("the catalog is away")
            return real(*arguments, **options)

        return refuse

    monkeypatch.setattr(files, "record_arrival", refusing(record_arrival))
    monkeypatch.setattr(events, "record", refusing(record))
    monkeypatch.setattr("coldchain.collect.collector._CATALOG_WAIT_SECONDS", 0.02)
    write_movie(root / "visit/x.mrc")
    (root / "visit/link").symlink_to("/etc")
    collecting = collect()
    collecting.wait(lambda: calls > 5, "some tries")
    away = False
    collecting.wait(lambda: collecting.state("x.mrc") is FileState.ARRIVED, "the movie")
    collecting.wait(lambda: len(collecting.events("link.refused")) == 1, "the event")


def test_kill_9_and_restart_lose_nothing_and_repeat_nothing(
    root: Path, catalog_url: str, catalog: Catalog, collect: Callable[..., Collecting]
) -> None:
    """Killed at random moments while movies arrive, some of them while nobody watches: each stands once."""
    dice = random.Random(7)
    count = 0
    for _ in range(3):
        with collector_process(catalog_url, root, scan_seconds=0.2) as process:
            for _ in range(12):
                write_xml(root / f"epu/Images-Disc1/GridSquare_1/Data/FoilHole_{count}_Data_1_2_3.xml")
                write_movie(root / f"epu/Images-Disc1/GridSquare_1/Data/FoilHole_{count}_Data_1_2_3_fractions.mrc")
                count += 1
            time.sleep(dice.uniform(0, 0.4))
            process.kill()
        write_movie(root / f"epu/Images-Disc1/GridSquare_1/Data/FoilHole_{count}_Data_1_2_3_fractions.mrc")
        write_xml(root / f"epu/Images-Disc1/GridSquare_1/Data/FoilHole_{count}_Data_1_2_3.xml")
        count += 1
    collecting = collect()
    collecting.wait(lambda: len(collecting.files()) == 2 * count, "all files")
    collecting.wait(collecting.collector.idle, "idleness")
    found = collecting.exposures()
    assert len(found) == count
    assert {exposure.state for exposure in found.values()} == {ExposureState.READY}
    assert all(exposure.metadata.optics.voltage_kilovolt == 300 for exposure in found.values())
    rows = collecting.files()
    assert len({row.relative_path for row in rows}) == len(rows) == 2 * count
    assert {row.state for row in rows} == {FileState.ARRIVED}
    assert len(sessions.list_all(catalog)) == 1


def test_a_folder_in_which_a_file_is_waited_for_is_listed_by_the_next_process(
    root: Path, catalog: Catalog, collect: Callable[..., Collecting], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stamp was noted; then a file in it is written anew in its place, and another vanishes while it settles: the
    folder stays known and is to be listed, until all is taken."""
    monkeypatch.setattr("coldchain.collect.folder_stamps.QUIET_SECONDS", 0.1)
    write_movie(root / "visit/x.mrc")
    collecting = collect(timing=Timing(settle_seconds=1.5))

    def noted() -> dict[str, tuple[int, int]]:
        return scans.stamps(catalog, str(root))

    def is_noted() -> bool:
        return noted().get("visit", LIST_ANYWAY) != LIST_ANYWAY

    collecting.wait(is_noted, "the stamp")
    with (root / "visit/x.mrc").open("r+b") as stream:
        stream.write(b"\0")
        stream.flush()
        (root / "visit/vanishing").write_text("x")
        (root / "visit/vanishing").unlink()
        collecting.wait(lambda: not is_noted(), "the note that it is to be listed")
        assert noted()["visit"] == LIST_ANYWAY
    (root / "visit/x.mrc").unlink()
    write_movie(root / "visit/y.mrc")
    collecting.wait(lambda: "y.mrc" in {row.relative_path for row in collecting.files()}, "the other movie")
    collecting.wait(is_noted, "the stamp again")


def test_stopping_is_prompt_and_starting_is_not_required(root: Path, catalog: Catalog) -> None:
    """Stop may be called at any time, and twice."""
    collecting = Collecting(catalog, root)
    collecting.collector.stop()
    collecting.collector.stop()
    assert not collecting.collector.alive()


@pytest.mark.real_data
def test_a_real_epu_session_is_taken_in(real_data: Path, root: Path, collect: Callable[..., Collecting]) -> None:
    """EPU 3.9's own tree, copied in while running: squares and holes are listed, optics and dose are read."""
    collecting = collect()
    shutil.copytree(real_data / "epu_session/epu-dir-example", root / "visit")
    total = sum(len(names) for _, _, names in os.walk(root))
    collecting.wait(lambda: len(collecting.files()) == total, "all files")
    collecting.wait(collecting.collector.idle, "idleness")
    assert places_seen(file.relative_path for file in collecting.files()) == [
        GridSquare("8999138", ("9015883", "9015889")),
        GridSquare("8999186", ("9028219", "9028276", "9028325")),
    ]
    found = collecting.exposures()
    assert len(found) == 4
    for exposure in found.values():
        optics = exposure.metadata.optics
        assert exposure.state is ExposureState.WAITING
        assert optics.voltage_kilovolt == 300
        assert optics.pixel_size_angstrom == pytest.approx(0.528, abs=1e-3)
        assert optics.dose_e_per_square_angstrom == pytest.approx(14.3, abs=0.3)
        assert optics.frame_count == 50
        assert exposure.metadata.applied_defocus_micrometer is not None
    name = f"{DATA}/{STEM}".removeprefix("visit/")
    write_movie(root / f"{DATA}/{STEM}_fractions.mrc")
    collecting.wait(lambda: collecting.exposures()[name].state is ExposureState.READY, "the movie")
    assert found[name].grid_square == "8999138"


@pytest.mark.real_data
def test_real_micrographs_are_taken_in(real_data: Path, root: Path, collect: Callable[..., Collecting]) -> None:
    """Apoferritin sums as PNG and SerialEM's mdocs, laid into plain folders."""
    collecting = collect()
    shutil.copytree(real_data / "apoferritin", root / "apoferritin")
    shutil.copytree(real_data / "serialem", root / "serialem")
    collecting.wait(lambda: len(collecting.files()) == 11, "all files")
    collecting.wait(collecting.collector.idle, "idleness")
    found = collecting.exposures()
    for name in ("May08_03.05.02.bin_avg", "May08_03.13.02.bin_avg", "May08_03.15.02.bin_avg"):
        assert found[name].state is ExposureState.READY
    k3 = found["frame_set_single"].metadata
    assert k3.optics.pixel_size_angstrom == pytest.approx(1.2827)
    assert k3.gain_name == "SuperRef_s_mmm_00000_-15.0_Oct08_01.59.24.dm4"
