"""What pages say of sessions is counted when something has happened; of a large session by a thread, not all the time,
and never while somebody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import event, update

from coldchain.catalog import (
    engine,
    events,
    files,
    newest_events,
    page,
    replicas,
    retirement,
    retiring,
    session_counts,
    sessions,
    stores,
)
from coldchain.catalog import figures as figures_module
from coldchain.catalog.engine import Catalog
from coldchain.catalog.figures import FigureBook
from coldchain.catalog.retiring import Intent
from coldchain.catalog.session_counts import Counted
from coldchain.catalog.tables import EventRow
from coldchain.errors import CatalogAwayError
from coldchain.model.files import CopyRecord, Replica, ReplicaState, VerificationLevel
from coldchain.model.identity import first_id_at, new_id
from coldchain.model.policy import Tier
from coldchain.model.session import Session, SessionCounts
from tests.catalog.catalog_givens import SHA256, arrive, execute, expose, new_session

PATIENCE_SECONDS = 60.0
WRONG = SessionCounts(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)


class Clock:
    """A clock that goes on by a second whenever it is read."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, 1.0

    def __call__(self) -> float:
        """The time."""
        self.now += self.step
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The book's clock."""
    return Clock()


@pytest.fixture
def book(catalog: Catalog, clock: Clock) -> Iterator[FigureBook]:
    """A book of the catalog's figures."""
    made = FigureBook(catalog, troubles=5, clock=clock)
    yield made
    made.close()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every session with an exposure is large."""
    monkeypatch.setattr(page, "SMALL_EXPOSURES", 0)


class Gate:
    """Lets a counting begin, and end only when it is opened; counts how many there were, and in which threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_open = threading.Event()
        self.began = threading.Event()
        self.threads: list[str] = []
        counts = sessions.counts

        def counted(catalog: Catalog, session_id: object) -> SessionCounts:
            self.threads.append(threading.current_thread().name)
            self.began.set()
            assert self.is_open.wait(PATIENCE_SECONDS)
            return counts(catalog, session_id)  # type: ignore[arg-type]

        monkeypatch.setattr(sessions, "counts", counted)


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _remembered(catalog: Catalog, session: Session) -> Counted | None:
    newest = newest_events.of_many(catalog, [session.id])
    return session_counts.remembered(catalog, newest).get(session.id)


def test_a_small_session_is_always_counted_anew(catalog: Catalog, session: Session, book: FigureBook) -> None:
    """What has arrived is in the figures, the list and the counters at once, and nothing is written down."""
    for number in range(1, 6, 2):
        expose(catalog, session, f"a/{number}")
        found = book.of(session.id)
        assert found.counts is not None
        assert (found.counts.exposures, sum(found.shares.states.values())) == (number, number)
        assert found.is_current
        expose(catalog, session, f"b/{number}")
        (line,) = book.lines(limit=10)
        assert (line.counts, line.is_current) == (sessions.counts(catalog, session.id), True)
        assert book.counts(session.id) == (line.counts, True)
    assert _remembered(catalog, session) is None
    assert not any(thread.name == "coldchain-figures" for thread in threading.enumerate())


@pytest.mark.usefixtures("large")
def test_nobody_waits_for_a_large_session(
    catalog: Catalog, session: Session, book: FigureBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is counted, list, page and counters say that they do not know, or what they knew; the page's shares are
    there; what is asked again and again is counted once, by one thread."""
    gate = Gate(monkeypatch)
    expose(catalog, session)
    for _ in range(3):
        (line,) = book.lines(limit=10)
        assert (line.counts, line.is_current, line.session) == (None, False, session)
        found = book.of(session.id)
        assert (found.counts, found.is_current, sum(found.shares.states.values())) == (None, False, 1)
        assert book.counts(session.id) == (None, False)
    gate.is_open.set()
    _until(lambda: book.of(session.id).is_current)
    assert book.lines(limit=10)[0].counts == book.of(session.id).counts == sessions.counts(catalog, session.id)
    assert gate.threads[:-1] and set(gate.threads[:-1]) == {"coldchain-figures"}


@pytest.mark.usefixtures("large")
def test_a_large_session_rests(catalog: Catalog, session: Session, book: FigureBook, clock: Clock) -> None:
    """Its figures are said to be old until it has rested ten times as long as the counting took."""
    expose(catalog, session)
    _until(lambda: book.of(session.id).is_current)
    _until(lambda: book._busy_with is None)
    clock.now = 1000.0
    arrive(catalog, session, "another")
    assert not book.of(session.id).is_current
    _until(lambda: book.of(session.id).is_current)
    _until(lambda: book._busy_with is None)
    arrive(catalog, session, "a third")
    for _ in range(3):
        found = book.of(session.id)
        assert found.counts is not None
        assert (found.counts.files_arrived, found.is_current) == (2, False)
    clock.now += 2000.0
    _until(lambda: book.of(session.id).is_current)
    found = book.of(session.id)
    assert found.counts is not None and found.counts.files_arrived == 3


@pytest.mark.usefixtures("large")
def test_what_was_counted_outlives_the_process(
    catalog: Catalog, session: Session, book: FigureBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another book counts nothing as long as nothing has happened, in the list and on the page; one row is kept."""
    for number in range(2):
        expose(catalog, session, f"a/{number}")
        book._rests_until.clear()
        _until(lambda: (line := book.lines(limit=10)[0]).is_current and line.counts is not None)
    _until(lambda: (kept := _remembered(catalog, session)) is not None and kept.counts.exposures == 2)
    book.close()
    gate = Gate(monkeypatch)
    after = FigureBook(catalog, troubles=5)
    (line,) = after.lines(limit=10)
    assert line.is_current and line.counts is not None and line.counts.exposures == 2
    found = after.of(session.id)  # what else the page says of its files is looked for by the thread
    assert found.counts == line.counts and not found.is_current
    _until(lambda: after.of(session.id).is_current)
    after.close()
    assert gate.threads == []
    assert execute(
        str(catalog._url.render_as_string(hide_password=False)), "SELECT count(*) AS n FROM session_counts"
    ) == [{"n": 1}]


@pytest.mark.usefixtures("large")
def test_a_memory_that_is_behind_is_counted_again(catalog: Catalog, session: Session, book: FigureBook) -> None:
    """A row that says what is not true, of older events, is shown as old and is then put right; one of no sense is
    as if it were not there."""
    expose(catalog, session)
    older = newest_events.of(catalog, session.id)
    expose(catalog, session, "another")
    session_counts.remember(catalog, session.id, Counted(WRONG, older))
    (line,) = book.lines(limit=10)
    assert (line.counts, line.is_current) == (WRONG, False)
    _until(lambda: book.lines(limit=10)[0].is_current)
    assert book.lines(limit=10)[0].counts == sessions.counts(catalog, session.id)
    _until(lambda: (kept := _remembered(catalog, session)) is not None and kept.counts != WRONG)
    url = str(catalog._url.render_as_string(hide_password=False))
    for nonsense in ('{"exposures": "many"}', "{}", "[1]", "null", '"text"', "3"):
        execute(url, f"UPDATE session_counts SET counts = '{nonsense}'")
        assert _remembered(catalog, session) is None
    if url.startswith("sqlite"):  # MariaDB takes JSON only
        for nonsense in ("{", "", "\\u00zz", "[" * 50_000 + "]" * 50_000):
            execute(url, f"UPDATE session_counts SET counts = '{nonsense}', events = '{nonsense}'")
            assert _remembered(catalog, session) is None
    session_counts.remember(catalog, session.id, Counted(WRONG, older))
    execute(url, """UPDATE session_counts SET events = '["no key", 3]'""")
    kept = _remembered(catalog, session)
    assert kept is not None and kept.events == ()


@pytest.mark.usefixtures("large")
def test_a_row_of_another_site_serves_while_it_holds(catalog: Catalog, session: Session, url: str) -> None:
    """What holds counts first, whoever wrote it; else what this site has counted; each site writes its own row."""
    expose(catalog, session)
    older, newest = (None, None, None), newest_events.of(catalog, session.id)
    other = engine.open_catalog(url, "elsewhere")
    try:
        session_counts.remember(other, session.id, Counted(WRONG, newest_events.of(other, session.id)))
        newest = newest_events.of(catalog, session.id)  # the other site is known now
        session_counts.remember(other, session.id, Counted(WRONG, newest))
        session_counts.remember(catalog, session.id, Counted(replace(WRONG, exposures=99), older))
        kept = _remembered(catalog, session)
        assert kept is not None and kept.counts == WRONG
        session_counts.remember(other, session.id, Counted(WRONG, older))
        kept = _remembered(catalog, session)
        assert kept is not None and kept.counts.exposures == 99
    finally:
        other.close()


@pytest.mark.usefixtures("large")
def test_a_counting_that_fails_is_tried_again(
    catalog: Catalog, session: Session, book: FigureBook, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A catalog that is away, for the counting or for its memory, leaves the old figures, and the thread alive; it is
    asked again after a rest of some seconds, and not before."""
    expose(catalog, session)
    counts, remember = sessions.counts, session_counts.remember
    failed = []

    def away(*arguments: object) -> SessionCounts:
        failed.append(arguments)
        raise CatalogAwayError("the catalog's server is away")

    monkeypatch.setattr(sessions, "counts", away)
    clock.step = 0.0
    for tries in (1, 2):
        _until(lambda of=tries: not book.of(session.id).is_current and len(failed) == of and not book._busy_with)
        for moment in (0.0, figures_module.REST_AFTER_FAILURE_SECONDS - 0.1):
            clock.now += moment
            assert book.of(session.id).counts is None
            assert not book._asked and book._busy_with is None and len(failed) == tries
        clock.now += 0.2
    clock.step = 1.0
    monkeypatch.setattr(sessions, "counts", counts)
    monkeypatch.setattr(session_counts, "remember", away)
    _until(lambda: book.of(session.id).is_current)
    monkeypatch.setattr(session_counts, "remember", remember)
    assert [thread.name for thread in threading.enumerate()].count("coldchain-figures") == 1


@pytest.mark.usefixtures("large")
def test_a_closed_book_leaves_no_thread(catalog: Catalog, session: Session, book: FigureBook) -> None:
    """Closing ends the thread, twice does no harm, and what is asked later is counted all the same."""
    expose(catalog, session)
    for _ in range(2):
        arrive(catalog, session, f"{_}")
        book._rests_until.clear()
        _until(lambda: book.of(session.id).is_current)
        book.close()
        book.close()
        assert not any(thread.name == "coldchain-figures" for thread in threading.enumerate())


@pytest.mark.usefixtures("large")
def test_a_thread_that_outlives_the_closing_writes_nothing(
    catalog: Catalog, session: Session, book: FigureBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counting that takes longer than the closing waits ends its thread, and is not written down; another thread may
    have begun meanwhile."""
    expose(catalog, session)
    gate = Gate(monkeypatch)
    monkeypatch.setattr(figures_module, "_CLOSING_SECONDS", 0.01)
    book.of(session.id)
    assert gate.began.wait(PATIENCE_SECONDS)
    (late,) = [thread for thread in threading.enumerate() if thread.name == "coldchain-figures"]
    book.close()
    written = catalog.written
    book.of(session.id)
    _until(lambda: len(gate.threads) == 2)
    book.close()
    gate.is_open.set()
    _until(lambda: not late.is_alive())
    _until(lambda: all(thread.name != "coldchain-figures" for thread in threading.enumerate()))
    assert catalog.written == written and _remembered(catalog, session) is None


def _in_hours(hours: float) -> UUID:
    return UUID(int=first_id_at(datetime.now(UTC) + timedelta(hours=hours)).int | new_id().int % (1 << 62))


def _set_key(catalog: Catalog, old: UUID, new: UUID) -> None:
    with catalog.writing() as unit:
        unit.execute(update(EventRow).where(EventRow.id == old).values(id=new))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("is_new_process", [False, True])
def test_a_clock_that_was_set_back_hides_nothing(
    catalog: Catalog, session: Session, book: FigureBook, is_new_process: bool
) -> None:
    """What happens after an event of a time to come is counted, by the process that has seen that event and by the
    next; pages are renewed."""
    expose(catalog, session)
    newest = newest_events.of(catalog, session.id)
    moved = next(key for key in newest if key is not None)
    _set_key(catalog, moved, _in_hours(7000))
    _until(lambda: book.of(session.id).is_current)
    _until(lambda: _remembered(catalog, session) is not None)
    assert newest_events.of(catalog, session.id) != newest
    stamps = page.stamp(catalog), page.stamp(catalog, session.id)
    arrive(catalog, session, "after")
    assert page.stamp(catalog) != stamps[0] and page.stamp(catalog, session.id) != stamps[1]
    if is_new_process:
        book.close()
        book = FigureBook(catalog, troubles=5)
    try:
        assert not book.of(session.id).is_current
        book._rests_until.clear()
        _until(lambda: book.of(session.id).is_current)
        assert book.of(session.id).counts == sessions.counts(catalog, session.id)
    finally:
        book.close()


def test_a_counting_is_believed_for_good_only_of_what_is_long_over(catalog: Catalog, session: Session) -> None:
    """For an hour, if it was made soon after its newest event; not while it is of a time to come: its events' keys may
    be of a clock that was set back since. One of other events is not believed at all."""
    now = datetime.now(UTC)
    counts = sessions.counts(catalog, session.id)

    def holds(counted_hours: float, event_hours: float) -> bool:
        newest = (_in_hours(event_hours), None)
        return Counted(counts, newest, now + timedelta(hours=counted_hours)).holds(newest)

    assert [holds(at, at - 0.1) for at in (-0.9, -1.1, -100.0)] == [True, False, False]
    assert holds(-0.5, 0.1) and not holds(0.5, -2.0) and not holds(-1.5, 7000.0)
    assert holds(-0.9, -2.0) and holds(-5.0, -6.1) and holds(-100.0, -200.0)
    assert not Counted(counts, (_in_hours(-3.0),), now).holds((_in_hours(-3.0),))
    assert Counted(counts, ()).holds(())


def _verified(catalog: Catalog, session: Session, path: str) -> list[Replica]:
    file = arrive(catalog, session, path)
    files.set_digest(catalog, file.id, SHA256)
    copies = replicas.of_file(catalog, file.id)
    records = [
        CopyRecord(copy.id, ReplicaState.VERIFIED, VerificationLevel.MEDIUM, SHA256, stored_as="m") for copy in copies
    ]
    replicas.record_copies(catalog, records)
    return copies


def test_what_clearing_finds_is_counted_at_once(catalog: Catalog, session: Session, book: FigureBook) -> None:
    """A damaged copy, one at the source, and the only one that goes or is back are counted before any pass has ended;
    what lies in trashes is seen, too."""

    def is_true() -> bool:
        found = book.of(session.id)
        is_same = found.counts == sessions.counts(catalog, session.id)
        return found.is_current and is_same and found.shares.trash == retirement.trash_of(catalog, session.id)

    stores.enrol(catalog, name="live", tier=Tier.LIVE, url="file:///live")
    stores.enrol(catalog, name="archive", tier=Tier.ARCHIVE, url="file:///archive")
    live, archive = _verified(catalog, session, "a")
    _, second = _verified(catalog, session, "b")
    now = datetime.now(UTC)
    assert is_true()
    intent = Intent(live.file_id, frozenset({archive.id}), trashed_as="t")
    retiring.begin(catalog, session.id, "live", [intent], lambda *_: "", now=now)
    assert is_true() and len(book.of(session.id).shares.trash) == 1
    retiring.trashed(catalog, [live.id], now=now)
    assert is_true()
    assert retiring.damaged(catalog, {archive.id: "other bytes"}) == 1 and is_true()
    assert retiring.restored(catalog, [live.id]) == 1 and is_true()
    retiring.begin(catalog, session.id, "live", [intent], lambda *_: "", now=now)
    assert is_true()
    assert retiring.note_source(catalog, {second.file_id: "other bytes"}, ReplicaState.DAMAGED) == 1 and is_true()
    kinds = [each.kind for each in events.recent(catalog, session_id=session.id)]
    assert (kinds.count("replica.suspect"), kinds.count("replica.restored")) == (2, 1)


def test_what_is_not_seen_by_the_counters_is_no_event(catalog: Catalog, session: Session) -> None:
    """Of copies that are cleared and come back, each with another verified one, there is no event; of many damaged
    ones in one transaction there is one for each store."""
    pairs = [_verified(catalog, session, f"m{number}") for number in range(5)]
    before = newest_events.of(catalog, session.id)
    counts = sessions.counts(catalog, session.id)
    intents = [Intent(live.file_id, frozenset({other.id}), trashed_as="t") for live, other in pairs]
    retiring.begin(catalog, session.id, "live", intents, lambda *_: "", now=datetime.now(UTC))
    lives = [live.id for live, _ in pairs]
    assert retiring.trashed(catalog, lives, now=datetime.now(UTC)) == 5
    assert sessions.counts(catalog, session.id) == counts
    assert retiring.restored(catalog, lives) == 5
    assert sessions.counts(catalog, session.id) == counts
    assert newest_events.of(catalog, session.id) == before
    retiring.damaged(catalog, {copy.id: "other bytes" for pair in pairs for copy in pair})
    kinds = [each.kind for each in events.recent(catalog, session_id=session.id)]
    assert kinds.count("replica.suspect") == 2


def test_copies_that_another_sites_file_gets_are_counted(
    catalog: Catalog, session: Session, book: FigureBook, url: str
) -> None:
    """A file that another site took in, and that is wanted here too, is not verified any more, and that is seen; so is
    a second look at an own file that lacks a copy or belongs to an exposure since."""
    there = engine.open_catalog(url, "elsewhere")
    try:
        _verified(there, session, "m.tiff")
        assert book.of(session.id).counts == sessions.counts(catalog, session.id)
        verified = sessions.counts(catalog, session.id).files_verified
        arrive(catalog, session, "m.tiff", stores=("tape",))
    finally:
        there.close()
    counts = book.of(session.id).counts
    assert counts == sessions.counts(catalog, session.id) and counts.files_verified == verified - 1
    arrive(catalog, session, "own", stores=("live",))
    for again in ({"stores": ("live", "tape")}, {"exposure_id": expose(catalog, session).id}):
        before = book.of(session.id).shares.overview_paths, newest_events.of(catalog, session.id)
        arrive(catalog, session, "own", **again)  # type: ignore[arg-type]
        assert newest_events.of(catalog, session.id) != before[1]
    assert "own" in before[0] and "own" not in book.of(session.id).shares.overview_paths


@pytest.mark.usefixtures("large")
def test_the_trash_of_a_large_session_is_looked_for_from_time_to_time(
    catalog: Catalog, session: Session, book: FigureBook, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the thread, a minute after it was, also where nothing has happened; nothing else is counted for it."""
    stores.enrol(catalog, name="live", tier=Tier.LIVE, url="file:///live")
    expose(catalog, session)
    live, archive = _verified(catalog, session, "a")
    _until(lambda: book.of(session.id).is_current)
    _until(lambda: book._busy_with is None and not book._asked)
    clock.step = 0.0
    gate = Gate(monkeypatch)
    intent = Intent(live.file_id, frozenset({archive.id}), trashed_as="t")
    retiring.begin(catalog, session.id, "live", [intent], lambda *_: "", now=datetime.now(UTC))
    assert book.of(session.id).is_current and not book._asked and book._busy_with is None
    clock.now += figures_module.TRASH_SECONDS + 1000.0
    _until(lambda: len(book.of(session.id).shares.trash) == 1)
    assert book.of(session.id).is_current and gate.threads == []


def test_many_small_sessions_are_not_all_counted_at_once(
    catalog: Catalog, session: Session, book: FigureBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sessions of which nothing is known, those are counted for a list whose files are few together."""
    expose(catalog, session)
    arrive(catalog, session, "one")
    for number in range(3):
        arrive(catalog, new_session(catalog, name=f"v{number}", folder=f"v{number}"), "one")
    monkeypatch.setattr(figures_module, "MOST_FILES_AT_ONCE", 2)
    gate = Gate(monkeypatch)
    gate.is_open.set()
    lines = book.lines(limit=10)
    assert [line.is_current for line in lines[:2]] == [True, True]
    assert gate.threads.count(threading.current_thread().name) == 2
    _until(lambda: all(line.is_current for line in book.lines(limit=10)))
    assert [line.counts.files_arrived for line in book.lines(limit=10) if line.counts] == [1, 1, 1, 2]


def test_a_list_goes_on_where_one_ended(catalog: Catalog, session: Session, book: FigureBook) -> None:
    """Newest first, so many, and those before one; each with the time of its newest event."""
    made = [session, *(new_session(catalog, name=f"v{n}", folder=f"v{n}") for n in range(3))]
    first = book.lines(limit=2)
    rest = book.lines(limit=5, before=first[-1].session.id)
    assert [line.session.id for line in first + rest] == [each.id for each in reversed(made)]
    assert book.lines(limit=5, before=made[0].id) == []
    before = first[0].last_activity
    arrive(catalog, made[-1])
    assert book.lines(limit=1)[0].last_activity > before


def test_the_newest_events_of_many_sessions_are_one_statement(catalog: Catalog, session: Session) -> None:
    """The same as of each alone, in the order of sites and severities, also of a session that is not there."""
    other = new_session(catalog, name="other", folder="other")
    expose(catalog, other)
    told: list[str] = []

    def tell(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        told.append(statement)

    event.listen(catalog._reader, "before_cursor_execute", tell)
    ids = [session.id, other.id, session.instrument.id]
    found = newest_events.of_many(catalog, ids)
    selects = [statement for statement in told if statement.startswith("SELECT sessions.id")]
    event.remove(catalog._reader, "before_cursor_execute", tell)
    assert len(selects) == 1
    assert found == {key: newest_events.of(catalog, key) for key in ids}
    assert found[session.instrument.id] == ()
    assert found[session.id] != found[other.id]
    assert newest_events.of(catalog, None)[0] == max(key for keys in found.values() for key in keys if key)
