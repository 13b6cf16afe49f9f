"""Files' names as RELION is to find them."""

from __future__ import annotations

import re
from pathlib import Path

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# In a picture's name they end what it is called and begin what it is read as.
_FORMAT_MARK = re.compile("[#:%]")
# By them alone it knows how to read a picture, whatever the file holds; where it does not, it stops altogether.
_READ_SUFFIXES = (".mrc", ".mrcs", ".tif", ".tiff")


def relion_name(path: Path) -> str:
    """The path as a STAR file can hold it: control characters, and the double of two kinds of quotes, become "_"."""
    name = _CONTROL.sub("_", str(path))
    return name.replace('"', "_") if "'" in name else name


def can_be_named(movie: Path) -> bool:
    """Whether RELION finds a movie by its name in a motion STAR."""
    return relion_name(movie) == str(movie) and not _FORMAT_MARK.search(str(movie))


def can_be_listed(path: Path) -> bool:
    """Whether RELION finds the file by its name in a STAR's table, in which it reads two spaces together as one."""
    name = from_here(path)
    return can_be_named(Path(name)) and "  " not in name


def can_be_read(picture: Path) -> bool:
    """Whether RELION finds a picture by its name in a table, and knows how to read it: a PNG it does not."""
    return can_be_listed(picture) and picture.suffix.lower() in _READ_SUFFIXES


def unlisted(list_name: str) -> tuple[str, ...]:
    """What is said of a file that is not in a list for its name or its kind."""
    return (f"Not in {list_name}: RELION cannot read a file of this name or kind.",)


def from_here(path: Path) -> str:
    """The path as from the folder that the command runs in, where RELION is to run too; elsewhere the whole path."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
