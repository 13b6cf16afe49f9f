"""Which copies may be cleared, and why the others stay. Pure: time, stores and the catalog's rows are passed in.

A rule is asked from the outside in: whether the store is meant, and full enough; whether the session may go, and was
announced long enough ago; whether the file may. A reason is a sentence's end that speaks of many files at once, so that
it can be counted; "" is no reason to stay.

A copy elsewhere counts where it is verified to a level that the rule accepts, its digest is the file's, and its store
is well. The camera's disk (`SOURCE`) never counts. How many there are is asked three times: when it is planned, in the
transaction that begins to clear the copy, and in the one that begins to remove it from the trash; the last two times
only those count that were confirmed just before (`confirmed`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from coldchain.model.files import FileKind, FileState, ReplicaState
from coldchain.model.policy import GIVEN_UP, SOURCE, RetireRule
from coldchain.model.retention import (
    Action,
    Amount,
    Announcement,
    Decision,
    FileOnStores,
    SessionLife,
    StoredCopy,
    StoreView,
)
from coldchain.model.session import SessionState

_COMPUTED = frozenset({FileKind.SUM, FileKind.RESULT})
"""What this facility made itself: no camera has it, and the pages show it from where it lies."""
_LONGEST_DAYS = 36_500.0
"""A hundred years: longer is never, and beyond the calendar's end."""


def is_meant(rule: RetireRule, store: StoreView) -> bool:
    """Whether a rule speaks of a store. The camera's disk is meant by its name alone."""
    return store.name in rule.places or (store.tier is not None and store.tier in rule.places)


def is_concerned(rule: RetireRule, file: FileOnStores, store: str) -> bool:
    """Whether there is anything of a file on that store that the rule could speak of."""
    if file.kind not in rule.kinds:
        return False
    copy = file.on(store)
    if store == SOURCE:  # what has no row there was not touched yet; of a path's versions the last lies there
        return copy is None and file.state is not FileState.REPLACED and file.kind not in _COMPUTED
    return copy is not None and copy.state is not ReplicaState.WANTED and copy.state not in GIVEN_UP


def counting(rule: RetireRule, file: FileOnStores, store: str, well: Collection[str]) -> tuple[StoredCopy, ...]:
    """The copies on other stores, those that are `well`, on which a deletion from `store` may rely: one of each."""
    if file.sha256 is None:
        return ()
    found: dict[str, StoredCopy] = {}
    for copy in file.copies:
        relied_on = copy.state is ReplicaState.VERIFIED and copy.level in rule.levels and copy.sha256 == file.sha256
        if relied_on and copy.store in well and copy.store not in (store, SOURCE):
            found.setdefault(copy.store, copy)
    return tuple(found.values())


def needed(rule: RetireRule) -> int:
    """How many copies elsewhere a rule wants; never none."""
    return max(rule.copies, 1)


def why_file_stays(
    rule: RetireRule,
    file: FileOnStores,
    store: str,
    well: Collection[str],
    *,
    confirmed: Collection[UUID] | None = None,
) -> str:
    """Why a file that is concerned stays on a store; "" where it may go. Of its session nothing is asked.

    `confirmed` holds the ids of the replicas that were confirmed just before; None while it is only planned.
    """
    if file.sha256 is None:
        return "it has no digest"
    if store == SOURCE:
        if file.state is not FileState.ARRIVED:
            return f"it is {file.state} at the source"
        if file.in_work:
            return "its exposure is not through"
    else:
        copy = file.on(store)
        if copy is None or copy.state is not ReplicaState.VERIFIED or copy.sha256 != file.sha256:
            return f"its copy there is {'not there' if copy is None else copy.state}"
        if file.state is FileState.REPLACED and copy.has_own_name:
            return "another version is about to take its name"
    return _why_too_few(rule, file, store, well, confirmed)


def _why_too_few(
    rule: RetireRule, file: FileOnStores, store: str, well: Collection[str], confirmed: Collection[UUID] | None
) -> str:
    found = counting(rule, file, store, well)
    if confirmed is not None:
        found = tuple(copy for copy in found if copy.replica_id in confirmed)
    if len(found) >= needed(rule):
        return ""
    what = "verified" if confirmed is None else "just confirmed"
    return f"of {needed(rule)} {what} copies elsewhere it has {len(found)}"


def why_session_stays(rule: RetireRule, session: SessionLife, store: str, now: datetime) -> str:
    """Why nothing of a session goes from a store by that rule; "" where its files may be looked at."""
    if session.held:
        return f"it is held: {session.held}"
    if store == SOURCE and session.state is SessionState.OPEN:
        return "it is open, and is computed from the source"
    if session.state not in rule.states:
        return f"it is {session.state}"
    if rule.after_days is not None and now - session.since < _days(rule.after_days):
        days = max((now - session.since) / timedelta(days=1), 0.0)
        return f"it has been {session.state} for {days:.1f} of {rule.after_days:g} days"
    return ""


def ripe_at(rule: RetireRule, session: SessionLife, store: str) -> datetime | None:
    """When a session that only is too young will be old enough; None where something else keeps it, or nothing."""
    if rule.after_days is None:
        return None
    at = session.since + _days(rule.after_days)
    is_all = why_session_stays(rule, session, store, at) == "" != why_session_stays(rule, session, store, session.since)
    return at if is_all else None


def decide(
    rule: RetireRule,
    store: StoreView,
    sessions: Iterable[SessionLife],
    announced: Mapping[UUID, Announcement],
    amount_of: Callable[[SessionLife], Amount],
    now: datetime,
) -> list[Decision]:
    """What a rule says of each session's files on a store that it means, the oldest session first.

    Parameters
    ----------
    announced : by session, the open announcements of this rule for this store.
    amount_of : what of a session may go by its files; it is asked of no more sessions than is necessary.
    """
    room = _Room(rule, store)
    ordered = sorted(sessions, key=lambda session: (session.since, session.id))
    return [_decide_one(rule, store, session, announced.get(session.id), room, amount_of, now) for session in ordered]


class _Room:
    """How much a watermark still wants cleared; without one, everything."""

    def __init__(self, rule: RetireRule, store: StoreView) -> None:
        self._rule = rule
        self._known = rule.above is None or (store.total_bytes is not None and store.used_bytes is not None)
        self._wanted_bytes, self._over = 0.0, False
        if rule.above is not None and store.total_bytes is not None and store.used_bytes is not None:
            until = rule.above if rule.until is None else min(rule.until, rule.above)
            self._wanted_bytes = store.used_bytes - store.trash_bytes - until * store.total_bytes
            self._over = store.used_bytes > rule.above * store.total_bytes

    def why_not(self, announced: Announcement | None) -> str:
        """Why no more is wanted. Between the two marks only what was announced goes on."""
        if self._rule.above is None:
            return ""
        if not self._known:
            return "how full the store is, is not known"
        if self._wanted_bytes <= 0:
            return "enough of the store is free, or will be when its trash is emptied"
        if not self._over and announced is None:
            return f"no more than {self._rule.above:.0%} of the store is used"
        return ""

    def take(self, amount: Amount) -> None:
        """So much is going to be cleared."""
        self._wanted_bytes -= amount.size_bytes


def _decide_one(
    rule: RetireRule,
    store: StoreView,
    session: SessionLife,
    announced: Announcement | None,
    room: _Room,
    amount_of: Callable[[SessionLife], Amount],
    now: datetime,
) -> Decision:
    def say(action: Action, reason: str, amount: Amount = Amount(), due_at: datetime | None = None) -> Decision:  # noqa: B008  # frozen
        return Decision(rule.name, store.name, session, action, reason, amount, due_at, announced)

    if not store.is_well:
        return say(Action.KEEP, f"the store is not well: {store.trouble}")
    amount = Amount()
    reason = why_session_stays(rule, session, store.name, now) or room.why_not(announced)
    if not reason:
        amount = amount_of(session)
        reason = "" if amount.files else "nothing of it may go"
    if reason:
        return say(Action.KEEP if announced is None else Action.WITHDRAW, reason)
    room.take(amount)
    if rule.warn_days <= 0:
        return say(Action.RETIRE, _because(rule, session), amount)
    if announced is None:
        return say(Action.ANNOUNCE, _because(rule, session), amount, now + _days(rule.warn_days))
    due_at = max(announced.due_at, announced.announced_at + _days(rule.warn_days))
    if now < due_at:
        return say(Action.KEEP, "it is announced", amount, due_at)
    return say(Action.RETIRE, _because(rule, session), amount, due_at)


def _because(rule: RetireRule, session: SessionLife) -> str:
    full = "" if rule.above is None else f", and more than {rule.above:.0%} of the store is used"
    return f"it has been {session.state} since {session.since:%Y-%m-%d}{full}"


def why_trash_stays(
    rules: Sequence[RetireRule],
    file: FileOnStores,
    session: SessionLife,
    store: StoreView,
    well: Collection[str],
    now: datetime,
    *,
    confirmed: Collection[UUID] | None = None,
) -> str:
    """Why a file stays in a store's trash; "" where it may be removed for good.

    One of the rules that speak of the store and of such files must allow it, as they stand now: a session that was
    held, opened again, or a rule that was taken back keep what lies there.
    """
    copy = file.on(store.name)
    if copy is None or copy.state not in (ReplicaState.TRASHED, ReplicaState.REMOVING):
        return "it is not in the trash"
    meant = [rule for rule in rules if is_meant(rule, store) and file.kind in rule.kinds]
    reasons = [_why_trashed_stays(rule, file, copy, session, well, now, confirmed) for rule in meant]
    if not reasons:
        return "no rule speaks of it any more"
    return "" if "" in reasons else reasons[0]


def _why_trashed_stays(
    rule: RetireRule,
    file: FileOnStores,
    copy: StoredCopy,
    session: SessionLife,
    well: Collection[str],
    now: datetime,
    confirmed: Collection[UUID] | None,
) -> str:
    if reason := why_session_stays(rule, session, copy.store, now):
        return reason
    if copy.trashed_at is None or now - copy.trashed_at < _days(rule.grace_days):
        return f"its {rule.grace_days:g} days of grace are not over"
    return _why_too_few(rule, file, copy.store, well, confirmed)


def is_to_come_back(rules: Sequence[RetireRule], file: FileOnStores, store: StoreView) -> bool:
    """Whether a file in the trash is to be put back: damage elsewhere has left it fewer copies than allowed it to go.

    A store that is only away is no reason: its copies are waited for.
    """
    copy = file.on(store.name)
    if copy is None or copy.state not in (ReplicaState.TRASHED, ReplicaState.REMOVING):
        return False
    least = min((needed(r) for r in rules if is_meant(r, store) and file.kind in r.kinds), default=1)
    verified = {c.store for c in file.copies if c.state is ReplicaState.VERIFIED and c.sha256 == file.sha256}
    return len(verified - {store.name, SOURCE}) < least


def _days(days: float) -> timedelta:
    return timedelta(days=min(max(days, 0.0), _LONGEST_DAYS))
