"""What notification asks of the catalog."""

from __future__ import annotations

from uuid import UUID

from coldchain.catalog import engine, events, notices
from coldchain.catalog.engine import Catalog
from coldchain.model.events import Severity
from coldchain.model.session import Session


def test_events_come_in_order_with_the_names_that_people_know(catalog: Catalog, session: Session) -> None:
    """After an event come those that were written later, with session and instrument, in pages that join."""
    start = notices.newest(catalog)
    said = [
        events.record(catalog, Severity.INFO, "a.b", "one", session_id=session.id),
        events.record(catalog, Severity.ERROR, "c.d", "two"),
        events.record(catalog, Severity.INFO, "a.b", "three", session_id=session.id),
    ]
    found = notices.after(catalog, start, limit=2)
    assert [notice.event for notice in found] == said[:2]
    assert [(n.session_name, n.instrument_name) for n in found] == [("visit", "krios"), ("", "")]
    assert [n.event for n in notices.after(catalog, found[-1].event.id, limit=2)] == said[2:]
    assert notices.newest(catalog) == said[-1].id


def test_each_site_tells_its_own(catalog: Catalog, url: str) -> None:
    """Another site's events and cursors in the same catalog are not this one's."""
    assert notices.newest(catalog) == UUID(int=0)
    other = engine.open_catalog(url, "there")
    theirs = events.record(other, Severity.ERROR, "a.b", "theirs")
    notices.set_cursor(other, "staff", theirs.id)
    assert notices.newest(catalog) == UUID(int=0)
    assert notices.after(catalog, UUID(int=0), limit=10) == []
    assert notices.cursor(catalog, "staff") is None
    other.close()


def test_ids_are_found_between_two_and_events_by_them(catalog: Catalog) -> None:
    """The newest so many, newest first; their events, oldest first, and none that is another site's."""
    said = [events.record(catalog, Severity.INFO, "a.b", str(number)).id for number in range(5)]
    assert notices.ids(catalog, said[0], said[3], limit=10) == said[3:0:-1]
    assert notices.ids(catalog, said[0], said[3], limit=2) == [said[3], said[2]]
    found = notices.these(catalog, [said[4], said[1], UUID(int=7)])
    assert [notice.event.id for notice in found] == [said[1], said[4]]
    assert notices.these(catalog, []) == []


def test_what_a_rule_has_told_is_kept_until_its_cursor_has_passed_it(catalog: Catalog) -> None:
    """Each record adds to what was told, forgets what lies up to the cursor, and has its own messages."""
    one, two, three = (UUID(int=number) for number in (1, 2, 3))
    notices.record(catalog, "lab", one, told=[two], sends=None)
    notices.record(catalog, "staff", one, told=[one, two], sends=[(1e9, 3), (2e9 + 0.25, 1)])
    assert notices.told(catalog, "staff") == [two]
    notices.record(catalog, "staff", one, told=[three], sends=[(3e9, 2)])
    assert sorted(notices.told(catalog, "staff")) == [two, three]
    assert notices.sends(catalog, "staff") == [(3e9, 2)]
    notices.record(catalog, "staff", two, told=[], sends=None)
    assert (notices.cursor(catalog, "staff"), notices.told(catalog, "staff")) == (two, [three])
    assert (notices.sends(catalog, "staff"), notices.sends(catalog, "none")) == ([], [])
    assert (notices.cursor(catalog, "lab"), notices.told(catalog, "lab")) == (one, [two])


def test_a_rule_s_place_is_kept(catalog: Catalog) -> None:
    """A cursor is what was set last, for each rule by itself."""
    for number in (1, 2):
        notices.set_cursor(catalog, "staff", UUID(int=number))
    notices.set_cursor(catalog, "lab", UUID(int=9))
    assert (notices.cursor(catalog, "staff"), notices.cursor(catalog, "lab")) == (UUID(int=2), UUID(int=9))
