"""Seeing once more, just before a copy is cleared, that the copies which shall stay are whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from coldchain.errors import StorageError, VerificationError
from coldchain.model.files import VerificationLevel
from coldchain.model.retention import FileOnStores, StoredCopy
from coldchain.storage.ring import Ring
from coldchain.storage.store import Store


@dataclass(slots=True)
class Testimony:
    """What became of confirming copies.

    `confirmed` are the replicas that are whole, `read_again` those of them that were read in full; `damaged` says of
    those that are not, or are not there, what was found. `trouble` is why others could not be asked.
    """

    confirmed: set[UUID] = field(default_factory=set)
    read_again: set[UUID] = field(default_factory=set)
    damaged: dict[UUID, str] = field(default_factory=dict)
    trouble: str = ""


class Witnesses:
    """The stores as witnesses, for one pass: one that is at fault is not asked again before `forget`."""

    def __init__(self, stores: Mapping[str, Store]) -> None:
        self._stores = stores
        self._away: set[str] = set()
        self.ring = Ring()

    @property
    def away(self) -> frozenset[str]:
        """The stores that were at fault."""
        return frozenset(self._away)

    def forget(self) -> None:
        """Ask every store again."""
        self._away.clear()

    def confirm(
        self, file: FileOnStores, copies: Iterable[StoredCopy], *, levels: Collection[VerificationLevel], count: int
    ) -> Testimony:
        """Confirm `count` of these copies, those first that cost least; a proof of another level does not count."""
        said = Testimony()
        for copy in sorted(copies, key=lambda copy: copy.level is not VerificationLevel.SERVER):
            if len(said.confirmed) >= count:
                break
            store = self._stores.get(copy.store)
            if store is None or copy.store in self._away:
                said.trouble = said.trouble or f"store {copy.store} is away"
                continue
            level = self._level_of(store, file, copy, said)
            if level in levels:
                said.confirmed.add(copy.replica_id)
                if level is not VerificationLevel.SERVER:
                    said.read_again.add(copy.replica_id)
            elif level is not None:
                said.trouble = f"store {copy.store} could be read to the level {level} only"
        return said

    def _level_of(
        self, store: Store, file: FileOnStores, copy: StoredCopy, said: Testimony
    ) -> VerificationLevel | None:
        assert file.sha256 is not None  # nothing else counts
        try:
            return store.confirm(copy.location, file.sha256, file.size_bytes, self.ring).level
        except VerificationError as error:
            said.damaged[copy.replica_id] = error.found
        except StorageError as error:
            if is_missing(store, copy.location):
                said.damaged[copy.replica_id] = "it is not there any more"
            else:
                said.trouble = f"store {copy.store}: {error.found}"
                if store.is_at_fault(error):
                    self._away.add(copy.store)
        return None


def is_missing(store: Store, location: str) -> bool:
    """Whether a store that is there has no such file."""
    try:
        return store.size_of(location) is None
    except StorageError:
        return False
