"""Tables of atoms in files."""

import numpy as np
import pytest
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.atoms import table
from nntomo_dask.errors import SchemaError

RECIPE = {"operation": "made", "parameters": {}, "inputs": [], "version": "0"}


@pytest.fixture
def atoms():
    rng = np.random.default_rng(1)
    columns = {"height": rng.normal(size=5), "z_error": rng.uniform(size=5), "agreement": [1, 0.5, 0, 1, 1]}
    return table.make(rng.normal(size=(5, 3)), recipe=RECIPE, species=["Zr", "", "O", "Si", "C"], **columns)


def test_csv_keeps_everything(atoms, tmp_path):
    path = tmp_path / "atoms.csv"
    nt.write_atoms(atoms, path)
    assert path.read_text().splitlines()[0].startswith("z_nm,y_nm,x_nm,height,width_nm")
    back = nt.read_atoms(path)
    xr.testing.assert_identical(back.drop_attrs(), atoms.drop_attrs())
    assert back.attrs["recipe"]["parameters"]["file"] == "atoms.csv"
    first = path.read_bytes()
    nt.write_atoms(back, path)
    assert path.read_bytes() == first


def test_a_table_of_another_program_needs_positions_alone(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("x_nm, y_nm, z_nm, species, charge\n1,2,3,zr,4\n\n0,0,-1,,\n")
    back = nt.read_atoms(path)
    np.testing.assert_array_equal(table.positions(back), [[-1, 0, 0], [3, 2, 1]])
    assert back["species"].values.tolist() == ["", "Zr"]
    assert np.isnan(back["height"].values).all()


@pytest.mark.extra("ase")
@pytest.mark.parametrize("suffix", ["xyz", "extxyz"])
def test_xyz_is_in_angstroms(atoms, tmp_path, suffix):
    """The extended form has 8 digits behind the point of an Å: 5e-10 nm."""
    io = pytest.importorskip("ase.io")
    path = tmp_path / f"atoms.{suffix}"
    nt.write_atoms(atoms, path)
    held = io.read(path, format="extxyz")
    np.testing.assert_allclose(held.positions, 10 * table.positions(atoms)[:, ::-1], atol=1e-8)
    back = nt.read_atoms(path)
    np.testing.assert_allclose(table.positions(back), table.positions(atoms), atol=1e-9)
    assert back["species"].values.tolist() == atoms["species"].values.tolist()
    if suffix == "extxyz":
        np.testing.assert_allclose(back["height"].values, atoms["height"].values, atol=1e-8)
    else:
        assert np.isnan(back["height"].values).all()


@pytest.mark.extra("ase")
def test_a_cif_keeps_distances(atoms, tmp_path):
    """Fractions of the cell have 10 digits or fewer in a CIF: 1e-5 of 3 nm is the bound."""
    pytest.importorskip("ase")
    named = atoms.assign(species=("atom", ["Zr", "O", "O", "Si", "C"]))
    nt.write_atoms(named, tmp_path / "atoms.cif")
    back = nt.read_atoms(tmp_path / "atoms.cif")
    expected = table.positions(named) - table.positions(named).min(axis=0)
    np.testing.assert_allclose(table.positions(back) - table.positions(back).min(axis=0), expected, atol=3e-5)
    assert back["species"].values.tolist() == named["species"].values.tolist()


@pytest.mark.extra("ase")
def test_a_cif_needs_elements(atoms, tmp_path):
    pytest.importorskip("ase")
    with pytest.raises(SchemaError, match="element of each atom for a CIF; got 1 atoms without"):
        nt.write_atoms(atoms, tmp_path / "atoms.cif")
    assert not (tmp_path / "atoms.cif").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", "without z_nm, y_nm, x_nm"),
        ("z_nm,y_nm,x_nm\n1,2\n", "2 in line 2"),
        ("z_nm,y_nm,x_nm\n1,2,three\n", "cannot be read"),
        ("z_nm,y_nm,x_nm\n1,2,inf\n", "finite x"),
        ("z_nm,y_nm,x_nm,species\n1,2,3,Qq\n", "Qq"),
        ("\x00\x01", "without z_nm"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, says):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(SchemaError, match=says):
        nt.read_atoms(path)


@pytest.mark.extra("ase")
@pytest.mark.parametrize("suffix", ["xyz", "cif"])
def test_what_ase_cannot_read_is_refused(tmp_path, suffix):
    pytest.importorskip("ase")
    path = tmp_path / f"bad.{suffix}"
    path.write_text("no atoms\nhere\n")
    with pytest.raises(SchemaError, match="cannot be read"):
        nt.read_atoms(path)


def test_other_suffixes_and_empty_tables_are_refused(atoms, tmp_path):
    with pytest.raises(SchemaError, match=r"\.csv, \.xyz"):
        nt.write_atoms(atoms, tmp_path / "atoms.txt")
    with pytest.raises(SchemaError, match="empty table"):
        nt.write_atoms(atoms.isel(atom=[]), tmp_path / "atoms.csv")
    with pytest.raises(FileNotFoundError):
        nt.read_atoms(tmp_path / "none.csv")
