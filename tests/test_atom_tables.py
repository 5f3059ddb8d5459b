"""Tables of atoms, and their way from and to ASE."""

import numpy as np
import pytest
import xarray as xr

from nntomo_dask.atoms import elements, table
from nntomo_dask.errors import SchemaError

RECIPE = {"operation": "made", "parameters": {}, "inputs": [], "version": "0"}
PLACES = np.array([[1.0, 0.0, 0.5], [-1.0, 2.0, 0.0], [-1.0, 0.0, 3.0]])


def small():
    return table.make(PLACES, recipe=RECIPE, species=["Zr", "", "O"], height=[3.0, 2.0, 1.0], agreement=[1, 0, 0.5])


def test_rows_are_sorted_with_all_their_columns():
    made = small()
    np.testing.assert_array_equal(table.positions(made), PLACES[[2, 1, 0]])
    assert made["species"].values.tolist() == ["O", "", "Zr"]
    assert made["height"].values.tolist() == [1, 2, 3]
    assert made["agreement"].values.tolist() == [0.5, 0, 1]
    assert np.isnan(made["width"].values).all()
    assert made.attrs["units"] == made["z"].attrs["units"] == "nm"


def test_a_table_without_rows_is_one():
    table.check(table.make(np.zeros((0, 3)), recipe=RECIPE), who="test")


@pytest.mark.extra("ase")
def test_to_ase_and_back():
    """Positions are multiplied by 10 and divided by 10: equal within a rounding of each."""
    ase = pytest.importorskip("ase")
    made = small()
    atoms = table.atoms_to_ase(made)
    assert isinstance(atoms, ase.Atoms)
    assert atoms.get_chemical_symbols() == ["O", "X", "Zr"]
    np.testing.assert_allclose(atoms.positions[2], [5.0, 0.0, 10.0], rtol=1e-15)
    back = table.atoms_from_ase(atoms)
    xr.testing.assert_allclose(back, made.drop_attrs(), rtol=1e-15)
    assert back["species"].values.tolist() == made["species"].values.tolist()


@pytest.mark.extra("ase")
def test_the_elements_are_those_of_ase():
    data = pytest.importorskip("ase.data")
    assert list(elements.SYMBOLS) == data.chemical_symbols[1:]


def test_like_replaces_and_sorts_again():
    made = small()
    moved = table.like(made, RECIPE, {"z": [5.0, 0.0, -5.0]})
    assert moved["species"].values.tolist() == ["Zr", "", "O"]
    assert moved["height"].values.tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    ("spoiled", "says"),
    [
        (lambda made: made["z"], "xarray.Dataset"),
        (lambda made: made.drop_vars("height"), "without height"),
        (lambda made: made.assign_attrs(units="px"), "in nm"),
        (lambda made: made.assign(y=made["y"].astype("float32")), "float64"),
        (lambda made: made.assign(y=made["y"].where(made["y"] < 1)), "finite y"),
        (lambda made: made.assign(species=("atom", ["Zr", "Qq", ""])), "Qq"),
        (lambda made: made.assign(species=("atom", [1.0, 2.0, 3.0])), "text"),
    ],
)
def test_what_is_no_table_is_refused(spoiled, says):
    with pytest.raises(SchemaError, match=says):
        table.check(spoiled(small()), who="test")


def test_columns_that_are_asked_for_have_to_be_finite():
    table.check(small(), who="test", needs=["height"])
    with pytest.raises(SchemaError, match="finite width"):
        table.check(small(), who="test", needs=["width"])


def test_columns_of_another_length_are_refused():
    with pytest.raises(SchemaError, match="3 values"):
        table.make(PLACES, recipe=RECIPE, height=[1.0])


@pytest.mark.parametrize(("names", "says"), [(["Qq"], "Qq"), (["Zr", "zr"], "twice")])
def test_names_that_are_no_elements_are_refused(names, says):
    with pytest.raises(SchemaError, match=says):
        elements.symbols(names, who="test")


def test_symbols_come_in_any_case():
    assert elements.symbols(["zr", " O"], who="test") == ("Zr", "O")
