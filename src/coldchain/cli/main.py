"""`coldchain`: the one command, its groups, and what a failure looks like."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from types import FrameType
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from coldchain import __version__
from coldchain.cli.console import errors as error_console
from coldchain.errors import ColdchainError, printable

# Each is a module beside this one whose `app` is the command. They are imported when they are called: the kernels'
# compiler alone takes a second, which nobody who lists sessions should wait for.
COMMANDS = (
    "align",
    "ctf",
    "pick",
    "demo",
    "init",
    "run",
    "serve",
    "session",
    "simulate",
    "notify",
    "watch",
    "store",
    "catalog",
)

_PURPOSE = "Runs the computing of a cryo-EM facility: from the camera closing a movie to a copy that is proved whole."


class _Commands(TyperGroup):
    """The commands, imported by name."""

    # Newer versions of Typer bring their own Click and older ones use the package, so its types cannot be named.

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # Click's signature
        """The commands' names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(import_module(f"coldchain.cli.{cmd_name}").app)
        command.name = cmd_name
        _keep_brackets(command)
        return command


def _keep_brackets(command: Any) -> None:
    """Help is shown as it is written: Typer would take "[the last]" for markup, and leave it out."""
    for parameter in command.params:
        if getattr(parameter, "help", None):
            parameter.help = escape(parameter.help)
    for each in getattr(command, "commands", {}).values():
        _keep_brackets(each)


app = typer.Typer(
    cls=_Commands, name="coldchain", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coldchain {__version__}")
        raise typer.Exit


@app.callback(help=_PURPOSE)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See `_PURPOSE`."""


def main() -> None:
    """Run the command line: exit status 0 success, 1 a stated failure, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        app()
    except ColdchainError as error:
        error_console.print(f"coldchain: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_status)
    except OSError as error:
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        found = f"coldchain: {where}{error.strerror or error}. Check its permissions and its disk."
        error_console.print(found, markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


def _leave(number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C would, so that half-written files are taken away. Commands that run on have their own way."""
    sys.exit(128 + number)
