"""`[[store]]`, `[[policy]]`, `[[retire]]` and `[storage]` of facility.toml → values of this room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from coldchain.model.files import FileKind, VerificationLevel
from coldchain.model.policy import DELETION_LEVELS, SOURCE, CopyPlan, CopyPolicy, Place, RetireRule, Tier, unmet
from coldchain.model.session import SessionState

_LOCAL = frozenset({"", "file"})

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


class StoreSection(_Section):
    """A place for copies. `url` is a folder or `file:///folder`; the folder must exist, or writing to it is refused."""

    name: StoreName
    tier: Tier = Tier.LIVE
    url: str

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if urlsplit(value).scheme not in _LOCAL:
            raise ValueError("a folder or a file:/// URL")
        return value

    @model_validator(mode="after")
    def _is_no_other_tier(self) -> Self:
        if self.name in set(Tier) - {self.tier}:
            raise ValueError(f"a name that is no other tier's, where store {self.name!r} is of tier {self.tier!r}")
        return self

    @property
    def folder(self) -> Path:
        """The store's root on this host."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path) if parts.scheme == "file" else self.url)


class PolicySection(_Section):
    """Where files of some kinds go, and how soon."""

    name: Name
    kinds: Kinds = frozenset(FileKind)
    copies: dict[str, Annotated[int, Field(ge=1, le=100)]]
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
                known = ", ".join([SOURCE, *Tier, *(store.name for store in stores)])
                raise ValueError(f"a place that there is where rule {rule.name!r} says {place!r} (one of: {known})")
            if rule.copies > len(stores) - (0 if place == SOURCE else 1):
                raise ValueError(f"as many other stores as rule {rule.name!r} wants copies on ({rule.copies})")
