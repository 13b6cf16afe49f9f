"""What a path says about its file: the session it belongs to, its kind, its exposure. Pure; no file is opened.

Four ways in which sessions lie under a movie root:

- **EPU**: the folder that holds `Images-Disc<N>` (any N) is the session. The grid square's id stands in the folder's
  name and nowhere else; the foil hole's in the file's. An exposure is `FoilHole_<hole>_Data_<a>_<b>_<date>_<time>`; its
  movie has the same stem and `_fractions.tiff`, `_Fractions.mrc`, `_EER.eer` or the like after it; the `.mrc` of the
  bare stem is the camera software's own sum.
- **SerialEM**: a movie and its `<movie>.mdoc` or `<stem>.mdoc`.
- **Leginon**: the folder that holds `rawdata` is the session, where its name is one that Leginon gives (`09mar16a`) or
  its files begin with it. `<image>.frames.mrc` (`.tif`, `.eer`) is the movie of an exposure, `<image>.mrc` the camera's
  own sum; images of grid, square, hole and focus are overviews. `references` holds references.
- **Plain**: each first-level folder of the movie root is a session, unless a session was announced for a folder deeper
  down; files in the root itself belong to session ".".

An exposure's name is the path of its files relative to the session's folder without suffixes, never a base name, so
that equal names in two folders are two exposures.

Paths are `os.fsdecode`d and relative to the movie root. Patterns match names only, never the content: where a name
cannot tell (a movie from a single image, a gain reference from a movie that somebody called "gain"), the kind is a
candidate and the intake looks into the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from coldchain.model.files import FileKind
from coldchain.model.session import Layout

MOVIE_SUFFIXES = frozenset({".tif", ".tiff", ".mrc", ".mrcs", ".eer"})
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
METADATA_SUFFIXES = frozenset({".xml", ".mdoc", ".dm"})
_IMAGES = (FileKind.MOVIE, FileKind.MICROGRAPH)
_GAIN_SUFFIXES = frozenset({".gain", ".dm4", ".dm3"})

_DISC = re.compile(r"Images-Disc[0-9]+", re.IGNORECASE)
_GRID_SQUARE = re.compile(r"GridSquare_([0-9]+)")
_GRID_SQUARE_METADATA = re.compile(r"GridSquare_([0-9]+)\.dm", re.IGNORECASE)
_FOIL_HOLE = re.compile(r"FoilHole_([0-9]+)_")
_EXPOSURE = re.compile(r"FoilHole_([0-9]+)_Data_")
# Squares, holes before their exposures, and the atlas: pictures of where, not of what.
_OVERVIEW = re.compile(r"GridSquare_|FoilHole_[0-9]+_(?!Data_)|Atlas[_.]|Tile_[0-9]")
_FRACTIONS = re.compile(r"(?:_(?:fractions|eer)|\.frames)$", re.IGNORECASE)
_LEGINON_SESSION = re.compile(r"[0-9]{2}(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[0-9]{2}[a-z]*")
# The last of an image's numbered parts is the preset that it was taken with; aligned sums (-a, -a-DW) follow it.
_LEGINON_IMAGE = re.compile(r"_[0-9]{5}(?P<preset>[a-z]+)[0-9]*(?P<aligned>-[a-z](?:-DW)?)?$")
_LEGINON_SQUARE = re.compile(r"(?P<square>.*?_[0-9]{5}sq)(?:_v[0-9]+)?(?:.*?_(?P<hole>[0-9]{5}hl))?")
_LEGINON_OVERVIEWS = frozenset({"gr", "sq", "hl", "fc", "fa"})
_LEGINON_NORM = re.compile(r"norm", re.IGNORECASE)
# Not "again", "bargain" or "regain": samples are called so.
_GAIN = re.compile(r"(?<!a)(?<!bar)(?<!re)gain|(?:super|count)ref", re.IGNORECASE)
_DEFECTS = re.compile(r"(?:^|[^a-z])defects?(?:[^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a file belongs.

    `session_folder` is relative to the movie root ("." for the root itself), `path_in_session` to the session's folder.
    `kind` is the candidate that the name suggests. `exposure_name` is None where the file belongs to no one exposure.
    `lies_in` is the folder that `path_in_session` is relative to where it is not the session's (`place_pattern`).
    """

    session_folder: str
    layout: Layout
    path_in_session: str
    kind: FileKind
    exposure_name: str | None = None
    grid_square: str | None = None
    foil_hole: str | None = None
    lies_in: str | None = None


@dataclass(frozen=True, slots=True)
class GridSquare:
    """A grid square and the foil holes seen on it, both by their EPU ids, the holes in ascending order."""

    id: str
    holes: tuple[str, ...]


def place(relative_path: PurePosixPath, *, sessions: Mapping[str, Layout] | None = None) -> Placement:
    """Where a file belongs, from its path alone.

    Parameters
    ----------
    relative_path : from the movie root; at least one part, no "..".
    sessions : the layouts of the folders that are known to be sessions, relative to the movie root: those in the
        catalog, and as EPU those that hold an `EpuSession.dm`. The deepest of them that a file lies in is its session,
        whatever its depth; but a session "." that is not EPU's takes only the files of the root itself, for else no
        folder beside it could become a session.
    """
    parts = relative_path.parts
    depth, layout = _session_of(parts, sessions or {})
    if layout is Layout.EPU:
        return _place_in_epu(parts, depth)
    return _place_in_leginon(parts, depth) if layout is Layout.LEGINON else _place_in_plain(parts, depth)


def places_seen(paths: Iterable[str]) -> list[GridSquare]:
    """The grid squares and foil holes that a session's paths tell of, exposures or not, in ascending order of id.

    `paths` are relative to the session's folder (or to anything above it).
    """
    holes_of: dict[str, set[str]] = {}
    for path in paths:
        square, hole = _grid_square(PurePosixPath(path).parts), _foil_hole(path.rpartition("/")[2])
        if square is not None:
            holes_of.setdefault(square, set()).update(() if hole is None else (hole,))
    return [
        GridSquare(square, tuple(sorted(holes_of[square], key=_by_number)))
        for square in sorted(holes_of, key=_by_number)
    ]


def exposure_name(path_in_session: str) -> str:
    """The path without what the kinds of one exposure's files differ in: suffixes, `_fractions`, `_EER`, `.frames`."""
    folder, slash, name = path_in_session.rpartition("/")
    stem, suffix = split_suffix(name)
    if suffix == ".mdoc" and split_suffix(stem)[1] in MOVIE_SUFFIXES:
        stem = split_suffix(stem)[0]
    return f"{folder}{slash}{_FRACTIONS.sub('', stem) or stem}"


def is_exposure_of_epu(name: str) -> bool:
    """Whether a file's name is one that EPU gives to the files of an exposure."""
    return _EXPOSURE.match(name) is not None


def is_disc_of_epu(name: str) -> bool:
    """Whether a folder's name is one that EPU gives to what lies directly in a session's folder."""
    return _DISC.fullmatch(name) is not None


def is_square_of_epu(name: str) -> bool:
    """Whether a folder's name is one that EPU gives to a grid square's."""
    return _GRID_SQUARE.fullmatch(name) is not None


def split_suffix(name: str) -> tuple[str, str]:
    """A file's name without its last suffix, and that suffix in lower case ("" where there is none)."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, f".{suffix.lower()}") if stem and dot else (name, "")


def folders_above(path: str) -> Iterator[str]:
    """The folders that a relative path lies in, outermost first: "a/b/c" gives "a", "a/b"."""
    parts = path.split("/")[:-1]
    return ("/".join(parts[: depth + 1]) for depth in range(len(parts)))


def taking_order(path: str) -> int:
    """What goes first where several wait: metadata and references (0), so that optics are known; then images (1)."""
    kind = kind_of_name(path.rpartition("/")[2])
    if kind in (FileKind.METADATA, FileKind.GAIN, FileKind.DEFECTS):
        return 0
    return 1 if kind in _IMAGES else 2


def kind_of_name(name: str) -> FileKind:
    """The kind that a file's name alone suggests."""
    stem, suffix = split_suffix(name)
    if suffix in METADATA_SUFFIXES:
        return FileKind.METADATA
    if suffix in _GAIN_SUFFIXES:
        return FileKind.GAIN
    if _DEFECTS.search(stem) and suffix not in IMAGE_SUFFIXES:
        return FileKind.DEFECTS
    if suffix in MOVIE_SUFFIXES:
        return FileKind.GAIN if _GAIN.search(stem) else FileKind.MOVIE
    return FileKind.PREVIEW if suffix in IMAGE_SUFFIXES else FileKind.OTHER


def _session_of(parts: tuple[str, ...], sessions: Mapping[str, Layout]) -> tuple[int, Layout]:
    """How many leading parts make the session's folder, and how its files are named: PLAIN for SerialEM's, too."""
    for depth, part in enumerate(parts[:-1]):
        if _DISC.fullmatch(part):
            return depth, Layout.EPU
    known = _known_depth(parts, sessions)
    layout = None if known is None else sessions["/".join(parts[:known]) or "."]
    if known is not None and layout is Layout.EPU:
        return known, Layout.EPU
    for told, its_layout in ((_epu_depth_by_name(parts), Layout.EPU), (_leginon_depth(parts), Layout.LEGINON)):
        if told is not None and told >= (known or 0):
            return told, its_layout
    if known is not None and layout is Layout.LEGINON:
        return known, Layout.LEGINON
    return (min(1, len(parts) - 1) if known is None else known), Layout.PLAIN


def _known_depth(parts: tuple[str, ...], sessions: Mapping[str, Layout]) -> int | None:
    for depth in range(len(parts) - 1, 0, -1):
        if "/".join(parts[:depth]) in sessions:
            return depth
    return 0 if sessions.get(".") is Layout.EPU else None


def _epu_depth_by_name(parts: tuple[str, ...]) -> int | None:
    if parts[-1].lower() == "epusession.dm":
        return len(parts) - 1
    if len(parts) > 1 and parts[-2] == "Metadata" and _GRID_SQUARE_METADATA.fullmatch(parts[-1]):
        return len(parts) - 2
    return None


def _leginon_depth(parts: tuple[str, ...]) -> int | None:
    """Of the folders that could be a Leginon session's, the innermost."""
    for depth in range(len(parts) - 2, 0, -1):
        session, inside = parts[depth - 1], parts[depth]
        is_its = _LEGINON_SESSION.fullmatch(session) is not None
        if inside == "rawdata" and (is_its or parts[-1].startswith(f"{session}_")):
            return depth
        if inside == "references" and is_its:
            return depth
    return None


def _place_in_epu(parts: tuple[str, ...], depth: int) -> Placement:
    inside = parts[depth:]
    name = inside[-1]
    kind = kind_of_name(name)
    stem, suffix = split_suffix(name)
    if kind is FileKind.MOVIE and suffix == ".mrc" and not _FRACTIONS.search(stem):
        kind = FileKind.MICROGRAPH
    of_exposure = kind in _IMAGES or is_exposure_of_epu(name)
    return _placement("/".join(parts[:depth]) or ".", Layout.EPU, inside, kind, of_exposure=of_exposure)


def _place_in_leginon(parts: tuple[str, ...], depth: int) -> Placement:
    session, inside = parts[depth - 1] if depth else "", parts[depth:]
    kind = kind_of_name(inside[-1])
    stem, suffix = split_suffix(inside[-1])
    image = exposure_name(inside[-1])
    taken = _LEGINON_IMAGE.search(image)
    if "references" in inside[:-1]:
        if kind is FileKind.MOVIE:
            kind = FileKind.GAIN if _LEGINON_NORM.search(stem) else FileKind.OTHER
    elif kind is FileKind.MOVIE and taken and (taken["preset"] in _LEGINON_OVERVIEWS or taken["aligned"]):
        kind = FileKind.PREVIEW
    elif kind is FileKind.MOVIE and suffix == ".mrc" and not _FRACTIONS.search(stem):
        kind = FileKind.MICROGRAPH
    of_exposure = kind in (*_IMAGES, FileKind.METADATA) and "rawdata" in inside[:-1] and "references" not in inside[:-1]
    placed = _placement("/".join(parts[:depth]) or ".", Layout.LEGINON, inside, kind, of_exposure=of_exposure)
    where = _LEGINON_SQUARE.match(image.removeprefix(f"{session}_"))
    return replace(placed, grid_square=where["square"], foil_hole=where["hole"]) if where else placed


def _place_in_plain(parts: tuple[str, ...], depth: int) -> Placement:
    folder, inside = "/".join(parts[:depth]) or ".", parts[depth:]
    suffix = split_suffix(inside[-1])[1]
    kind = FileKind.MICROGRAPH if suffix == ".png" and len(inside) == 1 else kind_of_name(inside[-1])
    layout = Layout.SERIALEM if suffix == ".mdoc" else Layout.PLAIN
    return _placement(folder, layout, inside, kind, of_exposure=suffix != ".dm")


def _placement(folder: str, layout: Layout, inside: tuple[str, ...], kind: FileKind, *, of_exposure: bool) -> Placement:
    path, name = "/".join(inside), inside[-1]
    square, hole = _grid_square(inside), _foil_hole(name)
    if _OVERVIEW.match(name) or "Atlas" in inside[:-1]:
        kind = FileKind.PREVIEW if kind in _IMAGES else kind
        of_exposure = False
    of_exposure = of_exposure and kind in (*_IMAGES, FileKind.METADATA, FileKind.PREVIEW)
    return Placement(folder, layout, path, kind, exposure_name(path) if of_exposure else None, square, hole)


def _grid_square(parts: tuple[str, ...]) -> str | None:
    for part in reversed(parts[:-1]):
        if found := _GRID_SQUARE.fullmatch(part):
            return found[1]
    found = _GRID_SQUARE_METADATA.fullmatch(parts[-1]) if parts else None
    return found[1] if found else None


def _foil_hole(name: str) -> str | None:
    found = _FOIL_HOLE.match(name)
    return found[1] if found else None


def _by_number(identity: str) -> tuple[int, str]:
    return len(identity.lstrip("0")), identity
