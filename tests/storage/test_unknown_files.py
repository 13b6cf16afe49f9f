"""Files that the catalog does not know are found on a store, and only those."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.dialects import sqlite

from coldchain.catalog.engine import Catalog
from coldchain.catalog.stored_names import StoredNames, copies_query, files_query
from coldchain.catalog.tables import ReplicaRow
from coldchain.model.identity import new_id
from coldchain.storage import unknown
from tests.storage.clearing_givens import Facility, quick_catalog, rule


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    """A catalog that is quick, as it need not last."""
    with quick_catalog() as made:
        yield made


def test_unknown_files_are_listed_and_not_touched(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies under their own names, kept aside, or named as the store can are known; strays, what lies in no session's
    folder, and a file where a copy was cleared from are not. The trash is not listed."""
    monkeypatch.setattr(unknown, "_AT_ONCE", 3)
    monkeypatch.setattr(unknown, "_MOST_KEPT", 2)
    facility = Facility(catalog, tmp_path, [rule()])
    session, whole = facility.session("visit"), facility.session(".")
    made = [facility.add(session, f"a/{n}\udcff.tiff", bytes([n])) for n in range(7)]
    facility.add(whole, "of the root.tiff", b"r")
    content = facility.stores["tape"].content
    for file, changes in ((made[0], {"kept_as": "krios/visit/a/0.replaced-1"}), (made[1], {"stored_as": "x/%31.tiff"})):
        copy = facility.copy(file, "tape")
        content[next(iter(changes.values()))] = content.pop(copy.location)
        with catalog.writing() as unit:
            unit.execute(update(ReplicaRow).where(ReplicaRow.id == copy.replica_id).values(**changes))
    strays = {
        "krios/visit/a/new.tiff": b"n",
        "krios/visit/a/0\udcff.tiff": b"s",
        "lost+found/x": b"xx",
        "top": b"",
        "krios/visit/" + "d/" * 2100 + "deep": b"d",
        "krios/visit/a/5.replaced-2": b"k",
    }
    content |= strays
    before = dict(content)
    looked_at: list[int] = []
    found = {
        f.stored_as: f.size_bytes
        for f in unknown.unknown_files(catalog, facility.stores["tape"], tell=looked_at.append)
    }
    assert found == {name: len(value) for name, value in strays.items()}
    assert content == before and sum(looked_at) == len(content)
    facility.pass_once()
    live = facility.stores["live"]
    assert list(unknown.unknown_files(catalog, live)) == []
    live.content["krios/visit/a/3\udcff.tiff"] = b"again"
    assert [f.stored_as for f in unknown.unknown_files(catalog, live)] == ["krios/visit/a/3\udcff.tiff"]


def test_names_are_looked_up_by_an_index(catalog: Catalog) -> None:
    """A name costs the same however many files the session has."""
    for query, index in (
        (files_query(new_id(), [b"0" * 32]), "_path_digest_id (session_id=? AND path_digest=?)"),
        (copies_query([new_id(), new_id()]), "ix_replicas_file_id_id (file_id=?)"),
    ):
        compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
        values = (None,) * len(compiled.positiontup or ())
        with catalog.reading() as unit:
            plan = [row[3] for row in unit.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values)]
        assert len(plan) == 1 and index in plan[0], plan


def test_no_session_knows_nothing(catalog: Catalog) -> None:
    """On a store of an empty catalog everything is unknown."""
    assert StoredNames(catalog, "live").not_plain(["a/b", "c"]) == ["a/b", "c"]
    assert StoredNames(catalog, "live").not_known(["a/b"]) == {"a/b"}
    assert StoredNames(catalog, "live").not_known([]) == set()
