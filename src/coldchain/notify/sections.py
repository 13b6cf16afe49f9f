"""`[[notify]]` of facility.toml → a receiver."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from coldchain.model.events import Severity
from coldchain.notify.channel import Channel
from coldchain.notify.mail import PORTS, Mail, Security, is_mail_address
from coldchain.notify.notifier import Receiver
from coldchain.notify.rules import Pace, Rule
from coldchain.notify.secret import Secret
from coldchain.notify.syslog import FACILITIES, Address, Format, Syslog
from coldchain.notify.webhook import Webhook

# What names a secret. A mistake in one of these is not shown: it may be the secret itself.
SECRET_KEYS = frozenset({"password_file", "password_variable", "url_file", "url_variable"})

_HOST = re.compile(r"[A-Za-z0-9:](?:[A-Za-z0-9.:_-]{0,251}[A-Za-z0-9.:])?")


def _mail_address(value: str) -> str:
    if not is_mail_address(value):
        raise ValueError("an address like name@example.org, without a name around it")
    return value


def _host(value: str) -> str:
    if not _HOST.fullmatch(value) or ".." in value or any(len(label) > 63 for label in value.split(".")):
        raise ValueError("the name or the number of a host")
    return value


def _no_secret_itself(value: str) -> str:
    if not value or "://" in value or not value.isprintable():
        raise ValueError("the name of a file or a variable that holds the secret, not the secret")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


MailAddress = Annotated[str, AfterValidator(_mail_address)]
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=65535)]
NameOfSecret = Annotated[str, AfterValidator(_no_secret_itself)]
Patterns = tuple[Annotated[str, Field(min_length=1)], ...]


class MailSection(_Section):
    """A mail server, and whom it is to reach: `to`, sessions' owners, or both. The password stands in a file or in an
    environment variable."""

    host: Host
    port: Port | None = None
    security: Security = "starttls"
    user: Annotated[str, Field(pattern=r"^[!-~]+$")] | None = None
    password_file: NameOfSecret | None = None
    password_variable: NameOfSecret | None = None
    sender: MailAddress
    to: tuple[MailAddress, ...] = ()
    owner: bool = False
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _somebody(self) -> MailSection:
        if not self.to and not self.owner:
            raise ValueError("to, a list of addresses, or owner = true")
        return self

    @model_validator(mode="after")
    def _login(self) -> MailSection:
        passwords = (self.password_file is not None) + (self.password_variable is not None)
        if passwords > 1 or (self.user is not None) != (passwords == 1):
            raise ValueError("user and one of password_file and password_variable, or none of them")
        if self.user is not None and self.security == "none":
            raise ValueError('security "starttls" or "tls" where there is a password')
        return self

    def as_channel(self, facility: str, base: Path) -> Mail:
        """The way there; relative paths are relative to `base`."""
        key = "password_file" if self.password_file is not None else "password_variable"
        return Mail(
            facility=facility,
            host=self.host,
            port=self.port or PORTS[self.security],
            security=self.security,
            sender=self.sender,
            to=self.to,
            owner=self.owner,
            user=self.user,
            password=None if self.user is None else _secret(key, self.password_file, self.password_variable, base),
            ca_file=None if self.ca_file is None else base / self.ca_file,
        )


class SyslogSection(_Section):
    """Where syslog listens: a local socket's path, udp://host:port, tcp://host:port or tls://host:port."""

    address: str = "/dev/log"
    facility: str = "daemon"
    format: Format | None = None
    ca_file: Path | None = None

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        _syslog_address(value)
        return value

    @field_validator("facility")
    @classmethod
    def _facility(cls, value: str) -> str:
        if value not in FACILITIES:
            raise ValueError("one of " + ", ".join(FACILITIES))
        return value

    @model_validator(mode="after")
    def _no_idle_certificates(self) -> SyslogSection:
        if self.ca_file is not None and not self.address.startswith("tls://"):
            raise ValueError("address tls://… where there is a ca_file")
        return self

    def as_channel(self, facility: str, base: Path) -> Syslog:  # noqa: ARG002  # as the others
        """The way there; relative paths are relative to `base`."""
        ca_file = None if self.ca_file is None else base / self.ca_file
        return Syslog(_syslog_address(self.address), self.facility, self.format, ca_file)


class WebhookSection(_Section):
    """A webhook as Slack has it. Its URL is the secret: it stands in a file or in an environment variable."""

    url_file: NameOfSecret | None = None
    url_variable: NameOfSecret | None = None
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _one_url(self) -> WebhookSection:
        if (self.url_file is None) == (self.url_variable is None):
            raise ValueError("one of url_file and url_variable")
        return self

    def as_channel(self, facility: str, base: Path) -> Webhook:
        """The way there; relative paths are relative to `base`."""
        key = "url_file" if self.url_file is not None else "url_variable"
        secret = _secret(key, self.url_file, self.url_variable, base)
        return Webhook(facility, secret, None if self.ca_file is None else base / self.ca_file)


class NotifySection(_Section):
    """A rule: which events are told, how often, and to whom, by one of mail, syslog and webhook."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    events: Annotated[Patterns, Field(min_length=1)] = ("*",)
    severity: Severity = Severity.WARNING
    sessions: Patterns = ()
    instruments: Patterns = ()
    digest_seconds: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    most_per_hour: Annotated[int, Field(ge=1, le=10_000)] | None = None
    give_up_hours: Annotated[float, Field(gt=0, le=24 * 30)] = 24.0
    mail: MailSection | None = None
    syslog: SyslogSection | None = None
    webhook: WebhookSection | None = None

    @model_validator(mode="after")
    def _one_way(self) -> NotifySection:
        if sum(way is not None for way in (self.mail, self.syslog, self.webhook)) != 1:
            raise ValueError("one of [notify.mail], [notify.syslog] and [notify.webhook] below it")
        return self

    def as_receiver(self, facility: str, base: Path) -> Receiver:
        """The same as values; relative paths are relative to `base`."""
        way = self.mail or self.syslog or self.webhook
        assert way is not None
        channel: Channel = way.as_channel(facility, base)
        pace = Pace(
            digest_seconds=self.digest_seconds,
            most_per_hour=self.most_per_hour,
            give_up_seconds=self.give_up_hours * 3600,
            bundles=channel.bundles,
        )
        return Receiver(Rule(self.name, self.events, self.severity, self.sessions, self.instruments), pace, channel)


def _secret(key: str, file: str | None, variable: str | None, base: Path) -> Secret:
    return Secret(key, file=None if file is None else base / file, variable=variable)


def _syslog_address(value: str) -> Address:
    expected = "the path of a local socket, udp://host:port, tcp://host:port or tls://host:port"
    if value.startswith("/") and value.isprintable():
        return Address("unix", value)
    try:
        parts = urlsplit(value)
        host, port = _host(parts.hostname or ""), parts.port
    except ValueError:
        raise ValueError(expected) from None
    if parts.path or parts.query or parts.fragment or parts.username is not None or port == 0:
        raise ValueError(expected)
    if parts.scheme == "udp":
        return Address("udp", host, port or 514)
    if parts.scheme == "tcp":
        return Address("tcp", host, port or 601)
    if parts.scheme == "tls":
        return Address("tls", host, port or 6514)
    raise ValueError(expected)
