"""A session that changes is noticed within twenty exposures; one that does not change is left alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from coldchain.model.identity import new_id
from coldchain.model.quality import Alert, Change, Ending, Grade, Judged, Measures, Quantity, Verdict
from coldchain.preprocess.trend import HORIZON, WINDOW, examine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# As EPU goes through a list of defocus values, in Å of underfocus.
INTENDED = (8_000.0, 10_000.0, 12_000.0, 14_000.0, 16_000.0, 18_000.0, 20_000.0, 22_000.0)
CHANGED_AT = 70

Fault = Callable[[Measures], Measures]


def exposure(rng: random.Random, number: int) -> Measures:
    """An exposure of a steady session, with outliers as sessions have them."""
    intended = INTENDED[number % len(INTENDED)]
    is_trusted = rng.random() > 0.05
    is_odd = rng.random() < 0.03
    defocus = intended + rng.gauss(300, 250) + is_odd * rng.choice([-1, 1]) * 6_000
    return Measures(
        is_movie=True,
        motion_found=True,
        total_motion_angstrom=25 * rng.lognormvariate(0, 0.35) * (4 if is_odd else 1),
        ctf_trustworthy=is_trusted,
        defocus_angstrom=defocus if is_trusted else None,
        intended_defocus_angstrom=intended,
        astigmatism_angstrom=abs(rng.gauss(150, 60)) if is_trusted else None,
        # Far from focus, and in thicker ice, rings are lost earlier.
        fit_resolution_angstrom=3.2 * (1 + intended / 1e5) * rng.lognormvariate(0, 0.07) if is_trusted else None,
        gain_share=rng.gauss(0.97, 0.015),
        pattern_share=rng.gauss(0.002, 0.0007),
    )


class SessionUnderTest:
    """A session as the driver and its catalog keep it."""

    def __init__(self) -> None:
        self.judged: list[Judged] = []
        self.alerts: list[Alert] = []
        self.raised: list[tuple[int, Change]] = []
        self.ended: list[tuple[int, Ending]] = []

    def take(self, measures: Measures) -> None:
        """The next exposure."""
        self.judged.append(Judged(new_id(), None, Verdict(Grade.GOOD, (), measures), ""))
        raised, ended = examine(self.judged[-WINDOW:], self.alerts)
        self.raised += [(len(self.judged), change) for change in raised]
        self.ended += [(len(self.judged), ending) for ending in ended]
        for ending in ended:
            self.alerts = [
                replace(alert, ended_at=NOW, ended_by=ending.by, settled=ending.settled)
                if alert.id == ending.alert_id
                else alert
                for alert in self.alerts
            ]
        self.alerts += [Alert(new_id(), new_id(), change, NOW) for change in raised]


def run(seed: int, count: int, fault: Fault | None = None, *, until: int = 10**9) -> SessionUnderTest:
    """A session of so many exposures, with a fault from `CHANGED_AT` until another."""
    rng, session = random.Random(seed), SessionUnderTest()
    for number in range(count):
        measures = exposure(rng, number)
        session.take(fault(measures) if fault and CHANGED_AT <= number < until else measures)
    return session


def scaled(name: str, factor: float) -> Fault:
    """A fault that multiplies a value."""

    def fault(measures: Measures) -> Measures:
        value = getattr(measures, name)
        return replace(measures, **{name: None if value is None else value * factor})

    return fault


def moved(name: str, step: float) -> Fault:
    """A fault that adds to a value."""

    def fault(measures: Measures) -> Measures:
        value = getattr(measures, name)
        return replace(measures, **{name: None if value is None else value + step})

    return fault


def no_fit(measures: Measures) -> Measures:
    """The beam is gone: no fit is to be trusted."""
    return replace(measures, ctf_trustworthy=False, defocus_angstrom=None, fit_resolution_angstrom=None)


FAULTS: dict[str, tuple[Quantity, Fault]] = {
    "over-focused by 0.1 µm": (Quantity.FOCUS, moved("defocus_angstrom", -1_000.0)),
    "under-focused by 0.1 µm": (Quantity.FOCUS, moved("defocus_angstrom", 1_000.0)),
    "no fit": (Quantity.CTF, no_fit),
    "rings lost": (Quantity.RESOLUTION, scaled("fit_resolution_angstrom", 1.5)),
    "astigmatism": (Quantity.ASTIGMATISM, moved("astigmatism_angstrom", 400.0)),
    "motion": (Quantity.MOTION, scaled("total_motion_angstrom", 3.0)),
    "stale gain": (Quantity.GAIN, moved("gain_share", -0.15)),
    "fixed pattern": (Quantity.PATTERN, moved("pattern_share", 0.01)),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_an_alert_within_twenty_exposures(name: str, seed: int) -> None:
    """Each planted change is raised once, within twenty exposures, about what changed, and from where it changed."""
    quantity, fault = FAULTS[name]
    session = run(seed, CHANGED_AT + HORIZON, fault)
    assert [change.quantity for _, change in session.raised] == [quantity]
    number, change = session.raised[0]
    assert CHANGED_AT < number <= CHANGED_AT + 20
    order = [one.exposure_id for one in session.judged]
    assert abs(order.index(change.since) - CHANGED_AT) <= 3
    assert order.index(change.seen) == number - 1


@pytest.mark.parametrize("seed", range(2))
def test_a_steady_session_of_a_thousand_exposures_is_left_alone(seed: int) -> None:
    """At most one false alarm in a thousand exposures that go through a list of defocus values."""
    assert len(run(seed, 1000).raised) <= 1


def test_an_intended_defocus_that_nobody_tells_is_no_change_while_it_goes_through_its_list() -> None:
    """Without metadata the defocus itself is watched, and the list that it goes through is its usual spread."""
    assert run(3, 200, lambda measures: measures).raised == []
    session = SessionUnderTest()
    rng = random.Random(5)
    for number in range(300):
        session.take(replace(exposure(rng, number), intended_defocus_angstrom=None))
    assert session.raised == []


def test_an_alert_is_said_once_and_ends_when_it_is_over() -> None:
    """It stays open while the fault lasts, ends within twenty exposures of its end, and the next fault is a new one."""
    _, fault = FAULTS["fixed pattern"]
    session = run(1, CHANGED_AT + 80, fault, until=CHANGED_AT + 40)
    assert len(session.raised) == 1
    assert [(ending.settled, number <= CHANGED_AT + 60) for number, ending in session.ended] == [(False, True)]
    rng = random.Random(9)
    for number in range(20):
        session.take(fault(exposure(rng, number)))
    assert len(session.raised) == 2


def test_what_stays_changed_becomes_usual() -> None:
    """After a hundred exposures at another level the alert ends, is not raised again, and the way back is a change."""
    _, fault = FAULTS["stale gain"]
    session = run(2, CHANGED_AT + 240, fault)
    assert len(session.raised) == 1
    assert [ending.settled for _, ending in session.ended] == [True]
    rng = random.Random(4)
    for number in range(20):
        session.take(moved("gain_share", -0.4)(exposure(rng, number)))
    assert len(session.raised) == 2


def test_a_few_bad_exposures_are_no_change() -> None:
    """Three in a row that are far off, which happens on a bad square, raise nothing."""

    def bad(measures: Measures) -> Measures:
        return replace(no_fit(measures), total_motion_angstrom=400.0, pattern_share=0.5)

    assert run(6, CHANGED_AT + 30, bad, until=CHANGED_AT + 3).raised == []


def test_nothing_is_said_before_there_is_a_past() -> None:
    """Thirty exposures, whatever they are, are needed to know what is usual."""
    rng, session = random.Random(0), SessionUnderTest()
    for number in range(30):
        session.take(scaled("total_motion_angstrom", float(number))(exposure(rng, number)))
    assert session.raised == []


@examples(max_examples=25)
@given(
    values=st.lists(
        st.one_of(st.none(), st.floats(-1e300, 1e300), st.sampled_from([0.0, 1.0])), min_size=0, max_size=120
    ),
    picked=st.integers(0, 119),
)
def test_any_values_are_examined(values: list[float | None], picked: int) -> None:
    """No value breaks the watch, nor an alert whose exposures are not in the window."""
    judged = [
        Judged(new_id(), None, Verdict(Grade.GOOD, (), Measures(defocus_angstrom=v, fit_resolution_angstrom=v)), "")
        for v in values
    ]
    known: list[UUID] = [one.exposure_id for one in judged] or [new_id()]
    change = Change(Quantity.RESOLUTION, new_id(), known[picked % len(known)], 1.0, 0.1, 2.0, "")
    raised, ended = examine(judged, [Alert(new_id(), new_id(), change, NOW)])
    assert all(one.quantity is Quantity.FOCUS for one in raised)
    assert len(ended) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_a_focus_that_drifts_is_an_alert_before_it_matters(seed: int) -> None:
    """A drift of 10 nm an exposure is raised once, within twenty exposures, and is not over while it goes on."""
    rng, session = random.Random(seed), SessionUnderTest()
    for number in range(CHANGED_AT + 40):
        measures = exposure(rng, number)
        session.take(moved("defocus_angstrom", 100.0 * max(0, number - CHANGED_AT))(measures))
    assert [(change.quantity, number <= CHANGED_AT + 20) for number, change in session.raised] == [
        (Quantity.FOCUS, True)
    ]
    assert session.ended == []
