"""`[[store]]`, `[[policy]]`, `[[retire]]` and `[storage]` of facility.toml → values of this room."""

from __future__ import annotations

from collections.abc import Callable
from datetime import time
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from coldchain.errors import ConfigError
from coldchain.model.files import FileKind, VerificationLevel
from coldchain.model.policy import DELETION_LEVELS, SOURCE, CopyPlan, CopyPolicy, Place, RetireRule, Tier, unmet
from coldchain.model.session import SessionState
from coldchain.storage.s3.settings import Checksum, S3Settings
from coldchain.storage.ssh.settings import parse_ssh_url

Share = Annotated[float, Field(gt=0, le=1)]
Days = Annotated[float, Field(ge=0, le=36_500)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _name(value: str) -> str:
    if not value or value in {".", ".."} or "/" in value or not value.isprintable() or value != value.strip():
        raise ValueError("a name without slashes, control characters or spaces around it")
    return value


def _store_name(value: str) -> str:
    if value == SOURCE:
        raise ValueError(f"a name other than {SOURCE!r}, which is the camera's disk")
    return value


Name = Annotated[str, AfterValidator(_name)]
StoreName = Annotated[Name, AfterValidator(_store_name)]
Kinds = Annotated[frozenset[FileKind], Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class S3Section(_Section):
    """How an object store is asked. The access key stands in files or environment variables, never here."""

    endpoint_url: str | None = None
    region: str | None = None
    storage_class: str | None = None
    access_key_id_file: Path | None = None
    access_key_id_variable: str | None = None
    secret_access_key_file: Path | None = None
    secret_access_key_variable: str | None = None
    recipients: tuple[str, ...] = ()
    identity_file: Path | None = None
    checksum: Checksum = Checksum.MD5
    part_megabyte: Annotated[int, Field(ge=5, le=1024)] = 16
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    certificates: Path | None = None

    @field_validator("endpoint_url")
    @classmethod
    def _no_credentials(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "")
        if value is not None and (parts.scheme not in {"http", "https"} or parts.username or parts.password):
            raise ValueError("https://HOST or https://HOST:PORT, without a user's name or password")
        return value


class SshSection(_Section):
    """How another host is entered, beside what `ssh`'s own configuration says."""

    identity_file: Path | None = None
    known_hosts_file: Path | None = None
    options: tuple[str, ...] = ()
    python: str = "python3"
    channels: Annotated[int, Field(ge=1, le=32)] = 4


class StoreSection(_Section):
    """A place for copies: `url` is a folder, `ssh://user@host/folder` or `s3://bucket/prefix`.

    What it names must exist, or writing to it is refused.
    """

    name: StoreName
    tier: Tier = Tier.LIVE
    url: str
    megabyte_per_second: Positive | None = None
    busy_hours: str | None = None
    busy_megabyte_per_second: Positive | None = None
    s3: S3Section | None = None
    ssh: SshSection | None = None

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"", "file", "ssh", "s3"}:
            raise ValueError("a folder, a file:/// URL, ssh://user@host/folder or s3://bucket/prefix")
        bare = not parts.username if parts.scheme == "s3" else not parts.password
        if parts.scheme in {"ssh", "s3"} and not (bare and not parts.query and not parts.fragment):
            raise ValueError("an address without a password, a key or a query")
        if parts.scheme == "ssh":
            _stated(lambda: parse_ssh_url(value))
        if parts.scheme == "s3":
            _stated(lambda: S3Settings(parts.netloc, parts.path.strip("/")))
        return value

    @field_validator("busy_hours")
    @classmethod
    def _a_window(cls, value: str | None) -> str | None:
        if value is not None:
            window_of(value)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.name in set(Tier) - {self.tier}:
            raise ValueError(f"a name that is no other tier's, where store {self.name!r} is of tier {self.tier!r}")
        for table, section in (("s3", self.s3), ("ssh", self.ssh)):
            if section is not None and self.scheme != table:
                raise ValueError(f"a table {table} only where the url of store {self.name!r} begins with {table}://")
        if (self.busy_hours is None) != (self.busy_megabyte_per_second is None):
            raise ValueError(f"busy_hours and busy_megabyte_per_second together, for store {self.name!r}")
        return self

    @property
    def scheme(self) -> str:
        """`file`, `ssh` or `s3`."""
        return urlsplit(self.url).scheme or "file"

    @property
    def folder(self) -> Path | None:
        """The store's root on this host; None where it is elsewhere."""
        parts = urlsplit(self.url)
        if self.scheme != "file":
            return None
        return Path(unquote(parts.path) if parts.scheme == "file" else self.url)

    def below(self, base: Path) -> StoreSection:
        """The same with every relative path resolved against a folder."""
        changed: dict[str, object] = {}
        if self.folder is not None:
            changed["url"] = str(base / self.folder)
        for table in ("s3", "ssh"):
            section: S3Section | SshSection | None = getattr(self, table)
            if section is not None:
                paths = {key: base / value for key, value in section if isinstance(value, Path)}
                changed[table] = section.model_copy(update=paths)
        return self.model_copy(update=changed)


def window_of(text: str) -> tuple[time, time]:
    """The hours of `HH:MM-HH:MM`; ValueError where it is none."""
    begin, _, end = text.partition("-")
    try:
        return time.fromisoformat(begin.strip()), time.fromisoformat(end.strip())
    except ValueError:
        raise ValueError('hours such as "08:00-18:00"') from None


def _stated(check: Callable[[], object]) -> None:
    """What raises ConfigError, as pydantic's validators have it."""
    try:
        check()
    except ConfigError as error:
        raise ValueError(f"{error.expected or 'one that can be used'} ({error.found})") from None


class PolicySection(_Section):
    """Where files of some kinds go, and how soon."""

    name: Name
    kinds: Kinds = frozenset(FileKind)
    copies: Annotated[dict[str, Annotated[int, Field(ge=1, le=100)]], Field(min_length=1)]
    priority: Annotated[int, Field(ge=0, le=1000)] | None = None
    within_hours: Positive | None = None

    def as_policy(self) -> CopyPolicy:
        """The same as a value."""
        return CopyPolicy(**self.model_dump())


class RetireSection(_Section):
    """What may be cleared from where, and when."""

    name: Name
    places: Annotated[tuple[str, ...], Field(min_length=1, alias="from")]
    kinds: Kinds = frozenset(FileKind)
    states: Annotated[frozenset[SessionState], Field(min_length=1)] = frozenset(
        {SessionState.CLOSED, SessionState.RELEASED}
    )
    after_days: Days | None = None
    above: Share | None = None
    until: Share | None = None
    copies: Annotated[int, Field(ge=1, le=100)] = 2
    levels: Annotated[frozenset[VerificationLevel], Field(min_length=1)] = DELETION_LEVELS
    warn_days: Days = 7.0
    grace_days: Days = 7.0

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.after_days is None and self.above is None:
            raise ValueError("after_days or above, so that it is said when something goes")
        if (self.above is None) != (self.until is None) or (self.above or 1) < (self.until or 0):
            raise ValueError("above and until together, until not more than above")
        if SessionState.OPEN in self.states:
            raise ValueError("states other than open: files of an open session are still worked on")
        return self

    def as_rule(self) -> RetireRule:
        """The same as a value."""
        return RetireRule(**self.model_dump())


class StorageSection(_Section):
    """How stores are looked after."""

    scrub_days: Positive | None = 30.0
    scrub_megabyte_per_second: Positive | None = None
    alert_above: Share = 0.9
    alert_days: Positive = 14.0


def copy_plan(stores: tuple[StoreSection, ...], policies: tuple[PolicySection, ...]) -> CopyPlan:
    """The facility's plan; ValueError where a policy wants what its stores can never give."""
    plan = CopyPlan(
        tuple(Place(store.name, store.tier) for store in stores), tuple(policy.as_policy() for policy in policies)
    )
    faults = unmet(plan)
    if faults:
        raise ValueError(f"policies that the stores can meet; {faults[0]}")
    return plan


def check_places(stores: tuple[StoreSection, ...], rules: tuple[RetireSection, ...]) -> None:
    """ValueError where a rule clears what is no store, or wants more copies elsewhere than there can be."""
    for rule in rules:
        for place in rule.places:
            cleared = [store.name for store in stores if place in (store.name, store.tier)]
            if place != SOURCE and not cleared:
                known = ", ".join(dict.fromkeys([SOURCE, *(s.tier for s in stores), *(s.name for s in stores)]))
                raise ValueError(f"a place that there is where rule {rule.name!r} says {place!r} (one of: {known})")
            if rule.copies > len(stores) - (0 if place == SOURCE else 1):
                raise ValueError(f"as many other stores as rule {rule.name!r} wants copies on ({rule.copies})")
