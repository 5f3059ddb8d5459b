"""What an array shows of itself, in a terminal and in a notebook."""

import copy
import json
import pickle

import mrcfile
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import recipes
from nntomo_dask.arrays.recipes import Shown


@pytest.fixture
def volume(tmp_path):
    mrcfile.write(tmp_path / "needle.mrc", np.random.default_rng(1).random((5, 4, 8), np.float32))
    series = nt.read_mrc_series(tmp_path / "needle.mrc", [-40, -10, 0, 20, 60])
    return nt.sirt(series)


def test_a_recipe_is_shown_as_a_line(volume, tmp_path):
    nt.save(volume, tmp_path / "volume.zarr", progress="none")
    for array in (volume, nt.open(tmp_path / "volume.zarr")):
        line = 'sirt(read_mrc("needle.mrc"))'
        assert str(array.attrs["recipe"]) == line
        assert f"recipe:      {line}\n" in repr(array) + "\n"
        shown = array._repr_html_()  # once as text, and once in the list of attributes
        assert (
            shown.count("read_mrc") == shown.count("read_mrc(&quot;needle.mrc&quot;)") == 2
        )  # in text, and in the list
        assert "angles_deg" not in shown


def test_it_is_the_same_recipe(volume):
    recipe = volume.attrs["recipe"]
    assert recipe == json.loads(json.dumps(recipe))
    assert repr(recipe) == repr(dict(recipe))
    assert recipes.recipe_of(volume) == recipe  # the name of the array fits it
    for same in (copy.deepcopy(recipe), pickle.loads(pickle.dumps(recipe))):
        assert same == recipe
        assert str(same) == str(recipe)


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ({}, "…"),
        ({"operation": "a", "inputs": 3}, "a"),
        ({"operation": "a", "parameters": None, "inputs": [{"operation": "b"}, 7]}, "a(b, …)"),
        ({"operation": "read", "parameters": {"sources": [{"file": "größe.dm3"}]}}, 'read("größe.dm3")'),
        ({"operation": "read", "parameters": {"sources": [{"file": "a"}, {"file": "b"}]}}, 'read("a", …)'),
        ({"operation": "read", "parameters": {"sources": 3, "file": 4}}, "read"),
        ({"operation": "\x1b[2Ja"}, "\\x1b[2Ja"),
        ({"operation": "a" * 200}, "a" * 159 + "…"),
    ],
)
def test_recipes_of_any_form_are_shown(recipe, line):
    assert str(Shown(recipe)) == line


def test_a_recipe_within_itself_ends():
    recipe = {"operation": "a", "inputs": []}
    recipe["inputs"].append(recipe)
    assert str(Shown(recipe)) == "a(" * 40 + "…" + ")" * 40
