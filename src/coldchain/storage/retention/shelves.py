"""The stores as clearing sees them, and among them the camera's disk: a store without identity for each root."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from coldchain.catalog import retirement
from coldchain.catalog.engine import Catalog
from coldchain.errors import StorageError
from coldchain.model.policy import SOURCE, Place, Tier
from coldchain.model.retention import FileOnStores, SessionLife, StoreView
from coldchain.storage.retention.witnesses import Witnesses
from coldchain.storage.store import Store

SourceOf = Callable[[Path], Store]


class Shelves:
    """A facility's stores.

    Parameters
    ----------
    stores : by name; `places` says of which tier they are.
    source : makes the store, without identity, that an instrument's root is; None where no rule clears the source.
    """

    def __init__(
        self, catalog: Catalog, stores: Mapping[str, Store], places: Sequence[Place], source: SourceOf | None = None
    ) -> None:
        self.stores = dict(stores)
        self.witnesses = Witnesses(self.stores)
        self._catalog = catalog
        self._tiers: dict[str, Tier] = {place.name: place.tier for place in places}
        self._source = source
        self._roots: dict[str, Store] = {}
        self._well: frozenset[str] = frozenset()

    @property
    def well(self) -> frozenset[str]:
        """The stores that could be relied on when they were last looked at, and have not failed since."""
        return self._well - self.witnesses.away

    def of(self, name: str, root: str) -> Store | None:
        """The store of that name; of the camera's disk, the one whose root that is."""
        if name != SOURCE:
            return self.stores.get(name)
        if self._source is None:
            return None
        if root not in self._roots:
            self._roots[root] = self._source(Path(root))
        return self._roots[root]

    def look(self) -> dict[str, StoreView]:
        """How every store is now. The camera's disk is not among them."""
        self.witnesses.forget()
        states = {name: self._state(name, store) for name, store in self.stores.items()}
        self._well = frozenset(name for name, state in states.items() if state.is_well)
        return states

    def look_again(self, name: str) -> StoreView:
        """How one store is by now."""
        return self._state(name, self.stores[name])

    def look_at_source(self, root: str) -> StoreView:
        """How the camera's disk with that root is now."""
        store = self.of(SOURCE, root)
        if store is None:
            return StoreView(SOURCE, None, trouble="it is not known to this service")
        return self._state(SOURCE, store)

    def _state(self, name: str, store: Store) -> StoreView:
        twin = self._twin(name, store)
        if twin:
            return StoreView(name, self._tiers.get(name), trouble=f"it is the same store as {twin}")
        try:
            space = store.space()
        except StorageError as error:
            return StoreView(name, self._tiers.get(name), trouble=error.found)
        total_bytes = None if space is None or not space.total_bytes else space.total_bytes
        return StoreView(
            name=name,
            tier=self._tiers.get(name),
            total_bytes=total_bytes,
            used_bytes=None if space is None or total_bytes is None else total_bytes - space.free_bytes,
            trash_bytes=retirement.trash_bytes(self._catalog, name),
        )

    def _twin(self, name: str, store: Store) -> str:
        """Another store of the same identity, "" where there is none: one tree that is reached twice is one copy, so
        that neither is cleared, and neither is a witness."""
        same = (other for other, each in self.stores.items() if other != name and each.identity == store.identity)
        return "" if store.identity is None else next(same, "")


def is_there(file: FileOnStores) -> bool:
    """Whether the source's root is: what is under a missing mount is empty, and nothing was cleared from that."""
    root = Path(file.root)
    try:
        return next(root.iterdir(), None) is not None
    except OSError:
        return False


def has_folder(session: SessionLife) -> bool:
    """Whether a session's own folder is at the source."""
    return Path(session.root, session.folder).is_dir()


def roots(sessions: Iterable[SessionLife]) -> list[str]:
    """The roots of sessions' own folders."""
    return sorted({session.root for session in sessions})
