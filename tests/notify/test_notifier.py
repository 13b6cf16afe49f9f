"""Events of a journal reach their receivers, whatever becomes of these, and once."""

from __future__ import annotations

import json
import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

import pytest

from coldchain.errors import CatalogError, DeliveryError, RefusedError
from coldchain.model.events import Notice, Severity
from coldchain.notify.line import Patience
from coldchain.notify.mail import Mail
from coldchain.notify.message import Batch
from coldchain.notify.notifier import Notifier, Receiver
from coldchain.notify.rules import Pace, Rule
from coldchain.notify.secret import Secret
from coldchain.notify.syslog import Address, Syslog
from coldchain.notify.webhook import Webhook
from tests.notify.notify_givens import WAIT_SECONDS, WebServer, answering, notice

AT_ONCE = Pace(digest_seconds=0, first_pause_seconds=0.01, longest_pause_seconds=0.01)
_NOW_MS = int(datetime.now(UTC).timestamp() * 1000)


class Journal:
    """A journal in memory. It refuses while `away`; `saved` is set with every cursor."""

    def __init__(self) -> None:
        self.events: list[Notice] = []
        self.cursors: dict[str, UUID] = {}
        self.away = False
        self.refused = threading.Event()
        self.saves: queue.Queue[tuple[str, UUID]] = queue.Queue()

    def write(self, *messages: str, severity: Severity = Severity.WARNING) -> list[Notice]:
        """Something happens, now."""
        written = []
        for message in messages:
            number = (_NOW_MS << 80) + len(self.events) + 1
            written.append(notice(number, message=message, severity=severity, at=datetime.now(UTC)))
            self.events.append(written[-1])
        return written

    def _check(self) -> None:
        if self.away:
            self.refused.set()
            raise CatalogError("the catalog is away")

    def after(self, last: UUID, *, limit: int) -> list[Notice]:
        """As the catalog does it."""
        self._check()
        return [n for n in list(self.events) if n.event.id > last][:limit]

    def newest(self) -> UUID:
        """As the catalog does it."""
        return self.events[-1].event.id if self.events else UUID(int=0)

    def cursor(self, rule: str) -> UUID | None:
        """As the catalog does it."""
        return self.cursors.get(rule)

    def set_cursor(self, rule: str, event_id: UUID) -> None:
        """As the catalog does it."""
        self._check()
        self.cursors[rule] = event_id
        self.saves.put((rule, event_id))


class Ear:
    """A receiver. What it is told comes out of `heard`; `fate` is called first and may raise."""

    bundles = True

    def __init__(self, fate: Callable[[], None] = lambda: None) -> None:
        self.heard: queue.Queue[list[str]] = queue.Queue()
        self.fate = fate

    def __str__(self) -> str:
        return "ear"

    def send(self, batch: Batch) -> list[str]:
        """Listen."""
        self.fate()
        self.heard.put([n.event.message for n in batch.notices])
        return []

    def hears(self) -> list[str]:
        """The next message."""
        return self.heard.get(timeout=WAIT_SECONDS)


@contextmanager
def running(journal: Journal, *receivers: Receiver) -> Iterator[Notifier]:
    """A notifier that looks often."""
    notifier = Notifier(journal, receivers, read_seconds=0.01)
    notifier.start()
    try:
        yield notifier
        assert notifier.alive()
    finally:
        notifier.stop()


def receiver(ear: Ear, name: str = "staff", pace: Pace = AT_ONCE) -> Receiver:
    """That ear, told of every warning."""
    return Receiver(Rule(name), pace, ear)


def test_what_happens_from_now_on_is_told_and_what_was_before_is_not() -> None:
    """A new rule begins at the start; what it does not ask for is not told."""
    journal, ear = Journal(), Ear()
    journal.write("before")
    with running(journal, receiver(ear)):
        journal.write("nothing", severity=Severity.INFO)
        journal.write("one")
        assert ear.hears() == ["one"]
        journal.write("two")
        assert ear.hears() == ["two"]
    assert ear.heard.empty()


def test_a_restart_tells_what_was_waiting_and_nothing_twice() -> None:
    """What waited for its digest at the stop, and what happened meanwhile, is told after the start, once."""
    journal, ear = Journal(), Ear()
    with running(journal, receiver(ear)):
        journal.write("one")
        assert ear.hears() == ["one"]
    with running(journal, receiver(ear, pace=Pace(digest_seconds=3600))) as notifier:
        journal.write("two")
        assert notifier.idle()
    journal.write("three")
    with running(journal, receiver(ear, pace=AT_ONCE)):
        assert [ear.hears(), ear.hears()] == [["two"], ["three"]]
    with running(journal, receiver(ear)):
        journal.write("four")
        assert ear.hears() == ["four"]
    assert ear.heard.empty()


def test_a_receiver_that_hangs_holds_up_neither_the_others_nor_the_stop_for_ever() -> None:
    """While one is silent another is told; what is being sent is finished before the end."""
    journal, other = Journal(), Ear()
    entered, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        assert go_on.wait(WAIT_SECONDS)

    silent = Ear(hang)
    with running(journal, receiver(silent, "silent"), receiver(other, "other")) as notifier:
        journal.write("one")
        assert entered.wait(WAIT_SECONDS)
        journal.write("two")
        assert [other.hears(), other.hears()] == [["one"], ["two"]]
        assert not notifier.idle()
        threading.Timer(0.05, go_on.set).start()
    assert silent.hears() == ["one"]
    assert journal.cursors["silent"].int < journal.cursors["other"].int
    silent.fate = lambda: None
    with running(journal, receiver(silent, "silent")):
        assert silent.hears() == ["two"]


def test_a_real_server_that_takes_the_connection_and_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes events does not notice; the other receiver is told all of them; the silent one is tried again."""
    journal, other, tried, go_on = Journal(), Ear(), threading.Semaphore(0), threading.Event()

    def hang(line: socket.socket) -> None:
        tried.release()
        go_on.wait(WAIT_SECONDS)

    with answering(hang) as port:
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{port}/")
        patience = Patience(answer_seconds=0.1, total_seconds=5)
        silent = Webhook("EM", Secret("url_variable", variable="HOOK"), patience=patience)
        log = Syslog(Address("tcp", "127.0.0.1", port), patience=patience)
        mail = Mail("EM", "127.0.0.1", port, "none", "a@example.org", ("b@example.org",), patience=patience)
        ways = [Receiver(Rule(f"silent-{number}"), AT_ONCE, way) for number, way in enumerate((silent, log, mail))]
        with running(journal, *ways, receiver(other)):
            for number in range(20):
                journal.write(str(number))
            assert [other.hears() for _ in range(20)] == [[str(number)] for number in range(20)]
            assert tried.acquire(timeout=WAIT_SECONDS)
            go_on.set()
            for _ in range(6):
                assert tried.acquire(timeout=WAIT_SECONDS)
    assert other.heard.empty()


def test_failures_are_said_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Each try that failed, and the success after it, stand in the log; the event is told once."""
    journal, fails = Journal(), [DeliveryError("no route"), DeliveryError("no route")]

    def fail() -> None:
        if fails:
            raise fails.pop()

    ear = Ear(fail)
    with caplog.at_level(logging.INFO), running(journal, receiver(ear)):
        journal.write("one")
        assert ear.hears() == ["one"]
    said = [record.getMessage() for record in caplog.records]
    assert said[:2] == ["notify staff: 1 event(s) not told by ear: no route; next try in 0 s"] * 2
    assert "notify staff: ear takes messages again" in said
    assert ear.heard.empty()


def test_what_is_refused_for_good_is_said_and_the_next_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The log counts what was dropped, by kind."""
    journal, fails = Journal(), [RefusedError("too long")]

    def refuse() -> None:
        if fails:
            raise fails.pop()

    ear = Ear(refuse)
    with running(journal, receiver(ear)):
        journal.write("one")
        journal.write("two")
        assert ear.hears() == ["two"]
    said = [record.getMessage() for record in caplog.records]
    assert "notify staff: dropped 1 event(s), which ear is never told: alert.raised 1" in said


def test_a_journal_that_is_away_is_waited_for() -> None:
    """Neither reading nor the record of what was told ends the notifier; after a while all is told, and recorded."""
    journal, ear = Journal(), Ear()
    with running(journal, receiver(ear)):
        journal.away = True
        assert journal.refused.wait(WAIT_SECONDS)
        written = journal.write("one")
        journal.away = False
        assert ear.hears() == ["one"]
    assert journal.cursors["staff"] == written[0].event.id


def test_a_real_server_that_is_down_for_a_while_is_told_in_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 twice, then 200: one message arrives as the last of three tries, and no log shows the URL."""
    journal = Journal()
    with WebServer() as server:
        server.statuses = [500, 500]
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{server.port}/XyZZySecret")
        hook = Webhook("EM", Secret("url_variable", variable="HOOK"))
        with caplog.at_level(logging.DEBUG), running(journal, Receiver(Rule("chat"), AT_ONCE, hook)):
            journal.write("one")
            posts = [server.posted.get(timeout=WAIT_SECONDS) for _ in range(3)]
    assert len({post.body for post in posts}) == 1
    assert "krios / visit: one" in json.loads(posts[0].body)["text"]
    assert server.posted.empty()
    assert caplog.text.count("the answer is 500") == 2
    assert "XyZZy" not in caplog.text


def test_a_server_that_wants_to_be_left_alone_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """429 with Retry-After: the next try is as late as it says, and the others are told meanwhile."""
    journal, other = Journal(), Ear()
    with WebServer(headers={"Retry-After": "1000"}) as server:
        server.statuses = [429]
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{server.port}/XyZZySecret")
        hook = Webhook("EM", Secret("url_variable", variable="HOOK"))
        with running(journal, Receiver(Rule("chat"), AT_ONCE, hook), receiver(other)):
            journal.write("one")
            server.posted.get(timeout=WAIT_SECONDS)
            assert other.hears() == ["one"]
            journal.write("two")
            assert other.hears() == ["two"]
        assert server.posted.empty()
    assert "next try in 1000 s" in caplog.text
    assert "XyZZy" not in caplog.text


def test_after_a_long_absence_only_the_news_are_told() -> None:
    """A cursor of last month does not bring last month's events back."""
    journal, ear = Journal(), Ear()
    journal.cursors["staff"] = UUID(int=1)
    journal.events.append(notice(2, message="old", at=datetime(2020, 1, 1, tzinfo=UTC)))
    with running(journal, receiver(ear)):
        journal.write("new")
        assert ear.hears() == ["new"]
    assert ear.heard.empty()
