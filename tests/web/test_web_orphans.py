"""What lacks its partner stands on its session's page while it does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from coldchain.catalog import exposures, frame_sets, orphans
from coldchain.model.optics import ExposureMetadata
from coldchain.model.session import Session
from tests.web.planted import HOSTILE, Facility

PATIENCE_MILLISECONDS = 60_000


def tell(facility: Facility) -> int:
    """Time has gone by."""
    return orphans.tell(facility.catalog, instrument_name="krios-1", found_before=datetime.now(UTC))


def plant(facility: Facility, count: int) -> Session:
    """A session with so many XMLs without a movie, one of them badly named, and a movie that an mdoc alone knows."""
    session = facility.session()
    for number in range(count):
        name = HOSTILE if number == 0 else f"Images-Disc1/GridSquare_1/Data/FoilHole_{number}_Data_1_2_3_4"
        made = exposures.ensure(facility.catalog, session.id, name)
        exposures.attach_metadata(facility.catalog, made.id, ExposureMetadata(source="epu-xml"))
    said = ("m_007", "D:/frames/m_007.tif", ExposureMetadata(source="mdoc-section"))
    frame_sets.record(facility.catalog, session.id, "TS.mrc.mdoc", [said])
    return session


def test_the_page_and_the_api_list_them(facility: Facility, client: httpx.Client) -> None:
    """Not before they are told; with their number where they are many, and the command that lists all."""
    session = plant(facility, 12)
    address = f"/sessions/{session.id}"
    assert client.get(f"/api{address}/orphans").json() == []
    assert 'aria-labelledby="orphans-title" hidden' in client.get(address).text
    assert tell(facility) == 13
    text = client.get(address).text
    assert 'aria-labelledby="orphans-title" hidden' not in text
    assert "<script>alert(1)</script>" not in text
    assert "<span>session</span> <span>orphans</span> <span>apoferritin-04</span>" in text
    listed = client.get(f"/api{address}/orphans").json()
    assert len(listed) == 13
    (of_mdoc,) = [orphan for orphan in listed if orphan["exposure_id"] is None]
    assert (of_mdoc["kind"], of_mdoc["name"]) == ("metadata", "D:/frames/m_007.tif")
    assert client.get("/api/sessions/00000000-0000-0000-0000-000000000000/orphans").status_code == 404


@pytest.fixture
def browser_page(browser: Browser, client: httpx.Client) -> Iterator[Page]:
    """A page of Chromium; nothing may be complained of."""
    complaints: list[str] = []
    with browser.new_context(base_url=str(client.base_url)) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert complaints == []


@pytest.mark.browser
def test_they_come_and_go_on_an_open_page(facility: Facility, browser_page: Page) -> None:
    """Told while somebody looks, it appears; when the movie arrives it goes; nothing is reloaded by hand."""
    session = plant(facility, 2)
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    browser_page.goto(f"/sessions/{session.id}")
    panel = browser_page.locator("#orphans")
    expect(panel).to_be_hidden()
    tell(facility)
    expect(panel).to_be_visible()
    expect(panel.locator("li")).to_have_count(3)
    expect(panel).to_contain_text("metadata without a movie")
    expect(panel).to_contain_text("m_007.tif")
    name = "Images-Disc1/GridSquare_1/Data/FoilHole_1_Data_1_2_3_4"
    waiting = exposures.by_name(facility.catalog, session.id, name)
    assert waiting is not None
    facility.file(session, f"{name}_fractions.tiff", exposure_id=waiting.id)
    expect(panel.locator("li")).to_have_count(2)
