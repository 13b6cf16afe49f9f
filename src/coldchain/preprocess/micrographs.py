"""The micrographs that a command is given: files and whole folders, and what is known of each.

In a folder every exposure counts once. Beside its sum an alignment leaves other pictures of it (spectrum, halves, the
sum without or with dose weighting), fits and picks leave theirs, and raw movies may lie there too: `gather` says which
are taken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import ColdchainError, FormatError, ProcessingError, UsageError
from coldchain.formats.container import Container, container_of
from coldchain.formats.image import read_filled
from coldchain.formats.movie import MovieInfo, probe_movie
from coldchain.formats.mrc import read_header, read_mrc
from coldchain.model import limits
from coldchain.preprocess.report import Failed
from coldchain.preprocess.turns import EXPECTED, failed

# In a folder, of files with one stem the first kind counts: pictures for the eye lie beside micrographs.
_SUFFIXES = (".mrc", ".tif", ".tiff", ".png")
# Spectra, halves (as we, RELION and MotionCor call them), and what fits and picks leave.
_NO_MICROGRAPH = re.compile(r"_(?:PS|even|odd|EVN|ODD|ctf|ctf_profile|junk|picks|applied_[0-9a-f]+)$")
# Gain references, as cameras and people call them; mdocs name others.
_GAIN = re.compile(r"(?i:^(?:count|super)ref(?:_|$)|(?:^|[_-])gain(?:[_-]?ref(?:erence)?)?$|^gainref)")
_GAIN_LINE = re.compile(rb"^GainReference\s*=\s*([^\r\n]+)", re.MULTILINE)
_MDOC_HEAD_BYTES = 1 << 16
_MOVIE_SUFFIXES = (".mrc", ".mrcs", ".tif", ".tiff", ".eer")
_VARIANT = re.compile(r"(?P<exposure>.*?)(?P<variant>_noDW|_DW|_DWS)?", re.DOTALL)
_BESIDE_WEIGHTED = re.compile(r"(?<=.)(?:_PS|_noDW)\Z", re.DOTALL)
# Which of an exposure's sums is taken: the weighting by dose blurs Thon rings, and clears the particles.
UNWEIGHTED_FIRST = ("_noDW", "", "_DW", "_DWS")
WEIGHTED_FIRST = ("_DW", "", "_DWS", "_noDW")
_SPECTRUM_ENDING = "_PS.mrc"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture that was read, row 0 the picture's bottom.

    warnings : what the reader of a result should know of it.
    """

    pixels: NDArray[np.float32]
    info: MovieInfo
    warnings: tuple[str, ...] = ()

    @property
    def rows_reversed(self) -> bool:
        """Whether the file stores the picture's top row first, which `pixels` has last."""
        return self.info.container in (Container.TIFF, Container.PICTURE)


def gather(paths: Iterable[Path], variants: tuple[str, ...]) -> tuple[list[Path], list[Failed]]:
    """The files that are meant, in their order and each once, and the folders in which there is none.

    A file that is named counts whatever it is called; one that is not there fails when it is read. Of a folder those
    directly in it count that end in `.mrc`, `.tif`, `.tiff` or `.png` and are no movie, no spectrum (`_PS`), no half
    (`_even`, `_odd`, `_EVN`, `_ODD`), no gain (`gain`, `…_gain`, `GainRef…`, `CountRef_…`, `SuperRef_…`,
    `_applied_…`, or named by an mdoc there) and nothing that a fit or a picker left (`_ctf`, `_junk`, `_picks`); of
    files with one stem the MRC, then the TIFF; of an exposure's sums the first of `variants`, which are endings of its
    stem.
    """
    found: list[Path] = []
    empty: list[Failed] = []
    for path in paths:
        try:
            inside = list(_in_folder(path, variants)) if path.is_dir() else [path]
        except EXPECTED as error:
            empty.append(failed(error, path))
            continue
        if not inside:
            empty.append(Failed(path, _no_micrograph(path)))
        found += inside
    once: dict[str, Path] = {}
    for path in found:
        once.setdefault(os.path.realpath(path), path)
    return list(once.values()), empty


def _no_micrograph(folder: Path) -> ProcessingError:
    """What is said of a folder without one: often its movies are still to be aligned."""
    movies = sum(1 for path in folder.iterdir() if _is_there(path, _MOVIE_SUFFIXES) and _is_movie(path))
    if movies:
        return ProcessingError(
            f"there is no micrograph in this folder, but {movies} movie{'s' * (movies != 1)}",
            remedy=f"Align {'them' if movies > 1 else 'it'} first (coldchain align), and name the folder of the sums",
            path=folder,
        )
    return ProcessingError(
        "there is no micrograph in this folder",
        expected=f"files directly in it that end in {', '.join(_SUFFIXES)} and are no movies",
        remedy="Name the folder that holds them, or the files",
        path=folder,
    )


def _is_there(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether it is a file of one of these kinds, and not hidden."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def _gains_named(folder: Path) -> set[str]:
    """The gain references that the mdocs of a folder name, which may lie among its micrographs."""
    named: set[str] = set()
    for path in folder.glob("*.mdoc"):
        with suppress(OSError):
            with path.open("rb") as stream:
                head = stream.read(_MDOC_HEAD_BYTES)
            named.update(
                re.split(r"[\\/]", name.decode("utf-8", "replace"))[-1].strip() for name in _GAIN_LINE.findall(head)
            )
    return named


def _in_folder(folder: Path, variants: tuple[str, ...]) -> Iterator[Path]:
    of_stem: dict[str, Path] = {}
    gains = _gains_named(folder)
    for path in sorted(folder.iterdir(), key=lambda path: (_rank(path), path.name)):
        if _is_there(path, _SUFFIXES) and path.name not in gains and not _GAIN.search(path.stem):
            of_stem.setdefault(path.stem, path)
    exposures: dict[str, dict[str, Path]] = {}
    for stem, path in sorted(of_stem.items()):
        if _NO_MICROGRAPH.search(stem) or _is_movie(path):
            continue
        parts = _VARIANT.fullmatch(stem)
        assert parts is not None
        exposures.setdefault(parts["exposure"], {})[parts["variant"] or ""] = path
    for sums in exposures.values():
        yield next(sums[variant] for variant in variants if variant in sums)


def _rank(path: Path) -> int:
    suffix = path.suffix.lower()
    return _SUFFIXES.index(suffix) if suffix in _SUFFIXES else len(_SUFFIXES)


def _is_movie(path: Path) -> bool:
    """Whether a file holds several pictures; one that cannot be read fails when it is."""
    try:
        return probe_movie(path, whole=False).frames > 1
    except (ColdchainError, OSError):
        return False


def is_spectrum(path: Path) -> bool:
    """Whether a file is called as an alignment's amplitude spectrum."""
    return path.name.endswith(_SPECTRUM_ENDING)


def micrograph_of(path: Path) -> Path | None:
    """The micrograph to which RELION's list gives a fit: of a spectrum or a sum without dose weighting the sum with it,
    where it is there, which is the one that is picked. None for a spectrum whose micrograph is not."""
    exposure = _BESIDE_WEIGHTED.sub("", path.stem)
    endings = ("_DW",) if exposure == path.stem else ("_DW", "")
    for whole in (path.with_name(f"{exposure}{ending}.mrc") for ending in endings):
        if whole.is_file():
            return whole
    return None if is_spectrum(path) else path


def probe_picture(path: Path) -> MovieInfo:
    """What the headers of a single picture say. Raises as `probe_movie`, and ProcessingError for a movie."""
    info = probe_movie(path, whole=False)
    if info.frames > 1 or info.container in (Container.EER, Container.LIST):
        frames = f"{info.frames} frames" if info.frames > 1 else "frames"
        raise ProcessingError(
            f"it holds {frames}",
            expected="one picture",
            remedy="Align a movie first (coldchain align), and name its sum",
            path=path,
        )
    return info


def read_picture(info: MovieInfo) -> Picture:
    """The pixels; few that are no finite numbers take the median of the others, and that is said.

    Raises as `read_image`.
    """
    pixels, wrong = read_filled(info.path)
    said = f"{wrong:,} pixels are no finite numbers; they were given the median of the others."
    return Picture(pixels, info, (said,) if wrong else ())


def read_templates(path: Path) -> tuple[NDArray[np.float32], float | None]:
    """Pictures of a particle, (n, rows, columns), and their pixel in Å where the header says it.

    A pixel that cannot be true says nothing. Raises as `read_mrc`, FormatError where values are no finite numbers,
    UsageError for what is no MRC.
    """
    if container_of(path) is not Container.MRC:
        raise UsageError("the templates are no MRC", expected="a stack of pictures (.mrcs)", path=path)
    header, (least, most) = read_header(path), limits.PIXEL_SIZE_ANGSTROM
    stack = read_mrc(path).astype(np.float32)
    if not np.isfinite(stack).all():
        raise FormatError(
            "values of the templates are no finite numbers",
            remedy="Make them again, or leave them out",
            path=path,
        )
    pixel = header.pixel_size_angstrom
    is_told = pixel is not None and pixel != 1.0 and least <= pixel <= most
    return stack if stack.ndim == 3 else stack[np.newaxis], pixel if is_told else None
