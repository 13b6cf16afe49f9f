"""A store on another host: a real sshd on loopback, real kills, real file systems."""

from __future__ import annotations

import ast
import gc
import hashlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from uuid import uuid4

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as some

from coldchain.errors import ConfigError, SourceChangedError, StorageError, StoreFullError, VerificationError
from coldchain.model.files import ReplicaState, VerificationLevel
from coldchain.storage.copies.copying import copy_verified
from coldchain.storage.posix import names as posix_names
from coldchain.storage.ring import Ring
from coldchain.storage.ssh import remote_helper
from coldchain.storage.ssh import store as ssh
from coldchain.storage.ssh.settings import SshSettings, parse_ssh_url
from coldchain.storage.ssh.store import SshIncoming, SshStore
from coldchain.storage.store import IDENTITY_NAME, TRASH_FOLDER, FileFacts, Store
from tests.storage.drives import make_drive  # noqa: F401  # a fixture
from tests.storage.ssh_servers import SshServer, patient_for, ssh_server  # noqa: F401  # a fixture

BLOCK = remote_helper.BLOCK_BYTES
RING = Ring()
TIME_NS = 1_700_000_000_123_456_789
NAME = "krios/session/movie.tiff"
SMALL = b"a small file"

MakeStore = Callable[..., SshStore]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The store's root, which is on this host, too."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def make_store(ssh_server: SshServer, root: Path) -> Iterator[MakeStore]:  # noqa: F811
    """Make a store on the server; all are closed, and leave neither child nor zombie."""
    with ExitStack() as stack:

        def make(folder: Path = root, settings: SshSettings = ssh_server.settings) -> SshStore:
            return stack.enter_context(SshStore("far", PurePosixPath(folder), settings))

        yield make
    assert [child for child in psutil.Process().children() if child.name() == "ssh"] == []


@pytest.fixture
def store(make_store: MakeStore) -> SshStore:
    """A store on the server."""
    return make_store()


def _facts(content: bytes, mode: int = 0o640) -> FileFacts:
    return FileFacts(len(content), TIME_NS, mode)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _put(store: Store, relative: str, content: bytes, mode: int = 0o640) -> VerificationLevel:
    with store.receive(relative, _facts(content, mode)) as incoming:
        incoming.write(memoryview(content)[incoming.skip_bytes :])
        incoming.seal()
        found = incoming.prove(_digest(content), RING)
        incoming.publish(_digest(content), RING)
    assert (found.sha256, found.size_bytes) == (_digest(content), len(content))
    return found.level


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*.part") if path.is_file()]


def _bytes_of(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


def _wait_until(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


@contextmanager
def cut_in_the_middle(store: SshStore, root: Path, content: bytes, cut: Callable[[], object]) -> Iterator[StorageError]:
    """Write two thirds of a copy, cut the link, and give the error of the rest."""
    with pytest.raises(StorageError) as caught, store.receive(NAME, _facts(content)) as incoming:
        _send_two_thirds(incoming, root, content)
        cut()
        while True:
            incoming.write(memoryview(content)[-BLOCK:])
    yield caught.value


def _send_two_thirds(incoming: SshIncoming, root: Path, content: bytes) -> None:
    sent = len(content) * 2 // 3
    incoming.write(memoryview(content)[:sent])
    _wait_until(lambda: sum(path.stat().st_size for path in _parts(root)) == sent)


HOSTILE_NAMES = [
    "krios/session/movie.tiff",
    os.fsdecode(b"krios/\xff\xfe bad bytes"),
    "krios/new\nline 'quote' \"double\" $(touch x) `y` !z",
    "-krios/-rf",
    "krios/Grüße, 日本",
    "k/" + "é" * 127,
]


def test_a_copy_keeps_name_mode_time_and_content(store: SshStore, root: Path) -> None:
    """Whatever bytes a name has, its file comes back with the same content, mode and time, and is listed by it."""
    buffer = memoryview(bytearray(200_000))
    for number, name in enumerate(HOSTILE_NAMES):
        content = _bytes_of(number, 100_001 + number)
        _put(store, name, content, 0o604)
        found = root / name
        assert found.read_bytes() == content
        assert found.stat().st_mode & 0o777 == 0o604
        assert found.stat().st_mtime_ns == TIME_NS
        assert store.size_of(name) == len(content)
        with store.reading(name) as reading:
            assert reading.facts.modified_ns == TIME_NS
            assert reading.facts.mode & 0o777 == 0o604
            assert reading.fill(buffer) == len(content)
            assert buffer[: len(content)] == content
            assert reading.fill(buffer) == 0
    assert _names(root) == set(HOSTILE_NAMES) == {file.stored_as for file in store.walk()}
    assert store.size_of("k/none") is None


def test_a_copy_of_any_size_is_whole(store: SshStore, root: Path) -> None:
    """Sizes about the borders of a block come over, are proved and are read back the same."""
    for size_bytes in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 4097):
        content, name = _bytes_of(size_bytes, size_bytes), f"krios/{size_bytes}"
        _put(store, name, content)
        assert (root / name).read_bytes() == content
        assert store.read_back(name, RING).sha256 == _digest(content)
        assert store.confirm(name, _digest(content), size_bytes, RING).size_bytes == size_bytes
        read = bytearray()
        view = memoryview(bytearray(BLOCK))
        with store.reading(name) as reading:
            while length := reading.fill(view):
                read += view[:length]
        assert read == content


def test_other_content_is_kept_aside_and_the_same_is_not(store: SshStore, root: Path) -> None:
    """What stands under a copy's name and is something else gets another name, and the copy says which."""
    _put(store, NAME, b"first")
    with store.receive(NAME, _facts(SMALL)) as incoming:
        incoming.write(memoryview(SMALL))
        incoming.seal()
        incoming.prove(_digest(SMALL), RING)
        incoming.publish(_digest(SMALL), RING)
        kept = incoming.kept
    assert kept is not None
    assert kept.path == f"{NAME}.replaced-{_digest(b'first')[:8]}"
    assert kept.sha256 == _digest(b"first")
    assert (root / kept.path).read_bytes() == b"first"
    _put(store, NAME, SMALL)
    assert _names(root) == {NAME, kept.path}


def test_the_level_says_what_the_far_file_system_can_prove(make_store: MakeStore, medium, make_tmpfs) -> None:
    """On a disk there a copy is proved on its medium; on tmpfs it is not."""
    assert _put(make_store(medium.folder), NAME, SMALL) is VerificationLevel.MEDIUM
    memory = make_tmpfs("memory", size_bytes=16 << 20)
    assert _put(make_store(memory), NAME, SMALL) is VerificationLevel.CACHE


def test_a_bit_that_flips_on_the_far_medium_is_found(make_store: MakeStore, medium) -> None:
    """A stored file whose medium lost a bit is read back otherwise, though that host's page cache has it right."""
    store = make_store(medium.folder)
    content = _bytes_of(2, 3 * BLOCK)
    _put(store, NAME, content)
    assert (medium.folder / NAME).read_bytes() == content
    medium.flip(content[BLOCK + 4096 : BLOCK + 8192])
    assert (medium.folder / NAME).read_bytes() == content, "the page cache should not have noticed"
    assert store.read_back(NAME, RING).sha256 != _digest(content)
    with pytest.raises(VerificationError):
        store.confirm(NAME, _digest(content), len(content), RING)


def test_a_bit_that_flips_before_the_proof_is_found(make_store: MakeStore, medium) -> None:
    """A copy that rots between its seal and its proof is not verified, gets no name, and leaves nothing behind."""
    store = make_store(medium.folder)
    content = _bytes_of(3, 2 * BLOCK)
    with pytest.raises(VerificationError), store.receive(NAME, _facts(content)) as incoming:
        incoming.write(memoryview(content))
        incoming.seal()
        medium.flip(content[:4096])
        incoming.prove(_digest(content), RING)
    assert _names(medium.folder) == set()


@pytest.mark.parametrize("who", ["the child", "the helper"])
def test_a_copy_that_was_cut_goes_on_where_it_was(
    store: SshStore,
    ssh_server: SshServer,  # noqa: F811
    root: Path,
    who: str,
) -> None:
    """After a kill of either end the error is the whole store's; the next try sends only what is missing."""
    content = _bytes_of(4, 6 * BLOCK + 1000)

    def kill() -> None:
        if who == "the child":
            os.kill(store.pool().channels[0].process_id, signal.SIGKILL)
        else:
            (helper,) = ssh_server.helpers()
            helper.kill()

    with cut_in_the_middle(store, root, content, kill) as error:
        assert store.is_at_fault(error)
        assert error.remedy
    assert list(store.walk()) == []
    with store.receive(NAME, _facts(content)) as incoming:
        assert incoming.skip_bytes == 4 * BLOCK
        incoming.write(memoryview(content)[incoming.skip_bytes :])
        incoming.seal()
        incoming.prove(_digest(content), RING)
        incoming.publish(_digest(content), RING)
    assert (root / NAME).read_bytes() == content
    assert _names(root) == {NAME}


def test_the_copier_goes_on_with_a_copy_that_was_cut(store: SshStore, root: Path, tmp_path: Path) -> None:
    """A whole verified copy sends the blocks that are missing, and hashes all of the source."""
    content = _bytes_of(14, 6 * BLOCK + 1000)
    source = tmp_path / "movie.tiff"
    source.write_bytes(content)
    os.utime(source, ns=(TIME_NS, TIME_NS))
    with cut_in_the_middle(store, root, content, store.close):
        pass
    (part,) = _parts(root)
    inode = part.stat().st_ino
    (outcome,) = copy_verified(tmp_path, source.name, NAME, [store]).outcomes
    assert outcome.state is ReplicaState.VERIFIED
    assert outcome.sha256 == _digest(content)
    assert (root / NAME).read_bytes() == content
    assert (root / NAME).stat().st_ino == inode


def test_a_copy_is_gone_on_with_by_another_process_too(make_store: MakeStore, root: Path) -> None:
    """The part's name is made of path, size and time: a store made anew finds it, and no other version does."""
    content = _bytes_of(5, 3 * BLOCK)
    first = make_store()
    with first.receive(NAME, _facts(content)) as incoming:
        _send_two_thirds(incoming, root, content)
    first.close()
    second = make_store()
    with second.receive(NAME, replace(_facts(content), modified_ns=TIME_NS + 1)) as incoming:
        assert incoming.skip_bytes == 0
    with second.receive(NAME, _facts(content)) as incoming:
        assert incoming.skip_bytes == 2 * BLOCK
    _put(second, NAME, content, 0o400)
    assert (root / NAME).read_bytes() == content


def test_a_read_only_part_that_was_sealed_is_gone_on_with(make_store: MakeStore, root: Path) -> None:
    """A copy that was cut after its seal is all there, whatever its mode."""
    content = _bytes_of(6, 2 * BLOCK)
    store = make_store()
    with store.receive(NAME, _facts(content, 0o400)) as incoming:
        incoming.write(memoryview(content))
        incoming.seal()
    with store.receive(NAME, _facts(content, 0o400)) as incoming:
        assert incoming.skip_bytes == len(content)
        incoming.seal()
        incoming.prove(_digest(content), RING)
        incoming.publish(_digest(content), RING)
    assert (root / NAME).stat().st_mode & 0o777 == 0o400


def test_a_part_that_is_not_what_was_sent_is_found_and_dropped(store: SshStore, root: Path) -> None:
    """Garbage in what an earlier try left fails the proof; the error says so, and the next try begins anew."""
    content = _bytes_of(7, 3 * BLOCK)
    with store.receive(NAME, _facts(content)) as incoming:
        _send_two_thirds(incoming, root, content)
    (part,) = _parts(root)
    with part.open("r+b") as file:
        file.seek(BLOCK)
        file.write(bytes(4096))
    with pytest.raises(VerificationError, match="from its beginning"):
        _put(store, NAME, content)
    assert _names(root) == set()
    _put(store, NAME, content)
    assert (root / NAME).read_bytes() == content


@pytest.mark.parametrize("error", [None, SourceChangedError("changed")])
def test_leaving_without_publishing_leaves_nothing_that_is_of_no_use(
    store: SshStore, root: Path, error: Exception | None
) -> None:
    """What is less than a block goes, and so does what is of a version that is no more."""
    content = _bytes_of(8, 2 * BLOCK) if error else SMALL
    try:
        with store.receive(NAME, _facts(content)) as incoming:
            incoming.write(memoryview(content))
            incoming.seal()
            if error:
                raise error
    except SourceChangedError:
        pass
    assert _names(root) == set()


def test_a_link_that_falls_silent_is_given_up_and_what_hangs_there_does_no_harm(
    make_store: MakeStore,
    ssh_server: SshServer,  # noqa: F811
    root: Path,
) -> None:
    """A stopped helper is a black hole: the call ends with an error, the next one has a new connection, and the old
    helper, when it wakes, cannot touch the copy that was made meanwhile."""
    store = make_store(settings=patient_for(ssh_server.settings, 1.0))
    content = _bytes_of(9, 3 * BLOCK)
    stopped: list[psutil.Process] = []

    def stop() -> None:
        stopped.extend(ssh_server.helpers())
        stopped[0].suspend()

    with cut_in_the_middle(store, root, content, stop) as error:
        assert "has not answered for 1 s" in str(error)
        assert store.is_at_fault(error)
    assert store.size_of(NAME) is None
    _put(store, NAME, content)
    stopped[0].resume()
    _wait_until(lambda: not stopped[0].is_running())
    assert (root / NAME).read_bytes() == content
    assert store.read_back(NAME, RING).sha256 == _digest(content)


def test_every_waiting_call_ends_when_the_link_falls_silent(make_store: MakeStore, ssh_server: SshServer) -> None:  # noqa: F811
    """Several threads that wait on one dead channel all get the store's error."""
    store = make_store(settings=replace(patient_for(ssh_server.settings, 1.0), channels=1))
    assert store.mark() is None
    (helper,) = ssh_server.helpers()
    helper.suspend()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(store.space) for _ in range(4)]
        errors = [call.exception() for call in waiting]
    helper.kill()
    assert any(isinstance(error, StorageError) for error in errors)
    assert all(error is None or (isinstance(error, StorageError) and store.is_at_fault(error)) for error in errors)
    assert store.mark() is None


def test_a_connection_that_ended_while_idle_is_not_noticed(store: SshStore, ssh_server: SshServer) -> None:  # noqa: F811
    """A server that was started anew between two calls costs a new connection and no error."""
    _put(store, NAME, SMALL)
    child = store.pool().channels[0].process_id
    ssh_server.stop()
    ssh_server.start()
    _wait_until(lambda: not psutil.pid_exists(child))
    assert store.size_of(NAME) == len(SMALL)


def test_a_store_without_room_says_so_and_leaves_nothing(make_store: MakeStore, make_tmpfs) -> None:
    """Too large for what is left, or filled up meanwhile: StoreFullError, with the free bytes, and nothing behind."""
    small = make_tmpfs("small", size_bytes=2 * BLOCK)
    store = make_store(small)
    with (
        pytest.raises(StoreFullError, match=f"{2 * BLOCK:,} bytes and"),
        store.receive(NAME, FileFacts(9 * BLOCK, 0, 0)),
    ):
        pass
    content = _bytes_of(10, BLOCK + BLOCK // 2)
    with pytest.raises(StoreFullError) as caught, store.receive(NAME, _facts(content)) as incoming:
        (small / "filler").write_bytes(bytes(BLOCK))
        incoming.write(memoryview(content))
        incoming.seal()
    assert store.is_at_fault(caught.value)
    assert _names(small) == {"filler"}
    (small / "filler").unlink()
    _put(store, NAME, content)
    space = store.space()
    assert space.total_bytes == 2 * BLOCK
    assert space.free_bytes <= BLOCK // 2


def test_a_store_without_inodes_is_full(make_store: MakeStore, make_tmpfs) -> None:
    """No inode left: StoreFullError that says so, also where the beginning of a small copy is not waited for."""
    store = make_store(make_tmpfs("few", size_bytes=1 << 20, inodes=6))
    with pytest.raises(StoreFullError, match=" 0 inodes are free"):
        for n in range(6):
            _put(store, f"krios/{n}", SMALL)
    with pytest.raises(StoreFullError), store.receive("krios/more", _facts(SMALL)):
        pass


def test_a_store_that_is_another_is_never_touched(make_store: MakeStore, root: Path) -> None:
    """With an identity, every method refuses an empty folder, or another disk, in the store's place."""
    store = make_store()
    mine = uuid4()
    assert store.mark() is None
    store.set_mark(mine)
    assert store.mark() == mine
    store.set_mark(mine)
    store.identity = mine
    _put(store, NAME, SMALL)
    with pytest.raises(StorageError, match="another store"):
        store.set_mark(uuid4())
    (root / IDENTITY_NAME).rename(root.parent / "aside")
    asking: list[Callable[[], object]] = [
        store.space,
        lambda: store.size_of(NAME),
        lambda: _put(store, "krios/new", SMALL),
        lambda: _put(store, "krios/large", bytes(2 * BLOCK)),
        lambda: store.read_back(NAME, RING),
        lambda: store.confirm(NAME, _digest(SMALL), len(SMALL), RING),
        lambda: store.move(NAME, f"{TRASH_FOLDER}/x"),
        lambda: store.remove(NAME),
        lambda: list(store.walk()),
        store.remove_partials,
        lambda: store.reading(NAME).__enter__(),
    ]
    for mark in (None, uuid4()):
        if mark is not None:
            make_store().set_mark(mark)
        for ask in asking:
            with pytest.raises(StorageError, match="bears no identity" if mark is None else str(mark)) as caught:
                ask()
            assert store.is_at_fault(caught.value)
    assert _names(root) == {NAME, IDENTITY_NAME}


def test_an_identity_file_that_is_none_is_an_error(store: SshStore, root: Path) -> None:
    """What cannot be read as an identity is not taken for a store without one."""
    (root / IDENTITY_NAME).write_text("[]")
    with pytest.raises(StorageError, match="not readable"):
        store.mark()
    with pytest.raises(StorageError, match="not readable"):
        store.set_mark(uuid4())


def test_a_root_that_is_missing_is_never_made(make_store: MakeStore, tmp_path: Path) -> None:
    """Without its root the whole store is at fault, with what to do; nothing is made in its place."""
    missing = tmp_path / "mount"
    store = make_store(missing)
    for ask in (lambda: _put(store, NAME, SMALL), store.space, lambda: store.size_of(NAME), store.mark):
        with pytest.raises(StorageError, match="root of store") as caught:
            ask()
        assert store.is_at_fault(caught.value)
        assert "Mount the disk" in caught.value.remedy
    assert not missing.exists()


def test_a_read_only_root_is_the_whole_stores_fault(make_store: MakeStore, make_tmpfs) -> None:
    """A file system that is mounted read-only refuses all copies, and says why."""
    folder = make_tmpfs("frozen", size_bytes=1 << 20)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    store = make_store(folder)
    with pytest.raises(StorageError, match=r"[Rr]ead-only") as caught:
        _put(store, NAME, SMALL)
    assert store.is_at_fault(caught.value)


def test_what_is_in_the_way_of_one_name_is_not_the_stores_fault(store: SshStore, root: Path) -> None:
    """A link, a file or a folder in a copy's way is refused, and other names go on."""
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").write_bytes(b"")
    (root / "krios" / "folder").mkdir(parents=True)
    (root / "krios" / "leaf").symlink_to(outside / "target")
    for name in ("link/inside", "file/inside", "krios/folder", "krios/leaf"):
        with pytest.raises(StorageError) as caught:
            _put(store, name, SMALL)
        assert not store.is_at_fault(caught.value), name
        assert caught.value.remedy
    assert list(outside.iterdir()) == []
    _put(store, NAME, SMALL)
    assert {found.stored_as for found in store.walk()} == {NAME, "file"}


def test_a_name_that_leads_out_or_is_the_stores_own_is_refused(store: SshStore) -> None:
    """Nothing of a name reaches the host unless it can only be a copy's."""
    leading_out = ["../out", "/etc/passwd", "a/../../b", "", "nul\0", "\ud800"]
    for name in (*leading_out, f"a/.b.{'0' * 32}.part", IDENTITY_NAME, f"{TRASH_FOLDER}/x"):
        with pytest.raises(StorageError):
            _put(store, name, SMALL)
    for name in leading_out:
        for ask in (store.size_of, store.remove, lambda name: store.move(NAME, name)):
            with pytest.raises(StorageError):
                ask(name)
    assert store.pool().channels == ()


def test_the_helper_itself_refuses_names_that_lead_out(store: SshStore) -> None:
    """The far side trusts no path that it is sent."""
    with pytest.raises(StorageError, match="leads out"), store.stating("asking"), store.pool().lease() as channel:
        channel.call("size", store=None, name="a/../../etc/passwd")


def test_a_stored_file_is_moved_and_removed_but_never_over_another(store: SshStore, root: Path) -> None:
    """Into the trash and back; a name that is taken stays what it is; trash and mark are not listed."""
    _put(store, NAME, SMALL)
    _put(store, "krios/other", b"other")
    store.set_mark(uuid4())
    with pytest.raises(StorageError, match="exists"):
        store.move(NAME, "krios/other")
    store.move(NAME, f"{TRASH_FOLDER}/1/{NAME}")
    assert store.size_of(NAME) is None
    assert store.size_of(f"{TRASH_FOLDER}/1/{NAME}") == len(SMALL)
    assert [found.stored_as for found in store.walk()] == ["krios/other"]
    with pytest.raises(StorageError):
        store.move("krios/none", "krios/more")
    store.move(f"{TRASH_FOLDER}/1/{NAME}", NAME)
    assert store.remove(NAME) is True
    assert store.remove(NAME) is False
    assert store.remove("none/at/all") is False
    assert (root / "krios/other").read_bytes() == b"other"


def test_a_listing_of_many_files_is_whole(store: SshStore, root: Path) -> None:
    """Listings that take several answers have every file once, also while other calls come between."""
    expected = set()
    for n in range(2 * remote_helper.PAGE_ENTRIES + 10):
        folder = root / "deep" / str(n % 7)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(n)).touch()
        expected.add(f"deep/{n % 7}/{n}")
    found = []
    for file in store.walk():
        found.append(file.stored_as)
        if len(found) % 1000 == 0:
            store.space()
    assert sorted(found) == sorted(expected)
    next(iter(store.walk()))  # one that is left in the middle


def test_a_folder_of_great_depth_is_listed(store: SshStore, root: Path) -> None:
    """Depth costs neither recursion nor descriptors: a path that is longer than the system's longest is walked."""
    folder = os.open(root, os.O_RDONLY)
    depth = 420
    for _ in range(depth):
        os.mkdir("abcdefghij", dir_fd=folder)
        inner = os.open("abcdefghij", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("leaf", os.O_CREAT, dir_fd=folder))
    os.close(folder)
    assert [len(PurePosixPath(found.stored_as).parts) for found in store.walk()] == [depth + 1]
    subprocess.run(["rm", "-rf", str(root / "abcdefghij")], check=True)


def test_leftovers_go_but_what_can_be_gone_on_with_stays_for_a_week(
    store: SshStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of less than a block go at once, larger ones when they are old, and none that is in hand."""
    content = _bytes_of(11, 2 * BLOCK)
    with store.receive(NAME, _facts(content)) as incoming:
        incoming.write(memoryview(content))
        incoming.seal()
    stranger = root / "krios" / "session" / f".x.{uuid4().hex}.part"
    stranger.write_bytes(b"little")
    (root / "krios" / ".hidden.part").write_bytes(b"a user's")
    assert store.remove_partials() == 1
    assert len(_parts(root / "krios" / "session")) == 1
    monkeypatch.setattr(ssh, "RESUMABLE_SECONDS", -1.0)
    with store.receive(NAME, _facts(content)) as incoming:
        assert store.remove_partials() == 0
        assert incoming.skip_bytes == len(content)
    assert store.remove_partials() == 1
    assert [found.stored_as for found in store.walk()] == ["krios/.hidden.part"]


def test_many_small_copies_are_made_durable_at_once(store: SshStore, root: Path) -> None:
    """A batch is sealed, flushed, proved, published and flushed on one connection, however many are in hand."""
    contents = {f"krios/{n % 3}/{n}": _bytes_of(n, 1000 + n) for n in range(200)}
    with ExitStack() as stack:
        in_hand = []
        for name, content in contents.items():
            incoming = stack.enter_context(store.receive(name, _facts(content)))
            incoming.write(memoryview(content))
            incoming.seal(durable=False)
            in_hand.append((incoming, content))
        store.flush()
        for incoming, content in in_hand:
            incoming.prove(_digest(content), RING)
            incoming.publish(_digest(content), RING, durable=False)
        store.flush()
    assert len(store.pool().channels) == 1
    assert {name: (root / name).read_bytes() for name in _names(root)} == contents


def test_one_bad_copy_of_a_batch_fails_alone(store: SshStore, root: Path) -> None:
    """What is not waited for fails with its own copy: the others of its batch are made."""
    (root / "krios").mkdir()
    (root / "krios" / "1").mkdir()
    failed = []
    with ExitStack() as stack:
        in_hand = []
        for n in ("0/x", "1", "2/x"):
            incoming = stack.enter_context(store.receive(f"krios/{n}", _facts(SMALL)))
            incoming.write(memoryview(SMALL))
            incoming.seal(durable=False)
            in_hand.append((n, incoming))
        store.flush()
        for n, incoming in in_hand:
            try:
                incoming.prove(_digest(SMALL), RING)
                incoming.publish(_digest(SMALL), RING, durable=False)
            except StorageError:
                failed.append(n)
        store.flush()
    assert failed == ["1"]
    assert _names(root) == {"krios/0/x", "krios/2/x"}


def test_a_folder_that_somebody_removed_holds_up_no_flush(store: SshStore, root: Path) -> None:
    """What is not there any more need not be made durable."""
    with store.receive("gone/file", _facts(SMALL)) as incoming:
        incoming.write(memoryview(SMALL))
        incoming.seal(durable=False)
        store.flush()
        incoming.prove(_digest(SMALL), RING)
        incoming.publish(_digest(SMALL), RING, durable=False)
    (root / "gone" / "file").unlink()
    (root / "gone").rmdir()
    store.flush()


def test_a_drive_for_windows_on_another_host_is_refused(make_store: MakeStore, make_drive) -> None:  # noqa: F811
    """A file system that takes two names for one is no place for copies by SSH; the error says where it belongs."""
    store = make_store(make_drive("exfat").folder)
    with pytest.raises(StorageError, match="cannot hold every name") as caught:
        _put(store, NAME, SMALL)
    assert store.is_at_fault(caught.value)
    assert "Attach that drive to this host" in caught.value.remedy


def test_the_helper_knows_the_names_that_are_not_copies() -> None:
    """What this side keeps for itself in a root, and on its way, the far side does, too."""
    own = [IDENTITY_NAME, TRASH_FOLDER, IDENTITY_NAME.upper(), *posix_names.OF_OTHERS]
    for name in (*own, "krios", ".coldchain-store2"):
        assert remote_helper.is_own(os.fsencode(name)) is posix_names.is_own(name)
    for name in ("x", ".x.part", posix_names.partial_name("x"), posix_names.partial_name("\n")):
        assert (remote_helper.PARTIAL.fullmatch(os.fsencode(name)) is not None) is posix_names.is_partial(name)


def test_a_host_that_starts_anew_before_a_flush_is_not_believed(store: SshStore) -> None:
    """What was published and not yet durable when the host went down is not called durable."""
    with store.receive(NAME, _facts(SMALL)) as incoming:
        incoming.write(memoryview(SMALL))
        incoming.seal(durable=False)
        store.flush()
        incoming.prove(_digest(SMALL), RING)
        incoming.publish(_digest(SMALL), RING, durable=False)
    store.pool()._boot = "an earlier start"
    store.close()
    for _ in range(2):  # whichever thread asks
        with pytest.raises(StorageError, match="started anew"):
            store.flush()


def test_several_threads_use_several_connections(store: SshStore, root: Path) -> None:
    """Copies, listings and readings at once, from more threads than there are channels, do not disturb each other."""
    contents = {f"krios/{n}": _bytes_of(n, (n % 4) * BLOCK // 2 + n) for n in range(12)}

    def work(name: str) -> None:
        _put(store, name, contents[name])
        assert store.confirm(name, _digest(contents[name]), len(contents[name]), RING)
        list(store.walk())

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, contents))
    assert {name: (root / name).read_bytes() for name in _names(root)} == contents
    assert 1 < len(store.pool().channels) <= store.settings.channels


def test_two_copies_of_one_file_at_once_do_not_share_a_part(store: SshStore, root: Path) -> None:
    """The part of a copy that is in hand is another's to touch for nobody."""
    content = _bytes_of(12, 2 * BLOCK)
    with store.receive(NAME, _facts(content)) as first:
        first.write(memoryview(content)[:BLOCK])
        _put(store, NAME, content)
        first.write(memoryview(content)[BLOCK:])
        first.seal()
        first.prove(_digest(content), RING)
        first.publish(_digest(content), RING)
    assert _names(root) == {NAME}
    assert (root / NAME).read_bytes() == content


def _fault_of(make_store: MakeStore, settings: SshSettings) -> StorageError:
    store = make_store(settings=settings)
    with pytest.raises(StorageError) as caught:
        store.mark()
    assert store.is_at_fault(caught.value)
    assert caught.value.remedy
    return caught.value


def test_a_host_whose_key_is_not_the_known_one_is_refused(make_store: MakeStore, ssh_server: SshServer) -> None:  # noqa: F811
    """A changed key, or none that is known: nothing is sent, and the error says what to ask and to do."""
    ssh_server.stop()
    ssh_server.change_host_key()
    ssh_server.start()
    error = _fault_of(make_store, ssh_server.settings)
    assert "the host's key is not the one that is known" in str(error)
    assert "ssh-keygen -R" in error.remedy
    (ssh_server.folder / "known_hosts").write_text("")
    assert "the host's key is not known" in str(_fault_of(make_store, ssh_server.settings))


def test_a_host_that_cannot_be_used_says_why(make_store: MakeStore, ssh_server: SshServer, tmp_path: Path) -> None:  # noqa: F811
    """No right to log in, no Python, nothing at the port, no such host: each with its own remedy."""
    settings = ssh_server.settings
    assert "authorized_keys" in _fault_of(make_store, replace(settings, user="nobody")).remedy
    error = _fault_of(make_store, replace(settings, python="python-that-is-not"))
    assert "there is no 'python-that-is-not'" in str(error)
    assert "Python 3.6" in error.remedy
    assert "name is not known" in str(_fault_of(make_store, replace(settings, host="no.such.host.invalid")))
    ssh_server.stop()
    assert "nothing answers" in str(_fault_of(make_store, settings))


def _script(path: Path, lines: str) -> str:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return str(path)


def test_a_talkative_log_in_is_passed_over(make_store: MakeStore, ssh_server: SshServer, tmp_path: Path) -> None:  # noqa: F811
    """What a shell's start-up files print before the helper speaks does no harm."""
    python = _script(tmp_path / "talks", f'echo "Welcome to the cluster"; exec {ssh_server.settings.python} "$@"')
    store = make_store(settings=replace(ssh_server.settings, python=python))
    _put(store, NAME, SMALL)


@pytest.mark.parametrize(
    "lines",
    [
        "yes",
        "exec sleep 100",
        "printf '\\000coldchain-helper 1\\n'; yes",
        "printf '\\000coldchain-helper 1\\n\\000\\000\\000\\002\\000\\000\\000\\000[]'; exec sleep 100",
        "exit 3",
    ],
)
def test_a_host_that_speaks_another_language_is_given_up(
    make_store: MakeStore,
    ssh_server: SshServer,  # noqa: F811
    tmp_path: Path,
    lines: str,
) -> None:
    """Endless output, silence, and frames that are none end in the store's error, and soon."""
    settings = replace(ssh_server.settings, python=_script(tmp_path / "other", lines), connect_seconds=1.0)
    _fault_of(make_store, replace(settings, silence_seconds=1.0))


def test_a_store_that_nobody_closes_leaves_no_process(ssh_server: SshServer, root: Path) -> None:  # noqa: F811
    """The end of a store's life is the end of its children."""
    store = SshStore("far", PurePosixPath(root), ssh_server.settings)
    store.mark()
    child = store.pool().channels[0].process_id
    del store
    gc.collect()
    _wait_until(lambda: not psutil.pid_exists(child))


def test_the_helper_is_python_3_6_of_the_standard_library() -> None:
    """Old log-in nodes can run it: its syntax is that of 3.6, and it imports nothing that is not Python's own."""
    source = Path(remote_helper.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 6))
    imported = {
        name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    } | {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert imported <= {
        *(
            "collections",
            "concurrent",
            "contextlib",
            "ctypes",
            "errno",
            "fcntl",
            "functools",
            "hashlib",
            "itertools",
            "json",
            "mmap",
        ),
        *("os", "pathlib", "queue", "re", "resource", "select", "stat", "struct", "sys", "threading", "time", "typing"),
        "uuid",
    }


def test_the_command_gives_ssh_nothing_to_take_for_an_option() -> None:
    """Host and command come last, after `--`; the remote words hold nothing that any shell would act on."""
    argv = SshSettings("gate", user="camera", port=2222, identity_file=Path("/k e%y")).argv(1234)
    assert argv[0] == "ssh"
    assert argv[-3:-1] == ["--", "gate"]
    assert not re.search(r"[!\n\\$`]", argv[-1])
    assert argv[argv.index("-p") + 1] == "2222"
    assert 'IdentityFile="/k e%%y"' in argv
    assert "BatchMode=yes" in argv


@given(
    some.text(max_size=8),
    some.sampled_from(["-", "-oProxyCommand=x", "a b", "a\n", "$(x)", "a;b", "`x`", "a'b", 'a"b', "a\0", "a\\b", ""]),
)
def test_names_that_could_be_options_or_commands_are_refused(text: str, bad: str) -> None:
    """No host, user, program, option or file of the settings can be anything but what it says."""
    with pytest.raises(ConfigError):
        SshSettings(bad + text if bad else "")
    with pytest.raises(ConfigError):
        SshSettings("host", user=bad + text if bad else "")
    with pytest.raises(ConfigError):
        SshSettings("host", options=(f"-{text}",))
    with pytest.raises(ConfigError):
        SshSettings("host", python=f"-{text}")
    with pytest.raises(ConfigError):
        SshSettings("host", identity_file=Path(f'k"{text}'))


def test_an_address_is_taken_apart() -> None:
    """User and port may be missing, the path may be escaped, and what is none is refused."""
    found = parse_ssh_url("ssh://camera@archive.example.org:2222/data/cold%20store")
    assert (found.user, found.host, found.port) == ("camera", "archive.example.org", 2222)
    assert found.root == PurePosixPath("/data/cold store")
    bare = parse_ssh_url("ssh://Archive/data")
    assert (bare.user, bare.host, bare.port) == (None, "Archive", None)
    assert parse_ssh_url("ssh://[::1]:22/d").host == "::1"
    for url in (
        "ssh://host",
        "ssh:///data",
        "sftp://host/data",
        "ssh://h:x/d",
        "ssh://h/a/../b",
        "ssh://h/a%00",
        "ssh://h/d?x",
    ):
        with pytest.raises(ConfigError):
            found = parse_ssh_url(url)
            SshSettings(found.host, found.user, found.port)
