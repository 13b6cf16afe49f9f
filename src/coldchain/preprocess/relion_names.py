"""Files' names as RELION is to find them."""

from __future__ import annotations

import re
from pathlib import Path

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def relion_name(path: Path) -> str:
    """The path as a STAR file can hold it: control characters, and the double of two kinds of quotes, become "_"."""
    name = _CONTROL.sub("_", str(path))
    return name.replace('"', "_") if "'" in name else name


def can_be_listed(path: Path) -> bool:
    """Whether a STAR's table can hold the path as it is: RELION reads two spaces together as one."""
    return relion_name(path) == str(path) and "  " not in str(path)


def from_here(path: Path) -> str:
    """The path as from the folder that the command runs in, where RELION is to run too; elsewhere the whole path."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
