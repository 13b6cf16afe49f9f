"""How a movie is read, what was read of it, and how many of its frames may be bad."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError, UsageError

_UPSAMPLINGS = (1, 2)


@dataclass(frozen=True, slots=True)
class MovieReading:
    """How to read a movie.

    Parameters
    ----------
    eer_fractions : about how many frames the camera frames of an EER are gathered into (`eer.fraction_bounds`); None
        means 40. Other movies' frames are as they are.
    eer_upsampling : 1 counts an EER's events on the sensor's pixels, 2 on halves of them.
    first_frame, last_frame : which frames (of an EER: fractions), counted from 1, both included; None is the last that
        there is. Nothing outside is decoded.
    tolerate_frames : how many frames (of an EER: camera frames) may be bad and are then left out.
    threads : how many threads decode.

    Raises UsageError where a number cannot be.
    """

    eer_fractions: int | None = None
    eer_upsampling: int = 1
    first_frame: int = 1
    last_frame: int | None = None
    tolerate_frames: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        last = self.first_frame if self.last_frame is None else self.last_frame
        checks = (
            (self.eer_fractions is None or self.eer_fractions >= 1, f"{self.eer_fractions} EER fractions", "1 or more"),
            (self.eer_upsampling in _UPSAMPLINGS, f"an EER upsampling of {self.eer_upsampling}", "1 or 2"),
            (self.first_frame >= 1, f"a first frame of {self.first_frame}", "1 or more"),
            (
                last >= self.first_frame,
                f"frames {self.first_frame} to {last}",
                "a last frame that is not before the first",
            ),
            (self.tolerate_frames >= 0, f"{self.tolerate_frames} bad frames to be tolerated", "0 or more"),
            (self.threads >= 1, f"{self.threads} threads", "1 or more"),
        )
        for holds, found, expected in checks:
            if not holds:
                raise UsageError(found, expected=expected)

    def chosen(self, total: int, path: Path) -> range:
        """The indices, from 0, of the wanted ones among `total` frames; UsageError where there are not so many."""
        last = total if self.last_frame is None else self.last_frame
        if self.first_frame > total or last > total:
            wanted = self.first_frame if self.first_frame > total else last
            raise UsageError(
                f"frame {wanted} is wanted, and the movie has {total} frame{'s' * (total != 1)}",
                expected=f"frames between 1 and {total}",
                path=path,
            )
        return range(self.first_frame - 1, last)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A frame that could not be used: its number in the file, from 1 (of an EER: the camera frame's), and why."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class LoadedMovie:
    """What was read of a movie.

    Parameters
    ----------
    frames : (frame, row, column), the picture's bottom row first (an EER's as its events lie), in the camera's own
        type; 16-bit floats as float32.
    numbers : each frame's number in the file, from 1; of an EER, the fraction's.
    camera_frames : how many of the camera's frames each frame holds: 1, but for an EER, of whose fractions those that
        lack a bad one hold fewer than `frames_per_fraction` says.
    left_out : the frames that were wanted and could not be used, in the order of their numbers.
    """

    frames: NDArray[Any]
    numbers: tuple[int, ...]
    camera_frames: tuple[int, ...]
    left_out: tuple[LeftOut, ...] = ()


class BadFrames:
    """The frames that turned out bad, noted by the threads that decode them; an error when there are too many."""

    def __init__(self, tolerated: int, path: Path) -> None:
        self._tolerated = tolerated
        self._path = path
        self._lock = threading.Lock()
        self._errors: dict[int, tuple[int, FormatError]] = {}

    def add(self, number: int, error: FormatError, *, part: int = 0) -> None:
        """Note that frame `number` (from 1) is bad. Of several errors in one frame that of its lowest `part` is kept.

        Raises FormatError (or IncompleteFileError, if that is what all of them are) when more frames are bad than are
        tolerated.
        """
        with self._lock:
            known = self._errors.get(number)
            if known is None or part < known[0]:
                self._errors[number] = part, error
            if len(self._errors) > self._tolerated:
                raise self._too_many()

    def __contains__(self, number: int) -> bool:
        return number in self._errors

    def _too_many(self) -> FormatError:
        errors = [error for _, (_, error) in sorted(self._errors.items())]
        if not self._tolerated:
            return errors[0]
        kinds = {type(error) for error in errors}
        return (kinds.pop() if len(kinds) == 1 else FormatError)(
            f"at least {len(errors)} frames cannot be used; {errors[0].found}",
            expected=f"at most {self._tolerated} such frames",
            remedy=errors[0].remedy,
            path=self._path,
        )

    def left_out(self) -> tuple[LeftOut, ...]:
        """The bad frames in order."""
        return tuple(LeftOut(number, error.found) for number, (_, error) in sorted(self._errors.items()))


def loaded(
    stack: NDArray[Any], camera_frames: NDArray[np.int64], first: int, bad: BadFrames, path: Path
) -> LoadedMovie:
    """The movie in a stack whose first frame has the number `first`, without those frames that hold no camera frame.

    The stack's own memory is kept: frames move up into the places of those that are left out. Raises FormatError where
    no frame is left.
    """
    held = np.flatnonzero(camera_frames)
    if not held.size:
        reasons = bad.left_out()
        raise FormatError(
            f"no frame is left: {reasons[0].reason}" if reasons else "the movie has no frame",
            expected="at least one frame that can be used",
            remedy="Fetch the file from the camera again; if it is damaged there too, the exposure is lost",
            path=path,
        )
    for place, index in enumerate(held):
        if place != index:
            stack[place] = stack[index]
    return LoadedMovie(
        frames=stack[: held.size],
        numbers=tuple(int(index) + first for index in held),
        camera_frames=tuple(int(count) for count in camera_frames[held]),
        left_out=bad.left_out(),
    )
