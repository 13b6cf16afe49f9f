"""`coldchain`: the one command, its groups, and what a failure looks like."""

from __future__ import annotations

import sys
from typing import Annotated

import click
import typer

from coldchain import __version__
from coldchain.cli import catalog, demo, facility, session, simulate
from coldchain.cli.console import errors as error_console
from coldchain.errors import ColdchainError

app = typer.Typer(
    name="coldchain",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs the computing of a cryo-EM facility: from the camera closing a movie to a copy that is proved whole.",
)
app.command("demo")(demo.demo)
app.command("init")(facility.init)
app.command("run")(facility.run)
app.command("serve")(facility.serve)
app.add_typer(session.app, name="session")
app.add_typer(simulate.app, name="simulate")
app.add_typer(catalog.app, name="catalog")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coldchain {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Runs the computing of a cryo-EM facility: from the camera closing a movie to a copy that is proved whole."""


def main() -> None:
    """Run the command line: exit status 0 success, 1 a stated failure, 2 wrong usage, 130 Ctrl-C."""
    try:
        status = app(standalone_mode=False)
    except ColdchainError as error:
        error_console.print(f"coldchain: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)
