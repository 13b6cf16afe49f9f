from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from coldchain.errors import StorageError, StoreFullError, VerificationError
from coldchain.model.files import ReplicaState, VerificationLevel
from coldchain.storage.copies.copying import CopyReport, copy_verified
from coldchain.storage.copies.source import CameraFile
from coldchain.storage.posix.incoming import PosixIncoming
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.readback import filesystem_type
from coldchain.storage.ring import BUFFER_BYTES

MakeTmpfs = Callable[..., Path]
NAME = "krios/session/movie.tiff"
TWO_CHUNKS = BUFFER_BYTES * 2 + 17
BLOCK_BYTES = 4096
NOBODY = 65534

pytestmark = pytest.mark.root


def content_of(size_bytes: int) -> bytes:
    """Bytes without a pattern."""
    return random.Random(7).randbytes(size_bytes)


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    """A source of two chunks and an odd end."""
    path = tmp_path / "movie.tiff"
    path.write_bytes(content_of(TWO_CHUNKS))
    return path


def files_below(root: Path) -> set[str]:
    """The files of a tree."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def copied(source: Path, name: str, stores: Sequence[PosixStore]) -> CopyReport:
    """What a copy of a file in its own folder came to."""
    return copy_verified(source.parent, source.name, name, stores)


def after_sealing(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something to the medium between the copy's fsync and its reading back."""
    seal = PosixIncoming.seal

    def seal_then_act(self: PosixIncoming, **given: bool) -> None:
        seal(self, **given)
        act()

    monkeypatch.setattr(PosixIncoming, "seal", seal_then_act)


def test_the_level_says_what_the_file_system_can_prove(medium, make_tmpfs: MakeTmpfs, movie: Path) -> None:
    """A copy on a disk is proved on its medium; one on tmpfs is not, though tmpfs accepts O_DIRECT."""
    memory = make_tmpfs("memory", size_bytes=32 << 20)
    report = copied(movie, NAME, [PosixStore("disk", medium.folder), PosixStore("memory", memory)])
    assert [o.state for o in report.outcomes] == [ReplicaState.VERIFIED] * 2
    assert [o.level for o in report.outcomes] == [VerificationLevel.MEDIUM, VerificationLevel.CACHE]


def test_the_file_system_of_an_open_file_is_known(medium, make_tmpfs: MakeTmpfs, tmp_path: Path) -> None:
    """The type is that of the mount that the open file is on, also where one mount lies in another."""
    inner = medium.folder / "inner"
    memory = make_tmpfs("memory", size_bytes=1 << 20)
    inner.mkdir()
    for folder, kind in ((medium.folder, "ext4"), (inner, "ext4"), (memory, "tmpfs")):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            assert filesystem_type(descriptor) == kind
        finally:
            os.close(descriptor)


@pytest.mark.parametrize("direct", [True, False], ids=["O_DIRECT", "DONTNEED"])
@pytest.mark.parametrize("at", [0, TWO_CHUNKS // BLOCK_BYTES // 2 * BLOCK_BYTES, TWO_CHUNKS - 17])
def test_a_bit_that_flips_on_the_medium_is_caught_where_the_page_cache_is_blind(
    medium, movie: Path, monkeypatch: pytest.MonkeyPatch, refuse_direct: Callable[[], None], at: int, direct: bool
) -> None:
    """After a flip below the page cache an ordinary read still gives the right bytes; the verification does not."""
    if not direct:
        refuse_direct()
    store = PosixStore("disk", medium.folder)
    content = movie.read_bytes()
    cached: list[bytes] = []

    def flip() -> None:
        (partial,) = (medium.folder / NAME).parent.iterdir()
        with partial.open("rb", buffering=0) as file:
            file.readall()
            medium.flip(content[at : at + BLOCK_BYTES])
            file.seek(0)
            cached.append(file.readall())

    with monkeypatch.context() as patched:
        after_sealing(patched, flip)
        outcome = copied(movie, NAME, [store]).outcomes[0]
    assert cached == [content], "the page cache should not have noticed"
    assert outcome.state is ReplicaState.FAILED
    assert isinstance(outcome.error, VerificationError)
    assert files_below(medium.folder) == set()
    # The next try makes it whole.
    assert copied(movie, NAME, [store]).outcomes[0].state is ReplicaState.VERIFIED


def test_a_standing_copy_with_a_flipped_bit_is_replaced_and_kept(medium, movie: Path) -> None:
    """A copy that rotted on the medium is not recognised as whole: it is kept aside, and a whole one made."""
    store = PosixStore("disk", medium.folder)
    copied(movie, NAME, [store])
    assert (medium.folder / NAME).read_bytes() == movie.read_bytes()
    medium.flip(movie.read_bytes()[:BLOCK_BYTES])
    assert copied(movie, NAME, [store]).outcomes[0].state is ReplicaState.VERIFIED
    assert len(files_below(medium.folder)) == 2


def test_a_store_without_room_says_so_and_stops_no_other(make_tmpfs: MakeTmpfs, movie: Path) -> None:
    """Too large for what is left: StoreFullError with the free bytes, nothing left behind, the other store verified."""
    small = PosixStore("small", make_tmpfs("small", size_bytes=1 << 20))
    large = PosixStore("large", make_tmpfs("large", size_bytes=32 << 20))
    full, good = copied(movie, NAME, [small, large]).outcomes
    assert isinstance(full.error, StoreFullError)
    assert f"{1 << 20:,} bytes" in str(full.error)
    assert good.state is ReplicaState.VERIFIED
    assert files_below(small.root) == set()


def test_a_store_that_fills_up_while_a_copy_is_written(
    make_tmpfs: MakeTmpfs, movie: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room that others take meanwhile: the same error, nothing left behind, and whole when there is room again."""
    store = PosixStore("small", make_tmpfs("small", size_bytes=TWO_CHUNKS + (1 << 20)))
    filler = store.root / "filler"

    fill = CameraFile.fill

    def fill_up(self: CameraFile, view: memoryview) -> int:
        with suppress(OSError):  # however far the copy has come: it takes what is left
            filler.write_bytes(bytes(3 << 20))
        return fill(self, view)

    with monkeypatch.context() as patched:
        patched.setattr(CameraFile, "fill", fill_up)
        full = copied(movie, NAME, [store]).outcomes[0]
    assert isinstance(full.error, StoreFullError)
    assert files_below(store.root) == {"filler"}
    filler.unlink()
    assert copied(movie, NAME, [store]).outcomes[0].state is ReplicaState.VERIFIED


def test_a_store_without_inodes_is_full(make_tmpfs: MakeTmpfs, tmp_path: Path) -> None:
    """No inode left: StoreFullError that says so, though there are bytes."""
    store = PosixStore("small", make_tmpfs("small", size_bytes=1 << 20, inodes=6))
    source = tmp_path / "a.xml"
    source.write_bytes(b"content")
    errors = [copied(source, f"krios/{n}", [store]).outcomes[0].error for n in range(6)]
    assert errors[0] is None
    assert isinstance(errors[-1], StoreFullError)
    assert " 0 inodes are free" in str(errors[-1])


def test_a_device_that_cannot_write_fails_alone(failing_medium, make_tmpfs: MakeTmpfs, movie: Path) -> None:
    """EIO from the device under a store is that store's stated error; the other store's copy is verified."""
    bad = PosixStore("bad", failing_medium.folder)
    good = PosixStore("good", make_tmpfs("good", size_bytes=64 << 20))
    failures = []
    for n in range(8):
        outcomes = copied(movie, f"krios/{n}", [bad, good]).outcomes
        failures.append(outcomes[0].error)
        assert outcomes[1].state is ReplicaState.VERIFIED
    assert isinstance(failures[-1], StorageError)
    assert failures[-1].remedy


def test_a_device_that_cannot_be_read_back_proves_nothing(medium, movie: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO while the copy is read back: the copy is not verified and does not get its name."""
    store = PosixStore("disk", medium.folder)
    (medium.folder / "krios" / "session").mkdir(parents=True)
    size_bytes = medium.image.stat().st_size
    after_sealing(monkeypatch, lambda: (os.sync(), os.truncate(medium.image, 4 << 20)))
    outcome = copied(movie, NAME, [store]).outcomes[0]
    os.truncate(medium.image, size_bytes)
    assert isinstance(outcome.error, StorageError)
    assert outcome.state is ReplicaState.FAILED
    assert not (medium.folder / NAME).exists()


def test_a_source_whose_disk_fails_gives_one_stated_error(medium, store: PosixStore, movie: Path) -> None:
    """EIO while the source is read: a stated error, and nothing published."""
    source = medium.folder / "movie.tiff"
    source.write_bytes(movie.read_bytes())
    descriptor = os.open(source, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    size_bytes = medium.image.stat().st_size
    os.sync()
    os.truncate(medium.image, 4 << 20)
    with pytest.raises(StorageError, match="Input/output error"):
        copied(source, NAME, [store])
    os.truncate(medium.image, size_bytes)
    assert files_below(store.root) == set()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root's rights laid down, if we have them."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)


def test_what_the_user_may_not_read_or_write_is_said(movie: Path) -> None:
    """A source without read permission and a store without write permission each give one error with its remedy."""
    # Not below tmp_path: only its owner may enter that.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for root, mode in (("closed", 0o555), ("open", 0o777)):
            (folder / root).mkdir()
            (folder / root).chmod(mode)
        for source, mode in (("secret", 0), ("plain", 0o444)):
            (folder / source).write_bytes(b"content")
            (folder / source).chmod(mode)
        stores = [PosixStore(root, folder / root) for root in ("closed", "open")]
        with as_nobody():
            with pytest.raises(StorageError) as caught:
                copied(folder / "secret", NAME, stores)
            closed, open_ = copied(folder / "plain", NAME, stores).outcomes
    assert "may read" in caught.value.remedy
    assert closed.error is not None
    assert "right to write" in closed.error.remedy
    assert open_.state is ReplicaState.VERIFIED
