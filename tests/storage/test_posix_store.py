"""What holds for a store that is a folder tree, beside what holds for every store."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldchain.errors import StorageError, VerificationError
from coldchain.model.files import VerificationLevel
from coldchain.storage import system_calls
from coldchain.storage.identity_file import LIMIT_BYTES, identity_bytes, identity_of
from coldchain.storage.posix import keeper
from coldchain.storage.posix import root as posix_root
from coldchain.storage.posix.keeper import RootKeeper
from coldchain.storage.posix.root import HeldRoot
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.ring import Ring
from coldchain.storage.store import IDENTITY_NAME, TRASH_FOLDER, FileFacts
from tests.storage.conftest import Medium
from tests.storage.drives import MakeDrive, make_drive  # noqa: F401  # a fixture
from tests.storage.every_store import identity

NAME = "krios/visit/Data/movie.tiff"
RING = Ring(buffer_bytes=1 << 20, count=2)


def sha256_of(content: bytes) -> str:
    """A content's digest."""
    return hashlib.sha256(content).hexdigest()


def put(store: PosixStore, content: bytes = b"content", name: str = NAME) -> str:
    """Make a copy; what it is stored as."""
    with store.receive(name, FileFacts(len(content), 0, 0o644)) as incoming:
        incoming.write(memoryview(content))
        incoming.seal()
        incoming.prove(sha256_of(content), RING)
        incoming.publish(sha256_of(content), RING)
        return incoming.stored_as


def listed(store: PosixStore) -> set[str]:
    """What a store lists."""
    return {found.stored_as for found in store.walk()}


def open_below(root: Path) -> list[str]:
    """What this process holds open of a tree."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:  # the listing's own
            continue
    return [link for link in links if link.startswith(str(root))]


@settings(max_examples=25)
@given(
    content=st.binary(max_size=200)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_what_is_no_identity_is_a_stated_error(content: bytes) -> None:
    """Whatever lies under the identity file's name, the one error says what to do."""
    with pytest.raises(StorageError, match="no store's identity"):
        identity_of(content)


def test_an_identity_is_read_as_it_was_written() -> None:
    """Any name of a store may stand beside its identity."""
    assert identity_of(identity_bytes(identity(5), 'raid "ü\n')) == identity(5)


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff{")


def _long(path: Path) -> None:
    path.write_bytes(b'{"store": "' + b" " * LIMIT_BYTES + b'"}')


def _deep(path: Path) -> None:
    path.write_bytes(b"[" * LIMIT_BYTES)


def _link(path: Path) -> None:
    (path.parent / "elsewhere").write_bytes(identity_bytes(identity(7), "raid"))
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize("make", [_garbage, _long, _deep, _link, Path.mkdir, os.mkfifo])
def test_a_damaged_identity_stops_the_store(store: PosixStore, make: Callable[[Path], None]) -> None:
    """Garbage, far too much, a link, a folder and a pipe in the identity file's place each stop every copy at once."""
    make(store.root / IDENTITY_NAME)
    store.identity = identity(7)
    for act in (store.mark, lambda: put(store), lambda: store.set_mark(identity(7))):
        with pytest.raises(StorageError) as caught:
            act()
        assert caught.value.remedy
        assert store.is_at_fault(caught.value)
    assert not (store.root / "krios").exists()


def test_the_path_is_walked_from_where_the_identity_was_read(
    store: PosixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is swapped just after its identity was looked at gets nothing."""
    store.set_mark(identity(7))
    store.identity = identity(7)
    require, away = RootKeeper._require_identity, tmp_path / "away"

    def require_and_swap(self: RootKeeper, held: HeldRoot) -> None:
        require(self, held)
        if not away.exists():
            store.root.rename(away)
            store.root.mkdir()

    monkeypatch.setattr(RootKeeper, "_require_identity", require_and_swap)
    with pytest.raises(StorageError, match="bears no identity"):
        put(store)
    assert list(store.root.iterdir()) == []
    assert [path for path in away.rglob("*") if path.is_file()] == [away / IDENTITY_NAME]


def test_an_identity_that_is_exchanged_under_a_copy_stops_it(store: PosixStore) -> None:
    """Also where the root stays the same folder, the copy is not published under another identity."""
    store.set_mark(identity(7))
    store.identity = identity(7)
    with store.receive(NAME, FileFacts(0, 0, 0o644)) as incoming:
        incoming.seal()
        (store.root / "new").write_bytes(identity_bytes(identity(8), "raid"))
        (store.root / "new").rename(store.root / IDENTITY_NAME)
        with pytest.raises(StorageError, match="another store"):
            incoming.publish(sha256_of(b""), RING)
    store.identity = None
    assert listed(store) == set()


@pytest.mark.parametrize("identity_too", [False, True])
def test_a_flush_vouches_for_no_names_in_what_was_the_store(
    store: PosixStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity_too: bool
) -> None:
    """Copies of a batch that got their names after another disk took the root's place are not called durable, even if
    it bears the same identity; when they are let go, the store goes on."""
    monkeypatch.setattr(keeper, "_SEEN_SECONDS", 60.0)
    store.set_mark(identity(7))
    store.identity = identity(7)
    with store.receive(NAME, FileFacts(0, 0, 0o644)) as incoming:
        incoming.seal(durable=False)
        store.flush()
        store.root.rename(tmp_path / "away")
        store.root.mkdir()
        if identity_too:
            (store.root / IDENTITY_NAME).write_bytes(identity_bytes(identity(7), "raid"))
        incoming.publish(sha256_of(b""), RING, durable=False)
        with pytest.raises(StorageError, match="mounted again" if identity_too else "bears no identity"):
            store.flush()
    if identity_too:
        store.flush()
        assert listed(store) == set()


def test_a_flush_that_hangs_hides_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a flush is under way, and when it fails, the names before it are as unsure as those that come meanwhile."""
    held = HeldRoot(str(tmp_path))
    held.named_in(())
    seen: list[bool] = []

    def look(_: int) -> None:
        seen.append(held.has_new_names)
        held.named_in(())

    monkeypatch.setattr(posix_root, "SYNCED_WHOLE", {held.type})
    monkeypatch.setattr(posix_root, "sync_file_system", look)
    held.flush()
    assert seen == [True]
    assert held.has_new_names  # the one that came meanwhile
    monkeypatch.setattr(posix_root, "sync_file_system", lambda _: None)
    held.flush()
    assert not held.has_new_names
    held.close()


def test_a_drive_can_be_unmounted_when_nothing_is_in_hand(store: PosixStore) -> None:
    """After every operation, nothing below the root is held open; while a copy is on its way, the root is."""
    store.set_mark(identity(7))
    store.identity = identity(7)
    put(store)
    store.confirm(NAME, sha256_of(b"content"), 7, RING)
    store.move(NAME, "krios/moved")
    store.flush()
    store.space()
    with pytest.raises(StorageError):
        put(store, name="krios/moved/below-a-file")
    assert open_below(store.root) == []
    with store.receive(NAME, FileFacts(0, 0, 0o644)):
        assert open_below(store.root)
    listing = store.walk()
    next(listing)
    assert open_below(store.root)
    del listing
    store.remove("krios/moved")
    assert open_below(store.root) == []


def _no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(system_calls, "_rename_no_replace", refuse)


def _no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    _no_exchange(monkeypatch)
    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("take_away", [_no_exchange, _no_links])
def test_nothing_is_overwritten_where_the_file_system_helps_less(
    store: PosixStore, monkeypatch: pytest.MonkeyPatch, take_away: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Without a call that renames to free names only, and without links, copies are named, kept aside and moved."""
    take_away(monkeypatch)
    put(store, b"first")
    put(store, b"second")
    aside = f"{NAME}.replaced-{sha256_of(b'first')[:8]}"
    assert listed(store) == {NAME, aside}
    with pytest.raises(StorageError):
        store.move(NAME, aside)
    store.move(NAME, "elsewhere/movie.tiff")
    assert listed(store) == {"elsewhere/movie.tiff", aside}
    assert (store.root / "elsewhere/movie.tiff").read_bytes() == b"second"
    assert (store.root / aside).read_bytes() == b"first"


def test_a_move_that_was_killed_half_way_is_finished(store: PosixStore) -> None:
    """Two names of one file are what a kill leaves: moving again removes the first."""
    put(store)
    (store.root / "elsewhere").mkdir()
    os.link(store.root / NAME, store.root / "elsewhere/movie.tiff")
    store.move(NAME, "elsewhere/movie.tiff")
    assert listed(store) == {"elsewhere/movie.tiff"}
    with pytest.raises(StorageError):
        store.move("elsewhere/movie.tiff", "elsewhere/movie.tiff")
    assert listed(store) == {"elsewhere/movie.tiff"}


@pytest.mark.root
@pytest.mark.parametrize("kind", ["exfat", "ntfs"])
def test_names_that_differ_in_case_are_told_apart(make_drive: MakeDrive, kind: str) -> None:  # noqa: F811
    """Two files of the source stay two, whether one stands there already or both are on their way."""
    store = PosixStore("usb", make_drive(kind).folder)
    one = put(store, b"one", "krios/Movie.tif")
    two = put(store, b"two", "krios/movie.tif")
    with ExitStack() as stack:
        pair = []
        for content, name in ((b"three", "krios/A.tif"), (b"four", "KRIOS/a.tif")):
            incoming = stack.enter_context(store.receive(name, FileFacts(len(content), 0, 0o644)))
            incoming.write(memoryview(content))
            incoming.seal()
            pair.append((incoming, sha256_of(content)))
        for incoming, sha256 in pair:
            incoming.publish(sha256, RING)
    three, four = (incoming.stored_as for incoming, _ in pair)
    assert (one, three) == ("krios/Movie.tif", "krios/A.tif")
    assert two.startswith("krios/movie%~")
    assert four.startswith("krios/a%~")
    assert listed(store) == {one, two, three, four}
    assert [(store.root / name).read_bytes() for name in (one, two, three, four)] == [b"one", b"two", b"three", b"four"]
    assert store.size_of("krios/movie.tif") is None
    assert store.size_of(two) == 3
    # Again, and other content: each keeps its name.
    assert put(store, b"TWO", "krios/movie.tif") == two
    assert put(store, b"one", "krios/Movie.tif") == one


@pytest.mark.root
def test_another_file_system_in_the_same_place_has_its_own_names(make_drive: MakeDrive) -> None:  # noqa: F811
    """The rules of names are asked again when something else is mounted."""
    drive = make_drive("exfat")
    store = PosixStore("usb", drive.folder)
    assert store.stored_name("a:b") == "a%3Ab"
    drive.unmount()
    assert store.stored_name("a:b") == "a:b"
    drive.mount()
    assert store.stored_name("a:b") == "a%3Ab"


@pytest.mark.parametrize("name", [".COLDCHAIN-STORE", ".Coldchain-Trash/a", TRASH_FOLDER])
def test_the_stores_own_names_are_kept_in_any_case(store: PosixStore, name: str) -> None:
    """A drive that knows no case would open the store's own under them."""
    with pytest.raises(StorageError):
        put(store, name=name)


def begun(store: PosixStore, stack: ExitStack, name: str = NAME):
    """A copy that was written and left to the flush."""
    incoming = stack.enter_context(store.receive(name, FileFacts(7, 0, 0o644)))
    incoming.write(memoryview(b"content"))
    incoming.seal(durable=False)
    return incoming


def test_what_was_lost_in_a_flush_concerns_all_that_is_in_hand(
    store: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells once that data was lost, and not whose: every flush and every publishing fails until all who had
    something in hand have let go; then the store goes on."""
    with ExitStack() as stack:
        incoming = begun(store, stack)
        with monkeypatch.context() as patch:
            patch.setattr(posix_root, "SYNCED_WHOLE", frozenset({"ext4", "tmpfs", "overlay", "xfs", "btrfs"}))

            def lose(descriptor: int) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            patch.setattr(posix_root, "sync_file_system", lose)
            with pytest.raises(StorageError, match="Input/output error") as caught:
                store.flush()
            assert store.is_at_fault(caught.value)
        with pytest.raises(StorageError):
            store.flush()
        with pytest.raises(StorageError, match="on its way"):
            incoming.publish(sha256_of(b"content"), RING)
    store.flush()
    assert listed(store) == set()
    put(store)
    assert open_below(store.root) == []


def test_where_a_flush_reaches_no_medium_each_file_is_synced(
    store: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On file systems whose whole cannot be made durable, files are at once, and the folders of their names once."""
    monkeypatch.setattr(posix_root, "SYNCED_WHOLE", frozenset())
    monkeypatch.setattr(posix_root, "sync_file_system", None)
    put(store, name="krios/visit/first")  # the folders are durable
    synced, fsync = [], os.fsync

    def counted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    with ExitStack() as stack:
        copies = [begun(store, stack, f"krios/visit/{n}") for n in range(5)]
        assert len(synced) == 5
        assert all(name.endswith(".part") for name in synced)
        store.flush()
        for copy in copies:
            copy.prove(sha256_of(b"content"), RING)
            copy.publish(sha256_of(b"content"), RING, durable=False)
        assert len(synced) == 5
        store.flush()
    assert synced[5:] == ["visit"]


@pytest.mark.root
def test_a_device_that_cannot_write_is_told_by_the_flush(failing_medium: Medium) -> None:
    """Copies that fit in memory and not on the failing device: the flush says so, and none is published."""
    store = PosixStore("bad", failing_medium.folder)
    content = os.urandom(512 << 10)
    with ExitStack() as stack:
        for n in range(40):
            incoming = stack.enter_context(store.receive(f"krios/{n}", FileFacts(len(content), 0, 0o644)))
            incoming.write(memoryview(content))
            incoming.seal(durable=False)
        with pytest.raises(StorageError) as caught:
            store.flush()
        assert store.is_at_fault(caught.value)
        with pytest.raises(StorageError):
            store.flush()


@pytest.mark.root
@pytest.mark.parametrize("direct", [True, False], ids=["O_DIRECT", "DONTNEED"])
@pytest.mark.parametrize("at", [0, 8192])
def test_a_bit_that_flips_after_the_flush_is_caught(
    medium: Medium, refuse_direct: Callable[[], None], at: int, direct: bool
) -> None:
    """Small copies, too, are read from the medium and not from the memory that still holds them whole."""
    if not direct:
        refuse_direct()
    store = PosixStore("disk", medium.folder)
    contents = [os.urandom(10_000) for _ in range(3)]
    with ExitStack() as stack:
        copies = []
        for n, content in enumerate(contents):
            incoming = stack.enter_context(store.receive(f"krios/{n}", FileFacts(len(content), 0, 0o644)))
            incoming.write(memoryview(content))
            incoming.seal(durable=False)
            copies.append(incoming)
        store.flush()
        medium.flip(contents[1][at : at + 1800])
        for n in (0, 2):
            found = copies[n].prove(sha256_of(contents[n]), RING)
            assert found.level is (VerificationLevel.MEDIUM if direct else VerificationLevel.CACHE)
        with pytest.raises(VerificationError):
            copies[1].prove(sha256_of(contents[1]), RING)


def test_only_copies_are_listed(store: PosixStore, tmp_path: Path) -> None:
    """Links, pipes, what is on its way, the store's own and the file system's own are not; hidden files are."""
    put(store)
    store.set_mark(identity(7))
    for name in ("lost+found", "System Volume Information", f"{TRASH_FOLDER}/1", "krios/lost+found"):
        (store.root / name).mkdir(parents=True)
        (store.root / name / "file").write_bytes(b"x")
    (store.root / "krios/link").symlink_to(store.root / NAME)
    (store.root / "way-out").symlink_to(tmp_path)
    os.mkfifo(store.root / "krios/pipe")
    (store.root / "krios" / f".left.{'0' * 32}.part").write_bytes(b"x")
    (store.root / "krios/.hidden").write_bytes(b"x")
    assert listed(store) == {NAME, "krios/.hidden", "krios/lost+found/file"}


def test_listing_needs_little_memory(store: PosixStore) -> None:
    """However many files there are in a folder, only a few are in memory."""
    (store.root / "krios").mkdir()
    for n in range(2000):
        (store.root / "krios" / f"{n:0100}").touch()
    tracemalloc.start()
    count = sum(1 for _ in store.walk())
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2000
    assert peak_bytes < 100_000


def test_a_tree_without_a_bottom_is_refused(store: PosixStore) -> None:
    """Folders in folders without end give one stated error, not a crash."""
    folder = os.open(store.root, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    with pytest.raises(StorageError, match="256 deep"):
        list(store.walk())
    assert open_below(store.root) == []


def test_folders_that_are_left_empty_go(store: PosixStore) -> None:
    """Removing and moving away the last file removes its folders up to the first that is not empty, never the root."""
    put(store, name="krios/visit/Data/a/b/1")
    put(store, name="krios/visit/2")
    store.remove("krios/visit/Data/a/b/1")
    assert [path.name for path in (store.root / "krios/visit").iterdir()] == ["2"]
    store.move("krios/visit/2", f"{TRASH_FOLDER}/1/2")
    assert [path.name for path in store.root.iterdir()] == [TRASH_FOLDER]
    store.remove(f"{TRASH_FOLDER}/1/2")
    assert list(store.root.iterdir()) == []


def test_a_folder_that_goes_while_a_copy_begins_is_made_again(
    store: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last file of a folder may be removed between opening the folder for a new copy and beginning that."""
    put(store, name="krios/visit/old")
    take, done = HeldRoot.take, []

    def take_and_lose(self: HeldRoot, parts: tuple[str, ...], *, make: bool = False):
        folder = take(self, parts, make=make)
        if make and not done:
            done.append(parts)
            assert store.remove("krios/visit/old")
            assert not (store.root / "krios").exists()
        return folder

    monkeypatch.setattr(HeldRoot, "take", take_and_lose)
    put(store, name="krios/visit/new")
    assert listed(store) == {"krios/visit/new"}


def test_a_thousand_copies_on_their_way_hold_few_descriptors(store: PosixStore) -> None:
    """Copies that were written wait for their flush without holding files or folders open, in however many folders."""
    with ExitStack() as stack:
        copies = [begun(store, stack, f"krios/{n}/{n}") for n in range(300)]
        assert len(open_below(store.root)) < 100
        store.flush()
        for copy in copies:
            copy.prove(sha256_of(b"content"), RING)
            copy.publish(sha256_of(b"content"), RING, durable=False)
        store.flush()
    assert len(listed(store)) == 300
    assert open_below(store.root) == []


def test_a_folder_that_was_moved_away_is_not_written_to_for_long(
    store: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of an open folder is believed for a second; then its path is walked again."""
    put(store, name="krios/visit/1")
    with store.receive("krios/visit/2", FileFacts(0, 0, 0o644)) as incoming:
        incoming.seal()
        (store.root / "krios/visit").rename(store.root / "krios/elsewhere")
        monkeypatch.setattr(posix_root, "_FRESH_SECONDS", -1.0)
        with pytest.raises(StorageError):
            incoming.publish(sha256_of(b""), RING)
    assert listed(store) == {"krios/elsewhere/1"}
