"""Clears a session's copies from a store: others confirmed, journalled, moved to the trash.

    VERIFIED ── others confirmed, journalled ──▶ RETIRING ── moved ──▶ TRASHED
    TRASHED ── grace over, others confirmed again, journalled ──▶ REMOVING ── removed ──▶ REMOVED

The catalog is told before a file is touched and after; `emptying` does the second half, and finds what a killed process
left. A copy that is found to be another than the catalog says is never moved on: it is said, and kept.

The camera's disk (`SOURCE`) is a store without rows until a file is cleared from it; there, besides its digest, a file
must have the size and the time that were catalogued.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from coldchain.catalog import events, retirement, retiring
from coldchain.catalog.engine import Catalog
from coldchain.catalog.retiring import Intent
from coldchain.errors import StorageError, VerificationError, printable
from coldchain.model.events import Severity
from coldchain.model.files import ReplicaState
from coldchain.model.policy import SOURCE, RetireRule
from coldchain.model.retention import Amount, FileOnStores, SessionLife, StoredCopy
from coldchain.storage.retention import rules as retention
from coldchain.storage.retention import trash
from coldchain.storage.retention.shelves import Shelves, has_folder, is_there
from coldchain.storage.retention.trash import Where
from coldchain.storage.retention.witnesses import is_missing
from coldchain.storage.store import Store
from coldchain.units import byte_size

BATCH_FILES = 64
BATCH_SECONDS = 20.0
"""No longer than this lies between a batch's first confirmation and its journal, save for one file's reading."""
_NAMES_TOLD = 3

Tell = Callable[[Amount], None]


def _silent(_: Amount) -> None:
    return None


@dataclass(slots=True)
class Report:
    """What became of a session's copies on a store: how much went or came back, why others stayed, what was bad."""

    gone: Amount = field(default_factory=Amount)
    back: Amount = field(default_factory=Amount)
    kept: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def add(self, file: FileOnStores) -> None:
        """A file has gone."""
        self.gone += Amount(1, file.size_bytes)


class Clearing:
    """Clears by rules, one session's copies on one store at a time.

    `stopping` is asked between files. `tell` is told of every file that was looked at.
    """

    def __init__(
        self,
        catalog: Catalog,
        shelves: Shelves,
        *,
        stopping: threading.Event | None = None,
        tell: Tell = _silent,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.catalog = catalog
        self.shelves = shelves
        self.stopping = stopping or threading.Event()
        self.tell = tell
        self.now = now

    def tally(self, rule: RetireRule, store: str, session: SessionLife) -> tuple[Amount, Counter[str]]:
        """How much of a session may go from a store by its files, and why how many others stay there."""
        amount, kept = Amount(), Counter[str]()
        for file in self.concerned(rule, store, session):
            reason = retention.why_file_stays(rule, file, store, self.shelves.well)
            if reason:
                kept[reason] += 1
            else:
                amount += Amount(1, file.size_bytes)
        return amount, kept

    def concerned(self, rule: RetireRule, store: str, session: SessionLife) -> Iterator[FileOnStores]:
        """A session's files of which something lies on a store that the rule may speak of, in pages."""
        if store == SOURCE and not has_folder(session):
            return
        after: UUID | None = None
        while True:
            page = retirement.page(self.catalog, session.id, after=after)
            yield from (file for file in page if retention.is_concerned(rule, file, store))
            if len(page) < retirement.AT_ONCE:
                return
            after = page[-1].id

    def clear(self, rule: RetireRule, store: str, session: SessionLife) -> Report:
        """Move what may go of a session from a store to its trash, and say so. Raises CatalogError."""
        report = Report()
        batch: list[FileOnStores] = []
        try:
            for file in self.concerned(rule, store, session):
                if reason := retention.why_file_stays(rule, file, store, self.shelves.well):
                    report.kept[reason] += 1
                    continue
                batch.append(file)
                if len(batch) == BATCH_FILES:
                    self._clear_all(rule, store, session, batch, report)
                    batch = []
                if self.stopping.is_set():
                    return report
            self._clear_all(rule, store, session, batch, report)
            return report
        finally:
            self._say(rule, store, session, report)

    def _clear_all(
        self, rule: RetireRule, store: str, session: SessionLife, batch: Sequence[FileOnStores], report: Report
    ) -> None:
        left = list(batch)
        while left and not self.stopping.is_set():
            done = self._clear_some(rule, store, session, left, report)
            left = left[done:]

    def _clear_some(
        self, rule: RetireRule, store: str, session: SessionLife, batch: Sequence[FileOnStores], report: Report
    ) -> int:
        """Clear the first files of a batch, as many as can be confirmed in a short time; how many were looked at."""
        began, looked_at = time.monotonic(), 0
        intents: list[Intent] = []
        for file in batch:
            if looked_at and (self.stopping.is_set() or time.monotonic() > began + BATCH_SECONDS):
                break
            looked_at += 1
            self.tell(Amount(1, file.size_bytes))
            intent = self._intent(rule, store, file, report)
            if intent is not None:
                intents.append(intent)
        if intents:
            self._carry_out(rule, store, session, intents, report)
        return looked_at

    def _intent(self, rule: RetireRule, store: str, file: FileOnStores, report: Report) -> Intent | None:
        """What is to be journalled of a file, once its copies elsewhere and its own are confirmed."""
        shelf = self.shelves.of(store, file.root)
        if shelf is None:
            report.kept["its store is not known to this service"] += 1
            return None
        said = self.shelves.witnesses.confirm(
            file,
            retention.counting(rule, file, store, self.shelves.well),
            levels=rule.levels,
            count=retention.needed(rule),
        )
        self.note_damaged(file, said.damaged, report)
        if len(said.confirmed) < retention.needed(rule):
            report.kept[said.trouble or "a copy elsewhere is not whole any more"] += 1
            return None
        reason = self._why_not_itself(shelf, store, file, report)
        if reason:
            report.kept[reason] += 1
            return None
        try:
            name = trash.free_name(shelf, _location(store, file), self.now())
        except StorageError as error:
            report.kept[error.found] += 1
            return None
        return Intent(file.id, frozenset(said.confirmed), frozenset(said.read_again), name)

    def _why_not_itself(self, shelf: Store, store: str, file: FileOnStores, report: Report) -> str:
        """Why the copy itself is not to be moved: it is not what the catalog says."""
        location, sha256 = _location(store, file), file.sha256
        assert sha256 is not None
        try:
            if store == SOURCE and not is_as_catalogued(shelf, location, file):
                return "it has changed at the source"
            shelf.confirm(location, sha256, file.size_bytes, self.shelves.witnesses.ring)
        except VerificationError as error:
            return self._note_itself_bad(store, file, error.found, report)
        except StorageError as error:
            if not is_missing(shelf, location):
                return error.found
            if store != SOURCE:
                return self._note_itself_bad(store, file, "it is not there any more", report)
            if is_there(file):
                retiring.note_source(self.catalog, {file.id: "it was not there to be cleared"}, ReplicaState.REMOVED)
            return "it is not at the source any more"
        return ""

    def _note_itself_bad(self, store: str, file: FileOnStores, found: str, report: Report) -> str:
        if store == SOURCE:
            retiring.note_source(self.catalog, {file.id: found}, ReplicaState.DAMAGED)
            report.bad.append(f"{printable(file.relative_path)} at the source")
        else:
            copy = file.on(store)
            self.note_damaged(file, {} if copy is None else {copy.replica_id: found}, report)
        return "it is not what the catalog says"

    def note_damaged(self, file: FileOnStores, damaged: dict[UUID, str], report: Report) -> None:
        """Have copies that are not whole made again, and remember them for what is said at the end."""
        if retiring.damaged(self.catalog, damaged):
            stores = {copy.replica_id: copy.store for copy in file.copies}
            report.bad += [f"{printable(file.relative_path)} on {stores[replica]}" for replica in damaged]

    def _carry_out(
        self, rule: RetireRule, store: str, session: SessionLife, intents: Sequence[Intent], report: Report
    ) -> None:
        def judge(fresh: SessionLife, file: FileOnStores, confirmed: frozenset[UUID]) -> str:
            if not retention.is_concerned(rule, file, store):
                return "somebody else has taken it in hand"
            return retention.why_session_stays(rule, fresh, store, self.now()) or retention.why_file_stays(
                rule, file, store, self.shelves.well, confirmed=confirmed
            )

        begun = retiring.begin(self.catalog, session.id, store, intents, judge, now=self.now())
        report.kept += begun.kept
        if begun.files and not report.gone.files:
            message = f"its files are being moved from {store} to the trash there, by the rule {rule.name}"
            events.record(self.catalog, Severity.INFO, "replica.retiring", message, session_id=session.id)
        moved = [file for file in begun.files if self._move(store, file, report)]
        retiring.trashed(self.catalog, [retiring.own_copy(file, store).replica_id for file in moved], now=self.now())
        for file in moved:
            report.add(file)

    def _move(self, store: str, file: FileOnStores, report: Report) -> bool:
        """Move a copy whose clearing is journalled; whether it lies in the trash now."""
        shelf, copy = self.shelves.of(store, file.root), retiring.own_copy(file, store)
        assert shelf is not None and copy.trashed_as is not None
        try:
            shelf.move(copy.location, copy.trashed_as)
            if store == SOURCE and not is_as_catalogued(shelf, copy.trashed_as, file):
                shelf.move(copy.trashed_as, copy.location)  # written to since it was read
        except StorageError as error:
            report.kept[error.found] += 1
            return self._after_failed_move(shelf, copy)
        if store == SOURCE and trash.find(shelf, copy) is Where.PLACE:
            report.kept["it has changed at the source"] += 1
            retiring.restored(self.catalog, [copy.replica_id])
            return False
        return True

    def _after_failed_move(self, shelf: Store, copy: StoredCopy) -> bool:
        try:
            where = trash.find(shelf, copy)
        except StorageError:
            return False  # found out when the store is back
        if where is Where.PLACE:
            retiring.restored(self.catalog, [copy.replica_id])
        return where is Where.TRASH

    def _say(self, rule: RetireRule, store: str, session: SessionLife, report: Report) -> None:
        self.say_bad(session, report)
        if report.gone.files:
            message = (
                f"{report.gone.files:,} files ({byte_size(report.gone.size_bytes)}) lie in the trash of {store} for "
                f"{rule.grace_days:g} days, by the rule {rule.name}. To bring them back: "
                f"coldchain store restore {session.shell_word} --store {store}"
            )
            events.record(self.catalog, Severity.INFO, "replica.trashed", message, session_id=session.id)

    def say_bad(self, session: SessionLife, report: Report) -> None:
        """Write one event of all the copies that were found not to be whole."""
        if report.bad:
            more = len(report.bad) - _NAMES_TOLD
            named = ", ".join(report.bad[:_NAMES_TOLD]) + (f" and {more} more" if more > 0 else "")
            message = f"{len(report.bad):,} copies are not what the catalog says, and are kept as they are: {named}"
            events.record(self.catalog, Severity.ERROR, "replica.damaged", message, session_id=session.id)
        report.bad.clear()


def is_as_catalogued(shelf: Store, location: str, file: FileOnStores) -> bool:
    """Whether a file at the source still has the size and the time with which it was taken in. Raises StorageError."""
    with shelf.reading(location) as opened:
        return (opened.facts.size_bytes, opened.facts.modified_ns) == (file.size_bytes, file.modified_ns)


def _location(store: str, file: FileOnStores) -> str:
    if store == SOURCE:
        return file.source_name
    return retiring.own_copy(file, store).location
