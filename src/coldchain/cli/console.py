"""The two consoles and the options that several commands share."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.text import Text

from coldchain.errors import UsageError, printable

output = Console(soft_wrap=True, emoji=False)
errors = Console(stderr=True, emoji=False)

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="COLDCHAIN_CONFIG", help="The facility's file.", show_default=True),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine instead of a table.")]

DEFAULT_CONFIG = Path("facility.toml")


def plain(text: str) -> Text:
    """Text for a table: control characters shown, brackets not taken for markup."""
    return Text(printable(text))


def within(option: str, value: float | None, bounds: tuple[float, float], unit: str) -> float | None:
    """The value, if it can be true in that unit; UsageError asks about the unit where it cannot. A plain number's unit
    is ""."""
    if value is not None and not bounds[0] <= value <= bounds[1]:
        raise UsageError(
            f"{option} is {value:g} {unit}".rstrip(),
            expected=f"from {bounds[0]:g} to {bounds[1]:g}",
            remedy="Is it given in another unit?" if unit else "",
        )
    return value


def print_json(value: object) -> None:
    """Print model values as JSON: dataclasses as objects, times in ISO 8601."""
    typer.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=True))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, UUID | Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
