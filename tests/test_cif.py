"""Crystals from CIFs: the table of tests/cifs.py, and what a table cannot hold."""

import pytest

pytest.importorskip("abtem", reason="needs nntomo_dask[simulation]")

import itertools
import re
import time
import warnings
from collections import Counter

import numpy as np
from ase import Atoms
from ase.io import write

import nntomo_dask as nt
from nntomo_dask.simulation import neighbours, structures
from tests.cifs import CASES, P1, cell, sites, symbol, zno


@pytest.fixture
def file(tmp_path):
    """Writes a text or bytes to a CIF and returns its path."""

    def written(text, name="a.cif"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


@pytest.mark.parametrize("name", CASES)
def test_the_table(name, file):
    case = CASES[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if case.refused:
            with pytest.raises(nt.SchemaError, match=case.refused):
                nt.structure(file(case.text))
            return
        atoms = nt.structure(file(case.text))
    assert dict(Counter(atoms.get_chemical_symbols())) == case.atoms
    if case.shortest is not None:
        # Coordinates of three digits, in cells of up to 17 Å.
        assert neighbours.pairs(atoms, case.shortest + 0.5)[2].min() == pytest.approx(case.shortest, abs=5e-3)
    said = [str(one.message) for one in caught]
    if case.warned:
        assert any(re.search(case.warned, text) for text in said)
    else:
        assert said == []


def test_both_settings_of_calcite_are_one_crystal(file):
    """Their densities and their distances are the same."""
    hexagonal = nt.structure(file(CASES["calcite_hexagonal"].text, "h.cif"))
    rhombohedral = nt.structure(file(CASES["calcite_rhombohedral"].text, "r.cif"))
    assert hexagonal.get_volume() == pytest.approx(3 * rhombohedral.get_volume(), rel=2e-3)
    near = [np.sort(neighbours.pairs(one, 2.6)[2]) for one in (hexagonal, rhombohedral)]
    np.testing.assert_allclose(near[0], np.repeat(near[1], 3), atol=0.01)


def test_both_origins_of_diamond_are_one_crystal(file):
    one, other = (nt.structure(file(CASES[f"diamond_origin_{n}"].text, f"{n}.cif")) for n in (1, 2))
    moved = np.mod(one.get_scaled_positions() - 0.125, 1).round(6)
    assert set(map(tuple, moved.tolist())) == set(map(tuple, other.get_scaled_positions().round(6).tolist()))


def test_a_block_can_be_chosen(file):
    path = file(zno(before="data_first\n") + "data_second\n" + cell(20) + P1 + sites("Cu1 Cu 0.5 0.5 0.5"))
    assert nt.structure(path, block="first").get_chemical_formula() == "OZn"
    assert nt.structure(path, block="second").get_chemical_formula() == "Cu"
    assert nt.structure(path, block=2).get_chemical_formula() == "Cu"
    assert nt.specimen(path, block="second").numbers.tolist() == [29]
    with pytest.raises(nt.SchemaError, match=r"got 'third'; .* has first \(1\) and second \(2\)"):
        nt.structure(path, block="third")


def test_blocks_of_one_name_are_chosen_by_number(file):
    path = file(zno() + zno(rows=("Cu1 Cu 0 0 0",)))
    with pytest.raises(nt.SchemaError, match=r"a \(1\) and a \(2\); try: block=1"):
        nt.structure(path)
    assert nt.structure(path, block=2).get_chemical_formula() == "Cu"


def test_several_structures_in_another_file_are_refused(tmp_path):
    frames = [Atoms("Cu", cell=[4, 4, 4], pbc=True), Atoms("Ni", cell=[4, 4, 4], pbc=True)]
    write(tmp_path / "a.extxyz", frames)
    with pytest.raises(nt.SchemaError, match=r"needs one crystal; got 2 structures in .*; try: block=1"):
        nt.structure(tmp_path / "a.extxyz")
    assert nt.structure(tmp_path / "a.extxyz", block=2).get_chemical_formula() == "Ni"
    with pytest.raises(nt.SchemaError, match=r"got 3 of .*which has 2"):
        nt.structure(tmp_path / "a.extxyz", block=3)
    with pytest.raises(nt.SchemaError, match="got 'x' of UiO-66, a structure of the table"):
        nt.structure("UiO-66", block="x")


def test_thousands_of_sites_are_quick(file):
    """2,112 sites in P 1, and 24 of them in a group of 192 operations, each within 2 s of processor time."""
    grid = (np.stack(np.meshgrid(*[np.arange(13)] * 3, indexing="ij"), -1).reshape(-1, 3)[:2112] + 0.5) / 13
    listed = [f"C{number} C {x:.5f} {y:.5f} {z:.5f}" for number, (x, y, z) in enumerate(grid)]
    places = list(itertools.combinations(np.linspace(0.01, 0.24, 7), 3))[:24]
    scattered = [f"Zn{number} Zn {x:.5f} {y:.5f} {z:.5f}" for number, (x, y, z) in enumerate(places)]
    for text, count in (
        ("data_a\n" + cell(36.4) + P1 + sites(*listed), 2112),
        ("data_a\n" + cell(200) + symbol("F m -3 m") + sites(*scattered), 24 * 192),
    ):
        path = file(text)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = nt.structure(path)
        assert len(atoms) == count
        assert time.process_time() - start < 2


def test_positions_that_are_not_finite_are_refused():
    atoms = Atoms("Cu", [[np.nan, 0, 0]], cell=[4, 4, 4], pbc=True)
    with pytest.raises(nt.SchemaError, match="needs finite positions"):
        nt.structure(atoms)
    with pytest.raises(nt.SchemaError, match=r"needs a cell at least 0\.6 Å thick"):
        nt.structure(Atoms("Cu", cell=[4, 4, 1e-4], pbc=True))


def test_carbon_without_hydrogen_is_counted_beside_heavy_atoms():
    """Of bromobenzene without hydrogen, five carbon atoms lack theirs; the sixth has bromine."""
    angle = np.deg2rad(60 * np.arange(6))
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    atoms = Atoms("C6Br", np.concatenate([1.39 * ring, 3.29 * ring[:1]]) + 8, cell=[16, 16, 16], pbc=True)
    assert structures.carbons_without_hydrogen(atoms) == 5
