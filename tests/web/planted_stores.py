"""Stores in a planted facility: full and empty, well and not, with weeks of samples."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
from sqlalchemy import select, update

from coldchain.catalog import stores
from coldchain.catalog.tables import ReplicaRow, StoreSampleRow
from coldchain.model.files import FileKind, ReplicaState, VerificationLevel
from coldchain.model.policy import CopyPlan, Place, Tier
from coldchain.model.stores import StoreLook
from coldchain.storage.capacity.watch import CapacityWatch
from tests.web.planted import Facility

TB = 10**12
DAYS = 42


def plant_stores(facility: Facility) -> None:
    """`archive`, which fills and is spoken of; `scratch`, which is cleared and away; `vault`, without an end."""
    catalog = facility.catalog
    for name, tier, url in (
        ("archive", Tier.ARCHIVE, "/mnt/archive"),
        ("scratch", Tier.LIVE, "/mnt/raid"),
        ("vault", Tier.CLOUD, "s3://coldchain-vault/em"),
    ):
        stores.enrol(catalog, name=name, tier=tier, url=url)
    plant_copies(facility)
    rng = np.random.default_rng(3)
    _sample(facility, "archive", 400 * TB, _fills(rng, 336 * TB, 2.2))
    _sample(facility, "scratch", 120 * TB, _fills(rng, 40 * TB, 6.0, most=104, until=72))
    _sample(facility, "vault", None, _fills(rng, 0.0, 0.6))
    newest = {sample: _newest(facility, sample) for sample in ("archive", "scratch")}
    about = "xfs on /dev/md127, 12 disks"
    stores.record_look(catalog, "archive", StoreLook("", about, 400 * TB, newest["archive"], None, 410e6))
    stores.record_look(catalog, "scratch", StoreLook("", "ext4", 120 * TB, newest["scratch"], None, None))
    stores.record_look(catalog, "vault", StoreLook("", "", None, None, None, 95e6))
    trouble = "its identity file is not there; expected the disk that bears it. Mount it again"
    stores.record_look(catalog, "scratch", StoreLook(trouble))
    plan = CopyPlan(tuple(Place(name, Tier.LIVE) for name in ("archive", "scratch", "vault")))
    CapacityWatch(catalog, plan, above=0.9, days=14).look()


def plant_copies(facility: Facility) -> None:
    """Sessions of two projects whose movies lie on the stores; some are still wanted, some in the trash."""
    for number, (name, project) in enumerate((("apoferritin-04", "Ferritins"), ("ribosome-11", "Translation"))):
        session = facility.session(name, project_name=project)
        for file in range(4):
            facility.file(session, f"{name}_{file}.tiff")
        facility.file(session, f"{name}.mdoc", kind=FileKind.METADATA)
        if number:
            wanted = facility.file(session, "wanted.tiff", copies=ReplicaState.WANTED)
            _enlarge(facility, wanted, 1.4 * TB)
    with facility.catalog.writing() as unit:
        # As large as the disks: nobody wants to plant that many files.
        verified = ReplicaRow.state == ReplicaState.VERIFIED
        archived = list(unit.scalars(select(ReplicaRow).where(verified, ReplicaRow.store == "archive")))
        for number, copy in enumerate(archived):
            copy.size_bytes = (31 + number % 3) * TB
            if number % 2:
                far = {
                    "size_bytes": 3 * TB,
                    "state": copy.state,
                    "level": VerificationLevel.SERVER,
                    "sha256": copy.sha256,
                }
                unit.add(_copy(copy, "vault", **far))
        for number, copy in enumerate(unit.scalars(select(ReplicaRow).where(verified, ReplicaRow.store == "scratch"))):
            copy.size_bytes = (5 + number % 3) * TB
            if number % 5 == 4:
                copy.state = ReplicaState.TRASHED


def _copy(like: ReplicaRow, store: str, **values: object) -> ReplicaRow:
    same = {"site": like.site, "file_id": like.file_id, "pending": False, "attempts": 1, "detail": ""}
    return ReplicaRow(store=store, verified_at=like.verified_at, **(same | values))


def _enlarge(facility: Facility, file_id: UUID, size_bytes: float) -> None:
    with facility.catalog.writing() as unit:
        unit.execute(update(ReplicaRow).where(ReplicaRow.file_id == file_id).values(size_bytes=int(size_bytes)))


def _fills(
    rng: np.random.Generator, used: float, rate: float, *, most: float = np.inf, until: float = 0.0
) -> list[tuple[int, int]]:
    """Bytes used and arrived at every second hour, in terabytes a working day, cleared above `most` to `until`."""
    found = []
    for step in range(DAYS * 12 + 1):
        weekday = (step // 12) % 7 < 5
        arrived = rng.gamma(6, rate / 6) / 12 * TB if weekday and (step // 36) % 4 else 0.0
        used += arrived
        if used > most * TB:
            used = until * TB
        found.append((int(used), int(arrived)))
    return found


def _sample(facility: Facility, store: str, total: int | None, levels: list[tuple[int, int]]) -> None:
    now = datetime.now(UTC)
    with facility.catalog.writing() as unit:
        for number, (used, arrived) in enumerate(levels):
            unit.add(
                StoreSampleRow(
                    site=facility.catalog.site,
                    store=store,
                    at=now - timedelta(hours=2 * (len(levels) - 1 - number)),
                    total_bytes=total,
                    free_bytes=None if total is None else total - used,
                    arrived_bytes=arrived,
                    backlog_bytes=0,
                )
            )


def _newest(facility: Facility, store: str) -> int:
    newest = stores.samples(facility.catalog, store, site=facility.catalog.site, days=1)[-1]
    return newest.free_bytes or 0
