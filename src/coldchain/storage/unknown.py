"""Files that lie on a store and that the catalog does not know: listed, never touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from coldchain.catalog.engine import Catalog
from coldchain.catalog.stored_names import StoredNames
from coldchain.storage.store import Found, Store

_AT_ONCE = 1000
_MOST_KEPT = 50_000
"""So many files that are not called as their paths say are remembered before the store's copies are gone through."""


def unknown_files(catalog: Catalog, store: Store, *, tell: Callable[[int], None] = lambda _: None) -> Iterator[Found]:
    """The store's files under whose names the catalog knows no copy, in no order.

    The store's own files, its trash among them, are not listed by it. Memory does not grow with the store. `tell` is
    told how many more files were looked at. Raises StorageError and CatalogError.
    """
    names, walk = StoredNames(catalog, store.name), store.walk()
    odd: dict[str, Found] = {}
    while page := list(islice(walk, _AT_ONCE)):
        by_name = {found.stored_as: found for found in page}
        odd |= {name: by_name[name] for name in names.not_plain(list(by_name))}
        tell(len(page))
        if len(odd) >= _MOST_KEPT:
            yield from _unknown(names, odd)
            odd = {}
    yield from _unknown(names, odd)


def _unknown(names: StoredNames, odd: dict[str, Found]) -> Iterator[Found]:
    left = names.not_known(odd.keys())
    yield from (found for name, found in odd.items() if name in left)
