"""Which movies an mdoc of many means: it gives paths of another computer, of which only the last part is sure. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coldchain.collect.layout import exposure_name
from coldchain.formats.mdoc import FrameSet, Mdoc
from coldchain.model.optics import ExposureMetadata

SECTION = "mdoc-section"
"""`ExposureMetadata.source` of what an mdoc of many movies says."""


def of_many(mdoc: Mdoc, mdoc_name: str) -> tuple[FrameSet, ...] | None:
    """What an mdoc says of movies by their names; None where it is the mdoc of one movie, whose name is its own.

    A stack's mdoc says nothing of the stack as a whole. One of a single image that names no movie describes the image
    after which it is called.
    """
    named = tuple(frame_set for frame_set in mdoc.frame_sets if frame_set.movie)
    if not mdoc.is_stack:
        return named if len({stem_of(frame_set.movie) for frame_set in named}) > 1 else None
    if named or len(mdoc.frame_sets) > 1:
        return named
    return tuple(replace(frame_set, movie=mdoc_name[: -len(".mdoc")]) for frame_set in mdoc.frame_sets)


def stem_of(movie: str) -> str:
    """A movie's name without folders and without what its suffixes add."""
    return exposure_name(movie.rpartition("/")[2])


def choose(movie: str, described_in: str, names: Sequence[str]) -> str | None:
    """The exposure that is meant, of those whose stem fits.

    Where there are several, it is the one whose folders, from the last one on, agree best with those of `movie`; then
    the one beside the mdoc. None where there is none, or where nothing tells two apart.

    Parameters
    ----------
    movie : the movie's path as the mdoc gives it.
    described_in : the mdoc's path in the session.
    names : exposures' names: their paths in the session without suffixes.
    """
    if len(names) < 2:
        return next(iter(names), None)
    scored = sorted(((_agreement(movie, described_in, name), name) for name in names), reverse=True)
    return scored[0][1] if scored[0][0] > scored[1][0] else None


def described(standing: ExposureMetadata, section: ExposureMetadata) -> ExposureMetadata:
    """The metadata with what a section says: over headers and older sections, under what its own file says."""
    is_own = standing.source not in ("", "header", "fei1", "fei2", SECTION)
    return standing.over(section) if is_own else section.over(standing)


def _agreement(movie: str, described_in: str, name: str) -> tuple[int, bool]:
    wanted, folders = movie.split("/")[-2::-1], name.split("/")[-2::-1]
    common = 0
    for one, other in zip(wanted, folders, strict=False):
        if one.casefold() != other.casefold():
            break
        common += 1
    return common, name.rpartition("/")[0] == described_in.rpartition("/")[0]
