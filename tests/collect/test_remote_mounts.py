"""Mounts on which others write: a real FUSE file system, written to behind its back."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coldchain.catalog import files, sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect import watched_tree
from coldchain.collect.collector import Collector
from coldchain.collect.completeness import Timing
from coldchain.collect.intake import Intake
from coldchain.collect.mounts import filesystem_type, is_remote
from coldchain.collect.watcher import FolderWatcher
from coldchain.model.files import FileState
from coldchain.model.policy import everywhere
from tests.collect.camera_folder import movie_bytes, wait_for, write_movie

PERIOD, SETTLING = 1.0, 0.5


@contextmanager
def mounted(backing: Path, mount: Path) -> Iterator[None]:
    """`backing`, seen through FUSE at `mount`."""
    if shutil.which("bindfs") is None or os.geteuid() or not Path("/dev/fuse").exists():
        pytest.skip("needs FUSE, root, and the package bindfs")
    if subprocess.run(["bindfs", str(backing), str(mount)], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount by FUSE")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)


@pytest.fixture
def backing(tmp_path: Path, root: Path) -> Iterator[Path]:
    """The other computer's side of the root."""
    folder = tmp_path / "backing"
    folder.mkdir()
    with mounted(folder, root):
        assert is_remote(filesystem_type(root))
        yield folder


@pytest.fixture
def collector(catalog: Catalog, root: Path) -> Iterator[Collector]:
    """Collects from the root."""
    intake = Intake(catalog, instrument_name="krios", source_root=root, copies=everywhere(("live",)))
    made = Collector(root, intake, timing=Timing(settle_seconds=SETTLING), scan_seconds=PERIOD)
    yield made
    made.stop()


def arrived(catalog: Catalog) -> dict[str, int]:
    """The sizes of all files that stand in the catalog."""
    rows = [row for each in sessions.list_all(catalog) for row in files.of_session(catalog, each.id, limit=1000)]
    assert {row.state for row in rows} <= {FileState.ARRIVED}
    assert len({row.relative_path for row in rows}) == len(rows)
    return {row.relative_path: row.size_bytes for row in rows}


def test_what_others_write_is_taken(backing: Path, catalog: Catalog, collector: Collector) -> None:
    """New folders and files are found by scan and settling time, each once."""
    collector.start()
    wait_for(collector.idle, "the first scan")
    for number in range(5):
        write_movie(backing / f"visit/{number}/x.mrc")
    wait_for(lambda: len(arrived(catalog)) == 5, "the movies")
    wait_for(collector.idle, "idleness")
    assert set(arrived(catalog)) == {f"{number}/x.mrc" for number in range(5)}


def test_a_file_is_never_taken_half_written(backing: Path, catalog: Catalog, collector: Collector) -> None:
    """Written in pieces with pauses shorter than the settling time, over several periods: it is taken whole, once."""
    data = movie_bytes(backing)
    (backing / "visit").mkdir()
    collector.start()
    with (backing / "visit/x.mrc").open("wb", buffering=0) as stream:
        for start in range(0, len(data), len(data) // 12 + 1):
            stream.write(data[start : start + len(data) // 12 + 1])
            time.sleep(SETTLING / 2)
            assert "x.mrc" not in arrived(catalog) or stream.tell() == len(data)
    wait_for(lambda: "x.mrc" in arrived(catalog), "the movie")
    assert arrived(catalog) == {"x.mrc": len(data)}


def test_a_mount_of_an_unknown_type_is_found_out(backing: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells nothing of what others write there: seen by the second scan, said, and nothing is missed."""
    monkeypatch.setattr(watched_tree, "is_remote", lambda kind: False)
    watcher = FolderWatcher(root, scan_seconds=0.2)
    sighted, kinds = set[str](), list[str]()

    def poll() -> None:
        findings = watcher.poll(time.monotonic(), 0.05)
        sighted.update(each.path for each in findings.sightings)
        kinds.extend(notice.kind for notice in findings.notices)

    try:
        for number in range(4):
            (backing / f"{number}").write_text("x")
            wait_for(lambda name=str(number): poll() or name in sighted, "the file")  # type: ignore[misc]
        wait_for(lambda: poll() or bool(kinds), "the notice")  # type: ignore[func-returns-value]
    finally:
        watcher.close()
    assert kinds == ["watch.deaf"]


def test_a_mount_that_goes_and_comes_back_loses_nothing(
    tmp_path: Path, root: Path, catalog: Catalog, collector: Collector
) -> None:
    """With a file that was still settling, one that comes meanwhile, and one that was taken and is not taken twice."""
    folder = tmp_path / "backing"
    with_data = movie_bytes(tmp_path)
    folder.mkdir()
    with mounted(folder, root):
        write_movie(folder / "visit/taken.mrc")
        collector.start()
        wait_for(lambda: "taken.mrc" in arrived(catalog), "the first movie")
        (folder / "visit/growing.mrc").write_bytes(with_data[:-1])
        wait_for(lambda: collector._tracker.is_pending("visit/growing.mrc"), "the sight of it")
    wait_for(lambda: not collector._tracker.is_pending("visit/growing.mrc"), "its being gone")
    with (folder / "visit/growing.mrc").open("ab") as stream:
        stream.write(with_data[-1:])
    write_movie(folder / "visit/meanwhile.mrc")
    with mounted(folder, root):
        wait_for(lambda: len(arrived(catalog)) == 3, "all movies")
        wait_for(collector.idle, "idleness")
    assert set(arrived(catalog)) == {"taken.mrc", "growing.mrc", "meanwhile.mrc"}
