"""Who holds a store's root, and whether that is still the store.

The root is opened for the first that needs it, shared by all who have something in hand, and closed by the last.
Whoever takes it has first seen that the root's path leads to it and that it bears the store's identity.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock
from uuid import UUID

from coldchain.errors import StorageError
from coldchain.storage.identity_file import read_identity
from coldchain.storage.portable_names import NameRules, rules_of
from coldchain.storage.posix.names import Parts
from coldchain.storage.posix.root import HeldRoot
from coldchain.storage.posix.words import Place
from coldchain.storage.store import IDENTITY_NAME, wrong_store

_SEEN_SECONDS = 0.02
"""While something is in hand, so long is a root believed to be what it was when it was last looked at: a look takes as
long as writing a small file. A flush, and whoever makes a copy durable by itself, look again in any case."""


class RootKeeper:
    """Opens, shares and closes the root of one store. `partials` are the names of copies on their way."""

    def __init__(self, name: str, root: Path, identity: UUID | None) -> None:
        self.place = Place(name, root)
        self.identity = identity
        self.partials: set[str] = set()
        self._root = str(root)
        self._lock = Lock()
        self._current: HeldRoot | None = None
        self._retired: list[HeldRoot] = []
        self._durable: set[Parts] = set()
        self._durable_of: tuple[int, int, UUID | None] | None = None
        self._rules: tuple[int, NameRules] | None = None
        self._seen: tuple[tuple[int, ...], UUID | None] = ((), None)

    def take(self, *, whoever: bool = False, anew: bool = False) -> HeldRoot:
        """The open root, to be given back; with `whoever`, no matter which store it is; with `anew`, looked at now.

        Raises StorageError where the root is missing or not this store, OSError where it cannot be opened.
        """
        with self._lock:
            held = self._current
            if held is not None and not anew and held.seen_until > time.monotonic():
                held.holders += 1
                return held
            if held is not None and not held.is_in_place():
                self._retired.append(held)
                held = None
            if held is None:
                self._current = None
                held = self._current = self._opened()
            held.holders += 1
        try:
            if not whoever:
                self._require_identity(held)
        except BaseException:
            self.give_back(held)
            raise
        return held

    def give_back(self, held: HeldRoot) -> None:
        """Let go of a root that was taken."""
        with self._lock:
            held.holders -= 1
            if held.holders:
                return
            if held is self._current:
                self._current = None
            else:
                self._retired.remove(held)
        held.close()

    def holding(self, doing: str, relative: str = "", *, whoever: bool = False) -> _Holding:
        """A context that holds the root, and states the system's errors as having come of `doing`."""
        return _Holding(self, doing, relative, whoever)

    def require(self, held: HeldRoot, *, anew: bool = True) -> None:
        """Raise StorageError unless a root that was taken is still the store's, and OSError as `take`."""
        if not anew and held.seen_until > time.monotonic():
            return
        if not held.is_in_place():
            self.give_back(self.take(anew=True))  # says what is there instead, if that is not the store
            raise self._mounted_again()
        self._require_identity(held)

    def flush(self) -> None:
        """Flush whatever is held of this store. Raises OSError, and StorageError also where copies got their
        names in what was the store until it was mounted again."""
        held = self.take(anew=True)
        try:
            held.flush()
            with self._lock:
                if any(each.has_new_names for each in self._retired):
                    raise self._mounted_again()
        finally:
            self.give_back(held)

    def _mounted_again(self) -> StorageError:
        return StorageError(
            f"store {self.place.name!r} was mounted again, or failed, while a copy was on its way",
            remedy="Nothing: the copy is made again by itself",
            path=self.place.root,
        )

    def rules(self) -> NameRules:
        """What names the store's file system can hold. Raises OSError, and StorageError where the root is missing."""
        known = self._rules
        with suppress(OSError):
            if known is not None and known[0] == os.stat(self._root).st_dev:  # noqa: PTH116  # for every file
                return known[1]
        held = self.take(whoever=True)
        try:
            return self.rules_at(held)
        finally:
            self.give_back(held)

    def rules_at(self, held: HeldRoot) -> NameRules:
        """As `rules`, of a root that is held; asked again when another file system is mounted."""
        known = self._rules
        if known is None or known[0] != held.device:
            known = self._rules = (held.device, rules_of(held.type))
        return known[1]

    def mark_at(self, held: HeldRoot) -> UUID | None:
        """The identity in a root that is held, None where there is none; its file is read again where it is another.
        Raises OSError, and StorageError where it cannot be understood."""
        try:
            status = os.stat(IDENTITY_NAME, dir_fd=held.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        this = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        seen, mark = self._seen
        if seen != this:
            mark = read_identity(held.descriptor)
            self._seen = (this, mark)
        return mark

    def is_unusable(self) -> bool:
        """Whether the root cannot be opened, or does not bear the store's identity."""
        try:
            self.give_back(self.take())
        except (StorageError, OSError):
            return True
        return False

    def _require_identity(self, held: HeldRoot) -> None:
        if self.identity is not None and (found := self.mark_at(held)) != self.identity:
            raise wrong_store(self.place.name, self.identity, found)
        held.seen_until = time.monotonic() + _SEEN_SECONDS

    def _opened(self) -> HeldRoot:
        try:
            held = HeldRoot(self._root)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.place.missing() from error
        this = (held.device, held.inode, self.identity)
        if this != self._durable_of:  # another disk's folders: nothing is known of them
            self._durable, self._durable_of = set(), this
        held.durable = self._durable
        return held


class _Holding:
    """See `RootKeeper.holding`. A class, since it is entered for every small file."""

    __slots__ = ("_doing", "_held", "_keeper", "_relative", "_whoever")

    def __init__(self, keeper: RootKeeper, doing: str, relative: str, whoever: bool) -> None:
        self._keeper = keeper
        self._doing = doing
        self._relative = relative
        self._whoever = whoever

    def __enter__(self) -> HeldRoot:
        try:
            self._held = self._keeper.take(whoever=self._whoever)
        except OSError as error:
            raise self._keeper.place.stated(error, self._doing, self._relative) from error
        return self._held

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._keeper.give_back(self._held)
        if isinstance(error, OSError):
            raise self._keeper.place.stated(error, self._doing, self._relative) from error
