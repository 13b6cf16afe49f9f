"""Specimens: read, generated, hostile."""

from __future__ import annotations

import gzip
from pathlib import Path

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldchain.errors import FormatError, UsageError
from coldchain.simulate.specimen import generate_specimen, load_specimen, random_rotation

ATOM = (
    "{record:<6}{serial:5d}  {name:<3} {residue} A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00"
    "          {element:>2}"
)


def pdb_text() -> str:
    """Two residues' worth of atoms, a hydrogen and a water."""
    rows = [
        ("ATOM", "N", "ALA", 1, (0.0, 0.0, 0.0), "N"),
        ("ATOM", "CA", "ALA", 1, (10.0, 0.0, 0.0), "C"),
        ("ATOM", "H", "ALA", 1, (1.0, 1.0, 1.0), "H"),
        ("ATOM", "O", "ALA", 1, (10.0, 20.0, 30.0), "O"),
        ("HETATM", "O", "HOH", 2, (90.0, 90.0, 90.0), "O"),
    ]
    lines = [
        ATOM.format(
            record=record, serial=serial, name=name, residue=residue, number=number, x=x, y=y, z=z, element=element
        )
        for serial, (record, name, residue, number, (x, y, z), element) in enumerate(rows, 1)
    ]
    return "\n".join([*lines, "END", ""])


def test_a_structure_is_read_centred_without_hydrogens_and_waters(tmp_path: Path) -> None:
    """Three atoms remain; their mean is the origin; the farthest makes the diameter."""
    path = tmp_path / "small.pdb"
    path.write_text(pdb_text())
    specimen = load_specimen(path, seed=0)
    assert sorted(specimen.atomic_numbers) == [6, 7, 8]
    assert np.allclose(specimen.positions_angstrom.mean(axis=0), 0)
    assert np.allclose(np.ptp(specimen.positions_angstrom, axis=0), [10, 20, 30])
    assert specimen.diameter_angstrom == pytest.approx(2 * np.linalg.norm(specimen.positions_angstrom, axis=1).max())
    assert specimen.name == "small"


def test_pdb_mmcif_and_their_compressed_forms_give_the_same_atoms(tmp_path: Path) -> None:
    """The four kinds of file that depositions come in are read alike."""
    pdb = tmp_path / "one.pdb"
    pdb.write_text(pdb_text())
    cif = tmp_path / "one.cif"
    gemmi.read_structure(str(pdb)).make_mmcif_document().write_file(str(cif))
    wanted = load_specimen(pdb, seed=0)
    for plain in (pdb, cif):
        packed = plain.with_name(plain.name + ".gz")
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        for path in (plain, packed):
            found = load_specimen(path, seed=0)
            assert np.allclose(found.positions_angstrom, wanted.positions_angstrom, atol=1e-3)
            assert np.array_equal(found.atomic_numbers, wanted.atomic_numbers)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(FormatError, match=r"none\.pdb"):
        load_specimen(tmp_path / "none.pdb", seed=0)


@settings(max_examples=25)
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".pdb", ".cif", ".pdb.gz", ".cif.gz", ".txt"]))
def test_what_is_no_structure_is_a_stated_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    """Whatever bytes a file holds, reading it as a specimen ends in atoms or in a FormatError."""
    path = tmp_path_factory.mktemp("hostile") / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(FormatError):
        load_specimen(path, seed=0)


def test_a_generated_particle_is_protein_like_and_reproducible() -> None:
    """Its diameter is what was asked, its atoms as many as a protein of its size has; its seed is all it needs."""
    first, again, other = (generate_specimen(seed=seed) for seed in (3, 3, 4))
    assert 146 <= first.diameter_angstrom <= 150
    assert 15_000 < len(first.atomic_numbers) < 100_000
    assert np.array_equal(first.positions_angstrom, again.positions_angstrom)
    assert not np.array_equal(first.positions_angstrom, other.positions_angstrom)
    assert load_specimen(None, seed=3).name == first.name


def test_a_generated_particle_has_d2_symmetry_and_even_density() -> None:
    """Turning it by 180° about x maps its atoms onto themselves; no cell is denser than a protein can be."""
    specimen = generate_specimen(seed=1)
    turned = specimen.positions_angstrom * [1, -1, -1]
    order, turned_order = (np.lexsort(np.round(p, 6).T) for p in (specimen.positions_angstrom, turned))
    assert np.allclose(specimen.positions_angstrom[order], turned[turned_order])
    cells, _ = np.histogramdd(specimen.positions_angstrom, bins=[np.arange(-80, 81, 20)] * 3)
    assert 0.045 < np.percentile(cells[cells > 0], 95) / 8000 < 0.065


def test_particles_scatter_more_than_the_ice_they_displace() -> None:
    """Every atom of a protein adds to the image, by about half of its own scattering."""
    specimen = generate_specimen(seed=1)
    scattering = specimen.scattering_angstrom()
    assert scattering.shape == specimen.atomic_numbers.shape
    assert scattering.min() > 0.5
    assert 1.0 < scattering.mean() < 1.5


def test_rotations_are_proper_and_uniform() -> None:
    """Each is orthonormal with determinant 1; over many, a fixed axis points everywhere alike."""
    rng = np.random.default_rng(0)
    rotations = np.array([random_rotation(rng) for _ in range(2000)])
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(rotations), 1)
    axis = rotations[:, :, 2]
    assert np.abs(axis.mean(axis=0)).max() < 0.05
    assert np.abs((axis**2).mean(axis=0) - 1 / 3).max() < 0.03


def test_too_small_a_particle_is_refused() -> None:
    """A generated particle has room for its lobes."""
    with pytest.raises(UsageError, match="30 Å"):
        generate_specimen(seed=0, diameter_angstrom=5)


@pytest.mark.real_data
def test_deposited_structures_are_read(real_data: Path) -> None:
    """β-galactosidase and apoferritin have their atoms and sizes."""
    galactosidase = load_specimen(real_data / "structures" / "5a1a.pdb.gz", seed=0)
    assert len(galactosidase.atomic_numbers) > 32_000
    assert 170 < galactosidase.diameter_angstrom < 195
    apoferritin = load_specimen(real_data / "structures" / "6z6u.pdb.gz", seed=0)
    assert 120 < apoferritin.diameter_angstrom < 140
