"""The list of micrographs with which RELION goes on: `corrected_micrographs.star`, of all movies of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from coldchain.formats.relion_micrographs import CorrectedMicrograph, OpticsGroup, write_corrected_micrographs
from coldchain.formats.relion_motion import accumulated_motion_pixel
from coldchain.preprocess.alignment import Alignment
from coldchain.preprocess.alignment_files import relion_motion
from coldchain.preprocess.output_names import LIST_NAME
from coldchain.preprocess.relion_names import can_be_listed, from_here, unlisted
from coldchain.preprocess.wishes import Lens


@dataclass(frozen=True, slots=True)
class _Kind:
    """What micrographs of one optics group have in common."""

    movie_pixel_size_angstrom: float
    pixel_size_angstrom: float
    voltage_kilovolt: float


class MicrographList:
    """Collects what was written. Names are given as from the folder that the command runs in, where RELION is to run
    too; of what lies elsewhere, whole."""

    def __init__(self, folder: Path, lens: Lens) -> None:
        self._path = folder / LIST_NAME
        self._lens = lens
        self._kinds: list[_Kind] = []
        self._micrographs: list[CorrectedMicrograph] = []

    @property
    def path(self) -> Path:
        """Of the list."""
        return self._path

    def add(self, alignment: Alignment, files: Mapping[str, Path]) -> tuple[str, ...]:
        """Add an alignment whose files by role are written; why it was left out, or nothing."""
        exposure = alignment.exposure
        if not all(map(can_be_listed, files.values())):
            return unlisted(LIST_NAME)
        kind = _Kind(
            exposure.pixel_size_angstrom, alignment.aligned.pixel_size_angstrom, round(exposure.voltage_kilovolt, 3)
        )
        if kind not in self._kinds:
            self._kinds.append(kind)
        total, early, late = accumulated_motion_pixel(relion_motion(alignment))
        names = {role: from_here(path) for role, path in files.items()}
        self._micrographs.append(
            CorrectedMicrograph(
                name=names["micrograph"],
                metadata_name=names["motion"],
                total_motion_pixel=total,
                early_motion_pixel=early,
                late_motion_pixel=late,
                optics_group=1 + self._kinds.index(kind),
                unweighted_name=names["unweighted"],
                power_spectrum_name=names["spectrum"],
                even_name=names.get("even"),
                odd_name=names.get("odd"),
            )
        )
        return ()

    def write(self) -> None:
        """Write the list, in place of an earlier one; nothing where nothing was added.

        Raises StorageError where it cannot be written.
        """
        if not self._micrographs:
            return
        micrographs = self._micrographs
        if any(micrograph.even_name is None for micrograph in micrographs):  # a movie of one frame has no halves
            micrographs = [replace(micrograph, even_name=None, odd_name=None) for micrograph in micrographs]
        groups = [
            OpticsGroup(
                name=f"opticsGroup{number}",
                movie_pixel_size_angstrom=kind.movie_pixel_size_angstrom,
                pixel_size_angstrom=kind.pixel_size_angstrom,
                voltage_kilovolt=kind.voltage_kilovolt,
                spherical_aberration_millimeter=self._lens.spherical_aberration_millimeter,
                amplitude_contrast=self._lens.amplitude_contrast,
            )
            for number, kind in enumerate(self._kinds, 1)
        ]
        write_corrected_micrographs(self._path, groups, micrographs)
