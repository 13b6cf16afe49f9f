"""Clears a session's copies from a store: others confirmed, journalled, moved to the trash.

    VERIFIED ── others confirmed, journalled ──▶ RETIRING ── moved ──▶ TRASHED
    TRASHED ── grace over, others confirmed again, journalled ──▶ REMOVING ── removed ──▶ REMOVED

The catalog is told before a file is touched and after; `emptying` does the second half, and finds what a killed process
left. A copy that is found to be another than the catalog says is never moved on: it is said, and kept. Between its
confirmation and its move another version may have taken its name, so that what was moved is looked at once more.

The camera's disk (`SOURCE`) is a store without rows until a file is cleared from it; there, besides its digest, a file
must have the size and the time that were catalogued.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from coldchain.catalog import events, retirement, retiring
from coldchain.catalog.engine import Catalog
from coldchain.catalog.retiring import Intent
from coldchain.errors import StorageError, printable
from coldchain.model.events import Severity
from coldchain.model.files import ReplicaState
from coldchain.model.policy import SOURCE, RetireRule
from coldchain.model.retention import Amount, FileOnStores, Kept, SessionLife, counted, few_of
from coldchain.storage.retention import rules as retention
from coldchain.storage.retention import trash
from coldchain.storage.retention.foreseen import Foreseen
from coldchain.storage.retention.shelves import Shelves, has_folder, is_there
from coldchain.storage.retention.sighting import Sighting, see, why_other, why_other_bytes
from coldchain.storage.retention.trash import Where
from coldchain.storage.retention.witnesses import is_missing
from coldchain.storage.store import Store

BATCH_FILES = 64
BATCH_SECONDS = 20.0
"""No longer than this lies between a batch's first confirmation and its journal, save for one file's reading."""
UNKNOWN_STORE = "its store is not known to this service"
WITNESS_NOT_WHOLE = "a copy elsewhere is not whole any more"
NOT_ITSELF = "it is not what the catalog says"
DISPLACED = "another version had taken its name"
_CHANGED = "it has changed at the source"

Tell = Callable[[Amount], None]


def _silent(_: Amount) -> None:
    return None


@dataclass(slots=True)
class Report:
    """What became of a session's copies on a store: how much went or came back, why others stayed, what was bad; and of
    what was asked to come back, how much was removed for good before."""

    gone: Amount = field(default_factory=Amount)
    back: Amount = field(default_factory=Amount)
    lost: Amount = field(default_factory=Amount)
    kept: Kept = field(default_factory=Kept)
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

    def tally(
        self, rule: RetireRule, store: str, session: SessionLife, foreseen: Foreseen | None = None
    ) -> tuple[Amount, Kept]:
        """How much of a session may go from a store by its files, and why how many others stay there; with `foreseen`,
        after what a plan would have cleared by then."""
        amount, kept, foreseen = Amount(), Kept(), foreseen or Foreseen()
        for file in map(foreseen.seen, self.concerned(rule, store, session)):
            if foreseen.is_gone(file, store):
                continue
            reason = retention.why_file_stays(rule, file, store, self.shelves.well)
            if reason:
                kept.note(reason, file.relative_path)
            else:
                foreseen.consider(file)
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
                    report.kept.note(reason, file.relative_path)
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
        ready: list[tuple[Intent, Sighting]] = []
        for file in batch:
            if looked_at and (self.stopping.is_set() or time.monotonic() > began + BATCH_SECONDS):
                break
            looked_at += 1
            self.tell(Amount(1, file.size_bytes))
            reason = self._make_ready(rule, store, file, report, ready)
            if reason:
                report.kept.note(reason, file.relative_path)
        if ready:
            self._carry_out(rule, store, session, ready, report)
        return looked_at

    def _make_ready(
        self, rule: RetireRule, store: str, file: FileOnStores, report: Report, ready: list[tuple[Intent, Sighting]]
    ) -> str:
        """Confirm a file's copies elsewhere and its own, and add what is to be journalled; why it stays instead."""
        shelf = self.shelves.of(store, file.root)
        if shelf is None:
            return UNKNOWN_STORE
        said = self.shelves.witnesses.confirm(
            file,
            retention.counting(rule, file, store, self.shelves.well),
            levels=rule.levels,
            count=retention.needed(rule),
        )
        self.note_damaged(file, said.damaged, report)
        if len(said.confirmed) < retention.needed(rule):
            return said.trouble or WITNESS_NOT_WHOLE
        try:
            seen = see(shelf, store, _location(store, file), file)
            if store == SOURCE and not seen.is_as_catalogued:
                return _CHANGED
            if found := why_other_bytes(shelf, _location(store, file), file, self.shelves.witnesses.ring):
                return self._note_itself_bad(store, file, found, report)
            name = trash.free_name(shelf, _location(store, file), self.now())
        except StorageError as error:
            return self._why_unreadable(shelf, store, file, error, report)
        intent = Intent(file.id, frozenset(said.confirmed), frozenset(said.read_again), name)
        ready.append((intent, seen))
        return ""

    def _why_unreadable(self, shelf: Store, store: str, file: FileOnStores, error: StorageError, report: Report) -> str:
        if not is_missing(shelf, _location(store, file)):
            return error.found
        if store != SOURCE:
            return self._note_itself_bad(store, file, "it is not there any more", report)
        if is_there(file):
            retiring.note_source(self.catalog, {file.id: "it was not there to be cleared"}, ReplicaState.REMOVED)
        return "it is not at the source any more"

    def _note_itself_bad(self, store: str, file: FileOnStores, found: str, report: Report) -> str:
        if store == SOURCE:
            retiring.note_source(self.catalog, {file.id: found}, ReplicaState.DAMAGED)
            report.bad.append(f"{printable(file.relative_path)} at the source")
        else:
            copy = file.on(store)
            self.note_damaged(file, {} if copy is None else {copy.replica_id: found}, report)
        return NOT_ITSELF

    def note_damaged(self, file: FileOnStores, damaged: dict[UUID, str], report: Report) -> None:
        """Have copies that are not whole made again, and remember them for what is said at the end."""
        if retiring.damaged(self.catalog, damaged):
            stores = {copy.replica_id: copy.store for copy in file.copies}
            report.bad += [f"{printable(file.relative_path)} on {stores[replica]}" for replica in damaged]

    def _carry_out(
        self,
        rule: RetireRule,
        store: str,
        session: SessionLife,
        ready: Sequence[tuple[Intent, Sighting]],
        report: Report,
    ) -> None:
        def judge(fresh: SessionLife, file: FileOnStores, confirmed: frozenset[UUID]) -> str:
            if not retention.is_concerned(rule, file, store):
                return "somebody else has taken it in hand"
            return retention.why_session_stays(rule, fresh, store, self.now()) or retention.why_file_stays(
                rule, file, store, self.shelves.well, confirmed=confirmed
            )

        seen = {intent.file_id: sighting for intent, sighting in ready}
        intents = [intent for intent, _ in ready]
        begun = retiring.begin(self.catalog, session.id, store, intents, judge, now=self.now())
        report.kept.merge(begun.kept)
        if begun.files and not report.gone.files:
            message = f"its files are being moved from {store} to the trash there, by the rule {rule.name}"
            events.record(self.catalog, Severity.INFO, "replica.retiring", message, session_id=session.id)
        moved = [file for file in begun.files if self._move(store, file, seen[file.id], report)]
        retiring.trashed(self.catalog, [retiring.own_copy(file, store).replica_id for file in moved], now=self.now())
        for file in moved:
            report.add(file)

    def _move(self, store: str, file: FileOnStores, seen: Sighting, report: Report) -> bool:
        """Move a copy whose clearing is journalled; whether it lies in the trash now."""
        shelf, copy = self.shelves.of(store, file.root), retiring.own_copy(file, store)
        assert shelf is not None and copy.trashed_as is not None
        try:
            shelf.move(copy.location, copy.trashed_as)
        except StorageError as error:
            report.kept.note(error.found, file.relative_path)
            with suppress(StorageError):  # found out when the store is back
                if trash.find(shelf, copy) is Where.PLACE:
                    self.undo(store, file, seen, report)
            return False
        return self.is_moved(store, file, seen, report)

    def is_moved(self, store: str, file: FileOnStores, seen: Sighting, report: Report) -> bool:
        """Whether what lies in the trash is the copy that was meant. Something else is put back, and said; what cannot
        be looked at now is RETIRING until the next pass."""
        shelf, copy = self.shelves.of(store, file.root), retiring.own_copy(file, store)
        assert shelf is not None and copy.trashed_as is not None
        try:
            found = why_other(shelf, store, copy.trashed_as, seen, self.shelves.witnesses.ring)
        except StorageError as error:
            report.kept.note(error.found, file.relative_path)
            return False
        if found:
            report.kept.note(_CHANGED if store == SOURCE else DISPLACED, file.relative_path)
            self._put_other_back(shelf, store, file, found, report)
        return not found

    def _put_other_back(self, shelf: Store, store: str, file: FileOnStores, found: str, report: Report) -> None:
        copy = retiring.own_copy(file, store)
        assert copy.trashed_as is not None
        try:
            shelf.move(copy.trashed_as, copy.location)
        except StorageError:
            with suppress(StorageError):  # the next pass tries again
                if trash.find(shelf, copy) is Where.BOTH:
                    retiring.trashed(self.catalog, [copy.replica_id], now=self.now())
                    self.note_kept_in_trash(store, file, found, report)
            return
        self.undo(store, file, Sighting(file), report)

    def note_kept_in_trash(self, store: str, file: FileOnStores, found: str, report: Report) -> None:
        """What lies in the trash is not what the catalog says: it is kept there, and said once."""
        if retiring.kept_in_trash(self.catalog, {retiring.own_copy(file, store).replica_id: found}):
            report.bad.append(f"{printable(file.relative_path)} in the trash of {store}")

    def undo(self, store: str, file: FileOnStores, seen: Sighting, report: Report) -> None:
        """A copy whose clearing is journalled was not moved: it is as before, if it is what lies in its place; else it
        may have been kept aside for what does."""
        shelf, copy = self.shelves.of(store, file.root), retiring.own_copy(file, store)
        assert shelf is not None and file.sha256 is not None
        aside = f"{copy.location}.replaced-{file.sha256[:8]}"
        try:
            found = "" if store == SOURCE else why_other(shelf, store, copy.location, seen, self.shelves.witnesses.ring)
            is_aside = found != "" and shelf.size_of(aside) is not None
            is_aside = is_aside and not why_other_bytes(shelf, aside, file, self.shelves.witnesses.ring)
        except StorageError:
            return  # the next pass asks again
        if not found:  # at the source, what has changed is a new version, which the collector takes in
            retiring.restored(self.catalog, [copy.replica_id])
        elif is_aside:
            retiring.kept_aside(self.catalog, file, copy, aside, why=DISPLACED)
        else:
            self.note_damaged(file, {copy.replica_id: found}, report)

    def _say(self, rule: RetireRule, store: str, session: SessionLife, report: Report) -> None:
        self.say_bad(session, report)
        if report.gone.files:
            message = (
                f"{report.gone} {_lie(report.gone)} in the trash of {store} for "
                f"{rule.grace_days:g} days, by the rule {rule.name}. To bring them back: "
                f"coldchain store restore {session.shell_word} --store {store}"
            )
            events.record(self.catalog, Severity.INFO, "replica.trashed", message, session_id=session.id)

    def say_bad(self, session: SessionLife, report: Report) -> None:
        """Write one event of all the copies that were found not to be whole."""
        if report.bad:
            copies = counted(len(report.bad), "copy is", "copies are")
            message = f"{copies} not what the catalog says, and kept as found: {few_of(report.bad, len(report.bad))}"
            events.record(self.catalog, Severity.ERROR, "replica.damaged", message, session_id=session.id)
        report.bad.clear()


def _lie(amount: Amount) -> str:
    return "lies" if amount.files == 1 else "lie"


def _location(store: str, file: FileOnStores) -> str:
    if store == SOURCE:
        return file.source_name
    return retiring.own_copy(file, store).location
