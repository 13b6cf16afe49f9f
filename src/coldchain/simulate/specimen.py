"""What lies in the ice: atoms read from a structure file, or a generated particle of a protein's density."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from coldchain.errors import FormatError, UsageError

_ICE_MOLECULES_PER_CUBIC_ANGSTROM = 0.0314  # 0.94 g/cm³
_ICE_MOLECULE_SCATTERING_ANGSTROM = 3.041  # f_e(0) of one oxygen and two hydrogens
_HEAVY_ATOMS_PER_CUBIC_ANGSTROM = 0.0569  # 1.35 g/cm³ of protein, 14.3 Da with its hydrogens for each heavy atom
_HYDROGENS_PER_HEAVY_ATOM = 1.0  # the mean residue is C4.9 N1.35 O1.5 S0.03 H7.7
_PROTEIN_ELEMENTS = (6, 7, 8, 16)
_PROTEIN_FRACTIONS = (0.63, 0.17, 0.195, 0.005)


@dataclass(frozen=True, slots=True, eq=False)
class Specimen:
    """A particle: atoms without hydrogens, centred.

    `positions_angstrom`: float64 (atoms, 3), mean at the origin. `atomic_numbers`: int64 (atoms,).
    """

    name: str
    positions_angstrom: NDArray[np.float64]
    atomic_numbers: NDArray[np.int64]

    @property
    def diameter_angstrom(self) -> float:
        """Twice the distance of the farthest atom from the centre: no view of the particle reaches beyond it."""
        return float(2 * np.sqrt((self.positions_angstrom**2).sum(axis=1).max()))

    def scattering_angstrom(self) -> NDArray[np.float64]:
        """What each atom scatters beyond the ice that it displaces, in Å, float64 (atoms,).

        f = f_e(0) of the atom and its mean hydrogen, minus the ice of the volume that a protein's heavy atom takes
        (17.6 Å³). f_e(0) is that of International Tables C 4.3.2.2 (Peng et al., Acta Cryst. A 1996, 52, 257,
        doi:10.1107/S0108767395014371).
        """
        displaced = _ICE_MOLECULES_PER_CUBIC_ANGSTROM / _HEAVY_ATOMS_PER_CUBIC_ANGSTROM
        displaced *= _ICE_MOLECULE_SCATTERING_ANGSTROM
        kinds, index = np.unique(self.atomic_numbers, return_inverse=True)
        hydrogens = _HYDROGENS_PER_HEAVY_ATOM * _forward_scattering_angstrom(1)
        per_kind = np.array([_forward_scattering_angstrom(int(kind)) for kind in kinds]) + hydrogens - displaced
        result: NDArray[np.float64] = per_kind[index]
        return result


def ice_scattering_power_per_square_angstrom(thickness_angstrom: float) -> float:
    """Σ f² of the molecules above one Å² of an ice film: the white spectrum of its structural noise, before S(k)."""
    return thickness_angstrom * _ICE_MOLECULES_PER_CUBIC_ANGSTROM * _ICE_MOLECULE_SCATTERING_ANGSTROM**2


def load_specimen(path: Path | None, *, seed: int = 0) -> Specimen:
    """The particle of a PDB or mmCIF file (also .gz), or a generated one where `path` is None.

    The first model is taken, as the file's first biological assembly where it names one, without hydrogens, waters and
    alternative conformations. `seed` only matters to a generated particle.

    Raises
    ------
    FormatError : the file cannot be read as a structure, or holds no atoms.
    """
    return generate_specimen(seed=seed) if path is None else _read_structure(path)


def generate_specimen(*, seed: int, diameter_angstrom: float = 150.0) -> Specimen:
    """A particle of four equal lobes with D2 symmetry and a protein's density: as many atoms as such a one would have.

    One lobe is the union of six balls, placed by `seed`; atoms lie in it at random.
    """
    if diameter_angstrom < 30:
        raise UsageError(f"a particle of {diameter_angstrom:g} Å", expected="30 Å or more")
    rng = np.random.default_rng(seed)
    centres = np.array([13.0, 12.0, 0.0]) + rng.normal(scale=[8.0, 8.0, 18.0], size=(6, 3))
    radii = rng.uniform(18.0, 24.0, size=6)
    scale = 0.5 * diameter_angstrom / float((np.linalg.norm(centres, axis=1) + radii).max())
    lobe = _fill_balls(rng, centres * scale, radii * scale)
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])  # the four rotations of D2
    positions = (signs[:, np.newaxis, :] * lobe).reshape(-1, 3)
    elements = rng.choice(_PROTEIN_ELEMENTS, p=_PROTEIN_FRACTIONS, size=len(lobe))
    return _centred(f"generated-{seed}", positions, np.tile(elements, len(signs)))


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation matrix (3, 3), uniform over all orientations: a unit quaternion from four normal numbers."""
    quaternion = rng.normal(size=4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@functools.cache
def _forward_scattering_angstrom(atomic_number: int) -> float:
    return float(gemmi.Element(atomic_number).c4322.calculate_sf(0.0))


def _fill_balls(
    rng: np.random.Generator, centres: NDArray[np.float64], radii: NDArray[np.float64]
) -> NDArray[np.float64]:
    low = (centres - radii[:, np.newaxis]).min(axis=0)
    high = (centres + radii[:, np.newaxis]).max(axis=0)
    count = int(np.prod(high - low) * _HEAVY_ATOMS_PER_CUBIC_ANGSTROM)
    points = rng.uniform(low, high, size=(count, 3))
    inside = np.zeros(count, dtype=bool)
    for centre, radius in zip(centres, radii, strict=True):
        inside |= ((points - centre) ** 2).sum(axis=1) < radius**2
    # Where a lobe crosses into its copies' octants the density would add up; keep it to its own.
    inside &= (points[:, 0] > 0) & (points[:, 1] > 0)
    result: NDArray[np.float64] = points[inside]
    return result


def _read_structure(path: Path) -> Specimen:
    try:
        structure = gemmi.read_structure(str(path))
    except FileNotFoundError as error:
        raise FormatError("no such file", remedy="Name a PDB or mmCIF file.", path=path) from error
    except (RuntimeError, ValueError, IndexError, OSError) as error:  # what gemmi raises on hostile input
        raise FormatError(
            f"not readable as a structure ({error})", expected="a PDB or mmCIF file, perhaps .gz", path=path
        ) from error
    structure.setup_entities()
    structure.remove_alternative_conformations()
    structure.remove_hydrogens()
    structure.remove_waters()
    if len(structure) and structure.assemblies:
        structure.transform_to_assembly(structure.assemblies[0].name, gemmi.HowToNameCopiedChain.Short)
    atoms = itertools.islice(structure, 1)
    found = [(cra.atom.pos.tolist(), cra.atom.element.atomic_number) for model in atoms for cra in model.all()]
    known = [(position, number) for position, number in found if number > 1 and np.all(np.isfinite(position))]
    if not known:
        raise FormatError("no atoms of a known element", remedy="Name a structure with coordinates.", path=path)
    positions, numbers = zip(*known, strict=True)
    return _centred(path.name.split(".")[0], np.array(positions, dtype=np.float64), np.array(numbers, dtype=np.int64))


def _centred(name: str, positions: NDArray[np.float64], numbers: NDArray[np.int64]) -> Specimen:
    return Specimen(name, positions - positions.mean(axis=0), numbers)
