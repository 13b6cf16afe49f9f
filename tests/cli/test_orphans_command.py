"""`coldchain session orphans`."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coldchain import config
from coldchain.catalog import exposures, orphans, sessions
from coldchain.catalog.engine import open_catalog
from tests.cli.answer import Typed


def test_orphans_are_listed_for_people_and_for_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Typed
) -> None:
    """Names as they are, the number of all where only some are shown, and an error for a session that is not there."""
    assert typed("init", tmp_path).status == 0
    monkeypatch.setenv("COLDCHAIN_CONFIG", str(tmp_path / "facility.toml"))
    assert typed("session", "create", "visit", "--instrument", "microscope").status == 0
    assert json.loads(typed("session", "orphans", "visit", "--json").out) == []
    assert "0 without a partner" in typed("session", "orphans", "visit").out
    settings = config.load(tmp_path / "facility.toml")
    with closing(open_catalog(settings.catalog.url, settings.facility.site)) as catalog:
        session = sessions.by_name(catalog, "visit")
        for number in range(3):
            exposures.ensure(catalog, session.id, f"[bold]x_{number}")
        orphans.tell(catalog, instrument_name="microscope", found_before=datetime.now(UTC))
    listed = json.loads(typed("session", "orphans", "visit", "--json").out)
    assert [(orphan["kind"], orphan["name"]) for orphan in listed] == [("metadata", f"[bold]x_{n}") for n in range(3)]
    assert len(json.loads(typed("session", "orphans", "visit", "--json", "--limit", 2).out)) == 2
    shown = typed("session", "orphans", "visit", "--limit", 2)
    assert "[bold]x_1" in shown.out and "[bold]x_2" not in shown.out
    assert "3 without a partner" in shown.out
    assert typed("session", "orphans", "nobody").status == 1
