"""E-mail to sessions' owners: each is told of their own sessions, in a mail that nobody else gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from coldchain.catalog import events, notices, sessions
from coldchain.catalog.engine import open_catalog, upgrade
from coldchain.errors import DeliveryError
from coldchain.model.events import Notice, Severity
from coldchain.model.session import Layout
from coldchain.notify.line import Patience
from coldchain.notify.mail import Mail, is_mail_address
from coldchain.notify.sections import MailSection
from tests.notify.mail_sink import Sink, serving
from tests.notify.notify_givens import HOSTILE, batch, notice


def by(port: int, **other: Any) -> Mail:
    """Mail to owners by the server at that port."""
    given: dict[str, Any] = {
        "facility": "EM",
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "cold@example.org",
        "to": (),
        "owner": True,
        "patience": Patience(answer_seconds=5, total_seconds=10),
    }
    return Mail(**(given | other))


def about(number: int, owner: str, *, session: str = "", message: str = "it will be cleared") -> Notice:
    """An event of an owner's session."""
    made = notice(number, session=session or f"of-{owner.partition('@')[0]}", message=message)
    return replace(made, owner_mail=owner)


def taken(sink: Sink) -> dict[tuple[str, ...], str]:
    """What the server took: by receivers, the content."""
    found = {}
    while not sink.taken.empty():
        envelope = sink.taken.get()
        assert isinstance(envelope.content, bytes)
        found[tuple(envelope.rcpt_tos)] = envelope.content.decode()
    return found


def test_each_owner_gets_what_is_about_their_sessions() -> None:
    """Staff are told everything in one mail, each owner only of their own sessions, and nobody else's address shows."""
    events_ = [about(1, "ada@a.org"), about(2, "bob@b.org"), about(3, "ada@a.org", session="ada-2"), notice(4)]
    with serving(None) as sink:
        assert by(sink.port, to=("staff@em.org",)).send(batch(*events_)) == []
        mails = taken(sink)
    assert set(mails) == {("staff@em.org",), ("ada@a.org",), ("bob@b.org",)}
    assert "of-ada" in mails["ada@a.org",] and "ada-2" in mails["ada@a.org",]
    assert "bob" not in mails["ada@a.org",] and "ada" not in mails["bob@b.org",]
    assert all(name in mails["staff@em.org",] for name in ("of-ada", "ada-2", "of-bob", "4 events"))


def test_only_owners_are_told_where_nobody_else_is_named() -> None:
    """Events without a session, or whose session has no owner, are told to nobody, and that is no failure."""
    with serving(None) as sink:
        assert by(sink.port).send(batch(notice(1), about(2, ""))) == []
        assert by(sink.port).send(batch(about(3, "ada@a.org"))) == []
        assert list(taken(sink)) == [("ada@a.org",)]


def test_without_owner_no_owner_is_told() -> None:
    """A rule that does not ask for it tells those whom it names."""
    with serving(None) as sink:
        by(sink.port, to=("staff@em.org",), owner=False).send(batch(about(1, "ada@a.org")))
        assert list(taken(sink)) == [("staff@em.org",)]


def test_an_owner_who_is_staff_is_told_once() -> None:
    """No second copy of the same."""
    with serving(None) as sink:
        by(sink.port, to=("ada@a.org",)).send(batch(about(1, "ada@a.org")))
        assert sink.taken.qsize() == 1


@pytest.mark.parametrize(
    "address",
    [
        "ada@a.org\r\nBcc: evil@e.org",
        "ada@a.org, evil@e.org",
        "<ada@a.org> SIZE=1",
        "Ada <ada@a.org>",
        "ada",
        "@a.org",
        "a@b@c.org",
        ".ada@a.org",
        "ada@a..org",
        "ada@a.org ",
        "größe@a.org",
        HOSTILE,
        "a" * 100_000,
    ],
)
def test_hostile_addresses_reach_nobody(address: str) -> None:
    """What is no address is never given to the server; who is named rightly is told, and the complaint is one line."""
    assert not is_mail_address(address)
    with serving(None) as sink:
        [complaint] = by(sink.port).send(batch(about(1, address, session="visit"), about(2, "ada@a.org")))
        assert list(taken(sink)) == [("ada@a.org",)]
    assert complaint.isprintable() and len(complaint) < 400 and "the owner of visit" in complaint


def test_an_owner_whose_address_is_refused_holds_up_nobody() -> None:
    """Refused for good it is said with the server's words, and not tried again, also where it is the only one."""
    with serving(None) as sink:
        sink.refuses["gone@a.org"] = "550 no such user"
        mail = by(sink.port)
        complaints = mail.send(batch(about(1, "gone@a.org"), about(2, "bob@b.org")))
        assert complaints == ["gone@a.org: 550 no such user"]
        assert list(taken(sink)) == [("bob@b.org",)]
        assert mail.send(batch(about(3, "gone@a.org"))) == ["gone@a.org: 550 no such user"]


def test_who_was_told_is_not_told_again_with_the_next_try() -> None:
    """One owner's server is busy: the batch is tried again, with what has come since, and the others get only that."""
    with serving(None) as sink:
        sink.refuses["busy@a.org"] = "451 later"
        mail = by(sink.port, to=("staff@em.org",))
        first = [about(1, "busy@a.org"), about(2, "bob@b.org")]
        with pytest.raises(DeliveryError, match="451 later") as caught:
            mail.send(batch(*first))
        assert caught.value.retry
        assert set(taken(sink)) == {("staff@em.org",), ("bob@b.org",)}
        del sink.refuses["busy@a.org"]
        assert mail.send(batch(*first, about(3, "bob@b.org", session="bob-3"))) == []
        mails = taken(sink)
        assert set(mails) == {("busy@a.org",), ("bob@b.org",), ("staff@em.org",)}
        assert "bob-3" in mails["bob@b.org",] and "of-bob" not in mails["bob@b.org",]
        assert mail.send(batch(about(4, "bob@b.org"))) == []
        assert set(taken(sink)) == {("staff@em.org",), ("bob@b.org",)}


def test_what_was_dropped_is_counted_for_staff_alone() -> None:
    """Owners are not told how many of others' events were never told."""
    with serving(None) as sink:
        by(sink.port, to=("staff@em.org",)).send(batch(about(1, "ada@a.org"), lost={"alert.raised": 3}))
        mails = taken(sink)
    assert "never will be" in mails["staff@em.org",] and "never will be" not in mails["ada@a.org",]


def test_the_catalog_says_who_owns_the_session_of_an_event(tmp_path: Path) -> None:
    """A notice has the owner's address as it is written down now, and "" where there is none."""
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    upgrade(url)
    catalog = open_catalog(url, "here")
    session = sessions.create(
        catalog,
        name="v",
        instrument_name="krios",
        source_root="/c",
        folder="v",
        layout=Layout.EPU,
        owner_mail="a@b.org",
    )
    events.record(catalog, Severity.WARNING, "retire.announced", "soon", session_id=session.id)
    events.record(catalog, Severity.WARNING, "store.trouble", "away")
    found = {n.event.kind: n.owner_mail for n in notices.after(catalog, UUID(int=0), limit=10)}
    catalog.close()
    assert found["retire.announced"] == "a@b.org" and found["store.trouble"] == ""


def test_a_rule_must_reach_somebody() -> None:
    """`to`, or `owner`, or both; nobody is an error of the file."""
    given: dict[str, Any] = {"host": "mail.example.org", "sender": "cold@example.org"}
    assert MailSection(**given, owner=True).as_channel("EM", Path("/")).owner
    assert "sessions' owners" in str(MailSection(**given, owner=True).as_channel("EM", Path("/")))
    with pytest.raises(ValidationError, match="owner = true"):
        MailSection(**given)
