"""Passwords and secret URLs: where they are, never what they are.

A secret is read when it is used, so that a changed one counts at once, and no error shows it. Nor does an error show
the name of its file or variable: who writes the password itself there must not find it in a log.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from coldchain.errors import DeliveryError

_LONGEST = 4096
_SHORTEST_PART = 4


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret in a file (its first line) or in an environment variable. `key` is the setting that names it."""

    key: str
    file: Path | None = field(default=None, repr=False)
    variable: str | None = field(default=None, repr=False)

    def read(self) -> str:
        """The secret. Raises DeliveryError, which shows nothing of it."""
        text = self._file() if self.file is not None else os.environ.get(self.variable or "")
        if not text:
            raise DeliveryError(f"what {self.key} names is empty or not there", remedy="Put the secret there.")
        secret = text.partition("\n")[0].rstrip("\r")
        if not secret or len(secret) > _LONGEST or not secret.isascii() or not secret.isprintable():
            raise DeliveryError(
                f"what {self.key} names holds no secret that can be used",
                expected=f"one line of at most {_LONGEST} printable ASCII characters",
            )
        return secret

    def _file(self) -> str:
        assert self.file is not None
        try:
            if not self.file.is_file():  # a pipe would be waited for
                return ""
            with self.file.open("rb") as file:
                return file.read(_LONGEST + 2).decode("ascii", "replace")
        except OSError as error:
            found = f"what {self.key} names cannot be read ({error.strerror})"
            raise DeliveryError(found, remedy="Check its permissions.") from None
        except ValueError:  # a NUL in the name
            return ""


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets, as they are, in base64 or in a URL."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        encoded = base64.b64encode(secret.encode()).decode()
        for form in (secret, encoded, encoded.rstrip("="), quote(secret, safe="")):
            text = text.replace(form, "[secret]")
    return text


def parts_of(url: str) -> list[str]:
    """A secret URL and what in it must not be shown either: its path, and each part of it that is no common word."""
    path = url.partition("://")[2].partition("/")[2]
    parts = path.replace("?", "/").replace("&", "/").replace("=", "/").split("/")
    return [url, path, *(part for part in parts if len(part) > _SHORTEST_PART)]
