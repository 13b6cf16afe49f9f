"""Events whose transactions are through in another order than that of their ids are told all the same, once."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from coldchain.catalog.engine import Catalog, open_catalog, upgrade
from coldchain.catalog.tables import EventRow
from coldchain.model.events import Event, Notice, Severity
from coldchain.notify import follower as follower_module
from coldchain.notify.follower import LATE_SECONDS, Follower, first_id_of, late_from, seconds_of
from coldchain.notify.message import Batch
from coldchain.notify.notifier import Notifier, Receiver
from coldchain.notify.rules import Pace, Rule
from coldchain.service import EventJournal
from tests.notify.notify_givens import WAIT_SECONDS

NOW = 1_700_000_000.0
PACE = Pace(digest_seconds=0)


def id_at(seconds: float, number: int = 1) -> UUID:
    """The id of an event of that time."""
    return UUID(int=first_id_of(seconds).int + number)


class Rows:
    """A journal whose rows appear in any order."""

    def __init__(self) -> None:
        self.rows: list[UUID] = []

    def after(self, last: UUID, *, limit: int) -> list[Notice]:
        """As the catalog does it."""
        return self.these(sorted(each for each in self.rows if each > last)[:limit])

    def ids(self, after: UUID, until: UUID, *, limit: int) -> list[UUID]:
        """As the catalog does it."""
        return sorted((each for each in self.rows if after < each <= until), reverse=True)[:limit]

    def these(self, ids: Sequence[UUID]) -> list[Notice]:
        """As the catalog does it."""
        return [Notice(Event(each, datetime.now(UTC), Severity.INFO, "a.b", "")) for each in sorted(ids)]

    def newest(self) -> UUID:
        """Not asked for here."""
        raise NotImplementedError

    def cursor(self, rule: str) -> UUID | None:
        """Not asked for here."""
        raise NotImplementedError

    def set_cursor(self, rule: str, event_id: UUID) -> None:
        """Not asked for here."""
        raise NotImplementedError

    def told(self, rule: str) -> list[UUID]:
        """Not asked for here."""
        raise NotImplementedError

    def sends(self, rule: str) -> list[tuple[float, int]]:
        """Not asked for here."""
        raise NotImplementedError

    def record(self, rule: str, event_id: UUID, *, told: object, sends: object) -> None:
        """Not asked for here."""
        raise NotImplementedError

    def say(self, kind: str, message: str) -> None:
        """Not asked for here."""
        raise NotImplementedError


def everything_of(follower: Follower, now_seconds: float) -> list[UUID]:
    """All that it has to give now."""
    given_ids: list[UUID] = []
    for read in (follower.read_on, lambda: follower.look_back(now_seconds)):
        while page := read():
            given_ids += [notice.event.id for notice in page]
    return given_ids


def test_an_id_holds_its_time() -> None:
    """To the millisecond; before 1970 there is none."""
    assert seconds_of(id_at(NOW)) == NOW
    assert late_from(UUID(int=0), NOW) == UUID(int=0)
    assert seconds_of(late_from(id_at(NOW), NOW + 50)) == NOW - LATE_SECONDS
    assert seconds_of(late_from(id_at(NOW + 5000), NOW)) == NOW - LATE_SECONDS


# (seconds within the time in which rows may appear late, whether the reader reads after this one)
ROWS = st.lists(st.tuples(st.floats(0, LATE_SECONDS - 1), st.booleans()), max_size=40)


@given(rows=ROWS)
def test_in_whatever_order_rows_appear_each_is_given_once(rows: list[tuple[float, bool]]) -> None:
    """Random times, read at random moments; with pages of one event as well."""
    journal = Rows()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(follower_module, "PAGE", 2)
        follower, got = Follower(journal, journal, UUID(int=0)), []
        for number, (seconds, reads) in enumerate(rows):
            journal.rows.append(id_at(NOW + seconds, number + 1))
            if reads:
                got += everything_of(follower, NOW + LATE_SECONDS)
        got += everything_of(follower, NOW + LATE_SECONDS)
    assert sorted(got) == sorted(journal.rows)


def test_a_clock_that_is_ahead_hides_nobody_s_events() -> None:
    """An event of an hour ahead: those of now, with smaller ids, are found behind it."""
    journal = Rows()
    journal.rows.append(id_at(NOW + 3600))
    follower = Follower(journal, journal, UUID(int=0))
    everything_of(follower, NOW)
    journal.rows += [id_at(NOW), id_at(NOW + 10)]
    assert everything_of(follower, NOW + 10) == [id_at(NOW), id_at(NOW + 10)]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a flood the newest are looked through; none of it is given twice, and what is late among these is found."""
    monkeypatch.setattr(follower_module, "MOST_REMEMBERED", 50)
    journal = Rows()
    journal.rows += [id_at(NOW, 2 * number) for number in range(1, 1000)]
    follower = Follower(journal, journal, UUID(int=0))
    assert len(everything_of(follower, NOW)) == 999
    assert len(follower._seen) <= 100
    journal.rows.append(id_at(NOW, 1995))
    assert everything_of(follower, NOW) == [id_at(NOW, 1995)]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """An empty catalog."""
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    upgrade(url)
    opened = open_catalog(url, "here")
    yield opened
    opened.close()


class Ear:
    """A receiver that notes what it is told, and says what it is asked to."""

    bundles = True

    def __init__(self) -> None:
        self.heard: queue.Queue[str] = queue.Queue()
        self.complaints: list[str] = []

    def __str__(self) -> str:
        return "ear"

    def send(self, batch: Batch) -> list[str]:
        """Listen."""
        for notice in batch.notices:
            self.heard.put(notice.event.message)
        return self.complaints

    def hears(self) -> str:
        """The next event."""
        return self.heard.get(timeout=WAIT_SECONDS)


def commit(catalog: Catalog, seconds: float, message: str, site: str = "here") -> None:
    """A transaction is through in which an event was made at that time."""
    with catalog.writing() as unit:
        unit.execute(  # past the session, which adds no other site's events
            insert(EventRow).values(
                id=id_at(seconds, crc32(message.encode())),
                site=site,
                at=datetime.fromtimestamp(seconds, UTC),
                severity=Severity.WARNING,
                kind="a.b",
                message=message,
            )
        )


class Told:
    """A notifier of a catalog with one rule."""

    def __init__(self, catalog: Catalog, ear: Ear) -> None:
        journal = EventJournal(catalog)
        self._notifier = Notifier(journal, [Receiver(Rule("staff"), PACE, ear)], ledger=journal, read_seconds=0.01)

    def __enter__(self) -> None:
        self._notifier.start()

    def __exit__(self, *_: object) -> None:
        self._notifier.stop()
        assert not self._notifier.alive()


def until(holds: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_transaction_that_is_late_is_told_while_running_and_after_a_restart(catalog: Catalog) -> None:
    """Behind what was told come events of a minute ago, and of eight: at once, and where nobody was there; none of them
    twice, whatever the number of restarts."""
    ear, now = Ear(), time.time()
    with Told(catalog, ear):
        commit(catalog, now, "first")
        assert ear.hears() == "first"
        commit(catalog, now - 60, "a minute late")
        assert ear.hears() == "a minute late"
        commit(catalog, now - 90, "of another site", site="there")
    commit(catalog, now - 480, "eight minutes late")
    commit(catalog, now + 1, "second")
    with Told(catalog, ear):
        assert [ear.hears(), ear.hears()] == ["eight minutes late", "second"]
    for message in ("third", "and the fourth"):
        with Told(catalog, ear):
            commit(catalog, now + 2, message)
            assert ear.hears() == message
    assert ear.heard.empty()


def test_what_a_new_rule_finds_is_not_told_after_a_restart_either(catalog: Catalog) -> None:
    """What was there before the rule is never told, although it lies within the time that is looked through."""
    ear, now = Ear(), time.time()
    commit(catalog, now - 100, "before")
    for turn in range(2):
        with Told(catalog, ear):
            commit(catalog, now + turn, f"after {'x' * turn}")
            assert ear.hears().startswith("after")
    assert ear.heard.empty()


def test_what_was_told_is_forgotten_when_nothing_can_appear_before_it(catalog: Catalog) -> None:
    """The record does not grow with what was told: the cursor follows ten minutes behind."""
    ear, now, journal = Ear(), time.time(), EventJournal(catalog)
    with Told(catalog, ear):
        commit(catalog, now - 5000, "old")
        ear.hears()
        commit(catalog, now - 4900, "as old")
        ear.hears()
    assert len(journal.told("staff")) == 2
    with Told(catalog, ear):
        commit(catalog, now, "new")
        ear.hears()
    assert len(journal.told("staff")) == 1
    cursor = journal.cursor("staff")
    assert cursor is not None
    assert now - LATE_SECONDS - 1 <= seconds_of(cursor) <= now - LATE_SECONDS + 60


def test_an_address_that_is_refused_is_an_event_once(catalog: Catalog) -> None:
    """Who is not told stands on the page: once, although the event of it is refused as well, and again where the
    address was taken in between."""
    ear, now, journal = Ear(), time.time(), EventJournal(catalog)

    def stated() -> list[str]:
        found = [notice.event for notice in journal.after(UUID(int=0), limit=100)]
        return [event.message for event in found if event.kind == "notice.refused"]

    ear.complaints = ["bob@example.org: 550 who is that"]
    with Told(catalog, ear):
        commit(catalog, now, "one")
        assert ear.hears() == "one"
        said = "staff: ear: not told: bob@example.org: 550 who is that"
        assert ear.hears() == said
        commit(catalog, now, "three")
        assert ear.hears() == "three"
        assert stated() == [said]
        ear.complaints = []
        commit(catalog, now, "again")
        commit(catalog, now, "and again")
        assert {ear.hears(), ear.hears()} == {"again", "and again"}
        ear.complaints = ["bob@example.org: 450 not now"]
        commit(catalog, now, "once more.")
        assert ear.hears() == "once more."
        until(lambda: len(stated()) == 2)
