"""The list of micrographs and their CTFs, with which RELION goes on: `micrographs_ctf.star`, of all files of a call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coldchain.errors import ColdchainError
from coldchain.formats.relion_micrographs import FittedMicrograph, OpticsGroup, write_fitted_micrographs
from coldchain.model.results import CtfResult
from coldchain.preprocess.imaging import Imaging, ImagingFinder
from coldchain.preprocess.micrographs import is_spectrum, micrograph_of, probe_picture
from coldchain.preprocess.output_names import CTF_LIST_NAME
from coldchain.preprocess.relion_names import can_be_listed, can_be_read, from_here, unlisted

_NO_MICROGRAPH = f"Not in {CTF_LIST_NAME}: the spectrum's micrograph is not beside it."
_NO_PIXEL = f"Not in {CTF_LIST_NAME}: the pixel size of the spectrum's micrograph is not known. Give --pixel-size Å."
_TWICE = f"Not in {CTF_LIST_NAME}: its micrograph is listed there with another fit of this call."


@dataclass(frozen=True, slots=True)
class _Kind:
    """What micrographs of one optics group have in common."""

    pixel_size_angstrom: float
    voltage_kilovolt: float
    spherical_aberration_millimeter: float
    amplitude_contrast: float


class FittedList:
    """Collects fits that can be believed. Names are given as from the folder that the command runs in, where RELION is
    to run too; of what lies elsewhere, whole.

    Parameters
    ----------
    folder : where the list goes.
    imaging : finds the pixel of a micrograph whose spectrum was fitted.
    has_phase_shift : whether RELION has to be told of one.
    """

    def __init__(self, folder: Path, imaging: ImagingFinder, *, has_phase_shift: bool) -> None:
        self.path = folder / CTF_LIST_NAME
        self._imaging = imaging
        self._has_phase_shift = has_phase_shift
        self._kinds: list[_Kind] = []
        self._micrographs: list[FittedMicrograph] = []
        self._listed_files: set[str] = set()

    def __bool__(self) -> bool:
        """Whether anything is listed."""
        return bool(self._micrographs)

    def add(self, path: Path, result: CtfResult, imaging: Imaging, files: Mapping[str, Path]) -> tuple[str, ...]:
        """Add the fit of a file whose results by role are written; why it was left out, or nothing. What is not to be
        trusted is left out, as its reason says all."""
        if not result.trustworthy or "spectrum" not in files:
            return ()
        micrograph = micrograph_of(path)
        if micrograph is None:
            return (_NO_MICROGRAPH,)
        if not (can_be_read(micrograph) and can_be_listed(files["spectrum"])):
            return unlisted(CTF_LIST_NAME)
        identity = os.path.realpath(micrograph)
        if identity in self._listed_files:
            return (_TWICE,)
        try:
            group = self._kind(path, micrograph, imaging)
        except ColdchainError:
            return (_NO_PIXEL,)
        self._listed_files.add(identity)
        self._micrographs.append(self._listed(micrograph, result, group, files))
        return ()

    def _kind(self, path: Path, micrograph: Path, imaging: Imaging) -> int:
        """The number of its optics group, from 1. A spectrum's pixel is not its micrograph's."""
        pixel = imaging.pixel_size_angstrom
        if is_spectrum(path):
            pixel = self._imaging.find(probe_picture(micrograph)).pixel_size_angstrom
        assert imaging.voltage_kilovolt is not None
        kind = _Kind(
            round(pixel, 6),
            round(imaging.voltage_kilovolt, 3),
            imaging.spherical_aberration_millimeter,
            imaging.amplitude_contrast,
        )
        if kind not in self._kinds:
            self._kinds.append(kind)
        return 1 + self._kinds.index(kind)

    def _listed(self, micrograph: Path, result: CtfResult, group: int, files: Mapping[str, Path]) -> FittedMicrograph:
        return FittedMicrograph(
            name=from_here(micrograph),
            ctf_image_name=from_here(files["spectrum"]),
            defocus_u_angstrom=result.defocus_u_angstrom,
            defocus_v_angstrom=result.defocus_v_angstrom,
            astigmatism_angstrom=result.defocus_u_angstrom - result.defocus_v_angstrom,
            defocus_angle_degrees=result.defocus_angle_degrees,
            figure_of_merit=result.score,
            max_resolution_angstrom=result.fit_resolution_angstrom,
            ice_ring_density=result.ice_ring_density,
            phase_shift_degrees=result.phase_shift_degrees if self._has_phase_shift else None,
            optics_group=group,
        )

    def write(self) -> None:
        """Write the list in place of an earlier one, which goes also where nothing is to be listed.

        Raises StorageError where it cannot be written.
        """
        if not self._micrographs:
            self.path.unlink(missing_ok=True)
            return
        groups = [
            OpticsGroup(
                name=f"opticsGroup{number}",
                movie_pixel_size_angstrom=None,
                pixel_size_angstrom=kind.pixel_size_angstrom,
                voltage_kilovolt=kind.voltage_kilovolt,
                spherical_aberration_millimeter=kind.spherical_aberration_millimeter,
                amplitude_contrast=kind.amplitude_contrast,
            )
            for number, kind in enumerate(self._kinds, 1)
        ]
        write_fitted_micrographs(self.path, groups, self._micrographs)
