"""Stores: which they are, how they are, and how full they were over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, orm, select, true, update

from coldchain.catalog import events
from coldchain.catalog.by_index import KEY, by_index
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
    with catalog.reading() as unit:
        row = _row(unit, catalog.site, name)
        if row.identity == identity and row.marked_at is not None:
            return 0
    # In pages, so that others may write between them. The new identity comes last: what is killed before that has not
    # been done, and goes on where it ended.
    changed, is_over = 0, False
    while not is_over:
        with catalog.writing() as unit:
            found = unit.execute(standing_query(catalog.site, name, _AT_ONCE)).all()
            changed += _want_again(unit, found)
            is_over = len(found) < _AT_ONCE
            if is_over:
                row = _row(unit, catalog.site, name)
                row.identity, row.marked_at = identity, datetime.now(UTC)
                row.trouble, row.trouble_since = "", None
                message = f"store {printable(name)} was replaced by another; {changed:,} copies are to be made again"
                _say(unit, Severity.WARNING, "store.adopted", message)
    return changed


def _want_again(unit: orm.Session, copies: Sequence[tuple[UUID, ReplicaState, FileState]]) -> int:
    """Copies that were on a store that is not there any more; how many of them are wanted again."""
    gone = [copy for copy, state, _ in copies if state in GIVEN_UP]
    standing = [copy for copy, state, of in copies if state not in GIVEN_UP and of != FileState.REPLACED]
    replaced = [copy for copy, state, of in copies if state not in GIVEN_UP and of == FileState.REPLACED]
    nothing: dict[str, Any] = {"trashed_at": None, "trashed_as": None, "detail": "the store was replaced"}
    again = nothing | {"state": ReplicaState.WANTED, "level": None, "verified_at": None, "checked_at": None}
    again |= {"kept_as": None, "stored_as": None, "sha256": None}
    for ids, values in (
        (gone, nothing | {"state": ReplicaState.REMOVED, "pending": False}),
        (standing, again | {"pending": True}),
        (replaced, again | {"pending": False}),
    ):
        if ids:
            change = update(ReplicaRow).where(ReplicaRow.site == unit.info["site"], ReplicaRow.id.in_(ids))
            unit.execute(change.values(values).execution_options(synchronize_session=False))
    return len(standing) + len(replaced)


def record_look(catalog: Catalog, name: str, look: StoreLook) -> StoreState:
    """Write down how a store is; a change between well and not is an event. Sizes of a store that is away stay as they
    were when it was last seen."""
    with catalog.reading() as unit:  # not where others would wait for it: of a million copies it takes a while
        backlog_files, backlog_bytes = map(int, unit.execute(backlog_query(catalog.site, name)).one())
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
        row.backlog_files, row.backlog_bytes = backlog_files, backlog_bytes
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


def standing_query(site: str, store: str, limit: int) -> Select[UUID, ReplicaState, FileState]:
    """Some of the copies that a site says to stand on a store, or in its trash, with their files' states."""
    there = (
        ReplicaState.VERIFIED,
        ReplicaState.DAMAGED,
        ReplicaState.RETIRING,
        ReplicaState.TRASHED,
        ReplicaState.REMOVING,
    )
    query = (
        select(ReplicaRow.id, ReplicaRow.state, FileRow.state)
        .join(FileRow, FileRow.id == ReplicaRow.file_id)
        .where(ReplicaRow.site == site, ReplicaRow.store == store, ReplicaRow.state.in_(there))
        .limit(limit)
    )
    return by_index(query, ReplicaRow, "ix_replicas_scrub")


def backlog_query(site: str, store: str) -> Select[int, int]:
    """How many copies a store still wants, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(ReplicaRow.size_bytes), 0)).where(
        ReplicaRow.site == site, ReplicaRow.pending == true(), ReplicaRow.store == store
    )
    return by_index(query, ReplicaRow, "ix_replicas_backlog")


def arrived_query(site: str, store: str, since: datetime) -> Select[int]:
    """The bytes that have come to be wanted on a store since a time: keys grow with the time of their writing."""
    # SQLite would go through all that the store has, were it the plain column.
    its_site = func.coalesce(ReplicaRow.site, "")
    query = select(func.coalesce(func.sum(ReplicaRow.size_bytes), 0)).where(
        ReplicaRow.id >= first_id_at(since), its_site == site, ReplicaRow.store == store
    )
    return by_index(query, ReplicaRow, KEY)


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
