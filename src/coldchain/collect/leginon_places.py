"""Where a Leginon session's frames, images and references lie on this host, and what of it is the session's folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from coldchain.collect.import_target import place_of
from coldchain.collect.path_map import PathMap
from coldchain.errors import CatalogError, printable
from coldchain.formats.beneath import folder_beneath
from coldchain.model.leginon import GainImage, LeginonSession

FRAME_SUFFIXES = (".mrc", ".tif", ".tiff", ".eer", ".mrcs")
_FRAMES = ".frames"
_INNER = "rawdata"
_REFERENCES = "references"


@dataclass(frozen=True, slots=True)
class Home:
    """A folder with files of a session: `prefix` stands before their names in the session, "rawdata/" or ""."""

    root: Path
    folder: str
    prefix: str

    def path(self, name: str) -> str:
        """A file's path, relative to the root."""
        return f"{self.folder}/{self.in_session(name)}" if self.folder != "." else self.in_session(name)

    def in_session(self, name: str) -> str:
        """A file's path in the session."""
        return f"{self.prefix}{name}"

    def names(self) -> frozenset[str]:
        """What is in the folder; nothing where it is not there, or may not be read."""
        try:
            with folder_beneath(self.root, self.path("").rstrip("/") or ".") as descriptor:
                return frozenset(os.listdir(descriptor))  # noqa: PTH208  # a path could lead elsewhere by now
        except OSError:
            return frozenset()


def homes_of(session: LeginonSession, path_map: PathMap, roots: Sequence[Path]) -> tuple[Home | None, Home | None]:
    """Where a session's frames and where its summed images lie.

    `roots` are the instrument's: below one of them, a folder's path from there is the session's; elsewhere its last
    part is. Both lie in a folder "rawdata" of the session's, as Leginon has it, or neither is taken to. Raises
    CatalogError where Leginon's paths lead nowhere.
    """
    frames = _mapped(session, session.frame_path, "frame path", path_map)
    images = _mapped(session, session.image_path, "image path", path_map)
    known = [folder for folder in (frames, images) if folder is not None]
    if not known:
        raise CatalogError(
            f"Leginon says no folder for session {printable(session.name)}", expected="an image path or a frame path"
        )
    has_inner = all(folder.name == _INNER for folder in known)
    prefix = f"{_INNER}/" if has_inner else ""
    found = [None if folder is None else _home(folder, has_inner, prefix, roots) for folder in (frames, images)]
    return found[0], found[1]


def frames_name(image: str, names: frozenset[str]) -> str | None:
    """What the frames of an image are called, among the names of a folder."""
    found = (f"{image}{_FRAMES}{suffix}" for suffix in FRAME_SUFFIXES)
    return next((name for name in found if name in names), None)


def gain_homes(gain: GainImage, path_map: PathMap, homes: Sequence[Home]) -> list[Home]:
    """Where a gain reference may lie, the likeliest first: where Leginon says, else beside the session's files, where
    it is brought with the frames."""
    beside = [
        Home(home.root, home.folder, prefix)
        for home in homes
        for prefix in dict.fromkeys((f"{_REFERENCES}/", f"{home.prefix}{_REFERENCES}/"))
    ]
    said = path_map.here(gain.folder)
    if said is None or len(said.parts) < 3:
        return beside
    for home in homes:
        if home.root / home.folder / home.prefix == Path(said):
            return [home, *beside]
    # The session of the references is another one's, and stays it: no root of an instrument is the root of all.
    real = PurePosixPath(os.path.realpath(said))
    folder = str(real.parent.relative_to("/")) if len(real.parts) > 2 else "."
    return [Home(Path("/"), folder, f"{real.name}/"), *beside]


def _mapped(session: LeginonSession, path: str, what: str, path_map: PathMap) -> PurePosixPath | None:
    if not path:
        return None
    found = path_map.here(path)
    if found is None or len(found.parts) < 3:
        raise CatalogError(
            f"the {what} of Leginon's session {printable(session.name)} is {printable(path[:200])!r}",
            expected="an absolute path without `..`, some folders deep",
            remedy="Correct it in Leginon, or with --path-map",
        )
    return found


def _home(folder: PurePosixPath, has_inner: bool, prefix: str, roots: Sequence[Path]) -> Home:
    session_folder = Path(folder.parent if has_inner else folder)
    root, inside = place_of(session_folder, roots)
    return Home(root, inside, prefix)
