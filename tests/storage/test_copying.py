from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from coldchain.errors import SourceChangedError, StorageError
from coldchain.model.files import ReplicaState
from coldchain.storage.copying import CopyOutcome, SourceVersion, copy_verified
from coldchain.storage.posix import PosixStore
from coldchain.storage.ring import BUFFER_BYTES

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


def outcome_of(source: Path, store: PosixStore, name: str = NAME) -> CopyOutcome:
    """What a copy to one store came to."""
    return copy_verified(source, name, [store]).outcomes[0]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, BUFFER_BYTES, BUFFER_BYTES + 1, TWO_CHUNKS])
def test_every_store_gets_every_byte_with_time_and_mode(tmp_path: Path, make_store: MakeStore, size: int) -> None:
    """One read gives every store a whole copy, with the source's digest, time and mode, and nothing beside it."""
    source = written(tmp_path / "movie.tiff", content_of(size))
    source.chmod(0o640)
    os.utime(source, ns=(1, 1_600_000_000_123_456_789))
    stores = [make_store("raid"), make_store("archive")]
    read: list[int] = []
    report = copy_verified(source, NAME, stores, progress=read.append)
    assert report.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (report.size_bytes, report.modified_ns) == (size, 1_600_000_000_123_456_789)
    assert sum(read) == size
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
    report = copy_verified(source, NAME, [gone, store])
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
    assert copy_verified(source, NAME, []).sha256 == hashlib.sha256(b"content").hexdigest()


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
        copy_verified(tmp_path / "movie.tiff", NAME, [store])
    assert caught.value.remedy
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
    tmp_path: Path, make_store: MakeStore, change: Callable[[Path], None]
) -> None:
    """Growing, shrinking, rewriting, replacing and removing are all noticed; no store has anything of it."""
    source = written(tmp_path / "movie.tiff", content_of(TWO_CHUNKS))
    stores = [make_store("raid"), make_store("archive")]
    changed = False

    def interfere(count_bytes: int) -> None:
        nonlocal changed
        if not changed:
            changed = True
            change(source)

    expected = StorageError if change is Path.unlink else SourceChangedError
    with pytest.raises(expected):
        copy_verified(source, NAME, stores, progress=interfere)
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
            copy_verified(source, NAME, [store], expected=wrong)
    assert files_below(store.root) == set()
    assert copy_verified(source, NAME, [store], expected=right).outcomes[0].sha256 == sha256


def test_a_whole_copy_that_stands_already_is_recognised(tmp_path: Path, make_store: MakeStore) -> None:
    """The same content under the name is read back, not written again; a store that lacks it gets it in the same go."""
    source = written(tmp_path / "movie.tiff", content_of(TWO_CHUNKS))
    stores = [make_store("raid"), make_store("archive")]
    copy_verified(source, NAME, stores[:1])
    inode = (stores[0].root / NAME).stat().st_ino
    report = copy_verified(source, NAME, stores)
    assert [o.state for o in report.outcomes] == [ReplicaState.VERIFIED] * 2
    assert (stores[0].root / NAME).stat().st_ino == inode


@pytest.mark.parametrize("size", [TWO_CHUNKS, 100])
def test_other_content_of_the_same_name_is_kept_aside(tmp_path: Path, store: PosixStore, size: int) -> None:
    """Nothing in a store is overwritten: other content is renamed after its digest, however often it changes."""
    source = written(tmp_path / "movie.tiff", content_of(TWO_CHUNKS))
    (store.root / NAME).parent.mkdir(parents=True)
    old = written(store.root / NAME, content_of(size, seed=2)).read_bytes()
    assert outcome_of(source, store).state is ReplicaState.VERIFIED
    aside = f"{NAME}.replaced-{hashlib.sha256(old).hexdigest()[:8]}"
    assert files_below(store.root) == {NAME, aside}
    assert (store.root / aside).read_bytes() == old
    assert (store.root / NAME).read_bytes() == source.read_bytes()
    # The same old content once more: it does not overwrite its own likeness either.
    written(store.root / NAME, old)
    assert outcome_of(source, store).state is ReplicaState.VERIFIED
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
    with store.receive(NAME, 0):
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
