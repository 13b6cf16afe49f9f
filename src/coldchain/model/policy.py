"""What a facility wants of its copies: where each kind of file goes, and what may be cleared when.

Values and pure decisions. A `CopyPlan` says which stores a file is wanted on, `missing` what is lacking of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coldchain.model.files import FileKind, ReplicaState, VerificationLevel
from coldchain.model.session import SessionState

SOURCE = "source"
"""What the camera's own disk is called where stores are named; no store of a facility bears that name."""

# The smaller, the sooner: what others wait for, and what is small, goes before movies.
USUAL_PRIORITY: Mapping[FileKind, int] = {
    FileKind.METADATA: 10,
    FileKind.GAIN: 10,
    FileKind.DEFECTS: 10,
    FileKind.RESULT: 20,
    FileKind.PREVIEW: 30,
    FileKind.SUM: 40,
    FileKind.MICROGRAPH: 50,
    FileKind.MOVIE: 50,
    FileKind.OTHER: 60,
}

_COMPUTED = frozenset({FileKind.SUM, FileKind.RESULT})  # they can be computed again

GIVEN_UP = frozenset({ReplicaState.RETIRING, ReplicaState.TRASHED, ReplicaState.REMOVING, ReplicaState.REMOVED})
"""The states of a copy that was cleared on purpose, or is about to be: it is not wanted back."""

DELETION_LEVELS = frozenset({VerificationLevel.MEDIUM, VerificationLevel.SERVER})
"""What counts, unless a rule says otherwise, as a copy that allows another to be deleted."""


class Tier(StrEnum):
    """What a store is for."""

    LIVE = "live"
    ARCHIVE = "archive"
    EXTERNAL = "external"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Place:
    """A store as decisions see it."""

    name: str
    tier: Tier


@dataclass(frozen=True, slots=True)
class CopyPolicy:
    """Where files of some kinds go: `copies` says how many verified copies each tier, or each store named, shall have.

    `priority`: the smaller, the sooner; None: the kind's usual. `within_hours`: later than that is an alert.
    """

    name: str
    kinds: frozenset[FileKind]
    copies: Mapping[str, int]
    priority: int | None = None
    within_hours: float | None = None


@dataclass(frozen=True, slots=True)
class RetireRule:
    """What may be cleared from where, and when.

    `places` are tiers, stores, or `SOURCE`. A file goes when its session is in one of `states` (for `after_days`, where
    given), and, where `above` is given, only while more than that share of the store is used, the oldest first, until
    no more than `until` is. `copies` verified copies on other stores, of one of `levels`, are confirmed just before.
    The session's owner is warned `warn_days` before; what is cleared stays in the store's trash for `grace_days`.
    """

    name: str
    places: tuple[str, ...]
    kinds: frozenset[FileKind] = frozenset(FileKind)
    states: frozenset[SessionState] = frozenset({SessionState.CLOSED, SessionState.RELEASED})
    after_days: float | None = None
    above: float | None = None
    until: float | None = None
    copies: int = 2
    levels: frozenset[VerificationLevel] = DELETION_LEVELS
    warn_days: float = 7.0
    grace_days: float = 7.0


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """The facility's stores and policies; decides where a file is wanted. Without policies: everything everywhere."""

    places: tuple[Place, ...]
    policies: tuple[CopyPolicy, ...] = ()

    def stores(self, kind: FileKind) -> tuple[str, ...]:
        """The stores that a new file of that kind is wanted on, in the order of facility.toml."""
        return missing(kind, {}, self)

    def priority(self, kind: FileKind) -> int:
        """How urgent a copy of that kind is: the smaller, the sooner."""
        said = [policy.priority for policy in self._of(kind) if policy.priority is not None]
        return min(said, default=USUAL_PRIORITY[kind])

    def wanted(self, kind: FileKind) -> tuple[tuple[tuple[str, ...], int], ...]:
        """How many copies a file of that kind shall have on which stores."""
        if not self.policies:
            return tuple(((place.name,), 1) for place in self.places)
        return tuple(
            (self._meant(target), number) for policy in self._of(kind) for target, number in policy.copies.items()
        )

    def gaps(self) -> list[str]:
        """What a facility's policies leave out of all that a camera writes, in words."""
        if not self.policies:
            return []
        left = [kind for kind in FileKind if kind not in _COMPUTED and not self._of(kind)]
        return [f"No policy names {', '.join(left)}: such files are copied nowhere."] if left else []

    def _of(self, kind: FileKind) -> list[CopyPolicy]:
        return [policy for policy in self.policies if kind in policy.kinds]

    def _meant(self, target: str) -> tuple[str, ...]:
        return tuple(place.name for place in self.places if target in (place.name, place.tier))


def everywhere(stores: Iterable[str]) -> CopyPlan:
    """The plan of a facility without policies: every file on each of these stores."""
    return CopyPlan(tuple(Place(name, Tier.LIVE) for name in stores))


def missing(kind: FileKind, present: Mapping[str, ReplicaState], plan: CopyPlan) -> tuple[str, ...]:
    """The stores that still are to be given a copy of a file, whose replicas, by store, are `present`.

    What is there counts, in whatever state, since a copy that failed is tried again where it is; so does a copy that
    was retired. Adding what is returned leaves nothing missing.
    """
    has = set(present)
    added: list[str] = []
    for names, number in plan.wanted(kind):
        lacking = [name for name in names if name not in has]
        short = max(0, number - sum(name in has for name in names))
        added += lacking[:short]
        has |= set(lacking[:short])
    order = {place.name: at for at, place in enumerate(plan.places)}
    return tuple(sorted(added, key=lambda name: order[name]))


def unmet(plan: CopyPlan) -> list[str]:
    """What policies want that the stores can never give: a target that no store is, or more copies than stores."""
    faults = []
    for policy in plan.policies:
        for target, number in policy.copies.items():
            known: Sequence[str] = [p.name for p in plan.places if target in (p.name, p.tier)]
            if len(known) < number:
                faults.append(
                    f"policy {policy.name!r} wants {number} on {target!r}, where there are {len(known)} stores"
                )
    return faults
