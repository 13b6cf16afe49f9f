"""A copy on its way into a folder tree: written under a hidden name, made durable, read back, and only then named."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import Self

from coldchain.errors import StorageError, VerificationError
from coldchain.model.files import KeptAside
from coldchain.storage.portable_names import NameRules
from coldchain.storage.posix.keeper import RootKeeper
from coldchain.storage.posix.names import Parts, free_name, name_under, partial_name, parts_for_copy
from coldchain.storage.posix.root import HeldRoot
from coldchain.storage.readback import ReadBack, read_back, set_direct
from coldchain.storage.ring import Ring
from coldchain.storage.store import FileFacts
from coldchain.storage.system_calls import rename_new, require_regular, sync_folder

DIRECT_FROM_BYTES = 4 << 20
"""Files from this size are written with `O_DIRECT`: smaller ones wait in the page cache for one flush of many."""

_PAGE_BYTES = 4096
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 4


class PosixIncoming:
    """A copy on its way: `write` every byte, `seal`, `prove`, `publish`; then, whatever came of it, `leave`.

    It holds the store's root, but no folder: a thousand copies may be on their way at once. `kept` is what stood under
    its name and was renamed for it, also where publishing failed after that.
    """

    def __init__(self, keeper: RootKeeper, relative: str, facts: FileFacts) -> None:
        self.kept: KeptAside | None = None
        self.skip_bytes = 0
        self.stored_as = relative
        self._keeper = keeper
        self._facts = facts
        self._parts: Parts = ()
        self._partial = ""
        self._descriptor = -1
        self._direct = False
        self._turn = -1  # the flushes that had begun when it was sealed; -1 where it needs none
        self._published = False
        self._reserved: Parts = ()
        try:
            self._held = keeper.take()
            self._begin()
        except OSError as error:
            raise self._stated(error, "beginning the copy") from error

    def _begin(self) -> None:
        try:
            rules = self._keeper.rules_at(self._held)
            self.stored_as = name_under(self.stored_as, rules)
            self._parts = parts_for_copy(self.stored_as)
            self._held.require_room(self._facts.size_bytes)
            if rules is not NameRules.POSIX:
                self._parts = self._reserved = self._held.spelling.reserve(self._parts, rules)
                self.stored_as = "/".join(self._parts)
            self._partial = partial_name(self._parts[-1])
            self._keeper.partials.add(self._partial)
            self._create()
        except BaseException:
            self._let_go()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def write(self, view: memoryview) -> None:
        """Append these bytes. Raises StoreFullError and StorageError."""
        try:
            while view:
                if self._direct and len(view) % _PAGE_BYTES:
                    self._direct = set_direct(self._descriptor, on=False)
                try:
                    written = os.write(self._descriptor, view)
                except OSError as error:
                    if not (self._direct and error.errno == errno.EINVAL):
                        raise
                    self._direct = set_direct(self._descriptor, on=False)
                    continue
                view = view[written:]
        except OSError as error:
            raise self._stated(error, "writing the copy") from error

    def seal(self, *, durable: bool = True) -> None:
        """Give the copy its time and mode, and make it durable. Its owner may always read it, to prove it again.

        With `durable` False it is left to the flush, where the file system can make many durable at once.
        """
        try:
            with suppress(PermissionError):  # FAT holds no modes; the content is what counts
                os.fchmod(self._descriptor, (self._facts.mode & 0o777) | stat.S_IRUSR)
            os.utime(self._descriptor, ns=(self._facts.modified_ns, self._facts.modified_ns))
            if durable or not self._held.flushes_whole:
                os.fsync(self._descriptor)
            else:
                self._turn = self._held.turn()
            self._close()
        except OSError as error:
            raise self._stated(error, "making the copy durable") from error

    def prove(self, sha256: str, ring: Ring) -> ReadBack:
        """Read the copy back and compare. VerificationError where it is not what was written."""
        try:
            folder = self._held.take(self._parts[:-1])
            try:
                synced = self._held.has_flushed(self._turn)
                types = self._held.types()
                found = read_back(folder.descriptor, self._partial, ring, synced=synced, types=types)
            finally:
                self._held.give_back(folder)
        except OSError as error:
            raise self._stated(error, "reading the copy back") from error
        if found.sha256 != sha256:
            raise VerificationError(
                f"store {self._keeper.place.name!r} gave back {found.size_bytes:,} bytes of SHA-256 {found.sha256}",
                expected=f"SHA-256 {sha256}",
                remedy="The copy is removed and made again; if this comes back, test the disk, cable and memory",
                path=self._keeper.place.root / self.stored_as,
            )
        return found

    def publish(self, sha256: str, ring: Ring, *, durable: bool = True) -> None:
        """Give the copy its final name; other content of that name is kept aside first."""
        try:
            self._keeper.require(self._held, anew=durable)
            folder = self._held.take(self._parts[:-1])
            try:
                self._name(folder.descriptor, sha256, ring)
                self._published = True
                if durable:
                    sync_folder(folder.descriptor)
                else:
                    self._held.named_in(self._parts[:-1])
            finally:
                self._held.give_back(folder)
        except OSError as error:
            raise self._stated(error, "giving the copy its name") from error

    def leave(self) -> None:
        """Remove what was not published, and let go of the store."""
        with suppress(OSError):
            self._close()
        if not self._published:
            # What cannot be removed now (the device is gone) is swept at the next start.
            with suppress(OSError), self._held.folder(self._parts[:-1]) as folder:
                os.unlink(self._partial, dir_fd=folder)
        self._let_go()

    def _create(self) -> None:
        try:
            self._create_in(self._parts[:-1])
        except FileNotFoundError:  # the folder was empty, and removed for it, after it was opened
            for depth in range(1, len(self._parts)):
                self._held.forget(self._parts[:depth])
            self._create_in(self._parts[:-1])
        if self._facts.size_bytes >= DIRECT_FROM_BYTES:
            self._direct = set_direct(self._descriptor, on=True)

    def _create_in(self, parts: Parts) -> None:
        folder = self._held.take(parts, make=True)
        try:
            self._descriptor = os.open(self._partial, _WRITE_FLAGS, 0o600, dir_fd=folder.descriptor)
        finally:
            self._held.give_back(folder)

    def _name(self, folder: int, sha256: str, ring: Ring) -> None:
        for _ in range(_TRIES):
            try:
                rename_new(folder, self._partial, folder, self._parts[-1])
            except FileExistsError:
                if self._is_the_same(folder, sha256, ring):
                    os.rename(self._partial, self._parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
                    return
            else:
                return
        raise FileExistsError(errno.EEXIST, "something else takes its name again and again")

    def _is_the_same(self, folder: int, sha256: str, ring: Ring) -> bool:
        """Whether what has the name already has the same content; otherwise it is kept aside."""
        name = self._parts[-1]
        try:
            require_regular(os.stat(name, dir_fd=folder, follow_symlinks=False))
        except FileNotFoundError:
            return False
        if self._reserved and not self._held.spelling.is_exact(self._parts):
            raise FileExistsError(errno.EEXIST, "a name that this drive takes for the same was made meanwhile")
        found = _digest_of(folder, name, ring, self._held)
        if found == sha256:
            return True
        aside = free_name(folder, name, f".replaced-{found[:8] if found else 'unreadable'}")
        with suppress(FileExistsError):  # made by somebody else just now
            rename_new(folder, name, folder, aside)
            self.kept = KeptAside(path="/".join((*self._parts[:-1], aside)), sha256=found)
        return False

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _let_go(self) -> None:
        if self._reserved:
            self._held.spelling.release(self._reserved)
        self._keeper.partials.discard(self._partial)
        self._keeper.give_back(self._held)

    def _stated(self, error: OSError, doing: str) -> StorageError:
        return self._keeper.place.stated(error, doing, self.stored_as)


def _digest_of(folder: int, name: str, ring: Ring, held: HeldRoot) -> str | None:
    """SHA-256 of what stands under a name; None where it cannot be read: its bytes may still be wanted by somebody with
    better tools."""
    try:
        return read_back(folder, name, ring, types=held.types()).sha256
    except OSError:
        return None
