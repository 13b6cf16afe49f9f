"""What an alignment's files are called, and that none of them is a file which is read.

A result replaces whatever lies under its name. With the results beside the movies, the sum of `a.tif` would take the
place of `a.mrc`, be that another movie, a frame or the gain reference: raw data that nobody can record again. So all
names are known, and held against all that is read, before anything is done. What the metadata beside a movie name is
found later, and held against its own results before they are given their names. Metadata files themselves end in
`.mdoc` or `.xml`, which no result does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from coldchain.errors import ColdchainError, UsageError, printable
from coldchain.formats.container import Container, container_of
from coldchain.formats.framelist import read_frame_list

# By role; see `alignment_files`.
ENDINGS = {
    "micrograph": ".mrc",
    "unweighted": "_noDW.mrc",
    "even": "_even.mrc",
    "odd": "_odd.mrc",
    "spectrum": "_PS.mrc",
    "motion": ".star",
}
LIST_NAME = "corrected_micrographs.star"


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


def check_names(movies: Sequence[Path], references: Iterable[Path], folder: Path) -> None:
    """Raise UsageError where a result would replace a file that is read, or two movies' results each other's.

    Parameters
    ----------
    references : gain, dark and defects, as far as the user names them.
    folder : where the results go; it need not be there.
    """
    read = FilesRead([*movies, *references])
    for movie in movies:
        for frame in _frames_of(movie):
            read.add(frame)
    written: dict[str, Path] = {}
    for movie in movies:
        for name in (movie.stem + ending for ending in ENDINGS.values()):
            _refuse_input(read, folder / name, printable(str(movie)))
            if name in written:
                both = f"{written[name]} and {movie}"
                raise UsageError(
                    f"{printable(both)} would both leave a file {printable(name)}",
                    remedy="Align them in calls of their own, each with an --out of its own",
                )
            written[name] = movie
    if LIST_NAME in written:
        movie = written[LIST_NAME]
        raise UsageError(
            f"the motion of {printable(str(movie))} would be called as the list of all movies, {LIST_NAME}",
            remedy="Give the movie another name",
        )
    _refuse_input(read, folder / LIST_NAME, "all movies")


def _refuse_input(read: FilesRead, target: Path, whose: str) -> None:
    lost = read.find(target)
    if lost is not None:
        raise UsageError(
            f"the results of {whose} would replace {printable(str(lost))}, which is read",
            remedy="Name another folder with --out",
            path=target,
        )


def _frames_of(movie: Path) -> tuple[Path, ...]:
    """The files that a list of frames names. One that cannot be read fails by itself, and overwrites nothing."""
    try:
        return read_frame_list(movie) if container_of(movie) is Container.LIST else ()
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
