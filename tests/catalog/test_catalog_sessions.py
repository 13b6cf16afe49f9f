"""A session's parameters, life and counters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coldchain.catalog import engine, events, exposures, replicas, sessions, tasks
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError
from coldchain.model.files import FileState, ReplicaState, VerificationLevel
from coldchain.model.identity import new_id
from coldchain.model.optics import Optics
from coldchain.model.session import ExposureState, Layout, Session, SessionParameters, SessionState
from tests.catalog.catalog_givens import SHA256, arrive, expose, new_session


def test_instruments_and_projects_are_made_once(catalog: Catalog) -> None:
    """Sessions that give the same names share instrument and project; names differ by their letters' case."""
    given = {"p1": "p", "p2": "p", "p3": "P"}
    first, second, third = (
        sessions.create(
            catalog,
            name=folder,
            instrument_name="krios",
            source_root="/camera",
            folder=folder,
            layout=Layout.PLAIN,
            project_name=project,
        )
        for folder, project in given.items()
    )
    assert first.instrument == second.instrument == third.instrument
    assert first.project == second.project
    assert third.project != first.project


def test_a_session_comes_back_as_it_was_made(catalog: Catalog) -> None:
    """All that is given to `create` is there in every way of finding it."""
    made = sessions.create(
        catalog,
        name="visit",
        instrument_name="krios",
        source_root="/camera",
        folder="2026/visit",
        layout=Layout.SERIALEM,
        project_name="ribosome",
        owner_name="Ada",
        owner_mail="ada@example.org",
        parameters=SessionParameters(optics=Optics(pixel_size_angstrom=0.53), particle_diameter_angstrom=120.0),
    )
    assert made.project is not None and made.project.name == "ribosome"
    assert (made.state, made.layout, made.parameters.optics.pixel_size_angstrom) == ("open", "serialem", 0.53)
    assert made == sessions.get(catalog, made.id) == sessions.by_name(catalog, "visit")
    assert made == sessions.by_name(catalog, str(made.id))
    assert made == sessions.find(catalog, instrument_name="krios", folder="2026/visit")
    assert sessions.find(catalog, instrument_name="krios", folder="2026") is None
    assert sessions.find(catalog, instrument_name="talos", folder="2026/visit") is None


def test_a_folder_has_one_session(catalog: Catalog, session: Session) -> None:
    """Whoever creates a session for a folder that has one gets that one as it is, or is told whose it is."""
    assert new_session(catalog, name="another", folder="visit") == session
    with pytest.raises(CatalogError, match="already belongs to session visit"):
        sessions.create(
            catalog,
            name="another",
            instrument_name="krios",
            source_root="/camera",
            folder="visit",
            layout=Layout.PLAIN,
            only_new=True,
        )
    talos = sessions.create(
        catalog, name="t", instrument_name="talos", source_root="/c", folder="visit", layout=Layout.PLAIN, only_new=True
    )
    assert sessions.list_all(catalog) == [talos, session]


def test_a_movie_root_can_be_mounted_elsewhere(catalog: Catalog, session: Session) -> None:
    """A session's root follows its instrument's; the move is an event, the same root again is none."""
    for _ in range(2):
        assert sessions.set_source_root(catalog, session.id, "/mnt/krios").source_root == "/mnt/krios"
    kinds = [event.kind for event in events.recent(catalog, session_id=session.id)]
    assert kinds == ["session.moved", "session.created"]


def test_sessions_are_listed_newest_first(catalog: Catalog) -> None:
    """The list begins with the session made last."""
    made = [new_session(catalog, name=f"v{i}", folder=f"v{i}") for i in range(3)]
    assert sessions.list_all(catalog) == made[::-1]


def test_an_unknown_name_gives_the_nearest(catalog: Catalog, session: Session) -> None:
    """A mistyped name is answered with the one that was meant."""
    with pytest.raises(CatalogError, match="The nearest is 'visit'"):
        sessions.by_name(catalog, "vist")
    with pytest.raises(CatalogError, match="session list"):
        sessions.by_name(catalog, "zzzz")


def test_an_ambiguous_name_gives_the_ids(catalog: Catalog, session: Session) -> None:
    """Two sessions of one name are told apart by their ids, which `by_name` takes."""
    other = new_session(catalog, folder="elsewhere")
    with pytest.raises(CatalogError) as caught:
        sessions.by_name(catalog, "visit")
    assert str(session.id) in str(caught.value) and str(other.id) in str(caught.value)


def test_an_unknown_id_is_a_stated_error(catalog: Catalog) -> None:
    """Every function says which id is not there."""
    nobody = new_id()
    for attempt in (
        lambda: sessions.get(catalog, nobody),
        lambda: sessions.update(catalog, nobody, owner_name="x"),
        lambda: sessions.change_parameters(catalog, nobody, lambda parameters: parameters),
        lambda: sessions.set_source_root(catalog, nobody, "/camera"),
        lambda: sessions.set_state(catalog, nobody, SessionState.CLOSED),
        lambda: sessions.reprocess(catalog, nobody, only_quarantined=False, force=False),
    ):
        with pytest.raises(CatalogError, match=str(nobody)):
            attempt()


def test_a_session_goes_through_its_life(catalog: Catalog, session: Session) -> None:
    """Each move is an event; the same state again is none."""
    for state in (SessionState.CLOSED, SessionState.CLOSED, SessionState.RELEASED):
        assert sessions.set_state(catalog, session.id, state).state is state
    kinds = [event.kind for event in events.recent(catalog, session_id=session.id)]
    assert kinds == ["session.released", "session.closed", "session.created"]


def test_what_is_not_given_stays(catalog: Catalog, session: Session) -> None:
    """An update changes what is given; the project's empty name takes the session out of its project."""
    sessions.update(catalog, session.id, project_name="p", owner_name="Ada", owner_mail="a@b")
    assert sessions.update(catalog, session.id, owner_name="Eve").owner_mail == "a@b"
    project = sessions.get(catalog, session.id).project
    assert project is not None
    assert project.name == "p"
    assert sessions.update(catalog, session.id, project_name="").project is None


ALL_STATES = list(ExposureState)


@pytest.mark.parametrize("state", ALL_STATES)
def test_changed_parameters_make_every_exposure_ready(catalog: Catalog, session: Session, state: ExposureState) -> None:
    """Whatever became of an exposure, new parameters have it processed again; one without an input still waits."""
    exposure, other = expose(catalog, session), expose(catalog, new_session(catalog, folder="other"))
    bare = exposures.ensure(catalog, session.id, "bare")
    exposures.set_state(catalog, exposure.id, state, "before")
    exposures.set_state(catalog, other.id, state, "before")
    changed = sessions.change_parameters(
        catalog, session.id, lambda _: SessionParameters(particle_diameter_angstrom=90.0)
    )
    assert changed.parameters.particle_diameter_angstrom == 90.0
    found = exposures.get(catalog, exposure.id)
    assert (found.state, found.reason) == (ExposureState.READY, "")
    assert exposures.get(catalog, bare.id).state is ExposureState.WAITING
    assert exposures.get(catalog, other.id).reason == "before"


def test_the_same_parameters_again_change_nothing(catalog: Catalog, session: Session) -> None:
    """Only a change has anything processed again."""
    exposure = expose(catalog, session)
    exposures.set_state(catalog, exposure.id, ExposureState.DONE)
    sessions.change_parameters(catalog, session.id, lambda _: SessionParameters())
    assert exposures.get(catalog, exposure.id).state is ExposureState.DONE


def test_parameters_are_merged_where_they_stand(catalog: Catalog, session: Session) -> None:
    """A change made from what somebody read a while ago does not set back what was changed meanwhile."""
    exposure = expose(catalog, session)
    sessions.reprocess(catalog, session.id, only_quarantined=False, force=True)
    exposures.set_state(catalog, exposure.id, ExposureState.DONE)
    changed = sessions.change_parameters(catalog, session.id, lambda p: replace(p, particle_diameter_angstrom=90.0))
    assert changed.parameters == SessionParameters(particle_diameter_angstrom=90.0, generation=1)
    assert changed == sessions.get(catalog, session.id)
    assert exposures.get(catalog, exposure.id).state is ExposureState.READY
    exposures.set_state(catalog, exposure.id, ExposureState.DONE)
    assert sessions.change_parameters(catalog, session.id, lambda parameters: parameters) == changed
    assert exposures.get(catalog, exposure.id).state is ExposureState.DONE


def test_a_parameter_can_be_taken_back(catalog: Catalog, session: Session) -> None:
    """None lets the metadata count again."""
    sessions.change_parameters(catalog, session.id, lambda _: SessionParameters(Optics(voltage_kilovolt=200.0), 90.0))
    assert (
        sessions.change_parameters(catalog, session.id, lambda _: SessionParameters()).parameters == SessionParameters()
    )


def test_reprocess_counts_what_it_marks(catalog: Catalog, session: Session) -> None:
    """All, or only the quarantined; force raises the generation, so that no old result counts."""
    done, quarantined = expose(catalog, session, "a"), expose(catalog, session, "b")
    exposures.set_state(catalog, done.id, ExposureState.DONE)
    exposures.set_state(catalog, quarantined.id, ExposureState.QUARANTINED, "why")
    assert sessions.reprocess(catalog, session.id, only_quarantined=True, force=False) == 1
    assert exposures.get(catalog, done.id).state is ExposureState.DONE
    assert sessions.get(catalog, session.id).parameters.generation == 0
    assert sessions.reprocess(catalog, session.id, only_quarantined=False, force=True) == 2
    assert exposures.get(catalog, done.id).state is ExposureState.READY
    assert sessions.get(catalog, session.id).parameters.generation == 1


def test_an_empty_session_counts_nothing(catalog: Catalog, session: Session) -> None:
    """All counters begin at 0, as integers."""
    counted = sessions.counts(catalog, session.id)
    assert {getattr(counted, name) for name in counted.__slots__} == {0}


def _copied(catalog: Catalog, file_id: object, *states: ReplicaState) -> None:
    for replica, state in zip(replicas.of_file(catalog, file_id), states, strict=False):  # type: ignore[arg-type]
        verified = state is ReplicaState.VERIFIED
        replicas.record_copy(
            catalog,
            replica.id,
            state=state,
            level=VerificationLevel.MEDIUM if verified else None,
            sha256=SHA256 if verified else None,
            detail="",
        )


def test_counters_tell_the_truth(catalog: Catalog, session: Session) -> None:
    """Files count once, by their newest content; verified means by every store that wants them."""
    verified, failed = ReplicaState.VERIFIED, ReplicaState.FAILED
    _copied(catalog, arrive(catalog, session, "both", size_bytes=1).id, verified, verified)
    _copied(catalog, arrive(catalog, session, "one", size_bytes=10).id, verified)
    _copied(catalog, arrive(catalog, session, "one failed", size_bytes=100).id, verified, failed)
    arrive(catalog, session, "none", size_bytes=1_000)
    arrive(catalog, session, "no store", size_bytes=10_000, stores=())
    arrive(catalog, session, "damaged", size_bytes=100_000, state=FileState.DAMAGED)
    arrive(catalog, session, "unreadable", size_bytes=0, state=FileState.UNREADABLE)
    _copied(catalog, arrive(catalog, session, "changed", size_bytes=7).id, verified, verified)
    arrive(catalog, session, "changed", size_bytes=1_000_000)
    arrive(catalog, new_session(catalog, folder="other"), "both", size_bytes=99)
    for number, state in enumerate(ALL_STATES):
        exposures.set_state(catalog, exposures.ensure(catalog, session.id, f"e{number}").id, state)
    counted = sessions.counts(catalog, session.id)
    assert (counted.files_arrived, counted.bytes_arrived) == (8, 1_111_111)
    assert (counted.files_copied, counted.files_verified, counted.bytes_verified) == (3, 1, 1)
    assert counted.files_failed == 3
    assert (counted.exposures, counted.waiting, counted.processed, counted.quarantined) == (5, 1, 1, 1)


def test_another_sites_rows_are_read_but_not_worked_on(url: str, catalog: Catalog, session: Session) -> None:
    """Two sites share what they know; each copies and processes its own."""
    exposure = expose(catalog, session)
    there = engine.open_catalog(url, "there")
    assert sessions.list_all(there) == [session] and exposures.get(there, exposure.id) == exposure
    assert exposures.ready(there, 9) == []
    stores = ["live", "archive"]
    assert tasks.to_copy(there, state=ReplicaState.WANTED, stores=stores, limit=9, exclude=[]) == ([], None)
    there.close()
