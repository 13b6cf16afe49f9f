"""Nothing that appears under a folder is missed, and nothing that should be left alone is touched."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from inotify_simple import INotify, flags

from coldchain.collect.file_event import FileEvent
from coldchain.collect.notice import Notice
from coldchain.collect.tree_visits import Visit
from coldchain.collect.watcher import FolderWatcher, Sighting, is_passed_over
from tests.collect.camera_folder import somebody_else

NEVER = 1e9


class Watching:
    """A watcher with everything that it has found."""

    def __init__(self, root: Path, **options: object) -> None:
        self.watcher = FolderWatcher(root, **options)  # type: ignore[arg-type]
        self.sightings: dict[str, Sighting] = {}
        self.notices: list[Notice] = []
        self.now = 0.0

    def poll(self, timeout_seconds: float = 0.02) -> None:
        """Poll once and keep what is found."""
        findings = self.watcher.poll(self.now, timeout_seconds)
        self.sightings.update((sighting.path, sighting) for sighting in findings.sightings)
        self.notices.extend(findings.notices)

    def until(self, condition: Callable[[], bool], *, seconds: float = 60) -> None:
        """Poll until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            self.poll()

    def visit(self, folder: str) -> None:
        """Visit one folder, as if a listing had shown it a moment ago."""
        self.watcher._tree._visits.queue(Visit(folder, tells=True, is_urgent=True))
        self.poll()

    def scan(self) -> None:
        """One whole scan more, by letting the period pass."""
        before = self.watcher.finished_scans
        self.now += 2 * NEVER
        self.until(lambda: self.watcher.finished_scans > before)


@pytest.fixture
def watch(root: Path) -> Iterator[Callable[..., Watching]]:
    """Watch the root; without a period no scan but the first hides what inotify misses."""
    made: list[Watching] = []

    def begin(folder: Path = root, **options: object) -> Watching:
        made.append(Watching(folder, **{"scan_seconds": NEVER, **options}))
        made[-1].until(lambda: made[-1].watcher.finished_scans == 1)
        return made[-1]

    yield begin
    for watching in made:
        watching.watcher.close()


def test_files_in_folders_made_in_a_burst_are_all_seen(root: Path, watch: Callable[..., Watching]) -> None:
    """`mkdir -p a/b/c && touch a/b/c/f`, 300 times from a shell: inotify and visits alone miss none."""
    watching = watch()
    script = 'i=0; while [ $i -lt 300 ]; do mkdir -p "$i/b/c" && : > "$i/b/c/f"; i=$((i+1)); done'
    with subprocess.Popen(["sh", "-c", script], cwd=root):
        watching.until(lambda: len(watching.sightings) == 300)
    assert set(watching.sightings) == {f"{i}/b/c/f" for i in range(300)}
    assert watching.watcher.finished_scans == 1


def test_an_overflowing_queue_loses_nothing(root: Path, watch: Callable[..., Watching]) -> None:
    """More events than the kernel keeps, while nobody reads: a scan finds every file."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 50_000:
        pytest.skip(f"fs.inotify.max_queued_events is {limit}: too many files to write here")
    watching = watch()
    count = limit // 2 + 500
    for number in range(count):
        os.close(os.open(root / f"{number:06d}", os.O_CREAT | os.O_WRONLY))
    watching.until(lambda: len(watching.sightings) == count)
    watching.until(lambda: watching.watcher.finished_scans == 2)


def test_what_lies_in_a_tree_that_is_moved_in_is_seen(
    root: Path, tmp_path: Path, watch: Callable[..., Watching]
) -> None:
    """A whole tree arrives by one rename, at any depth, and what is written into it later is seen too."""
    outside = tmp_path / "outside"
    for number in range(40):
        folder = outside / str(number % 4) / "deep" / str(number)
        folder.mkdir(parents=True)
        (folder / "f").write_text("x")
    watching = watch()
    outside.rename(root / "in")
    watching.until(lambda: len(watching.sightings) == 40)
    (root / "in/1/deep/1/later").write_text("x")
    watching.until(lambda: "in/1/deep/1/later" in watching.sightings)
    assert watching.sightings["in/1/deep/1/later"].closed


def test_a_renamed_folder_reports_under_its_new_name(root: Path, watch: Callable[..., Watching]) -> None:
    """After a folder was renamed, or moved out, nothing is told under the name that it had."""
    (root / "old/sub").mkdir(parents=True)
    watching = watch()
    (root / "old").rename(root / "new")
    (root / "new/sub/f").write_text("x")
    watching.until(lambda: "new/sub/f" in watching.sightings)
    (root / "new").rename(root.parent / "away")
    (root.parent / "away/sub/g").write_text("x")
    (root / "last").write_text("x")
    watching.until(lambda: "last" in watching.sightings)
    assert set(watching.sightings) == {"new/sub/f", "last"}


def test_a_folder_that_is_made_again_is_watched_again(root: Path, watch: Callable[..., Watching]) -> None:
    """Deleted and made anew under the same name, many times: each file in it is seen."""
    watching = watch()
    for number in range(30):
        (root / "s").mkdir()
        (root / "s" / str(number)).write_text("x")
        watching.until(lambda number=number: f"s/{number}" in watching.sightings)  # type: ignore[misc]
        (root / "s" / str(number)).unlink()
        (root / "s").rmdir()


def test_closing_and_moving_in_are_told_from_standing_there(root: Path, watch: Callable[..., Watching]) -> None:
    """Only what the kernel said was closed or moved in counts as closed."""
    (root / "before").write_text("x")
    watching = watch()
    assert not watching.sightings["before"].closed
    with (root / "open").open("w") as stream:
        stream.write("x")
        stream.flush()
        watching.until(lambda: "open" in watching.sightings)
        assert not watching.sightings["open"].closed
    watching.until(lambda: watching.sightings["open"].closed)
    (root / "a.part").write_text("whole")
    (root / "a.part").rename(root / "a.mrc")
    watching.until(lambda: "a.mrc" in watching.sightings)
    assert watching.sightings["a.mrc"] == Sighting("a.mrc", 5, (root / "a.mrc").stat().st_mtime_ns, closed=True)


@pytest.mark.parametrize(
    "name", [".hidden", "m.mrc.part", "m.tmp", "m.TMP", "m~", "Downloading m.mrc", "m.downloading"]
)
def test_temporary_and_hidden_names_are_left_alone(root: Path, watch: Callable[..., Watching], name: str) -> None:
    """Neither scan nor inotify reports a file that somebody is still at work on."""
    (root / "there").mkdir()
    (root / "there" / name).write_text("x")
    watching = watch()
    (root / name).write_text("x")
    (root / "last").write_text("x")
    watching.until(lambda: "last" in watching.sightings)
    assert set(watching.sightings) == {"last"}


def test_folders_are_passed_over_only_when_hidden_or_temporary() -> None:
    """A folder that is merely called "downloading" may hold a session."""
    assert is_passed_over(".snapshots", folder=True)
    assert not is_passed_over("downloading_2025", folder=True)


def test_pipes_and_sockets_are_left_alone(root: Path, watch: Callable[..., Watching]) -> None:
    """What is no regular file is no data, and is never opened."""
    os.mkfifo(root / "pipe.mrc")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s.mrc"))
        watching = watch()
        os.mkfifo(root / "pipe2.mrc")
        (root / "last").write_text("x")
        watching.until(lambda: "last" in watching.sightings)
    assert set(watching.sightings) == {"last"}
    assert not watching.notices


def test_links_are_refused_once_and_never_followed(root: Path, tmp_path: Path, watch: Callable[..., Watching]) -> None:
    """A link out of the tree, into it, to itself or to nothing: one notice each, however often it is scanned."""
    outside = tmp_path / "secret"
    outside.mkdir()
    (outside / "f").write_text("x")
    (root / "real").mkdir()
    (root / "real/f").write_text("x")
    (root / "out").symlink_to(outside)
    (root / "in.mrc").symlink_to(root / "real/f")
    (root / "real/loop").symlink_to(root)
    (root / "nothing").symlink_to("nowhere")
    watching = watch()
    watching.scan()
    watching.scan()
    assert set(watching.sightings) == {"real/f"}
    told = {notice.path: notice for notice in watching.notices}
    assert len(watching.notices) == 4
    assert {notice.kind for notice in watching.notices} == {"link.refused"}
    assert "out of this folder" in told["out"].message
    assert "another place in this folder" in told["in.mrc"].message
    assert "Move or hard-link" in told["out"].message


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path, watch: Callable[..., Watching]) -> None:
    """Facilities link their movie roots to mounts."""
    (tmp_path / "link").symlink_to(root)
    watching = watch(tmp_path / "link")
    (root / "f").write_text("x")
    watching.until(lambda: "f" in watching.sightings)


@pytest.mark.parametrize(
    "name", [b"new\nline", b"quote'\"`$(x)", "µ-Träger 日本".encode(), b"\xff\xfe invalid", b"-rf *", b"a" * 255]
)
def test_any_name_passes_exactly(root: Path, watch: Callable[..., Watching], name: bytes) -> None:
    """A name is bytes: whatever it is, it comes back."""
    folder = os.fsencode(root) + b"/" + name
    watching = watch()
    Path(os.fsdecode(folder)).mkdir()
    Path(os.fsdecode(folder + b"/" + name)).write_text("x")
    watching.until(lambda: bool(watching.sightings))
    (path,) = watching.sightings
    assert os.fsencode(path) == name + b"/" + name
    watching.until(lambda: watching.watcher.look(path) is not None)


def test_a_folder_that_may_not_be_read_is_told_once_until_it_may(
    open_folder: Path, watch: Callable[..., Watching]
) -> None:
    """One notice with its remedy, not one a scan; the rest goes on; when it can be read its files are there."""
    with somebody_else():
        (open_folder / "closed").mkdir()
        (open_folder / "closed/f").write_text("x")
        (open_folder / "open").mkdir()
        (open_folder / "open/f").write_text("x")
        (open_folder / "closed").chmod(0)
        watching = watch(open_folder)
        watching.scan()
        watching.scan()
        assert set(watching.sightings) == {"open/f"}
        (notice,) = watching.notices
        assert notice.kind == "folder.unreadable"
        assert "permission" in notice.message
        (open_folder / "closed").chmod(0o700)
        watching.scan()
        assert "closed/f" in watching.sightings
        (open_folder / "closed").chmod(0)
        watching.scan()
        assert len(watching.notices) == 2
        (open_folder / "closed").chmod(0o700)


def test_too_few_watches_are_said_with_the_command_that_raises_them(
    root: Path, watch: Callable[..., Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel gives no more watches, scanning finds what is not watched."""

    def refuse(self: INotify, path: str, mask: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(INotify, "add_watch", refuse)
    (root / "a").mkdir()
    watching = watch()
    (root / "a/f").write_text("x")
    watching.scan()
    watching.scan()
    assert set(watching.sightings) == {"a/f"}
    (notice,) = watching.notices
    assert "sysctl fs.inotify.max_user_watches=" in notice.message


def test_without_inotify_the_scan_alone_finds_everything(
    root: Path, watch: Callable[..., Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No inotify instance to be had, or none wanted: said once where it was wanted, and nothing is missed."""

    def refuse(self: INotify) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    wanted_none = watch(use_inotify=False)
    monkeypatch.setattr(INotify, "__init__", refuse)
    had_none = watch()
    (root / "a").mkdir()
    (root / "a/f").write_text("x")
    for watching in (wanted_none, had_none):
        watching.scan()
        assert set(watching.sightings) == {"a/f"}
    assert not wanted_none.notices
    assert "max_user_instances" in had_none.notices[0].message


def test_a_root_that_is_not_there_is_waited_for(tmp_path: Path, watch: Callable[..., Watching]) -> None:
    """A mount that comes late, goes and comes back: told once each time it is away."""
    root = tmp_path / "late"
    watching = watch(root)
    watching.scan()
    assert [notice.kind for notice in watching.notices] == ["folder.missing"]
    root.mkdir()
    (root / "f").write_text("x")
    watching.scan()
    assert set(watching.sightings) == {"f"}
    root.rename(tmp_path / "gone")
    watching.scan()
    assert len(watching.notices) == 2
    (tmp_path / "gone").rename(root)
    (root / "g").write_text("x")
    watching.scan()
    (root / "h").write_text("x")
    watching.until(lambda: "h" in watching.sightings)


def test_a_tree_that_changes_while_it_is_scanned_does_no_harm(root: Path, watch: Callable[..., Watching]) -> None:
    """Folders deleted and renamed under the scan's feet: no error, and what stays is seen."""
    for number in range(150):
        (root / f"{number}/sub").mkdir(parents=True)
        (root / f"{number}/sub/f").write_text("x")

    def disturb() -> None:
        for number in range(0, 150, 3):
            (root / f"{number}/sub/f").unlink()
            (root / f"{number}/sub").rmdir()
        for number in range(1, 150, 3):
            (root / str(number)).rename(root / f"{number}-renamed")

    thread = threading.Thread(target=disturb)
    thread.start()
    watching = watch()
    thread.join()
    stays = {f"{n}-renamed/sub/f" for n in range(1, 150, 3)} | {f"{n}/sub/f" for n in range(2, 150, 3)}
    watching.until(lambda: stays <= set(watching.sightings))
    assert not watching.notices


def test_looking_at_a_file_tells_how_it_stands(root: Path, watch: Callable[..., Watching]) -> None:
    """Size and time stamp now; None for what is gone or is no file."""
    watching = watch()
    (root / "f").write_text("four")
    os.utime(root / "f", ns=(0, 4_102_444_800_000_000_000))  # the year 2100: only a stamp
    assert watching.watcher.look("f") == Sighting("f", 4, 4_102_444_800_000_000_000, closed=False)
    assert watching.watcher.look("g") is None
    assert watching.watcher.look("") is None


def test_a_folder_that_is_swapped_for_a_link_is_not_followed(
    root: Path, tmp_path: Path, watch: Callable[..., Watching]
) -> None:
    """Between being met and being visited, between an event and the look at its file, and before another look."""
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub/secret").write_text("x")
    (root / "a/sub").mkdir(parents=True)
    (root / "a/sub/f").write_text("x")
    watching = watch()
    assert set(watching.sightings) == {"a/sub/f"}
    (root / "a").rename(tmp_path / "away")
    (root / "a").symlink_to(outside)
    for folder in ("a", "a/sub"):
        watching.visit(folder)
    for path in ("a/sub/secret", "a/sub/f"):
        watching.watcher._meet(FileEvent(int(flags.CLOSE_WRITE), path))
        assert watching.watcher.look(path) is None
    (outside / "sub/later").write_text("x")
    (root / "last").write_text("x")
    watching.until(lambda: "last" in watching.sightings)
    watching.scan()
    assert set(watching.sightings) == {"a/sub/f", "last"}
    assert [(notice.kind, notice.path) for notice in watching.notices] == [("link.refused", "a")]


def test_what_is_watched_is_what_is_listed(
    root: Path, tmp_path: Path, watch: Callable[..., Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder on the way that is swapped for a link after all were opened puts no watch outside the tree."""
    (tmp_path / "outside/sub").mkdir(parents=True)
    (root / "a/sub").mkdir(parents=True)
    watching = watch()
    add_watch = INotify.add_watch

    def swap(self: INotify, path: str, mask: int) -> int:
        (root / "a").rename(tmp_path / "away")
        (root / "a").symlink_to(tmp_path / "outside")
        return add_watch(self, path, mask)

    with monkeypatch.context() as patch:
        patch.setattr(INotify, "add_watch", swap)
        watching.visit("a/sub")
    watched = Path(f"/proc/self/fdinfo/{watching.watcher._tree.fileno()}").read_text()
    assert f" ino:{(tmp_path / 'away/sub').stat().st_ino:x} " in watched
    assert f" ino:{(tmp_path / 'outside/sub').stat().st_ino:x} " not in watched
