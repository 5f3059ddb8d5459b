"""Crystals and what is cut from them."""

import pytest

pytest.importorskip("abtem", reason="needs nntomo_dask[simulation]")

import json
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

import nntomo_dask as nt
from nntomo_dask.cli import provenance
from nntomo_dask.simulation import neighbours, structures
from nntomo_dask.simulation.specimen import bonds, building_units
from tests.shared_data import SHARED

# Atoms of a cell, metal atoms of a cell, and the shortest distance [Å], of every entry of the table.
EXPECTED = {
    "MOF-5": ("C192H96O104Zn32", 0.927),
    "IRMOF-10": ("C336H192O104Zn32", 0.960),
    "IRMOF-16": ("C480H288O104Zn32", 0.950),
    "PCN-61": ("C1152H384Cu96O384", 0.947),
    "UiO-66": ("C192H112O128Zr24", 0.973),
    "UiO-67": ("C336H208O128Zr24", 0.973),
    "ZIF-4": ("C96H96N64Zn16", 0.939),
    "ZIF-8": ("C96H48N48Zn12", 0.929),
    "MIL-53": ("C32H20Cr4O20", 0.978),
    "MIL-53-lt": ("C32H20Cr4O20", 1.075),
    "MIL-47": ("C32H16O20V4", 0.930),
    "HKUST-1": ("C288H96Cu48O192", 0.931),
    "Zn-MOF-74": ("C72H18O54Zn18", 1.122),
    "COF-1": ("C36H24B12O12", 1.070),
    "COF-5": ("C54H24B6O12", 1.070),
    "COF-300": ("C164H112N16", 1.016),
    "MIL-125": ("C96H56O72Ti16", 0.972),
    "Ni-MOF-74": ("C72H18O54Ni18", 1.093),
}

OF_VERSION_0_1 = json.loads((Path(__file__).parent / "data" / "v0_1" / "crystals.json").read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_every_crystal_of_the_table(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if name == "ZIF-8" else "error")
        atoms = nt.structure(name)
    formula, shortest = EXPECTED[name]
    assert sorted(re.findall(r"[A-Z][a-z]?\d*", atoms.get_chemical_formula())) == sorted(
        re.findall(r"[A-Z][a-z]?\d*", formula)
    )
    _, _, distances = neighbours.pairs(atoms, 1.3)
    assert distances.min() == pytest.approx(shortest, abs=2e-3)  # coordinates of 5 digits in a cell of 40 Å


def test_the_table_is_the_expected_one():
    assert list(structures.crystals()) == list(EXPECTED)
    assert all(entry.reference for entry in structures.crystals().values())


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.filterwarnings("ignore:structure. 24 carbon")
def test_specimens_are_those_of_version_0_1(name):
    """Atoms, their order and their positions to 1e-6 nm: what recipes and results depend on."""
    assert nt.specimen(name).recipe["parameters"]["atoms"] == OF_VERSION_0_1[name]


def test_names_are_forgiving():
    assert len(nt.structure("uio66")) == len(nt.structure("UiO-66")) == 456
    assert len(nt.structure("IRMOF-1")) == len(nt.structure("MOF-5")) == len(nt.structure("MOF-5 (IRMOF-1)"))


def test_a_path_is_no_name(tmp_path, monkeypatch):
    """A folder in front makes it a file, whatever the table knows."""
    monkeypatch.chdir(tmp_path)
    for given in ("./UiO-66", "crystals/UiO-66"):
        with pytest.raises(nt.SchemaError, match=r"got nothing at .*UiO-66; try: check the path"):
            nt.structure(given)


@pytest.mark.parametrize(
    "path", sorted(SHARED.glob("structures/cif-*/*.cif")) or [None], ids=lambda path: path and path.name
)
def test_crystallographic_files(path):
    if path is None:
        pytest.skip("needs the reference data beside the project")
    if path.stem == "IRMOF-10":  # published with a site beside its mirror plane
        with pytest.warns(UserWarning, match=r"H2 in .* moved by up to 0\.03 Å onto the symmetry element"):
            atoms = nt.structure(path)
    else:
        atoms = nt.structure(path)
    known = nt.structure(path.stem)
    # A file may hold the primitive cell.
    cells, rest = divmod(len(known), len(atoms))
    assert rest == 0
    assert Counter(atoms.numbers.tolist() * cells) == Counter(known.numbers.tolist())
    assert len(atoms) / atoms.get_volume() == pytest.approx(len(known) / known.get_volume(), rel=2e-3)


class TestRefusals:
    def test_an_unknown_name(self):
        with pytest.raises(nt.SchemaError, match=r"got 'UiO-65', which is neither; try: UiO-67 or UiO-66"):
            nt.structure("UiO-65")
        with pytest.raises(nt.SchemaError, match="try: one of the names that nntomo structures lists"):
            nt.structure("granite")

    @pytest.mark.parametrize(
        ("given", "names"),
        [("UiO-66-NH2", "UiO-66"), ("IRMOF1x", "IRMOF-1"), ("MIL-48", "MIL-47")],
    )
    def test_the_names_that_are_proposed_are_few_and_exist(self, given, names):
        with pytest.raises(nt.SchemaError, match=rf"; try: {names}$"):
            nt.structure(given)
        nt.structure(names)

    def test_a_file_that_is_none(self, tmp_path):
        (tmp_path / "a.cif").write_text("nothing")
        with pytest.raises(nt.SchemaError, match="needs a CIF, which begins with data_"):
            nt.structure(tmp_path / "a.cif")

    def test_no_atoms_and_no_cell(self):
        with pytest.raises(nt.SchemaError, match="needs atoms; got none"):
            nt.structure(Atoms(cell=[5, 5, 5]))
        with pytest.raises(nt.SchemaError, match="needs a cell; got none"):
            nt.structure(Atoms("Au"))

    def test_atoms_that_coincide(self):
        with pytest.raises(nt.SchemaError, match=r"got 1 pair that is closer .* O 0 and H 1 at 0\.50 Å"):
            nt.structure(Atoms("OHH", [(0, 0, 0), (4.5, 0, 0), (2.5, 0, 0)], cell=[5, 5, 5], pbc=True))

    def test_an_element_without_scattering_factors(self):
        with pytest.raises(nt.SchemaError, match="which have scattering factors; got Rf in the given atoms"):
            nt.structure(Atoms("Rf", cell=[5, 5, 5]))

    def test_sites_that_are_partly_occupied(self, tmp_path):
        atoms = Atoms("OO", [(0, 0, 0), (2.5, 0, 0)], cell=[5, 5, 5], pbc=True)
        write(tmp_path / "a.cif", atoms)
        text = (tmp_path / "a.cif").read_text()
        # The occupancy is the last column but the label's in ASE's own files.
        assert text.count("1.0000") == 2
        (tmp_path / "a.cif").write_text(text.replace("1.0000", "0.5000", 1))
        with pytest.raises(nt.SchemaError, match=r"fully occupied; got occupancies of O 0\.5"):
            nt.structure(tmp_path / "a.cif")

    def test_missing_hydrogen_is_a_warning(self):
        with pytest.warns(UserWarning, match="24 carbon atoms of ZIF-8 seem to lack their hydrogen"):
            nt.structure("ZIF-8")
        bare = nt.structure("UiO-66")
        with pytest.warns(UserWarning, match="96 carbon atoms of the given atoms"):
            nt.structure(bare[bare.numbers != 1])


class TestSpecimen:
    def test_metal_clusters_stay_whole(self):
        """In a cell of UiO-66, cut where it falls, no bond of a Zr6O4(OH)4 cluster goes on into the next cell."""
        specimen = nt.specimen("UiO-66")
        atoms = Atoms(specimen.numbers, 10 * specimen.positions_nm, cell=nt.structure("UiO-66").cell, pbc=True)
        first, second, cells = bonds(atoms)
        across = cells.any(axis=1)
        metal = (atoms.numbers[first] == 40) | (atoms.numbers[second] == 40)
        unit_of, _ = building_units(atoms)
        assert across.any()
        assert not (across & metal & (unit_of[first] == unit_of[second])).any()

    def test_repeated_cells(self):
        one, many = nt.specimen("MIL-53"), nt.specimen("MIL-53", repeat=(2, 3, 1))
        assert many.numbers.size == 6 * one.numbers.size
        span = np.ptp(many.positions_nm, axis=0) - np.ptp(one.positions_nm, axis=0)
        np.testing.assert_allclose(span, [0.6812, 2 * 1.6733, 0], atol=1e-6)

    @pytest.mark.parametrize(("axis", "length"), [("a", 0.6812), ("b", 1.6733), ("c", 1.3038)])
    def test_the_tilt_axis_is_a_cell_vector(self, axis, length):
        counts = tuple(3 if letter == axis else 1 for letter in "abc")
        span = np.ptp(nt.specimen("MIL-53", repeat=counts, tilt_axis=axis).positions_nm, axis=0)
        once = np.ptp(nt.specimen("MIL-53", tilt_axis=axis).positions_nm, axis=0)
        np.testing.assert_allclose(span - once, [0, 0, 2 * length], atol=1e-6)

    def test_turning_the_crystal_keeps_its_handedness(self):
        """The frame of another tilt axis is a rotation: distances and the sign of a triple product stay."""
        specimens = [nt.specimen("MIL-53-lt", tilt_axis=axis, shape="sphere", size_nm=2) for axis in "abc"]
        for specimen in specimens:
            metals = specimen.positions_nm[specimen.numbers == 24]
            assert len(metals) > 3
        tilted = specimens[0].tilted(33.0)
        frame, *_ = np.linalg.lstsq(specimens[0].positions_nm, tilted, rcond=None)
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(frame) == pytest.approx(1)

    @pytest.mark.parametrize(
        ("shape", "size", "volume"),
        [("sphere", 4.0, 4 / 3 * np.pi * 8), ("cuboid", (3.0, 4.0, 5.0), 60.0), ("octahedron", 4.0, 32.0)],
    )
    def test_particles_have_the_density_of_the_crystal(self, shape, size, volume):
        """Within what whole building units of 1 nm may add or leave out at a surface of a few nm."""
        crystal = nt.structure("MIL-53")
        specimen = nt.specimen("MIL-53", shape=shape, size_nm=size)
        density = len(crystal) / (crystal.get_volume() / 1000)
        assert specimen.numbers.size == pytest.approx(density * volume, rel=0.15)
        assert np.abs(specimen.positions_nm).max() < np.max(size) / 2 + 0.6

    def test_particles_hold_whole_units(self):
        """Every Zr6 cluster of a particle has its six atoms, and every linker its eight carbon atoms."""
        specimen = nt.specimen("UiO-66", shape="sphere", size_nm=3.6)
        counts = dict(zip(*np.unique(specimen.numbers, return_counts=True), strict=True))
        assert counts[40] % 6 == 0
        assert counts[6] % 8 == 0
        zirconium = specimen.positions_nm[specimen.numbers == 40]
        near = (np.linalg.norm(zirconium[:, None] - zirconium[None], axis=-1) < 0.55).sum(axis=1)
        assert (near == 6).all()

    def test_a_particle_without_atoms(self):
        with pytest.raises(nt.SchemaError, match=r"needs a particle with atoms in it; got none within 0\.01 × 0\.01"):
            nt.specimen("ZIF-4", shape="sphere", size_nm=0.01)

    def test_bad_parameters(self):
        for keywords, match in [
            ({"shape": "cube"}, "needs a shape of cells, sphere, cuboid, octahedron"),
            ({"shape": "sphere"}, "needs size_nm of a sphere: one number above 0; got none"),
            ({"shape": "sphere", "size_nm": (1, 2, 3)}, "needs size_nm of a sphere"),
            ({"shape": "sphere", "size_nm": -1}, "needs size_nm of a sphere"),
            ({"shape": "sphere", "size_nm": 2, "repeat": 2}, "needs size_nm for a sphere; got repeat"),
            ({"size_nm": 2}, "needs repeat for cells; got size_nm"),
            ({"repeat": 0}, "counts of at least 1; got 0"),
            ({"tilt_axis": "d"}, "a, b or c as tilt axis"),
        ]:
            with pytest.raises(nt.SchemaError, match=match):
                nt.specimen("UiO-66", **keywords)


class TestTwins:
    """A file of a crystal that is in the table, too."""

    @staticmethod
    def written(path, atoms, shift=(0, 0, 0), permutation=None):
        moved = atoms.copy()
        moved.set_scaled_positions(np.mod(atoms.get_scaled_positions() + shift, 1))
        write(path, moved if permutation is None else moved[permutation])
        return path

    def test_the_same_atoms_are_no_reason_to_warn(self, tmp_path, rng):
        """In any order; and a shift of the origin that moves no face to another place in the crystal."""
        atoms = nt.structure("MIL-53")
        order = rng.permutation(len(atoms))
        for shift in ((0, 0, 0), (0.001, 0, 0)):
            held = nt.specimen(self.written(tmp_path / "mine.cif", atoms, shift, order))
            known = nt.specimen("MIL-53")
            one, other = (specimen.positions_nm[:, :, None] for specimen in (held, known))
            assert np.linalg.norm(one - other.T, axis=1).min(axis=1).max() < 1e-4  # a CIF of six digits, 1.7 nm

    @pytest.mark.parametrize("cut", [{"repeat": (1, 1, 2)}, {"shape": "sphere", "size_nm": 2.0}])
    def test_another_origin_of_a_particle_or_another_orientation_of_a_linker_is_said(self, tmp_path, cut):
        atoms = nt.structure("ZIF-4")
        carbon = np.flatnonzero(atoms.numbers == 6)[:4]
        atoms.positions[carbon] += (0.2, 0, 0)
        shift = (0, 0, 0) if "repeat" in cut else (0.25, 0, 0)
        path = self.written(tmp_path / "z.cif", atoms, shift)
        with pytest.warns(UserWarning, match=r"z\.cif seems to be ZIF-4 of the table, but \d+ of its \d+ atoms"):
            nt.specimen(path, **cut)

    def test_the_published_file_of_zif_4_is_not_taken_for_the_table(self):
        """It has 16 atoms in another orientation, and so its cells begin at another plane."""
        path = SHARED / "structures" / "cif-raspa2" / "ZIF-4.cif"
        if not path.is_file():
            pytest.skip("needs the reference data beside the project")
        with pytest.warns(UserWarning, match=r"ZIF-4\.cif seems to be ZIF-4 .* 272 of its 272 atoms"):
            held = nt.specimen(path)
        series = nt.simulate("ZIF-4", [0.0, 30.0], mode="idpc", imaging=nt.Imaging(pixels=128))
        with pytest.raises(nt.SchemaError, match=r"atoms that were simulated, ZIF-4 .*; got ZIF-4\.cif"):
            nt.ground_truth_like(series, structure=path)
        truth = nt.ground_truth(held, mode="idpc", imaging=nt.Imaging(pixels=128))
        note = provenance.mismatch(series.attrs["recipe"], truth.attrs["recipe"])
        assert "of two sources (ZIF-4, and ZIF-4.cif)" in note

    def test_other_crystals_of_that_composition_are_not_meant(self, tmp_path):
        """MIL-53 at low temperature has other cells than MIL-53 at high temperature; a denser one is in no table."""
        assert structures.twin(nt.structure("MIL-53-lt")).name == "MIL-53-lt"
        assert structures.twin(nt.structure("MIL-53")).name == "MIL-53"
        assert structures.twin(nt.structure("MIL-53").repeat((2, 1, 1))).name == "MIL-53"
        atoms = nt.structure("ZIF-4")
        atoms.set_cell(atoms.cell.array * 0.97, scale_atoms=True)
        write(tmp_path / "dense.cif", atoms)
        nt.specimen(tmp_path / "dense.cif")
        del atoms[0]
        assert structures.twin(atoms) is None
