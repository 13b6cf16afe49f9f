"""What the user wants of an alignment: which frames are read and how, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FramesWanted:
    """Which frames of a movie are read, and how.

    first, last : frames (of an EER: fractions) used, counted from 1, both included; None is the last that there is.
    eer_fractions : about how many frames an EER is rendered to; None: 40.
    eer_dose_e_per_square_angstrom : of such a frame, instead of their number.
    eer_upsampling : 1 counts on the sensor's pixels, 2 on halves of them.
    tolerate : how many frames (of an EER: camera frames) may be unreadable and are then left out.
    """

    first: int = 1
    last: int | None = None
    eer_fractions: int | None = None
    eer_dose_e_per_square_angstrom: float | None = None
    eer_upsampling: int = 1
    tolerate: int = 0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is made of the frames.

    patches : (columns, rows) from which local motion is found; None: as the size suggests.
    bin_factor : pixel of the sums over that of the frames.
    halves : whether sums of the even and of the odd frames are wanted.
    dose_weighting : whether frames are weighted by their exposure, where it is known.
    pre_exposure_e_per_square_angstrom : before the movie's first frame.
    gain_auto : whether a gain reference that fits otherwise is taken as it fits.
    threads : at most so many compute.
    """

    patches: tuple[int, int] | None = None
    bin_factor: float = 1.0
    halves: bool = False
    dose_weighting: bool = True
    pre_exposure_e_per_square_angstrom: float = 0.0
    gain_auto: bool = False
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Lens:
    """What RELION has to know of the microscope, and the alignment need not; the values of most instruments."""

    spherical_aberration_millimeter: float = 2.7
    amplitude_contrast: float = 0.1
