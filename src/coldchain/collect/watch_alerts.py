"""Mail to contact points, and lines to syslog, for what a watcher reports.

Each receiver has a `Notifier` with a journal in memory: whoever reports never waits, mail is gathered for a few seconds
and tried again when the server is away, and what could not be told is counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address as MailAddress
from uuid import UUID

from coldchain.collect.iwatch_config import WatchConfig
from coldchain.errors import UsageError
from coldchain.model.events import Event, Notice, Severity
from coldchain.model.identity import new_id
from coldchain.notify.channel import Channel
from coldchain.notify.mail import Mail
from coldchain.notify.notifier import Notifier, Receiver
from coldchain.notify.rules import Pace, Rule
from coldchain.notify.syslog import Address, Syslog

MOST_REMEMBERED = 10_000
DIGEST_SECONDS = 5.0
_READ_SECONDS = 0.2


class MemoryJournal:
    """What is to be told to one receiver, in memory. The oldest is forgotten where nobody takes it for long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notices: deque[Notice] = deque(maxlen=MOST_REMEMBERED)
        self._cursor: UUID | None = None
        self._last = UUID(int=0)

    def write(self, kind: str, message: str, title: str, severity: Severity = Severity.INFO) -> None:
        """Something happened."""
        with self._lock:
            # Ids of one millisecond are in order within a process; a clock that is set back must not undo that.
            self._last = max(new_id(), UUID(int=self._last.int + 1))
            event = Event(self._last, datetime.now(UTC), severity, kind, message)
            self._notices.append(Notice(event, session_name=title))

    def after(self, last: UUID, *, limit: int) -> list[Notice]:
        """The events after that id, oldest first."""
        with self._lock:
            found: list[Notice] = []
            for notice in reversed(self._notices):
                if notice.event.id <= last:
                    break
                found.append(notice)
            return found[::-1][:limit]

    def newest(self) -> UUID:
        """The newest event's id."""
        with self._lock:
            return self._last

    def cursor(self, rule: str) -> UUID | None:  # noqa: ARG002  # one receiver, one rule
        """Up to which id everything was told."""
        with self._lock:
            return self._cursor

    def set_cursor(self, rule: str, event_id: UUID) -> None:  # noqa: ARG002
        """Record it; what was told is forgotten."""
        with self._lock:
            self._cursor = event_id
            while self._notices and self._notices[0].event.id <= event_id:
                self._notices.popleft()

    def untold(self) -> int:
        """How many events nobody was told of."""
        with self._lock:
            return len(self._notices)


class _Line:
    """One receiver and what it is still to be told."""

    def __init__(self, name: str, channel: Channel, pace: Pace) -> None:
        self.name = name
        self.journal = MemoryJournal()
        receiver = Receiver(Rule(name, minimum=Severity.INFO), pace, channel)
        self.notifier = Notifier(self.journal, [receiver], read_seconds=_READ_SECONDS)
        self.notifier.start()


class WatchAlerts:
    """Tells contact points and syslog. `close` at the end.

    Parameters
    ----------
    smtp_host, smtp_port : the mail server; as with iwatch, that of this machine, without TLS or login.
    syslog : where it listens.
    digest_seconds : for how long mail is gathered.
    """

    def __init__(
        self,
        *,
        smtp_host: str = "localhost",
        smtp_port: int = 25,
        syslog: Address = Address("unix", "/dev/log"),  # noqa: B008  # frozen
        digest_seconds: float = DIGEST_SECONDS,
    ) -> None:
        self._smtp = (smtp_host, smtp_port)
        self._syslog = syslog
        self._digest_seconds = digest_seconds
        self._lines: dict[str, _Line] = {}
        self._sender = ""
        self._facility = "Coldchain"

    def use(self, config: WatchConfig) -> list[str]:
        """Take the senders and receivers of a configuration; returns what cannot be used of them.

        An address that is none is never written to.
        """
        self._facility = (config.guard.name if config.guard else "") or "Coldchain"
        self._sender = config.guard.email if config.guard else ""
        wanted = {rule.contact.email for rule in config.rules if rule.alert and rule.contact}
        addresses = {self._sender} | wanted if wanted else set()
        return [
            f"{address!r} is no mail address: it is not written to" for address in addresses if not _is_mail(address)
        ]

    def mail(self, to: str, kind: str, message: str, title: str) -> bool:
        """Have somebody written to; False where there is no address to write to or from."""
        if not (_is_mail(to) and _is_mail(self._sender)):
            return False
        self._line(f"mail {to}", self._mail_to(to)).journal.write(kind, message, title)
        return True

    def log(self, kind: str, message: str, title: str) -> None:
        """Have a line written to syslog."""
        line = self._line("syslog", lambda: Syslog(self._syslog, facility="user", format="local"))
        line.journal.write(kind, message, title)

    def close(self, patience_seconds: float = 15.0) -> list[str]:
        """Go on until all is told, for so long at most; returns what was not, in words."""
        return _close(list(self._lines.values()), patience_seconds)

    def _mail_to(self, to: str) -> Callable[[], Channel]:
        host, port = self._smtp
        return lambda: Mail(self._facility, host, port, "none", self._sender, (to,))

    def _line(self, name: str, channel: Callable[[], Channel]) -> _Line:
        if name not in self._lines:
            made = channel()
            pace = Pace(digest_seconds=self._digest_seconds, bundles=made.bundles)
            self._lines[name] = _Line(name, made, pace)
        return self._lines[name]


class ReceiverAlerts:
    """Tells the receiver of a `[[notify]]`, by its own way and at its own pace. `close` at the end."""

    def __init__(self, receiver: Receiver) -> None:
        self._line = _Line(receiver.rule.name, receiver.channel, receiver.pace)

    def mail(self, to: str, kind: str, message: str, title: str) -> bool:  # noqa: ARG002  # there is one receiver
        """Have it told."""
        self._line.journal.write(kind, message, title)
        return True

    def log(self, kind: str, message: str, title: str) -> None:
        """Have it told of a failure."""
        self._line.journal.write(kind, message, title, Severity.ERROR)

    def close(self, patience_seconds: float = 15.0) -> list[str]:
        """Go on until all is told, for so long at most; returns what was not, in words."""
        return _close([self._line], patience_seconds)


def _close(lines: Sequence[_Line], patience_seconds: float) -> list[str]:
    end = time.monotonic() + patience_seconds
    for line in lines:
        while line.journal.untold() and time.monotonic() < end:
            time.sleep(0.05)
    for line in lines:
        line.notifier.stop()
    left = {line.name: line.journal.untold() for line in lines}
    return [f"{name} was not told of {count} event(s)" for name, count in left.items() if count]


def parse_syslog(text: str) -> Address:
    """`/dev/log`, `udp://host:514` or `tcp://host:514`. Raises UsageError."""
    if text.startswith("/"):
        return Address("unix", text)
    transport, _, rest = text.partition("://")
    host, _, port = rest.rpartition(":")
    if transport not in {"udp", "tcp"} or not host or not port.isdigit():
        raise UsageError(f"{text!r} is no place of a syslog", expected="/dev/log, udp://HOST:PORT or tcp://HOST:PORT")
    return Address("udp" if transport == "udp" else "tcp", host.strip("[]"), int(port))


def parse_smtp(text: str) -> tuple[str, int]:
    """`host` or `host:port`; the port is 25 where it is not given. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not host:
        host, port = text, "25"
    if not port.isdigit() or not host:
        raise UsageError(f"{text!r} is no mail server", expected="HOST or HOST:PORT")
    return host.strip("[]"), int(port)


def _is_mail(address: str) -> bool:
    try:
        parsed = MailAddress(addr_spec=address)
    except (MessageError, ValueError, IndexError):
        return False
    return bool(parsed.username and parsed.domain)
