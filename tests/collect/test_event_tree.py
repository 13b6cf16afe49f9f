"""Every event in a tree is told, once, whatever happens to the tree meanwhile."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from inotify_simple import Event as KernelEvent
from inotify_simple import INotify, flags

from coldchain.collect import tree_visits
from coldchain.collect.event_names import DEFAULT, EVENTS, event_words
from coldchain.collect.event_tree import EventTree
from coldchain.collect.file_event import FileEvent
from coldchain.collect.mounts import filesystem_type, is_remote
from coldchain.collect.tree_visits import Visit

ALL = EVENTS["all_events"] | EVENTS["unmount"] | EVENTS["q_overflow"] | EVENTS["ignored"]


class Watching:
    """A tree with everything that it has told. The clock is the test's: it settles when the test says so."""

    def __init__(self, root: Path, *, recursive: bool = True, events: int = DEFAULT, **options: object) -> None:
        self.notices: list[str] = []
        self.events: list[FileEvent] = []
        self.now = 0.0
        self.tree = EventTree(
            root,
            recursive=recursive,
            events=events,
            notice=lambda notice: self.notices.append(notice.message),
            **options,  # type: ignore[arg-type]
        )
        self.poll()

    def poll(self) -> None:
        """Until there is nothing to do."""
        self.events += self.tree.poll(self.now)
        while self.tree.is_busy:
            self.events += self.tree.poll(self.now)

    def pass_time(self, seconds: float = 3.0) -> None:
        """Let things settle, and what is looked at now and then be looked at."""
        self.poll()
        self.now += seconds
        self.poll()
        self.poll()

    def until(self, condition: Callable[[], bool]) -> None:
        """Poll until the condition holds; the clock runs."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.poll()
            self.now += 0.01
            time.sleep(0.001)

    def told(self, path: str | None = None) -> list[str]:
        """What was told, in order: "CREATE a/b"; of one path, the kinds alone."""
        words = [(event_words(event.mask).replace("IN_", ""), event.path) for event in self.events]
        return [f"{kind} {where}" if path is None else kind for kind, where in words if path in {None, where}]


@pytest.fixture
def watch(root: Path) -> Iterator[Callable[..., Watching]]:
    """Watch the root, or another path."""
    made: list[Watching] = []

    def begin(folder: Path = root, **options: object) -> Watching:
        made.append(Watching(folder, **options))  # type: ignore[arg-type]
        return made[-1]

    yield begin
    for watching in made:
        watching.tree.close()


SHELL = 'i=0; while [ $i -lt {n} ]; do mkdir -p "$i/b/c" && touch "$i/b/c/f"; i=$((i+1)); done'
PYTHON = """
import os, pathlib
for i in range({n}):
    os.makedirs(f"{{i}}/b/c"); pathlib.Path(f"{{i}}/b/c/f").touch()
"""


@pytest.mark.parametrize("words", [["sh", "-c", SHELL], [sys.executable, "-c", PYTHON]])
def test_files_in_new_folders_are_told_once_each(root: Path, watch: Callable[..., Watching], words: list[str]) -> None:
    """`mkdir -p a/b/c && touch a/b/c/f`, 200 times: each folder and file created once, each file closed once."""
    watching = watch()
    count = 200
    with subprocess.Popen([*words[:-1], words[-1].format(n=count)], cwd=root) as process:
        watching.until(lambda: process.poll() is not None)
    watching.pass_time(10)
    watching.pass_time(10)
    expected = Counter(f"{kind} {i}/b/c/f" for i in range(count) for kind in ("CREATE", "CLOSE_WRITE"))
    expected.update(f"ISDIR,CREATE {i}{inner}" for i in range(count) for inner in ("", "/b", "/b/c"))
    assert Counter(watching.told()) == expected


def test_kinds_are_told_as_the_kernel_names_them(root: Path, watch: Callable[..., Watching]) -> None:
    """Everything that can happen to a file in a watched folder, in its order."""
    watching = watch(events=ALL)
    path = root / "f"
    path.write_text("x")
    path.read_text()
    path.chmod(0o600)
    path.rename(root / "g")
    (root / "g").unlink()
    watching.poll()
    assert watching.told("f") == [
        "CREATE", "OPEN", "MODIFY", "CLOSE_WRITE", "OPEN", "ACCESS", "CLOSE_NOWRITE", "ATTRIB", "MOVED_FROM",
    ]  # fmt: skip
    assert watching.told("g") == ["MOVED_TO", "DELETE"]
    moved = [event for event in watching.events if event.cookie]
    assert len({event.cookie for event in moved}) == 1
    assert moved[1].old_path == "f"


def test_only_what_is_wanted_is_told(root: Path, watch: Callable[..., Watching]) -> None:
    """A mask of one kind tells that kind, however the tree is watched inside."""
    watching = watch(events=EVENTS["delete"])
    (root / "a").mkdir()
    (root / "a/f").write_text("x")
    watching.pass_time()
    (root / "a/f").unlink()
    watching.pass_time()
    assert [word for word in watching.told() if "CREATE" not in word] == ["DELETE a/f"]


def test_a_single_path_is_not_entered(root: Path, watch: Callable[..., Watching]) -> None:
    """Without recursion, what happens in folders inside is not told; the folders themselves are."""
    (root / "old").mkdir()
    watching = watch(recursive=False)
    (root / "new").mkdir()
    (root / "new/f").write_text("x")
    (root / "old/f").write_text("x")
    (root / "f").write_text("x")
    watching.pass_time()
    assert watching.told() == ["ISDIR,CREATE new", "CREATE f", "CLOSE_WRITE f"]


def test_a_tree_that_is_moved_in_is_told_whole(root: Path, tmp_path: Path, watch: Callable[..., Watching]) -> None:
    """Folder and files of a tree that arrives by one rename: each created once and closed once; later files too."""
    for number in range(100):
        folder = tmp_path / "outside" / str(number % 7) / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_text("x")
    watching = watch()
    (tmp_path / "outside").rename(root / "in")
    watching.pass_time(0.5)
    (root / "in/1/deep/later").write_text("x")
    watching.pass_time(10)
    assert watching.told()[0] == "ISDIR,MOVED_TO in"
    assert watching.events[0].old_path is None
    assert watching.told("in/1/deep/later") == ["CREATE", "CLOSE_WRITE"]
    for number in range(100):
        assert watching.told(f"in/{number % 7}/deep/{number}") == ["CREATE", "CLOSE_WRITE"]


def test_a_folder_that_is_renamed_keeps_its_files(root: Path, watch: Callable[..., Watching]) -> None:
    """Its files have not come anew; what happens in it later is told under its new name, and out of it no more."""
    (root / "old/sub").mkdir(parents=True)
    (root / "old/sub/f").write_text("x")
    watching = watch()
    (root / "old").rename(root / "new")
    (root / "new/sub/g").write_text("x")
    watching.pass_time(10)
    expected = ["ISDIR,MOVED_FROM old", "ISDIR,MOVED_TO new", "MOVE_SELF new", "CREATE new/sub/g"]
    assert watching.told() == [*expected, "CLOSE_WRITE new/sub/g"]
    assert not watching.told("new/sub/f")
    (root / "new").rename(root.parent / "away")
    watching.pass_time(10)
    before = len(watching.events)
    (root.parent / "away/sub/h").write_text("x")
    watching.pass_time(10)
    assert len(watching.events) == before


def test_what_is_found_while_it_is_written_is_closed_once(root: Path, watch: Callable[..., Watching]) -> None:
    """A file that a listing shows and that still grows is told as closed when it is closed, not before."""
    watching = watch()
    (root / "a").mkdir()
    with (root / "a/f").open("w") as stream:
        watching.poll()
        for _ in range(5):
            stream.write("x")
            stream.flush()
            watching.pass_time(1.5)
        assert watching.told("a/f") == ["CREATE"]
    watching.pass_time()
    assert watching.told("a/f") == ["CREATE", "CLOSE_WRITE"]


def test_a_found_file_that_is_renamed_before_it_settles_is_closed_too(
    root: Path, watch: Callable[..., Watching]
) -> None:
    """Written under a temporary name in a new folder and renamed at once: the last name is told as closed."""
    watching = watch()
    (root / "a").mkdir()
    (root / "a/f.part").write_text("x")
    watching.poll()
    (root / "a/f.part").rename(root / "a/f")
    watching.pass_time(10)
    assert watching.told("a/f") == ["MOVED_TO", "CLOSE_WRITE"]


def test_a_folder_that_is_made_again_and_again_is_watched_each_time(root: Path, watch: Callable[..., Watching]) -> None:
    """Deleted and made anew under one name: everything is told each time, and no watch is left over."""
    watching = watch()
    for number in range(20):
        (root / "s").mkdir()
        (root / "s/f").write_text("x")
        watching.pass_time(0.01 if number % 2 else 10)
        (root / "s/f").unlink()
        (root / "s").rmdir()
        watching.pass_time(0.01)
    watching.pass_time(10)
    told = Counter(watching.told())
    assert told["ISDIR,CREATE s"] == told["ISDIR,DELETE s"] == told["CREATE s/f"] == told["DELETE s/f"] == 20
    assert watching.tree._tree.watches.paths() == [""]


def test_an_overflowing_queue_loses_nothing(
    root: Path, watch: Callable[..., Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files created, closed, changed and deleted while the kernel kept nothing: told by a listing, once."""
    for number in range(40):
        (root / str(number)).write_text("x")
    (root / "sub").mkdir()
    watching = watch(events=ALL)
    read, lossless = INotify.read, list[bool]()

    def overflow(self: INotify, timeout: int) -> list[object]:
        lost = read(self, timeout=timeout) and not lossless
        lossless.append(True)
        return [KernelEvent(-1, int(flags.Q_OVERFLOW), 0, "")] if lost else []

    for number in range(40, 80):
        (root / "sub" / str(number)).write_text("x")
    for number in range(20):
        (root / str(number)).unlink()
    (root / "25").write_text("longer")
    with monkeypatch.context() as patch:
        patch.setattr(INotify, "read", overflow)
        watching.events += watching.tree.poll(0)
    watching.pass_time(10)
    told = [word for word in watching.told() if "OPEN" not in word and "CLOSE_NOWRITE" not in word]
    expected = Counter(f"{kind} sub/{n}" for n in range(40, 80) for kind in ("CREATE", "CLOSE_WRITE"))
    expected.update(f"DELETE {number}" for number in range(20))
    expected.update(["Q_OVERFLOW ", "MODIFY 25", "CLOSE_WRITE 25"])
    assert Counter(told) == expected


def test_the_kernels_own_overflow_loses_nothing(root: Path, watch: Callable[..., Watching]) -> None:
    """More files than the kernel keeps events for, in several folders, while nobody reads."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 50_000:
        pytest.skip(f"fs.inotify.max_queued_events is {limit}: too many files to write here")
    watching = watch(events=EVENTS["create"] | EVENTS["close_write"])
    (root / "a/b").mkdir(parents=True)
    watching.poll()
    names = [f"{'a/b/' if n % 2 else ''}{n:06d}" for n in range(limit // 2 + 500)]
    for name in names:
        os.close(os.open(root / name, os.O_CREAT | os.O_WRONLY))
    watching.pass_time(10)
    watching.pass_time(10)
    told = Counter(word for word in watching.told() if "ISDIR" not in word)
    assert told == Counter(f"{kind} {name}" for name in names for kind in ("CREATE", "CLOSE_WRITE"))


def test_what_stood_there_at_the_start_is_told_if_asked(root: Path, watch: Callable[..., Watching]) -> None:
    """With `initial` as created and closed, once; without it not at all."""
    (root / "a").mkdir()
    (root / "a/f").write_text("x")
    quiet, telling = watch(), watch(initial=True)
    for watching in (quiet, telling):
        watching.pass_time(10)
    assert quiet.told() == []
    assert telling.told() == ["ISDIR,CREATE a", "CREATE a/f", "CLOSE_WRITE a/f"]


def test_a_root_that_is_missing_is_waited_for(tmp_path: Path, watch: Callable[..., Watching]) -> None:
    """Said once; what is there when it comes is told; so again after it was deleted or moved away."""
    root = tmp_path / "late"
    watching = watch(root)
    watching.pass_time()
    watching.pass_time()
    assert [notice for notice in watching.notices if "waited for" in notice] == [
        f"{root}: it cannot be watched (No such file or directory). Mount it or correct the path; it is waited for"
    ]
    for number in range(3):
        root.mkdir()
        (root / "f").write_text("x")
        watching.pass_time()
        watching.pass_time()
        assert watching.told("f").count("CLOSE_WRITE") == number + 1
        if number:
            root.rename(tmp_path / f"gone{number}")
            (tmp_path / f"gone{number}/g").write_text("x")
        else:
            (root / "f").unlink()
            root.rmdir()
        watching.pass_time()
    assert watching.told("").count("MOVE_SELF") == 2
    assert watching.told("").count("DELETE_SELF") == 1
    assert not watching.told("g")
    assert len(watching.notices) == 4


@pytest.mark.root
def test_an_unmounted_target_that_comes_back_tells_what_is_new(root: Path, watch: Callable[..., Watching]) -> None:
    """Files are neither told as deleted when the mount goes nor as created when it comes; what was added is."""
    backing = root.parent / "backing"
    backing.mkdir()
    mount = ["mount", "--bind", str(backing), str(root)]
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(backing)], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    try:
        (backing / "a").mkdir()
        (backing / "a/f").write_text("x")
        subprocess.run(mount, check=True)
        watching = watch(events=DEFAULT | EVENTS["unmount"])
        subprocess.run(["umount", str(root)], check=True)
        watching.pass_time()
        (backing / "a/g").write_text("x")
        watching.pass_time()
        subprocess.run(mount, check=True)
        watching.pass_time(10)
        watching.pass_time(10)
        (root / "a/h").write_text("x")
        watching.pass_time(10)
        (root / "a/f").unlink()
        watching.pass_time(10)
    finally:
        subprocess.run(["umount", str(root)], check=False, capture_output=True)
        subprocess.run(["umount", str(backing)], check=False, capture_output=True)
    files = [word for word in watching.told() if word.rpartition("/")[2] in "fgh" and "CLOSE" in word]
    assert sorted(files) == ["CLOSE_WRITE a/g", "CLOSE_WRITE a/h"]
    assert [word for word in watching.told() if "DELETE" in word] == ["DELETE a/f"]


def test_a_file_may_be_watched_by_itself(root: Path, watch: Callable[..., Watching]) -> None:
    """Its own events, and when it is replaced the new one's."""
    target = root / "config"
    target.write_text("1")
    watching = watch(target)
    target.write_text("2")
    watching.poll()
    assert watching.told() == ["CLOSE_WRITE "]
    for number in range(2):
        (root / "new").write_text("3")
        (root / "new").replace(target)
        watching.pass_time(10)
        watching.pass_time(10)
        assert watching.told().count("DELETE_SELF ") == number + 1
    target.write_text("4")
    watching.poll()
    assert watching.told()[-1] == "CLOSE_WRITE "
    assert watching.told().count("CREATE ") == 2


def test_folders_that_are_not_to_be_entered_are_not(root: Path, watch: Callable[..., Watching]) -> None:
    """Neither at the start nor when they are made, and no watch is spent on them."""
    (root / "skip/deep").mkdir(parents=True)
    watching = watch(enters=lambda folder: folder.partition("/")[0] != "skip")
    (root / "skip/deep/f").write_text("x")
    (root / "skipper").mkdir()
    (root / "skipper/f").write_text("x")
    watching.pass_time()
    assert watching.told() == ["ISDIR,CREATE skipper", "CREATE skipper/f", "CLOSE_WRITE skipper/f"]


def test_loops_by_links_are_not_followed(root: Path, tmp_path: Path, watch: Callable[..., Watching]) -> None:
    """A link to a folder is told as a name; what is behind it is not; the root may be a link."""
    (root / "a").mkdir()
    (root / "a/loop").symlink_to(root)
    (tmp_path / "link").symlink_to(root)
    watching = watch(tmp_path / "link")
    (root / "a/other").symlink_to(tmp_path)
    (root / "a/f").write_text("x")
    watching.pass_time(10)
    assert watching.told() == ["CREATE a/other", "CREATE a/f", "CLOSE_WRITE a/f"]


@pytest.mark.parametrize("refused", ["add_watch", "__init__"])
def test_where_the_kernel_refuses_the_tree_is_looked_at(
    root: Path, watch: Callable[..., Watching], monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """Too few watches or instances: said once with the command that raises them, and nothing is missed."""

    def refuse(self: INotify, *words: object) -> int:
        raise OSError(errno.ENOSPC if words else errno.EMFILE, "refused")

    monkeypatch.setattr(INotify, refused, refuse)
    (root / "a").mkdir()
    watching = watch()
    (root / "a/f").write_text("x")
    for _ in range(4):
        watching.pass_time(6)
    (root / "a/f").write_text("more")
    for _ in range(4):
        watching.pass_time(6)
    (root / "a/f").unlink()
    watching.pass_time(6)
    assert watching.told() == ["CREATE a/f", "CLOSE_WRITE a/f", "CLOSE_WRITE a/f", "DELETE a/f"]
    (notice,) = watching.notices
    assert "sysctl fs.inotify.max_user_" in notice


@pytest.mark.parametrize(
    "name", [b"new\nline", b"quote'\"`$(x)", "µ 日本".encode(), b"\xff\xfe invalid", b"-rf *", b"a" * 255]
)
def test_any_name_passes_exactly(root: Path, watch: Callable[..., Watching], name: bytes) -> None:
    """A name is bytes, in folders as in files."""
    watching = watch()
    path = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
    path.mkdir()
    (path / os.fsdecode(name)).write_text("x")
    watching.pass_time(10)
    assert os.fsencode(watching.events[-1].path) == name + b"/" + name


def test_a_tree_in_turmoil_does_no_harm(root: Path, watch: Callable[..., Watching]) -> None:
    """Folders made, filled, renamed and deleted under the listing's feet: no error, and what stays was told."""
    watching = watch()
    done = threading.Event()

    def disturb() -> None:
        for number in range(150):
            (root / f"{number}/sub").mkdir(parents=True)
            (root / f"{number}/sub/f").write_text("x")
            if number % 3 == 0:
                (root / f"{number}/sub/f").unlink()
                (root / f"{number}/sub").rmdir()
            if number % 3 == 1:
                (root / str(number)).rename(root / f"{number}-renamed")
        done.set()

    thread = threading.Thread(target=disturb)
    thread.start()
    watching.until(done.is_set)
    thread.join()
    watching.pass_time(10)
    told = Counter(event.path for event in watching.events if event.mask & flags.CLOSE_WRITE)
    for number in range(150):
        paths = [f"{number}/sub/f", f"{number}-renamed/sub/f"]
        if number % 3:
            assert sum(told[path] for path in paths) == 1, number
    assert not watching.notices


def test_listing_a_folder_is_not_told_as_reading_it(root: Path, watch: Callable[..., Watching]) -> None:
    """Who watches for reading is not told of the watcher's own."""
    (root / "a/b").mkdir(parents=True)
    watching = watch(events=ALL)
    (root / "c").mkdir()
    watching.pass_time()
    assert watching.told() == ["ISDIR,CREATE c"]
    os.listdir(root / "a")  # noqa: PTH208
    watching.pass_time()
    assert "ISDIR,OPEN a" in watching.told()


def test_kinds_may_change_without_a_gap(root: Path, watch: Callable[..., Watching]) -> None:
    """After other kinds are wanted, those are told, of old folders as of new ones."""
    (root / "a").mkdir()
    watching = watch(events=EVENTS["create"])
    watching.tree.change(EVENTS["attrib"] | EVENTS["close_write"])
    watching.poll()
    (root / "a/f").write_text("x")
    (root / "a/f").chmod(0o600)
    watching.pass_time(10)
    assert watching.told("a/f") == ["CLOSE_WRITE", "ATTRIB"]


def test_what_is_entered_may_change_without_a_gap(root: Path, watch: Callable[..., Watching]) -> None:
    """A folder that is kept out of no more is watched from then on, and what it held is not told; and the reverse."""
    for name in ("a", "b"):
        (root / name / "sub").mkdir(parents=True)
        (root / name / "sub/old").write_text("x")
    kept_out = {"a"}
    watching = watch(enters=lambda folder: folder not in kept_out)
    kept_out.symmetric_difference_update("ab")
    watching.tree.change(DEFAULT)
    watching.poll()
    for name in ("a", "b"):
        (root / name / "sub/new").write_text("x")
    watching.pass_time(10)
    assert watching.told() == ["CREATE a/sub/new", "CLOSE_WRITE a/sub/new"]


def test_remote_file_systems_are_known() -> None:
    """By their types, and the type of a path by the mount that holds it."""
    assert is_remote("nfs4")
    assert is_remote("fuse.sshfs")
    assert not is_remote("ext4")
    assert filesystem_type(Path("/proc/self")) == "proc"


def test_a_file_that_replaces_one_that_was_just_listed_is_told(root: Path, watch: Callable[..., Watching]) -> None:
    """A listing shows the first version, and before the kernel's events are read a second takes its name."""
    (root / "a").mkdir()
    (root / "b").write_text("version two")
    watching = watch(events=DEFAULT)
    (root / "a/f").write_text("one")
    watching.tree._visits.queue(Visit("a", tells=True, is_urgent=True))
    watching.tree._visits.run_for(1, 0)
    (root / "b").rename(root / "a/f")
    watching.poll()
    assert watching.told("a/f")[-1] == "MOVED_TO"


def test_a_folder_that_may_be_read_later_is_watched_then(root: Path, watch: Callable[..., Watching]) -> None:
    """Made unreadable from the start, and said; readable again, what is written into it is told within the period."""
    (root / "closed").mkdir()
    with monkeypatched_folders({"closed"}) as refused:
        watching = watch()
        watching.pass_time(6)
        assert any("closed" in notice for notice in watching.notices)
        refused.clear()
        watching.pass_time(6)
    (root / "closed/f").write_text("x")
    watching.poll()
    assert watching.told("closed/f") == ["CREATE", "CLOSE_WRITE"]


@contextmanager
def monkeypatched_folders(refused: set[str]) -> Iterator[set[str]]:
    """Folders that cannot be opened, whoever one is."""
    real = tree_visits.folder_beneath

    @contextmanager
    def refuse(root: Path, relative: str) -> Iterator[int]:
        if relative in refused:
            raise PermissionError(errno.EACCES, "Permission denied")
        with real(root, relative) as descriptor:
            yield descriptor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_visits, "folder_beneath", refuse)
        yield refused


@pytest.mark.root
def test_a_mount_below_the_root_that_goes(root: Path, watch: Callable[..., Watching]) -> None:
    """Said; what settled there is told as closed when it is back; what is written into the empty folder is told too."""
    backing = root.parent / "image"
    with backing.open("wb") as stream:
        stream.truncate(4 << 20)
    (root / "m").mkdir()
    made = subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", str(backing)], capture_output=True, check=False)
    mount = ["mount", "-o", "loop", str(backing), str(root / "m")]
    if made.returncode or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount, or no mkfs.ext4 (package e2fsprogs)")
    try:
        watching = watch()
        (root / "m/f").write_text("x")
        watching.poll()
        subprocess.run(["umount", str(root / "m")], check=True)
        watching.pass_time()
        assert any("what was mounted here is gone" in notice for notice in watching.notices)
        subprocess.run(mount, check=True)
        watching.pass_time()
        (root / "m/g").write_text("x")
        watching.pass_time()
        assert watching.told("m/g")[:2] == ["CREATE", "CLOSE_WRITE"]
        subprocess.run(["umount", str(root / "m")], check=True)
        watching.pass_time()
        (root / "m/plain").write_text("x")
        watching.pass_time(3)
        watching.pass_time(3)
        assert watching.told("m/plain") == ["CREATE", "CLOSE_WRITE"]
    finally:
        subprocess.run(["umount", str(root / "m")], check=False, capture_output=True)
    assert not [word for word in watching.told() if word.startswith("DELETE")]
