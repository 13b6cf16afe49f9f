"""What a store is: the one interface that a folder tree, another host, an object store and a test's memory all have.

Two names are told apart. The *relative path* of a copy is `<instrument>/<session's folder>/<path in the session>`, any
bytes that a path may hold. Its *stored name* is what the store calls it (`portable_names`), a relative POSIX path too;
on most stores they are the same. `receive` takes the relative path and decides the stored name; all else takes that.

A copy comes in by `receive`, `write`…, `seal`, `prove`, `publish`, and stands under its final name only after the last.
Nothing that stands in a store is overwritten. What a store keeps for itself (its identity file, its trash, copies on
their way) is never listed by `walk`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from coldchain.errors import StorageError
from coldchain.model.files import KeptAside
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import Ring

IDENTITY_NAME = ".coldchain-store"
TRASH_FOLDER = ".coldchain-trash"


@dataclass(frozen=True, slots=True)
class Space:
    """What a store has left for this user, and its size: bytes, and inodes (0 where the file system counts none)."""

    free_bytes: int
    free_files: int
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a copy keeps of its source beside its bytes. `mode` holds at least the nine permission bits."""

    size_bytes: int
    modified_ns: int
    mode: int


@dataclass(frozen=True, slots=True)
class Found:
    """A file that stands in a store: its stored name and size."""

    stored_as: str
    size_bytes: int


class Incoming(Protocol):
    """A copy on its way in.

    `stored_as` is its name to be. `skip_bytes` is how much of it, from the beginning, an earlier try has left there
    whole: `write` is then given only what follows, while `prove` still speaks of all of it. `kept` is what stood under
    its name and was moved aside for it, also where publishing failed after that.
    """

    @property
    def stored_as(self) -> str:
        """Its stored name to be."""

    @property
    def skip_bytes(self) -> int:
        """How much of its beginning is there already."""

    @property
    def kept(self) -> KeptAside | None:
        """What was moved aside for it."""

    def write(self, view: memoryview) -> None:
        """Append these bytes; the view is valid until this returns. Raises StoreFullError and StorageError."""

    def seal(self, *, durable: bool = True) -> None:
        """All is written: give the copy its time and mode and make it durable; with `durable` False, the caller will
        `flush` the store before it proves the copy."""

    def prove(self, sha256: str, ring: Ring) -> ReadBack:
        """Read the copy back, or compare what the server says of it. VerificationError where it is not `sha256`."""

    def publish(self, sha256: str, ring: Ring, *, durable: bool = True) -> None:
        """Give the copy its final name; other content of that name is kept aside first. With `durable` False, the
        caller will `flush` the store before it speaks of the copy."""


class Reading(Protocol):
    """A stored file that is read."""

    @property
    def facts(self) -> FileFacts:
        """Its size, time and mode, as the store keeps them."""

    def fill(self, view: memoryview) -> int:
        """Read on into the view; how many bytes, 0 at the end. Raises StorageError."""


class Store(Protocol):
    """A place for copies. Its methods may be called from several threads at once.

    Every method raises StorageError where the store cannot do it, with its reason and a remedy; `is_at_fault` says
    whether that is the whole store's trouble. Where `identity` is set, every method that touches the store first sees
    that the store still bears it (`wrong_store`): an empty folder or another disk in its place is never written to.
    `batches` says whether `flush` makes many copies durable for the price of one; `near`, whether it keeps up with the
    source: a store that is not (another host, a throttled one) is served by itself, and holds up no other.
    """

    name: str
    identity: UUID | None
    batches: bool
    near: bool

    def mark(self) -> UUID | None:
        """The identity that the store bears; None where it bears none. StorageError where the store is not there."""

    def set_mark(self, identity: UUID) -> None:
        """Have the store bear this identity, durably; refused where it bears another."""

    def space(self) -> Space | None:
        """What is left; None where there is no end to it, or the store does not tell."""

    def stored_name(self, relative: str) -> str:
        """What a copy of that path is called here, unless another file's name is too near (then `receive` says it)."""

    def size_of(self, stored_as: str) -> int | None:
        """Size in bytes of the file of that stored name; None where there is none."""

    def receive(self, relative: str, facts: FileFacts) -> AbstractContextManager[Incoming]:
        """Begin a copy of `relative`; unless it was published, leaving removes it again (or keeps it to be resumed).
        Raises StoreFullError where it cannot have room."""

    def flush(self) -> None:
        """Make durable whatever was sealed or published with `durable` False."""

    def read_back(self, stored_as: str, ring: Ring) -> ReadBack:
        """Read a stored file in full, as near to its medium as this store allows, and say what that proves."""

    def confirm(self, stored_as: str, sha256: str, size_bytes: int, ring: Ring) -> ReadBack:
        """See once more that a copy is whole, before something is deleted that relies on it: on a `server` store what
        the server says of it, on others by reading it. VerificationError where it is not `sha256`."""

    def reading(self, stored_as: str) -> AbstractContextManager[Reading]:
        """Open a stored file to be read from its beginning."""

    def move(self, stored_as: str, to: str) -> None:
        """Rename a stored file within the store, durably, making folders; never over a file that is there."""

    def remove(self, stored_as: str) -> bool:
        """Remove a stored file for good, durably; whether it was there. Folders that it leaves empty may go, too."""

    def walk(self) -> Iterator[Found]:
        """Every file of the store but its own, in no order."""

    def remove_partials(self) -> int:
        """Remove what killed copies left, save what can still be resumed, and say how many there were."""

    def is_at_fault(self, error: StorageError) -> bool:
        """Whether an error of this store is the whole store's and not one name's."""


def wrong_store(name: str, wanted: UUID, found: UUID | None) -> StorageError:
    """The error of a store that does not bear its identity: gone, replaced by an empty folder, or another one."""
    what = "bears no identity" if found is None else f"is another store ({found})"
    return StorageError(
        f"what lies in the place of store {name!r} {what}",
        expected=f"the store {wanted}, by its file {IDENTITY_NAME}",
        remedy=f"Mount the right disk; if the store was replaced on purpose, run `coldchain store adopt {name}`",
    )
