"""A small facility that a test may break: a camera's folder, a catalog, stores, and workers that can be killed.

What was planted is known, and so every promise can be checked: at the moment of the fault, and after it.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from coldchain.catalog import events, files, replicas, sessions, stores
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.model.events import Severity
from coldchain.model.files import DataFile, FileKind, FileState, Replica, ReplicaState
from coldchain.model.policy import Tier
from coldchain.model.session import Layout, Session
from tests.faults.tried import Outcome, Tried
from tests.faults.worker import Order

DEADLINE_SECONDS = 60.0
FOLDER = "visit"
SMALL, BIG = 5_000, 6_000_000
_OWN = (".coldchain-store", "lost+found", "System Volume Information")


def wait_until(condition: Callable[[], bool], what: str = "it did not happen", *, every_seconds: float = 0.02) -> None:
    """Wait for a condition; the deadline is only there to end a failing test."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(every_seconds)


def catch(condition: Callable[[], object]) -> None:
    """Wait for a condition that may soon be over."""
    wait_until(lambda: bool(condition()), every_seconds=0.001)


def content_of(name: str, size_bytes: int, version: int = 0) -> bytes:
    """Bytes that no other name and version have."""
    return random.Random(f"{name} {version}").randbytes(size_bytes)


def digest(content: bytes) -> str:
    """Its SHA-256."""
    return hashlib.sha256(content).hexdigest()


class Launcher:
    """Starts workers without importing everything anew for each."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.faults.worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._others: list[subprocess.Popen[bytes]] = []

    def start(self, order: Order) -> int:
        """The process id of a new worker."""
        if order.environment:
            command = [sys.executable, "-m", "tests.faults.worker", order.as_line()]
            self._others.append(subprocess.Popen(command, env=os.environ | order.environment))
            return self._others[-1].pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order.as_line() + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End, and with it every worker."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        for process in (self._process, *self._others):
            process.wait()
        self._process.stdout.close()


@dataclass
class Root:
    """A store's folder; `beneath` is where its bytes really are, if that is elsewhere."""

    folder: Path
    beneath: Path
    planted: dict[str, str] = field(default_factory=dict)


class Bench:
    """The facility of one test. `tried` is what the table says of the fault that is tried."""

    def __init__(self, folder: Path, url: str, launcher: Launcher, tried: Tried | None, *, site: str = "here") -> None:
        self.folder = folder
        self.catalog: Catalog = open_catalog(url, site)
        self.roots: dict[str, Root] = {}
        self.camera = folder / "camera"
        self.instrument = f"krios {site}"
        self._launcher = launcher
        self._tried = tried
        self._seen: set[Outcome] = set()
        self._orders = Order(url, site, {}, str(folder / f"log-{site}"))
        self._last = self._orders
        self._workers: list[int] = []
        self._truth: dict[UUID, str] = {}
        self._source: dict[Path, str] = {}
        self._proved: set[tuple[str, str]] = set()
        self._versions: dict[str, int] = {}
        self._session: Session | None = None

    # What there is

    def add_store(self, name: str, folder: Path, *, beneath: Path | None = None) -> Path:
        """A store in an existing folder."""
        stores.enrol(self.catalog, name=name, tier=Tier.LIVE, url=f"file://{folder}")
        self.roots[name] = Root(folder, beneath or folder)
        return folder

    def add_host(self, name: str, settings: dict[str, object]) -> Path:
        """A store in a new folder of another host, whose disk is this one's."""
        folder = self.add_folder(name)
        self._orders = replace(self._orders, hosts={**self._orders.hosts, name: settings})
        return folder

    def add_folder(self, name: str) -> Path:
        """A store in a new folder of the test's own disk."""
        folder = self.folder / "stores" / name
        folder.mkdir(parents=True)
        return self.add_store(name, folder)

    def write(self, name: str, size_bytes: int = SMALL, *, through: Path | None = None) -> None:
        """The camera writes a file, or another version of one."""
        version = self._versions[name] = self._versions.get(name, -1) + 1
        folder = (through or self.camera) / FOLDER
        path = self.camera / FOLDER / name
        content = content_of(name, size_bytes, version)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        self._source[path] = digest(content)

    def journal(self, name: str) -> DataFile:
        """The collector takes a file in."""
        path = self.camera / FOLDER / name
        status = path.stat()
        if self._session is None:
            self._session = sessions.create(
                self.catalog,
                name=f"{FOLDER} {self.catalog.site}",
                instrument_name=self.instrument,
                source_root=str(self.camera),
                folder=FOLDER,
                layout=Layout.PLAIN,
            )
        file = files.record_arrival(
            self.catalog,
            session_id=self._session.id,
            relative_path=name,
            kind=FileKind.MOVIE,
            size_bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
            stores=list(self.roots),
        )
        self._truth[file.id] = self._source[path]
        return file

    def arrive(self, name: str, size_bytes: int = SMALL) -> DataFile:
        """A file comes from the camera, and is taken in."""
        self.write(name, size_bytes)
        return self.journal(name)

    def arrive_all(self, size: str) -> list[DataFile]:
        """What a parametrised test copies: a batch of `small` files, or two `big` ones."""
        if size == "big":
            return [self.arrive(f"big {n}.tiff", BIG + n) for n in range(2)]
        return [self.arrive(f"small {n}.xml", SMALL + n) for n in range(30)]

    def plant(self, store: str, name: str, content: bytes) -> Path:
        """Something stands in a store under the name of a copy."""
        path = self.where(store, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.roots[store].planted[name] = digest(content)
        return path

    def where(self, store: str, name: str) -> Path:
        """Where a copy of that name lies, or is to lie."""
        return self.roots[store].beneath / self.instrument / FOLDER / name

    def partials(self, store: str) -> list[Path]:
        """Copies on their way."""
        return [path for path in self.roots[store].beneath.rglob(".*.part") if "coldchain-store" not in path.name]

    def named(self, store: str) -> list[Path]:
        """Copies that have their names."""
        found = self.roots[store].beneath.rglob("*")
        return [path for path in found if not path.name.startswith(".") and path.is_file()]

    # Who is at work

    def start(self, *, stores: Sequence[str] = (), **options: object) -> int:
        """A worker for these stores, or for all; its process id."""
        names = stores or list(self.roots)
        order = replace(self._orders, stores={n: str(self.roots[n].folder) for n in names}, **options)  # type: ignore[arg-type]
        if self._workers:
            self._seen.add(Outcome.AFTER_RESTART)
        self._last = order
        self._workers.append(self._launcher.start(order))
        return self._workers[-1]

    def start_another(self, **options: object) -> int:
        """A second worker beside the first."""
        worker = self.start(**options)
        self._seen.discard(Outcome.AFTER_RESTART)
        return worker

    def kill(self) -> None:
        """`kill -9` of every worker."""
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not self.alive(), "it does not die")

    def kill_one(self, worker: int) -> None:
        """`kill -9` of one of them."""
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: worker not in self.alive(), "it does not die")

    def stop(self) -> None:
        """Have every worker end what it has in hand."""
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)
        wait_until(lambda: not self.alive(), "it does not end")

    def alive(self) -> list[int]:
        """The workers that live."""
        return [worker for worker in self._workers if _lives(worker)]

    def close(self) -> None:
        """End everything."""
        self.kill()
        self.catalog.close()

    def reopen(self) -> None:
        """Open the catalog again."""
        self.catalog = open_catalog(self._orders.url, self._orders.site)

    def start_well(self) -> None:
        """A worker for all stores, which has made its first copies."""
        self.arrive("first.tiff")
        self.start()
        wait_until(lambda: self.verified_on(*self.roots) == 1)

    # What is promised

    def verified_on(self, *stores: str) -> int:
        """How many files have a verified copy on each of these stores."""
        found = [copy for _, copy in self.copies(ReplicaState.VERIFIED) if copy.store in stores]
        return min(sum(copy.store == store for copy in found) for store in stores)

    def copies(self, *states: ReplicaState) -> list[tuple[DataFile, Replica]]:
        """The copies in these states, or all, of the files that were taken in."""
        found = []
        for file_id in self._truth:
            file = files.get(self.catalog, file_id)
            found += [(file, r) for r in replicas.of_file(self.catalog, file_id) if not states or r.state in states]
        return found

    def says(self) -> str:
        """Everything that the page would tell of what is not well."""
        said = [replica.detail for _, replica in self.copies()]
        said += [event.message for event in events.recent(self.catalog, minimum=Severity.WARNING, limit=200)]
        said += [state.trouble for state in stores.all_stores(self.catalog)]
        return "\n".join(filter(None, said))

    def assert_sound(self, *, away: Sequence[str] = ()) -> None:
        """Nothing is called verified that is not whole, and nothing is gone, now. Stores that are `away` cannot be
        looked at."""
        for path, sha256 in self._source.items():
            assert digest(path.read_bytes()) == sha256, f"the source {path} is not what it was"
        for file, copy in self.copies(ReplicaState.VERIFIED):
            if copy.store not in away:
                self._assert_whole(file, copy)
        for name in set(self.roots) - set(away):
            # What is renamed while a folder is listed may be seen under neither name: so it is listed again.
            wait_until(lambda name=name: not self._gone(name), f"contents that stood on {name} are gone")  # type: ignore[misc]

    def hurt(self, *, away: Sequence[str] = ()) -> None:
        """The fault is there: the page tells it as the table says, and every promise that can hold now holds."""
        reasons = self._tried.says if self._tried else ()
        wait_until(lambda: any(reason in self.says() for reason in reasons), f"{reasons} is not said")
        self.assert_sound(away=away)

    def healed(self) -> None:
        """The fault is gone: every copy that is wanted is verified by and by, without anybody's help, and is whole."""
        wait_until(self._all_verified, "it does not go on")
        self.assert_sound()
        wait_until(lambda: not any(state.trouble for state in self._states()), "a store is said to be in trouble")
        assert self.alive(), "the worker died"
        if any(self.partials(name) for name in self.roots):  # a drive that failed lets nobody remove anything
            self.stop()
            self._workers.append(self._launcher.start(self._last))
            wait_until(lambda: not any(self.partials(name) for name in self.roots), "unfinished copies are left")
        if any(".replaced-" in path.name for name in self.roots for path in self.named(name)):
            self._seen.add(Outcome.KEPT_ASIDE)
        if self._tried:
            if Outcome.AFTER_RESTART not in self._seen:
                self._seen.add(Outcome.BY_ITSELF)
            assert self._seen == set(self._tried.outcome)

    def _all_verified(self) -> bool:
        return all(
            copy.state is ReplicaState.VERIFIED or files.get(self.catalog, file_id).state is FileState.REPLACED
            for file_id in self._truth
            for copy in replicas.of_file(self.catalog, file_id)
        )

    def _gone(self, store: str) -> set[str]:
        """Contents that were proved or planted on a store and stand there under no name."""
        root = self.roots[store]
        once = {sha256 for on, sha256 in self._proved if on == store} | set(root.planted.values())
        return once - _digests_below(root.beneath) if once else set()

    def _states(self) -> list[object]:
        return [state for state in stores.all_stores(self.catalog) if state.site == self.catalog.site]

    def _assert_whole(self, file: DataFile, copy: Replica) -> None:
        content = self._content(file, copy)
        if content != self._truth[file.id]:  # it may have been moved aside since it was asked for
            again = next(r for r in replicas.of_file(self.catalog, file.id) if r.id == copy.id)
            if again.state is not ReplicaState.VERIFIED:
                return
            content = self._content(file, again)
        assert content == self._truth[file.id], f"{file.relative_path} on {copy.store} is not what verified means"
        assert copy.sha256 == self._truth[file.id]
        self._proved.add((copy.store, self._truth[file.id]))

    def _content(self, file: DataFile, copy: Replica) -> str:
        name = copy.kept_as or copy.stored_as or f"{self.instrument}/{FOLDER}/{file.relative_path}"
        return _digest_of(self.roots[copy.store].beneath / name)


def _lives(process: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(process, os.WNOHANG)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _digest_of(path: Path) -> str:
    """The digest of what is there, not of what is in memory."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return "nothing"
    with os.fdopen(descriptor, "rb") as file:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return digest(file.read())


def _digests_below(root: Path) -> set[str]:
    found = set()
    for path in root.rglob("*"):
        if path.name not in _OWN and not path.name.endswith(".part") and path.is_file():
            found.add(_digest_of(path))
    return found
