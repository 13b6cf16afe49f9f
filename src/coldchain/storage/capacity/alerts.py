"""When a store is to be spoken of: it is too full, will be soon, or copies for it are late. Pure.

Each alert ends later than it began, so that a store about a limit is not spoken of again and again: one that is too
full when 2 % of it less are in use than began it, one that is soon full when there is a quarter more time than began
it, late copies when none is wanted for more than half of what their policy allows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from coldchain.catalog.capacity import MOST_LATE, Late
from coldchain.errors import printable
from coldchain.model.files import FileKind
from coldchain.model.policy import CopyPlan
from coldchain.model.stores import StoreState, StoreSubject
from coldchain.storage.capacity.forecast import Band, Forecast
from coldchain.units import byte_size

_LESS_USED = 0.02
_MORE_TIME = 1.25
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a facility wants: no more than the share `above` of a store in use, and `days` at least until it is full."""

    above: float
    days: float


@dataclass(frozen=True, slots=True)
class Change:
    """An alert that begins, or one that ends, in words."""

    subject: StoreSubject
    begins: bool
    words: str


def promises(plan: CopyPlan, store: str) -> dict[float, frozenset[FileKind]]:
    """Within how many hours the policies promise which kinds of files on a store; the shortest of several."""
    meant = {place.name: {place.name, str(place.tier)} for place in plan.places}.get(store, set())
    shortest: dict[FileKind, float] = {}
    for policy in plan.policies:
        if policy.within_hours is not None and meant & set(policy.copies):
            for kind in policy.kinds:
                shortest[kind] = min(shortest.get(kind, policy.within_hours), policy.within_hours)
    kinds: defaultdict[float, set[FileKind]] = defaultdict(set)
    for kind, hours in shortest.items():
        kinds[hours].add(kind)
    return {hours: frozenset(found) for hours, found in kinds.items()}


def patience_hours(hours: float, *, is_told: bool) -> float:
    """For how long copies may be wanted that are promised within so many hours: less while it is told of late ones."""
    return hours / 2 if is_told else hours


def changes(
    state: StoreState,
    foretold: Forecast,
    late: Mapping[float, Late],
    standing: Collection[StoreSubject],
    limits: Limits,
    now: datetime,
) -> list[Change]:
    """What is to be said of a store, given which alerts of it stand.

    `late` holds, by the hours promised, the copies that are wanted for longer than `patience_hours`. Of a store that
    does not tell how large it is, and of what is not foretold, nothing begins and nothing ends.
    """
    name = f"store {printable(state.name)}"
    found = (
        _filled(name, state, StoreSubject.FILLED in standing, limits),
        _full_soon(name, state, foretold, StoreSubject.FULL_SOON in standing, limits, now),
        _late(name, state, late, StoreSubject.LATE in standing),
    )
    return [change for change in found if change is not None]


def _filled(name: str, state: StoreState, stands: bool, limits: Limits) -> Change | None:
    used = state.used_share
    if used is None or stands == (used >= limits.above - (_LESS_USED if stands else 0.0)):
        return None
    left = f"{byte_size(state.free_bytes or 0)} of {byte_size(state.total_bytes or 0)} are free"
    if stands:
        return Change(StoreSubject.FILLED, False, f"{name}: no more than {_percent(used)} is in use again; {left}")
    words = f"{name}: {_percent(used)} is in use (told from {_percent(limits.above)} on); {left}"
    return Change(StoreSubject.FILLED, True, words)


def _full_soon(
    name: str, state: StoreState, foretold: Forecast, stands: bool, limits: Limits, now: datetime
) -> Change | None:
    ahead = days_ahead(foretold, now)
    if ahead is None or state.trouble:
        return None
    days = ahead.middle
    is_soon = days is not None and days < limits.days * (_MORE_TIME if stands else 1.0)
    if stands == is_soon:
        return None
    if stands:
        until = "within two years it is not full" if days is None else f"it is full in about {days:,.0f} days"
        return Change(StoreSubject.FULL_SOON, False, f"{name} has room again: {until}")
    free_bytes = state.free_bytes or 0
    if state.backlog_bytes >= free_bytes:
        wanted, free = byte_size(state.backlog_bytes), byte_size(free_bytes)
        return Change(
            StoreSubject.FULL_SOON, True, f"{name} cannot hold what is wanted on it: {wanted}; {free} are free"
        )
    return Change(StoreSubject.FULL_SOON, True, f"{name} is full in {in_words(ahead)}, if it goes on as it did")


def _late(name: str, state: StoreState, late: Mapping[float, Late], stands: bool) -> Change | None:
    if stands == bool(late):
        return None
    if stands:
        return Change(StoreSubject.LATE, False, f"{name} has caught up: no copy is late any more")
    files = sum(found.files for found in late.values())
    size_bytes = sum(found.size_bytes for found in late.values())
    since = min(found.since for found in late.values())
    hours = " or ".join(f"{each:g}" for each in sorted(late))
    more = "more than " if any(found.files >= MOST_LATE for found in late.values()) else ""
    why = f"; {state.trouble}" if state.trouble else ""
    words = (
        f"{name}: {more}{files:,} copies ({byte_size(size_bytes)}) are wanted for longer than the {hours} hours of "
        f"their policy, the oldest since {since:%Y-%m-%d %H:%M} UTC{why}"
    )
    return Change(StoreSubject.LATE, True, words)


def days_ahead(foretold: Forecast, now: datetime) -> Band | None:
    """The days until the store is full, counted from now; None where that is not foretold."""
    full = foretold.days_until_full
    if full is None or foretold.at is None:
        return None
    gone = max(0.0, (now - foretold.at).total_seconds() / _DAY_SECONDS)
    return Band(*(None if day is None else max(0.0, day - gone) for day in (full.low, full.middle, full.high)))


def in_words(ahead: Band) -> str:
    """Days until a store is full: "about 12 days (9 to 20)"."""
    if ahead.middle is None:
        return (
            "more than two years" if ahead.low is None else f"more than two years ({_days(ahead.low)} at the soonest)"
        )
    if ahead.high is None:
        return f"about {_days(ahead.middle)} ({_days(ahead.low)} at the soonest)"
    return f"about {_days(ahead.middle)} ({_number(ahead.low)} to {_number(ahead.high)})"


def _days(days: float | None) -> str:
    return f"{_number(days)} day{'' if _number(days) == '1' else 's'}"


def _number(days: float | None) -> str:
    return "?" if days is None else f"{days:.1f}".removesuffix(".0") if days < 3 else f"{days:,.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
