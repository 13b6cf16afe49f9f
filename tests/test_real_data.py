"""Real files through the real service: an EPU session's tree, a real micrograph, real sums of apoferritin."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import httpx
import pytest

from coldchain.catalog import exposures, results, sessions
from coldchain.catalog.engine import Catalog
from coldchain.model.session import Exposure, ExposureState
from tests.facility import TestFacility, all_exposures, make_facility

pytestmark = pytest.mark.real_data

# What the instrument of these files does not say of itself.
OPTICS = "spherical_aberration_millimeter = 2.7"


def lay_out(real_data: Path, camera: Path) -> None:
    """The real files as they would lie in a camera's folder."""
    shutil.copytree(real_data / "epu_session" / "epu-dir-example", camera / "epu-visit")
    (camera / "falcon").mkdir()
    packed = real_data / "micrographs" / "epu2.9_example.mrc.gz"
    with gzip.open(packed) as source, (camera / "falcon" / "epu2.9_example.mrc").open("wb") as target:
        shutil.copyfileobj(source, target)
    (camera / "apoferritin").mkdir()
    for picture in (real_data / "apoferritin").glob("*.png"):
        shutil.copy(picture, camera / "apoferritin" / picture.name)


def of_session(catalog: Catalog, name: str) -> list[Exposure]:
    """A session's exposures."""
    return exposures.page(catalog, sessions.by_name(catalog, name).id, limit=100, before=None)


def announce(facility: TestFacility) -> None:
    """Say what the PNG sums cannot say themselves, and what is known of the particles."""
    values = ["--pixel-size", "1.5", "--voltage", "300", "--cs", "0", "--diameter", "125"]
    facility.typed("session", "create", "apoferritin", "--instrument", "scope", *values)


def test_real_files_are_listed_fitted_picked_and_shown(real_data: Path, tmp_path: Path) -> None:
    """Grid squares and holes are listed, optics and dose come from the metadata, the CTF of a real micrograph is where
    an independent program finds it, particles are picked, and the pages show all of it."""
    facility = make_facility(tmp_path / "facility", optics=OPTICS, pipeline="", workers=1)
    announce(facility)

    def through(catalog: Catalog) -> bool:
        done = [e for e in all_exposures(catalog) if e.state is ExposureState.DONE]
        return len(done) == 1 + 3 and len(all_exposures(catalog)) == 1 + 3 + 4

    with facility.running():
        lay_out(real_data, facility.camera)
        facility.wait(through)
        check_catalog(facility)
        check_pages(facility)


def check_catalog(facility: TestFacility) -> None:
    """What the catalog must say of the real files."""
    with facility.catalog() as catalog:
        epu = of_session(catalog, "epu-visit")
        assert {e.grid_square for e in epu} == {"8999138", "8999186"}
        assert {e.foil_hole for e in epu} == {"9015883", "9028219"}
        optics = next(e for e in epu if "9015883_Data_9017347" in e.name).metadata.optics
        assert optics.voltage_kilovolt == 300
        assert optics.dose_e_per_square_angstrom == pytest.approx(14.411, abs=0.001)
        assert optics.pixel_size_angstrom == pytest.approx(1.0559 / 2, abs=0.001)

        (falcon,) = of_session(catalog, "falcon")
        assert falcon.metadata.source == "fei2"
        assert falcon.metadata.optics.pixel_size_angstrom == pytest.approx(0.667, abs=0.001)
        found = results.newest(catalog, falcon.id)
        assert found.ctf is not None
        assert found.ctf.trustworthy
        # CTFFIND 5: 27,294/27,148 Å at 86°, rings to 3.5 Å.
        assert (found.ctf.defocus_u_angstrom + found.ctf.defocus_v_angstrom) / 2 == pytest.approx(27220, abs=150)
        assert found.picks is not None
        assert len(found.picks.picks) > 50

        for exposure in of_session(catalog, "apoferritin"):
            sums = results.newest(catalog, exposure.id)
            assert sums.picks is not None
            assert len(sums.picks.picks) > 20


def check_pages(facility: TestFacility) -> None:
    """The pages name what the catalog knows."""
    with httpx.Client(base_url=facility.url(), timeout=60) as client, facility.catalog() as catalog:
        front = client.get("/").raise_for_status().text
        assert all(name in front for name in ("epu-visit", "falcon", "apoferritin"))
        session = sessions.by_name(catalog, "epu-visit")
        page = client.get(f"/sessions/{session.id}").raise_for_status().text
        assert "8999138" in page
        (falcon,) = of_session(catalog, "falcon")
        page = client.get(f"/sessions/{falcon.session_id}/exposures/{falcon.id}").raise_for_status().text
        assert "0.66655" in page
        assert "300" in page
