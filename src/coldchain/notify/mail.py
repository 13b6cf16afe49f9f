"""E-mail: RFC 5322 messages by SMTP (RFC 5321) with TLS and login."""

from __future__ import annotations

import smtplib
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Literal

from coldchain.errors import DeliveryError, RefusedError
from coldchain.notify.line import Patience, connected, reason
from coldchain.notify.message import Batch, Message, compose, one_line
from coldchain.notify.secret import Secret, redact

Security = Literal["starttls", "tls", "none"]
PORTS: dict[Security, int] = {"starttls": 587, "tls": 465, "none": 25}

_REPLY_CHARACTERS = 200
_GOODBYE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Mail:
    """Messages to people. `ca_file` holds the certificates to trust; None: the system's."""

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

    def __str__(self) -> str:
        return f"mail to {', '.join(self.to)} by {self.host}:{self.port}"

    @property
    def bundles(self) -> bool:
        """A mail holds many events."""
        return True

    def send(self, batch: Batch) -> list[str]:
        """Hand the batch to the server as one mail; return the addresses that it refused, with its words."""
        mail = as_mail(compose(batch, self.facility), sender=self.sender, to=self.to, facility=self.facility)
        password = self.password.read() if self.password is not None else ""
        # Servers have been seen to say again what they were told.
        secrets = [password, f"\0{self.user}\0{password}"] if password else []
        try:
            with connected(self.host, self.port, self.patience) as line:
                refused = self._hand_over(line.socket, mail, password)
        except smtplib.SMTPException as error:
            raise _explain(error, secrets) from None
        except OSError as error:
            remedy = "Name the authority that signed it by ca_file." if isinstance(error, ssl.SSLError) else ""
            raise DeliveryError(redact(reason(error), secrets), remedy=remedy) from None
        return [f"{address}: {_reply(*answer, secrets)}" for address, answer in refused.items()]

    def _hand_over(self, line: socket.socket, mail: EmailMessage, password: str) -> dict[str, tuple[int, bytes]]:
        context = ssl.create_default_context(cafile=self.ca_file) if self.security != "none" else None
        server = _Server(self.host, self.port, line, context if self.security == "tls" else None, self.patience)
        try:
            if self.security == "starttls":
                server.starttls(context=context)
            if self.user is not None:
                server.login(self.user, password)
            refused = server.send_message(mail, self.sender, self.to)
            with suppress(smtplib.SMTPException, OSError):  # it has the mail, whatever it says to goodbye
                if server.sock is not None:
                    server.sock.settimeout(_GOODBYE_SECONDS)
                server.quit()
            return refused
        finally:
            server.close()


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


def _own_name() -> str:
    name = socket.gethostname()
    return name if name.isascii() and name.replace("-", "").replace(".", "").isalnum() else "localhost"


def _explain(error: smtplib.SMTPException, secrets: list[str]) -> DeliveryError:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        said = "; ".join(f"{address}: {_reply(*answer, secrets)}" for address, answer in error.recipients.items())
        return DeliveryError(f"no address is taken ({said})", remedy="Check them.")
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
