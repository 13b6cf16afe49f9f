"""Two primaries never conflict: each row has one writer, keys never collide, and nothing that is referred to goes."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Index, UniqueConstraint, create_engine, inspect, select

from coldchain import catalog as room
from coldchain.catalog import (
    engine,
    events,
    exposures,
    files,
    frame_sets,
    holds,
    page,
    places,
    replicas,
    sessions,
    steps,
)
from coldchain.catalog.engine import Catalog
from coldchain.catalog.ownership import RULES, Kind
from coldchain.catalog.tables import Base, EventRow, FileRow
from coldchain.errors import CatalogError
from coldchain.model.events import Event, Severity
from coldchain.model.files import CopyRecord, FileState, ReplicaState, VerificationLevel
from coldchain.model.identity import first_id_at, new_id
from coldchain.model.optics import ExposureMetadata
from coldchain.model.results import Step
from coldchain.model.session import ExposureState, Layout, Session, SessionState
from tests.catalog.catalog_givens import arrive, execute, expose
from tests.catalog.many_rows import Source

TABLES = pytest.mark.parametrize("table", Base.metadata.sorted_tables, ids=lambda table: table.name)
ROOM = Path(room.__file__).parent


@TABLES
def test_two_sites_can_never_collide(table) -> None:
    """Every table has a key minted by its writer and a site; nothing else is unique, and nothing cascades."""
    assert [column.name for column in table.primary_key] == ["id"]
    assert table.c.id.default is not None and table.c.id.default.arg.__wrapped__ is new_id
    assert not any(column.autoincrement is True or column.identity or column.computed for column in table.columns)
    assert not table.c.site.nullable
    assert not any(isinstance(index, Index) and index.unique for index in table.indexes)
    assert not any(column.unique for column in table.columns)
    assert not any(isinstance(constraint, UniqueConstraint) for constraint in table.constraints)
    assert all(key.ondelete is None and key.onupdate is None for key in table.foreign_keys)


def test_every_table_says_who_writes_it() -> None:
    """The rule names each table, and no other; what may be deleted is referred to by nothing."""
    assert set(RULES) == set(Base.metadata.tables)
    assert all(rule.writer for rule in RULES.values())
    referred = {key.column.table.name for table in Base.metadata.sorted_tables for key in table.foreign_keys}
    deleted = {name for name, rule in RULES.items() if rule.deleted}
    assert not referred & deleted
    assert all(RULES[name].kind is Kind.OWNED for name in deleted)


def test_nothing_else_is_unique_in_the_database_itself(url: str, database: str) -> None:
    """As migrated, too: only keys are unique, no key is made by the database, no deletion or change cascades."""
    opened = create_engine(url)
    with opened.connect() as connection:
        there = inspect(connection)
        for name in Base.metadata.tables:
            assert there.get_pk_constraint(name)["constrained_columns"] == ["id"]
            assert not [index["name"] for index in there.get_indexes(name) if index["unique"]]
            assert there.get_unique_constraints(name) == []
            assert not any(key["options"] for key in there.get_foreign_keys(name))
            assert not any(column.get("autoincrement") is True for column in there.get_columns(name)), name
    opened.dispose()
    if database == "mariadb":
        made = "SELECT table_name FROM information_schema.columns WHERE table_schema = database() AND extra <> ''"
        assert execute(url, made) == []
        kinds = "SELECT engine, table_collation FROM information_schema.tables WHERE table_schema = database()"
        odd = execute(url, kinds + " AND table_name <> 'alembic_version' GROUP BY 1, 2")
        assert [tuple(row.values()) for row in odd] == [("InnoDB", "utf8mb4_nopad_bin")]


def _deletes(path: Path) -> Iterator[str]:
    """What a module deletes: the argument of every call of `delete`, and SQL that says so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("delete", "drop_table", "drop_all", "drop"):
                yield ast.unparse(node.args[0]) if node.args else name
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = node.value.upper().split()
            if any(pair in (("DELETE", "FROM"), ("TRUNCATE", "TABLE"), ("DROP", "TABLE")) for pair in pairwise(words)):
                yield node.value


def test_nothing_that_is_referred_to_is_deleted() -> None:
    """By its source the catalog deletes rows of three tables, which nothing refers to; the transaction checks the
    rest."""
    found = {
        (path.name, what)
        for path in ROOM.rglob("*.py")
        if path.parent.name not in ("versions", "leginon")
        for what in _deletes(path)
    }
    assert found == {
        ("notices.py", "NoticeToldRow"),
        ("scans.py", "row"),  # a ScannedFolderRow
        ("backup_server.py", "DROP TABLE `{}`"),  # what a restore into an empty database had begun
        ("retiring.py", "row"),  # a ReplicaRow of the camera's own disk, which was made for its clearing
    }


@dataclass(frozen=True)
class ByKey:
    """A statement that reaches rows by their keys alone: who uses it, and where those rows were found to be this
    site's, by which words."""

    used_by: set[str]
    checked_in: str
    words: str


# Of `replicas`, where many copies are written down at once.
BY_KEY = {
    # Each copy is looked at, and another site's is refused, before the first is written.
    "_SET_TRIED": ByKey({"_SET_VERIFIED", "_record_left"}, "_record_left", "require_own_site(unit, copy.site, "),
    "_SET_VERIFIED": ByKey({"_record_left"}, "_record_left", "require_own_site(unit, copy.site, "),
    # The keys are those of a query of this site's copies; whatever it does not find is looked at one by one.
    "_set_verified": ByKey({"_record"}, "_alike", "alike_query(unit.info['site'], "),
    "_SET_NAME": ByKey({"_set_verified"}, "alike_query", "ReplicaRow.site == site"),
}


def test_a_statement_that_changes_many_rows_names_its_site() -> None:
    """By their source: the WHERE of each such statement demands this site of the rows that it changes, but for those
    of `BY_KEY`, whose rows were found to be this site's in the same transaction."""
    modules = [path for path in ROOM.rglob("*.py") if path.parent.name not in ("versions", "leginon")]
    sources = {path.stem: Source(path.read_text()) for path in modules}
    found = {(name, *astuple(change)) for name, source in sources.items() for change in source.changes()}
    strict = {
        ("frame_sets", "mark_used"),
        ("notices", "record"),
        ("orphans", "_mark"),
        ("replicas", "_SET_DIGEST"),
        ("sessions", "_mark_ready"),
        ("stores", "_want_again"),
    }
    assert {each[:2] for each in found if each[2]} == strict
    assert {each[:2] for each in found if not each[2]} <= {("replicas", name) for name in BY_KEY}
    for name, rule in BY_KEY.items():
        assert sources["replicas"].users(name) == rule.used_by, name
        assert rule.words in sources["replicas"].of(rule.checked_in), name
    assert not [path for path in modules if re.search(r"\bUPDATE\s+\S+\s+SET\b", path.read_text())]


@pytest.mark.parametrize(
    ("statement", "names_site"),
    [
        ("update(A).where(A.id == 1, A.site == catalog.site).values(a=1)", True),
        ("update(A).values(a=1).where(A.id == 1).where(A.site == unit.info['site'])", True),
        ("update(A).where(A.site == bindparam('by')), [{'by': catalog.site}]", True),
        ("update(A).where(A.site == bindparam('by')), [{'by': catalog.site}, {'by': other}]", False),
        ("update(A).where(A.site == bindparam('by'))", False),
        ("update(A).where(A.id == 1), select(A).where(A.site == catalog.site)", False),
        ("update(A).where(A.id.in_(select(A.id).where(A.site == catalog.site)))", False),
        ("update(A).where(B.site == catalog.site)", False),
        ("update(A).where(A.site == other)", False),
        ("update(A).where(A.site != catalog.site)", False),
        ("update(A).where((A.site == catalog.site) | (A.id == 1))", False),
        ("delete(A).where(*mine(catalog.site))", True),
        ("delete(A).where(*mine(other))", False),
        ("delete(A).where(*these)", True),
        ("delete(A)", False),
        ("A.__table__.update()", False),
        ("unit.query(A).delete()", False),
    ],
)
def test_what_names_no_site_is_found(statement: str, names_site: bool) -> None:
    """Only a condition of the statement itself counts, on the table that it changes, and that nothing can make void."""
    source = Source(
        "from sqlalchemy import bindparam, delete, select, update\n"
        "def mine(site):\n    return (A.site == site, A.id == 1)\n"
        f"def f():\n    these = (A.site == catalog.site, A.id == 1)\n    {statement}\n"
    )
    assert [astuple(change) for change in source.changes()] == [("f", names_site)]


def test_copies_of_another_site_are_not_written_down(catalog: Catalog, theirs: Catalog, session: Session) -> None:
    """Neither alone nor many at once, which go by their keys: nothing is changed, of one's own among them neither."""
    bare = arrive(catalog, session, "bare.tiff")
    arrived = [arrive(catalog, session, f"{number}.tiff") for number in range(3)]
    arrived += [arrive(theirs, session, f"own {number}.tiff") for number in range(3)]
    for file in arrived:
        files.set_digest(catalog if file in arrived[:3] else theirs, file.id, "ab" * 32)
    records = [
        CopyRecord(each.id, ReplicaState.VERIFIED, VerificationLevel.MEDIUM, "ab" * 32)
        for file in arrived
        for each in replicas.of_file(catalog, file.id)
    ]
    before = _everything(catalog)
    assert len(records) >= len(arrived)
    for some in (records, records[:1], records[: len(records) // 2]):
        with pytest.raises(CatalogError, match="belongs to the site here, not to there"):
            replicas.record_copies(theirs, some)
        assert _everything(catalog) == before
    replicas.record_copies(theirs, [], {bare.id: "cd" * 32})
    assert _everything(catalog) == before


@pytest.fixture
def theirs(url: str) -> Iterator[Catalog]:
    """The same catalog, opened by another site."""
    opened = engine.open_catalog(url, "there")
    yield opened
    opened.close()


CHANGES: dict[str, Callable[[Catalog, Session, UUID, UUID], object]] = {
    "close its session": lambda c, s, e, f: sessions.set_state(c, s.id, SessionState.CLOSED),
    "change its owner": lambda c, s, e, f: sessions.update(c, s.id, owner_name="me"),
    "change its parameters": lambda c, s, e, f: sessions.reprocess(c, s.id, only_quarantined=False, force=True),
    "lay it out": lambda c, s, e, f: sessions.set_layout(c, s.id, Layout.PLAIN),
    "mount it elsewhere": lambda c, s, e, f: sessions.set_source_root(c, s.id, "/elsewhere"),
    "quarantine its exposure": lambda c, s, e, f: exposures.set_state(c, e, ExposureState.QUARANTINED, "why"),
    "describe its exposure": lambda c, s, e, f: exposures.attach_metadata(c, e, ExposureMetadata(movie_name="m")),
    "run a step of it": lambda c, s, e, f: steps.begin(c, e, Step.CTF, "key", {}),
    "call its file damaged": lambda c, s, e, f: files.set_state(c, f, FileState.DAMAGED, "why"),
    "say that its copies are verified": lambda c, s, e, f: replicas.record_copies(
        c,
        [
            CopyRecord(each.id, ReplicaState.VERIFIED, VerificationLevel.MEDIUM, "ab" * 32)
            for each in replicas.of_file(c, f)
        ],
        {f: "ab" * 32},
    ),
    "give its file a digest": lambda c, s, e, f: files.set_digest(c, f, "cd" * 32),
    "lift its hold": lambda c, s, e, f: holds.lift(c, s.id, by="me"),
    "move its place": lambda c, s, e, f: places.move(c, places.of_instrument(c, "krios")[0].id, "/elsewhere"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_row_is_changed_by_its_owner_alone(catalog: Catalog, theirs: Catalog, session: Session, what: str) -> None:
    """Another site is refused with the owner's name, and nothing has changed; the owner is not."""
    exposure, file = expose(catalog, session), arrive(catalog, session, "a/other.tiff")
    places.ensure(catalog, session.id, root="/more", folder="visit")
    holds.hold(catalog, session.id, reason="a paper", by="staff")
    before = _everything(catalog)
    with pytest.raises(CatalogError, match="belongs to the site here, not to there"):
        CHANGES[what](theirs, session, exposure.id, file.id)
    assert _everything(catalog) == before
    CHANGES[what](catalog, session, exposure.id, file.id)
    assert _everything(catalog) != before


def _everything(catalog: Catalog) -> dict[str, set[str]]:
    with catalog.reading() as unit:
        return {
            name: {repr(row) for row in unit.execute(select(table))} for name, table in Base.metadata.tables.items()
        }


def test_an_exposure_is_claimed_by_its_owner(catalog: Catalog, theirs: Catalog, session: Session) -> None:
    """Another site neither finds it among its work nor gets it by its id."""
    exposure = expose(catalog, session)
    assert exposures.ready(theirs, 10) == [] and exposures.claim(theirs, exposure.id) is None
    assert [found.id for found in exposures.ready(catalog, 10)] == [exposure.id]
    assert exposures.claim(catalog, exposure.id) is not None


def test_what_is_changed_in_bulk_is_this_sites_own(catalog: Catalog, theirs: Catalog, session: Session) -> None:
    """New parameters of a session make its owner's exposures ready, not those that another site found in it; what
    another site read of an mdoc waits on."""
    exposure = exposures.ensure(theirs, session.id, "theirs")
    movie = arrive(theirs, session, "theirs.tiff", exposure_id=exposure.id)
    files.set_digest(theirs, movie.id, "ab" * 32)
    exposures.attach_input(theirs, exposure.id, movie.id)
    exposures.set_state(theirs, exposure.id, ExposureState.DONE)
    assert sessions.reprocess(catalog, session.id, only_quarantined=False, force=False) == 0
    assert exposures.get(catalog, exposure.id).state is ExposureState.DONE
    (waits,) = frame_sets.record(theirs, session.id, "x.mdoc", [("a", "a.tif", ExposureMetadata())])
    frame_sets.mark_used(catalog, [waits.id])
    assert [found.id for found in frame_sets.waiting_for(catalog, session.id, "a")] == [waits.id]


def test_what_is_only_ever_added_is_neither_changed_nor_deleted(catalog: Catalog, session: Session) -> None:
    """The transaction itself refuses to change an event, and to delete a file."""
    file = arrive(catalog, session)
    with pytest.raises(AssertionError, match="events are only ever added"), catalog.writing() as unit:
        unit.scalars(select(EventRow)).first().message = "changed"  # type: ignore[union-attr]
    with pytest.raises(AssertionError, match="files are never deleted"), catalog.writing() as unit:
        unit.delete(unit.get(FileRow, file.id))
    with pytest.raises(CatalogError, match="belongs to the site there"), catalog.writing() as unit:
        unit.add(EventRow(site="there"))


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_hours_off_elsewhere_hides_nothing(
    catalog: Catalog, theirs: Catalog, session: Session, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Whatever another site's clock says: every new event of either changes the pages' stamp, this site's log goes on
    with its own, and its newest event is its own."""

    def told_there(message: str) -> Event:
        with monkeypatch.context() as patch:
            key = first_id_at(datetime.now(UTC) + timedelta(hours=hours))
            patch.setattr(EventRow.__table__.c.id.default, "arg", lambda _: UUID(int=key.int + new_id().int % 2**60))
            return events.record(theirs, Severity.INFO, "a.b", message, session_id=session.id)

    there = [told_there("first there")]
    last = events.newest_own(catalog)
    stamps = {page.stamp(catalog, session.id)}
    for number in range(3):
        mine = events.record(catalog, Severity.INFO, "a.b", f"here {number}", session_id=session.id)
        stamps.add(page.stamp(catalog, session.id))
        there.append(told_there(f"there {number}"))
        stamps.add(page.stamp(catalog, session.id))
        assert events.newest_own(catalog) == mine
    assert len(stamps) == 7
    assert last is not None
    assert [event.message for event in events.since(catalog, last.id, limit=9)] == ["here 0", "here 1", "here 2"]
    found = events.recent(catalog, session_id=session.id)
    assert {event.message for event in there} <= {event.message for event in found}
    assert found == sorted(found, key=lambda event: event.id, reverse=True)
