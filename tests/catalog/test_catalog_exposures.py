"""An exposure is found, described, given its input, and processed once for each reason to."""

from __future__ import annotations

import pytest

from coldchain.catalog import engine, events, exposures, files, steps
from coldchain.catalog.engine import Catalog
from coldchain.errors import CatalogError
from coldchain.model.events import Severity
from coldchain.model.files import FileKind
from coldchain.model.identity import new_id
from coldchain.model.optics import ExposureMetadata, Optics
from coldchain.model.session import ExposureState, Session
from tests.catalog.catalog_givens import SHA256, arrive, expose, new_session


def test_an_exposure_is_made_once(catalog: Catalog, session: Session) -> None:
    """Its movie and its metadata meet in one exposure, whichever comes first."""
    first = exposures.ensure(catalog, session.id, "a/b")
    assert (first.state, first.input_file_id, first.metadata) == (ExposureState.WAITING, None, ExposureMetadata())
    second = exposures.ensure(catalog, session.id, "a/b", grid_square="7", foil_hole="8")
    third = exposures.ensure(catalog, session.id, "a/b", grid_square="other")
    assert first.id == second.id == third.id
    assert (third.grid_square, third.foil_hole) == ("7", "8")
    assert exposures.by_name(catalog, session.id, "a/b") == third == exposures.get(catalog, first.id)
    assert exposures.by_name(catalog, session.id, "a/B") is None
    assert exposures.ensure(catalog, new_session(catalog, folder="x").id, "a/b").id != first.id


def test_an_exposure_without_its_session_is_refused(catalog: Catalog) -> None:
    """A foreign key that points nowhere is a stated error."""
    with pytest.raises(CatalogError, match="not there"):
        exposures.ensure(catalog, new_id(), "a")


def test_unknown_ids_are_stated_errors(catalog: Catalog, session: Session) -> None:
    """Every function says which id is not there."""
    nobody, exposure = new_id(), exposures.ensure(catalog, session.id, "a")
    for attempt in (
        lambda: exposures.get(catalog, nobody),
        lambda: exposures.attach_metadata(catalog, nobody, ExposureMetadata()),
        lambda: exposures.attach_input(catalog, exposure.id, nobody),
        lambda: exposures.set_state(catalog, nobody, ExposureState.DONE),
        lambda: exposures.claim(catalog, nobody),
        lambda: exposures.wake_waiting(catalog, [nobody]),
    ):
        with pytest.raises(CatalogError, match=str(nobody)):
            attempt()


def test_new_metadata_lies_over_the_old(catalog: Catalog, session: Session) -> None:
    """What a later source says counts; what it is silent about stays."""
    exposure = exposures.ensure(catalog, session.id, "a")
    optics = Optics(pixel_size_angstrom=1.0, voltage_kilovolt=300.0)
    exposures.attach_metadata(catalog, exposure.id, ExposureMetadata(optics=optics, source="fei2", detector="K3"))
    newer = ExposureMetadata(optics=Optics(pixel_size_angstrom=0.5), source="epu-xml")
    found = exposures.attach_metadata(catalog, exposure.id, newer).metadata
    assert found == exposures.get(catalog, exposure.id).metadata
    assert found.optics == Optics(pixel_size_angstrom=0.5, voltage_kilovolt=300.0)
    assert (found.source, found.detector) == ("epu-xml", "K3")


@pytest.mark.parametrize(
    ("state", "new_optics", "after"),
    [
        (ExposureState.WAITING, False, ExposureState.READY),
        (ExposureState.READY, True, ExposureState.READY),
        (ExposureState.PROCESSING, True, ExposureState.READY),
        (ExposureState.PROCESSING, False, ExposureState.PROCESSING),
        (ExposureState.DONE, True, ExposureState.READY),
        (ExposureState.DONE, False, ExposureState.DONE),
        (ExposureState.QUARANTINED, True, ExposureState.QUARANTINED),
    ],
)
def test_metadata_makes_ready_what_it_changes(
    catalog: Catalog, session: Session, state: ExposureState, new_optics: bool, after: ExposureState
) -> None:
    """An exposure that waits is ready with any metadata; one that was processed, if its optics changed."""
    exposure = expose(catalog, session)
    exposures.set_state(catalog, exposure.id, state)
    optics = Optics(voltage_kilovolt=200.0) if new_optics else Optics()
    assert exposures.attach_metadata(catalog, exposure.id, ExposureMetadata(optics=optics)).state is after


@pytest.mark.parametrize("state", [ExposureState.DONE, ExposureState.PROCESSING])
def test_another_defect_list_makes_ready(catalog: Catalog, session: Session, state: ExposureState) -> None:
    """A defect list that is named late has the exposure processed again; the same name again does not."""
    exposure = expose(catalog, session)
    exposures.set_state(catalog, exposure.id, state)
    named = ExposureMetadata(defects_name="defects.txt")
    assert exposures.attach_metadata(catalog, exposure.id, named).state is ExposureState.READY
    exposures.set_state(catalog, exposure.id, state)
    assert exposures.attach_metadata(catalog, exposure.id, named).state is state


def test_metadata_alone_is_nothing_to_process(catalog: Catalog, session: Session) -> None:
    """An exposure without an input goes on waiting."""
    exposure = exposures.ensure(catalog, session.id, "a")
    assert exposures.attach_metadata(catalog, exposure.id, ExposureMetadata()).state is ExposureState.WAITING


def test_a_movie_replaces_a_micrograph_and_never_the_other_way(catalog: Catalog, session: Session) -> None:
    """What is processed is the movie where there is one, whichever comes first."""
    exposure = exposures.ensure(catalog, session.id, "a")
    image = arrive(catalog, session, "a.mrc", kind=FileKind.MICROGRAPH, exposure_id=exposure.id)
    movie = arrive(catalog, session, "a.tiff", exposure_id=exposure.id)
    assert exposures.attach_input(catalog, exposure.id, image.id).input_file_id == image.id
    exposures.set_state(catalog, exposure.id, ExposureState.DONE)
    found = exposures.attach_input(catalog, exposure.id, movie.id)
    assert (found.input_file_id, found.state) == (movie.id, ExposureState.READY)
    exposures.set_state(catalog, exposure.id, ExposureState.DONE)
    found = exposures.attach_input(catalog, exposure.id, image.id)
    assert (found.input_file_id, found.state) == (movie.id, ExposureState.DONE)


def test_the_same_input_again_changes_nothing(catalog: Catalog, session: Session) -> None:
    """A restarted collector has nothing processed twice."""
    exposure = expose(catalog, session)
    exposures.set_state(catalog, exposure.id, ExposureState.DONE)
    assert exposure.input_file_id is not None
    assert exposures.attach_input(catalog, exposure.id, exposure.input_file_id).state is ExposureState.DONE


def test_only_movies_and_micrographs_are_inputs(catalog: Catalog, session: Session) -> None:
    """A gain reference is nothing to process."""
    exposure = exposures.ensure(catalog, session.id, "a")
    gain = arrive(catalog, session, "gain.mrc", kind=FileKind.GAIN)
    with pytest.raises(CatalogError, match="gain"):
        exposures.attach_input(catalog, exposure.id, gain.id)


def test_ready_exposures_come_newest_first(catalog: Catalog, session: Session) -> None:
    """What the user has just taken is processed before the backlog."""
    made = [expose(catalog, session, f"e{i}") for i in range(4)]
    exposures.set_state(catalog, made[2].id, ExposureState.PROCESSING)
    assert exposures.ready(catalog, 2) == [made[3], made[1]]


def test_only_what_is_ready_can_be_claimed(catalog: Catalog, session: Session) -> None:
    """A claim takes a READY exposure, once, and none in another state."""
    exposure = expose(catalog, session)
    claimed = exposures.claim(catalog, exposure.id)
    assert claimed is not None and claimed.state is ExposureState.PROCESSING
    assert claimed == exposures.get(catalog, exposure.id)
    assert exposures.claim(catalog, exposure.id) is None
    for state in ExposureState:
        exposures.set_state(catalog, exposure.id, state, "why")
        assert (exposures.claim(catalog, exposure.id) is not None) == (state is ExposureState.READY)


def test_new_content_is_not_claimed_before_it_has_its_digest(catalog: Catalog, session: Session) -> None:
    """A movie that took another's place a moment ago is not computed before it is known what it is."""
    exposure = expose(catalog, session)
    newer = arrive(catalog, session, "a/movie.tiff", size_bytes=7, exposure_id=exposure.id)
    exposures.attach_input(catalog, exposure.id, newer.id)
    assert exposures.claim(catalog, exposure.id) is None
    assert exposures.get(catalog, exposure.id).state is ExposureState.READY
    files.set_digest(catalog, newer.id, SHA256)
    claimed = exposures.claim(catalog, exposure.id)
    assert claimed is not None and claimed.input_file_id == newer.id
    bare = exposures.ensure(catalog, session.id, "bare")
    exposures.set_state(catalog, bare.id, ExposureState.READY)
    assert exposures.claim(catalog, bare.id) is None


def test_what_nobody_processes_is_released(url: str, catalog: Catalog, session: Session) -> None:
    """PROCESSING exposures that nobody has in hand are READY again; those in hand, and another site's, are left."""
    held, stale, done = (expose(catalog, session, name) for name in ("held", "stale", "done"))
    for exposure in (held, stale):
        exposures.claim(catalog, exposure.id)
    exposures.set_state(catalog, done.id, ExposureState.DONE)
    there = engine.open_catalog(url, "there")
    theirs = expose(there, new_session(there, folder="x"))
    exposures.claim(there, theirs.id)
    assert steps.interrupt_running(catalog, keep={held.id}) == []
    found = {
        name: exposures.get(catalog, e.id).state for name, e in zip("hsdt", (held, stale, done, theirs), strict=True)
    }
    assert found == {"h": "processing", "s": "ready", "d": "done", "t": "processing"}
    there.close()


def test_what_waits_is_looked_at_without_a_trace_and_woken_once(url: str, catalog: Catalog, session: Session) -> None:
    """Looking at what waits for a gain or a mount writes nothing; waking moves only what still waits."""
    made = [expose(catalog, session, f"e{i}") for i in range(4)]
    for exposure in made[:3]:
        exposures.set_state(catalog, exposure.id, ExposureState.WAITING, "its gain is not there")
    bare = exposures.ensure(catalog, session.id, "bare")
    undigested = exposures.ensure(catalog, session.id, "undigested")
    movie = arrive(catalog, session, "undigested.tiff", exposure_id=undigested.id)
    exposures.attach_input(catalog, undigested.id, movie.id)
    exposures.set_state(catalog, undigested.id, ExposureState.WAITING, "r")
    there = engine.open_catalog(url, "there")
    assert exposures.waiting(there, limit=9, before=None) == []
    there.close()
    noted = events.recent(catalog)
    first = exposures.waiting(catalog, limit=2, before=None)
    second = exposures.waiting(catalog, limit=2, before=first[-1].id)
    assert [exposure.name for exposure in first + second] == ["e2", "e1", "e0"]
    assert exposures.waiting(catalog, limit=2, before=second[-1].id) == []
    assert events.recent(catalog) == noted
    exposures.set_state(catalog, made[1].id, ExposureState.QUARANTINED, "r")
    assert exposures.wake_waiting(catalog, [made[0].id, made[0].id, made[1].id, made[3].id, bare.id]) == 1
    states = [exposures.get(catalog, exposure.id).state for exposure in (*made, bare)]
    assert states == ["ready", "quarantined", "waiting", "ready", "waiting"]


def test_a_gallery_is_paged_newest_first(catalog: Catalog, session: Session) -> None:
    """Pages follow each other without gap or repetition while exposures are added."""
    made = [exposures.ensure(catalog, session.id, f"e{i}") for i in range(5)]
    exposures.ensure(catalog, new_session(catalog, folder="x").id, "elsewhere")
    first = exposures.page(catalog, session.id, limit=2, before=None)
    exposures.ensure(catalog, session.id, "new")
    second = exposures.page(catalog, session.id, limit=9, before=first[-1].id)
    assert first + second == made[::-1]


def test_a_result_does_not_hide_a_change_made_meanwhile(catalog: Catalog, session: Session) -> None:
    """Metadata that comes while an exposure is processed has it processed again when it is done."""
    exposure = expose(catalog, session)
    taken = exposures.set_state(catalog, exposure.id, ExposureState.PROCESSING, only_from=ExposureState.READY)
    assert taken.state is ExposureState.PROCESSING
    exposures.attach_metadata(catalog, exposure.id, ExposureMetadata(optics=Optics(voltage_kilovolt=200.0)))
    ended = exposures.set_state(catalog, exposure.id, ExposureState.DONE, only_from=ExposureState.PROCESSING)
    assert ended.state is ExposureState.READY


def test_every_move_is_an_event(catalog: Catalog, session: Session) -> None:
    """A quarantine is an error with its reason; the same state and reason again are no event."""
    exposure = expose(catalog, session)
    for _ in range(2):
        exposures.set_state(catalog, exposure.id, ExposureState.QUARANTINED, "a\nb")
    (event,) = events.recent(catalog, minimum=Severity.ERROR)
    assert (event.kind, event.exposure_id, event.session_id) == ("exposure.quarantined", exposure.id, session.id)
    assert event.message == "a/movie is quarantined: a\nb"
