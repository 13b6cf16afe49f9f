"""Deciding what to compute: steps follow each other, nothing is done twice, a change recomputes only what it must."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.errors import BrokenWorkerError, ComputeError, FormatError, NoWorkerError, StorageError, StoreFullError
from coldchain.model.files import FileKind
from coldchain.model.identity import new_id
from coldchain.model.optics import Optics
from coldchain.model.results import Step, StepRun, StepState
from coldchain.model.session import ExposureState
from coldchain.preprocess import room
from coldchain.preprocess.failure import Pause, after_failure
from coldchain.preprocess.plan import ExposureInput, PipelineParameters, StepPlan, missing_values, next_step

OPTICS = Optics(
    pixel_size_angstrom=0.83,
    voltage_kilovolt=300.0,
    spherical_aberration_millimeter=2.7,
    amplitude_contrast=0.1,
    dose_e_per_square_angstrom=50.0,
)
MOVIE = ExposureInput(FileKind.MOVIE, "a" * 64, OPTICS, None, None, None, 0)


def done_run(plan: StepPlan) -> StepRun:
    """The plan, carried out."""
    now = datetime.now(UTC)
    return StepRun(new_id(), new_id(), plan.step, plan.key, plan.parameters, StepState.DONE, {}, 1.0, "", now, now)


def run_through(given_input: ExposureInput, done: dict[str, StepRun]) -> list[Step]:
    """The steps that are run until nothing is left to do."""
    ran = []
    while (plan := next_step(given_input, PipelineParameters(), done)) is not None:
        assert plan.key not in done
        done[plan.key] = done_run(plan)
        ran.append(plan.step)
        assert len(ran) <= 10
    return ran


def test_a_movie_takes_all_steps_and_an_image_all_but_the_first() -> None:
    """A single image goes straight to CTF."""
    assert run_through(MOVIE, {}) == list(Step)
    assert run_through(replace(MOVIE, kind=FileKind.MICROGRAPH), {}) == list(Step)[1:]


def test_what_is_done_is_not_done_again() -> None:
    """A second look at a finished exposure finds nothing to do."""
    done: dict[str, StepRun] = {}
    run_through(MOVIE, done)
    assert run_through(MOVIE, done) == []


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"particle_diameter_angstrom": 150.0}, [Step.PICK]),
        ({"optics": replace(OPTICS, spherical_aberration_millimeter=0.0)}, [Step.CTF, Step.PREVIEW]),
        ({"optics": replace(OPTICS, dose_e_per_square_angstrom=40.0)}, list(Step)),
        ({"optics": replace(OPTICS, pixel_size_angstrom=0.9)}, list(Step)),
        ({"gain_sha256": "b" * 64}, list(Step)),
        ({"sha256": "c" * 64}, list(Step)),
        ({"generation": 1}, list(Step)),
        ({"optics": replace(OPTICS, gain="elsewhere/same.mrc")}, []),
    ],
)
def test_a_change_recomputes_what_depends_on_it_and_no_more(change: dict[str, object], again: list[Step]) -> None:
    """Each parameter reaches the steps that read it, by value or through a step before them."""
    done: dict[str, StepRun] = {}
    run_through(MOVIE, done)
    assert run_through(replace(MOVIE, **change), done) == again  # type: ignore[arg-type]  # fields by name


@given(st.lists(st.sampled_from([0.5, 0.83, 1.06]), min_size=1, max_size=6))
def test_going_back_to_old_parameters_computes_nothing(pixel_sizes: list[float]) -> None:
    """Old results count again as soon as their parameters do."""
    done: dict[str, StepRun] = {}
    for size in pixel_sizes:
        run_through(replace(MOVIE, optics=replace(OPTICS, pixel_size_angstrom=size)), done)
    for size in pixel_sizes:
        assert run_through(replace(MOVIE, optics=replace(OPTICS, pixel_size_angstrom=size)), done) == []


def test_what_is_missing_is_named() -> None:
    """A movie needs its dose, an image does not; a spherical aberration of 0 is a value."""
    bare = Optics(spherical_aberration_millimeter=0.0, amplitude_contrast=0.1, voltage_kilovolt=300)
    assert missing_values(FileKind.MOVIE, bare) == ["pixel size", "dose"]
    assert missing_values(FileKind.MICROGRAPH, bare) == ["pixel size"]
    assert missing_values(FileKind.MOVIE, OPTICS) == []


def test_a_failure_is_judged_by_its_kind() -> None:
    """A broken file is quarantined at once, a dead worker tried again, a full disk and a broken installation
    waited for, a fault reported."""
    assert after_failure(FormatError("corrupt"), 1, 3).state is ExposureState.QUARANTINED
    assert after_failure(ComputeError("died"), 1, 3).state is ExposureState.READY
    assert after_failure(ComputeError("died"), 3, 3).state is ExposureState.QUARANTINED
    full = after_failure(StoreFullError("full"), 99, 3)
    assert (full.state, full.pause, full.counts) == (ExposureState.READY, Pause.FULL, False)
    broken = after_failure(BrokenWorkerError("no compiler"), 99, 3)
    assert (broken.state, broken.pause, broken.counts) == (ExposureState.READY, Pause.BROKEN, False)
    unstarted = after_failure(NoWorkerError("no process"), 99, 3)
    assert (unstarted.state, unstarted.pause, unstarted.counts) == (ExposureState.READY, Pause.OUTAGE, False)
    assert "report" in after_failure(ZeroDivisionError("oops"), 1, 3).reason


def test_an_outage_is_waited_out_before_anything_is_quarantined() -> None:
    """A disk that does not answer holds new work back; only what fails again and again is quarantined."""
    away = after_failure(StorageError("away"), 1, 3)
    assert (away.state, away.pause) == (ExposureState.READY, Pause.OUTAGE)
    assert after_failure(StorageError("away"), 3, 3).state is ExposureState.QUARANTINED


def test_a_full_disk_is_tried_again_when_it_has_more_room() -> None:
    """Work goes on when more is free than when the disk was full, or after a long while; an outage passes by time."""
    hold = room.hold_for_room(100.0, free_bytes=1000)
    assert not room.is_over(hold, 101.0, 1000)
    assert room.is_over(hold, 101.0, 1001)
    assert room.is_over(hold, 100.0 + room.FULL_SECONDS, 0)
    outage = room.hold_for_outage(100.0)
    assert not room.is_over(outage, 101.0, 10**12)
    assert room.is_over(outage, 100.0 + room.OUTAGE_SECONDS, 0)
