"""`[catalog]` of facility.toml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coldchain.errors import ConfigError, DeliveryError
from coldchain.notify.secret import Secret
from coldchain.notify.sections import NameOfSecret

_FILE = "sqlite:///"


class CatalogSection(BaseModel):
    """Where the catalog is. A relative `sqlite:///` path is relative to facility.toml.

    `peer_url` is the other of two primaries, asked only how it is. Once the file is read, both hold the password that
    `password_file` or `password_variable` names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    url: str = Field(default="sqlite:///catalog.sqlite", repr=False)
    peer_url: str | None = Field(default=None, repr=False)
    password_file: NameOfSecret | None = None
    password_variable: NameOfSecret | None = None
    lag_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0

    @model_validator(mode="after")
    def _one_password(self) -> CatalogSection:
        if self.password_file is not None and self.password_variable is not None:
            raise ValueError("one of password_file and password_variable, or none of them")
        return self

    def resolved(self, base: Path) -> CatalogSection:
        """The same with URLs that can be opened: a file's path made absolute, the password put in.

        Raises ConfigError where the password cannot be read; nothing of it is shown.
        """
        url = self.url
        if url.startswith(_FILE) and not url.startswith(_FILE + "/"):
            url = _FILE + str(base / url.removeprefix(_FILE))
        if self.password_file is None and self.password_variable is None:
            return self.model_copy(update={"url": url})
        password = self._password(base)
        peer = None if self.peer_url is None else with_password(self.peer_url, password)
        return self.model_copy(update={"url": with_password(url, password), "peer_url": peer})

    def _password(self, base: Path) -> str:
        key = "password_variable" if self.password_file is None else "password_file"
        file = None if self.password_file is None else base / self.password_file
        try:
            return Secret(f"catalog.{key}", file, self.password_variable).read()
        except DeliveryError as error:
            raise ConfigError(error.found, expected=error.expected, remedy=error.remedy) from None


def with_password(url: str, password: str) -> str:
    """A database's URL with a password for its user; one that has a password, or no user, as it is."""
    found = re.fullmatch(r"([^:/?#]+://)([^:/?#@]+)(@.*)", url, flags=re.DOTALL)
    return url if found is None else f"{found[1]}{found[2]}:{quote(password, safe='')}{found[3]}"
