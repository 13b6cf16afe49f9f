"""Stores: which they are, how they are, and how full they were over time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Select, func, orm, select, true

from coldchain.catalog import events
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import FileRow, ReplicaRow, StoreRow, StoreSampleRow
from coldchain.errors import CatalogError, printable
from coldchain.model.events import Severity
from coldchain.model.files import FileState, ReplicaState
from coldchain.model.identity import first_id_at, new_id
from coldchain.model.policy import GIVEN_UP, Tier
from coldchain.model.stores import StoreLook, StoreSample, StoreState

_AT_ONCE = 500


def enrol(catalog: Catalog, *, name: str, tier: Tier, url: str) -> StoreState:
    """This site's store of that name, with the tier and URL that it has now; a new one gets a new identity."""
    with catalog.writing() as unit:
        row = unit.scalars(store_query(catalog.site, name)).first()
        if row is None:
            row = StoreRow(
                site=catalog.site,
                name=name,
                identity=new_id(),
                tier=tier,
                url=url,
                about="",
                trouble="",
                backlog_bytes=0,
                backlog_files=0,
            )
            unit.add(row)
            unit.flush()
        row.tier, row.url = tier, url
        return _as_state(row)


def all_stores(catalog: Catalog) -> list[StoreState]:
    """Every site's stores, by site and name."""
    with catalog.reading() as unit:
        rows = unit.scalars(select(StoreRow).order_by(StoreRow.site, StoreRow.name, StoreRow.id))
        seen: dict[tuple[str, str], StoreRow] = {}
        for row in rows:
            seen.setdefault((row.site, row.name), row)
        return [_as_state(row) for row in seen.values()]


def find(catalog: Catalog, name: str) -> StoreState:
    """This site's store of that name; CatalogError where there is none."""
    with catalog.reading() as unit:
        return _as_state(_row(unit, catalog.site, name))


def note_marked(catalog: Catalog, name: str, identity: UUID) -> StoreState:
    """The store was seen to bear this identity: from now on it must."""
    with catalog.writing() as unit:
        row = _row(unit, catalog.site, name)
        if (row.identity, row.marked_at is None) != (identity, False):
            row.identity, row.marked_at = identity, datetime.now(UTC)
            _say(unit, Severity.INFO, "store.marked", f"store {printable(name)} bears the identity {identity}")
        return _as_state(row)


def is_known(catalog: Catalog, name: str, identity: UUID) -> bool:
    """Whether any site has a store of that name and identity: two sites may share one."""
    with catalog.reading() as unit:
        query = select(StoreRow.id).where(StoreRow.name == name, StoreRow.identity == identity).limit(1)
        return unit.scalar(query) is not None


def bearer(catalog: Catalog, name: str, identity: UUID) -> str:
    """The other store, of any site, that bears an identity; "" where none does. One tree that is reached twice must not
    count as two stores."""
    with catalog.reading() as unit:
        query = select(StoreRow.name).where(StoreRow.name != name, StoreRow.identity == identity).limit(1)
        return unit.scalar(query) or ""


def adopt(catalog: Catalog, name: str, identity: UUID) -> int:
    """Another store has taken this one's place on purpose. What was verified on the old one is wanted on this one; how
    many copies that are. What the old one's trash held is gone with it. CatalogError where another store bears that
    identity."""
    other = bearer(catalog, name, identity)
    if other:
        raise CatalogError(
            f"what lies in the place of store {printable(name)} is the store {printable(other)}",
            expected="a store of its own",
            remedy="Mount another disk there: one tree that is reached twice is one copy",
        )
    with catalog.writing() as unit:
        row = _row(unit, catalog.site, name)
        if row.identity == identity and row.marked_at is not None:
            return 0
        row.identity, row.marked_at = identity, datetime.now(UTC)
        row.trouble, row.trouble_since = "", None
        changed = 0
        for copy in unit.scalars(standing_query(catalog.site, name)).yield_per(_AT_ONCE):
            copy.trashed_at, copy.trashed_as = None, None
            if copy.state in GIVEN_UP:
                copy.state, copy.pending, copy.detail = ReplicaState.REMOVED, False, "the store was replaced"
                continue
            file_state = unit.scalar(select(FileRow.state).where(FileRow.id == copy.file_id))
            copy.state, copy.level, copy.verified_at, copy.checked_at = ReplicaState.WANTED, None, None, None
            copy.kept_as, copy.stored_as, copy.sha256 = None, None, None
            copy.pending = file_state != FileState.REPLACED
            copy.detail = "the store was replaced"
            changed += 1
        message = f"store {printable(name)} was replaced by another; {changed:,} copies are to be made again"
        _say(unit, Severity.WARNING, "store.adopted", message)
        return changed


def record_look(catalog: Catalog, name: str, look: StoreLook) -> StoreState:
    """Write down how a store is; a change between well and not is an event. Sizes of a store that is away stay as they
    were when it was last seen."""
    with catalog.writing() as unit:
        row = _row(unit, catalog.site, name)
        now = datetime.now(UTC)
        if bool(look.trouble) != bool(row.trouble):
            row.trouble_since = now if look.trouble else None
            severity = Severity.ERROR if look.trouble else Severity.INFO
            message = f"store {printable(name)}: {look.trouble}" if look.trouble else f"store {printable(name)} is well"
            _say(unit, severity, "store.trouble" if look.trouble else "store.well", message)
        row.trouble = look.trouble
        if look.total_bytes is not None or not look.trouble:
            row.total_bytes, row.free_bytes, row.free_files = look.total_bytes, look.free_bytes, look.free_files
            row.about, row.seen_at = look.about, now
        if look.bytes_per_second is not None:
            row.bytes_per_second = look.bytes_per_second
        counted = unit.execute(backlog_query(catalog.site, name)).one()
        row.backlog_files, row.backlog_bytes = int(counted[0]), int(counted[1])
        return _as_state(row)


def record_sample(catalog: Catalog, name: str, since: datetime) -> StoreSample:
    """Write down how full a store is by its last look, and what has come to be wanted on it since that time."""
    with catalog.writing() as unit:
        row = _row(unit, catalog.site, name)
        sample = StoreSampleRow(
            site=catalog.site,
            store=name,
            at=datetime.now(UTC),
            total_bytes=row.total_bytes,
            free_bytes=row.free_bytes,
            arrived_bytes=int(unit.scalar(arrived_query(catalog.site, name, since)) or 0),
            backlog_bytes=row.backlog_bytes,
        )
        unit.add(sample)
        return _as_sample(sample)


def samples(catalog: Catalog, store: str, *, site: str, days: float) -> list[StoreSample]:
    """A store's samples of the last so many days, oldest first."""
    with catalog.reading() as unit:
        since = datetime.now(UTC) - timedelta(days=days)
        return [_as_sample(row) for row in unit.scalars(samples_query(site, store, since))]


def last_sample_at(catalog: Catalog, store: str) -> datetime | None:
    """When this site's store was last sampled."""
    with catalog.reading() as unit:
        query = select(func.max(StoreSampleRow.at)).where(
            StoreSampleRow.site == catalog.site, StoreSampleRow.store == store
        )
        return unit.scalar(query)


def store_query(site: str, name: str) -> Select[StoreRow]:
    """A site's store; the oldest row, should there be two."""
    return select(StoreRow).where(StoreRow.site == site, StoreRow.name == name).order_by(StoreRow.id).limit(1)


def standing_query(site: str, store: str) -> Select[ReplicaRow]:
    """The copies that a site says to stand on a store, or in its trash."""
    there = (
        ReplicaState.VERIFIED,
        ReplicaState.DAMAGED,
        ReplicaState.RETIRING,
        ReplicaState.TRASHED,
        ReplicaState.REMOVING,
    )
    return select(ReplicaRow).where(ReplicaRow.site == site, ReplicaRow.store == store, ReplicaRow.state.in_(there))


def backlog_query(site: str, store: str) -> Select[int, int]:
    """How many copies a store still wants, and their bytes."""
    return select(func.count(), func.coalesce(func.sum(ReplicaRow.size_bytes), 0)).where(
        ReplicaRow.site == site, ReplicaRow.pending == true(), ReplicaRow.store == store
    )


def arrived_query(site: str, store: str, since: datetime) -> Select[int]:
    """The bytes that have come to be wanted on a store since a time: keys grow with the time of their writing."""
    return select(func.coalesce(func.sum(ReplicaRow.size_bytes), 0)).where(
        ReplicaRow.id >= first_id_at(since), ReplicaRow.site == site, ReplicaRow.store == store
    )


def samples_query(site: str, store: str, since: datetime) -> Select[StoreSampleRow]:
    """A store's samples since a time, oldest first."""
    return (
        select(StoreSampleRow)
        .where(StoreSampleRow.site == site, StoreSampleRow.store == store, StoreSampleRow.at >= since)
        .order_by(StoreSampleRow.at)
    )


def _row(unit: orm.Session, site: str, name: str) -> StoreRow:
    row = unit.scalars(store_query(site, name)).first()
    if row is None:
        raise CatalogError(
            f"the catalog knows no store {printable(name)} of site {printable(site)}",
            remedy="Start `coldchain run` once: it enrols the stores of facility.toml",
        )
    return row


def _say(unit: orm.Session, severity: Severity, kind: str, message: str) -> None:
    events.add(unit, severity, kind, message)


def _as_state(row: StoreRow) -> StoreState:
    return StoreState(
        name=row.name,
        site=row.site,
        tier=row.tier,
        url=row.url,
        identity=row.identity,
        is_marked=row.marked_at is not None,
        about=row.about,
        seen_at=row.seen_at,
        trouble=row.trouble,
        trouble_since=row.trouble_since,
        total_bytes=row.total_bytes,
        free_bytes=row.free_bytes,
        free_files=row.free_files,
        backlog_bytes=row.backlog_bytes,
        backlog_files=row.backlog_files,
        bytes_per_second=row.bytes_per_second,
    )


def _as_sample(row: StoreSampleRow) -> StoreSample:
    return StoreSample(
        store=row.store,
        at=row.at,
        total_bytes=row.total_bytes,
        free_bytes=row.free_bytes,
        arrived_bytes=row.arrived_bytes,
        backlog_bytes=row.backlog_bytes,
    )
