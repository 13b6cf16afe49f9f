"""`coldchain catalog`: the database itself."""

from __future__ import annotations

import typer

from coldchain import config
from coldchain.catalog.engine import upgrade
from coldchain.cli.catalog_backup import backup, restore
from coldchain.cli.catalog_status import status
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, output

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The catalog's database."""


@app.command("upgrade")
def upgrade_catalog(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Bring the catalog to this version, or make it. Stop the service first.

    Example: coldchain catalog upgrade
    """
    settings = config.load(config_file)
    revision = upgrade(settings.catalog.url)
    output.print(f"The catalog is at revision {revision}.", highlight=False)


for command in (status, backup, restore):
    app.command()(command)
