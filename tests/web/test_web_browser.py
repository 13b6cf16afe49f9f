"""The pages in a real browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from coldchain.catalog import exposures, figures, sessions
from coldchain.catalog import page as catalog_page
from coldchain.catalog.engine import Catalog
from coldchain.model.session import ExposureState, SessionCounts
from tests.web.planted import HOSTILE, Facility, plant_busy_session

pytestmark = pytest.mark.browser

PATIENCE_MILLISECONDS = 60_000  # a busy machine is slow; nothing waits this long without need
expect.set_options(timeout=PATIENCE_MILLISECONDS)

Opener = Callable[..., AbstractContextManager[Page]]


@pytest.fixture
def opened(browser: Browser, client: httpx.Client) -> Opener:
    """Opens a page of the site; at its end nothing may have been complained of."""

    @contextmanager
    def open_page(path: str) -> Iterator[Page]:
        context = browser.new_context(base_url=str(client.base_url), viewport={"width": 1280, "height": 900})
        context.set_default_timeout(PATIENCE_MILLISECONDS)
        complaints: list[str] = []
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda sent: complaints.append(sent.url) if not _is_own(sent.url, client) else None)
        page.goto(path)
        yield page
        assert complaints == []
        context.close()

    return open_page


def _is_own(url: str, client: httpx.Client) -> bool:
    return url.startswith((str(client.base_url), "data:", "blob:"))


def test_pages_load_without_a_complaint(facility: Facility, opened: Opener) -> None:
    """Every page, on desk and phone, by day and by night: no error, no foreign request, no scrolling sideways."""
    session = plant_busy_session(facility, exposure_count=2)
    newest = exposures.page(facility.catalog, session.id, limit=20, before=None)
    done = next(exposure for exposure in newest if exposure.state is ExposureState.DONE)
    with opened("/") as page:
        expect(page.get_by_role("heading", name=session.name)).to_be_visible()
        _look_in_every_light(page)
    with opened(f"/sessions/{session.id}") as page:
        expect(page.locator('[data-plot="picks"] .scatterlayer .point')).to_have_count(2)
        _look_in_every_light(page)
        expect(page.locator('[data-plot="picks"] .scatterlayer .point')).to_have_count(2)
    with opened(f"/sessions/{session.id}/exposures/{done.id}") as page:
        expect(page.locator("#profile .scatterlayer .trace")).to_have_count(3)
        _look_in_every_light(page)
        expect(page.locator("#track .scatterlayer .trace")).to_have_count(2)
    with opened("/events") as page:
        expect(page.get_by_text("the facility runs")).to_be_visible()
        _look_in_every_light(page)


def _look_in_every_light(page: Page) -> None:
    """Turns the screen dark and the window narrow, as a reader may at any time."""
    inks = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # "light" or "dark"
        inks.append(page.evaluate("getComputedStyle(document.body).color"))
        for width in (1280, 820, 390):
            page.set_viewport_size({"width": width, "height": 900})
            _wait_until(page, f"document.documentElement.scrollWidth <= {width}")
    assert inks[0] != inks[1]


def _wait_until(page: Page, condition: str) -> None:
    # Playwright's own wait evaluates text inside the page, which the site's policy forbids.
    deadline = time.monotonic() + PATIENCE_MILLISECONDS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def test_what_happens_appears_without_reloading(facility: Facility, opened: Opener) -> None:
    """A new exposure, its picture, its point in the plots and its counters come by themselves; what was there stays."""
    session = facility.session()
    first = facility.exposure(session)
    facility.process(first)
    with opened(f"/sessions/{session.id}") as page:
        expect(page.locator(".card")).to_have_count(1)
        page.evaluate("document.getElementById('gallery').firstElementChild.dataset.reader = 'was here'")
        page.evaluate("window.wasNotReloaded = true")
        second = facility.exposure(session)
        expect(page.locator(".card")).to_have_count(2)
        facility.process(second)
        expect(page.locator(f"#exposure-{second.id} img")).to_be_visible()
        expect(page.locator('[data-plot="defocus"] .scatterlayer .point')).to_have_count(2)
        expect(page.locator("#counters")).to_contain_text("of 2 exposures")
        assert page.evaluate("window.wasNotReloaded")


def test_a_large_session_that_is_counted_appears_by_itself(
    facility: Facility, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is counted, list and page say so; old figures are exchanged when there are new ones; then the page is
    idle."""
    is_open, counts = threading.Event(), sessions.counts

    def counted(catalog: Catalog, session_id: UUID) -> SessionCounts:
        assert is_open.wait(PATIENCE_MILLISECONDS / 1000)
        return counts(catalog, session_id)

    monkeypatch.setattr(sessions, "counts", counted)
    monkeypatch.setattr(catalog_page, "SMALL_EXPOSURES", 0)
    monkeypatch.setattr(figures, "RESTS", 0.0)
    session = facility.session()
    facility.exposure(session)
    with opened("/") as listed, opened(f"/sessions/{session.id}") as page:
        expect(listed.get_by_text("being counted")).to_have_count(2)
        expect(page.get_by_text("files are being counted")).to_have_count(4)
        expect(page.locator("#counters")).to_contain_text("of 1 exposures")
        _look_in_every_light(listed)
        is_open.set()
        expect(listed.locator("#sessions")).to_contain_text("1 of 1 files verified")
        arrived = page.locator("#counters .counter b").first
        expect(arrived).to_have_text("1")
        _wait_until_idle(listed, page)
        is_open.clear()
        facility.exposure(session)
        expect(page.locator(".card")).to_have_count(2)
        expect(arrived).to_have_text("1")
        is_open.set()
        expect(arrived).to_have_text("2")
        expect(listed.locator("#sessions")).to_contain_text("2 of 2 files verified")
        _wait_until_idle(listed, page)


def _wait_until_idle(*pages: Page) -> None:
    for each in pages:
        with each.expect_response(lambda answer: answer.url.endswith("/changes") and answer.status == 304):
            pass


def test_an_idle_page_fetches_nothing_but_the_stamp(facility: Facility, opened: Opener) -> None:
    """While nothing happens, the page only asks whether something did."""
    session = plant_busy_session(facility, exposure_count=1)
    with opened(f"/sessions/{session.id}") as page:
        expect(page.locator('[data-plot="picks"] .scatterlayer .point')).to_have_count(1)
        page.wait_for_load_state("networkidle")
        asked: list[str] = []
        page.on("request", lambda sent: asked.append(sent.url))
        for _ in range(2):
            with page.expect_response(lambda answer: answer.url.endswith("/changes")) as answered:
                pass
            assert answered.value.status == 304
        assert {url.rpartition("/")[2] for url in asked} == {"changes"}


def test_a_site_that_goes_away_is_said(browser: Browser, client: httpx.Client) -> None:
    """A page that cannot ask any more does not pretend to be live, and recovers when the site does."""
    page = browser.new_page(base_url=str(client.base_url))
    page.goto("/")
    page.route("**/changes", lambda route: route.abort())
    expect(page.locator("#pulse")).to_have_text("No connection, trying again")
    page.unroute("**/changes")
    expect(page.locator("#pulse")).to_have_text("Live")
    page.close()


def test_a_thumbnail_and_a_point_open_their_exposure(facility: Facility, opened: Opener) -> None:
    """From the gallery by a click, from a plot by a click."""
    session = facility.session()
    exposure = facility.exposure(session)
    facility.process(exposure)
    target = f"/sessions/{session.id}/exposures/{exposure.id}"
    with opened(f"/sessions/{session.id}") as page:
        page.locator(f"#exposure-{exposure.id}").click()
        page.wait_for_url(f"**{target}")
        expect(page.locator(".micrograph img")).to_be_visible()
        page.go_back()
        point = page.locator('[data-plot="defocus"] .scatterlayer .point').first
        expect(point).to_be_visible()
        point.scroll_into_view_if_needed()  # the gallery, to which the browser went back, lies below
        box = point.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2 + 2, box["y"] + box["height"] / 2)
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        expect(page.locator('[data-plot="defocus"] .hovertext')).to_be_visible()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_url(f"**{target}")


def test_picks_lie_on_the_picture_and_can_be_hidden(facility: Facility, opened: Opener) -> None:
    """Circles are drawn over the micrograph, within it, and the switch hides them, also after an update."""
    session = facility.session()
    exposure = facility.exposure(session)
    facility.process(exposure)
    with opened(f"/sessions/{session.id}/exposures/{exposure.id}") as page:
        circles, image = page.locator(".picks circle"), page.locator(".micrograph img")
        expect(circles.first).to_be_visible()
        assert page.evaluate("document.querySelector('.micrograph img').naturalWidth") == 256
        outer, inner = image.bounding_box(), circles.first.bounding_box()
        assert outer is not None
        assert inner is not None
        assert outer["x"] <= inner["x"] + inner["width"] / 2 <= outer["x"] + outer["width"]
        assert outer["y"] <= inner["y"] + inner["height"] / 2 <= outer["y"] + outer["height"]
        page.get_by_label("picks").uncheck()
        expect(circles.first).to_be_hidden()
        facility.run(exposure, "preview", None, facility.preview_outputs(facility.picks()))  # type: ignore[arg-type]
        expect(page.locator('#runs details[id^="run-"]')).to_have_count(6)
        expect(circles.first).to_be_hidden()
        page.get_by_label("picks").check()
        expect(circles.first).to_be_visible()


def test_an_opened_step_stays_open_when_the_page_updates(facility: Facility, opened: Opener) -> None:
    """What a reader has unfolded is not folded under his eyes."""
    session = facility.session()
    exposure = facility.exposure(session)
    facility.process(exposure)
    with opened(f"/sessions/{session.id}/exposures/{exposure.id}") as page:
        page.locator("#runs summary").first.click()
        expect(page.locator("#runs details[open]")).to_have_count(1)
        exposures.set_state(facility.catalog, exposure.id, ExposureState.QUARANTINED, "because")
        expect(page.locator("#heading")).to_contain_text("because")
        expect(page.locator("#runs details[open]")).to_have_count(1)


def test_hostile_names_do_nothing_in_a_browser(facility: Facility, opened: Opener) -> None:
    """No dialog opens and no error is raised, in the plots' labels neither."""
    session = facility.session(HOSTILE)
    exposure = facility.exposure(session, name=f"<img src=x onerror=alert(1)>{HOSTILE}", square=HOSTILE)
    facility.process(exposure)
    with opened(f"/sessions/{session.id}") as page:
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        point = page.locator('[data-plot="picks"] .scatterlayer .point').first
        expect(point).to_be_visible()
        point.hover(force=True)
        expect(page.locator('[data-plot="picks"] .hovertext')).to_contain_text("script")
        assert page.locator("img[src=x]").count() == 0
