"""A store that is a folder tree: a RAID, a parallel file system, a mounted drive.

A copy comes in under a hidden name (`.NAME.<32 hex>.part`) beside its final one, is made durable, read back, and only
then renamed; a final name therefore only ever holds whole, proved content. Nothing that stands in a store is
overwritten: other content under the same name is kept aside as `NAME.replaced-<8 hex of its digest>`, and said to be.

Every path is walked from the root by directory descriptors without following symbolic links, so that nothing inside a
store can lead a write out of it; the identity is read by the same root's descriptor. One service owns a store: two that
write to one root would sweep each other's `.part`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from coldchain.errors import StorageError, VerificationError
from coldchain.storage.identity_file import partial_of_identity, write_identity
from coldchain.storage.portable_names import NameRules, folded
from coldchain.storage.posix.incoming import PosixIncoming
from coldchain.storage.posix.keeper import RootKeeper
from coldchain.storage.posix.names import Parts, is_own, is_partial, name_under, parts_of
from coldchain.storage.posix.root import HeldRoot
from coldchain.storage.posix.tree import files_below, remove_empty
from coldchain.storage.readback import ReadBack, read_back
from coldchain.storage.ring import Ring
from coldchain.storage.store import FileFacts, Found, Space
from coldchain.storage.system_calls import rename_new, require_regular, sync_folder

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class PosixStore:
    """The store `name` with its tree at `root`. The root must exist: what is under a missing mount is never filled."""

    batches = True
    near = True

    def __init__(self, name: str, root: Path, *, identity: UUID | None = None) -> None:
        self.name = name
        self.root = root
        self._keeper = RootKeeper(name, root, identity)

    def __reduce__(self) -> tuple[object, ...]:
        # In another process it is the same tree, opened there.
        return (_opened_there, (self.name, self.root, self.identity))

    @property
    def identity(self) -> UUID | None:
        """What the store must bear, or None where that does not matter."""
        return self._keeper.identity

    @identity.setter
    def identity(self, identity: UUID | None) -> None:
        self._keeper.identity = identity

    def mark(self) -> UUID | None:
        """The identity that lies in the root; None where there is none. StorageError where the root is missing."""
        with self._keeper.holding("reading its identity", whoever=True) as held:
            return self._keeper.mark_at(held)

    def set_mark(self, identity: UUID) -> None:
        """Write the identity into the root, durably; StorageError where there is another."""
        with self._keeper.holding("writing its identity", whoever=True) as held:
            standing = self._keeper.mark_at(held)
            if standing is None:
                partial = partial_of_identity()
                self._keeper.partials.add(partial)
                try:
                    write_identity(held.descriptor, identity, self.name, partial)
                finally:
                    self._keeper.partials.discard(partial)
            elif standing != identity:
                raise StorageError(
                    f"store {self.name!r} bears an identity already: {standing}",
                    expected=str(identity),
                    remedy="Use it under that identity, or give this store another folder",
                    path=self.root,
                )

    def space(self) -> Space | None:
        """What is left; None where the file system does not tell. Raises StorageError where the root is missing."""
        with self._keeper.holding("asking for its free space") as held:
            usage = os.fstatvfs(held.descriptor)
        if not usage.f_blocks:  # some FUSE file systems
            return None
        return Space(
            free_bytes=usage.f_bavail * usage.f_frsize,
            free_files=usage.f_favail,
            total_bytes=usage.f_blocks * usage.f_frsize,
        )

    def stored_name(self, relative: str) -> str:
        """What a copy of that path is called in the root's file system (see `portable_names`)."""
        try:
            return name_under(relative, self._keeper.rules())
        except OSError as error:
            raise self._keeper.place.stated(error, "asking what names it holds", relative) from error

    def keeps_names(self) -> bool:
        """Whether names are kept as they are, so that two copies cannot meet under one; False while it is away."""
        try:
            return self._keeper.rules() is NameRules.POSIX
        except (OSError, StorageError):
            return False

    def size_of(self, stored_as: str) -> int | None:
        """Size in bytes of the regular file of that name; None where there is none. StorageError as for `receive`."""
        parts = parts_of(stored_as)
        with self._keeper.holding("looking at it", stored_as) as held:
            try:
                folder = held.take(parts[:-1])
                try:
                    found = os.stat(parts[-1], dir_fd=folder.descriptor, follow_symlinks=False)
                finally:
                    held.give_back(folder)
            except FileNotFoundError:
                return None
            exact = self._keeper.rules_at(held) is NameRules.POSIX or held.spelling.is_exact(parts)
        return found.st_size if exact and stat.S_ISREG(found.st_mode) else None

    def receive(self, relative: str, facts: FileFacts) -> PosixIncoming:
        """Begin a copy of `relative`; unless published, leaving removes it again.

        Missing folders below the root are made, and made durable. Raises StorageError (root missing, no right, a link
        or a file in the path, a name that cannot be) and StoreFullError.
        """
        return PosixIncoming(self._keeper, relative, facts)

    def flush(self) -> None:
        """Make durable whatever was sealed or published with `durable` False: call it before leaving `receive`.

        Raises StorageError also where the system lost something that others have in hand: it does not say whose it was.
        """
        with self._keeper.place.stating("making what was written durable"):
            self._keeper.flush()

    def read_back(self, stored_as: str, ring: Ring) -> ReadBack:
        """Read a stored file past the page cache, where that is possible, and see that its name is durable.

        Raises StorageError where it cannot be read.
        """
        parts = parts_of(stored_as)
        with (
            self._keeper.holding("reading it back", stored_as) as held,
            held.folder(parts[:-1]) as folder,
        ):
            found = read_back(folder, parts[-1], ring, types=held.types())
            sync_folder(folder)
            return found

    def confirm(self, stored_as: str, sha256: str, size_bytes: int, ring: Ring) -> ReadBack:
        """Read a stored file as `read_back` does, and compare. VerificationError where it is another."""
        found = self.read_back(stored_as, ring)
        if (found.sha256, found.size_bytes) != (sha256, size_bytes):
            raise VerificationError(
                f"store {self.name!r} has {found.size_bytes:,} bytes of SHA-256 {found.sha256} here",
                expected=f"{size_bytes:,} bytes of SHA-256 {sha256}",
                remedy="Run `coldchain store repair`, and test the disk, cable and memory",
                path=self.root / stored_as,
            )
        return found

    @contextmanager
    def reading(self, stored_as: str) -> Iterator[PosixReading]:
        """Open a stored file to be read from its beginning. Raises StorageError."""
        parts = parts_of(stored_as)
        with self._keeper.place.stating("reading it", stored_as):
            held = self._keeper.take()
        try:
            with self._keeper.place.stating("reading it", stored_as), held.folder(parts[:-1]) as folder:
                opened = PosixReading(self._keeper, stored_as, os.open(parts[-1], _READ_FLAGS, dir_fd=folder))
            with opened:
                yield opened
        finally:
            self._keeper.give_back(held)

    def move(self, stored_as: str, to: str) -> None:
        """Rename a file within the store, durably, making folders; never over anything. Folders that it leaves empty
        go. Raises StorageError."""
        source, target = parts_of(stored_as), parts_of(to)
        with self._keeper.holding(f"moving it to {to!r}", stored_as) as held:
            with held.folder(source[:-1]) as old:
                require_regular(os.stat(source[-1], dir_fd=old, follow_symlinks=False))
                with held.folder(target[:-1], make=True) as new:
                    try:
                        rename_new(old, source[-1], new, target[-1])
                    except FileExistsError:
                        if not _is_half_moved(old, source, new, target):
                            raise
                        os.unlink(source[-1], dir_fd=old)
                    sync_folder(new)
            self._tidy(held, source[:-1])

    def remove(self, stored_as: str) -> bool:
        """Remove a file for good, durably; whether it was there. Folders that it leaves empty go. StorageError where it
        is no regular file, or cannot be removed."""
        parts = parts_of(stored_as)
        with self._keeper.holding("removing it", stored_as) as held:
            try:
                with held.folder(parts[:-1]) as folder:
                    require_regular(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False))
                    os.unlink(parts[-1], dir_fd=folder)
            except FileNotFoundError:
                return False
            self._tidy(held, parts[:-1])
            return True

    def walk(self) -> Iterator[Found]:
        """Every regular file of the tree but the store's own and the file system's, in no order; links are not
        followed. The root is held until the end. Raises StorageError."""
        with self._keeper.holding("listing it") as held:
            for file in files_below(held.descriptor, skips=is_own):
                if not is_partial(file.name):
                    with suppress(FileNotFoundError):  # removed since it was listed
                        yield Found(file.path, file.entry.stat(follow_symlinks=False).st_size)

    def remove_partials(self) -> int:
        """Remove what killed copies left, and say how many there were.

        Only names of our own pattern go, and none that this object is writing; since one service owns a store, any
        other is a leftover. Symbolic links are not followed. Raises StorageError where the root is missing.
        """
        removed = 0
        with self._keeper.holding("removing what killed copies left") as held:
            for file in files_below(held.descriptor, skips=None):
                if is_partial(file.name) and file.name not in self._keeper.partials:
                    with suppress(FileNotFoundError):  # finished, and so renamed, since the folder was listed
                        os.unlink(file.name, dir_fd=file.folder)
                        removed += 1
        return removed

    def is_at_fault(self, error: StorageError) -> bool:
        """Whether an error of this store is the whole store's and not one name's: it is full, read-only, failing, away,
        or something else lies in its place. Other files then need not be tried before it is well again."""
        return self._keeper.place.is_at_fault(error) or self._keeper.is_unusable()

    def _tidy(self, held: HeldRoot, parts: Parts) -> None:
        """Remove the folder where it is empty, and those above it, and make what is left durable."""
        removed, left = remove_empty(held.descriptor, parts)
        for folder in removed:
            held.forget(folder)
        with held.folder(left) as descriptor:
            sync_folder(descriptor)


class PosixReading:
    """A stored file that is read; closed by leaving it."""

    def __init__(self, keeper: RootKeeper, stored_as: str, descriptor: int) -> None:
        self._keeper = keeper
        self._stored_as = stored_as
        self._descriptor = descriptor
        try:
            status = os.fstat(descriptor)
            require_regular(status)
        except OSError:
            os.close(descriptor)
            raise
        self.facts = FileFacts(status.st_size, status.st_mtime_ns, status.st_mode)

    def __enter__(self) -> PosixReading:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def fill(self, view: memoryview) -> int:
        """Read on into the view; how many bytes, 0 at the end. Raises StorageError."""
        with self._keeper.place.stating("reading it", self._stored_as):
            return os.readv(self._descriptor, [view])


def _is_half_moved(old: int, source: Parts, new: int, target: Parts) -> bool:
    """Whether a move was cut short after making the second name, before removing the first: both name one file."""
    one = os.stat(source[-1], dir_fd=old, follow_symlinks=False)
    other = os.stat(target[-1], dir_fd=new, follow_symlinks=False)
    # On a drive that knows no case, one name may look like two.
    same_name = folded("/".join(source)) == folded("/".join(target))
    return os.path.samestat(one, other) and one.st_nlink > 1 and not same_name


@lru_cache(maxsize=64)
def _opened_there(name: str, root: Path, identity: UUID | None) -> PosixStore:
    """The store of a process that is handed it again and again: what it has learnt of its folders is kept."""
    return PosixStore(name, root, identity=identity)
