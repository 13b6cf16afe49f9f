"""What scripts and programs ask."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain.catalog import events, exposures, sessions, steps
from coldchain.model.events import Severity
from coldchain.model.identity import new_id
from coldchain.model.optics import Optics
from coldchain.model.results import Reading, Step
from coldchain.model.session import SessionParameters
from coldchain.web.api import reading_columns
from coldchain.web.encoding import PlainResponse, plain
from tests.web.planted import BEGAN, Facility, plant_busy_session


def test_an_idle_page_gets_an_answer_without_a_body(facility: Facility, client: httpx.Client) -> None:
    """While nothing happens the stamp stays, and asking with it gives a 304."""
    session = plant_busy_session(facility, exposure_count=1)
    for url in ("/api/changes", f"/api/sessions/{session.id}/changes"):
        first = client.get(url)
        assert first.status_code == 200
        again = client.get(url, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(url, headers={"If-None-Match": '"another"'}).status_code == 200


def test_whatever_the_page_shows_changes_the_stamp(facility: Facility, client: httpx.Client) -> None:
    """A new exposure, a run's beginning and end, a copy, new parameters, a new owner and an event each show."""
    session = facility.session()
    url = f"/api/sessions/{session.id}/changes"
    catalog = facility.catalog
    stamps = [client.get(url).headers["ETag"]]

    def note() -> None:
        stamps.append(client.get(url).headers["ETag"])

    exposure = facility.exposure(session)
    note()
    run = steps.begin(catalog, exposure.id, Step.ALIGN, "k", {})
    note()
    steps.finish(catalog, run.id, outputs={}, seconds=1.0, result=None)
    note()
    facility.file(session, "a.xml")
    note()
    sessions.change_parameters(catalog, session.id, lambda _: SessionParameters(Optics(voltage_kilovolt=200.0)))
    note()
    sessions.update(catalog, session.id, owner_name="Someone else")
    note()
    events.record(catalog, Severity.ERROR, "store.full", "no space", session_id=session.id)
    note()
    assert len(set(stamps)) == len(stamps)


def test_readings_are_columns_of_one_length(facility: Facility, client: httpx.Client) -> None:
    """Each exposure is one place in every column; what is not known yet is null."""
    session = facility.session()
    facility.process(facility.exposure(session))
    facility.process(facility.exposure(session), trustworthy=False)
    facility.exposure(session)
    columns = client.get(f"/api/sessions/{session.id}/readings").json()
    assert columns.pop("clock") == "acquired"
    assert {len(column) for column in columns.values()} == {3}
    assert columns["trustworthy"] == [True, False, None]
    assert columns["picks"][2] is None


def test_plots_never_mix_two_clocks() -> None:
    """One exposure without the microscope's time puts all of them on our own clock."""

    def reading(number: int, acquired: datetime | None) -> Reading:
        found = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
        return Reading(new_id(), str(number), found, acquired, None, None, None, None, None)

    both = [reading(0, BEGAN + timedelta(hours=1)), reading(1, BEGAN)]
    assert reading_columns(both)["clock"] == "acquired"
    assert reading_columns(both)["name"] == ["1", "0"]
    mixed = [reading(0, BEGAN), reading(1, None)]
    assert reading_columns(mixed)["clock"] == "found"
    assert reading_columns(mixed)["name"] == ["0", "1"]
    assert reading_columns([])["clock"] == "found"


def test_a_session_and_an_exposure_are_told_whole(facility: Facility, client: httpx.Client) -> None:
    """Programs get what the pages show."""
    session = facility.session()
    exposure = facility.exposure(session)
    facility.process(exposure)
    told = client.get(f"/api/sessions/{session.id}").json()
    assert told["session"]["name"] == session.name
    assert told["counts"]["processed"] == 1
    assert client.get("/api/sessions").json()[0]["session"]["id"] == str(session.id)
    told = client.get(f"/api/exposures/{exposure.id}").json()
    assert len(told["results"]["motion"]["shift_x_angstrom"]) == 40
    assert [run["step"] for run in told["runs"]] == ["align", "ctf", "pick", "preview", "quality"]
    assert {copy["state"] for copy in told["files"][0]["replicas"]} == {"verified"}


@pytest.mark.parametrize("path", ["sessions/{}", "sessions/{}/changes", "sessions/{}/readings", "exposures/{}", "no"])
def test_unknown_ids_are_a_404_in_json(client: httpx.Client, path: str) -> None:
    """A program that asks for what is not there is told so in its own language."""
    answer = client.get(f"/api/{path.format(new_id())}")
    assert answer.status_code == 404
    assert answer.json()["status"] == 404
    assert client.get("/api/sessions/x").status_code == 404
    assert client.get("/api/events?minimum=loud").status_code == 400


def test_numbers_that_are_not_finite_become_null(facility: Facility, client: httpx.Client) -> None:
    """NaN is no JSON; the page must not break on it."""
    exposure = facility.exposure(facility.session())
    run = steps.begin(facility.catalog, exposure.id, Step.CTF, "k", {})
    fit = facility.ctf(math.nan, trustworthy=False)
    steps.finish(facility.catalog, run.id, outputs={}, seconds=1.0, result=fit)
    assert client.get(f"/api/exposures/{exposure.id}").json()["results"]["ctf"]["defocus_u_angstrom"] is None
    assert client.get(f"/sessions/{exposure.session_id}/exposures/{exposure.id}").status_code == 200
    assert client.get(f"/sessions/{exposure.session_id}").status_code == 200


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
)


@given(anything)
def test_any_value_can_be_sent(value: object) -> None:
    """No text, number or nesting makes an answer fail."""
    assert PlainResponse(value).body.isascii()
    assert plain(plain(value)) is not NotImplemented


def test_an_exposure_found_later_is_newer(facility: Facility) -> None:
    """Keys follow the order of finding; paging by them is paging by time."""
    session = facility.session()
    ids = [exposures.ensure(facility.catalog, session.id, str(n)).id for n in range(5)]
    assert ids == sorted(ids)
