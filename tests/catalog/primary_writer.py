"""One site's writer as a process of its own: `python -m tests.catalog.primary_writer URL SITE SEED`.

It writes through the catalog's own functions until its standard input ends, and says each row's table and id once the
catalog has acknowledged it. A catalog that is away is tried again, and said on standard error. Rows of the other site
are read and referred to, as a service does; none is changed.
"""

from __future__ import annotations

import random
import select
import sys
from uuid import UUID

from coldchain.catalog import engine, events, exposures, files, notices, replicas, sessions, steps
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError
from coldchain.model.events import Severity
from coldchain.model.files import FileKind, ReplicaState, VerificationLevel
from coldchain.model.identity import new_id
from coldchain.model.results import Step
from coldchain.model.session import Exposure, ExposureState, Layout, Session, SessionState
from tests.catalog.catalog_givens import SHA256, ctf, motion

PAUSE_SECONDS = 0.01
AWAY_SECONDS = 0.1
_SESSIONS = 6


def _say(table: str, row_id: UUID) -> None:
    sys.stdout.write(f"{table} {row_id.hex}\n")
    sys.stdout.flush()


def _session(catalog: Catalog, chance: random.Random) -> Session:
    """A session of both sites: the two may make it at the same time, and then the oldest counts."""
    folder = f"visit{chance.randrange(_SESSIONS)}"
    session = sessions.create(
        catalog, name=folder, instrument_name="krios", source_root="/camera", folder=folder, layout=Layout.EPU
    )
    _say("sessions", session.id)
    _say("instruments", session.instrument.id)
    return session


def _file(catalog: Catalog, session: Session, name: str) -> Exposure:
    exposure = exposures.ensure(catalog, session.id, name)
    _say("exposures", exposure.id)
    movie = files.record_arrival(
        catalog,
        session_id=session.id,
        relative_path=f"{name}.tiff",
        kind=FileKind.MOVIE,
        size_bytes=100,
        modified_ns=1,
        stores=("live", "archive"),
        exposure_id=exposure.id,
    )
    _say("files", movie.id)
    for copy in replicas.of_file(catalog, movie.id):
        _say("replicas", copy.id)
    files.set_digest(catalog, movie.id, SHA256)
    return exposures.attach_input(catalog, exposure.id, movie.id)


def _copy(catalog: Catalog, exposure: Exposure) -> None:
    assert exposure.input_file_id is not None
    for copy in replicas.of_file(catalog, exposure.input_file_id):
        replicas.record_copy(
            catalog,
            copy.id,
            state=ReplicaState.VERIFIED,
            level=VerificationLevel.MEDIUM,
            sha256=SHA256,
            detail="",
        )


def _change_own(catalog: Catalog, site: str) -> None:
    """What is changed over and over, and what is deleted again."""
    own = sessions.create(
        catalog, name=site, instrument_name=site, source_root="/camera", folder=site, layout=Layout.PLAIN
    )
    is_open = own.state is SessionState.OPEN
    sessions.set_state(catalog, own.id, SessionState.CLOSED if is_open else SessionState.OPEN)
    notices.record(catalog, "rule", new_id(), told=[new_id()], sends=None)


def _run(catalog: Catalog, exposure: Exposure) -> None:
    exposures.claim(catalog, exposure.id)
    for step, result in ((Step.ALIGN, motion()), (Step.CTF, ctf())):
        run = steps.begin(catalog, exposure.id, step, "key", {"threads": 1})
        _say("step_runs", run.id)
        steps.finish(catalog, run.id, outputs={}, seconds=1.0, result=result, settle_to=ExposureState.DONE)


def _turn(catalog: Catalog, chance: random.Random, name: str) -> None:
    session = _session(catalog, chance)
    exposure = _file(catalog, session, name)
    _copy(catalog, exposure)
    _run(catalog, exposure)
    _change_own(catalog, name.partition("/")[0])
    for other in exposures.page(catalog, session.id, limit=3, before=None):
        said = events.record(catalog, Severity.INFO, "seen", name, session_id=session.id, exposure_id=other.id)
        _say("events", said.id)


def main(url: str, site: str, seed: int) -> None:
    """Write until standard input ends."""
    chance = random.Random(seed)
    catalog: Catalog | None = None
    turn = 0
    pause_seconds = PAUSE_SECONDS
    while not select.select([sys.stdin], [], [], pause_seconds)[0]:  # under libfaketime a sleep may last for hours
        pause_seconds = PAUSE_SECONDS
        try:
            if catalog is None:
                catalog = engine.open_catalog(url, site)
            turn += 1
            _turn(catalog, chance, f"{site}/{turn}")
        except CatalogError as error:  # its server is away: what was not acknowledged may be there or not
            sys.stderr.write(f"{site} {turn}: {error}\n")
            if catalog is not None:
                catalog.close()
            catalog = None
            pause_seconds = AWAY_SECONDS
    if catalog is not None:
        catalog.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
