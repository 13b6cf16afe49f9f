"""What lies in stores' trashes: removed when its grace time is over, put back when it is wanted, found after a kill.

What a killed process left RETIRING is found where it lies: in its place, then nothing has happened to it; in the trash,
then it is TRASHED. What it left REMOVING is treated as TRASHED while it is there: its copies are confirmed once more.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from uuid import UUID

from coldchain.catalog import events, retirement, retiring
from coldchain.catalog.retiring import Intent
from coldchain.errors import StorageError, VerificationError
from coldchain.model.events import Severity
from coldchain.model.files import ReplicaState
from coldchain.model.policy import SOURCE, RetireRule
from coldchain.model.retention import Amount, FileOnStores, Kept, SessionLife, StoreView
from coldchain.storage.retention import rules as retention
from coldchain.storage.retention import trash
from coldchain.storage.retention.clearing import (
    BATCH_FILES,
    BATCH_SECONDS,
    NOT_ITSELF,
    UNKNOWN_STORE,
    WITNESS_NOT_WHOLE,
    Clearing,
    Report,
)
from coldchain.storage.retention.shelves import is_there
from coldchain.storage.retention.sighting import Sighting, why_other, why_other_bytes
from coldchain.storage.retention.trash import Where

_LOST = "it lies neither in its place nor in the trash"
_GONE = "it is not in the trash any more"


class Emptying:
    """Sees to the trash of one store at a time; `rules` are all of the facility's."""

    def __init__(self, clearing: Clearing, rules: Sequence[RetireRule]) -> None:
        self._clearing = clearing
        self._catalog = clearing.catalog
        self._shelves = clearing.shelves
        self._rules = rules

    def finish_begun(self, store: str) -> Amount:
        """Find what a killed process was moving to a store's trash; how much lies there. Raises CatalogError."""
        found: defaultdict[UUID, Report] = defaultdict(Report)
        for file in self._in_state(store, ReplicaState.RETIRING):
            if self._finish_one(store, file, found[file.session_id]):
                found[file.session_id].add(file)
        for session_id, report in found.items():
            self._clearing.say_bad(retirement.life_of(self._catalog, session_id), report)
            if report.gone.files:
                message = f"cleared from {store} as was begun, in the trash there now: {report.gone}"
                events.record(self._catalog, Severity.INFO, "replica.trashed", message, session_id=session_id)
        return sum((report.gone for report in found.values()), Amount())

    def _finish_one(self, store: str, file: FileOnStores, report: Report) -> bool:
        shelf, copy = self._shelves.of(store, file.root), retiring.own_copy(file, store)
        if shelf is None or copy.trashed_as is None:
            return False
        try:
            where = trash.find(shelf, copy)
            if where is Where.BOTH:
                with suppress(StorageError):  # a link was made, and its first name not taken away; or it came again
                    shelf.move(copy.location, copy.trashed_as)
        except StorageError:
            return False
        seen = Sighting(file)
        if where in (Where.TRASH, Where.BOTH):
            if not self._clearing.is_moved(store, file, seen, report):
                return False
            retiring.trashed(self._catalog, [copy.replica_id], now=self._clearing.now())
            return True
        if where is Where.PLACE:
            self._clearing.undo(store, file, seen, report)
        elif store != SOURCE or is_there(file):
            self._clearing.note_damaged(file, {copy.replica_id: _LOST}, report)
        return False

    def empty(self, store: StoreView, *, only: UUID | None = None) -> tuple[Amount, Kept]:
        """Remove what may go from a store's trash, and put back what must, of all sessions or of `only` that; how much
        was removed, and why what was due stays. Raises CatalogError."""
        reports: defaultdict[UUID, Report] = defaultdict(Report)
        lives: dict[UUID, SessionLife] = {}
        try:
            for state in (ReplicaState.REMOVING, ReplicaState.TRASHED):
                for session_id, files in self._by_session(store.name, state):
                    if only not in (None, session_id):
                        continue
                    if session_id not in lives:
                        lives[session_id] = retirement.life_of(self._catalog, session_id)
                    self._see_to(store, lives[session_id], files, reports[session_id])
        finally:
            for session_id, report in reports.items():
                self._say_removed(store.name, lives[session_id], report)
        kept = Kept()
        for report in reports.values():
            kept.merge(report.kept)
        return sum((report.gone for report in reports.values()), Amount()), kept

    def due(self, store: StoreView, *, only: UUID | None = None) -> list[tuple[SessionLife, Amount]]:
        """How much of which session may be removed from a store's trash now, as far as the catalog knows."""
        found: defaultdict[UUID, Amount] = defaultdict(Amount)
        lives: dict[UUID, SessionLife] = {}
        for file in self._in_state(store.name, ReplicaState.TRASHED):
            if only not in (None, file.session_id):
                continue
            if file.session_id not in lives:
                lives[file.session_id] = retirement.life_of(self._catalog, file.session_id)
            if not self._why_stays(store, lives[file.session_id], file):
                found[file.session_id] += Amount(1, file.size_bytes)
        return [(lives[session_id], amount) for session_id, amount in found.items()]

    def _why_stays(self, store: StoreView, session: SessionLife, file: FileOnStores) -> str:
        if retiring.own_copy(file, store.name).detail:
            return NOT_ITSELF
        return retention.why_trash_stays(self._rules, file, session, store, self._shelves.well, self._clearing.now())

    def _see_to(self, store: StoreView, session: SessionLife, files: Sequence[FileOnStores], report: Report) -> None:
        intents: list[Intent] = []
        began = time.monotonic()
        for file in files:
            if self._clearing.stopping.is_set():
                break
            if retention.is_to_come_back(self._rules, file, store):
                self.put_back(store.name, file, report)
            elif not self._why_stays(store, session, file):
                reason = self._make_ready(store, session, file, report, intents)
                if reason:
                    report.kept.note(reason, file.relative_path)
            if intents and time.monotonic() > began + BATCH_SECONDS:
                self._carry_out(store, session, intents, report)
                intents, began = [], time.monotonic()
        if intents:
            self._carry_out(store, session, intents, report)

    def _make_ready(
        self, store: StoreView, session: SessionLife, file: FileOnStores, report: Report, intents: list[Intent]
    ) -> str:
        """Confirm a file's copies elsewhere and what lies in the trash, and add what is to be journalled; why it stays
        instead, "" also where it is in its place again."""
        now, well = self._clearing.now(), self._shelves.well
        allowing = [r for r in self._rules if not retention.why_trash_stays([r], file, session, store, well, now)]
        if not allowing:
            return "a store has just failed"
        rule = allowing[0]
        said = self._shelves.witnesses.confirm(
            file,
            retention.counting(rule, file, store.name, well),
            levels=rule.levels,
            count=retention.needed(rule),
        )
        self._clearing.note_damaged(file, said.damaged, report)
        if len(said.confirmed) < retention.needed(rule):
            return said.trouble or WITNESS_NOT_WHOLE
        reason = self._why_not_itself(store.name, file, report)
        if not reason:
            intents.append(Intent(file.id, frozenset(said.confirmed), frozenset(said.read_again)))
        return reason

    def _why_not_itself(self, store: str, file: FileOnStores, report: Report) -> str:
        """Why what lies in the trash is not to be removed: it is not what the catalog says, which is written down."""
        shelf, copy = self._shelves.of(store, file.root), retiring.own_copy(file, store)
        if shelf is None or copy.trashed_as is None:
            return UNKNOWN_STORE
        try:
            if trash.find(shelf, copy) in (Where.PLACE, Where.NOWHERE):
                return self._note_not_in_trash(store, file)
            found = why_other(shelf, store, copy.trashed_as, Sighting(file), self._shelves.witnesses.ring)
        except StorageError as error:
            return error.found
        if found:
            self._clearing.note_kept_in_trash(store, file, found, report)
        return NOT_ITSELF if found else ""

    def _note_not_in_trash(self, store: str, file: FileOnStores) -> str:
        """It was put back by a process that was killed before it said so, or somebody has emptied the trash; where it
        is not in its place, what has become of it. Raises StorageError."""
        shelf, copy = self._shelves.of(store, file.root), retiring.own_copy(file, store)
        assert shelf is not None
        if store == SOURCE and not is_there(file):
            return "the camera's disk is not there"
        in_place = trash.find(shelf, copy) is Where.PLACE
        if in_place and not why_other_bytes(shelf, copy.location, file, self._shelves.witnesses.ring):
            retiring.restored(self._catalog, [copy.replica_id])
            return ""
        detail = "" if copy.state is ReplicaState.REMOVING else "somebody has taken it out of the trash"
        retiring.removed(self._catalog, [copy.replica_id], detail=detail)
        return _GONE

    def _carry_out(self, store: StoreView, session: SessionLife, intents: Sequence[Intent], report: Report) -> None:
        def judge(fresh: SessionLife, file: FileOnStores, confirmed: frozenset[UUID]) -> str:
            return retention.why_trash_stays(
                self._rules, file, fresh, store, self._shelves.well, self._clearing.now(), confirmed=confirmed
            )

        begun = retiring.begin_removing(self._catalog, session.id, store.name, intents, judge, now=self._clearing.now())
        report.kept.merge(begun.kept)
        gone: list[UUID] = []
        for file in begun.files:
            shelf, copy = self._shelves.of(store.name, file.root), retiring.own_copy(file, store.name)
            assert shelf is not None and copy.trashed_as is not None
            try:
                shelf.remove(copy.trashed_as)
            except StorageError as error:
                report.kept.note(error.found, file.relative_path)
                continue
            gone.append(copy.replica_id)
            report.add(file)
        retiring.removed(self._catalog, gone)

    def put_back(self, store: str, file: FileOnStores, report: Report) -> bool:
        """Put a copy in a store's trash back in its place, once it was read; whether it is there."""
        shelf, copy = self._shelves.of(store, file.root), retiring.own_copy(file, store)
        if shelf is None:
            report.kept.note(UNKNOWN_STORE, file.relative_path)
            return False
        try:
            if trash.find(shelf, copy) in (Where.PLACE, Where.NOWHERE):
                reason = self._note_not_in_trash(store, file)
            else:
                trash.put_back(shelf, file, copy, self._shelves.witnesses.ring)
                retiring.restored(self._catalog, [copy.replica_id])
                reason = ""
        except VerificationError as error:
            reason = NOT_ITSELF
            self._clearing.note_kept_in_trash(store, file, error.found, report)
        except StorageError as error:
            reason = error.found
        if reason:
            report.kept.note(reason, file.relative_path)
        else:
            report.back += Amount(1, file.size_bytes)
        return not reason

    def restore(self, session: SessionLife, stores: Sequence[str]) -> dict[str, Report]:
        """Put all of a session that lies in these stores' trashes back; what became of it, by store. CatalogError."""
        reports = {store: Report() for store in stores}
        after: UUID | None = None
        while not self._clearing.stopping.is_set():
            page = retirement.page(self._catalog, session.id, after=after)
            for file in page:
                for store, report in reports.items():
                    copy = file.on(store)
                    if copy is not None and copy.state is ReplicaState.REMOVED:
                        report.lost += Amount(1, file.size_bytes)
                    if copy is not None and copy.state in (ReplicaState.TRASHED, ReplicaState.REMOVING):
                        self.put_back(store, file, report)
                        self._clearing.tell(Amount(1, file.size_bytes))
            if len(page) < retirement.AT_ONCE:
                break
            after = page[-1].id
        for store, report in reports.items():
            self._say_back(store, session, report)
        return reports

    def _say_removed(self, store: str, session: SessionLife, report: Report) -> None:
        self._say_back(store, session, report)
        if report.gone.files:
            message = (
                f"removed for good from the trash of {store}: {report.gone}; of each the other copies were confirmed "
                "just before"
            )
            events.record(self._catalog, Severity.INFO, "replica.removed", message, session_id=session.id)

    def _say_back(self, store: str, session: SessionLife, report: Report) -> None:
        self._clearing.say_bad(session, report)
        if report.back.files:
            message = f"back on {store}, whole: {report.back}"
            events.record(self._catalog, Severity.INFO, "replica.restored", message, session_id=session.id)

    def _by_session(self, store: str, state: ReplicaState) -> Iterator[tuple[UUID, list[FileOnStores]]]:
        """What lies in the trash, in small lots of one session each."""
        lot: list[FileOnStores] = []
        for file in self._in_state(store, state):
            if lot and (file.session_id != lot[0].session_id or len(lot) == BATCH_FILES):
                yield lot[0].session_id, lot
                lot = []
            lot.append(file)
        if lot:
            yield lot[0].session_id, lot

    def _in_state(self, store: str, state: ReplicaState) -> Iterator[FileOnStores]:
        after: retirement.Mark | None = None
        while not self._clearing.stopping.is_set():
            page, after = retirement.in_trash(self._catalog, store, state, after=after)
            yield from page
            if after is None:
                return
