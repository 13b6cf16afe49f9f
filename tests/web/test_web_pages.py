"""Every page, as a reader gets it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from coldchain.catalog import exposures, sessions, steps, verdicts
from coldchain.errors import CatalogError
from coldchain.model.files import FileKind
from coldchain.model.identity import new_id
from coldchain.model.optics import ExposureMetadata, Optics
from coldchain.model.quality import Change, Ending, Grade, Judged, Measures, Quantity, Verdict
from coldchain.model.results import Step
from coldchain.model.session import ExposureState, SessionParameters
from coldchain.web import view
from coldchain.web.guard import HEADERS
from coldchain.web.pages import GALLERY_LIMIT
from tests.web.planted import HOSTILE, Facility, plant_busy_session, served


def test_an_empty_facility_says_that_sessions_appear_by_themselves(client: httpx.Client) -> None:
    """The first page of a new facility explains itself."""
    answer = client.get("/")
    assert answer.status_code == 200
    assert "No session yet" in answer.text
    assert "Northern EM" in answer.text


def test_the_list_shows_each_session_with_owner_counters_and_state(facility: Facility, client: httpx.Client) -> None:
    """Name, instrument, project, owner, counters and state stand in the list, newest session first."""
    facility.session("older")
    session = plant_busy_session(facility, exposure_count=2)
    text = client.get("/").text
    for shown in (session.name, "krios-1", "Ferritins", "Ada Nilsson", "open", "<b>2</b> of 7 exposures", "3 waiting"):
        assert shown in text
    assert text.index(session.name) < text.index("older")


def test_the_list_keeps_counting(facility: Facility, client: httpx.Client) -> None:
    """Counters and names in the list follow what happens, though unchanged sessions are not counted again."""
    session = facility.session()
    facility.session("quiet")
    exposure = facility.exposure(session)
    assert "<b>0</b> of 1 exposures" in client.get("/").text
    facility.process(exposure)
    assert "<b>1</b> of 1 exposures" in client.get("/").text
    sessions.update(facility.catalog, session.id, owner_name="Grace Lind")
    assert "Grace Lind" in client.get("/").text


def test_a_session_shows_counters_gallery_troubles_and_events(facility: Facility, client: httpx.Client) -> None:
    """What arrived, waits, failed and happened is all on the session's page."""
    session = plant_busy_session(facility, exposure_count=3)
    text = client.get(f"/sessions/{session.id}").text
    for shown in (
        "1.06 Å",  # what the session itself says
        "130 Å",
        "the dose is not known",
        "3 exposures",
        "strip 17 of frame 3 cannot be decoded",
        "<span>coldchain</span> <span>session</span> <span>reprocess</span> <span>apoferritin-04</span>",
        "damaged movie",
        "the file ends after 1,024 of 4,195,328 bytes",
        "copy to archive failed",
        "the facility runs",
    ):
        assert shown in text
    assert text.count('class="card"') == 8
    assert text.count("/thumbnail_png") == 3


def test_grid_squares_and_holes_are_listed_with_those_only_seen(facility: Facility, client: httpx.Client) -> None:
    """A square that only EPU's overview files tell of stands beside those with exposures, with none."""
    session = facility.session()
    facility.exposure(session, square="8990001")
    seen = "Images-Disc1/GridSquare_8990077/FoilHoles/FoilHole_90770000_20260302_151151.jpg"
    facility.file(session, seen, kind=FileKind.PREVIEW)
    text = client.get(f"/sessions/{session.id}").text
    assert "2 squares, 2 holes" in text
    assert "8990001" in text
    assert "8990077" in text
    assert "90770000" in text


def test_the_gallery_pages_through_every_exposure_once(facility: Facility, client: httpx.Client) -> None:
    """Following "Older" to the end shows each exposure once, newest first, though more arrive meanwhile."""
    session = facility.session()
    wanted = [
        exposures.ensure(facility.catalog, session.id, f"exposure-{n:03}").id for n in range(2 * GALLERY_LIMIT + 5)
    ]
    seen: list[UUID] = []
    url: str | None = f"/sessions/{session.id}"
    while url is not None:
        text = client.get(url).text
        seen += [UUID(part[:36]) for part in text.split('class="card" id="exposure-')[1:]]
        exposures.ensure(facility.catalog, session.id, f"late-{len(seen)}")
        older = text.partition('class="next" href="')[2].partition('"')[0]
        url = older.replace("&amp;", "&") or None
    assert seen == list(reversed(wanted))


def test_newer_leads_back_to_where_older_came_from(facility: Facility, client: httpx.Client) -> None:
    """ "Older" and then "Newer" shows the first page again."""
    session = facility.session()
    for number in range(GALLERY_LIMIT + 3):
        exposures.ensure(facility.catalog, session.id, f"exposure-{number:03}")
    first = client.get(f"/sessions/{session.id}").text
    older = client.get(first.partition('class="next" href="')[2].partition('"')[0]).text
    newer = older.partition("Newest</a>")[2].partition('href="')[2].partition('"')[0]
    again = client.get(newer.replace("&amp;", "&")).text
    assert again.count('class="card"') == GALLERY_LIMIT
    assert f"exposure-{GALLERY_LIMIT + 2:03}" in again


def test_the_gallery_narrows_to_a_state_and_a_grid_square(facility: Facility, client: httpx.Client) -> None:
    """Filters leave only what they name, even a square whose name is hostile."""
    session = facility.session()
    facility.exposure(session, name="plain", square="1")
    strange = facility.exposure(session, name="strange", square=HOSTILE)
    exposures.set_state(facility.catalog, strange.id, ExposureState.QUARANTINED, "no")
    page = f"/sessions/{session.id}"
    assert client.get(f"{page}?state=quarantined").text.count('class="card"') == 1
    assert client.get(f"{page}?square=1").text.count('class="card"') == 1
    links = client.get(page).text.split('href="')
    link = next(part.partition('"')[0] for part in links if "square=a%20b" in part)
    narrowed = client.get(link.replace("&amp;", "&")).text
    assert narrowed.count('class="card"') == 1
    assert f"exposure-{strange.id}" in narrowed


def test_an_exposure_shows_results_optics_steps_and_copies(facility: Facility, client: httpx.Client) -> None:
    """Numbers, who says each optical value, every run and every copy are on the exposure's page."""
    session = facility.session()
    exposure = facility.exposure(session)
    runs = facility.process(exposure)
    text = client.get(f"/sessions/{session.id}/exposures/{exposure.id}").text
    for shown in (
        f"/runs/{runs[Step.PREVIEW]}/micrograph_png",
        f"/runs/{runs[Step.PREVIEW]}/spectrum_png",
        f'data-profile="/runs/{runs[Step.CTF]}/profile"',
        "trustworthy",
        "set for the session",
        "EPU&#39;s XML",
        "EF-Falcon",
        "archive",
        "read back from the medium",
        f"{1:064x}",
    ):
        assert shown in text
    for step in Step:
        assert f"<b>{step}</b>" in text


def test_picks_are_circles_at_the_places_and_of_the_size_that_the_scale_says(
    facility: Facility, client: httpx.Client
) -> None:
    """A pick's circle has its centre in the picture (rows turned over) and the particle's diameter."""
    session = facility.session()
    exposure = facility.exposure(session)
    facility.process(exposure)
    api = client.get(f"/api/exposures/{exposure.id}").json()
    first = api["results"]["picks"]["picks"][0]
    text = client.get(f"/sessions/{session.id}/exposures/{exposure.id}").text
    x, y = round((first["x_pixel"] + 0.5) / 16, 2), round(192 - (first["y_pixel"] + 0.5) / 16, 2)
    assert f'<circle cx="{x}" cy="{y}" r="{round(130 / 2 / 1.06 / 16, 2)}"/>' in text
    assert text.count("<circle ") == len(api["results"]["picks"]["picks"])
    assert "50 nm" in text


def test_an_untrustworthy_fit_is_marked_wherever_it_is_shown(facility: Facility, client: httpx.Client) -> None:
    """Gallery and exposure say that a defocus is not to be trusted, and why."""
    session = facility.session()
    exposure = facility.exposure(session)
    facility.process(exposure, trustworthy=False)
    assert "not to be trusted" in client.get(f"/sessions/{session.id}").text
    assert "only two zeros are seen" in client.get(f"/sessions/{session.id}/exposures/{exposure.id}").text


def test_older_and_failed_runs_stay_visible(facility: Facility, client: httpx.Client) -> None:
    """An exposure that was computed again, and once failed, shows all of its runs with their reasons."""
    session = facility.session()
    exposure = facility.exposure(session)
    failed = steps.begin(facility.catalog, exposure.id, Step.ALIGN, "k", {"frame_count": 17})
    steps.fail(facility.catalog, failed.id, detail="the gain has another shape", seconds=0.2)
    facility.process(exposure)
    facility.process(exposure)
    text = client.get(f"/sessions/{session.id}/exposures/{exposure.id}").text
    assert text.count('<details id="run-') == 11
    assert "the gain has another shape" in text
    assert "frame_count" in text


def test_a_picture_without_a_scale_is_shown_without_circles(facility: Facility, client: httpx.Client) -> None:
    """A scale file that is gone or nonsense costs the overlay, not the page."""
    session = facility.session()
    exposure = facility.exposure(session)
    facility.process(exposure)
    for scale in facility.results_root.rglob("scale.json"):
        scale.write_text('{"width_pixel": "∞", "height_pixel": null}')
    answer = client.get(f"/sessions/{session.id}/exposures/{exposure.id}")
    assert answer.status_code == 200
    assert "scale is not known" in answer.text
    assert "<circle" not in answer.text


def test_results_that_are_gone_leave_the_page_standing(facility: Facility, client: httpx.Client) -> None:
    """After the results folder was cleared the numbers remain, and the page says that there is no picture."""
    session = facility.session()
    exposure = facility.exposure(session)
    facility.process(exposure)
    for path in facility.results_root.rglob("*.*"):
        path.unlink()
    answer = client.get(f"/sessions/{session.id}/exposures/{exposure.id}")
    assert answer.status_code == 200
    assert "has not left one" in answer.text


def test_hostile_names_are_shown_and_never_run(facility: Facility, client: httpx.Client) -> None:
    """A newline, quotes, a script and an undecodable byte in every name appear as visible text on every page."""
    session = facility.session(HOSTILE, owner_name=HOSTILE, project_name=HOSTILE)
    exposure = facility.exposure(session, name=f"folder/{HOSTILE}", square=HOSTILE)
    metadata = ExposureMetadata(optics=Optics(gain=HOSTILE), detector=HOSTILE, source=HOSTILE)
    exposures.attach_metadata(facility.catalog, exposure.id, metadata)
    facility.process(exposure)
    run = steps.begin(facility.catalog, exposure.id, Step.ALIGN, "k", {"said": "<script>alert(1)</script>"})
    steps.fail(facility.catalog, run.id, detail=HOSTILE, seconds=0.1)
    exposures.set_state(facility.catalog, exposure.id, ExposureState.QUARANTINED, HOSTILE)
    for url in ("/", f"/sessions/{session.id}", f"/sessions/{session.id}/exposures/{exposure.id}", "/events"):
        answer = client.get(url)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text
        assert "\\n&lt;script&gt;alert(1)&lt;/script&gt;é\\udcff" in answer.text
    for url in ("sessions", f"sessions/{session.id}/readings", f"exposures/{exposure.id}", "events"):
        answer = client.get(f"/api/{url}")
        assert answer.status_code == 200
        assert answer.content.isascii()
        assert "\\n<script>" in str(answer.json()).replace("\\\\", "\\")


def test_the_instruments_own_values_are_named_as_such(facility: Facility) -> None:
    """A value that neither the session nor the metadata tells comes from the instrument, and the page says so."""
    session = facility.session()
    exposure = facility.exposure(session)
    optics = {"krios-1": Optics(amplitude_contrast=0.07)}
    with served(facility, optics) as url:
        text = httpx.get(f"{url}/sessions/{session.id}/exposures/{exposure.id}", trust_env=False).text
    assert "0.07" in text
    assert "the instrument&#39;s default" in text


def test_a_session_with_parameters_of_its_own_names_them(facility: Facility, client: httpx.Client) -> None:
    """What was set for the session stands in its header, also a gain of "none"."""
    session = facility.session(parameters=SessionParameters(Optics(gain="", voltage_kilovolt=200.0)))
    text = client.get(f"/sessions/{session.id}").text
    assert "200 kV" in text
    assert "Gain reference" in text


def test_events_narrow_to_a_session_and_a_severity(facility: Facility, client: httpx.Client) -> None:
    """The page of events leaves out what is not asked for."""
    session = plant_busy_session(facility, exposure_count=1)
    assert "the facility runs" in client.get("/events").text
    errors = client.get(f"/events?minimum=error&session={session.id}").text
    assert "the facility runs" not in errors
    assert "strip 17" in errors
    assert client.get(f"/events?session={new_id()}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/sessions/not-an-id",
        "/sessions/0198c8a0-0000-7000-8000-000000000000",
        "/sessions/0198c8a0-0000-7000-8000-000000000000/exposures/0198c8a0-0000-7000-8000-000000000000",
        "/runs/0198c8a0-0000-7000-8000-000000000000/micrograph_png",
        "/static/none.js",
        "/static/..%2Fapp.py",
    ],
)
def test_what_is_not_there_is_a_kind_404(client: httpx.Client, path: str) -> None:
    """Unknown addresses and keys give a page in words, with a way back."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert "To the list of sessions" in answer.text


def test_an_exposure_is_not_shown_under_another_session(facility: Facility, client: httpx.Client) -> None:
    """An address that joins a session with another's exposure leads nowhere."""
    exposure = facility.exposure(facility.session())
    other = facility.session("other")
    assert client.get(f"/sessions/{other.id}/exposures/{exposure.id}").status_code == 404


@pytest.mark.parametrize("query", ["state=lost", "before=1", "after=x", "state=done&before=%00"])
def test_a_nonsense_filter_is_a_stated_error(facility: Facility, client: httpx.Client, query: str) -> None:
    """A mistyped filter says so."""
    answer = client.get(f"/sessions/{facility.session().id}?{query}")
    assert answer.status_code == 400
    assert "cannot be" in answer.text


def test_a_catalog_that_refuses_gives_its_reason_and_remedy(
    facility: Facility, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A locked or absent database is a 503 with the catalog's own words, on pages and for programs."""

    def refuse(*_: object, **__: object) -> None:
        raise CatalogError("the database is locked", remedy="Wait a little.", path=Path("/secret/place"))

    monkeypatch.setattr(facility.catalog, "reading", refuse)
    answer = client.get("/")
    assert answer.status_code == 503
    assert "the database is locked" in answer.text
    assert "Wait a little." in answer.text
    told = client.get("/api/changes")
    assert (told.status_code, told.json()["error"]) == (503, "the database is locked")


def test_a_fault_of_the_site_itself_is_said_plainly(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug gives a page in words, and no trace of the program."""

    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the program")

    monkeypatch.setattr(sessions, "list_all", break_down)
    answer = client.get("/")
    assert answer.status_code == 500
    assert "Something went wrong here" in answer.text
    assert "secret" not in answer.text
    assert all(answer.headers[name] == value for name, value in HEADERS.items())


def test_asking_whether_a_page_is_there_is_answered(client: httpx.Client) -> None:
    """A HEAD gives what a GET gives, without the body."""
    answer = client.head("/")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("query", ["hole=%00", "square=" + "x" * 5000, "before=" + "0" * 300])
def test_places_that_cannot_be_are_wrong_questions(facility: Facility, client: httpx.Client, query: str) -> None:
    """A place with a NUL or of thousands of letters is a bad address, no fault of the catalog."""
    session = plant_busy_session(facility, exposure_count=1)
    assert client.get(f"/sessions/{session.id}?{query}").status_code == 400


def test_what_a_verdict_rests_on_is_shown_or_why_it_is_not_known() -> None:
    """A number that nobody knows is never 0, and the reason is that of its own case."""
    known = Measures(True, True, 20.0, 0.4, ice_thickness=0.12, transmission=0.8, unevenness=0.02, pattern_share=0.003)
    shown = dict(view.measure_rows(Verdict(Grade.GOOD, (), known)))
    assert (shown["Ice, beyond the thinnest"], shown["Motion known to"]) == ("0.12 λ", "0.40 Å")
    assert shown["Fixed pattern"] == "0.30 %"
    first = dict(view.measure_rows(Verdict(Grade.GOOD, (), replace(known, ice_thickness=None))))
    assert first["Ice, beyond the thinnest"] == "fewer than ten exposures before"
    blank = Measures(True, motion_found=False)
    unknown = dict(view.measure_rows(Verdict(Grade.BAD, (), blank)))
    assert (unknown["Ice, beyond the thinnest"], unknown["Motion known to"]) == (
        "no electrons in the image",
        "not found",
    )
    older = dict(view.measure_rows(Verdict(Grade.GOOD, (), replace(blank, motion_found=True))))
    assert older["Motion known to"] == "not told"
    assert "Motion known to" not in dict(view.measure_rows(Verdict(Grade.GOOD, (), replace(blank, is_movie=False))))


def test_a_session_shows_how_many_are_good_and_lists_the_doubtful(facility: Facility, client: httpx.Client) -> None:
    """Counts of each grade, each of which leads to those exposures alone."""
    session = facility.session()
    made = [facility.exposure(session) for _ in range(4)]
    for number, exposure in enumerate(made):
        facility.process(exposure, trustworthy=number != 2)
    text = client.get(f"/sessions/{session.id}").text
    assert "3 good, 1 doubtful, 0 bad" in text
    narrowed = client.get(f"/sessions/{session.id}?grade=doubtful").text
    assert f'id="exposure-{made[2].id}"' in narrowed
    assert narrowed.count('class="card"') == 1
    assert client.get(f"/sessions/{session.id}?grade=fine").status_code == 400


def test_a_verdict_is_said_in_words_and_not_for_what_is_not_done(facility: Facility, client: httpx.Client) -> None:
    """The reason stands on the exposure's page; once it is quarantined, an older verdict is of no account."""
    session = facility.session()
    exposure = facility.exposure(session)
    facility.process(exposure, trustworthy=False)
    page = f"/sessions/{session.id}/exposures/{exposure.id}"
    text = client.get(page).text
    assert "The CTF fit is not to be trusted: only two zeros are seen." in text
    assert "fewer than ten exposures before" in text
    exposures.set_state(facility.catalog, exposure.id, ExposureState.QUARANTINED, "its file is torn")
    assert "The CTF fit is not to be trusted" not in client.get(page).text
    assert "0 doubtful" not in client.get(f"/sessions/{session.id}").text


def test_motion_that_was_not_found_is_never_shown_as_none_at_all(facility: Facility, client: httpx.Client) -> None:
    """Neither the exposure's page, nor the plots, nor a program is told of a motion of 0."""
    session = facility.session()
    exposure = facility.exposure(session)
    lost = replace(facility.motion(), total_motion_angstrom=0.0, error_angstrom=math.inf)
    facility.run(exposure, Step.ALIGN, lost)
    text = client.get(f"/sessions/{session.id}/exposures/{exposure.id}").text
    assert "the frames do not tell" in text
    assert "0.0 Å" not in text
    assert client.get(f"/api/exposures/{exposure.id}").json()["motion_found"] is False
    assert client.get(f"/api/sessions/{session.id}/readings").json()["total_motion_angstrom"] == [None]


def test_an_alert_stands_on_the_page_until_it_is_over(facility: Facility, client: httpx.Client) -> None:
    """What changed, since which exposure; afterwards it is among those that are over."""
    session = facility.session()
    exposure = facility.exposure(session)
    change = Change(Quantity.GAIN, exposure.id, exposure.id, 0.97, 0.02, 0.5, "The gain reference fits <less>.")
    judged = Judged(exposure.id, None, Verdict(Grade.GOOD, (), Measures()), "")
    exposures.set_state(facility.catalog, exposure.id, ExposureState.PROCESSING)
    assert verdicts.settle(facility.catalog, judged, raised=[change])
    address = f"/sessions/{session.id}"
    assert 'class="notice warn alert"' in client.get(address).text
    assert "The gain reference fits &lt;less&gt;." in client.get(address).text
    (alert,) = verdicts.alerts(facility.catalog, session.id)
    exposures.set_state(facility.catalog, exposure.id, ExposureState.PROCESSING)
    over = Ending(alert.id, exposure.id, "It fits again.", settled=False)
    assert verdicts.settle(facility.catalog, judged, ended=[over])
    assert 'class="notice warn alert"' not in client.get(address).text
    assert "It fits again." in client.get(address).text
    assert client.get(f"/api{address}/alerts").json()[0]["ending"] == "It fits again."
