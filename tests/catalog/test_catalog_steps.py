"""Steps are journalled before they run, end once, and the newest result counts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from coldchain.catalog import engine, events, exposures, results, steps
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError
from coldchain.model.events import Severity
from coldchain.model.identity import new_id
from coldchain.model.optics import ExposureMetadata
from coldchain.model.results import ExposureResults, Step, StepState
from coldchain.model.session import ExposureState, Session
from tests.catalog.catalog_givens import ctf, expose, motion, new_session, picks, run_step


def test_a_run_is_journalled_before_it_runs(catalog: Catalog, session: Session) -> None:
    """A run is RUNNING from its beginning, and DONE with outputs and time at its end."""
    exposure = expose(catalog, session)
    begun = steps.begin(catalog, exposure.id, Step.CTF, "k", {"box": 512, "nested": {"a": [1, None]}})
    assert (begun.state, begun.ended_at, begun.seconds) == (StepState.RUNNING, None, None)
    assert steps.runs_of(catalog, exposure.id) == [begun] and steps.done(catalog, exposure.id) == {}
    ended = steps.finish(catalog, begun.id, outputs={"diagnostic": "a/b.mrc"}, seconds=2.5, result=ctf())
    assert (ended.state, ended.outputs, ended.seconds) == (StepState.DONE, {"diagnostic": "a/b.mrc"}, 2.5)
    assert ended.parameters == {"box": 512, "nested": {"a": [1, None]}}
    assert steps.done(catalog, exposure.id) == {"k": ended}


def test_a_failed_run_says_why(catalog: Catalog, session: Session) -> None:
    """A failure is kept and warned of, and is not done."""
    exposure = expose(catalog, session)
    run = steps.begin(catalog, exposure.id, Step.ALIGN, "k", {})
    failed = steps.fail(catalog, run.id, detail="strip 3 is corrupt", seconds=0.1)
    assert (failed.state, failed.detail) == (StepState.FAILED, "strip 3 is corrupt")
    assert steps.done(catalog, exposure.id) == {}
    event = events.recent(catalog, minimum=Severity.WARNING)[0]
    assert (event.kind, event.message) == ("step.failed", "align of a/movie is failed: strip 3 is corrupt")


def test_a_run_ends_once(catalog: Catalog, session: Session) -> None:
    """Whoever ends a run that has ended learns so, and its result is not written twice."""
    exposure = expose(catalog, session)
    run = run_step(catalog, exposure, Step.CTF, ctf())
    with pytest.raises(CatalogError, match="is done"):
        steps.finish(catalog, run.id, outputs={}, seconds=1.0, result=ctf(1.0))
    with pytest.raises(CatalogError, match="is done"):
        steps.fail(catalog, run.id, detail="", seconds=1.0)
    assert results.newest(catalog, exposure.id).ctf == ctf()


def test_unknown_ids_are_stated_errors(catalog: Catalog) -> None:
    """Every function says which id is not there."""
    nobody = new_id()
    for attempt in (
        lambda: steps.begin(catalog, nobody, Step.CTF, "k", {}),
        lambda: steps.finish(catalog, nobody, outputs={}, seconds=0.0, result=None),
        lambda: steps.fail(catalog, nobody, detail="", seconds=0.0),
    ):
        with pytest.raises(CatalogError, match=str(nobody)):
            attempt()
    assert steps.runs_of(catalog, nobody) == [] and results.newest(catalog, nobody) == ExposureResults()


def test_what_a_dead_process_left_is_taken_up_again(url: str, catalog: Catalog, session: Session) -> None:
    """After a start, this site's running runs are INTERRUPTED and its exposures READY; another site's go on."""
    left, done = expose(catalog, session, "left"), expose(catalog, session, "done")
    run = steps.begin(catalog, left.id, Step.CTF, "k", {})
    exposures.set_state(catalog, left.id, ExposureState.PROCESSING)
    finished = run_step(catalog, done, Step.CTF, ctf())
    exposures.set_state(catalog, done.id, ExposureState.DONE)
    there = engine.open_catalog(url, "there")
    theirs = steps.begin(there, expose(there, new_session(there, folder="x")).id, Step.CTF, "k", {})
    assert steps.interrupt_running(catalog) == 1
    assert [r.state for r in steps.runs_of(catalog, left.id)] == [StepState.INTERRUPTED]
    assert exposures.get(catalog, left.id).state is ExposureState.READY
    assert steps.runs_of(catalog, done.id) == [finished]
    assert exposures.get(catalog, done.id).state is ExposureState.DONE
    assert steps.runs_of(there, theirs.exposure_id)[0].state is StepState.RUNNING
    assert steps.interrupt_running(catalog) == 0
    with pytest.raises(CatalogError, match="interrupted"):
        steps.finish(catalog, run.id, outputs={}, seconds=1.0, result=None)
    there.close()


def test_the_newest_done_run_of_each_step_counts(catalog: Catalog, session: Session) -> None:
    """A new result takes the old one's place, and the old one is kept; a run that failed takes nobody's."""
    exposure = expose(catalog, session)
    run_step(catalog, exposure, Step.ALIGN, motion(5.0), key="a1")
    run_step(catalog, exposure, Step.CTF, ctf(10_000.0), key="c1")
    run_step(catalog, exposure, Step.PICK, picks(3), key="p1")
    run_step(catalog, exposure, Step.PREVIEW, None, key="v1")
    run_step(catalog, exposure, Step.CTF, ctf(12_000.0), key="c2")
    failed = steps.begin(catalog, exposure.id, Step.CTF, "c3", {})
    steps.fail(catalog, failed.id, detail="", seconds=0.0)
    steps.begin(catalog, exposure.id, Step.PICK, "p2", {})
    assert results.newest(catalog, exposure.id) == ExposureResults(motion(5.0), ctf(12_000.0), picks(3))
    assert set(steps.done(catalog, exposure.id)) == {"a1", "c1", "c2", "p1", "v1"}


def test_readings_are_the_sessions_points_oldest_first(catalog: Catalog, session: Session) -> None:
    """Each exposure is one point with its newest results; where there is none yet, None."""
    acquired_at = datetime(2026, 5, 1, 12, 30, 15, 250_000, tzinfo=UTC)
    full, bare, part = (expose(catalog, session, name) for name in ("full", "bare", "part"))
    run_step(catalog, expose(catalog, new_session(catalog, folder="x")), Step.CTF, ctf(1.0))
    exposures.attach_metadata(catalog, full.id, ExposureMetadata(acquired_at=acquired_at))
    run_step(catalog, full, Step.CTF, ctf(9_000.0), key="old")
    for step, result in ((Step.ALIGN, motion(7.0)), (Step.CTF, ctf(15_000.0)), (Step.PICK, picks(5))):
        run_step(catalog, full, step, result)
    run_step(catalog, part, Step.ALIGN, motion(3.0))
    first, second, third = results.readings(catalog, session.id)
    assert (first.exposure_id, first.name, first.found_at) == (full.id, "full", full.found_at)
    assert first.acquired_at == acquired_at
    assert (first.defocus_angstrom, first.fit_resolution_angstrom, first.trustworthy) == (14_900.0, 3.9, True)
    assert (first.total_motion_angstrom, first.picks) == (7.0, 5)
    assert (second.name, second.acquired_at, second.defocus_angstrom, second.trustworthy) == ("bare", None, None, None)
    assert (second.total_motion_angstrom, second.picks) == (None, None)
    assert (third.total_motion_angstrom, third.picks) == (3.0, None)
    assert [r.name for r in results.readings(catalog, session.id, limit=2)] == ["bare", "part"]
    assert bare.id == second.exposure_id


def test_events_are_read_newest_first_by_session_and_severity(catalog: Catalog, session: Session) -> None:
    """Of many events the newest that matter are given."""
    other = new_session(catalog, folder="other")
    made = [
        events.record(catalog, severity, "a.b", f"{number}", session_id=where)
        for number, (severity, where) in enumerate(
            [
                (Severity.ERROR, session.id),
                (Severity.INFO, session.id),
                (Severity.WARNING, other.id),
                (Severity.WARNING, session.id),
                (Severity.ERROR, None),
            ]
        )
    ]
    assert events.recent(catalog, minimum=Severity.WARNING) == [made[4], made[3], made[2], made[0]]
    assert events.recent(catalog, minimum=Severity.ERROR) == [made[4], made[0]]
    assert events.recent(catalog, session_id=session.id, minimum=Severity.WARNING) == [made[3], made[0]]
    assert events.recent(catalog, limit=2) == [made[4], made[3]]
    assert events.recent(catalog, session_id=new_id()) == []
