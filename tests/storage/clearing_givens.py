"""A facility whose copies are cleared: a camera's folder, stores that keep real bytes and tell on who deletes them."""

# ruff: noqa: D102  # the methods of a store are documented where the interface is

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import update

from coldchain.catalog import files, replicas, retirement, sessions
from coldchain.catalog.engine import Catalog, open_catalog, upgrade
from coldchain.catalog.tables import SessionRow
from coldchain.errors import StorageError, VerificationError
from coldchain.model.files import DataFile, FileKind, FileState, ReplicaState, VerificationLevel
from coldchain.model.policy import Place, RetireRule, Tier
from coldchain.model.retention import StoredCopy
from coldchain.model.session import Layout, Session, SessionState
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.readback import ReadBack
from coldchain.storage.retention.clearing import Clearing
from coldchain.storage.retention.retire import Retirement
from coldchain.storage.retention.shelves import Shelves
from coldchain.storage.ring import Ring
from coldchain.storage.store import FileFacts, Found, Space

DAY = timedelta(days=1)
BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
MEDIUM, SERVER, CACHE = VerificationLevel.MEDIUM, VerificationLevel.SERVER, VerificationLevel.CACHE
TIERS = {"live": Tier.LIVE, "tape": Tier.ARCHIVE, "cloud": Tier.CLOUD}


def rule(**changes: object) -> RetireRule:
    """A rule that clears the live store at once, of closed sessions, where two other copies are."""
    given: dict[str, object] = {
        "name": "tidy",
        "places": ("live",),
        "after_days": 0.0,
        "warn_days": 0.0,
        "grace_days": 7.0,
    }
    return RetireRule(**(given | changes))  # type: ignore[arg-type]


class OpenedBytes:
    """Bytes that are read."""

    def __init__(self, content: bytes) -> None:
        self.facts = FileFacts(len(content), 0, 0o644)
        self._left = content

    def fill(self, view: memoryview) -> int:
        """Read on."""
        taken, self._left = self._left[: len(view)], self._left[len(view) :]
        view[: len(taken)] = taken
        return len(taken)


class BytesStore:
    """A store in memory. It remembers what was done with it, in the order of all stores that share `log`; `away` makes
    it fail, and `before` is called before everything that it does."""

    batches = False

    def __init__(self, name: str, log: list[tuple[str, str, str]], *, level: VerificationLevel = MEDIUM) -> None:
        self.name = name
        self.identity: UUID | None = None
        self.level = level
        self.content: dict[str, bytes] = {}
        self.away = False
        self.log = log
        self.total_bytes = 0
        self.before: Callable[[str, str, str], None] = lambda *_: None

    def _begin(self, what: str, stored_as: str) -> None:
        self.before(self.name, what, stored_as)
        if self.away:
            raise StorageError(f"store {self.name} is not there")

    def _of(self, stored_as: str) -> bytes:
        if stored_as not in self.content:
            raise StorageError("there is no such file", path=stored_as)
        return self.content[stored_as]

    def mark(self) -> UUID | None:
        return self.identity

    def set_mark(self, identity: UUID) -> None:
        self.identity = identity

    def space(self) -> Space | None:
        self._begin("space", "")
        if not self.total_bytes:
            return None
        return Space(self.total_bytes - sum(map(len, self.content.values())), 1000, self.total_bytes)

    def stored_name(self, relative: str) -> str:
        return relative

    def size_of(self, stored_as: str) -> int | None:
        self._begin("size_of", stored_as)
        return len(self.content[stored_as]) if stored_as in self.content else None

    def receive(self, relative: str, facts: FileFacts) -> object:
        raise NotImplementedError

    def flush(self) -> None:
        return None

    def read_back(self, stored_as: str, ring: Ring) -> ReadBack:
        content = self._of(stored_as)
        return ReadBack(hashlib.sha256(content).hexdigest(), len(content), self.level)

    def confirm(self, stored_as: str, sha256: str, size_bytes: int, ring: Ring) -> ReadBack:
        self._begin("confirm", stored_as)
        found = self.read_back(stored_as, ring)
        if (found.sha256, found.size_bytes) != (sha256, size_bytes):
            raise VerificationError(f"store {self.name} has other bytes here", path=stored_as)
        self.log.append((self.name, "confirmed", stored_as))
        return found

    @contextmanager
    def reading(self, stored_as: str) -> Iterator[OpenedBytes]:
        self._begin("reading", stored_as)
        yield OpenedBytes(self._of(stored_as))

    def move(self, stored_as: str, to: str) -> None:
        self._begin("move", stored_as)
        if to in self.content:
            raise StorageError("there is something of that name", path=to)
        content = self._of(stored_as)
        self.log.append((self.name, "move", stored_as))
        del self.content[stored_as]
        self.content[to] = content
        self.before(self.name, "moved", stored_as)

    def remove(self, stored_as: str) -> bool:
        self._begin("remove", stored_as)
        there = stored_as in self.content
        self.log.append((self.name, "remove", stored_as))
        self.content.pop(stored_as, None)
        self.before(self.name, "removed", stored_as)
        return there

    def walk(self) -> Iterator[Found]:
        for name, content in self.content.items():
            if not name.startswith(".coldchain-trash/"):
                yield Found(name, len(content))

    def remove_partials(self) -> int:
        return 0

    def is_at_fault(self, error: StorageError) -> bool:
        return self.away


_EMPTY: dict[str, bytes] = {}


@contextmanager
def quick_catalog() -> Iterator[Catalog]:
    """An empty catalog, in memory where the machine has a place for that: its commits then cost nothing."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        path = Path(folder, "catalog.sqlite")
        if not _EMPTY:
            upgrade(f"sqlite:///{path}")
            _EMPTY["catalog"] = path.read_bytes()
        path.write_bytes(_EMPTY["catalog"])
        opened = open_catalog(f"sqlite:///{path}", "here")
        yield opened
        opened.close()


@dataclass
class Facility:
    """A catalog, its stores, the camera's folder, and a clock that a test sets."""

    catalog: Catalog
    camera: Path
    rules: list[RetireRule] = field(default_factory=list)
    clock: datetime = BEGAN
    log: list[tuple[str, str, str]] = field(default_factory=list)
    stores: dict[str, BytesStore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        levels = {"live": MEDIUM, "tape": MEDIUM, "cloud": SERVER}
        self.stores = {name: BytesStore(name, self.log, level=level) for name, level in levels.items()}

    def retirement(self) -> Retirement:
        """As a process that was just started has it."""
        places = [Place(name, tier) for name, tier in TIERS.items()]
        shelves = Shelves(self.catalog, self.stores, places, lambda root: PosixStore("source", root))
        return Retirement(Clearing(self.catalog, shelves, now=lambda: self.clock), self.rules)

    def pass_once(self) -> Retirement:
        """One pass of the service, without its thread."""
        made = self.retirement()
        made.look()
        made.empty_trash()
        made.carry_out()
        return made

    def session(self, name: str = "visit", *, state: SessionState = SessionState.CLOSED, mail: str = "") -> Session:
        """A session whose folder is at the camera; its state began when the clock stands where it does."""
        made = sessions.create(
            self.catalog,
            name=name,
            instrument_name="krios",
            source_root=str(self.camera),
            folder=name,
            layout=Layout.PLAIN,
            owner_mail=mail,
        )
        (self.camera / name).mkdir(parents=True, exist_ok=True)
        self.set_state(made, state)
        return made

    def set_state(self, session: Session, state: SessionState) -> None:
        """Move a session, at the time of this clock."""
        change = update(SessionRow).where(SessionRow.id == session.id).values(state=state, state_since=self.clock)
        with self.catalog.writing() as unit:
            unit.execute(change)

    def add(
        self,
        session: Session,
        path: str,
        content: bytes = b"frames",
        *,
        on: tuple[str, ...] = ("live", "tape", "cloud"),
        wanted: tuple[str, ...] = (),
        kind: FileKind = FileKind.MOVIE,
        exposure_id: UUID | None = None,
        state: FileState = FileState.ARRIVED,
    ) -> DataFile:
        """A file has arrived at the camera and is verified on these stores."""
        source = self.camera / session.folder / path
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(content)
        os.utime(source, ns=(len(content) * 10**9, len(content) * 10**9))
        file = files.record_arrival(
            self.catalog,
            session_id=session.id,
            relative_path=path,
            kind=kind,
            size_bytes=len(content),
            modified_ns=len(content) * 10**9,
            stores=(*on, *wanted),
            exposure_id=exposure_id,
            state=state,
        )
        files.set_digest(self.catalog, file.id, hashlib.sha256(content).hexdigest())
        for copy in replicas.of_file(self.catalog, file.id):
            if copy.store in on:
                self.make(file, copy.id, copy.store, content)
        return file

    def make(self, file: DataFile, replica_id: UUID, store: str, content: bytes) -> None:
        """A copier makes a copy."""
        self.stores[store].content[self.copy(file, store).location] = content
        replicas.record_copy(
            self.catalog,
            replica_id,
            state=ReplicaState.VERIFIED,
            level=self.stores[store].level,
            sha256=hashlib.sha256(content).hexdigest(),
            detail="",
        )

    def copy(self, file: DataFile, store: str) -> StoredCopy:
        """A file's copy on a store as the catalog has it."""
        found = self.maybe(file, store)
        assert found is not None
        return found

    def maybe(self, file: DataFile, store: str) -> StoredCopy | None:
        """The same, where there is one."""
        with self.catalog.reading() as unit:
            return retirement.files(unit, [file.id])[0].on(store)

    def states(self, file: DataFile) -> dict[str, str]:
        """The states of a file's copies, by store."""
        return {copy.store: copy.state.value for copy in replicas.of_file(self.catalog, file.id)}

    def later(self, **time: float) -> None:
        """Let time pass."""
        self.clock += timedelta(**time)
