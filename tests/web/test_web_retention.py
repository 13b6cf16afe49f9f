"""What holds a session, and what is going to be cleared of it, stand on its page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx

from coldchain.catalog import announcements, files, holds, replicas, retirement, retiring, stores
from coldchain.catalog.retiring import Intent
from coldchain.model.files import DataFile, FileKind, ReplicaState, VerificationLevel
from coldchain.model.policy import RetireRule, Tier
from coldchain.model.retention import Amount
from coldchain.model.session import Session
from tests.web.planted import HOSTILE, Facility, served


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


def trashed(facility: Facility, session: Session, path: str, at: datetime) -> DataFile:
    """A movie of 2.5 GB that was moved to the trash of the live store."""
    file = files.record_arrival(
        facility.catalog,
        session_id=session.id,
        relative_path=path,
        kind=FileKind.MOVIE,
        size_bytes=2_500_000_000,
        modified_ns=1,
        stores=("live",),
    )
    files.set_digest(facility.catalog, file.id, "ab" * 32)
    [copy] = replicas.of_file(facility.catalog, file.id)
    replicas.record_copy(
        facility.catalog,
        copy.id,
        state=ReplicaState.VERIFIED,
        level=VerificationLevel.MEDIUM,
        sha256="ab" * 32,
        detail="",
    )
    intent = Intent(file.id, frozenset(), trashed_as=f".coldchain-trash/{path}")
    retiring.begin(facility.catalog, session.id, "live", [intent], lambda *_: "", now=at)
    retiring.trashed(facility.catalog, [copy.id], now=at)
    return file


def test_the_page_says_what_lies_in_a_trash_and_until_when(facility: Facility) -> None:
    """How many files of how many bytes, of which store, the day on which the first may go by the shortest rule, and the
    command that brings them back; another session's page, and a session without trash, say nothing."""
    session, other = facility.session(), facility.session("other")
    stores.enrol(facility.catalog, name="live", tier=Tier.LIVE, url="/live")
    first = datetime.now(UTC) - timedelta(days=2)
    rules = [
        RetireRule("short", ("live",), grace_days=7),
        RetireRule("long", (Tier.LIVE,), grace_days=30),
        RetireRule("else", ("tape",), grace_days=1),
    ]
    address = f"/sessions/{session.id}"
    with served(facility, retire_rules=rules) as url, httpx.Client(base_url=url) as client:
        assert "In the trash." not in client.get(address).text
        trashed(facility, session, "1.tiff", first)
        trashed(facility, session, "2.tiff", first + timedelta(days=1))
        text = client.get(address).text
        assert "In the trash." in text and "2 files, 5.0 GB, of live, until" in text
        assert (first + timedelta(days=7)).isoformat() in text
        assert "<span>restore</span> <span>apoferritin-04</span> <span>--store</span> <span>live</span>" in text
        assert "In the trash." not in client.get(f"/sessions/{other.id}").text
    with served(facility) as url, httpx.Client(base_url=url) as client:
        text = client.get(address).text
        assert "2 files, 5.0 GB, of live.</p>" in text and "No rule of this facility removes it now." in text
