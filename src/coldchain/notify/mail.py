"""E-mail: RFC 5322 messages by SMTP (RFC 5321) with TLS and login."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

from coldchain.errors import DeliveryError, RefusedError
from coldchain.model.events import Notice
from coldchain.notify.line import Patience, connected, reason
from coldchain.notify.message import NAME_CHARACTERS, Batch, Message, compose, one_line
from coldchain.notify.secret import Secret, redact

Security = Literal["starttls", "tls", "none"]
PORTS: dict[Security, int] = {"starttls": 587, "tls": 465, "none": 25}

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_REPLY_CHARACTERS = 200
_LONGEST_SECONDS = 25.0
"""For so long one batch's mails are handed over at a time; a facility that stops waits for it."""
_GOODBYE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Mail:
    """Messages to people: all of them to `to`, and with `owner` to each session's owner those about that session.

    An owner's mail is one of its own, that nobody else gets and that says nothing of other sessions. An owner who is
    among `to`, too, is told once. `ca_file` holds the certificates to trust; None: the system's.
    """

    facility: str
    host: str
    port: int
    security: Security
    sender: str
    to: tuple[str, ...]
    user: str | None = None
    password: Secret | None = None
    ca_file: Path | None = None
    patience: Patience = Patience()
    owner: bool = False
    # What of a batch was handed over, by receiver, while the rest of it is tried again.
    _told: dict[str, set[UUID]] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        whom = [*self.to, *(["sessions' owners"] if self.owner else [])]
        return f"mail to {', '.join(whom)} by {self.host}:{self.port}"

    @property
    def bundles(self) -> bool:
        """A mail holds many events."""
        return True

    def send(self, batch: Batch) -> list[str]:
        """Hand the batch to the server, as one mail to `to` and one to each owner; return the addresses that it
        refused, and owners' that are none, with the words for it.

        Of several mails, one that is refused stops none of the others; where one cannot be handed over now, those that
        were are not sent again with the next try. An owner's address that is refused for good is not tried again.
        """
        letters, complaints = self._letters(batch)
        began, failure = time.monotonic(), None
        for to, part in letters:
            if time.monotonic() > began + _LONGEST_SECONDS:
                raise DeliveryError(
                    f"{len(letters)} mails take longer than {_LONGEST_SECONDS:.0f} s; the others go next"
                )
            try:
                complaints += self._send(to, part)
            except _NobodyError as error:
                if to == self.to or not error.for_good:
                    failure = failure or error
                    continue
                complaints += error.complaints
            except RefusedError as error:
                if len(letters) == 1:
                    raise
                complaints.append(f"{', '.join(to)}: {error.found}")
            self._told.setdefault(_key(to), set()).update(notice.event.id for notice in part.notices)
        if failure is not None:
            raise failure
        self._told.clear()
        return complaints

    def _letters(self, batch: Batch) -> tuple[list[tuple[tuple[str, ...], Batch]], list[str]]:
        """To whom which part of the batch is still to go, and what is wrong with owners' addresses."""
        parts = {self.to: list(batch.notices)} if self.to else {}
        complaints: list[str] = []
        for address, notices in self._of_owners(batch):
            if is_mail_address(address):
                parts.setdefault((address,), []).extend(notices)
            else:
                where = one_line(notices[0].session_name, NAME_CHARACTERS)
                complaints.append(f"{one_line(address, NAME_CHARACTERS)}: no mail address (the owner of {where})")
        letters = []
        for to, notices in parts.items():
            left = tuple(notice for notice in notices if notice.event.id not in self._told.get(_key(to), ()))
            if left:
                # What was dropped before is counted for those who are told of everything.
                letters.append((to, replace(batch, notices=left, lost=batch.lost if to == self.to else {})))
        return letters, complaints

    def _of_owners(self, batch: Batch) -> Iterator[tuple[str, list[Notice]]]:
        """By addresses as they were written down, of owners who are not told anyway, what is about their sessions."""
        by_owner: dict[str, list[Notice]] = {}
        for notice in batch.notices if self.owner else ():
            if notice.owner_mail and notice.owner_mail not in self.to:
                by_owner.setdefault(notice.owner_mail, []).append(notice)
        yield from by_owner.items()

    def _send(self, to: tuple[str, ...], batch: Batch) -> list[str]:
        mail = as_mail(compose(batch, self.facility), sender=self.sender, to=to, facility=self.facility)
        password = self.password.read() if self.password is not None else ""
        # Servers have been seen to say again what they were told.
        secrets = [password, f"\0{self.user}\0{password}"] if password else []
        try:
            with connected(self.host, self.port, self.patience) as line:
                refused = self._hand_over(line.socket, mail, to, password)
        except smtplib.SMTPException as error:
            raise _explain(error, secrets) from None
        except OSError as error:
            remedy = "Name the authority that signed it by ca_file." if isinstance(error, ssl.SSLError) else ""
            raise DeliveryError(redact(reason(error), secrets), remedy=remedy) from None
        return [f"{address}: {_reply(*answer, secrets)}" for address, answer in refused.items()]

    def _hand_over(
        self, line: socket.socket, mail: EmailMessage, to: tuple[str, ...], password: str
    ) -> dict[str, tuple[int, bytes]]:
        context = ssl.create_default_context(cafile=self.ca_file) if self.security != "none" else None
        server = _Server(self.host, self.port, line, context if self.security == "tls" else None, self.patience)
        try:
            if self.security == "starttls":
                server.starttls(context=context)
            if self.user is not None:
                server.login(self.user, password)
            refused = server.send_message(mail, self.sender, to)
            with suppress(smtplib.SMTPException, OSError):  # it has the mail, whatever it says to goodbye
                if server.sock is not None:
                    server.sock.settimeout(_GOODBYE_SECONDS)
                server.quit()
            return refused
        finally:
            server.close()


class _NobodyError(DeliveryError):
    """The server takes none of a mail's addresses; `complaints` are its words for each. `for_good`: it never will."""

    def __init__(self, found: str, *, remedy: str, complaints: Sequence[str], for_good: bool) -> None:
        super().__init__(found, remedy=remedy)
        self.complaints = list(complaints)
        self.for_good = for_good


class _Server(smtplib.SMTP):
    """`smtplib`'s client on a connection that is there already."""

    def __init__(
        self, host: str, port: int, line: socket.socket, context: ssl.SSLContext | None, patience: Patience
    ) -> None:
        self._line = line
        self._context = context
        # The fully qualified name would be asked of the network.
        super().__init__(host, port, local_hostname=_own_name(), timeout=patience.answer_seconds)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002  # smtplib's hook
        if self._context is None:
            return self._line
        return self._context.wrap_socket(self._line, server_hostname=host)


def as_mail(message: Message, *, sender: str, to: tuple[str, ...], facility: str) -> EmailMessage:
    """The message as a mail, in UTF-8."""
    mail = EmailMessage(policy=SMTP)
    mail["Subject"] = message.subject
    mail["From"] = Address(display_name=one_line(facility, _REPLY_CHARACTERS), addr_spec=sender)
    mail["To"] = [Address(addr_spec=address) for address in to]
    mail["Date"] = format_datetime(datetime.now(UTC))
    # The same for the same batch: a mail that was taken although its receipt got lost can be told for a second copy.
    mail["Message-ID"] = f"<{message.key}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notes in return
    mail.set_content("\n".join(message.lines) + "\n", charset="utf-8")
    return mail


def is_mail_address(text: str) -> bool:
    """Whether a text is an address like name@example.org and nothing else: no name around it, no line break."""
    local = text.partition("@")[0]
    return bool(_ADDRESS.fullmatch(text)) and ".." not in text and local.strip(".") == local


def _key(to: tuple[str, ...]) -> str:
    return "\n".join(to)


def _own_name() -> str:
    name = socket.gethostname()
    return name if name.isascii() and name.replace("-", "").replace(".", "").isalnum() else "localhost"


def _explain(error: smtplib.SMTPException, secrets: list[str]) -> DeliveryError:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        each = [f"{address}: {_reply(*answer, secrets)}" for address, answer in error.recipients.items()]
        for_good = all(code >= 500 for code, _ in error.recipients.values())
        found = f"no address is taken ({'; '.join(each)})"
        return _NobodyError(found, remedy="Check them.", complaints=each, for_good=for_good)
    if isinstance(error, smtplib.SMTPDataError):
        permanent = error.smtp_code >= 500
        kind = RefusedError if permanent else DeliveryError
        return kind(f"the mail is not taken ({_reply(error.smtp_code, error.smtp_error, secrets)})")
    if isinstance(error, smtplib.SMTPAuthenticationError):
        said = _reply(error.smtp_code, error.smtp_error, secrets)
        return DeliveryError(f"the login is refused ({said})", remedy="Check user and password.")
    if isinstance(error, smtplib.SMTPResponseException):
        return DeliveryError(f"the server says {_reply(error.smtp_code, error.smtp_error, secrets)}")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return DeliveryError(
            f"the server does not offer what is asked of it ({one_line(str(error), _REPLY_CHARACTERS)})",
            remedy="Change security, or the port. Nothing is sent without the TLS that was asked for.",
        )
    return DeliveryError(redact(one_line(str(error), _REPLY_CHARACTERS), secrets) or type(error).__name__)


def _reply(code: int, text: bytes | str, secrets: list[str]) -> str:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {one_line(redact(words, secrets), _REPLY_CHARACTERS)}"
