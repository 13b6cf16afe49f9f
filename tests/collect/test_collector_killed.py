"""`kill -9` at random moments while files arrive by the thousand: in the catalog none is missing, and none is twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from coldchain.catalog import files, sessions
from coldchain.catalog.engine import Catalog
from tests.collect.camera_folder import wait_for
from tests.collect.collecting_process import collector_process

_SHELL = 'i={first}; while [ $i -lt {end} ]; do mkdir -p "$i/b/c" && echo x > "$i/b/c/f"; i=$((i+1)); done'
_SMALL, _LARGE = 60, 1000
SCAN_SECONDS = 0.5


def new_folders(root: Path, outside: Path, first: int, end: int) -> None:
    """`mkdir -p a/b/c && echo x > a/b/c/f`, from a shell and from Python."""
    middle = (first + end) // 2
    subprocess.run(["sh", "-c", _SHELL.format(first=first, end=middle)], cwd=root, check=True)
    for number in range(middle, end):
        (root / f"{number}/b/c").mkdir(parents=True)
        (root / f"{number}/b/c/f").write_text("x")


def burst(root: Path, outside: Path, first: int, end: int) -> None:
    """As many files as there are, in one folder, without a pause."""
    (root / "burst").mkdir(exist_ok=True)
    for number in range(first, end):
        (root / f"burst/{number}").write_text("x")


def moved_trees(root: Path, outside: Path, first: int, end: int) -> None:
    """A tree that is moved in, and renamed while it is gone through."""
    for number in range(first, end):
        folder = outside / f"{first}/{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_text("x")
    (outside / f"{first}").rename(root / f"{first}")
    (root / f"{first}").rename(root / f"renamed{first}")


MAKERS = {"new folders": new_folders, "a burst": burst, "moved trees": moved_trees}


@pytest.mark.parametrize("what", MAKERS)
@pytest.mark.parametrize("count", [_SMALL, pytest.param(_LARGE, marks=pytest.mark.chaos)])
def test_killed_while_files_arrive(
    what: str, count: int, root: Path, tmp_path: Path, catalog_url: str, catalog: Catalog
) -> None:
    """Killed at random, with files that arrive before, meanwhile and after: each file on the disk stands once."""
    outside = tmp_path / "outside"
    outside.mkdir()
    dice, made = random.Random(count), 0
    for _ in range(4):
        with collector_process(catalog_url, root, scan_seconds=SCAN_SECONDS) as process:
            MAKERS[what](root, outside, made, made + count)
            time.sleep(dice.uniform(0, 0.5))
            process.kill()
        made += count
    MAKERS[what](root, outside, made, made + 10)
    expect_all(root, catalog_url, catalog, made + 10)


def test_a_reader_that_sleeps_through_an_overflow_and_is_killed(
    root: Path, catalog_url: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More events than the kernel keeps, while the process is stopped; killed on its waking."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 20_000:
        pytest.skip(f"fs.inotify.max_queued_events is {limit}: too many files to write here")
    (root / "visit").mkdir()
    with collector_process(catalog_url, root, scan_seconds=SCAN_SECONDS) as process:
        assert process.pid is not None
        wait_until_watching(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        for number in range(40):
            (root / f"visit/{number}").write_text("x")
        # Reading tells as well: a few names fill the queue.
        for _ in range(limit // 40 + 1):
            for number in range(40):
                os.utime(root / f"visit/{number}")
                (root / f"visit/{number}").open("a").close()
        os.kill(process.pid, signal.SIGCONT)
        wait_for(lambda: bool(rows(catalog)), "the first file")
        process.kill()
    expect_all(root, catalog_url, catalog, 40)


def wait_until_watching(pid: int) -> None:
    """Until the kernel keeps a watch for the process."""

    def watches() -> bool:
        entries = Path(f"/proc/{pid}/fdinfo").iterdir()
        return any(entry.exists() and "inotify wd:" in entry.read_text() for entry in entries)

    wait_for(watches, "a watch")


def rows(catalog: Catalog) -> Counter[str]:
    """How often each path stands in the catalog, from the root."""
    found: Counter[str] = Counter()
    for session in sessions.list_all(catalog):
        prefix = "" if session.folder == "." else f"{session.folder}/"
        found.update(prefix + row.relative_path for row in files.of_session(catalog, session.id, limit=100_000))
    return found


def expect_all(root: Path, url: str, catalog: Catalog, count: int) -> None:
    """A last process brings in what is missing, and nothing stands twice."""
    expected = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert len(expected) == count
    with collector_process(url, root, scan_seconds=SCAN_SECONDS):
        wait_for(lambda: expected <= rows(catalog).keys(), "all files", seconds=240)
    stands = rows(catalog)
    # A renamed folder's files may have been taken under the name that they had.
    assert {path for path in stands if (root / path).exists()} == expected
    assert max(stands.values()) == 1
