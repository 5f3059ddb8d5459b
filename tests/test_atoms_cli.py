"""The verb `atoms`, the figures of atoms, and the guide whose commands run."""

import json
import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import nntomo_dask as nt
from nntomo_dask.atoms import table
from nntomo_dask.cli.main import main
from nntomo_dask.errors import SchemaError
from tests.atom_volumes import PIXEL, gaussians, scattered

pytestmark = pytest.mark.xdist_group("found atoms")  # one process compiles their kernels

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "atoms.md"
WIDTH = 1.8


def run(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 2, result.output
    return result.output


@pytest.fixture(scope="module")
def volume():
    places = scattered(14, (32, 36, 36), apart=8, seed=1)
    return gaussians(places, np.repeat([3.0, 1.0], [5, 9]), WIDTH, (32, 36, 36), noise=0.01)


@pytest.fixture
def store(volume, tmp_path):
    nt.save(volume, tmp_path / "volume.zarr")
    return tmp_path / "volume.zarr"


def test_what_python_finds_is_written(volume, store, tmp_path):
    text = run("atoms", store, "-o", tmp_path / "atoms.csv", "--elements", "Zr=5,O=9")
    assert "14 atoms, 9 O, 5 Zr" in text
    found = nt.find_atoms(volume, species={"Zr": 5, "O": 9})
    back = nt.read_atoms(tmp_path / "atoms.csv")
    for name in back:
        np.testing.assert_array_equal(back[name].values, found[name].values)


def test_memory_changes_nothing(store, tmp_path):
    for size in ("1300MiB", "4GiB"):
        run("atoms", store, "-o", tmp_path / f"{size}.csv", "--memory", size, "--workers", 1)
    assert (tmp_path / "1300MiB.csv").read_bytes() == (tmp_path / "4GiB.csv").read_bytes()
    assert "MiB" in refused("atoms", store, "-o", tmp_path / "no.csv", "--memory", "100MiB")


def test_the_score_and_the_figures(store, tmp_path):
    run("atoms", store, "-o", tmp_path / "true.csv")
    moved = nt.read_atoms(tmp_path / "true.csv")
    nt.write_atoms(moved.assign(x=moved["x"] + 0.3).isel(atom=slice(1, None)), tmp_path / "moved.csv")
    words = ("atoms", store, "-o", tmp_path / "atoms.csv", "--crystal", tmp_path / "moved.csv")
    text = run(*words, "--figure", tmp_path / "atoms.png")
    assert "of 13 atoms of the structure 13 were found, 100 %" in text
    assert "92.86 % are of it" in text
    for name in ("atoms.png", "atoms-displacements.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    # Figures of the command are replaced, tables are not.
    assert "--overwrite" in refused(*words, "--figure", tmp_path / "atoms.png")
    output = run(*words, "--figure", tmp_path / "atoms.png", "--overwrite", "--json")
    figures = json.loads(output[output.index("{") : output.rindex("}") + 1])
    assert figures["match"]["matched"] == 13
    assert figures["match"]["shift_nm"][2] == pytest.approx(0.3, abs=1e-9)


@pytest.mark.extra("ase")
def test_a_crystal_by_its_name_is_cut_into_cells(tmp_path):
    """The heavy atoms of MOF-5, drawn as Gaussians."""
    pytest.importorskip("ase")
    whole = table.from_specimen(nt.specimen("MOF-5"))
    zinc = whole.isel(atom=whole["species"].values == "Zn")
    shape = (48, 48, 48)
    step = 2.7 / 48
    volume = gaussians(table.positions(zinc) / step + 23.5, np.full(zinc.sizes["atom"], 2.0), 1.3, shape)
    scale = step / PIXEL
    volume = volume.assign_coords({dim: volume[dim] * scale for dim in ("z", "y", "x")}).assign_attrs(pixel_size=step)
    nt.save(nt.volume(volume.values, pixel_size=step, units="nm"), tmp_path / "mof.zarr")
    text = run("atoms", tmp_path / "mof.zarr", "-o", tmp_path / "a.csv", "--crystal", "MOF-5", "--limit", 0.05)
    assert f"Zn: {zinc.sizes['atom']} of {zinc.sizes['atom']}" in text
    assert "100 % are of it" in text


def test_refusals_name_options(store, tmp_path):
    out = ("-o", tmp_path / "a.csv")
    assert "--threshold" in refused("atoms", store, *out, "--threshold", "1e9")
    assert "--threshold" in refused("atoms", store, *out, "--count", 20)
    assert "symbols of elements" in refused("atoms", store, *out, "--elements", "Zr,Qq")
    assert "Zr=24" in refused("atoms", store, *out, "--elements", "Zr=many,O=1")
    assert "--limit is for --crystal" in refused("atoms", store, *out, "--limit", 0.1)
    assert "--page is for a tilt series" in refused("atoms", store, *out, "--page", tmp_path / "page")
    assert "--elements" in refused("atoms", store, "-o", tmp_path / "a.cif")
    assert ".csv" in refused("atoms", store, "-o", tmp_path / "a.txt")
    nt.save(nt.nanoparticle(16, seed=1), tmp_path / "pixels.zarr")
    assert "--pixel-size" in refused("atoms", tmp_path / "pixels.zarr", *out)
    nt.save(nt.project(nt.nanoparticle(16, seed=1), [0.0, 45.0]), tmp_path / "series.zarr")
    assert "--pixel-size" in refused("atoms", tmp_path / "series.zarr", *out)
    (tmp_path / "notes.txt").write_text("a file of text")
    assert "needs a store" in refused("atoms", tmp_path / "notes.txt", *out)
    assert "needs a store" in refused("atoms", store, *out, "--fold", tmp_path / "notes.txt")
    elsewhere = table.make(
        np.random.default_rng(1).uniform(-0.3, 0.3, (40, 3)),
        recipe={"operation": "made", "parameters": {}, "inputs": []},
    )
    nt.write_atoms(elsewhere, tmp_path / "other.csv")
    other = ("--crystal", tmp_path / "other.csv", "--limit")
    assert "--limit above zero" in refused("atoms", store, *out, *other, -1)
    assert not (tmp_path / "a.csv").exists()


def test_atoms_of_another_structure_are_written(store, tmp_path):
    elsewhere = table.make(
        np.random.default_rng(1).uniform(-0.3, 0.3, (40, 3)),
        recipe={"operation": "made", "parameters": {}, "inputs": []},
    )
    nt.write_atoms(elsewhere, tmp_path / "other.csv")
    text = refused("atoms", store, "-o", tmp_path / "a.csv", "--crystal", tmp_path / "other.csv", "--limit", 0.005)
    assert "no more than by chance" in text
    assert "--align none" in text
    assert "a.csv: 14 atoms" in text
    assert nt.read_atoms(tmp_path / "a.csv").sizes["atom"] == 14


def test_a_series_that_shows_none_of_the_atoms(volume, store, tmp_path):
    there = nt.project(volume, [-60.0, 0.0, 60.0]).compute()
    noise = np.random.default_rng(2).normal(0, 1, there.shape).astype(np.float32)
    nt.save(there.copy(data=noise), tmp_path / "series.zarr")
    text = run("atoms", store, "-o", tmp_path / "a.csv", "--refine", tmp_path / "series.zarr")
    assert "none of them moved" in text
    assert "nan" not in text


def test_figures(volume):
    found = nt.find_atoms(volume, species=("Zr", "O"))
    figure = nt.plot_atoms(volume, found, reference=found)
    assert len(figure.axes) == 2
    drawn = [line for line in figure.axes[0].lines if line.get_label() in ("Zr", "O")]
    # The slice with the most atoms around it: more than one on average of 14 in 32 slices of 5.
    assert sum(len(line.get_xdata()) for line in drawn) > 14 * 5 / 32
    with pytest.raises(SchemaError, match="slice along z from 0 to 31"):
        nt.plot_atoms(volume, found, z=32)
    with pytest.raises(SchemaError, match="pairs of atoms"):
        nt.plot_displacements(np.zeros((0, 3)))


def test_the_guide_runs(tmp_path, monkeypatch):
    """Its Python and its commands, one after another."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    output = ""
    for python, commands in re.findall(r"```python\n(.*?)```|<!-- run -->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(python, str(PAGE), "exec"), names)
        for line in commands.splitlines():
            output = run(*shlex.split(line)[1:])
    shares = re.search(r"were found, ([\d.]+) %; of the found ones ([\d.]+) %", output)
    assert min(float(one) for one in shares.groups()) > 90
    assert Path("atoms/index.html").is_file()
    assert Path("atoms.png").is_file()
    assert Path("atoms-displacements.png").is_file()
    assert Path("sure.csv").is_file()
    assert names["match"].recall > 0.9


def test_the_guide_names_options_that_exist():
    verb = main.get_command(click.Context(main), "atoms")
    known = {option for one in verb.get_params(click.Context(verb)) for option in getattr(one, "opts", ())}
    of_others = re.compile(r"^nntomo (?!atoms ).*$", re.MULTILINE)
    named = re.findall(
        r"(?<![-\w])--[a-z][a-z-]+", of_others.sub("", PAGE.read_text().split("## How atoms are found")[1])
    )
    assert "--agreement" in named
    assert set(named) <= known
