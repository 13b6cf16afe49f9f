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


def test_a_rule_s_place_is_kept(catalog: Catalog) -> None:
    """A cursor is what was set last, for each rule by itself."""
    for number in (1, 2):
        notices.set_cursor(catalog, "staff", UUID(int=number))
    notices.set_cursor(catalog, "lab", UUID(int=9))
    assert (notices.cursor(catalog, "staff"), notices.cursor(catalog, "lab")) == (UUID(int=2), UUID(int=9))
