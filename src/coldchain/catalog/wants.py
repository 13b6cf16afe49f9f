"""Copies that are wanted: which files lack them by the facility's policies, and the rows that say so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, insert, orm, select

from coldchain.catalog import events
from coldchain.catalog.by_index import by_index
from coldchain.catalog.engine import Catalog
from coldchain.catalog.file_rows import COPIED_STATES, replicas_query
from coldchain.catalog.tables import FileRow, ReplicaRow
from coldchain.errors import printable
from coldchain.model.events import Severity
from coldchain.model.files import FileKind, ReplicaState
from coldchain.model.policy import CopyPlan, missing

_AT_ONCE = 500


def want(unit: orm.Session, row: FileRow, stores: Iterable[str], priority: int) -> list[str]:
    """Add the WANTED replicas that a file lacks on these stores, in a transaction that this room has begun; on which it
    lacked one."""
    present = {replica.store for replica in unit.scalars(replicas_query(row.id))}
    lacking = [store for store in dict.fromkeys(stores) if store not in present]
    unit.add_all(
        ReplicaRow(**wanted_row(unit.info["site"], row.id, row.size_bytes, store, priority)) for store in lacking
    )
    return lacking


def want_missing(catalog: Catalog, session_id: UUID, plan: CopyPlan) -> int:
    """Add the WANTED replicas that a session's files lack by the facility's policies; how many were added.

    A store that was added, or a policy that changed, counts for what arrived before, too. Only files that this
    site took in, and whose content stands and can be copied, are meant. It is done in pages, each one transaction.
    """
    added = 0
    after: UUID | None = None
    stores = [place.name for place in plan.places]
    while True:
        query = lacking_query(catalog.site, session_id, stores, after).limit(_AT_ONCE)
        with catalog.reading() as unit:
            page = unit.execute(query).all()
            lacks = bool(_lacking(unit, page, plan))
        if lacks:  # whatever policies say, nearly all files have their copies: nobody waits for this to find that
            with catalog.writing() as unit:
                page = unit.execute(query).all()
                added += _want_all(unit, session_id, page, plan)
        if len(page) < _AT_ONCE:
            return added
        after = page[-1][0]


def lacking_query(
    site: str, session_id: UUID, stores: Sequence[str], after: UUID | None
) -> Select[UUID, FileKind, int]:
    """A session's files, in the order of their ids from the one after `after` on, that a site took in and that have
    no replica on some of these stores."""
    there = (
        select(func.count())
        .select_from(ReplicaRow)
        .where(ReplicaRow.file_id == FileRow.id, ReplicaRow.store.in_(stores))
        .scalar_subquery()
    )
    query = (
        select(FileRow.id, FileRow.kind, FileRow.size_bytes)
        .where(
            FileRow.session_id == session_id,
            FileRow.site == site,
            FileRow.state.in_(COPIED_STATES),
            there < len(stores),
        )
        .order_by(FileRow.id)
    )
    query = by_index(query, FileRow, "ix_files_session_id_id")
    return query if after is None else query.where(FileRow.id > after)


def there_query(file_ids: Sequence[UUID]) -> Select[UUID, str, ReplicaState]:
    """File, store and state of these files' copies."""
    return select(ReplicaRow.file_id, ReplicaRow.store, ReplicaRow.state).where(ReplicaRow.file_id.in_(file_ids))


def wanted_row(site: str, file_id: UUID, size_bytes: int, store: str, priority: int) -> dict[str, Any]:
    """The values of a WANTED replica; its key is minted when it is inserted."""
    return {
        "site": site,
        "file_id": file_id,
        "store": store,
        "state": ReplicaState.WANTED,
        "pending": True,
        "attempts": 0,
        "detail": "",
        "priority": priority,
        "size_bytes": size_bytes,
    }


def _lacking(
    unit: orm.Session, page: Sequence[tuple[UUID, FileKind, int]], plan: CopyPlan
) -> list[tuple[UUID, FileKind, int, str]]:
    """Each of these files with each store on which it lacks a copy."""
    there: defaultdict[UUID, dict[str, ReplicaState]] = defaultdict(dict)
    for file_id, store, state in unit.execute(there_query([file_id for file_id, *_ in page])):
        there[file_id][store] = state
    return [
        (file_id, kind, size_bytes, store)
        for file_id, kind, size_bytes in page
        for store in missing(kind, there[file_id], plan)
    ]


def _want_all(unit: orm.Session, session_id: UUID, page: Sequence[tuple[UUID, FileKind, int]], plan: CopyPlan) -> int:
    rows = [
        wanted_row(unit.info["site"], file_id, size_bytes, store, plan.priority(kind))
        for file_id, kind, size_bytes, store in _lacking(unit, page, plan)
    ]
    if rows:
        unit.execute(insert(ReplicaRow), rows)
    for store, group in groupby(sorted(row["store"] for row in rows)):
        message = f"{len(list(group))} files that arrived before are wanted on {printable(store)} too"
        events.add(unit, Severity.INFO, "replica.wanted", message, session_id=session_id)
    return len(rows)
