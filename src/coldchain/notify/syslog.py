"""Syslog: RFC 5424 messages to a local socket, by UDP (RFC 5426), by TCP with octet counting (RFC 6587), or by TLS
(RFC 5425)."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Literal

from coldchain.errors import DeliveryError
from coldchain.model.events import Notice, Severity
from coldchain.notify.line import Line, Patience, connected, reason
from coldchain.notify.message import Batch, in_words, told

Format = Literal["rfc5424", "local"]
Transport = Literal["unix", "udp", "tcp", "tls"]

FACILITIES = {"user": 1, "daemon": 3} | {f"local{number}": 16 + number for number in range(8)}
SEVERITIES = {Severity.ERROR: 3, Severity.WARNING: 4, Severity.INFO: 6}
# RFC 5424, 6.1: every receiver should take so much.
MOST_BYTES = 2048
APP_NAME = "coldchain"

_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Address:
    """Where syslog listens: a socket's path (`port` 0), or a host and a port."""

    transport: Transport
    place: str
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.place}]" if ":" in self.place else self.place
        return self.place if self.transport == "unix" else f"{self.transport}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Syslog:
    """Lines to a log. `format` "local" is what syslog(3) writes: on their local socket neither rsyslogd nor journald
    know RFC 5424, and take its fields for text. None: "local" there, "rfc5424" else. `ca_file` holds the certificates
    to trust by TLS; None: the system's."""

    address: Address
    facility: str = "daemon"
    format: Format | None = None
    ca_file: Path | None = None
    patience: Patience = Patience()

    def __str__(self) -> str:
        return f"syslog at {self.address}"

    @property
    def bundles(self) -> bool:
        """Each event has a line of its own."""
        return False

    def send(self, batch: Batch) -> list[str]:
        """A line for each event, and one that counts what was dropped before. UDP says nothing back."""
        lines = [self._line(notice) for notice in batch.notices]
        if batch.lost:
            lines.append(self._lost(batch))
        try:
            match self.address.transport:
                case "tcp":
                    self._by_tcp(lines)
                case "tls":
                    self._by_tls(lines)
                case "udp":
                    self._by_udp(lines)
                case "unix":
                    self._by_socket(lines)
        except (OSError, UnicodeError) as error:  # the latter of the encoding of domain names
            remedy = "Name the authority that signed it by ca_file." if _is_untrusted(error) else ""
            raise DeliveryError(reason(error), remedy=remedy) from None
        return []

    def _line(self, notice: Notice) -> bytes:
        event = notice.event
        at = event.at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
        return self._framed(SEVERITIES[event.severity], at, _token(event.kind, 32), told(notice))

    def _lost(self, batch: Batch) -> bytes:
        text = f"not told before, and never will be: {sum(batch.lost.values())} ({in_words(batch.lost)})"
        return self._framed(SEVERITIES[Severity.ERROR], "-", "notify.dropped", text)

    def _framed(self, severity: int, at: str, kind: str, text: str) -> bytes:
        priority = FACILITIES[self.facility] * 8 + severity
        if (self.format or ("local" if self.address.transport == "unix" else "rfc5424")) == "local":
            # As syslog(3) writes it, but for the time, which the daemon adds where it is missing.
            head = f"<{priority}>{APP_NAME}[{os.getpid()}]: {kind}: "
        else:
            host = _token(socket.gethostname(), 255)
            # RFC 5424, 6.4: UTF-8 begins with a BOM. Plain ASCII needs none, and many viewers show it.
            bom = "" if text.isascii() else _BOM
            head = f"<{priority}>1 {at} {host} {APP_NAME} {os.getpid()} {kind} - {bom}"
        return _cut((head + text).encode("utf-8"), MOST_BYTES)

    def _by_tcp(self, lines: list[bytes]) -> None:
        with connected(self.address.place, self.address.port, self.patience) as line:
            line.socket.sendall(_counted(lines))
            _wait_for_close(line, line.socket)

    def _by_tls(self, lines: list[bytes]) -> None:
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with (
            connected(self.address.place, self.address.port, self.patience) as line,
            context.wrap_socket(line.socket, server_hostname=self.address.place) as secured,
        ):
            secured.sendall(_counted(lines))
            try:
                beneath = secured.unwrap()  # RFC 5425, 4.4: whoever ends a connection says so
            except ssl.SSLEOFError:  # the other side does not: it has closed all the same
                if line.is_over():
                    raise
                return
            with beneath:
                _wait_for_close(line, beneath)

    def _by_udp(self, lines: list[bytes]) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(
            self.address.place, self.address.port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as line:
            line.settimeout(self.patience.answer_seconds)
            line.connect(address)
            _send_each(line, lines)

    def _by_socket(self, lines: list[bytes]) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.settimeout(self.patience.answer_seconds)
            try:
                line.connect(self.address.place)
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:
                    raise
            else:
                _send_each(line, lines)
                return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(self.patience.answer_seconds)
            line.connect(self.address.place)
            line.sendall(b"".join(text + b"\n" for text in lines))


def _counted(lines: list[bytes]) -> bytes:
    return b"".join(b"%d %b" % (len(text), text) for text in lines)


def _wait_for_close(line: Line, connection: socket.socket) -> None:
    """Say that this was all. TCP takes for a receiver that is gone, too; one that closes in return has read all."""
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(4096):
        pass
    if line.is_over():
        raise line.lateness()


def _is_untrusted(error: Exception) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError)


def _send_each(line: socket.socket, lines: list[bytes]) -> None:
    for text in lines:
        line.send(text)
        # Whether anybody listened to the line before: ICMP says so where it is near.
        if code := line.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))


def _token(text: str, longest: int) -> str:
    """The text as a field of the header: printable ASCII without spaces, "-" for nothing."""
    return "".join(c if "!" <= c <= "~" else "_" for c in text[:longest]) or "-"


def _cut(raw: bytes, most: int) -> bytes:
    """At most so many bytes, ending with a whole character."""
    return raw if len(raw) <= most else raw[:most].decode("utf-8", "ignore").encode("utf-8")
