"""`coldchain catalog status` of a catalog in a file."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coldchain.catalog.engine import head, upgrade
from coldchain.cli.catalog import app


def _status(folder: Path, *more: str, catalog: str = "") -> tuple[int, str]:
    file = folder / "facility.toml"
    file.write_text('[facility]\nsite = "microscope"\n' + catalog)
    done = CliRunner().invoke(app, ["status", *more, "--config", str(file)])
    return done.exit_code, done.output


def test_a_catalog_in_a_file_is_shown(tmp_path: Path) -> None:
    """Where it is, whose, in what, how large and at which revision; no replication is spoken of."""
    upgrade(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    status, said = _status(tmp_path)
    assert status == 0
    assert "microscope" in said and "SQLite 3" in said and f"{head()}, as this Coldchain has it" in said
    assert "eplication" not in said
    found = json.loads(_status(tmp_path, "--json")[1])
    assert found["revision"] == head() and found["here"] is None and found["troubles"] == []
    assert found["size_bytes"] == (tmp_path / "catalog.sqlite").stat().st_size


def test_a_catalog_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    """Not there, or of another version: why, with the remedy, and the exit status is 1."""
    status, said = _status(tmp_path)
    assert status == 1 and "It cannot be used" in said and "coldchain catalog upgrade" in said
    upgrade(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    with sqlite3.connect(tmp_path / "catalog.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    status, said = _status(tmp_path, "--json")
    found = json.loads(said)
    assert status == 1 and "9999" in found["fault"] and found["revision"] is None


@pytest.mark.parametrize(
    "url",
    [
        "mysql+pymysql://u:s3cret@127.0.0.1:1/c?password=s3cret",
        "mysql:u:s3cret@host/c",
        "s3cret",
        "mssql://u:s3cret@h/c",
    ],
)
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_no_password_of_a_url_is_shown(tmp_path: Path, url: str, more: tuple[str, ...]) -> None:
    """Whatever is wrong with a URL, status says so and shows no password."""
    status, said = _status(tmp_path, *more, catalog=f'[catalog]\nurl = "{url}"\npeer_url = "{url}"\n')
    assert status == 1 and "s3cret" not in said
