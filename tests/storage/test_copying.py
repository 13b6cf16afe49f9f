from __future__ import annotations

import errno
import hashlib
import os
import random
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from coldchain.errors import SourceChangedError, StorageError
from coldchain.model.files import KeptAside, ReplicaState
from coldchain.storage.copies.copying import CopyOutcome, CopyReport, SourceVersion, copy_verified
from coldchain.storage.copies.source import CameraFile
from coldchain.storage.posix import incoming as posix_incoming
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.ring import BUFFER_BYTES
from coldchain.storage.store import FileFacts

MakeStore = Callable[[str], PosixStore]
NAME = "krios/session/Data/movie.tiff"
TWO_CHUNKS = BUFFER_BYTES * 2 + 17


def content_of(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes that no other seed gives."""
    return random.Random(seed).randbytes(size_bytes)


def written(path: Path, content: bytes) -> Path:
    """The path, with that content."""
    path.write_bytes(content)
    return path


def files_below(root: Path) -> set[str]:
    """Everything in a tree but its folders."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}


def copied(
    source: Path, name: str, stores: Sequence[PosixStore], *, expected: SourceVersion | None = None
) -> CopyReport:
    """What a copy of a file in its own folder came to."""
    return copy_verified(source.parent, source.name, name, stores, expected=expected)


def outcome_of(source: Path, store: PosixStore, name: str = NAME) -> CopyOutcome:
    """What a copy to one store came to."""
    return copied(source, name, [store]).outcomes[0]


def while_reading(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once, after the first piece of a source was read."""
    fill, done = CameraFile.fill, [False]

    def fill_and_act(self: CameraFile, view: memoryview) -> int:
        count_bytes = fill(self, view)
        if not done[0]:
            done[0] = True
            act()
        return count_bytes

    monkeypatch.setattr(CameraFile, "fill", fill_and_act)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, BUFFER_BYTES, BUFFER_BYTES + 1, TWO_CHUNKS])
def test_every_store_gets_every_byte_with_time_and_mode(tmp_path: Path, make_store: MakeStore, size: int) -> None:
    """One read gives every store a whole copy, with the source's digest, time and mode, and nothing beside it."""
    source = written(tmp_path / "movie.tiff", content_of(size))
    source.chmod(0o640)
    os.utime(source, ns=(1, 1_600_000_000_123_456_789))
    stores = [make_store("raid"), make_store("archive")]
    report = copied(source, NAME, stores)
    assert report.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (report.size_bytes, report.modified_ns) == (size, 1_600_000_000_123_456_789)
    assert [o.store for o in report.outcomes] == ["raid", "archive"]
    for store, outcome in zip(stores, report.outcomes, strict=True):
        assert (outcome.state, outcome.sha256) == (ReplicaState.VERIFIED, report.sha256)
        assert outcome.level is not None
        copy = store.root / NAME
        assert copy.read_bytes() == source.read_bytes()
        assert copy.stat().st_mtime_ns == report.modified_ns
        assert stat.S_IMODE(copy.stat().st_mode) == 0o640
        assert files_below(store.root) == {NAME}


ODD_NAMES = [
    "a b",
    'it\'s "quoted"',
    "Ångström-µ-試料",
    "two\nlines",
    os.fsdecode(b"latin-\xe9"),
    "x" * 255,
    "é" * 127,
    "-rf",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_that_the_source_has_the_copy_has(tmp_path: Path, store: PosixStore, name: str) -> None:
    """Spaces, quotes, other alphabets, newlines, undecodable bytes and the longest names are kept exactly."""
    source = written(tmp_path / "source", b"content")
    assert outcome_of(source, store, f"krios/{name}/{name}").error is None
    assert (store.root / "krios" / name / name).read_bytes() == b"content"
    # Other content of that name: both stay, and the longest name has room for its mark.
    written(source, b"other content")
    assert outcome_of(source, store, f"krios/{name}/{name}").error is None
    assert len(files_below(store.root)) == 2


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "a/../../b", "a/\0", f"a/.b.{'0' * 32}.part"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, store: PosixStore, name: str) -> None:
    """No name leads out of the store, and none looks like an unfinished copy, which a restart would remove."""
    source = written(tmp_path / "source", b"content")
    outcome = outcome_of(source, store, name)
    assert outcome.state is ReplicaState.FAILED
    assert isinstance(outcome.error, StorageError)
    assert files_below(store.root) == set()


def test_a_missing_root_is_not_filled_underneath(tmp_path: Path, store: PosixStore) -> None:
    """An unmounted drive fails with its remedy, is not created, and stops neither the other store nor the digest."""
    gone = PosixStore("usb", tmp_path / "not-mounted")
    source = written(tmp_path / "movie.tiff", content_of(TWO_CHUNKS))
    report = copied(source, NAME, [gone, store])
    failed, verified = report.outcomes
    assert failed.state is ReplicaState.FAILED
    assert failed.error is not None
    assert "Mount the drive" in failed.error.remedy
    assert not gone.root.exists()
    assert verified.state is ReplicaState.VERIFIED
    assert report.sha256 == verified.sha256


def test_without_stores_a_source_is_only_hashed(tmp_path: Path) -> None:
    """The digest needs no store."""
    source = written(tmp_path / "movie.tiff", b"content")
    assert copied(source, NAME, []).sha256 == hashlib.sha256(b"content").hexdigest()


def _missing(path: Path) -> None:
    pass


def _link(path: Path) -> None:
    written(path.parent / "elsewhere", b"secret")
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize("make", [_missing, _link, Path.mkdir, os.mkfifo])
def test_a_source_that_is_no_file_is_refused(tmp_path: Path, store: PosixStore, make: Callable[[Path], None]) -> None:
    """A missing source, a symbolic link, a folder and a pipe each give one stated error, and no copy."""
    make(tmp_path / "movie.tiff")
    with pytest.raises(StorageError) as caught:
        copied(tmp_path / "movie.tiff", NAME, [store])
    assert caught.value.remedy
    assert files_below(store.root) == set()


@pytest.mark.parametrize("linked", ["visit", "visit/Data"])
def test_a_folder_swapped_for_a_link_leads_no_copy_out(tmp_path: Path, store: PosixStore, linked: str) -> None:
    """A link anywhere below the camera's folder is refused: what it leads to is not the session's."""
    camera, outside = tmp_path / "camera", tmp_path / "outside"
    for root in (camera, outside):
        (root / "visit" / "Data").mkdir(parents=True)
        (root / "visit" / "Data" / "movie.tiff").write_bytes(b"content")
    name = "visit/Data/movie.tiff"
    assert copy_verified(camera, name, NAME, []).size_bytes == 7
    (camera / linked).rename(tmp_path / "moved")
    (camera / linked).symlink_to(outside / linked)
    with pytest.raises(StorageError) as caught:
        copy_verified(camera, name, NAME, [store])
    assert "symbolic link" in caught.value.remedy
    assert files_below(store.root) == set()
    (tmp_path / "way-in").symlink_to(outside)
    assert copy_verified(tmp_path / "way-in", name, NAME, [store]).outcomes[0].error is None


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "visit/../../secret"])
def test_a_source_outside_its_root_is_refused(tmp_path: Path, store: PosixStore, name: str) -> None:
    """A path that leads out of the camera's folder is not opened."""
    (tmp_path / "camera").mkdir()
    written(tmp_path / "secret", b"secret")
    with pytest.raises(StorageError, match="leads out"):
        copy_verified(tmp_path / "camera", name, NAME, [store])


def test_a_folder_swapped_for_a_link_while_it_is_read_publishes_nothing(
    tmp_path: Path, store: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name must lead to the same file at the end, and not by a link."""
    source = tmp_path / "visit" / "movie.tiff"
    source.parent.mkdir()
    written(source, content_of(TWO_CHUNKS))

    def swap() -> None:
        source.parent.rename(tmp_path / "moved")
        source.parent.symlink_to(tmp_path / "moved")

    while_reading(monkeypatch, swap)
    with pytest.raises(StorageError):
        copy_verified(tmp_path, "visit/movie.tiff", NAME, [store])
    assert files_below(store.root) == set()


def _appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _shortened(path: Path) -> None:
    os.truncate(path, 10)


def _rewritten(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def _replaced(path: Path) -> None:
    before = path.stat()
    other = written(path.with_suffix(".new"), path.read_bytes())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize("change", [_appended, _shortened, _rewritten, _replaced, Path.unlink])
def test_a_source_that_changes_while_it_is_read_is_not_published(
    tmp_path: Path, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    """Growing, shrinking, rewriting, replacing and removing are all noticed; no store has anything of it."""
    source = written(tmp_path / "movie.tiff", content_of(TWO_CHUNKS))
    stores = [make_store("raid"), make_store("archive")]
    while_reading(monkeypatch, lambda: change(source))
    expected = StorageError if change is Path.unlink else SourceChangedError
    with pytest.raises(expected):
        copied(source, NAME, stores)
    assert all(files_below(store.root) == set() for store in stores)


def test_only_the_version_that_is_meant_is_copied(tmp_path: Path, store: PosixStore) -> None:
    """Another size, time or digest than the catalog's is a changed source, and nothing is published."""
    source = written(tmp_path / "movie.tiff", b"content")
    now = source.stat()
    sha256 = hashlib.sha256(b"content").hexdigest()
    right = SourceVersion(now.st_size, now.st_mtime_ns, sha256)
    for wrong in (
        SourceVersion(now.st_size + 1, now.st_mtime_ns),
        SourceVersion(now.st_size, now.st_mtime_ns - 1),
        SourceVersion(now.st_size, now.st_mtime_ns, "0" * 64),
    ):
        with pytest.raises(SourceChangedError):
            copied(source, NAME, [store], expected=wrong)
    assert files_below(store.root) == set()
    assert copied(source, NAME, [store], expected=right).outcomes[0].sha256 == sha256


def test_a_whole_copy_that_stands_already_is_recognised(tmp_path: Path, make_store: MakeStore) -> None:
    """The same content under the name is read back, not written again; a store that lacks it gets it in the same go."""
    source = written(tmp_path / "movie.tiff", content_of(TWO_CHUNKS))
    stores = [make_store("raid"), make_store("archive")]
    copied(source, NAME, stores[:1])
    inode = (stores[0].root / NAME).stat().st_ino
    report = copied(source, NAME, stores)
    assert [o.state for o in report.outcomes] == [ReplicaState.VERIFIED] * 2
    assert (stores[0].root / NAME).stat().st_ino == inode


@pytest.mark.parametrize("size", [TWO_CHUNKS, 100])
def test_other_content_of_the_same_name_is_kept_aside(tmp_path: Path, store: PosixStore, size: int) -> None:
    """Nothing in a store is overwritten: other content is renamed after its digest, however often it changes."""
    source = written(tmp_path / "movie.tiff", content_of(TWO_CHUNKS))
    (store.root / NAME).parent.mkdir(parents=True)
    old = written(store.root / NAME, content_of(size, seed=2)).read_bytes()
    outcome = outcome_of(source, store)
    assert outcome.state is ReplicaState.VERIFIED
    aside = f"{NAME}.replaced-{hashlib.sha256(old).hexdigest()[:8]}"
    assert outcome.kept == KeptAside(aside, hashlib.sha256(old).hexdigest())
    assert files_below(store.root) == {NAME, aside}
    assert (store.root / aside).read_bytes() == old
    assert (store.root / NAME).read_bytes() == source.read_bytes()
    # The same old content once more: it does not overwrite its own likeness either.
    written(store.root / NAME, old)
    outcome = outcome_of(source, store)
    assert outcome.kept == KeptAside(f"{aside}-2", hashlib.sha256(old).hexdigest())
    assert files_below(store.root) == {NAME, aside, f"{aside}-2"}


@pytest.mark.parametrize("name", ["krios", NAME])
def test_no_symbolic_link_leads_out_of_a_store(tmp_path: Path, store: PosixStore, name: str) -> None:
    """A link in a store, for a folder or in the file's own place, is refused with its remedy and left as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (store.root / name).parent.mkdir(parents=True, exist_ok=True)
    (store.root / name).symlink_to(outside)
    outcome = outcome_of(written(tmp_path / "movie.tiff", b"content"), store)
    assert outcome.state is ReplicaState.FAILED
    assert outcome.error is not None
    assert outcome.error.remedy
    assert list(outside.iterdir()) == []
    assert files_below(store.root) == {name}


def test_a_folder_in_a_copys_place_is_refused(tmp_path: Path, store: PosixStore) -> None:
    """A folder of the file's name stays, and the error says what to do."""
    (store.root / NAME).mkdir(parents=True)
    outcome = outcome_of(written(tmp_path / "movie.tiff", b"content"), store)
    assert outcome.error is not None
    assert "Move the folder" in outcome.error.remedy
    assert (store.root / NAME).is_dir()
    assert files_below(store.root) == set()


def test_only_unfinished_copies_of_an_earlier_process_are_removed(tmp_path: Path, store: PosixStore) -> None:
    """The sweep takes names of our own pattern that nobody writes now, and follows no link out of the store."""
    outside = tmp_path / "outside"
    outside.mkdir()
    left_over = f".movie.tiff.{'0123456789abcdef' * 2}.part"
    folder = (store.root / NAME).parent
    folder.mkdir(parents=True)
    for path in (outside / left_over, folder / left_over, folder / "movie.part", folder / ".movie.tiff.1234.part"):
        written(path, b"half")
    (store.root / "way-out").symlink_to(outside)
    with store.receive(NAME, FileFacts(0, 0, 0o644)):
        assert store.remove_partials() == 1
        assert len(files_below(folder)) == 3
    assert files_below(folder) == {"movie.part", ".movie.tiff.1234.part"}
    assert (outside / left_over).exists()


def test_an_odd_end_and_a_refusal_of_direct_io_change_no_byte(
    tmp_path: Path, store: PosixStore, refuse_direct: Callable[[], None]
) -> None:
    """Where the file system refuses to pass the page cache, the copy is as whole, and the level says less."""
    refuse_direct()
    source = written(tmp_path / "movie.tiff", content_of(TWO_CHUNKS))
    outcome = outcome_of(source, store)
    assert outcome.level == "cache"
    assert (store.root / NAME).read_bytes() == source.read_bytes()


def test_what_was_kept_aside_is_said_also_where_publishing_then_fails(
    tmp_path: Path, store: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that fails between the two renamings leaves the old content under its new name, and says so."""
    source = written(tmp_path / "movie.tiff", b"new content")
    (store.root / NAME).parent.mkdir(parents=True)
    written(store.root / NAME, b"old content")
    rename, tries = posix_incoming.rename_new, []

    def fail_again(old_folder: int, old: str, new_folder: int, new: str) -> None:
        tries.append(old)
        if len(tries) > 2:  # to find the name taken, to keep aside, to take the name
            raise OSError(errno.EIO, "the device is gone")
        rename(old_folder, old, new_folder, new)

    with monkeypatch.context() as patch:
        patch.setattr(posix_incoming, "rename_new", fail_again)
        outcome = outcome_of(source, store)
    assert outcome.state is ReplicaState.FAILED
    assert outcome.kept is not None
    assert (store.root / outcome.kept.path).read_bytes() == b"old content"
    assert outcome_of(source, store).kept is None


@pytest.mark.parametrize(
    ("code", "whole"),
    [
        (errno.ENOSPC, True),
        (errno.EROFS, True),
        (errno.EIO, True),
        (errno.ESTALE, True),
        (errno.ENOTCONN, True),
        (errno.ENAMETOOLONG, False),
        (errno.EINVAL, False),
        (errno.EISDIR, False),
        (errno.EACCES, False),
    ],
)
def test_one_names_trouble_is_not_the_stores(store: PosixStore, code: int, whole: bool) -> None:
    """Only what every file would meet is the store's own fault."""
    system = OSError(code, os.strerror(code))
    with pytest.raises(StorageError) as caught, store._keeper.place.stating("writing", NAME):
        raise system
    assert store.is_at_fault(caught.value) is whole
    store.root.rmdir()
    assert store.is_at_fault(caught.value)
