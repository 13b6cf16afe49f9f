"""Results that other programs had found, as runs of steps that were done before ours.

A run's key is the digest of where its result is from, so that the same result is written down once. Of an exposure's
runs the newest by id counts (`results`); a foreign one is given an id of the time at which it was found, and in any
case one from before its exposure was known here: what this facility computes itself counts over it, whenever it was
imported (`docs/decisions/0022-results-of-other-programs.md`).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import orm

from coldchain.catalog import exposures, results, steps
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import ExposureRow, StepRunRow
from coldchain.model.identity import digest_of, first_id_at
from coldchain.model.leginon import ForeignResult
from coldchain.model.results import StepState

_BEFORE = timedelta(milliseconds=1)
_SEQUENCE_BITS = 12
_RANDOM_BITS = 62


def record(catalog: Catalog, found: Sequence[tuple[UUID, ForeignResult]]) -> int:
    """Write down what was found for exposures, by their ids, in one transaction; how many of them were new.

    Another site's exposures are left out: their runs are its own to write.
    """
    written = 0
    with catalog.writing() as unit:
        for exposure_id, result in found:
            written += _record(unit, exposures.load_row(unit, exposure_id), result)
    return written


def key_of(result: ForeignResult) -> str:
    """What names a foreign result: the digest of its step and of where it is from."""
    return digest_of({"foreign": True, "step": result.step.value, "image": result.image_id, **result.parameters})


def _record(unit: orm.Session, exposure: ExposureRow, result: ForeignResult) -> bool:
    if exposure.site != unit.info["site"]:
        return False
    runs = list(unit.scalars(steps.runs_query(exposure.id)))
    key = key_of(result)
    if any(run.key == key for run in runs):
        return False
    latest = min(exposure.found_at, datetime.now(UTC)) - _BEFORE
    at = min(result.found_at or latest, latest)
    row = StepRunRow(
        id=_id_at(at, len(runs)),
        site=unit.info["site"],
        exposure_id=exposure.id,
        step=result.step,
        key=key,
        parameters=dict(result.parameters),
        state=StepState.DONE,
        outputs={},
        seconds=None,
        detail=result.words,
        started_at=result.found_at or latest,
        ended_at=result.found_at or latest,
    )
    unit.add(row)
    unit.flush()
    results.add(unit, row, result.result)
    unit.flush()
    return True


def _id_at(time: datetime, sequence: int) -> UUID:
    """A new UUIDv7 of that time; of those of one millisecond, the one with the higher sequence is the later."""
    bits = min(sequence, (1 << _SEQUENCE_BITS) - 1) << 64 | secrets.randbits(_RANDOM_BITS)
    return UUID(int=first_id_at(time).int | bits)
