"""`coldchain catalog`: the database itself."""

from __future__ import annotations

from typing import Annotated

import typer

from coldchain import config
from coldchain.catalog.engine import upgrade
from coldchain.catalog.replication import require_in_step
from coldchain.cli.catalog_backup import backup, restore
from coldchain.cli.catalog_claim import claim
from coldchain.cli.catalog_status import status
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, output

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The catalog's database."""


@app.command("upgrade")
def upgrade_catalog(
    alone: Annotated[
        bool, typer.Option("--alone", help="Upgrade this one of two servers although the other does not follow now.")
    ] = False,
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Bring the catalog to this version, or make it. Stop the service first; with two servers, on both sides.

    Example: coldchain catalog upgrade
    """
    settings = config.load(config_file)
    section = settings.catalog
    is_followed = not alone and require_in_step(section.url, section.peer_url)
    revision = upgrade(section.url)
    output.print(f"The catalog is at revision {revision}.", highlight=False)
    if is_followed:
        output.print(
            "It reaches the other server by itself: do not upgrade that one, and start its service when `coldchain "
            "catalog status` there says this revision.",
            markup=False,
            highlight=False,
        )


for command in (status, backup, restore, claim):
    app.command()(command)
