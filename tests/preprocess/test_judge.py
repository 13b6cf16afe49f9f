"""Judging with a real catalog and real pattern files: over restarts, in any order, and when something is gone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from coldchain.catalog import events, exposures, results, sessions, steps, verdicts
from coldchain.catalog.engine import Catalog, open_catalog, upgrade
from coldchain.formats.mrc import write_mrc
from coldchain.model.optics import ExposureMetadata
from coldchain.model.quality import Grade, Quantity, Thresholds
from coldchain.model.results import CtfResult, MotionResult, QualityResult, Step
from coldchain.model.session import Exposure, ExposureState, Layout, Session
from coldchain.preprocess.judge import Judge

FAULT = np.random.default_rng(77).normal(0, 1, (128, 128))
INTENDED = (-0.8, -1.2, -1.6, -2.0)


@dataclass
class Facility:
    """A catalog that can be opened again, and a session in it."""

    url: str
    root: Path
    catalog: Catalog
    session: Session
    taken: int = 0

    def restart(self) -> None:
        """The process ends and another begins: only the catalog and the results remain."""
        self.catalog.close()
        self.catalog = open_catalog(self.url, "here")

    def compute(self, *, fault: float = 0.0, defocus_error: float = 0.0, with_pattern: bool = True) -> Exposure:
        """An exposure whose steps are done; `fault` is the strength of a pattern that stands still."""
        rng = random.Random(self.taken)
        intended = INTENDED[self.taken % len(INTENDED)]
        exposure = exposures.ensure(self.catalog, self.session.id, f"m{self.taken:04}")
        told = ExposureMetadata(applied_defocus_micrometer=intended)
        exposures.attach_metadata(self.catalog, exposure.id, told)
        exposures.set_state(self.catalog, exposure.id, ExposureState.PROCESSING)
        outputs = {}
        if with_pattern:
            noise = np.random.default_rng(self.taken).normal(0, 1, FAULT.shape) + fault * FAULT
            outputs["pattern"] = f"m{self.taken:04}.mrc"
            pattern = np.clip(np.rint(24 * noise), -127, 127).astype(np.int8)
            write_mrc(self.root / outputs["pattern"], pattern, pixel_size_angstrom=1.0)
        defocus = -1e4 * intended + rng.gauss(0, 200) + defocus_error
        ctf = CtfResult(defocus + 80, defocus - 80, 10.0, 0.0, 0.3, 3.5 + rng.random() / 4, 1.0, 30.0, True, "")
        total = 20 + rng.gauss(0, 3)
        motion = MotionResult((0.0,), (0.0,), total, 5.0, total - 5, True, 0.3, "fits", 0.97 + rng.gauss(0, 0.005))
        found = {
            Step.ALIGN: motion,
            Step.CTF: ctf,
            Step.QUALITY: QualityResult(0.8 + rng.random() / 10, 0.02),
        }
        for step, result in found.items():
            run = steps.begin(self.catalog, exposure.id, step, f"{step}", {})
            left = outputs if step is Step.ALIGN else {}
            steps.finish(self.catalog, run.id, outputs=left, seconds=1.0, result=result)
        self.taken += 1
        return exposures.get(self.catalog, exposure.id)

    def recompute(self, exposure: Exposure, *, pixel_size_factor: float) -> None:
        """Its motion is found anew, of pixels that are so many times as large."""
        was = results.newest(self.catalog, exposure.id).motion
        assert was is not None
        run = steps.begin(self.catalog, exposure.id, Step.ALIGN, f"align {pixel_size_factor}", {})
        motion = replace(was, total_motion_angstrom=pixel_size_factor * was.total_motion_angstrom)
        steps.finish(self.catalog, run.id, outputs={}, seconds=1.0, result=motion)

    def judge(self, exposure: Exposure) -> bool:
        """Give its verdict, by a judge that remembers nothing."""
        exposures.set_state(self.catalog, exposure.id, ExposureState.PROCESSING)
        done = {run.step: run for run in steps.done(self.catalog, exposure.id).values()}
        return Judge(self.catalog, self.root, Thresholds()).settle(exposures.get(self.catalog, exposure.id), done)

    def said(self) -> list[str]:
        """The kinds of the events about alerts, oldest first."""
        kinds = [event.kind for event in events.recent(self.catalog, limit=5000)]
        return [kind for kind in reversed(kinds) if kind.startswith("alert.")]


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    """An empty session in a new catalog."""
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    upgrade(url)
    catalog = open_catalog(url, "here")
    session = sessions.create(
        catalog, name="v", instrument_name="k", source_root="/camera", folder="v", layout=Layout.PLAIN
    )
    made = Facility(url, tmp_path, catalog, session)
    yield made
    made.catalog.close()


def test_a_fixed_pattern_is_raised_within_twenty_exposures_over_restarts(facility: Facility) -> None:
    """Restarting again and again changes nothing: raised once, of the pattern, and ended once when it is gone."""
    for number in range(66):
        if number % 4 == 0:
            facility.restart()
        assert facility.judge(facility.compute(fault=0.2 if 34 <= number < 48 else 0.0))
        if number == 33:
            assert facility.said() == []
    alerts = verdicts.alerts(facility.catalog, facility.session.id)
    assert [alert.change.quantity for alert in alerts] == [Quantity.PATTERN]
    order = [one.exposure_id for one in verdicts.window(facility.catalog, facility.session.id, 100)]
    assert 34 <= order.index(alerts[0].change.since) <= order.index(alerts[0].change.seen) < 48
    assert alerts[0].ended_at is not None
    assert facility.said() == ["alert.raised", "alert.ended"]


def test_a_backlog_that_is_computed_backwards_finds_the_same(facility: Facility) -> None:
    """The newest exposures are computed first; the change begins among those that are changed, and is said once."""
    made = [facility.compute(defocus_error=2_000.0 if number >= 38 else 0.0) for number in range(46)]
    for exposure in reversed(made):
        facility.judge(exposure)
    (alert,) = verdicts.alerts(facility.catalog, facility.session.id)
    assert alert.change.quantity is Quantity.FOCUS
    assert alert.change.since in [exposure.id for exposure in made[38:]]


def test_judging_again_changes_nothing(facility: Facility) -> None:
    """Verdicts that stand are not written again, and no alert is said twice."""
    made = [facility.compute(defocus_error=2_000.0 if number >= 33 else 0.0) for number in range(40)]
    for exposure in made:
        facility.judge(exposure)
    before = verdicts.window(facility.catalog, facility.session.id, 100)
    for exposure in made[34:]:
        facility.judge(exposure)
    after = verdicts.window(facility.catalog, facility.session.id, 100)
    assert [one.exposure_id for one in after] == [one.exposure_id for one in before]
    assert facility.said() == ["alert.raised"]


def test_a_session_that_is_computed_again_with_another_pixel_size_has_not_changed(facility: Facility) -> None:
    """While some exposures have their new numbers and some their old ones, the difference is no change."""
    made = [facility.compute(with_pattern=False) for _ in range(38)]
    for exposure in made:
        facility.judge(exposure)
    for exposure in reversed(made):
        facility.recompute(exposure, pixel_size_factor=2.0)
        facility.judge(exposure)
    assert facility.said() == []


def test_an_alert_that_new_results_take_back_is_over(facility: Facility) -> None:
    """A change that came from a wrong pixel size ends when the exposures are computed again with the right one."""
    made = [facility.compute(with_pattern=False) for _ in range(40)]
    for number, exposure in enumerate(made):
        if number >= 34:
            facility.recompute(exposure, pixel_size_factor=3.0)
        facility.judge(exposure)
    assert facility.said() == ["alert.raised"]
    for exposure in reversed(made[34:]):
        facility.recompute(exposure, pixel_size_factor=1 / 3)
        facility.judge(exposure)
    assert facility.said() == ["alert.raised", "alert.ended"]


def test_patterns_that_are_gone_say_nothing(facility: Facility) -> None:
    """Results that were cleared away, or hold something else, leave the share unknown and the verdict standing."""
    made = [facility.compute() for _ in range(8)]
    for exposure in made:
        facility.judge(exposure)
    for number in range(5):
        (facility.root / f"m{number:04}.mrc").write_bytes(b"" if number % 2 else b"not an MRC" * 200)
    facility.judge(last := facility.compute())
    found = verdicts.newest(facility.catalog, last.id)
    assert found is not None
    assert (found.grade, found.measures.pattern_share) == (Grade.GOOD, None)
    facility.judge(without := facility.compute(with_pattern=False))
    assert (verdicts.newest(facility.catalog, without.id) or found).measures.pattern_share is None


def test_ice_is_judged_against_the_session(facility: Facility) -> None:
    """The first exposures have no thickness; later ones have that beyond the brightest."""
    found = []
    for _ in range(12):
        exposure = facility.compute()
        facility.judge(exposure)
        verdict = verdicts.newest(facility.catalog, exposure.id)
        assert verdict is not None
        found.append(verdict.measures.ice_thickness)
    assert found[:10] == [None] * 10
    assert all(thickness is not None and 0 <= thickness < 0.2 for thickness in found[10:])
