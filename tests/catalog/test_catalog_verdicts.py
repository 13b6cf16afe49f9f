"""Verdicts and alerts in the catalog: written with the end of their exposure, once, and read by a bounded window."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import update

from coldchain.catalog import engine, events, exposures, results, steps, verdicts
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import VerdictRow
from coldchain.model.events import Severity
from coldchain.model.quality import Change, Ending, Grade, Judged, Measures, Quantity, Reason, Verdict
from coldchain.model.results import ExposureResults, QualityResult, Step
from coldchain.model.session import Exposure, ExposureState, Session
from tests.catalog.catalog_givens import ctf, expose, motion, new_session, picks, run_step

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
DOUBT = Reason(Quantity.MOTION, Grade.DOUBTFUL, "The specimen moved by 80 Å (doubtful beyond 60 Å).")


def judged(exposure: Exposure, grade: Grade = Grade.GOOD, **changes: object) -> Judged:
    """An exposure's verdict."""
    reasons = () if grade is Grade.GOOD else (replace(DOUBT, grade=grade),)
    return replace(
        Judged(exposure.id, None, Verdict(grade, reasons, Measures(True, ice_thickness=0.1, picks=3)), "a/pattern.mrc"),
        **changes,  # type: ignore[arg-type]  # fields by name
    )


def settle(catalog: Catalog, exposure: Exposure, one: Judged, **changes: object) -> bool:
    """Take an exposure and end it."""
    exposures.set_state(catalog, exposure.id, ExposureState.PROCESSING)
    return verdicts.settle(catalog, one, **changes)  # type: ignore[arg-type]  # by name


def test_a_verdict_ends_its_exposure_and_is_read_back(catalog: Catalog, session: Session) -> None:
    """The exposure is done, its verdict stands as it was given, and a doubt is an event."""
    exposure = expose(catalog, session)
    one = judged(exposure, Grade.DOUBTFUL, acquired_at=BEGAN)
    assert settle(catalog, exposure, one)
    assert exposures.get(catalog, exposure.id).state is ExposureState.DONE
    assert verdicts.newest(catalog, exposure.id) == one.verdict
    assert verdicts.window(catalog, session.id, 10) == [one]
    assert verdicts.counts(catalog, session.id) == {Grade.DOUBTFUL: 1}
    assert any(DOUBT.words in event.message for event in events.recent(catalog) if event.kind == "verdict.doubtful")


def test_what_changed_meanwhile_is_judged_anew(catalog: Catalog, session: Session) -> None:
    """An exposure that is READY again keeps its state, and nothing is written."""
    exposure = expose(catalog, session)
    change = Change(Quantity.GAIN, exposure.id, exposure.id, 1.0, 0.1, 0.5, "stale")
    assert not verdicts.settle(catalog, judged(exposure), raised=[change])
    assert exposures.get(catalog, exposure.id).state is ExposureState.READY
    assert verdicts.window(catalog, session.id, 10) == []
    assert verdicts.alerts(catalog, session.id) == []


def test_only_the_newest_verdict_stands(catalog: Catalog, session: Session) -> None:
    """A second one takes the first one's place, the same again is not written, and the first is kept."""
    exposure = expose(catalog, session)
    for grade in (Grade.GOOD, Grade.BAD, Grade.BAD):
        assert settle(catalog, exposure, judged(exposure, grade))
    assert [one.verdict.grade for one in verdicts.window(catalog, session.id, 10)] == [Grade.BAD]
    assert verdicts.counts(catalog, session.id) == {Grade.BAD: 1}
    assert len([event for event in events.recent(catalog) if event.kind == "verdict.bad"]) == 1


def test_an_exposure_that_is_not_done_has_no_verdict(catalog: Catalog, session: Session) -> None:
    """What was thought of other results does not count while new ones are made."""
    exposure = expose(catalog, session)
    settle(catalog, exposure, judged(exposure))
    exposures.set_state(catalog, exposure.id, ExposureState.QUARANTINED, "torn")
    assert verdicts.newest(catalog, exposure.id) is None
    assert verdicts.counts(catalog, session.id) == {}
    assert results.readings(catalog, session.id)[0].grade is None


def test_the_window_is_the_newest_in_the_order_of_their_taking(catalog: Catalog, session: Session) -> None:
    """By the microscope's clock where it told of all, else as they were found; no more than asked for."""
    made = [expose(catalog, session, f"m{number}") for number in range(5)]
    for number, exposure in enumerate(made):
        settle(catalog, exposure, judged(exposure, acquired_at=BEGAN - timedelta(minutes=number)))
    assert [one.exposure_id for one in verdicts.window(catalog, session.id, 3)] == [e.id for e in reversed(made[2:])]
    settle(catalog, made[4], judged(made[4], Grade.BAD))
    assert [one.exposure_id for one in verdicts.window(catalog, session.id, 3)] == [e.id for e in made[2:]]


def test_an_alert_is_an_event_when_it_is_raised_and_when_it_ends(catalog: Catalog, session: Session) -> None:
    """A warning, then a note; ending it twice changes nothing; another session knows nothing of it."""
    exposure = expose(catalog, session)
    change = Change(Quantity.PATTERN, exposure.id, exposure.id, 0.001, 0.001, 0.02, "The camera has a pattern.")
    settle(catalog, exposure, judged(exposure), raised=[change])
    (alert,) = verdicts.alerts(catalog, session.id)
    assert (alert.change, alert.ended_at) == (change, None)
    for _ in range(2):
        settle(catalog, exposure, judged(exposure), ended=[Ending(alert.id, exposure.id, "It is gone.", settled=True)])
    (alert,) = verdicts.alerts(catalog, session.id)
    assert (alert.ended_by, alert.ending, alert.settled) == (exposure.id, "It is gone.", True)
    said = [(e.severity, e.kind, e.message) for e in events.recent(catalog) if e.kind.startswith("alert.")]
    assert said == [
        (Severity.INFO, "alert.ended", "It is gone."),
        (Severity.WARNING, "alert.raised", "The camera has a pattern."),
    ]
    assert verdicts.alerts(catalog, new_session(catalog, name="other", folder="other").id) == []


def test_what_alignment_picking_and_brightness_say_besides_is_kept(catalog: Catalog, session: Session) -> None:
    """Errors (infinite too), gain, contamination and brightness come back; adopted runs keep them."""
    exposure = expose(catalog, session)
    found = ExposureResults(
        motion=replace(motion(), error_angstrom=math.inf, gain_verdict="fits", gain_share=0.93),
        ctf=ctf(),
        picks=replace(picks(), contamination_fraction=0.07),
        quality=QualityResult(0.8, None),
    )
    run_step(catalog, exposure, Step.ALIGN, found.motion)
    run_step(catalog, exposure, Step.CTF, found.ctf)
    run_step(catalog, exposure, Step.PICK, found.picks)
    run = run_step(catalog, exposure, Step.QUALITY, found.quality)
    assert results.newest(catalog, exposure.id) == found
    steps.adopt(catalog, run.id)
    assert results.newest(catalog, exposure.id) == found


def test_results_of_an_older_version_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalog of the first revision is upgraded with its rows, which say nothing of what is new."""
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    whole = command.upgrade
    with monkeypatch.context() as patched:
        patched.setattr(command, "upgrade", lambda config, _: whole(config, "0001"))
        engine.upgrade(url)
    ids = {name: f"{number:032x}" for number, name in enumerate(("i", "s", "e", "r", "m"), start=1)}
    with sqlite3.connect(tmp_path / "old.sqlite") as raw:
        raw.execute(
            "INSERT INTO instruments (name, created_at, id, site) VALUES ('k', '2026-01-01', ?, 'x')", [ids["i"]]
        )
        raw.execute(
            "INSERT INTO sessions VALUES ('v', NULL, ?, x'2f', x'76', x'00', 'plain', '', '', 'open', '{}', "
            "'2026-01-01 00:00:00.000000', ?, 'x')",
            [ids["i"], ids["s"]],
        )
        raw.execute(
            "INSERT INTO exposures VALUES (?, x'6d', x'00', NULL, NULL, '{}', NULL, 'done', '', "
            "'2026-01-01 00:00:00.000000', ?, 'x')",
            [ids["s"], ids["e"]],
        )
        raw.execute(
            "INSERT INTO step_runs VALUES (?, 'align', 'k', '{}', 'done', '{}', 1.0, '', "
            "'2026-01-01 00:00:00.000000', NULL, ?, 'x')",
            [ids["e"], ids["r"]],
        )
        raw.execute(
            "INSERT INTO motion_results VALUES (?, '[0.0]', '[0.0]', 7.0, 3.0, 4.0, 1, ?, 'x')", [ids["r"], ids["m"]]
        )
    engine.upgrade(url)
    opened = engine.open_catalog(url, "x")
    (reading,) = results.readings(opened, UUID(ids["s"]))
    found = results.newest(opened, reading.exposure_id).motion
    assert found is not None
    assert (found.total_motion_angstrom, found.is_found) == (7.0, True)
    assert (found.error_angstrom, found.gain_verdict, found.gain_share) == (None, None, None)
    assert reading.total_motion_angstrom == 7.0
    opened.close()


def test_the_verdict_that_stands_is_shown_though_a_clock_went_back(catalog: Catalog, session: Session) -> None:
    """Keys are made of the time; one that was given after the clock was set back still takes the first's place."""
    exposure = expose(catalog, session)
    settle(catalog, exposure, judged(exposure, Grade.BAD))
    settle(catalog, exposure, judged(exposure, Grade.GOOD))
    with catalog.writing() as unit:
        unit.execute(update(VerdictRow).where(VerdictRow.stands.is_(True)).values(id=UUID(int=1)))
    found = verdicts.newest(catalog, exposure.id)
    assert found is not None
    assert found.grade is Grade.GOOD
    assert results.readings(catalog, session.id)[0].grade is Grade.GOOD
