"""`coldchain store list`, `usage` and `plan`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import update
from typer.testing import CliRunner

from coldchain import config
from coldchain.catalog import files, replicas, sessions, stores
from coldchain.catalog.engine import Catalog, open_catalog
from coldchain.catalog.tables import ReplicaRow, StoreRow
from coldchain.cli.store_list import list_stores
from coldchain.cli.store_usage import plan, usage
from coldchain.model.files import FileKind, ReplicaState, VerificationLevel
from coldchain.model.policy import Tier
from coldchain.model.session import Layout
from coldchain.model.stores import StoreLook
from tests.cli.answer import Typed

Asked = Callable[..., Any]
TB = 10**12


@pytest.fixture
def catalog(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The catalog of a facility with one store, in COLDCHAIN_CONFIG."""
    assert typed("init", tmp_path).status == 0
    monkeypatch.setenv("COLDCHAIN_CONFIG", str(tmp_path / "facility.toml"))
    settings = config.load(tmp_path / "facility.toml")
    with closing(open_catalog(settings.catalog.url, settings.facility.site)) as opened:
        yield opened


@pytest.fixture
def asked() -> Asked:
    """Ask one of the commands, as `coldchain store` will have it; what it printed comes back."""
    app = typer.Typer()
    app.command("list")(list_stores)
    app.command()(usage)
    app.command()(plan)

    def ask(*words: object) -> Any:
        answer = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "220"})
        assert answer.exit_code == 0, answer.output
        return json.loads(answer.output) if "--json" in words else answer.output

    return ask


def store_name(catalog: Catalog, tmp_path: Path) -> str:
    """The store of facility.toml, enrolled as the service would."""
    store = config.load(tmp_path / "facility.toml").store[0]
    stores.enrol(catalog, name=store.name, tier=store.tier, url=store.url)
    return store.name


def plant(catalog: Catalog, store: str) -> None:
    """Two sessions, one without a project, with copies that stand, are wanted and failed for seven reasons."""
    for session_name, project in (("[bold]visit", "P7"), ("other", None)):
        session = sessions.create(
            catalog,
            name=session_name,
            instrument_name="microscope",
            source_root="/camera",
            folder=session_name,
            layout=Layout.PLAIN,
            project_name=project,
        )
        for number in range(10):
            file = files.record_arrival(
                catalog,
                session_id=session.id,
                relative_path=f"{number}.mrc",
                kind=FileKind.MOVIE if number else FileKind.METADATA,
                size_bytes=1_000_000 * (number + 1),
                modified_ns=1,
                stores=(store,),
            )
            (replica,) = replicas.of_file(catalog, file.id)
            if number < 2:
                digest = "ab" * 32
                files.set_digest(catalog, file.id, digest)
                state, level, sha256, why = ReplicaState.VERIFIED, VerificationLevel.MEDIUM, digest, ""
            elif number < 9:
                state, level, sha256, why = ReplicaState.FAILED, None, None, f"reason {number}"
            else:
                continue
            replicas.record_copy(catalog, replica.id, state=state, level=level, sha256=sha256, detail=why)


def test_stores_are_listed_as_the_service_last_saw_them(catalog: Catalog, tmp_path: Path, asked: Asked) -> None:
    """Never seen, well, well some time ago, in trouble; used, free, wanted and foretold; one that is not listed any
    more."""
    assert "never seen: start `coldchain run` once" in asked("list")
    assert asked("list", "--json") == []
    name = store_name(catalog, tmp_path)
    plant(catalog, name)
    assert "never looked at" in asked("list")
    stores.record_look(catalog, name, StoreLook("", "ext4", 10 * TB, 4 * TB, None, 1000.0))
    shown = asked("list")
    assert "6.0 TB (60 %)" in shown and "4.0 TB" in shown and "104 MB (29 h)" in shown and " well " in shown
    with catalog.writing() as unit:
        unit.execute(update(StoreRow).values(seen_at=datetime.now(UTC) - timedelta(hours=5)))
    assert "well when last looked at, 5 hours ago" in asked("list")
    stores.record_look(catalog, name, StoreLook("[bold]it is away"))
    stores.enrol(catalog, name="old", tier=Tier.ARCHIVE, url="/old")
    shown = asked("list")
    assert "[bold]it is away" in shown and "not in facility.toml" in shown
    found = {one["store"]["name"]: one for one in asked("list", "--json")}
    assert found[name]["used_bytes"] == 6 * TB
    assert found[name]["usage"]["files"] == 4
    assert found[name]["others_bytes"] == 6 * TB - 6_000_000
    assert found[name]["days_until_full"] is None and "0 whole days" in found[name]["why_not"]


def test_usage_is_added_up_as_asked(catalog: Catalog, tmp_path: Path, asked: Asked) -> None:
    """By store, session, project and kind; names as they are."""
    name = store_name(catalog, tmp_path)
    plant(catalog, name)
    assert asked("usage", "--json") == [
        {
            "store": name,
            "usage": {
                "files": 4,
                "size_bytes": 6_000_000,
                "trash_files": 0,
                "trash_bytes": 0,
                "damaged_files": 0,
                "damaged_bytes": 0,
            },
        }
    ]
    assert "6.0 MB" in asked("usage")
    by_session = {one["session"]: one["usage"]["size_bytes"] for one in asked("usage", "--by", "session", "--json")}
    assert by_session == {"[bold]visit": 3_000_000, "other": 3_000_000}
    assert "[bold]visit" in asked("usage", "--by", "session")
    assert {one["project"] for one in asked("usage", "--by", "project", "--json")} == {"P7", "(no project)"}
    by_kind = {one["kind"]: one["usage"]["size_bytes"] for one in asked("usage", "--by", "kind", "--json")}
    assert by_kind == {"metadata": 2_000_000, "movie": 4_000_000}


def test_the_plan_says_what_is_to_be_copied_and_why(catalog: Catalog, tmp_path: Path, asked: Asked) -> None:
    """By priority and reason, the rest of many reasons as one, and the next files; nothing where nothing is."""
    name = store_name(catalog, tmp_path)
    assert "Nothing is to be copied." in asked("plan")
    plant(catalog, name)
    (found,) = asked("plan", "--json", "--next", 3)
    assert (found["store"], found["files"], found["size_bytes"]) == (name, 16, 2 * 52_000_000)
    whys = {(one["state"], one["why"]): one["files"] for one in found["to_do"]}
    assert whys == {("wanted", "new"): 2, ("failed", "other reasons"): 4} | {
        ("failed", f"reason {number}"): 2 for number in range(2, 7)
    }
    assert [one["path"] for one in found["next"]][:2] == ["microscope/other/9.mrc", "microscope/[bold]visit/9.mrc"]
    shown = asked("plan")
    assert "reason 2" in shown and "other reasons" in shown and "microscope/[bold]visit/9.mrc" in shown
    assert "next for" not in asked("plan", "--next", 0)


def test_how_long_a_backlog_takes_is_unknown_while_the_store_is_away(
    catalog: Catalog, asked: Asked, tmp_path: Path
) -> None:
    """The pace of before says nothing."""
    name = store_name(catalog, tmp_path)
    plant(catalog, name)
    stores.record_look(catalog, name, StoreLook("it is not there", bytes_per_second=1e9))
    shown = asked("list")
    assert "is unknown while it is away" in shown and "0.0 h" not in shown
    assert asked("list", "--json")[0]["backlog_hours"] is None


def test_one_trouble_is_said_once_for_each_store(catalog: Catalog, asked: Asked, tmp_path: Path) -> None:
    """Whatever the priorities of the copies that it keeps, it is one line with all of them."""
    name = store_name(catalog, tmp_path)
    plant(catalog, name)
    change = update(ReplicaRow).where(ReplicaRow.pending.is_(True))
    with catalog.writing() as unit:
        unit.execute(change.values(state=ReplicaState.FAILED, detail="it is away"))
        unit.execute(change.where(ReplicaRow.size_bytes > 5_000_000).values(priority=60))
    shown = asked("plan", "--next", "0")
    assert shown.count("it is away") == 1
    priorities = {group["priority"] for group in asked("plan", "--json")[0]["to_do"]}
    assert len(priorities) > 1 and ", ".join(map(str, sorted(priorities))) in shown
