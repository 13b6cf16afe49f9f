"""A store on another host, reached by SSH: a folder tree there, served by a small helper that is sent over the link.

The helper does there what `posix` does here: a copy is read back past *that* host's page cache, and hashed there. Only
the file's bytes cross the link, once. A copy that was cut off stays there under a name made of its path, size and
time, and the next `receive` of the same goes on behind the whole blocks that it finds. That they are right is proved
with all the rest, by the digest of what was read back; if it is not, the part is removed and the next try begins anew.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import PurePosixPath
from threading import Lock
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from coldchain.errors import SourceChangedError, StorageError, StoreFullError, VerificationError
from coldchain.model.files import KeptAside, VerificationLevel
from coldchain.storage.portable_names import NameRules, rules_of
from coldchain.storage.posix.names import name_under, parts_for_copy, parts_of
from coldchain.storage.readback import ReadBack
from coldchain.storage.ring import Ring
from coldchain.storage.ssh.channel import Answer, Channel, RemoteError
from coldchain.storage.ssh.faults import WholeStoreError, remote_error
from coldchain.storage.ssh.pool import ChannelPool
from coldchain.storage.ssh.remote_helper import BLOCK_BYTES
from coldchain.storage.ssh.settings import SshSettings
from coldchain.storage.store import FileFacts, Found, Space, wrong_store

RESUMABLE_SECONDS = 7 * 86400.0
"""How long a part is kept to be gone on with."""

# After the host was found to have started anew, or its disk to have lost something, no `flush` is believed for so long:
# what was published without being durable, by whichever thread, may be gone, and who published it flushes soon.
_DISTRUST_SECONDS = 60.0
_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


class SshStore:
    """The store `name` with its tree at `root` on the host of the settings. Nothing is connected before it is used.

    `close` ends the connections; also without it, none outlives the store or this process.
    """

    batches = True
    near = False

    def __init__(self, name: str, root: PurePosixPath, settings: SshSettings, *, identity: UUID | None = None) -> None:
        self.name = name
        self.root = root
        self.identity = identity
        self.settings = settings
        self._pool = ChannelPool(name, root, settings)
        self._lock = Lock()
        self._in_hand: set[str] = set()
        self._undurable: dict[str, int] = {}
        self._sequence = 0
        self._boots = 0
        self._distrusted_until = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections; what is under way fails."""
        self._pool.close()

    def mark(self) -> UUID | None:
        """The identity that the store bears; None where it bears none. StorageError where the store is not there."""
        found = self._call("looking for its identity", "", "mark").fields.get("store")
        with self.stating("looking for its identity"):
            return None if found is None else UUID(str(found))

    def set_mark(self, identity: UUID) -> None:
        """Have the store bear this identity, durably; refused where it bears another."""
        with self.stating("giving it its identity", wanted=identity), self._pool.lease() as channel:
            channel.call("set_mark", store=str(identity), name=self.name)

    def space(self) -> Space:
        """What is left. Raises StorageError where the host or the root is missing."""
        found = self._call("asking for its free space", "", "space")
        with self.stating("asking for its free space"):
            return Space(found.number("free"), found.number("files"), found.number("total"))

    def stored_name(self, relative: str) -> str:
        """The path itself, but for parts that no file system holds (see `portable_names`). StorageError where it cannot
        be a copy's."""
        stored_as = name_under(relative, NameRules.POSIX)
        parts_for_copy(stored_as)
        return stored_as

    def size_of(self, stored_as: str) -> int | None:
        """Size in bytes of the regular file of that name; None where there is none."""
        found = self._call("looking at it", stored_as, "size", name=_sent(stored_as))
        if found.fields.get("size") is None:
            return None
        with self.stating("looking at it", stored_as):
            return found.number("size")

    @contextmanager
    def receive(self, relative: str, facts: FileFacts) -> Iterator[SshIncoming]:
        """Begin a copy of `relative`, or go on with it. Unless it was published, leaving removes what is less than a
        block, or of no use: the source changed, the store is full, the proof failed. All else stays to be resumed."""
        stored_as = self.stored_name(relative)
        key = _key(stored_as, facts)
        with self._lock:
            if key in self._in_hand:  # another thread is at it: a part of its own, then
                key = uuid4().hex
            self._in_hand.add(key)
        try:
            with self._begun(stored_as, facts, key) as incoming:
                yield incoming
        finally:
            with self._lock:
                self._in_hand.discard(key)

    @contextmanager
    def _begun(self, stored_as: str, facts: FileFacts, key: str) -> Iterator[SshIncoming]:
        # Its channel counts as loaded while it is written; many that were sealed may wait for one flush.
        with ExitStack() as loading:
            with self.stating("beginning the copy", stored_as):
                channel = loading.enter_context(self._pool.lease())
                self._require_any_names(channel)
                handle = channel.new_handle()
                fields = {"store": self.sent_identity(), "name": _sent(stored_as), "size": facts.size_bytes, "key": key}
                skip_bytes = 0
                if facts.size_bytes > BLOCK_BYTES:
                    skip_bytes = channel.call("begin", h=handle, **fields).number("skip")
                else:  # nothing of it can be there: the answer is not waited for
                    channel.post("begin", handle, **fields)
            with SshIncoming(self, channel, handle, stored_as, facts, skip_bytes, loading.close) as incoming:
                yield incoming

    def flush(self) -> None:
        """Make durable whatever was sealed or published with `durable` False: one `syncfs` for each file system."""
        with self._lock:
            wanted = dict(self._undurable)
        self._require_trust()
        if wanted or self.identity is not None:
            with self._pool.lease() as channel:
                self._require_trust()  # once more: a new connection tells
                self._flush_all(channel, sorted(wanted))
        with self._lock:
            for folder, sequence in wanted.items():
                if self._undurable.get(folder) == sequence:
                    del self._undurable[folder]

    def _flush_all(self, channel: Channel, folders: Sequence[str]) -> None:
        """Each helper that wrote flushes itself: it has held the file system open, so the kernel tells it what was
        lost; and its answer comes after all that it was sent before."""
        channels = [other for other in self._pool.channels if other.is_undurable and other is not channel]
        try:
            for each in (channel, *channels):
                each.is_undurable = False
                with self.stating("making the copies durable"):
                    each.call("flush", store=self.sent_identity(), folders=folders)
        except StorageError as error:
            if getattr(error.__cause__, "errno", None) in _LOST:
                with self._lock:  # the kernel tells it once, and it may be another thread's loss
                    self._distrusted_until = time.monotonic() + _DISTRUST_SECONDS
            raise

    def note_undurable(self, stored_as: str, channel: Channel) -> None:
        """Remember that something in the folder of that name is to be made durable by the next `flush`."""
        channel.is_undurable = True
        folder = stored_as.rpartition("/")[0]
        with self._lock:
            self._sequence += 1
            self._undurable[_sent(folder) if folder else ""] = self._sequence

    def read_back(self, stored_as: str, ring: Ring) -> ReadBack:
        """Have the host read a stored file in full, past its page cache, and see that its name is durable."""
        del ring  # the helper has its own
        found = self._call("reading it back", stored_as, "read_back", name=_sent(stored_as))
        with self.stating("reading it back", stored_as):
            return read_back_of(found)

    def confirm(self, stored_as: str, sha256: str, size_bytes: int, ring: Ring) -> ReadBack:
        """Read it back once more. VerificationError where it is not `sha256`."""
        found = self.read_back(stored_as, ring)
        if (found.sha256, found.size_bytes) != (sha256, size_bytes):
            raise VerificationError(
                f"store {self.name!r} holds {found.size_bytes:,} bytes of SHA-256 {found.sha256}",
                expected=f"{size_bytes:,} bytes of SHA-256 {sha256}",
                remedy="Mend it from another copy by `coldchain store repair`",
                path=self.place(stored_as),
            )
        return found

    @contextmanager
    def reading(self, stored_as: str) -> Iterator[SshReading]:
        """Open a stored file to be read from its beginning."""
        with self._pool.lease() as channel:
            with self.stating("opening it", stored_as):
                handle = channel.new_handle()
                opened = channel.call("read", h=handle, store=self.sent_identity(), name=_sent(stored_as))
                facts = FileFacts(opened.number("size"), opened.number("time"), opened.number("mode"))
            try:
                yield SshReading(self, channel, handle, stored_as, facts)
            finally:
                leave(channel, handle)

    def move(self, stored_as: str, to: str) -> None:
        """Rename a stored file within the store, durably, making folders; never over a file that is there."""
        self._call("renaming it", stored_as, "move", name=_sent(stored_as), to=_sent(to))

    def remove(self, stored_as: str) -> bool:
        """Remove a stored file for good, durably; whether it was there."""
        return bool(self._call("removing it", stored_as, "remove", name=_sent(stored_as)).fields.get("there"))

    def walk(self) -> Iterator[Found]:
        """Every file of the store but its own, in no order."""
        doing = "listing its files"
        with self._pool.lease() as channel:
            with self.stating(doing):
                handle = channel.new_handle()
                channel.call("walk", h=handle, store=self.sent_identity())
            try:
                while files := self._page(channel, handle, doing):
                    yield from files
            finally:
                leave(channel, handle)

    def _page(self, channel: Channel, handle: int, doing: str) -> list[Found]:
        with self.stating(doing):
            files = channel.call("page", h=handle).fields["files"]
            if not isinstance(files, list):
                raise TypeError("no list")
            return [Found("/".join(parts_of(_received(name))), int(size_bytes)) for name, size_bytes in files]

    def remove_partials(self) -> int:
        """Remove what killed copies left: what is less than a block at once, what could be resumed after a week."""
        with self._lock:
            in_hand = sorted(self._in_hand)
        done = self._call("removing what killed copies left", "", "sweep", in_hand=in_hand, age=RESUMABLE_SECONDS)
        with self.stating("removing what killed copies left"):
            return done.number("removed")

    def is_at_fault(self, error: StorageError) -> bool:
        """Whether an error of this store is the whole store's: the host or the link is away, the root is missing or
        another, the disk is full, failing or read-only. Other files then need not be tried before it is well again."""
        return isinstance(error, StoreFullError) or isinstance(error.__cause__, WholeStoreError)

    def place(self, stored_as: str = "") -> str:
        """Where that is, as an error names it."""
        return f"{self.settings.host}:{self.root / stored_as}"

    @contextmanager
    def stating(self, doing: str, stored_as: str = "", *, wanted: UUID | None = None) -> Iterator[None]:
        """Turn what the far side refuses, or says wrongly, into the store's error."""
        try:
            yield
        except RemoteError as refusal:
            stated = self._stated(doing, stored_as, refusal.fields, wanted or self.identity)
            raise stated from stated.__cause__
        except (TypeError, ValueError, KeyError) as error:
            raise StorageError(
                f"store {self.name!r}: {doing} failed: the helper on the host gave an answer that cannot be",
                remedy="See that the host is the one that is meant",
                path=self.place(stored_as),
            ) from WholeStoreError(str(error))

    def _stated(self, doing: str, stored_as: str, fields: Mapping[str, object], wanted: UUID | None) -> StorageError:
        if fields.get("kind") == "identity" and wanted is not None:
            found = fields.get("found")
            error = wrong_store(self.name, wanted, _uuid(found))
            error.__cause__ = WholeStoreError("another store")
            return error
        return remote_error(self.name, doing, self.place(stored_as), fields, root=self.place())

    def _call(self, doing: str, stored_as: str, op: str, **fields: object) -> Answer:
        with self.stating(doing, stored_as), self._pool.lease() as channel:
            return channel.call(op, store=self.sent_identity(), **fields)

    def sent_identity(self) -> str | None:
        """The identity that the far side shall require, as it travels."""
        return None if self.identity is None else str(self.identity)

    def _require_any_names(self, channel: Channel) -> None:
        """Raise StorageError where the root's file system, like a drive for Windows, takes two names for one."""
        if channel.kind is None:
            channel.kind = channel.call("kind", store=self.sent_identity()).text("type")
        if rules_of(channel.kind) is not NameRules.POSIX:
            raise StorageError(
                f"store {self.name!r} lies on {channel.kind}, which cannot hold every name",
                expected="a file system of Linux on that host, such as ext4, XFS or Lustre",
                remedy="Attach that drive to this host and use it as a store here, or take another folder there",
                path=self.place(),
            ) from WholeStoreError(channel.kind)

    def _require_trust(self) -> None:
        """Raise StorageError where the host lost what was not durable yet: it went down, or its disk failed."""
        with self._lock:
            if self._pool.boots != self._boots:
                self._boots = self._pool.boots
                if self._undurable:
                    self._distrusted_until = time.monotonic() + _DISTRUST_SECONDS
                    self._undurable.clear()
            distrusted = time.monotonic() < self._distrusted_until
        if distrusted:
            raise StorageError(
                f"store {self.name!r}: the host started anew, or its disk failed, before what was written was durable",
                remedy="Nothing to do: the copies are looked at and made again",
                path=self.place(),
            ) from WholeStoreError("what was written may be lost")

    def pool(self) -> ChannelPool:
        """Its channels."""
        return self._pool


class SshIncoming:
    """A copy on its way to another host: `write` what follows `skip_bytes`, `seal`, `prove`, `publish`. Made by
    `SshStore.receive`. Writing is not waited for, nor the beginning of a small copy, nor a seal that is not durable: a
    failure of these is told by one of the calls that follow it."""

    def __init__(
        self,
        store: SshStore,
        channel: Channel,
        handle: int,
        stored_as: str,
        facts: FileFacts,
        skip_bytes: int,
        unload: Callable[[], None],
    ) -> None:
        self.stored_as = stored_as
        self.skip_bytes = skip_bytes
        self.kept: KeptAside | None = None
        self._store = store
        self._channel = channel
        self._handle = handle
        self._facts = facts
        self._unload = unload
        self._published = False
        self._keep = True
        self._used = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.forget(self._handle)
        if self._published:
            return
        keep = self._keep and not isinstance(error, SourceChangedError)
        if error is not None or self._used:
            leave(self._channel, self._handle, keep=keep)
        else:  # nobody has waited for its beginning, which may have failed
            with self._stating("beginning the copy"):
                self._call("leave", keep=keep)

    def write(self, view: memoryview) -> None:
        """Append these bytes. Raises StoreFullError and StorageError, perhaps of an earlier write."""
        with self._stating("writing the copy"):
            self._channel.write(self._handle, view)
            failure = self._channel.failures.pop(self._handle, None)
            if failure is not None:
                raise RemoteError(failure)

    def seal(self, *, durable: bool = True) -> None:
        """Give the copy its time and mode, and make it durable; with `durable` False, `flush` shall do that."""
        with self._stating("making the copy durable"):
            mode, modified_ns = self._facts.mode, self._facts.modified_ns
            if durable:
                self._call("seal", mode=mode, time=modified_ns, durable=True)
            else:  # `flush` sees that it is done
                self._channel.post("seal", self._handle, mode=mode, time=modified_ns, durable=False)
                self._store.note_undurable(self.stored_as, self._channel)
        self._unload()

    def prove(self, sha256: str, ring: Ring) -> ReadBack:
        """Have the host read the copy back, and compare. VerificationError where it is not what was written."""
        del ring  # the helper has its own
        with self._stating("reading the copy back"):
            told = self._channel.proofs.pop(self._handle, None)  # with the proof of one before it
            found = read_back_of(told or self._call("prove", sha256=sha256))
        if found.sha256 != sha256:
            self._keep = False
            again = "; it had been gone on with, and is copied from its beginning next time" if self.skip_bytes else ""
            raise VerificationError(
                f"store {self._store.name!r} gave back {found.size_bytes:,} bytes of SHA-256 {found.sha256}{again}",
                expected=f"SHA-256 {sha256}",
                remedy="The copy is removed and made again; if this comes back, test that host's disk and memory",
                path=self._store.place(self.stored_as),
            )
        return found

    def publish(self, sha256: str, ring: Ring, *, durable: bool = True) -> None:
        """Give the copy its final name; other content of that name is kept aside first."""
        del ring
        if not durable:
            self._store.note_undurable(self.stored_as, self._channel)
        with self._stating("giving the copy its name"):
            try:
                where = {"store": self._store.sent_identity(), "name": _sent(self.stored_as)}
                done = self._call("publish", sha256=sha256, durable=durable, **where)
            except RemoteError as refusal:
                self._note_kept(refusal.fields.get("kept"))
                raise
            self._published = True
            self._note_kept(done.fields.get("kept"))

    def _note_kept(self, kept: object) -> None:
        if isinstance(kept, dict):
            aside = PurePosixPath(self.stored_as).parent / _received(kept["name"])
            sha256 = kept["sha256"]
            self.kept = KeptAside(path=str(aside), sha256=None if sha256 is None else str(sha256))

    def _call(self, op: str, **fields: object) -> Answer:
        with self._store.pool().use(self._channel):
            return self._channel.call(op, h=self._handle, **fields)

    @contextmanager
    def _stating(self, doing: str) -> Iterator[None]:
        self._used = True
        try:
            with self._store.stating(doing, self.stored_as):
                yield
        except StorageError as error:
            if isinstance(error, StoreFullError):
                self._keep = False  # what cannot be finished shall not take the room of what can
            raise


class SshReading:
    """A stored file that is read. Made by `SshStore.reading`."""

    def __init__(self, store: SshStore, channel: Channel, handle: int, stored_as: str, facts: FileFacts) -> None:
        self.facts = facts
        self._store = store
        self._channel = channel
        self._handle = handle
        self._stored_as = stored_as

    def fill(self, view: memoryview) -> int:
        """Read on into the view; how many bytes, 0 at the end."""
        with self._store.stating("reading it", self._stored_as):
            payload = self._channel.call("fill", h=self._handle, length=min(len(view), BLOCK_BYTES)).payload
            view[: len(payload)] = payload
            return len(payload)


def leave(channel: Channel, handle: int, *, keep: bool = False) -> None:
    """Let go of what a handle stands for; a link that is lost has let go of it."""
    with suppress(StorageError, RemoteError):
        channel.call("leave", h=handle, keep=keep)


def read_back_of(answer: Answer) -> ReadBack:
    """What the helper found, as a value. TypeError and ValueError where it cannot be."""
    return ReadBack(answer.text("sha256"), answer.number("size"), VerificationLevel(answer.text("level")))


def _sent(stored_as: str) -> str:
    """A stored name as it travels: its bytes as Latin-1. StorageError where it can be none."""
    parts_of(stored_as)
    try:
        return os.fsencode(stored_as).decode("latin-1")
    except UnicodeEncodeError as error:
        raise StorageError("no file can have this name", remedy="Rename it", path=ascii(stored_as)) from error


def _uuid(text: object) -> UUID | None:
    try:
        return None if text is None else UUID(str(text))
    except ValueError:
        return None


def _received(name: object) -> str:
    return os.fsdecode(str(name).encode("latin-1"))


def _key(stored_as: str, facts: FileFacts) -> str:
    """32 hexadecimal digits that name the part of this version of this file."""
    version = b"%s\0%d\0%d" % (os.fsencode(stored_as), facts.size_bytes, facts.modified_ns)
    return hashlib.sha256(version).hexdigest()[:32]
