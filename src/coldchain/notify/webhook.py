"""Webhooks: a JSON object with a `text`, by HTTPS, as Slack, Mattermost, Rocket.Chat and others take it.

The URL is the secret: whoever has it may write. So it is never shown.
"""

from __future__ import annotations

import http.client
import json
import math
import ssl
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from coldchain import __version__
from coldchain.errors import DeliveryError, RefusedError
from coldchain.notify.channel import BusyError
from coldchain.notify.line import Patience, connected, reason
from coldchain.notify.message import Batch, compose, one_line
from coldchain.notify.secret import Secret, parts_of, redact

_MOST_CHARACTERS = 30_000
_LONGEST_NUMBER = 15
_REPLY_CHARACTERS = 100
# The message itself is at fault, and no later try will help.
_AT_FAULT = frozenset({400, 413, 422})
# It comes too soon, and the answer may say when it does not.
_TOO_SOON = frozenset({429, 503})
# Slack's own escapes, without which a file's name could call everybody of a channel. Backquotes would end the block.
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'"})


@dataclass(frozen=True, slots=True)
class Webhook:
    """Messages to a channel of a chat. `ca_file` holds the certificates to trust; None: the system's."""

    facility: str
    url: Secret
    ca_file: Path | None = None
    patience: Patience = Patience()

    def __str__(self) -> str:
        return "webhook"

    @property
    def bundles(self) -> bool:
        """A message holds many events."""
        return True

    def send(self, batch: Batch) -> list[str]:
        """Post the batch as one message."""
        secret = self.url.read()
        body = json.dumps({"text": as_text(batch, self.facility)}).encode("ascii")
        try:
            status, said, pause_seconds = self._post(_split(secret, self.url.key), body)
        except http.client.HTTPException as error:  # its text may hold the URL
            raise DeliveryError(f"the answer is not HTTP ({type(error).__name__})") from None
        except OSError as error:
            remedy = "Name the authority that signed it by ca_file." if isinstance(error, ssl.SSLError) else ""
            raise DeliveryError(redact(reason(error), parts_of(secret)), remedy=remedy) from None
        if not 200 <= status < 300:
            words = one_line(redact(said.decode("utf-8", "replace"), parts_of(secret)), _REPLY_CHARACTERS)
            found = f"the answer is {status} {words}".rstrip()
            if status in _TOO_SOON and pause_seconds > 0:
                raise BusyError(found, pause_seconds=pause_seconds)
            raise (RefusedError if status in _AT_FAULT else DeliveryError)(found)
        return []

    def _post(self, url: SplitResult, body: bytes) -> tuple[int, bytes, float]:
        """The answer's status and first words, and for how many seconds it asks to be left alone."""
        host, secure = url.hostname or "", url.scheme == "https"
        port = url.port or (443 if secure else 80)
        context = ssl.create_default_context(cafile=self.ca_file)
        with connected(host, port, self.patience) as line:
            if secure:
                client: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, context=context)
                client.sock = context.wrap_socket(line.socket, server_hostname=host)
            else:
                client = http.client.HTTPConnection(host, port)
                client.sock = line.socket
            try:
                headers = {"Content-Type": "application/json", "User-Agent": f"coldchain/{__version__}"}
                target = (url.path or "/") + (f"?{url.query}" if url.query else "")
                client.request("POST", target, body, headers | {"Connection": "close"})
                answer = client.getresponse()
                # Redirects are not followed: a POST does not survive most of them, and the URL is a secret.
                said = answer.read(_REPLY_CHARACTERS * 4)
                if line.is_over():
                    raise line.lateness()
                return answer.status, said, _pause_seconds(answer.getheader("Retry-After", ""), time.time())
            finally:
                client.close()


def as_text(batch: Batch, facility: str) -> str:
    """The batch as a message: the subject, and the lines as a block in which nothing is markup."""
    message = compose(batch, facility)
    block = "\n".join(message.lines).translate(_ESCAPES)
    if len(block) > _MOST_CHARACTERS:
        block = block[:_MOST_CHARACTERS].rpartition("\n")[0] + "\n…"
    subject = facility if len(batch.notices) == 1 else message.subject
    return f"{one_line(subject, _REPLY_CHARACTERS).translate(_ESCAPES)}\n```\n{block}\n```"


def _pause_seconds(retry_after: str, now_seconds: float) -> float:
    """What `Retry-After` (RFC 9110, 10.2.3) asks for, as seconds or as a date; 0 where it says neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) <= _LONGEST_NUMBER else math.inf
    try:
        at = parsedate_to_datetime(text[:_REPLY_CHARACTERS])
        # Of a date without a zone HTTP says that it is in UTC.
        return max((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_seconds, 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _split(url: str, key: str) -> SplitResult:
    """The URL in parts. Raises DeliveryError, which does not show it, where it is not one of HTTPS."""
    expected = "a URL that begins with https://"
    try:
        parts = urlsplit(url)
        fits = bool(parts.hostname) and parts.port != 0 and " " not in url and parts.username is None
    except ValueError:
        fits = False
    if not fits or not (parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname or ""))):
        raise DeliveryError(f"what {key} names holds no such URL", expected=expected)
    return parts


def _is_here(host: str) -> bool:
    """Whether that is this machine itself: nobody listens in between."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
