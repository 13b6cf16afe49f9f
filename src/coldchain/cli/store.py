"""`coldchain store`: the facility's stores, what lies on them, and what may go."""

from __future__ import annotations

import typer

from coldchain.cli.store_list import list_stores
from coldchain.cli.store_mend import adopt, repair, verify
from coldchain.cli.store_retire import hold, release, restore, retire, unknown
from coldchain.cli.store_usage import plan, usage

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="List stores and what they hold, prove and mend copies, clear what may go.",
)
app.command("list")(list_stores)
for command in (usage, plan, verify, repair, adopt, retire, restore, hold, release, unknown):
    app.command()(command)
