"""`coldchain catalog backup` and `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coldchain import config
from coldchain.catalog import backup as backups
from coldchain.catalog.backup import Restored
from coldchain.catalog.engine import head
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, output
from coldchain.config import Settings
from coldchain.errors import printable
from coldchain.service import FacilityLock
from coldchain.units import byte_size


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; nothing of that name may be there.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write the whole catalog into one file, while the service goes on.

    Example: coldchain catalog backup /backups/catalog-2026-08-01.gz
    """
    settings = config.load(config_file)
    label = backups.make(settings.catalog.url, settings.facility.site, file)
    _say(
        f"{printable(str(file))}: the catalog at revision {label.revision}, {byte_size(label.rows_bytes)} in "
        f"{byte_size(file.stat().st_size)}; read again, its digest is right."
    )


def restore(
    file: Annotated[Path, typer.Argument(help="What `coldchain catalog backup` has written.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Rename a SQLite catalog that is there, and put the backup in its place.")
    ] = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Make the catalog from a backup, where there is none or an empty one. Stop the service first.

    Example: coldchain catalog restore /backups/catalog-2026-08-01.gz
    """
    settings = config.load(config_file)
    with FacilityLock(settings):
        done = backups.restore(settings.catalog.url, file, replace=replace)
    for line in _words(done, settings):
        _say(line)


def _words(done: Restored, settings: Settings) -> list[str]:
    label = done.label
    made_at = f"{label.made_at:%Y-%m-%d %H:%M:%S} UTC"
    lines = [f"The catalog is as it was at {made_at} on site {label.site}: {byte_size(label.rows_bytes)}."]
    if done.aside is not None:
        lines.append(f"The catalog that was there is {printable(str(done.aside))} now.")
    if label.revision != head():
        lines.append(f"It has the older revision {label.revision}: run `coldchain catalog upgrade`.")
    lines.append(
        "What was written after that moment is not in it: the service finds files that arrived since by itself."
    )
    if done.follows or settings.catalog.peer_url is not None:
        lines.append(
            "The other of the two servers has got nothing of this. Before replication is started again, this one must "
            f"know where the backup stands ({label.position or 'no position is known'}): docs/two-primaries.md, "
            "“From a backup”."
        )
    elif done.is_logged:
        lines.append("It went into the server's binary log: servers that follow this one get it, too.")
    return lines


def _say(text: str) -> None:
    output.print(text, markup=False, highlight=False)
