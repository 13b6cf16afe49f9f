"""When stores are spoken of, and that each thing is said once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.catalog import capacity, events, files, replicas, sessions, store_alerts, stores
from coldchain.catalog.capacity import MOST_LATE, Late
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import StoreSampleRow
from coldchain.model.events import Severity
from coldchain.model.files import FileKind, ReplicaState, VerificationLevel
from coldchain.model.identity import new_id
from coldchain.model.policy import CopyPlan, CopyPolicy, Place, Tier
from coldchain.model.session import Layout
from coldchain.model.stores import StoreLook, StoreState, StoreSubject
from coldchain.storage.capacity.alerts import (
    Limits,
    changes,
    days_ahead,
    in_words,
    patience_hours,
    promises,
)
from coldchain.storage.capacity.book import CapacityBook
from coldchain.storage.capacity.forecast import Band, Forecast
from coldchain.storage.capacity.watch import CapacityWatch

NOW = datetime(2026, 6, 12, 12, 0, tzinfo=UTC)
TB = 10**12
LIMITS = Limits(above=0.9, days=14.0)
STATE = StoreState(
    name="raid",
    site="here",
    tier=Tier.LIVE,
    url="/raid",
    identity=new_id(),
    is_marked=True,
    about="",
    seen_at=NOW,
    trouble="",
    trouble_since=None,
    total_bytes=100 * TB,
    free_bytes=50 * TB,
    free_files=None,
    backlog_bytes=0,
    backlog_files=0,
    bytes_per_second=None,
)
UNTOLD = Forecast(0, why_not="there are samples of 0 whole days")


def full_in(low: float | None, middle: float | None, high: float | None) -> Forecast:
    """A forecast of the day on which the store is full."""
    return Forecast(28, at=NOW, days_until_full=Band(low, middle, high))


def said(
    *standing: StoreSubject,
    state: StoreState = STATE,
    foretold: Forecast = UNTOLD,
    late: dict[float, Late] | None = None,
) -> list[tuple[StoreSubject, bool]]:
    """What begins (True) or ends."""
    return [(one.subject, one.begins) for one in changes(state, foretold, late or {}, standing, LIMITS, NOW)]


@pytest.mark.parametrize(
    ("used", "stands", "expected"),
    [
        (0.89, False, []),
        (0.90, False, [(StoreSubject.FILLED, True)]),
        (0.97, True, []),
        (0.89, True, []),
        (0.879, True, [(StoreSubject.FILLED, False)]),
    ],
)
def test_a_store_that_fills_is_told_above_and_ends_below(
    used: float, stands: bool, expected: list[tuple[StoreSubject, bool]]
) -> None:
    """From 90 % on it is told, below 88 % it ends; between them nothing is said."""
    state = replace(STATE, free_bytes=round(100 * TB * (1 - used)))
    assert said(*([StoreSubject.FILLED] if stands else []), state=state) == expected


@given(st.lists(st.floats(0, 1), max_size=30))
def test_what_begins_ends_before_it_begins_again(shares: list[float]) -> None:
    """Whatever a store's use does, beginning and end take turns, and each is said at most once a turn."""
    stands = False
    for share in shares:
        standing = [StoreSubject.FILLED] if stands else []
        found = said(*standing, state=replace(STATE, free_bytes=round(100 * TB * (1 - share))))
        assert found in ([], [(StoreSubject.FILLED, not stands)])
        stands = stands != bool(found)
        assert stands or share < 0.9 + 1e-9
        assert not stands or share >= 0.88 - 1e-9


def test_a_store_that_is_soon_full_is_told_by_its_most_likely_day() -> None:
    """From 14 days on it is told, at 17.5 days it ends; without a forecast nothing begins and nothing ends."""
    assert said(foretold=full_in(8, 15, 30)) == []
    assert said(foretold=full_in(8, 13, None)) == [(StoreSubject.FULL_SOON, True)]
    assert said(StoreSubject.FULL_SOON, foretold=full_in(8, 17, 30)) == []
    for over in (full_in(9, 18, 30), full_in(None, None, None)):
        assert said(StoreSubject.FULL_SOON, foretold=over) == [(StoreSubject.FULL_SOON, False)]
    assert said(StoreSubject.FULL_SOON, foretold=UNTOLD) == []
    away = replace(STATE, trouble="it is not there")
    assert said(state=away, foretold=full_in(1, 2, 3)) == []


def test_days_count_from_now() -> None:
    """A forecast of samples that are two days old lies two days nearer, and never in the past."""
    later = NOW + timedelta(days=2)
    assert days_ahead(full_in(1.0, 12.0, None), later) == Band(0.0, 10.0, None)
    assert days_ahead(UNTOLD, later) is None


@pytest.mark.parametrize(
    ("band", "words"),
    [
        (Band(9.2, 12.4, 20.0), "about 12 days (9 to 20)"),
        (Band(1.04, 1.04, 1.26), "about 1 day (1 to 1.3)"),
        (Band(300.0, 400.0, None), "about 400 days (300 days at the soonest)"),
        (Band(300.0, None, None), "more than two years (300 days at the soonest)"),
        (Band(None, None, None), "more than two years"),
    ],
)
def test_days_in_words(band: Band, words: str) -> None:
    """Few digits, and what is beyond two years is not numbered."""
    assert in_words(band) == words


def test_what_does_not_fit_is_told_as_that() -> None:
    """More is wanted than is free: that is said, in bytes."""
    state = replace(STATE, backlog_bytes=60 * TB, backlog_files=5)
    (change,) = changes(state, full_in(0, 0, 0), {}, [], LIMITS, NOW)
    assert "cannot hold what is wanted on it: 60.0 TB; 50.0 TB are free" in change.words


def test_late_copies_are_told_with_their_number_and_the_stores_trouble() -> None:
    """Numbers, bytes, the promise, since when, and why; and that it has caught up."""
    state = replace(STATE, trouble="the link is down")
    late = {24.0: Late(1234, 2 * TB, NOW - timedelta(hours=30)), 2.0: Late(MOST_LATE, TB, NOW)}
    (change,) = changes(state, UNTOLD, late, [], LIMITS, NOW)
    assert change.words == (
        "store raid: more than 3,234 copies (3.0 TB) are wanted for longer than the 2 or 24 hours of their policy, "
        "the oldest since 2026-06-11 06:00 UTC; the link is down"
    )
    assert said(StoreSubject.LATE, late=late) == []
    assert said(StoreSubject.LATE) == [(StoreSubject.LATE, False)]
    assert (patience_hours(24, is_told=False), patience_hours(24, is_told=True)) == (24, 12)


def test_policies_promise_by_store_and_by_tier() -> None:
    """A promise to a tier is one to each of its stores; the shortest counts; stores of no policy have none."""
    places = (Place("raid", Tier.LIVE), Place("tape", Tier.ARCHIVE), Place("cloud", Tier.CLOUD))
    policies = (
        CopyPolicy("all", frozenset(FileKind), {"archive": 1, "raid": 1}, within_hours=48),
        CopyPolicy("metadata", frozenset({FileKind.METADATA}), {"tape": 1}, within_hours=2),
        CopyPolicy("far", frozenset(FileKind), {"cloud": 1}),
    )
    plan = CopyPlan(places, policies)
    others = frozenset(FileKind) - {FileKind.METADATA}
    assert promises(plan, "tape") == {2: frozenset({FileKind.METADATA}), 48: others}
    assert promises(plan, "raid") == {48: frozenset(FileKind)}
    assert promises(plan, "cloud") == promises(plan, "unknown") == {}


PLAN = CopyPlan(
    (Place("raid", Tier.LIVE), Place("tape", Tier.ARCHIVE)),
    (CopyPolicy("all", frozenset(FileKind), {"raid": 1}, within_hours=0.0001),),
)


def look(catalog: Catalog, name: str = "raid", *, free: int = 50 * TB, trouble: str = "") -> None:
    """A keeper has looked."""
    stores.record_look(catalog, name, StoreLook(trouble, "", 100 * TB, free))


@contextmanager
def watched(catalog: Catalog) -> Iterator[CapacityWatch]:
    """A watch, just started anew; nothing but the catalog is older than it."""
    watch = CapacityWatch(catalog, PLAN, above=0.9, days=14)
    yield watch
    watch.stop()


def told(catalog: Catalog) -> list[tuple[Severity, str]]:
    """The alerts among the events, oldest first."""
    found = reversed(events.recent(catalog, limit=100))
    return [(one.severity, one.message) for one in found if one.kind == store_alerts.KIND]


@pytest.fixture
def enrolled(catalog: Catalog) -> Catalog:
    """A catalog with two stores that are well."""
    for name, tier in (("raid", Tier.LIVE), ("tape", Tier.ARCHIVE)):
        stores.enrol(catalog, name=name, tier=tier, url=f"/{name}")
        look(catalog, name)
    return catalog


def test_a_restart_says_nothing_twice_and_ends_what_ended(enrolled: Catalog) -> None:
    """Each look by a new watch: told once, once ended, told again when it begins again."""
    for free, expected in ((50, 0), (5, 1), (4, 0), (11, 0), (30, 1), (31, 0), (3, 1)):
        look(enrolled, free=free * TB)
        with watched(enrolled) as watch:
            assert watch.look() == expected
    assert [severity for severity, _ in told(enrolled)] == [Severity.WARNING, Severity.INFO, Severity.WARNING]
    assert [alert.store for alert in store_alerts.standing(enrolled)] == ["raid"]


def test_a_store_that_is_no_longer_the_facilitys_ends_its_alerts(enrolled: Catalog) -> None:
    """It was taken out of facility.toml."""
    stores.enrol(enrolled, name="old", tier=Tier.LIVE, url="/old")
    store_alerts.begin(enrolled, "old", StoreSubject.FILLED, "store old: 95 % is in use")
    with watched(enrolled) as watch:
        assert watch.look() == 1
    assert store_alerts.standing(enrolled) == []
    assert told(enrolled)[-1] == (Severity.INFO, "store old is not one of this facility's any more")


def test_samples_foretell_that_a_store_is_soon_full(enrolled: Catalog) -> None:
    """Four weeks of a steady terabyte a day with six left: told, and over when there is room again."""
    now = datetime.now(UTC)
    with enrolled.writing() as unit:
        for number in range(28 * 4 + 1):
            ago = timedelta(days=28 - number / 4)
            free = 6 * TB + int(TB * ago.total_seconds() / 86_400)
            unit.add(
                StoreSampleRow(
                    site="here",
                    store="raid",
                    at=now - ago,
                    total_bytes=100 * TB,
                    free_bytes=free,
                    arrived_bytes=TB // 4,
                    backlog_bytes=0,
                )
            )
    with watched(enrolled) as watch:
        assert watch.look() == 1
        assert watch.look() == 0
    assert told(enrolled) == [
        (Severity.WARNING, "store raid is full in about 6 days (6 to 6), if it goes on as it did")
    ]
    (raid, tape) = CapacityBook(enrolled).of(stores.all_stores(enrolled))
    assert raid.foretold.is_told and not tape.foretold.is_told
    assert (raid.used_bytes, raid.others_bytes, len(raid.samples)) == (50 * TB, 50 * TB, 113)


def test_late_copies_are_told_until_they_are_there(enrolled: Catalog) -> None:
    """A copy that waits for longer than its policy allows; told once, ended when it is verified."""
    session = sessions.create(
        enrolled, name="v", instrument_name="krios", source_root="/camera", folder="v", layout=Layout.PLAIN
    )
    file = files.record_arrival(
        enrolled,
        session_id=session.id,
        relative_path="a.mrc",
        kind=FileKind.MOVIE,
        size_bytes=10,
        modified_ns=1,
        stores=("raid", "tape"),
    )
    later = datetime.now(UTC) + timedelta(hours=1)
    assert capacity.late(enrolled, "tape", set(FileKind), later) is not None
    with watched(enrolled) as watch:
        while not watch.look():  # within 0.36 s
            pass
        assert watch.look() == 0
    assert [alert.subject for alert in store_alerts.standing(enrolled)] == [StoreSubject.LATE]
    digest = "ab" * 32
    files.set_digest(enrolled, file.id, digest)
    for replica in replicas.of_file(enrolled, file.id):
        replicas.record_copy(
            enrolled,
            replica.id,
            state=ReplicaState.VERIFIED,
            level=VerificationLevel.MEDIUM,
            sha256=digest,
            detail="",
        )
    with watched(enrolled) as watch:
        assert watch.look() == 1
    assert told(enrolled)[-1] == (Severity.INFO, "store raid has caught up: no copy is late any more")


def test_the_book_counts_again_what_changed(enrolled: Catalog) -> None:
    """A session whose copies changed is counted again, and another store's exchange counts all."""
    session = sessions.create(
        enrolled, name="v", instrument_name="krios", source_root="/camera", folder="v", layout=Layout.PLAIN
    )
    book = CapacityBook(enrolled)
    assert book.lines() == []
    digest = "ab" * 32
    for number in range(3):
        file = files.record_arrival(
            enrolled,
            session_id=session.id,
            relative_path=f"{number}.mrc",
            kind=FileKind.MOVIE,
            size_bytes=10,
            modified_ns=1,
            stores=("raid",),
        )
        files.set_digest(enrolled, file.id, digest)
        (replica,) = replicas.of_file(enrolled, file.id)
        replicas.record_copy(
            enrolled,
            replica.id,
            state=ReplicaState.VERIFIED,
            level=VerificationLevel.MEDIUM,
            sha256=digest,
            detail="",
        )
        (line,) = book.lines()
        assert (line.session_id, line.usage.files) == (session.id, number + 1)
    stores.note_marked(enrolled, "raid", new_id())
    stores.adopt(enrolled, "raid", new_id())
    assert book.lines() == []


def test_the_watch_runs_and_ends(enrolled: Catalog) -> None:
    """As every part of the facility does."""
    watch = CapacityWatch(enrolled, PLAN, above=0.9, days=14)
    watch.start()
    assert watch.alive() and watch.idle()
    watch.stop()
    watch.stop()
    assert not watch.alive()
