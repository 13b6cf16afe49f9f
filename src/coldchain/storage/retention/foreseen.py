"""What a plan would clear, while it is made: a copy that one rule clears is no witness for the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from coldchain.model.files import ReplicaState
from coldchain.model.retention import Amount, FileOnStores


class Foreseen:
    """Which copies a plan has cleared so far. Of each target, files are considered first; `clear` says whose go."""

    def __init__(self) -> None:
        self._gone: defaultdict[UUID, set[str]] = defaultdict(set)
        self._considered: defaultdict[UUID, list[UUID]] = defaultdict(list)
        self._bytes: defaultdict[str, int] = defaultdict(int)

    def bytes_on(self, store: str) -> int:
        """How much of a store would be on its way to the trash."""
        return self._bytes[store]

    def is_gone(self, file: FileOnStores, store: str) -> bool:
        """Whether a file's copy on a store would be gone."""
        return store in self._gone.get(file.id, ())

    def seen(self, file: FileOnStores) -> FileOnStores:
        """A file with its copies as they would be."""
        gone = self._gone.get(file.id)
        if not gone:
            return file
        copies = (replace(c, state=ReplicaState.RETIRING) if c.store in gone else c for c in file.copies)
        return replace(file, copies=tuple(copies))

    def consider(self, file: FileOnStores) -> None:
        """By its files' state, this one may go from the store that is looked at."""
        self._considered[file.session_id].append(file.id)

    def clear(self, store: str, sessions: Iterable[tuple[UUID, Amount]]) -> None:
        """Of that store these sessions are cleared; what was considered of others stays."""
        for session_id, amount in sessions:
            self._bytes[store] += amount.size_bytes
            for file_id in self._considered[session_id]:
                self._gone[file_id].add(store)
        self._considered.clear()
