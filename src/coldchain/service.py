"""Wiring: settings → a running facility. The only place where the parts meet.

    collectors (one for each root)        camera folder → catalog
    orphan watch                          catalog → events, where a partner does not come
    keepers (one for each store)          stores → catalog: that they are well, how full, what is wanted on them
    copier                                catalog → stores, each copy read back
    scrubbers (one for each store)        stores → catalog: copies that are not whole any more
    retirer                               stores → their trash, where a rule says so and other copies are confirmed
    capacity watch                        catalog → events, where a store fills or copies are late
    replication watch                     two catalog servers → events, where they do not keep in step
    pipeline                              catalog → results, by way of the compute engine
    notifier                              catalog → mail, syslog, webhooks
    turn of the site                      a catalog server → that nobody else serves this site
    watcher                               any folder → commands; it alone has nothing to do with the catalog

The parts know nothing of each other: each takes its work from the catalog and leaves its word there. So any of them may
stop, be killed, or run on another host.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol
from uuid import UUID

from coldchain.catalog import events, notices
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.catalog.replication_watch import ReplicationWatch
from coldchain.catalog.service_turn import KIND as BEGAN
from coldchain.catalog.service_turn import ServiceTurn
from coldchain.catalog.stores import enrol
from coldchain.collect.away_journal import AwayJournal, journal_file
from coldchain.collect.collector import Collector
from coldchain.collect.completeness import Timing
from coldchain.collect.facility_watch import FacilityWatch
from coldchain.collect.intake import Intake
from coldchain.collect.orphan_watch import OrphanWatch
from coldchain.collect.place_pattern import PlacePattern
from coldchain.compute.local import LocalEngine
from coldchain.config import InstrumentSection, Settings
from coldchain.errors import ColdchainError, ConfigError, printable
from coldchain.model.events import Notice, Severity
from coldchain.model.policy import SOURCE, CopyPlan
from coldchain.notify.notifier import Notifier
from coldchain.preprocess.pipeline import Pipeline
from coldchain.preprocess.plan import PipelineParameters
from coldchain.storage.capacity.watch import CapacityWatch
from coldchain.storage.copies.copier import Copier
from coldchain.storage.copies.troubles import Troubles
from coldchain.storage.keeper import StoreKeeper
from coldchain.storage.one_device import together
from coldchain.storage.opening import close_store, describe, make_store
from coldchain.storage.posix.store import PosixStore
from coldchain.storage.retention.retire import LOCK_NAME as RETIRE_LOCK_NAME
from coldchain.storage.retention.retire import Retirer
from coldchain.storage.scrub import Scrubber
from coldchain.storage.store import Store

log = logging.getLogger(__name__)

LOCK_NAME = ".coldchain.lock"
_LONGEST_HOLDER = 500
COPY_PROCESSES = 2
"""Batches of small files at once, each in a process that is there from the first such batch on."""


class FacilityLock:
    """One service for each facility.toml, and for each site of an embedded catalog: two would take the same exposures,
    and clear the same copies. The file that is locked says who holds it. On a server, `ServiceTurn` sees to it."""

    def __init__(self, settings: Settings) -> None:
        self._paths = [settings.origin.parent / LOCK_NAME]
        url, prefix = settings.catalog.url, "sqlite:///"
        if url.startswith(prefix):
            file = Path(os.path.realpath(url.removeprefix(prefix)))  # a link to it is the same catalog
            self._paths.append(file.with_name(f"{file.name}.{settings.facility.site}.lock"))
        self._open = ExitStack()

    def __enter__(self) -> FacilityLock:
        with ExitStack() as held:
            for path in self._paths:
                _lock(held.enter_context(path.open("ab+")), path)
            self._open = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


def _lock(file: BinaryIO, path: Path) -> None:
    # It was opened for appending: a second service must not empty the file of the first.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = printable(file.read(_LONGEST_HOLDER).decode(errors="replace").strip())
        raise ColdchainError(
            "another `coldchain run` is at work on this facility" + (f" ({holder})" if holder else ""),
            remedy="Stop that one first, or give this one a facility.toml and a site of its own.",
            path=path,
        ) from None
    with suppress(OSError):  # a full disk does not keep a service from its work
        file.truncate(0)
        os.write(file.fileno(), f"{_this_process()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())


@contextmanager
def site_to_itself(settings: Settings, catalog: Catalog) -> Iterator[Callable[[], None]]:
    """Keep a service from serving the site by a catalog server, on whatever host, for as long as this lasts. Raises
    CatalogError where one does. Where the catalog is a file, `FacilityLock` sees to it.

    What it gives is to be called before each piece of work: it raises CatalogError where the connection was lost
    meanwhile and a service has the site.
    """
    turn = _turn(settings, catalog)
    if turn is None:
        yield lambda: None
        return
    try:
        turn.take()
        turn.start()
        yield turn.require
    finally:
        turn.stop()


def _turn(settings: Settings, catalog: Catalog) -> ServiceTurn | None:
    return None if settings.catalog.url.startswith("sqlite:") else ServiceTurn(catalog)


def _this_process() -> str:
    return f"process {os.getpid()} on {printable(socket.gethostname())}"


def open_stores(catalog: Catalog, settings: Settings) -> dict[str, Store]:
    """The facility's stores by name, each with the identity that it must bear. Nothing of them is touched yet."""
    return {
        store.name: make_store(store, enrol(catalog, name=store.name, tier=store.tier, url=store.url).identity)
        for store in settings.store
    }


class Part(Protocol):
    """What runs by itself in a facility, in threads of its own."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """Finish what is in hand and end."""

    def idle(self) -> bool:
        """Whether there is nothing to do now."""

    def alive(self) -> bool:
        """Whether it runs as it should."""


class Facility:
    """A running facility: `start`, then `stop`, which finishes what is in hand."""

    def __init__(self, settings: Settings) -> None:
        if not settings.instrument:
            raise ConfigError("there is no instrument", remedy="Add an [[instrument]].", path=settings.origin)
        if not settings.store:
            raise ConfigError("there is no store to copy to", remedy="Add a [[store]].", path=settings.origin)
        self.settings = settings
        self.catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
        turn = _turn(settings, self.catalog)
        self._stores = stores = self._taken_stores(turn)
        troubles = Troubles(stores)
        self._engine = LocalEngine(settings.compute.workers)
        self._copy_engine = LocalEngine(COPY_PROCESSES)
        # In the order in which they stop: what takes in before what works it off.
        self._parts: dict[str, Part] = {}
        for instrument in settings.instrument:
            self._parts |= self._collectors(instrument, settings.copy_plan())
        patience_seconds = {instrument.name: instrument.orphan_seconds for instrument in settings.instrument}
        self._parts["orphan watch"] = OrphanWatch(self.catalog, patience_seconds)
        self._parts["copier"] = Copier(
            self.catalog,
            stores,
            threads=settings.compute.copy_threads,
            troubles=troubles,
            engine=self._copy_engine,
        )
        self._parts |= self._scrubbers(stores, troubles)
        self._parts["retirer"] = Retirer(
            self.catalog,
            stores,
            settings.retire_rules(),
            settings.copy_plan().places,
            lock=settings.origin.parent / RETIRE_LOCK_NAME,
            source=lambda root: PosixStore(SOURCE, root),
        )
        self._parts["capacity watch"] = CapacityWatch(
            self.catalog,
            settings.copy_plan(),
            above=settings.storage.alert_above,
            days=settings.storage.alert_days,
        )
        if turn is not None:
            self._parts["replication watch"] = ReplicationWatch(
                self.catalog, peer_url=settings.catalog.peer_url, lag_seconds=settings.catalog.lag_seconds
            )
        self._parts["pipeline"] = self._pipeline()
        if settings.notify:
            self._parts["notifier"] = self._notifier()
        if settings.watch:
            self._parts["watcher"] = FacilityWatch(settings.watch_rules())
        # They start first: a new store is given its identity before anything is written to it.
        self._parts |= {
            f"keeper of {section.name}": StoreKeeper(
                self.catalog, stores[section.name], troubles, describe=partial(describe, section)
            )
            for section in settings.store
        }
        if turn is not None:  # the last to stop: what is in hand is finished in it
            self._parts["turn of the site"] = turn

    def _taken_stores(self, turn: ServiceTurn | None) -> dict[str, Store]:
        """The stores, once the site's turn is taken; nothing is left open where it cannot be."""
        try:
            if turn is not None:
                turn.take()
            return open_stores(self.catalog, self.settings)
        except ColdchainError:
            if turn is not None:
                turn.stop()
            self.catalog.close()
            raise

    def _collectors(self, instrument: InstrumentSection, copies: CopyPlan) -> dict[str, Part]:
        """One for each of the instrument's roots."""
        intake = Intake(
            self.catalog,
            instrument_name=instrument.name,
            source_root=instrument.movie_root,
            copies=copies,
            metadata_roots=instrument.metadata_roots,
            pattern=None if instrument.name_pattern is None else PlacePattern(instrument.name_pattern),
        )
        timing = Timing(settle_seconds=instrument.settle_seconds, patience_seconds=instrument.patience_seconds)
        intakes = {instrument.movie_root: intake}
        intakes |= {root: intake.beside(root) for root in instrument.metadata_roots}
        return {
            f"collector of {instrument.name} in {root}": Collector(
                root,
                taker,
                timing=timing,
                scan_seconds=instrument.scan_seconds,
                journal=AwayJournal(journal_file(self.settings.origin.parent, root)),
            )
            for root, taker in intakes.items()
        }

    def _scrubbers(self, stores: Mapping[str, Store], troubles: Troubles) -> dict[str, Part]:
        """One for each store, if the facility wants its copies read again."""
        storage = self.settings.storage
        if storage.scrub_days is None:
            return {}
        rate = storage.scrub_megabyte_per_second
        return {
            f"scrubber of {name}": Scrubber(
                self.catalog,
                store,
                days=storage.scrub_days,
                bytes_per_second=None if rate is None else rate * 1e6,
                is_busy=partial(troubles.is_busy, name),
            )
            for name, store in stores.items()
        }

    def _pipeline(self) -> Pipeline:
        settings = self.settings
        return Pipeline(
            self.catalog,
            self._engine,
            results_root=settings.results.folder,
            parameters=PipelineParameters(
                particle_diameter_angstrom=settings.pipeline.particle_diameter_angstrom,
                attempts=settings.pipeline.attempts,
                threads=settings.compute.threads_per_worker,
            ),
            instrument_optics={i.name: i.optics.as_optics() for i in settings.instrument},
            thresholds=settings.quality.as_thresholds(),
            copies=settings.copy_plan(),
        )

    def _notifier(self) -> Notifier:
        journal = EventJournal(self.catalog)
        return Notifier(journal, self.settings.receivers(), ledger=journal)

    def start(self) -> None:
        """Begin: first what an earlier process left, then what arrives. Raises ColdchainError; `stop` is to be called
        all the same."""
        events.record(self.catalog, Severity.INFO, BEGAN, f"`coldchain run`, {_this_process()}")
        self.settings.results.folder.mkdir(parents=True, exist_ok=True)
        for words in together(self.settings.store):
            log.warning("%s", printable(words))
        for part in reversed(self._parts.values()):
            part.start()

    def stop(self) -> None:
        """Take nothing new, finish the copies and steps in hand, record them, and end."""
        for part in self._parts.values():
            part.stop()
        self._engine.close()
        self._copy_engine.close()
        for store in self._stores.values():
            close_store(store)
        self.catalog.close()

    def idle(self) -> bool:
        """Whether nothing is settling, being copied or being computed."""
        return all(part.idle() for part in self._parts.values())

    def check(self) -> None:
        """Raise ColdchainError where a part has ended that should run; its traceback is in the log."""
        for name, part in self._parts.items():
            if not part.alive():
                raise ColdchainError(f"the {name} has ended by itself", remedy="See the log; start the service again.")


class EventJournal:
    """The catalog as `notify` wants it."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def after(self, last: UUID, *, limit: int) -> list[Notice]:
        """This site's events after that id, oldest first."""
        return notices.after(self._catalog, last, limit=limit)

    def newest(self) -> UUID:
        """The id of this site's newest event."""
        return notices.newest(self._catalog)

    def cursor(self, rule: str) -> UUID | None:
        """How far that rule has come."""
        return notices.cursor(self._catalog, rule)

    def set_cursor(self, rule: str, event_id: UUID) -> None:
        """Record how far that rule has come."""
        notices.set_cursor(self._catalog, rule, event_id)

    def ids(self, after: UUID, until: UUID, *, limit: int) -> list[UUID]:
        """The newest so many ids of this site's events between these, the newest first."""
        return notices.ids(self._catalog, after, until, limit=limit)

    def these(self, ids: Sequence[UUID]) -> list[Notice]:
        """This site's events with these ids, oldest first."""
        return notices.these(self._catalog, ids)

    def told(self, rule: str) -> list[UUID]:
        """What that rule has told after its cursor."""
        return notices.told(self._catalog, rule)

    def sends(self, rule: str) -> list[tuple[float, int]]:
        """When that rule has sent how many messages."""
        return notices.sends(self._catalog, rule)

    def record(
        self, rule: str, event_id: UUID, *, told: Sequence[UUID], sends: Sequence[tuple[float, int]] | None
    ) -> None:
        """Record how far that rule has come, what else it has told, and its messages."""
        notices.record(self._catalog, rule, event_id, told=told, sends=sends)

    def say(self, kind: str, message: str) -> None:
        """Write an event, an error of notification."""
        events.record(self._catalog, Severity.ERROR, kind, message)
