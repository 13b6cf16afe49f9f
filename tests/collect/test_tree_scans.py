"""The reconciling scan of a watched tree: what it passes over, what it finds, and in which slices."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inotify_simple import INotify, flags

from coldchain.collect import tree_visits, watched_tree
from coldchain.collect.event_names import event_words
from coldchain.collect.event_tree import EventTree
from coldchain.collect.file_event import FileEvent
from coldchain.collect.folder_stamps import QUIET_SECONDS
from coldchain.collect.notice import Notice

NEVER = 1e9
ARRIVALS = int(flags.CREATE | flags.CLOSE_WRITE | flags.MOVED_TO)


class Scanning:
    """A tree as the collector watches it, with everything that it told. The clock is the test's."""

    def __init__(self, root: Path, **options: object) -> None:
        self.notices: list[Notice] = []
        self.events: list[FileEvent] = []
        self.now = 0.0
        self.tree = EventTree(
            root,
            recursive=True,
            events=ARRIVALS,
            **{"notice": self.notices.append, "initial": True, "settle_seconds": None, "polls_whole": False}  # type: ignore[arg-type]
            | {"moves_are_arrivals": True, "scan_seconds": NEVER, "full_seconds": NEVER, "poll_seconds": NEVER}
            | options,
        )  # fmt: skip

    def poll(self) -> None:
        """Until there is nothing to do."""
        self.events += self.tree.poll(self.now)
        while self.tree.is_busy:
            self.events += self.tree.poll(self.now)

    def scan(self, seconds: float = 2 * NEVER) -> list[str]:
        """One scan more after so long; what it told, as "CREATE a/b"."""
        before, scans = len(self.events), self.tree.finished_scans
        self.now += seconds
        end = time.monotonic() + 60
        while self.tree.finished_scans == scans:
            assert time.monotonic() < end, "waited in vain"
            self.poll()
        return [f"{event_words(event.mask)[3:]} {event.path}" for event in self.events[before:]]

    def files(self) -> Counter[str]:
        """How often each file was told to have arrived."""
        created = [event for event in self.events if event.mask & (flags.CREATE | flags.MOVED_TO)]
        return Counter(event.path for event in created if not event.mask & flags.ISDIR)


@pytest.fixture
def scanning(root: Path) -> Iterator[Callable[..., Scanning]]:
    """Watch the root."""
    made: list[Scanning] = []

    def begin(**options: object) -> Scanning:
        made.append(Scanning(root, **options))
        return made[-1]

    yield begin
    for each in made:
        each.tree.close()


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that are listed, by the last part of their paths."""
    found: list[str] = []
    scandir = os.scandir

    def note(descriptor: int) -> object:
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        return scandir(descriptor)

    monkeypatch.setattr(tree_visits.os, "scandir", note)
    return found


def test_a_scan_lists_only_what_has_changed(root: Path, scanning: Callable[..., Scanning], listed: list[str]) -> None:
    """Once a folder stood still for a while; what is in it unlisted is still reached; the full scan lists all."""
    for name in ("a/x", "a/y", "b"):
        (root / name).mkdir(parents=True)
        (root / name / "f").write_text("x")
    tree = scanning(scan_seconds=QUIET_SECONDS, full_seconds=100 * QUIET_SECONDS, use_inotify=False)
    tree.poll()
    tree.scan(QUIET_SECONDS)
    listed.clear()
    assert tree.scan(QUIET_SECONDS) == []
    assert listed == []
    (root / "a/y/g").write_text("x")
    assert tree.scan(QUIET_SECONDS) == ["CREATE a/y/g"]
    assert listed == ["y"]
    listed.clear()
    tree.scan(100 * QUIET_SECONDS)
    assert sorted(listed) == ["a", "b", root.name, "x", "y"]


def test_a_full_scan_finds_what_was_written_anew_in_its_place(root: Path, scanning: Callable[..., Scanning]) -> None:
    """Its folder's stamp stands still: the scans between do not see it."""
    (root / "f").write_text("x")
    tree = scanning(scan_seconds=QUIET_SECONDS, full_seconds=50 * QUIET_SECONDS, use_inotify=False)
    for _ in range(3):
        tree.scan(QUIET_SECONDS)
    with (root / "f").open("a") as stream:
        stream.write("more")
    assert tree.scan(QUIET_SECONDS) == []
    assert tree.scan(50 * QUIET_SECONDS) == ["CLOSE_WRITE f"]


def test_where_folders_keep_no_times_every_scan_lists_them(
    root: Path, scanning: Callable[..., Scanning], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted object store, or FAT that Windows shares: a new file is found by the next scan, not by the full one."""
    monkeypatch.setattr(tree_visits, "_stamp", lambda status: (1, 1))
    monkeypatch.setattr(watched_tree, "keeps_folder_times", lambda kind: False)
    (root / "a").mkdir()
    tree = scanning(scan_seconds=QUIET_SECONDS, use_inotify=False)
    for number in range(6):
        tree.scan(QUIET_SECONDS)
        (root / f"a/{number}").write_text("x")
        assert tree.scan(QUIET_SECONDS) == [f"CREATE a/{number}"]


def test_a_file_system_that_was_believed_wrongly_is_believed_no_more(
    root: Path, scanning: Callable[..., Scanning], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The full scan finds what the scans before passed over; from then on each scan does."""
    monkeypatch.setattr(tree_visits, "_stamp", lambda status: (1, 1))
    (root / "a").mkdir()
    tree = scanning(scan_seconds=QUIET_SECONDS, full_seconds=50 * QUIET_SECONDS, use_inotify=False)
    for _ in range(3):
        tree.scan(QUIET_SECONDS)
    (root / "a/0").write_text("x")
    assert tree.scan(QUIET_SECONDS) == []
    assert tree.scan(50 * QUIET_SECONDS) == ["CREATE a/0"]
    (root / "a/1").write_text("x")
    assert tree.scan(QUIET_SECONDS) == ["CREATE a/1"]


def test_a_listing_that_breaks_off_is_not_believed(
    root: Path, scanning: Callable[..., Scanning], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the middle of a folder, again and again: once it is over the rest is found, without a full scan."""
    for number in range(20):
        (root / f"{number:02d}").write_text("x")
    scandir, is_broken = os.scandir, True

    @contextmanager
    def break_off(descriptor: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        def some() -> Iterator[os.DirEntry[str]]:
            for number, entry in enumerate(entries):
                if is_broken and number == 10:
                    raise OSError(errno.EIO, "Input/output error")
                yield entry

        with scandir(descriptor) as entries:
            yield some()

    monkeypatch.setattr(tree_visits.os, "scandir", break_off)
    tree = scanning(scan_seconds=QUIET_SECONDS, use_inotify=False)
    for _ in range(4):
        tree.scan(QUIET_SECONDS)
    assert len(tree.files()) == 10
    assert [notice.kind for notice in tree.notices] == ["folder.unreadable"]
    is_broken = False
    tree.scan(QUIET_SECONDS)
    assert len(tree.files()) == 20


def test_what_an_earlier_process_noted_is_not_listed(
    root: Path, scanning: Callable[..., Scanning], listed: list[str]
) -> None:
    """Only folders that changed meanwhile are, and what is new in them is told; a folder that is gone is told of."""
    for name in ("a/x", "a/y", "gone"):
        (root / name).mkdir(parents=True)
        (root / name / "f").write_text("x")
    earlier = scanning(scan_seconds=QUIET_SECONDS)
    for _ in range(3):
        earlier.scan(QUIET_SECONDS)
    stamps = earlier.tree.stamp_changes()
    assert set(stamps) == {"", "a", "a/x", "a/y", "gone"}
    (root / "a/y/g").write_text("x")
    (root / "gone/f").unlink()
    (root / "gone").rmdir()
    listed.clear()
    later = scanning()
    later.tree.trust({folder: stamp for folder, stamp in stamps.items() if stamp is not None})
    later.poll()
    assert sorted(listed) == [root.name, "y"]
    assert later.files() == Counter(["a/y/g", "a/y/f"])  # which of the two is new is known to the catalog
    assert later.tree.stamp_changes() == {"gone": None}
    (root / "a/x/h").write_text("x")
    later.poll()
    assert later.files()["a/x/h"] == 1


def test_what_the_owner_forgot_is_told_again(root: Path, scanning: Callable[..., Scanning]) -> None:
    """A file that was told and not dealt with, though its folder's stamp stands still."""
    (root / "a").mkdir()
    (root / "a/f").write_text("x")
    tree = scanning(scan_seconds=QUIET_SECONDS)
    for _ in range(3):
        tree.scan(QUIET_SECONDS)
    tree.tree.forget("a/f")
    assert tree.scan(QUIET_SECONDS) == ["CREATE a/f"]
    assert tree.scan(QUIET_SECONDS) == []


def test_while_the_owner_is_busy_only_new_folders_are_looked_into(
    root: Path, scanning: Callable[..., Scanning]
) -> None:
    """What stands there waits; what is just being made does not."""
    for number in range(50):
        (root / f"old{number}").mkdir()
        (root / f"old{number}/f").write_text("x")
    tree = scanning()
    tree.events += tree.tree.poll(0, visits=False)
    assert not tree.files()
    tree.poll()
    assert len(tree.files()) == 50
    (root / "new/deep").mkdir(parents=True)
    (root / "new/deep/f").write_text("x")
    end = time.monotonic() + 60
    while not tree.files()["new/deep/f"]:
        assert time.monotonic() < end
        tree.events += tree.tree.poll(0, visits=False)


def test_a_kernel_that_does_not_tell_is_found_out(
    root: Path, scanning: Callable[..., Scanning], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two scans that find files which the kernel should have told: from then on it is looked more often, and said."""
    tree = scanning(scan_seconds=1000, poll_seconds=10)
    tree.poll()
    monkeypatch.setattr(INotify, "read", lambda self, timeout: [])
    for number in range(2):
        (root / f"{number}").write_text("x")
        assert tree.scan(1000) == [f"CREATE {number}"]
    assert [notice.kind for notice in tree.notices] == ["watch.deaf"]
    assert "every 10 s" in tree.notices[0].message
    (root / "2").write_text("x")
    assert tree.scan(10) == ["CREATE 2"]


def test_a_kernel_that_tells_is_trusted(root: Path, scanning: Callable[..., Scanning]) -> None:
    """Files, folders and moves between scans and during them, also with an overflow: never taken for silence."""
    tree = scanning(scan_seconds=10)
    tree.poll()
    for number in range(20):
        (root / f"d{number}").mkdir()
        (root / f"d{number}/f").write_text("x")
        tree.scan(11)
        (root / f"d{number}").rename(root / f"e{number}")
        (root / f"e{number}/g").write_text("x")
        if number % 5 == 0:
            tree.tree._kernel.has_overflowed = True
    assert not tree.notices


@pytest.mark.parametrize("what", ["moved in", "renamed", "deleted"])
def test_trees_of_a_thousand_files(
    root: Path, tmp_path: Path, scanning: Callable[..., Scanning], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Moved in; renamed while being scanned; deleted while being scanned: what stays is told once, without an error."""
    monkeypatch.setattr(tree_visits, "_SLICE_ENTRIES", 10)
    monkeypatch.setattr("coldchain.collect.event_tree._VISITING_SECONDS", 0.0005)
    outside = tmp_path / "outside"
    for number in range(1000):
        folder = outside / str(number % 7) / str(number % 13)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_text("x")
    tree = scanning()
    tree.poll()
    outside.rename(root / "in")
    names = {f"{number % 7}/{number % 13}/{number}" for number in range(1000)}
    if what == "moved in":
        expected = {f"in/{name}" for name in names}
    else:
        while len(tree.events) < 100:
            tree.events += tree.tree.poll(0)
        assert len(tree.files()) < 1000
        if what == "renamed":
            (root / "in/3").rename(root / "in/three")
            (root / "in").rename(root / "there")
            expected = {f"there/{'three' if name[0] == '3' else name[0]}{name[1:]}" for name in names}
        else:
            subprocess.run(["rm", "-rf", str(root / "in")], check=True)
            (root / "last").write_text("x")
            expected = {"last"}
    tree.poll()
    told = tree.files()
    assert expected <= set(told)
    assert all(told[path] == 1 for path in expected)
    assert not tree.notices


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["make", "delete", "rename", "poll", "scan"]), st.integers(0, 7)), max_size=40
    )
)
def test_whatever_happens_between_the_slices_of_a_listing(
    moves: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files made, deleted and renamed while their folder is listed entry by entry: in the end each that is there was
    told since it last came, and none more often than it came."""
    monkeypatch.setattr(tree_visits, "_SLICE_ENTRIES", 1)
    monkeypatch.setattr("coldchain.collect.event_tree._VISITING_SECONDS", 0.0)
    root = tmp_path_factory.mktemp("slices")
    came: Counter[str] = Counter()
    for number in range(4):
        (root / f"{number}").write_text("x")
        came[f"{number}"] += 1
    tree = Scanning(root, scan_seconds=1)
    try:
        for move, number in moves:
            path = root / f"{number}"
            if move == "make" and not path.exists():
                path.write_text("x")
                came[path.name] += 1
            elif move == "delete":
                path.unlink(missing_ok=True)
            elif move == "rename" and path.exists() and not (root / f"new{number}").exists():
                path.rename(root / f"new{number}")
                came[f"new{number}"] += 1
            elif move == "scan":
                tree.now += 2
            tree.events += tree.tree.poll(tree.now)
        tree.poll()
        tree.scan(2)
    finally:
        tree.tree.close()
    told = tree.files()
    assert {path.name for path in root.iterdir()} <= set(told)
    assert all(told[name] <= came[name] for name in told)
