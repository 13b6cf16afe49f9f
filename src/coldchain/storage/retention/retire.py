"""Clears by the facility's rules: plans, announces, clears, empties the trash; as a command, or again and again.

Nothing is remembered here but what saves work: announcements, holds and how far each copy has come stand in the
catalog, so that a restart goes on, and a killed process leaves nothing that is not found.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from coldchain.catalog import announcements, events, retirement
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError, StorageError
from coldchain.model.events import Severity
from coldchain.model.policy import SOURCE, Place, RetireRule
from coldchain.model.retention import Action, Amount, Announcement, Decision, Kept, SessionLife, StoreView, counted
from coldchain.storage.retention import rules as retention
from coldchain.storage.retention.clearing import Clearing
from coldchain.storage.retention.clock_watch import ClockWatch, steady_seconds
from coldchain.storage.retention.emptying import Emptying
from coldchain.storage.retention.foreseen import Foreseen
from coldchain.storage.retention.shelves import Shelves, SourceOf, has_folder, roots
from coldchain.storage.retention.trash import clearing_alone
from coldchain.storage.store import Store

log = logging.getLogger(__name__)

LOCK_NAME = ".coldchain-retire.lock"
PERIOD_SECONDS = 3600.0
_FIRST_SECONDS = 60.0
_REST_SECONDS = 6 * 3600.0
"""What could not be cleared although it was due is tried again after so long: each try reads copies in full."""
_SCARCITY = (MemoryError, OSError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a command is restricted to; None: everything."""

    rule: str | None = None
    store: str | None = None
    session_id: UUID | None = None

    def allows(self, decision: Decision) -> bool:
        """Whether a decision is about what is meant."""
        return (
            self.rule in (None, decision.rule)
            and self.store in (None, decision.store)
            and self.session_id in (None, decision.session.id)
        )


EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class Planned:
    """A decision, and why how many of the session's files stay on that store, where they were looked at."""

    decision: Decision
    kept: Kept


@dataclass(slots=True)
class Done:
    """What a pass has done: how much is in the trash now, and how much was removed from it; why what was due stays."""

    trashed: Amount = field(default_factory=Amount)
    removed: Amount = field(default_factory=Amount)
    announced: int = 0
    kept: Kept = field(default_factory=Kept)


class Retirement:
    """The facility's rules, and the means to follow them."""

    def __init__(self, clearing: Clearing, rules: Sequence[RetireRule]) -> None:
        self.clearing = clearing
        self.emptying = Emptying(clearing, rules)
        self._catalog = clearing.catalog
        self._shelves = clearing.shelves
        self._rules = rules
        self._states: dict[str, StoreView] = {}

    @property
    def names(self) -> list[str]:
        """The stores, and the camera's disk."""
        return [*self._shelves.stores, SOURCE]

    def look(self, *, finishes: bool = True) -> None:
        """See how the stores are, and with `finishes` find what a killed process was moving. Raises CatalogError."""
        self._states = self._shelves.look()
        for name in self.names if finishes else ():
            self.emptying.finish_begun(name)

    def empty_trash(self, scope: Scope = EVERYTHING) -> Done:
        """Remove what may be removed for good, and put back what must be. Raises CatalogError."""
        done = Done()
        for view in self._views(scope):
            if not self.clearing.stopping.is_set():
                removed, kept = self.emptying.empty(view, only=scope.session_id)
                done.removed += removed
                done.kept.merge(kept)
        return done

    def due_in_trash(self, scope: Scope = EVERYTHING) -> list[tuple[str, SessionLife, Amount]]:
        """How much of which session may be removed for good from which store's trash. Raises CatalogError."""
        return [
            (view.name, session, amount)
            for view in self._views(scope)
            for session, amount in self.emptying.due(view, only=scope.session_id)
        ]

    def _views(self, scope: Scope) -> list[StoreView]:
        names = [name for name in self.names if scope.store in (None, name)]
        return [self._states.get(name, StoreView(name, None)) for name in names]

    def plan(self, scope: Scope = EVERYTHING) -> list[Planned]:
        """What the rules say now, by rule and store, the oldest sessions first; what one rule clears is gone for those
        after it. Raises CatalogError."""
        foreseen = Foreseen()
        return [planned for rule in self._rules_of(scope) for planned in self._plan(rule, scope, foreseen)]

    def carry_out(
        self,
        scope: Scope = EVERYTHING,
        *,
        rests: Callable[[Decision], bool] = lambda _: False,
        done: Done | None = None,
    ) -> Done:
        """Announce, withdraw and clear what the rules say; what `rests` is left for later. What came of it is added to
        what is `done`. Raises CatalogError."""
        done = Done() if done is None else done
        if scope == EVERYTHING:
            self._withdraw_orphans()
        for rule in self._rules_of(scope):
            for planned in self._plan(rule, scope):
                if self.clearing.stopping.is_set():
                    return done
                if not rests(planned.decision):
                    self._follow(rule, planned.decision, done)
        return done

    def _rules_of(self, scope: Scope) -> list[RetireRule]:
        return [rule for rule in self._rules if scope.rule in (None, rule.name)]

    def _plan(self, rule: RetireRule, scope: Scope, foreseen: Foreseen | None = None) -> Iterator[Planned]:
        sessions = retirement.lives(self._catalog)
        standing = announcements.standing(self._catalog)
        for state, candidates in self._targets(rule, sessions, scope):
            announced = {a.session_id: a for a in standing if (a.rule, a.store) == (rule.name, state.name)}
            kept: dict[UUID, Kept] = {}

            def amount_of(session: SessionLife, store: str = state.name, kept: dict[UUID, Kept] = kept) -> Amount:
                amount, kept[session.id] = self.clearing.tally(rule, store, session, foreseen)
                return amount

            there = self._there(state.name, candidates) | announced.keys()
            some = [session for session in candidates if session.id in there]
            if foreseen is not None:
                state = replace(state, trash_bytes=state.trash_bytes + foreseen.bytes_on(state.name))
            decisions = retention.decide(rule, state, some, announced, amount_of, self.clearing.now())
            allowed = [decision for decision in decisions if scope.allows(decision)]
            if foreseen is not None:
                cleared = [each for each in allowed if each.action is Action.RETIRE]
                foreseen.clear(state.name, ((each.session.id, each.amount) for each in cleared))
            for decision in allowed:
                yield Planned(decision, kept.get(decision.session.id, Kept()))

    def _targets(
        self, rule: RetireRule, sessions: list[SessionLife], scope: Scope
    ) -> Iterator[tuple[StoreView, list[SessionLife]]]:
        """The stores that a rule means, as they are now, each with the sessions that may lie there."""
        for name, state in self._states.items():
            if retention.is_meant(rule, state) and scope.store in (None, name):
                yield self._shelves.look_again(name), sessions
        if SOURCE in rule.places and scope.store in (None, SOURCE):
            for root in roots(sessions):
                yield self._shelves.look_at_source(root), [s for s in sessions if s.root == root]

    def _there(self, store: str, sessions: Sequence[SessionLife]) -> set[UUID]:
        if store == SOURCE:
            return {session.id for session in sessions if has_folder(session)}
        return retirement.sessions_on(self._catalog, store)

    def _withdraw_orphans(self) -> None:
        """End the announcements of rules that are not there any more, or do not speak of that store any more."""
        meant = {
            (rule.name, state.name)
            for rule in self._rules
            for state in self._states.values()
            if retention.is_meant(rule, state)
        }
        meant |= {(rule.name, SOURCE) for rule in self._rules if SOURCE in rule.places}
        for announcement in announcements.standing(self._catalog):
            if (announcement.rule, announcement.store) not in meant:
                self._end(announcement, "the rule is not there any more", withdrawn=True)

    def _follow(self, rule: RetireRule, decision: Decision, done: Done) -> None:
        if decision.action is Action.ANNOUNCE:
            assert decision.due_at is not None
            announcements.announce(
                self._catalog,
                decision.session,
                rule=rule.name,
                store=decision.store,
                amount=decision.amount,
                now=self.clearing.now(),
                due_at=decision.due_at,
            )
            done.announced += 1
        elif decision.action is Action.WITHDRAW and decision.announcement is not None:
            self._end(decision.announcement, decision.reason, withdrawn=True)
        elif decision.action is Action.RETIRE:
            report = self.clearing.clear(rule, decision.store, decision.session)
            done.trashed += report.gone
            done.kept.merge(report.kept)
            left, _ = self.clearing.tally(rule, decision.store, decision.session)
            if decision.announcement is not None and not left.files:
                self._end(decision.announcement, f"cleared: {counted(report.gone.files, 'file')}", withdrawn=False)

    def _end(self, announcement: Announcement, outcome: str, *, withdrawn: bool) -> None:
        announcements.end(self._catalog, announcement.id, outcome=outcome, now=self.clearing.now(), withdrawn=withdrawn)


class Retirer:
    """A part of the facility that follows the rules again and again.

    Parameters
    ----------
    catalog : where it is known what lies where.
    stores : by name; `places` says of which tier they are.
    rules : all that facility.toml has. Without any nothing is cleared, but what was begun is still finished.
    lock : a file on a local disk; who holds it clears (`trash.clearing_alone`).
    source : makes the store, without identity, that an instrument's root is.
    period_seconds : from the end of one pass to the beginning of the next.
    """

    def __init__(
        self,
        catalog: Catalog,
        stores: Mapping[str, Store],
        rules: Sequence[RetireRule],
        places: Sequence[Place],
        *,
        lock: Path,
        source: SourceOf | None = None,
        period_seconds: float = PERIOD_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        self._catalog = catalog
        self._lock = lock
        self._period_seconds = period_seconds
        self._steady = steady
        self._stopping = threading.Event()
        shelves = Shelves(catalog, stores, places, source)
        self._retirement = Retirement(Clearing(catalog, shelves, stopping=self._stopping, now=now), rules)
        newest = events.newest_own(catalog)  # another site's clock says nothing of this one's
        self._clock = ClockWatch(None if newest is None else newest.at, now=now, steady=steady)
        self._doubt = ""
        self._rests: dict[tuple[str, str, UUID], float] = {}
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="retirer")

    def start(self) -> None:
        """Begin. It is started once."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the file in hand, record it, and end."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def idle(self) -> bool:
        """Whether no pass is under way."""
        return not self._busy

    def alive(self) -> bool:
        """Whether it runs. Had it ended by itself, its traceback would be in the log."""
        return self._thread.is_alive()

    def look(self) -> Done:
        """One pass. Raises CatalogError; StorageError where another process is clearing."""
        with clearing_alone(self._catalog, self._lock):
            self._retirement.look()
            if self._doubts_the_clock():
                return Done()
            return self._retirement.carry_out(rests=self._rests_still, done=self._retirement.empty_trash())

    def _doubts_the_clock(self) -> bool:
        doubt = self._clock.why_not()
        if doubt and doubt != self._doubt:
            message = f"nothing is cleared for a day: {doubt}"
            events.record(self._catalog, Severity.WARNING, "retire.clock", message)
        self._doubt = doubt
        return bool(doubt)

    def _rests_still(self, decision: Decision) -> bool:
        """Whether a clearing that is due was tried a short time ago; if not, it is now."""
        if decision.action is not Action.RETIRE:
            return False
        now = self._steady()
        self._rests = {key: until for key, until in self._rests.items() if until > now}
        key = (decision.rule, decision.store, decision.session.id)
        if key in self._rests:
            return True
        self._rests[key] = now + _REST_SECONDS
        return False

    def _run(self) -> None:
        pause = min(_FIRST_SECONDS, self._period_seconds)
        while not self._stopping.wait(pause):
            pause = self._period_seconds
            self._busy = True
            try:
                done = self.look()
                if done.trashed.files or done.removed.files:
                    log.info("retirer: %d files cleared, %d removed for good", done.trashed.files, done.removed.files)
            except (CatalogError, StorageError) as error:
                log.warning("retirer: %s", error)
            except _SCARCITY:
                log.exception("retirer: this pass could not be finished")
            finally:
                self._busy = False
