"""Simulated EPU sessions as microscopes leave them: several discs, suffixes in any case, two sessions in a visit."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coldchain.catalog import exposures, files, sessions
from coldchain.catalog.engine import Catalog
from coldchain.collect.completeness import Examination, Verdict
from coldchain.collect.intake import Intake
from coldchain.model.files import FileKind, FileState
from coldchain.model.policy import everywhere
from coldchain.model.session import ExposureState, Layout
from coldchain.simulate.session import SessionPlan, simulate_session
from coldchain.simulate.specimen import generate_specimen
from coldchain.simulate.truth import MovieParameters, SessionTruth

MOVIE = MovieParameters(frames=2, height=64, width=64, pixel_size_angstrom=4.0, particles=1)
PLAN = SessionPlan(exposures=4, exposures_per_hole=1, movie=MOVIE, started_at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))


def with_two_discs(root: Path, truth: SessionTruth) -> set[str]:
    """Move the second grid square to another disc, as EPU does when one is full; the exposures' names then."""
    second = max(exposure.grid_square or "" for exposure in truth.exposures)
    (root / "Images-Disc3").mkdir()
    (root / f"Images-Disc1/GridSquare_{second}").rename(root / f"Images-Disc3/GridSquare_{second}")
    return {
        exposure.name.replace("Images-Disc1", "Images-Disc3") if exposure.grid_square == second else exposure.name
        for exposure in truth.exposures
    }


def in_upper_case(root: Path) -> None:
    """Give the files of exposures other suffixes: `_Fractions.MRC`, `.XML`, `.JPG`."""
    for path in root.rglob("*/Data/*.*"):
        path.rename(path.with_name(path.stem.replace("_Fractions", "_FRACTIONS") + path.suffix.upper()))


@pytest.mark.parametrize("seed", [1, 2])
def test_two_sessions_of_a_visit_are_recovered_in_any_order(catalog: Catalog, root: Path, seed: int) -> None:
    """Each exposure once, in its session, with its square and hole; also with a restart on the way."""
    specimen = generate_specimen(seed=1, diameter_angstrom=60)
    names: dict[str, set[str]] = {}
    planted: dict[str, dict[str, tuple[str | None, str | None]]] = {}
    for number, (session, container) in enumerate({"morning": "tiff", "evening": "mrc"}.items()):
        plan = replace(PLAN, seed=number + 1, container=container)
        truth = simulate_session(plan, root / "visit" / session, specimen=specimen, truth_path=root.parent / session)
        names[f"visit/{session}"] = with_two_discs(root / "visit" / session, truth)
        in_upper_case(root / "visit" / session)
        its = {
            exposure.name.rpartition("/")[2]: (exposure.grid_square, exposure.foil_hole) for exposure in truth.exposures
        }
        planted[f"visit/{session}"] = its
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    random.Random(seed).shuffle(paths)
    for number, path in enumerate(paths):
        if number in (0, len(paths) // 2):
            intake = Intake(catalog, instrument_name="krios", source_root=root, copies=everywhere(()))
            intake.resume()
        status = path.lstat()
        taken = intake.take(Examination(str(path.relative_to(root)), (status.st_size, status.st_mtime_ns), False))
        assert taken is Verdict.TAKEN
    found = {session.folder: session for session in sessions.list_all(catalog)}
    assert set(found) == set(names)
    for folder, session in found.items():
        assert session.layout is Layout.EPU
        its_exposures = exposures.page(catalog, session.id, limit=99, before=None)
        assert {exposure.name for exposure in its_exposures} == names[folder]
        for exposure in its_exposures:
            assert (exposure.grid_square, exposure.foil_hole) == planted[folder][exposure.name.rpartition("/")[2]]
            assert exposure.state is ExposureState.READY
            assert exposure.metadata.optics.voltage_kilovolt == 300
            assert exposure.metadata.optics.pixel_size_angstrom == pytest.approx(4.0)
            kinds = {file.kind for file in files.of_exposure(catalog, exposure.id)}
            assert {FileKind.MOVIE, FileKind.METADATA} <= kinds
        arrived = files.of_session(catalog, session.id, limit=999)
        assert {file.state for file in arrived} == {FileState.ARRIVED}
        assert len(arrived) == sum(path.is_relative_to(root / folder) for path in paths)
