"""Whatever a file system, a microscope or a person writes comes back exactly, or is refused with a reason."""

from __future__ import annotations

import copy
import math
import os
import pickle
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coldchain.catalog import documents, events, exposures, files, results, sessions, tasks
from coldchain.catalog.columns import UtcDateTime, _as_key, original_text, storable_text
from coldchain.catalog.engine import Catalog
from coldchain.catalog.tables import ExposureRow, SessionRow
from coldchain.errors import CatalogError
from coldchain.model.events import Severity
from coldchain.model.files import ReplicaState
from coldchain.model.optics import ExposureMetadata, Optics
from coldchain.model.results import MotionResult, Step
from coldchain.model.session import Session, SessionParameters
from tests.catalog.catalog_givens import arrive, ctf, expose, known, new_session, run_step

HOSTILE = [
    "quote ' double \" back \\ percent % under _ semicolon ; -- DROP TABLE files",
    "new\nline\rand\ttab",
    os.fsdecode(b"bytes \xff\xfe\x80 that are no UTF-8"),
    "four bytes 🧊 and e\u0301 decomposed, é composed",
    "␛ and ␛dc80 of its own",
    " leading and trailing ",
    "right-to-left \u202e override",
]


@given(st.uuids())
def test_a_key_is_the_uuid_of_its_digits(value: UUID) -> None:
    """It is equal, ordered, hashed, copied and told as the UUID that Python makes of the digits."""
    key = _as_key(value.hex)
    assert type(key) is UUID and key == value and hash(key) == hash(value) and str(key) == str(value)
    assert not key < value and pickle.loads(pickle.dumps(key)) == copy.copy(key) == value
    assert key.is_safe is value.is_safe and key.bytes == value.bytes


@pytest.mark.parametrize(
    "digits",
    [
        "",
        "ab",
        "-" + "0" * 31,
        "f" * 36,
        "0x" + "0" * 30,
        "1_" + "0" * 30,
        "g" * 32,
        " " * 2 + "0" * 30,
        "٣" * 32,
        b"0" * 32,
    ],
)
def test_a_key_that_is_none_is_a_stated_error(digits: str) -> None:
    """What a failing disk or another program has left in a key's place is never taken for another key."""
    with pytest.raises(CatalogError, match="hexadecimal digits"):
        _as_key(digits)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_strings_survive_exactly(catalog: Catalog, text: str) -> None:
    """Paths, names, owners, reasons, messages and metadata come back as they were given."""
    session = sessions.create(
        catalog,
        name=text,
        instrument_name=text,
        source_root=f"/{text}",
        folder=text,
        layout="plain",  # type: ignore[arg-type]
        project_name=text,
        owner_name=text,
        owner_mail=text,
    )
    assert sessions.by_name(catalog, text) == sessions.find(catalog, instrument_name=text, folder=text) == session
    assert {session.name, session.folder, session.owner_name, session.instrument.name} == {text}
    exposure = exposures.ensure(catalog, session.id, text, grid_square=text, foil_hole=text)
    exposures.attach_metadata(catalog, exposure.id, ExposureMetadata(movie_name=text))
    file = arrive(catalog, session, text, stores=(text,), detail=text, exposure_id=exposure.id)
    found = exposures.by_name(catalog, session.id, text)
    assert found is not None
    assert (found.name, found.grid_square, found.metadata.movie_name) == (text, text, text)
    assert files.get(catalog, file.id).relative_path == files.get(catalog, file.id).detail == text
    assert list(known(catalog, session.id)) == [text]
    (task,), _ = tasks.to_copy(catalog, state=ReplicaState.WANTED, stores=[text], limit=1, exclude=[])
    assert task.replicas[0].store == text
    events.record(catalog, Severity.ERROR, "a.b", text, session_id=session.id)
    assert events.recent(catalog, session_id=session.id, minimum=Severity.ERROR)[0].message == text


def test_a_nul_is_refused(catalog: Catalog, session: Session) -> None:
    """No file system and no database takes a NUL: it is refused by name, in paths and in text."""
    for attempt in (
        lambda: arrive(catalog, session, "a\0b"),
        lambda: arrive(catalog, session, detail="a\0b"),
        lambda: exposures.ensure(catalog, session.id, "a\0b"),
        lambda: exposures.ensure(catalog, session.id, "a", grid_square="a\0b"),
        lambda: new_session(catalog, name="a\0b", folder="other"),
        lambda: events.record(catalog, Severity.INFO, "a.b", "a\0b"),
    ):
        with pytest.raises(CatalogError, match="NUL"):
            attempt()


def test_too_long_names_and_paths_are_refused(catalog: Catalog, session: Session) -> None:
    """What MariaDB would cut or refuse is refused on SQLite too."""
    assert new_session(catalog, name="n" * 255, folder="long").name == "n" * 255
    with pytest.raises(CatalogError, match="256 characters"):
        new_session(catalog, name="n" * 256, folder="longer")
    assert arrive(catalog, session, "p" * 4096).relative_path == "p" * 4096
    with pytest.raises(CatalogError, match="4097 bytes"):
        arrive(catalog, session, "p" * 4097)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../other/a", "a/../../b", "."])
def test_paths_that_leave_the_session_are_refused(catalog: Catalog, session: Session, path: str) -> None:
    """A file's path stays inside its session's folder."""
    with pytest.raises(CatalogError, match="inside its session"):
        arrive(catalog, session, path)


def test_a_path_that_no_file_system_gives_is_refused(catalog: Catalog, session: Session) -> None:
    """A surrogate that os.fsdecode never makes is a stated error."""
    with pytest.raises(CatalogError, match="no file name"):
        arrive(catalog, session, "a\ud800b")


@given(st.text(st.characters(exclude_characters="\0", codec=None), max_size=40))
def test_any_text_comes_back(text: str) -> None:
    """Escaping is the identity for common text and reversible for all."""
    stored = storable_text(text)
    stored.encode("utf-8")
    assert original_text(stored) == text
    if text.isascii():
        assert stored == text


def test_times_keep_their_microseconds_and_are_utc(catalog: Catalog, session: Session) -> None:
    """An aware time of any zone comes back as the same instant, in UTC; a naive one is refused."""
    instant = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    with catalog.writing() as unit:
        unit.get_one(SessionRow, session.id).created_at = instant
    found = sessions.get(catalog, session.id).created_at
    assert found == instant and found.tzinfo is UTC and found.microsecond == 123456
    with pytest.raises(CatalogError, match="no time zone"):
        UtcDateTime().process_bind_param(instant.replace(tzinfo=None), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("modified_ns", [0, -1, 2**63, 9_223_372_036_854_775_807_000_000_000])
def test_time_stamps_beyond_64_bits_survive(catalog: Catalog, session: Session, modified_ns: int) -> None:
    """A file dated to any year is taken in and recognised again."""
    first = arrive(catalog, session, modified_ns=modified_ns)
    assert first.modified_ns == modified_ns
    assert arrive(catalog, session, modified_ns=modified_ns) == first


def test_results_that_are_not_finite_come_back(catalog: Catalog, session: Session) -> None:
    """A fit without a ring (infinity) or without a value (NaN) is kept; the plots leave it out."""
    exposure = expose(catalog, session)
    run_step(catalog, exposure, Step.CTF, ctf(math.nan, fit_resolution_angstrom=math.inf))
    run_step(catalog, exposure, Step.ALIGN, MotionResult((0.0,), (0.0,), -math.inf, 0.0, 0.0, False))
    found = results.newest(catalog, exposure.id)
    assert found.ctf is not None and found.motion is not None
    assert math.isnan(found.ctf.defocus_u_angstrom) and found.ctf.fit_resolution_angstrom == math.inf
    assert found.motion.total_motion_angstrom == -math.inf
    (reading,) = results.readings(catalog, session.id)
    assert (reading.defocus_angstrom, reading.fit_resolution_angstrom, reading.total_motion_angstrom) == (None,) * 3


def test_json_without_numbers_for_numbers_is_refused(catalog: Catalog, session: Session) -> None:
    """NaN in metadata is no JSON: it is a stated error and nothing is written."""
    exposure = expose(catalog, session)
    with pytest.raises(CatalogError, match="finite"):
        exposures.attach_metadata(catalog, exposure.id, ExposureMetadata(tilt_degrees=math.nan))
    assert exposures.get(catalog, exposure.id).metadata == ExposureMetadata()


def test_an_unknown_word_is_a_stated_error(catalog: Catalog, session: Session) -> None:
    """A state that only a newer version knows says to upgrade."""
    with catalog.writing() as unit:
        unit.connection().exec_driver_sql("UPDATE sessions SET state = 'frozen'")
    with pytest.raises(CatalogError, match=r"frozen.*open, closed, released.*upgrade"):
        sessions.get(catalog, session.id)


finite = st.none() | st.floats(allow_nan=False, allow_infinity=False)
optics = st.builds(
    Optics,
    pixel_size_angstrom=finite,
    voltage_kilovolt=finite,
    dose_e_per_square_angstrom=finite,
    frame_count=st.none() | st.integers(0, 10_000),
    gain=st.none() | st.text(),
)
metadata = st.builds(
    ExposureMetadata,
    optics=optics,
    acquired_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    applied_defocus_micrometer=finite,
    detector=st.none() | st.text(),
    source=st.text(),
)


@given(metadata)
def test_metadata_comes_back_from_json(value: ExposureMetadata) -> None:
    """Metadata → JSON → metadata is the identity; a newer version's keys are ignored, an older's gaps are defaults."""
    document = documents.metadata_to_json(value)
    assert documents.metadata_from_json(document) == value
    newer = {**document, "vacuum_pascal": 1e-6, "optics": {**document["optics"], "cc_millimeter": 2.7}}
    assert documents.metadata_from_json(newer) == value
    assert documents.metadata_from_json({}) == ExposureMetadata()


@given(st.builds(SessionParameters, optics=optics, particle_diameter_angstrom=finite, generation=st.integers(0, 99)))
def test_parameters_come_back_from_json(value: SessionParameters) -> None:
    """Parameters → JSON → parameters is the identity."""
    assert documents.parameters_from_json(documents.parameters_to_json(value)) == value


def test_a_newer_versions_keys_survive_an_older_writer(catalog: Catalog, session: Session) -> None:
    """Writing metadata over a newer version's keeps the keys that this version does not know."""
    exposure = expose(catalog, session)
    with catalog.writing() as unit:
        row = unit.get_one(ExposureRow, exposure.id)
        row.details = {**row.details, "vacuum_pascal": 1e-6, "optics": {"cc_millimeter": 2.7}}
    exposures.attach_metadata(catalog, exposure.id, ExposureMetadata(optics=Optics(voltage_kilovolt=300.0)))
    with catalog.reading() as unit:
        details = unit.get_one(ExposureRow, exposure.id).details
    assert (details["vacuum_pascal"], details["optics"]["cc_millimeter"]) == (1e-6, 2.7)
    assert details["optics"]["voltage_kilovolt"] == 300.0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw and b"/" not in raw))
def test_any_file_name_is_found_again(catalog: Catalog, raw: bytes) -> None:
    """Any bytes that a file system takes as a name are a path that is found again."""
    name = os.fsdecode(b"d/" + raw)
    if raw in (b".", b".."):
        return
    session = new_session(catalog, folder=name)
    arrive(catalog, session, name)
    assert list(known(catalog, session.id)) == [name]
    assert arrive(catalog, session, name).id == arrive(catalog, session, name).id
