"""`coldchain serve`: the site alone."""

from __future__ import annotations

import typer

from coldchain import config
from coldchain.catalog.engine import open_catalog
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, output
from coldchain.web.app import create_app
from coldchain.web.server import serve as serve_app

app = typer.Typer(add_completion=False)


@app.command()
def serve(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Serve the site alone, beside a service that runs elsewhere.

    Example: coldchain serve --config facility.toml
    """
    settings = config.load(config_file)
    catalog = open_catalog(settings.catalog.url, settings.facility.site)
    app = create_app(catalog, results_root=settings.results.folder, facility_name=settings.facility.name)
    output.print(f"http://{settings.web.host}:{settings.web.port}", markup=False, highlight=False)
    serve_app(app, settings.web.host, settings.web.port)
