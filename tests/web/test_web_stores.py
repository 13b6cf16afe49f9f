"""The page of the stores: how full they are and will be, what is wanted, whose it is, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from coldchain.catalog import store_alerts, stores
from coldchain.catalog.capacity import Usage
from coldchain.catalog.engine import open_catalog
from coldchain.model.policy import Tier
from coldchain.model.stores import StoreLook, StoreSubject
from coldchain.storage.capacity.book import CapacityBook
from coldchain.web.stores import bar, store_cards
from tests.web.planted import HOSTILE, Facility
from tests.web.planted_stores import TB, plant_stores

PATIENCE_MILLISECONDS = 60_000


def test_a_site_without_stores_says_so(client: httpx.Client) -> None:
    """Before the service ran once."""
    text = client.get("/stores").text
    assert "No store yet" in text
    assert client.get("/api/stores").json() == []
    assert client.get("/api/stores/usage").json() == []


def test_a_store_that_nobody_looked_at_is_on_the_page(facility: Facility, client: httpx.Client) -> None:
    """Enrolled, and nothing known yet: no bar, no plot, no forecast, no failure."""
    stores.enrol(facility.catalog, name=HOSTILE.replace("/", ""), tier=Tier.LIVE, url="/x")
    text = client.get("/stores").text
    assert "never seen" in text and "Not foretold: there are samples of 0 whole days" in text
    assert "<script>alert(1)" not in text
    assert client.get("/api/stores").json()[0]["course"] is None


def test_the_page_tells_how_stores_are(facility: Facility, client: httpx.Client) -> None:
    """In words: trouble and since when, what takes how much, what is wanted, when it is full."""
    plant_stores(facility)
    text = client.get("/stores").text
    assert 'href="/stores" aria-current="page"' in text
    assert "its identity file is not there" in text and "in trouble" in text
    assert "verified copies" in text and "in the trash" in text and "not known to the catalog" in text
    assert "1 file, 1.4 TB · 0.9 h" in text
    assert "It does not tell how large it is." in text
    assert "store archive is full in about" in text
    front = client.get("/").text
    assert "its identity file is not there" in front and "store archive is full in about" in front


def test_the_api_tells_the_same(facility: Facility, client: httpx.Client) -> None:
    """Numbers, history and course as columns; the parts of a bar add up to what is in use."""
    plant_stores(facility)
    archive, scratch, vault = client.get("/api/stores").json()
    assert [one["store"]["name"] for one in (archive, scratch, vault)] == ["archive", "scratch", "vault"]
    assert archive["used_bytes"] == archive["usage"]["size_bytes"] + archive["others_bytes"]
    assert scratch["used_bytes"] == sum(
        (scratch["usage"]["size_bytes"], scratch["usage"]["trash_bytes"], scratch["others_bytes"])
    )
    assert vault["used_bytes"] is None and vault["course"] is None and vault["arriving_bytes_per_day"]["middle"] > 0
    assert vault["why_not"] == "the store does not tell how large it is"
    days = archive["days_until_full"]
    assert 0 < days["low"] <= days["middle"] <= days["high"] < 60
    history, course = archive["history"], archive["course"]
    assert len(history["time"]) == len(history["used_bytes"]) == len(history["total_bytes"]) <= 801
    assert len(course["time"]) == len(course["low"]) == len(course["high"]) <= 121
    assert course["time"][0] == history["time"][-1]
    assert course["middle"][-1] == 400 * TB
    assert archive["backlog_hours"] == pytest.approx(1.4e12 / 410e6 / 3600)


def test_usage_is_added_up_as_asked(facility: Facility, client: httpx.Client) -> None:
    """By session, project and kind: the same bytes each time, what takes most first; anything else is refused."""
    plant_stores(facility)
    sums = []
    for by, names in (
        ("session", {"apoferritin-04", "ribosome-11"}),
        ("project", {"Ferritins", "Translation"}),
        ("kind", {"movie", "metadata"}),
    ):
        rows = client.get("/api/stores/usage", params={"by": by}).json()
        assert {row["name"] for row in rows} == names
        assert [row["all_bytes"] for row in rows] == sorted((row["all_bytes"] for row in rows), reverse=True)
        sums.append(sum(row["all_bytes"] for row in rows))
    assert len(set(sums)) == 1
    assert client.get("/api/stores/usage", params={"by": "owner"}).status_code == 400


def test_the_stamp_changes_when_stores_do(facility: Facility, client: httpx.Client) -> None:
    """It stands still while only time goes by, and changes with a store's free bytes, an alert, or a sample."""
    plant_stores(facility)

    def stamp() -> str:
        return client.get("/api/stores/changes").headers["etag"]

    catalog = facility.catalog
    seen = [stamp()]
    look = StoreLook("", "", 400 * TB, 20 * TB)
    for change in (
        lambda: stores.record_look(catalog, "archive", look),
        lambda: store_alerts.end(catalog, "archive", StoreSubject.FULL_SOON, "it has room again"),
        lambda: stores.record_sample(
            catalog, "archive", stores.samples(catalog, "archive", site="test-site", days=1)[-1].at
        ),
    ):
        change()
        seen.append(stamp())
    assert len(set(seen)) == len(seen)
    stores.record_look(catalog, "archive", look)
    assert stamp() == seen[-1]
    answer = client.get("/api/stores/changes", headers={"If-None-Match": seen[-1]})
    assert answer.status_code == 304


def test_no_part_of_a_bar_is_wider_than_what_is_in_use(facility: Facility) -> None:
    """A file system that compresses holds more bytes of copies than are in use."""
    plant_stores(facility)
    catalog = facility.catalog
    stores.record_look(catalog, "archive", StoreLook("", "", 400 * TB, 395 * TB))
    (archive, *_) = CapacityBook(catalog).of(stores.all_stores(catalog))
    assert archive.others_bytes == 0
    assert sum(part.size_bytes for part in bar(archive)) == 5 * TB
    assert sum(part.percent for part in bar(archive)) == pytest.approx(1.25)


def test_sites_that_share_a_store_are_not_strangers(facility: Facility) -> None:
    """What another site has copied there is known to the catalog, though it is not this site's."""
    plant_stores(facility)
    other = open_catalog(f"sqlite:///{facility.results_root.parent / 'catalog.sqlite'}", "second-site")
    own = stores.find(facility.catalog, "archive")
    stores.enrol(other, name="archive", tier=Tier.ARCHIVE, url="/mnt/archive")
    before = store_cards(facility.catalog, CapacityBook(facility.catalog))
    stores.note_marked(other, "archive", own.identity)
    stores.record_look(other, "archive", StoreLook("", "", own.total_bytes, own.free_bytes))
    after = {card.key: card.capacity for card in store_cards(other, CapacityBook(other))}
    assert len(before) == len(after) == 4
    assert after["second-site-archive"].usage == Usage()
    assert after["second-site-archive"].others_bytes == after["test-site-archive"].others_bytes
    assert after["second-site-archive"].others_bytes != own.total_bytes
    other.close()


@pytest.fixture
def browser_page(browser: Browser, client: httpx.Client) -> Iterator[Page]:
    """A page of Chromium; nothing may be complained of."""
    complaints: list[str] = []
    with browser.new_context(base_url=str(client.base_url)) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        yield page
    assert complaints == []


@pytest.mark.browser
def test_the_plots_are_drawn_and_the_page_follows(facility: Facility, browser_page: Page) -> None:
    """Past, band and the whole for each store that tells its size; whose it is; what changes appears by itself."""
    plant_stores(facility)
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    browser_page.goto("/stores")
    expect(browser_page.locator('[data-plot="test-site-archive"] .scatterlayer .trace')).to_have_count(6)
    expect(browser_page.locator('[data-plot="test-site-vault"]')).to_be_hidden()
    expect(browser_page.locator("#usage tbody tr")).to_have_count(2)
    browser_page.locator('#usage [data-by="kind"]').click()
    expect(browser_page.locator("#usage tbody tr").first).to_contain_text("movie")
    card = browser_page.locator("#store-test-site-scratch")
    expect(card).to_contain_text("in trouble")
    stores.record_look(facility.catalog, "scratch", StoreLook("", "ext4", 120 * TB, 30 * TB))
    expect(card).not_to_contain_text("in trouble")
    expect(card).to_contain_text("30.0 TB free of 120 TB")
    expect(browser_page.locator('[data-plot="test-site-archive"] .scatterlayer .trace')).to_have_count(6)
    for scheme in ("light", "dark"):
        browser_page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # "light" or "dark"
        for width in (1280, 390):
            browser_page.set_viewport_size({"width": width, "height": 900})
            browser_page.wait_for_timeout(300)
            assert browser_page.evaluate("document.documentElement.scrollWidth") <= width
