"""`coldchain serve`: the site alone."""

from __future__ import annotations

import typer

from coldchain import config
from coldchain.catalog.engine import open_catalog
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, output
from coldchain.cli.signals import stop_on_signals
from coldchain.cli.site import site

app = typer.Typer(add_completion=False)


@app.command()
def serve(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Serve the site alone, beside a service that runs elsewhere.

    Example: coldchain serve --config facility.toml
    """
    settings = config.load(config_file)
    catalog = open_catalog(settings.catalog.url, settings.facility.site, settings.facility.name)
    with stop_on_signals() as stopping, site(catalog, settings) as url:
        output.print(url, markup=False, highlight=False)
        stopping.wait()
    catalog.close()
