"""RELION's lists hold what it can read, each micrograph once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coldchain.formats import star
from coldchain.formats.mrc import write_mrc
from coldchain.model.optics import Optics
from coldchain.model.results import CtfResult
from coldchain.preprocess.fitted_list import FittedList
from coldchain.preprocess.imaging import Imaging, ImagingFinder
from coldchain.preprocess.relion_names import can_be_listed, can_be_read

RESULT = CtfResult(15000.0, 14200.0, 35.0, 0.0, 20.0, 4.0, 1.0, 10.0, trustworthy=True, reason="")
IMAGING = Imaging(
    pixel_size_angstrom=1.2, voltage_kilovolt=300.0, spherical_aberration_millimeter=2.7, amplitude_contrast=0.1
)


def fitted_list(folder: Path) -> FittedList:
    """An empty list."""
    return FittedList(folder, ImagingFinder(Optics(voltage_kilovolt=300.0), needs_voltage=True), has_phase_shift=False)


def add(fits: FittedList, path: Path) -> tuple[str, ...]:
    """Add a fit; why it was left out, or nothing."""
    return fits.add(path, RESULT, IMAGING, {"spectrum": path.with_name(f"{path.stem}_ctf.mrc")})


def test_a_micrograph_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever leads to it: its spectrum, its other sum, another way to write its folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    for name in ("a.mrc", "a_noDW.mrc", "a_PS.mrc", "b.mrc"):
        write_mrc(tmp_path / "x" / name, np.zeros((4, 4), np.float32), pixel_size_angstrom=1.2)
    fits = fitted_list(tmp_path)
    assert add(fits, Path("x/a_noDW.mrc")) == ()
    for name in ("x/a.mrc", "x/../x/a_noDW.mrc", str(tmp_path / "x" / "a_PS.mrc")):
        assert "another fit of this call" in str(add(fits, Path(name)))
    assert add(fits, Path("x/b.mrc")) == ()
    fits.write()
    columns = star.table(star.read_star(fits.path), "micrographs", fits.path).columns
    assert list(columns["rlnMicrographName"]) == ["x/a.mrc", "x/b.mrc"]
    assert list(columns["rlnOpticsGroup"]) == ["1", "1"]


def test_what_relion_cannot_read_is_not_listed(tmp_path: Path) -> None:
    """It would stop at the first such file, and go on with none."""
    fits = fitted_list(tmp_path)
    for name in ("a.png", "a.jpg", "a.map", "a:b.mrc", "a#b.mrc", "50%.mrc", "two  spaces.mrc", "new\nline.mrc"):
        assert "RELION cannot read" in str(add(fits, tmp_path / name))
    for name in ("a.mrc", "b.MRC", "c.tif", "d.TIFF", "é b@c's[1].mrc"):
        assert add(fits, tmp_path / name) == ()


def test_names_count_from_where_relion_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands before that folder is in no list."""
    here = tmp_path / "50% #1: here"
    here.mkdir()
    assert not can_be_listed(here / "a_picks.star")
    monkeypatch.chdir(here)
    assert can_be_listed(here / "a_picks.star")
    assert can_be_read(here / "a.mrc")
    assert not can_be_read(here / "a_picks.star")
