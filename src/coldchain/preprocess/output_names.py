"""What results are called, and that none of them is a file which is read.

A result replaces whatever lies under its name. With the results beside the movies, the sum of `a.tif` would take the
place of `a.mrc`, be that another movie, a frame or the gain reference: raw data that nobody can record again. So all
names are known, and held against all that is read, before anything is done. What the metadata beside a movie name is
found later, and held against its own results before they are given their names. Metadata files themselves end in
`.mdoc` or `.xml`, which no result does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from coldchain.errors import ColdchainError, UsageError, printable
from coldchain.formats.container import Container, container_of
from coldchain.formats.framelist import read_frame_list

# By role; see `alignment_files`, `ctf_files` and `pick_files`.
ENDINGS = {
    "micrograph": ".mrc",
    "unweighted": "_noDW.mrc",
    "even": "_even.mrc",
    "odd": "_odd.mrc",
    "spectrum": "_PS.mrc",
    "motion": ".star",
}
LIST_NAME = "corrected_micrographs.star"
CTF_ENDINGS = {
    "spectrum": "_ctf.mrc",
    "picture": "_ctf.png",
    "profile": "_ctf_profile.txt",
    "plot": "_ctf_profile.svg",
}
CTF_LIST_NAME = "micrographs_ctf.star"
PICK_ENDINGS = {
    "coordinates": "_picks.star",
    "boxes": "_picks.box",
    "junk": "_junk.mrc",
    "outlines": "_junk.json",
    "picture": "_picks.png",
}
PICK_LIST_NAME = "autopick.star"


class FilesRead:
    """Files that are read: the same one is known under any name, through links too."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._entries: dict[Path, Path] = {}
        self._files: dict[tuple[int, int], Path] = {}
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        """Add one; it need not be there."""
        self._entries.setdefault(_entry(path), path)
        if (identity := _identity(path)) is not None:
            self._files.setdefault(identity, path)

    def find(self, path: Path) -> Path | None:
        """The name under which it is read, of a file that another would be lost with; None where there is none."""
        found = self._entries.get(_entry(path))
        identity = _identity(path) if found is None else None
        return found if identity is None else self._files.get(identity)


def check_names(
    inputs: Sequence[Path],
    references: Iterable[Path],
    folder: Path,
    *,
    endings: Mapping[str, str] = ENDINGS,
    list_names: Sequence[str] = (LIST_NAME,),
) -> None:
    """Raise UsageError where a result would replace a file that is read, or two inputs' results each other's.

    Parameters
    ----------
    references : what is read beside them, as far as the user names it: gain, dark and defects, templates.
    folder : where the results go; it need not be there.
    endings : by role, what follows an input's stem in its results' names.
    list_names : files that are written for all inputs together.
    """
    read = FilesRead([*inputs, *references])
    for path in inputs:
        for frame in _frames_of(path):
            read.add(frame)
    written: dict[str, Path] = {}
    for path in inputs:
        for name in (path.stem + ending for ending in endings.values()):
            _refuse_input(read, folder / name, printable(str(path)))
            if name in written:
                both = f"{written[name]} and {path}"
                raise UsageError(
                    f"{printable(both)} would both leave a file {printable(name)}",
                    remedy="Name them in calls of their own, each with an --out of its own",
                )
            written[name] = path
    for name in list_names:
        if name in written:
            raise UsageError(
                f"a result of {printable(str(written[name]))} would be called as the list of all, {name}",
                remedy="Give the file another name",
            )
        _refuse_input(read, folder / name, "all files")


def _refuse_input(read: FilesRead, target: Path, whose: str) -> None:
    lost = read.find(target)
    if lost is not None:
        raise UsageError(
            f"the results of {whose} would replace {printable(str(lost))}, which is read",
            remedy="Name another folder with --out",
            path=target,
        )


def _frames_of(path: Path) -> tuple[Path, ...]:
    """The files that a list of frames names. One that cannot be read fails by itself, and overwrites nothing."""
    try:
        return read_frame_list(path) if container_of(path) is Container.LIST else ()
    except (ColdchainError, OSError):
        return ()


def _entry(path: Path) -> Path:
    """The place in the folder that a renaming would take."""
    return path.parent.resolve() / path.name


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
