"""What decisions about clearing copies are made of, and what they come to. Values, no I/O.

`storage.retention` decides, `catalog.retirement` reads and writes them, `storage.retire` carries them out.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from coldchain.errors import printable
from coldchain.model.files import FileKind, FileState, ReplicaState, VerificationLevel
from coldchain.model.policy import Tier
from coldchain.model.session import SessionState
from coldchain.units import byte_size

_NAMES_TOLD = 3


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 file", "1,200 files"; `many` where that is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


@dataclass(frozen=True, slots=True)
class Amount:
    """So many files of so many bytes."""

    files: int = 0
    size_bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.files + other.files, self.size_bytes + other.size_bytes)

    def __str__(self) -> str:
        """As in a sentence: "1 file (6 B)"."""
        return f"{counted(self.files, 'file')} ({byte_size(self.size_bytes)})"


class Kept(Counter[str]):
    """Why files stay, and how many for each reason; of the first few of them, which."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[str, list[str]] = {}

    def note(self, reason: str, name: str) -> None:
        """A file stays for that reason."""
        self[reason] += 1
        self._remember(reason, [name])

    def merge(self, other: Kept) -> None:
        """All that another one counted, too."""
        self.update(other)
        for reason, names in other._names.items():
            self._remember(reason, names)

    def only(self, reason: str) -> Kept:
        """What stays for that reason alone."""
        made = Kept()
        made[reason] = self[reason]
        made._remember(reason, self._names.get(reason, ()))
        return made

    def names(self, reason: str) -> str:
        """Which files stay for a reason: "a.tiff, b.tiff, c.tiff and 4 more"."""
        return few_of([printable(name) for name in self._names.get(reason, ())], self[reason])

    def _remember(self, reason: str, names: Iterable[str]) -> None:
        known = self._names.setdefault(reason, [])
        known += [name for name in names if name not in known][: max(_NAMES_TOLD - len(known), 0)]


def few_of(names: Iterable[str], number: int) -> str:
    """The first few names, and how many more of that number there are."""
    told = [*names][:_NAMES_TOLD]
    return ", ".join(told) + (f" and {number - len(told):,} more" if number > len(told) else "")


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """One copy of a file as decisions see it.

    `location` is the stored name under which it lies or lay, `trashed_as` its name in the store's trash. `sha256` is
    what was read back when it was verified.
    """

    replica_id: UUID
    store: str
    state: ReplicaState
    level: VerificationLevel | None
    sha256: str | None
    location: str
    has_own_name: bool = True
    detail: str = ""
    trashed_as: str | None = None
    trashed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FileOnStores:
    """A file, one version of it, with its copies.

    `root` is where its source lies, `source_name` what it is called below that. `in_work`: its exposure is not through,
    or, of a file that belongs to no exposure, some exposure of its session.
    """

    id: UUID
    session_id: UUID
    relative_path: str
    kind: FileKind
    state: FileState
    size_bytes: int
    modified_ns: int
    sha256: str | None
    root: str
    source_name: str
    in_work: bool
    copies: tuple[StoredCopy, ...] = ()

    def on(self, store: str) -> StoredCopy | None:
        """Its copy on that store: the one that is verified, where two were written down."""
        of_store = [copy for copy in self.copies if copy.store == store]
        verified = [copy for copy in of_store if copy.state is ReplicaState.VERIFIED]
        return next(iter(verified or of_store), None)


@dataclass(frozen=True, slots=True)
class SessionLife:
    """A session as decisions see it. `since` is when its state began; `held` is why staff hold it, "" where nobody
    does; `owner_mail` is whom a warning reaches, if anybody."""

    id: UUID
    name: str
    state: SessionState
    since: datetime
    root: str
    folder: str
    held: str = ""
    owner_mail: str = ""

    @property
    def shell_word(self) -> str:
        """What names the session in a command that can be pasted; as `model.session.Session` has it."""
        return shlex.quote(self.name) if self.name.isprintable() else str(self.id)


@dataclass(frozen=True, slots=True)
class StoreView:
    """A store as decisions see it; of the camera's disk (`policy.SOURCE`) one for each root.

    `trouble` is "" while it is well. `total_bytes` and `used_bytes` are None where it does not tell. `trash_bytes` lie
    in its trash or are on their way there: not free yet, but soon.
    """

    name: str
    tier: Tier | None
    trouble: str = ""
    total_bytes: int | None = None
    used_bytes: int | None = None
    trash_bytes: int = 0

    @property
    def is_well(self) -> bool:
        """Whether it can be relied on now."""
        return not self.trouble


@dataclass(frozen=True, slots=True)
class Trashed:
    """What of a session lies in a store's trash, or is on its way there; the first of it since `since`, None where that
    is only on its way."""

    site: str
    store: str
    amount: Amount
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Announcement:
    """That a rule will clear a session's files from a store, and when; open while `ended_at` is None."""

    id: UUID
    session_id: UUID
    rule: str
    store: str
    amount: Amount
    announced_at: datetime
    due_at: datetime
    ended_at: datetime | None = None
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Staff's word that nothing of a session is cleared anywhere; it stands while `lifted_at` is None."""

    id: UUID
    session_id: UUID
    reason: str
    set_by: str
    set_at: datetime
    lifted_by: str | None = None
    lifted_at: datetime | None = None


class Action(StrEnum):
    """What is to be done about a session's files on a store."""

    RETIRE = "retire"
    ANNOUNCE = "announce"
    WITHDRAW = "withdraw"  # the announcement that stands
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a rule says of a session's files on a store, and why.

    `amount` is what may go now, where that had to be looked at. `due_at` is when what is announced goes.
    """

    rule: str
    store: str
    session: SessionLife
    action: Action
    reason: str
    amount: Amount = Amount()
    due_at: datetime | None = None
    announcement: Announcement | None = None


def total(amounts: Iterable[Amount]) -> Amount:
    """All of them together."""
    return sum(amounts, Amount())
