"""Which copies may be cleared: pure decisions over random facts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from coldchain.model.files import FileKind, FileState, ReplicaState, VerificationLevel
from coldchain.model.policy import SOURCE, RetireRule, Tier
from coldchain.model.retention import (
    Action,
    Amount,
    Announcement,
    FileOnStores,
    SessionLife,
    StoredCopy,
    StoreView,
    total,
)
from coldchain.model.session import SessionState
from coldchain.storage.retention import rules as retention

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = ("live", "tape", "cloud", "drive")
_NUMBERS = count(1)

copies = st.builds(
    StoredCopy,
    replica_id=st.builds(lambda: UUID(int=next(_NUMBERS))),
    store=st.sampled_from((*NAMES, SOURCE)),
    state=st.sampled_from(ReplicaState),
    level=st.none() | st.sampled_from(VerificationLevel),
    sha256=st.sampled_from([None, "a", "b"]),
    location=st.just("here"),
    has_own_name=st.booleans(),
    trashed_at=st.none() | st.integers(-20, 20).map(lambda days: NOW + timedelta(days=days)),
)
on_stores = st.builds(
    FileOnStores,
    id=st.just(UUID(int=1)),
    session_id=st.just(UUID(int=2)),
    relative_path=st.just("m.tiff"),
    kind=st.sampled_from(FileKind),
    state=st.sampled_from(FileState),
    size_bytes=st.integers(0, 100),
    modified_ns=st.just(1),
    sha256=st.sampled_from([None, "a"]),
    root=st.just("/camera"),
    source_name=st.just("visit/m.tiff"),
    in_work=st.booleans(),
    copies=st.lists(copies, max_size=7).map(tuple),
)
rules = st.builds(
    RetireRule,
    name=st.just("tidy"),
    places=st.lists(st.sampled_from((*NAMES, *Tier, SOURCE)), min_size=1, max_size=3).map(tuple),
    kinds=st.frozensets(st.sampled_from(FileKind), min_size=1),
    states=st.frozensets(st.sampled_from(SessionState)),
    after_days=st.none() | st.floats(0, 30),
    copies=st.integers(0, 3),
    levels=st.frozensets(st.sampled_from(VerificationLevel)),
    warn_days=st.floats(0, 10),
    grace_days=st.floats(0, 10),
)
stores = st.builds(StoreView, name=st.sampled_from((*NAMES, SOURCE)), tier=st.none() | st.sampled_from(Tier))
well = st.frozensets(st.sampled_from(NAMES))


def session(number: int = 1, **changes: object) -> SessionLife:
    """A closed session of a hundred days ago and its number of hours."""
    given: dict[str, object] = {
        "id": UUID(int=number),
        "name": f"s{number}",
        "state": SessionState.CLOSED,
        "since": NOW - timedelta(days=100) + timedelta(hours=number),
        "root": "/camera",
        "folder": "visit",
    }
    return SessionLife(**(given | changes))  # type: ignore[arg-type]


lives = st.builds(
    session,
    state=st.sampled_from(SessionState),
    since=st.integers(-40, 20).map(lambda days: NOW + timedelta(days=days)),
    held=st.sampled_from(["", "a paper"]),
)


def really_elsewhere(rule: RetireRule, file: FileOnStores, store: str) -> set[str]:
    """The stores that have what the rule wants to see there; written without what is tested."""
    return {
        copy.store
        for copy in file.copies
        if copy.state == "verified"
        and copy.sha256 is not None
        and copy.sha256 == file.sha256
        and copy.level in rule.levels
        and copy.store not in (store, "source")
    }


@given(rule=rules, file=on_stores, store=stores, well=well, some=st.booleans())
def test_no_file_goes_without_its_copies(
    rule: RetireRule, file: FileOnStores, store: StoreView, well: frozenset[str], some: bool
) -> None:
    """Whatever the facts: what may go has as many verified copies as the rule wants, one at least, on other stores that
    are well; and of those confirmed just before, where that is asked."""
    confirmed = {copy.replica_id for copy in file.copies[::2]} if some else None
    if retention.is_concerned(rule, file, store.name) and not retention.why_file_stays(
        rule, file, store.name, well, confirmed=confirmed
    ):
        there = really_elsewhere(rule, file, store.name) & well
        assert len(there) >= max(rule.copies, 1)
        if confirmed is not None:
            assert len({c.store for c in file.copies if c.replica_id in confirmed and c.store in there}) >= rule.copies
        assert file.kind in rule.kinds
        if store.name == SOURCE:
            assert file.state is FileState.ARRIVED and not file.in_work and file.on(SOURCE) is None
        else:
            assert any(c.store == store.name and c.state is ReplicaState.VERIFIED for c in file.copies)


@given(rules=st.lists(rules, max_size=3), file=on_stores, life=lives, store=stores, well=well)
def test_nothing_leaves_the_trash_without_a_rule_its_copies_and_its_time(
    rules: list[RetireRule], file: FileOnStores, life: SessionLife, store: StoreView, well: frozenset[str]
) -> None:
    """What may be removed for good lies in the trash, and one rule that speaks of it has its copies, its state, its age
    and its grace; and nobody holds it."""
    if retention.why_trash_stays(rules, file, life, store, well, NOW):
        return
    copy = file.on(store.name)
    assert copy is not None and copy.trashed_at is not None and copy.state in ("trashed", "removing")
    assert not life.held
    assert any(
        (store.name in rule.places or store.tier in rule.places)
        and file.kind in rule.kinds
        and life.state in rule.states
        and NOW - copy.trashed_at >= timedelta(days=rule.grace_days)
        and NOW - life.since
        >= timedelta(days=rule.after_days or 0) * (rule.after_days is not None)
        + (NOW - life.since) * (rule.after_days is None)
        and len(really_elsewhere(rule, file, store.name) & well) >= max(rule.copies, 1)
        for rule in rules
    )


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    above=st.floats(0.1, 1),
    until=st.floats(0.1, 1),
    used=st.integers(0, 100),
    trash=st.integers(0, 100),
)
def test_watermarks_take_the_oldest_until_enough_is_on_its_way(
    sizes: list[int], above: float, until: float, used: int, trash: int
) -> None:
    """Of a store that is too full the oldest sessions go, no more of them than must; of another none."""
    rule = RetireRule("tidy", ("live",), above=above, until=min(above, until), warn_days=0)
    store = StoreView("live", Tier.LIVE, total_bytes=100, used_bytes=used, trash_bytes=trash)
    several = [session(number) for number in range(1, len(sizes) + 1)]
    decided = retention.decide(rule, store, several[::-1], {}, lambda life: Amount(1, sizes[life.id.int - 1]), NOW)
    going = [decision.amount.size_bytes for decision in decided if decision.action is Action.RETIRE]
    assert going == sizes[: len(going)]
    wanted = used - trash - min(above, until) * 100
    if used <= above * 100 or wanted <= 0:
        assert not going
    else:
        assert sum(going[:-1]) < wanted
        assert sum(going) >= wanted or len(going) == len(sizes)


def test_between_the_marks_what_was_announced_goes_on() -> None:
    """A store that fell below the upper mark is still cleared down to the lower one, but of nothing new."""
    rule = RetireRule("tidy", ("live",), above=0.9, until=0.5, warn_days=2)
    store = StoreView("live", Tier.LIVE, total_bytes=100, used_bytes=70)
    first, second = session(1), session(2)
    standing = Announcement(
        UUID(int=9), second.id, "tidy", "live", Amount(1, 30), NOW - timedelta(days=3), NOW - timedelta(days=1)
    )
    decided = retention.decide(rule, store, [first, second], {second.id: standing}, lambda _: Amount(1, 30), NOW)
    assert [decision.action for decision in decided] == [Action.KEEP, Action.RETIRE]


@given(warn_days=st.floats(0.01, 30), announced=st.floats(-400, 40), due=st.floats(-400, 40))
def test_nothing_goes_before_it_was_announced_so_long(warn_days: float, announced: float, due: float) -> None:
    """Neither before its day, nor sooner after the announcement than the rule says now, wherever the clock stands."""
    rule = RetireRule("tidy", ("live",), warn_days=warn_days)
    at, due_at = NOW + timedelta(days=announced), NOW + timedelta(days=due)
    standing = Announcement(UUID(int=9), UUID(int=1), "tidy", "live", Amount(1, 1), at, due_at)
    store = StoreView("live", Tier.LIVE)
    [decision] = retention.decide(rule, store, [session()], {UUID(int=1): standing}, lambda _: Amount(1, 1), NOW)
    goes = due_at <= NOW and at + timedelta(days=warn_days) <= NOW
    assert decision.action is (Action.RETIRE if goes else Action.KEEP)
    [decision] = retention.decide(rule, store, [session()], {}, lambda _: Amount(1, 1), NOW)
    assert decision.action is Action.ANNOUNCE and decision.due_at == NOW + timedelta(days=warn_days)


def test_every_decision_has_its_reason() -> None:
    """Held, open, young, empty, not well, unknown fullness: each is said, and an announcement is withdrawn for it."""
    rule = RetireRule("tidy", ("live",), after_days=30)
    standing = Announcement(UUID(int=9), UUID(int=1), "tidy", "live", Amount(1, 1), NOW, NOW)
    well = StoreView("live", Tier.LIVE)
    for life, store, by, amount, words in (
        (session(held="a paper"), well, rule, 1, "it is held: a paper"),
        (session(state=SessionState.OPEN), well, rule, 1, "it is open"),
        (session(since=NOW - timedelta(days=3)), well, rule, 1, "it has been closed for 3.0 of 30 days"),
        (session(since=NOW + timedelta(days=3)), well, rule, 1, "it has been closed for 0.0 of 30 days"),
        (session(), well, rule, 0, "nothing of it may go"),
        (session(), well, RetireRule("t", ("live",), above=0.5), 1, "how full the store is, is not known"),
    ):
        for announced in ({}, {UUID(int=1): standing}):
            [said] = retention.decide(by, store, [life], announced, lambda _, n=amount: Amount(n, n), NOW)
            assert said.action is (Action.WITHDRAW if announced else Action.KEEP)
            assert said.reason == words
    away = StoreView("live", Tier.LIVE, trouble="gone")
    [said] = retention.decide(rule, away, [session()], {UUID(int=1): standing}, lambda _: Amount(1, 1), NOW)
    assert (said.action, said.reason) == (Action.KEEP, "the store is not well: gone")


def test_the_source_is_meant_by_its_name_alone() -> None:
    """No tier is the camera's disk; an open session is never cleared from it."""
    source = StoreView(SOURCE, None)
    assert not any(retention.is_meant(RetireRule("t", (place,)), source) for place in (*Tier, *NAMES))
    everything = RetireRule("t", (SOURCE,), states=frozenset(SessionState))
    assert retention.is_meant(everything, source)
    assert "computed from the source" in retention.why_session_stays(
        everything, session(state=SessionState.OPEN), SOURCE, NOW
    )


def test_amounts_add_up() -> None:
    """Files and bytes."""
    assert total([Amount(1, 2), Amount(3, 4)]) == Amount(4, 6) and total([]) == Amount()
