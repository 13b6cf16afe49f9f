"""What is said of a movie that was aligned, and of any file that failed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coldchain.errors import ColdchainError

if TYPE_CHECKING:
    from coldchain.preprocess.alignment import Alignment, TrackLengths

_BYTES_PER_KIB = 1024


@dataclass(frozen=True, slots=True)
class Failed:
    """A file of which nothing was made, and why."""

    path: Path
    error: ColdchainError


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A movie that was aligned and written, as `coldchain align --json` prints it: the fields are its keys.

    output : the micrograph; `files`: all of them by role.
    frames, frames_of_movie : how many were added up, and how many there are.
    shape : (rows, columns) of the micrograph; `pixel_size_angstrom`: its pixel.
    dose_e_per_square_angstrom : of the frames that were added up and of those between them; None where nobody knows.
    gain, gain_verdict : the reference, and what the movie said of it; None where there is none.
    total_motion_angstrom, … : length of the whole frames' track, before and after the first 4 e⁻/Å².
    error_angstrom : of the motion, as expected; None where there is no fit.
    patches : (columns, rows).
    hot_pixels : defects that only the movie showed.
    rank : terms of the exposure filter.
    timings_s : decode, align, sum, write and total.
    peak_rss_bytes : the most memory that this process has held so far.

    Numbers that are no counts have six significant digits.
    """

    movie: Path
    output: Path
    files: dict[str, Path]
    frames: int
    frames_of_movie: int
    shape: tuple[int, int]
    pixel_size_angstrom: float
    voltage_kilovolt: float
    dose_e_per_square_angstrom: float | None
    dose_weighted: bool
    gain: Path | None
    gain_verdict: str | None
    total_motion_angstrom: float
    early_motion_angstrom: float | None
    late_motion_angstrom: float | None
    error_angstrom: float | None
    patches: tuple[int, int]
    hot_pixels: int
    rank: int
    warnings: tuple[str, ...]
    timings_s: dict[str, float]
    peak_rss_bytes: int


def report(
    movie: Path,
    alignment: Alignment,
    lengths: TrackLengths,
    files: dict[str, Path],
    seconds: dict[str, float],
    *,
    more_warnings: tuple[str, ...] = (),
) -> Report:
    """What is said of an alignment whose files by role are written; it holds none of its pictures."""
    aligned, exposure, doses = alignment.aligned, alignment.exposure, alignment.doses_e_per_square_angstrom
    rows, columns = aligned.micrograph.shape
    return Report(
        movie=movie,
        output=files["micrograph"],
        files=files,
        frames=len(aligned.used),
        frames_of_movie=len(alignment.camera_frames),
        shape=(rows, columns),
        pixel_size_angstrom=_rounded(aligned.pixel_size_angstrom),
        voltage_kilovolt=_rounded(exposure.voltage_kilovolt),
        dose_e_per_square_angstrom=None if doses is None else _rounded(sum(doses)),
        dose_weighted=alignment.dose_weighted,
        gain=exposure.gain,
        gain_verdict=None if aligned.gain_check is None else str(aligned.gain_check.verdict),
        total_motion_angstrom=_rounded(lengths.total_angstrom),
        early_motion_angstrom=None if lengths.early_angstrom is None else _rounded(lengths.early_angstrom),
        late_motion_angstrom=None if lengths.late_angstrom is None else _rounded(lengths.late_angstrom),
        error_angstrom=_rounded(aligned.error_angstrom) if math.isfinite(aligned.error_angstrom) else None,
        patches=aligned.motion.grid,
        hot_pixels=len(aligned.hot_pixels),
        rank=aligned.rank,
        warnings=alignment.warnings + more_warnings,
        timings_s={step: _rounded(taken) for step, taken in seconds.items()},
        peak_rss_bytes=_peak_rss_bytes(),
    )


def _rounded(value: float) -> float:
    """Without the digits that are the arithmetic's own: 38.4, and not 38.40000000000002."""
    return float(f"{value:.6g}")


def _peak_rss_bytes() -> int:
    """From the kernel's own count for this process; getrusage would begin with that of the parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"VmHWM:\s*([0-9]+) kB", status)
    return int(found[1]) * _BYTES_PER_KIB if found else 0
