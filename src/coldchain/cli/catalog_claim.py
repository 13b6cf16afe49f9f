"""`coldchain catalog claim`: who writes a catalog, said anew."""

from __future__ import annotations

from coldchain import config
from coldchain.catalog.engine import open_catalog
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, output
from coldchain.errors import printable


def claim(config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Say that facility.toml is right: the facility has another name now, or the site writes on another server.

    Example: coldchain catalog claim
    """
    settings = config.load(config_file)
    facility, site = settings.facility.name, settings.facility.site
    catalog = open_catalog(settings.catalog.url, site, facility, claims=True)
    try:
        catalog.claim()
    finally:
        catalog.close()
    output.print(f"The site {printable(site)} of {printable(facility)} writes here.", highlight=False, markup=False)
