"""`coldchain init`: a facility that runs as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coldchain import config
from coldchain.catalog.engine import upgrade
from coldchain.cli.console import output
from coldchain.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where the facility is to be.")] = Path(),
    name: Annotated[str, typer.Option("--name", help="What the facility is called.")] = "Our facility",
) -> None:
    """Write a commented facility.toml that runs as it is, its folders, and its catalog.

    Example: coldchain init ~/facility
    """
    target = folder / config.FILE_NAME
    if target.exists():
        raise UsageError("there is a facility already", remedy="Edit that file, or name another folder.", path=target)
    movie_root, live, archive = "camera", "stores/live", "stores/archive"
    for wanted in (movie_root, live, archive, "results"):
        (folder / wanted).mkdir(parents=True, exist_ok=True)
    text = config.template({"name": name, "movie_root": movie_root, "live": live, "archive": archive})
    target.write_text(text, encoding="utf-8")
    upgrade(config.load(target).catalog.url)
    where = "" if folder == Path() else f" --config {target}"
    output.print(f"Wrote {target}. Now: coldchain run{where}", markup=False, highlight=False)
