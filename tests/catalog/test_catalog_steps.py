"""Steps are journalled before they run, end once, and the newest result counts."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from coldchain.catalog import engine, events, exposures, results, steps
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError
from coldchain.model.events import Severity
from coldchain.model.identity import new_id
from coldchain.model.optics import ExposureMetadata, Optics
from coldchain.model.results import ExposureResults, Step, StepRun, StepState
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


def _begun(catalog: Catalog, session: Session, name: str = "a/movie") -> StepRun:
    """A step runs on an exposure that was claimed."""
    exposure = exposures.claim(catalog, expose(catalog, session, name).id)
    assert exposure is not None
    return steps.begin(catalog, exposure.id, Step.CTF, "k", {})


def _change_optics(catalog: Catalog, exposure_id: UUID) -> None:
    optics = Optics(voltage_kilovolt=200.0)
    exposures.attach_metadata(catalog, exposure_id, ExposureMetadata(optics=optics))


def test_a_run_ends_once(catalog: Catalog, session: Session) -> None:
    """Whoever is not sure whether an end was written says it again: nothing changes, and nothing is written twice."""
    run = _begun(catalog, session)
    ended = steps.finish(
        catalog, run.id, outputs={"a": "b"}, seconds=2.0, result=ctf(), settle_to=ExposureState.DONE, warnings=["odd"]
    )
    exposures.set_state(catalog, run.exposure_id, ExposureState.PROCESSING)
    noted = events.recent(catalog)
    again = steps.finish(
        catalog, run.id, outputs={}, seconds=1.0, result=ctf(1.0), settle_to=ExposureState.DONE, warnings=["odd"]
    )
    quarantined = ExposureState.QUARANTINED
    failed = steps.fail(catalog, run.id, detail="", seconds=1.0, settle_to=quarantined, reason="r", warnings=["w"])
    assert again == failed == ended == steps.runs_of(catalog, run.exposure_id)[0]
    assert results.newest(catalog, run.exposure_id).ctf == ctf()
    assert exposures.get(catalog, run.exposure_id).state is ExposureState.PROCESSING
    assert events.recent(catalog) == noted


def test_the_end_of_a_step_is_one_transaction(
    catalog: Catalog, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run, result, exposure and warnings are written together, or none of them."""
    run = _begun(catalog, session)
    before = (steps.runs_of(catalog, run.exposure_id), exposures.get(catalog, run.exposure_id), events.recent(catalog))

    def torn(*_: object, **__: object) -> None:
        raise CatalogError("the power failed")

    for ending in (
        lambda: steps.finish(catalog, run.id, outputs={}, seconds=1.0, result=ctf(), settle_to=ExposureState.DONE),
        lambda: steps.fail(catalog, run.id, detail="x", seconds=1.0, settle_to=ExposureState.READY),
    ):
        with monkeypatch.context() as patch, pytest.raises(CatalogError, match="power"):
            patch.setattr(exposures, "move", torn)
            ending()
        assert before == (
            steps.runs_of(catalog, run.exposure_id),
            exposures.get(catalog, run.exposure_id),
            events.recent(catalog),
        )
        assert results.newest(catalog, run.exposure_id) == ExposureResults()


def test_an_end_settles_its_exposure_and_says_its_warnings(catalog: Catalog, session: Session) -> None:
    """The exposure is where the end puts it, and each warning is an event with the exposure's name, made printable."""
    run = _begun(catalog, session, "a\nb")
    steps.finish(
        catalog, run.id, outputs={}, seconds=1.0, result=None, settle_to=ExposureState.DONE, warnings=["odd", "even"]
    )
    assert exposures.get(catalog, run.exposure_id).state is ExposureState.DONE
    warned = events.recent(catalog, minimum=Severity.WARNING)
    assert [(event.kind, event.message) for event in warned] == [
        ("ctf.warning", "a\\nb: even"),
        ("ctf.warning", "a\\nb: odd"),
    ]
    failing = _begun(catalog, session, "c")
    steps.fail(
        catalog, failing.id, detail="d", seconds=1.0, settle_to=ExposureState.QUARANTINED, reason="r", warnings=["w"]
    )
    found = exposures.get(catalog, failing.exposure_id)
    assert (found.state, found.reason) == (ExposureState.QUARANTINED, "r")
    assert {"ctf.warning", "step.failed", "exposure.quarantined"} <= {e.kind for e in events.recent(catalog)}


def test_a_step_that_is_followed_by_another_leaves_its_exposure_in_work(catalog: Catalog, session: Session) -> None:
    """Without a state to settle to, the exposure stays PROCESSING."""
    run = _begun(catalog, session)
    steps.finish(catalog, run.id, outputs={}, seconds=1.0, result=None)
    assert exposures.get(catalog, run.exposure_id).state is ExposureState.PROCESSING


def test_an_end_does_not_hide_a_change_made_meanwhile(catalog: Catalog, session: Session) -> None:
    """Optics that come while a step runs have its exposure processed again, however the step ends."""
    done, failed = _begun(catalog, session, "a"), _begun(catalog, session, "b")
    _change_optics(catalog, done.exposure_id)
    _change_optics(catalog, failed.exposure_id)
    steps.finish(catalog, done.id, outputs={}, seconds=1.0, result=None, settle_to=ExposureState.DONE)
    steps.fail(catalog, failed.id, detail="d", seconds=1.0, settle_to=ExposureState.QUARANTINED, reason="r")
    assert exposures.get(catalog, done.exposure_id).state is ExposureState.READY
    assert exposures.get(catalog, failed.exposure_id).state is ExposureState.READY


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
    (interrupted,) = steps.interrupt_running(catalog)
    assert interrupted.state is StepState.INTERRUPTED
    assert steps.runs_of(catalog, left.id) == [interrupted]
    assert exposures.get(catalog, left.id).state is ExposureState.READY
    assert steps.runs_of(catalog, done.id) == [finished]
    assert exposures.get(catalog, done.id).state is ExposureState.DONE
    assert steps.runs_of(there, theirs.exposure_id)[0].state is StepState.RUNNING
    assert steps.interrupt_running(catalog) == []
    assert steps.finish(catalog, run.id, outputs={}, seconds=1.0, result=None) == interrupted
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


def test_the_newest_run_counts_though_the_clock_went_back(
    catalog: Catalog, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are made of the time; a run that is begun, or counts again, after the clock was set back is the newest."""
    exposure = expose(catalog, session)
    first = run_step(catalog, exposure, Step.CTF, ctf(1_000.0), key="first")
    monkeypatch.setattr(steps, "new_id", lambda: UUID(int=1))
    run_step(catalog, exposure, Step.CTF, ctf(2_000.0), key="second")
    newest = results.newest(catalog, exposure.id)
    assert newest.ctf is not None and newest.ctf.defocus_u_angstrom == 2_000.0
    steps.adopt(catalog, first.id)
    newest = results.newest(catalog, exposure.id)
    assert newest.ctf is not None and newest.ctf.defocus_u_angstrom == 1_000.0


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


def test_an_earlier_run_can_count_again_with_its_result(catalog: Catalog, session: Session) -> None:
    """Going back to earlier values: the earlier result is the newest again, and nothing of either is lost."""
    exposure = expose(catalog, session)
    for step, first, second in (
        (Step.CTF, ctf(), ctf()),
        (Step.ALIGN, motion(), motion()),
        (Step.PICK, picks(), picks()),
    ):
        early = steps.begin(catalog, exposure.id, step, f"{step}-early", {"a": 1})
        steps.finish(catalog, early.id, outputs={"x": "early"}, seconds=1.0, result=first)
        late = steps.begin(catalog, exposure.id, step, f"{step}-late", {"a": 2})
        steps.finish(catalog, late.id, outputs={"x": "late"}, seconds=1.0, result=second)
        again = steps.adopt(catalog, early.id)
        assert (again.key, again.outputs, again.parameters) == (early.key, {"x": "early"}, {"a": 1})
        assert [run.id for run in steps.runs_of(catalog, exposure.id) if run.step is step] == [
            early.id,
            late.id,
            again.id,
        ]
    found = results.newest(catalog, exposure.id)
    assert (found.ctf, found.motion, found.picks) == (ctf(), motion(), picks())
