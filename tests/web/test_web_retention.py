"""What holds a session, and what is going to be cleared of it, stand on its page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx

from coldchain.catalog import announcements, holds, retirement
from coldchain.model.retention import Amount
from tests.web.planted import HOSTILE, Facility


def test_the_page_says_what_will_be_cleared_and_what_holds_it(facility: Facility, client: httpx.Client) -> None:
    """With the day, the amount, and the command that stops it; a hold with its reason, as text, until it is lifted."""
    session = facility.session()
    address = f"/sessions/{session.id}"
    assert "To be cleared." not in client.get(address).text
    due_at = datetime.now(UTC) + timedelta(days=7)
    made = announcements.announce(
        facility.catalog,
        retirement.life_of(facility.catalog, session.id),
        rule="tidy",
        store="source",
        amount=Amount(1200, 2_500_000_000),
        now=datetime.now(UTC),
        due_at=due_at,
    )
    text = client.get(address).text
    assert "To be cleared." in text and "1,200 files, 2.5 GB, from the camera&#39;s disk" in text
    assert due_at.isoformat() in text and "<span>hold</span> <span>apoferritin-04</span>" in text
    holds.hold(facility.catalog, session.id, reason=HOSTILE, by="ada")
    announcements.end(facility.catalog, made.id, outcome="held", now=datetime.now(UTC), withdrawn=True)
    text = client.get(address).text
    assert "To be cleared." not in text and "Held." in text and "<script>alert(1)</script>" not in text
    assert "<span>release</span> <span>apoferritin-04</span>" in text
    holds.lift(facility.catalog, session.id, by="ada")
    assert "Held." not in client.get(address).text
