"""Found atoms matched with a structure, and the score."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import nntomo_dask as nt
from nntomo_dask.atoms import align, match as matching, table
from nntomo_dask.errors import SchemaError
from tests.atom_volumes import scattered

RECIPE = {"operation": "made", "parameters": {}, "inputs": [], "version": "0"}
LIMIT = 0.05


def made(places, species=None):
    return table.make(places, recipe=RECIPE, species=species)


@pytest.fixture(scope="module")
def pair():
    """A structure of 120 atoms in 2 nm, and what was found of it: 100 of them within 10 pm, and 15 others."""
    rng = np.random.default_rng(1)
    places = scattered(135, (100, 100, 100), apart=11, seed=2, border=0) * 0.02 - 1
    structure, others = places[:120], places[120:]
    found = np.concatenate([structure[20:] + rng.normal(0, 0.01, (100, 3)), others])
    return found[rng.permutation(len(found))], structure


def test_the_score_of_what_lies_where_it_should(pair):
    found, structure = pair
    match = nt.match_atoms(made(found), made(structure), limit=LIMIT, align="none")
    assert match.recall == 100 / 120
    assert match.precision == 100 / 115
    # 300 normal coordinates of 10 pm: √3 · 10 within three times 1/√600.
    assert match.rmsd_pm == pytest.approx(17.3, rel=0.13)
    assert len(set(match.rows.tolist())) == len(match.rows) == len(set(match.reference_rows.tolist()))
    np.testing.assert_allclose(np.sqrt((match.displacements**2).sum(axis=1)).max(), LIMIT, atol=LIMIT)


@pytest.mark.parametrize("way", ["shift", "rigid"])
def test_the_score_does_not_depend_on_where_both_lie(pair, way):
    """Turned and shifted together by anything; positions round by 1e-15, and both alignments end within 1e-9."""
    found, structure = pair
    turn, shift = Rotation.from_euler("zyx", [40, -75, 200], degrees=True).as_matrix(), np.array([3.0, -7.0, 11.0])
    here = nt.match_atoms(made(found), made(structure), limit=LIMIT, align=way)
    there = nt.match_atoms(made(found @ turn.T + shift), made(structure @ turn.T + shift), limit=LIMIT, align=way)
    assert (there.recall, there.precision) == (here.recall, here.precision)
    assert there.rmsd_pm == pytest.approx(here.rmsd_pm, rel=1e-6)


@pytest.mark.parametrize("length", [0.0, 0.17, 30.0])
def test_an_unknown_shift_is_found(pair, length):
    found, structure = pair
    shift = length * np.array([0.6, -0.48, 0.64])
    match = nt.match_atoms(made(found + shift), made(structure), limit=LIMIT)
    assert match.recall == 100 / 120
    # The mean of 100 displacements of 10 pm, within four standard errors.
    np.testing.assert_allclose(match.move.shift, -shift, atol=0.004)


def test_a_small_rotation_is_found(pair):
    found, structure = pair
    turn = Rotation.from_rotvec(np.deg2rad(3) * np.array([0.6, 0.0, 0.8])).as_matrix()
    turned = made(found @ turn.T + 0.4)
    match = nt.match_atoms(turned, made(structure), limit=LIMIT, align="rigid")
    assert match.recall == 100 / 120
    # 100 atoms about 1 nm from the middle, each off by 10 pm: 10 / (1000 √100 · 0.8) rad, three of them.
    assert match.move.degrees == pytest.approx(3, abs=0.25)
    assert np.linalg.det(match.move.rotation) == pytest.approx(1)
    # A shift alone brings fewer together: the outer atoms are 3° · 1 nm = 52 pm off.
    assert nt.match_atoms(turned, made(structure), limit=LIMIT).recall < match.recall


def test_a_mirror_is_no_alignment(pair):
    found, structure = pair
    mirrored = made(found * [1, 1, -1])
    with pytest.raises(SchemaError, match="no more than by chance"):
        nt.match_atoms(mirrored, made(structure), limit=LIMIT, align="rigid")
    move = align.kabsch(structure * [1, 1, -1], structure)
    assert np.linalg.det(move.rotation) == pytest.approx(1)


def test_kabsch_is_the_alignment_of_scipy(pair):
    _, structure = pair
    turn = Rotation.from_euler("xyz", [10, 100, -60], degrees=True)
    targets = turn.apply(structure) + np.array([1, 2, 3]) + np.random.default_rng(4).normal(0, 0.01, structure.shape)
    move = align.kabsch(structure, targets)
    expected, _ = Rotation.align_vectors(targets - targets.mean(axis=0), structure - structure.mean(axis=0))
    np.testing.assert_allclose(move.rotation, expected.as_matrix(), atol=1e-9)
    np.testing.assert_allclose(move.of(structure).mean(axis=0), targets.mean(axis=0), atol=1e-12)


def test_as_many_pairs_as_can_be_and_of_these_the_nearest():
    """Against all assignments of crowded points."""
    rng = np.random.default_rng(5)
    places, targets = rng.uniform(0, 1, (6, 3)), rng.uniform(0, 1, (6, 3))
    limit, best = 0.45, (0, 0.0)
    distance = np.sqrt(((places[:, None] - targets[None]) ** 2).sum(axis=2))
    for order in itertools.permutations(range(6)):
        apart = distance[np.arange(6), list(order)]
        good = apart <= limit
        best = min(best, (-int(good.sum()), float((apart[good] ** 2).sum())))
    rows, columns = matching.assigned(places, targets, limit)
    assert len(rows) == -best[0]
    assert (distance[rows, columns] ** 2).sum() == pytest.approx(best[1])
    assert columns.tolist() == sorted(columns.tolist())


def test_parts_of_the_score(pair):
    _, structure = pair
    species = np.where(np.arange(120) < 40, "Zr", "O")
    moved = structure + np.array([0.004, 0.01, 0.02])
    named = np.where(np.arange(120) < 30, "Zr", "O")
    match = nt.match_atoms(made(moved, named), made(structure, species), limit=LIMIT, align="none")
    kinds = match.by_species()
    assert kinds["species"].values.tolist() == ["O", "Zr"]
    assert kinds["atoms"].values.tolist() == kinds["found"].values.tolist() == [80, 40]
    assert kinds["named"].values.tolist() == [1.0, 0.75]
    assert match.species_right == 110 / 120
    unnamed = nt.match_atoms(made(moved, named), made(structure), limit=LIMIT, align="none")
    assert np.isnan(unnamed.by_species()["named"].values).all()
    ways = match.by_direction()
    assert (ways["axis"], ways["beam"], ways["across"]) == pytest.approx((4, 10, 20))
    # The beam at 90° is along x.
    ways = match.by_direction(90.0)
    assert (ways["beam"], ways["across"]) == pytest.approx((20, 10))
    rings = match.by_distance(3)
    radius = np.hypot(structure[:, 1], structure[:, 2])
    assert int(rings["atoms"].sum()) == 120
    assert rings["atoms"].values[0] == (radius < radius.max() / 3).sum()
    edges = match.by_distance([0.0, 0.5])
    assert edges["atoms"].values.tolist() == [(radius < 0.5).sum()]
    figures = match.summary()
    assert figures["by_species"]["Zr"]["recall"] == 1
    assert figures["rmsd_pm"] == pytest.approx(np.sqrt(516))


def test_the_beam_at_no_tilt_is_along_y():
    """A point that is moved along y stays where it is in the projection at 0°."""
    images = []
    for y in (8, 11):
        values = np.zeros((2, 16, 16), np.float32)
        values[:, y, 9] = 1
        images.append(nt.project(nt.volume(values), [0.0, 90.0]).sel(angle=0.0).values)
    np.testing.assert_allclose(images[0], images[1], atol=1e-6)


@pytest.mark.extra("ase")
def test_ase_atoms_are_taken(pair):
    pytest.importorskip("ase")
    found, structure = pair
    atoms = table.atoms_to_ase(made(structure, ["Si"] * 120))
    match = nt.match_atoms(table.atoms_to_ase(made(found)), atoms, limit=LIMIT)
    assert match.recall == 100 / 120


def test_the_limit_is_half_of_the_nearest_distance(pair):
    found, structure = pair
    match = nt.match_atoms(made(found), made(structure))
    distance = np.sqrt(((structure[:, None] - structure[None]) ** 2).sum(axis=2)) + np.eye(120)
    assert match.limit == pytest.approx(min(distance.min() / 2, 0.1))


def lattice(constant):
    steps = np.arange(-1, 1.01, constant)
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)


@pytest.mark.parametrize(
    ("found", "reference", "given", "says"),
    [
        # Of another cell: 0.31 and 0.37 nm.
        (lattice(0.31), lattice(0.37), {"limit": 0.03}, "no more than by chance"),
        (lattice(0.31), lattice(0.31) + 9, {"align": "none"}, "lies where atoms were found; got none of its"),
        (np.zeros((0, 3)), lattice(0.5), {}, "found atoms; got an empty table"),
        (lattice(0.5), np.zeros((0, 3)), {}, "atoms of a structure; got an empty table"),
        (lattice(0.5), lattice(0.5), {"limit": 0.0}, "limit"),
        (lattice(0.5), lattice(0.5), {"align": "mirror"}, "align"),
        (lattice(0.5), np.zeros((2, 3)), {}, "two at one place"),
    ],
)
def test_bad_input_is_refused(found, reference, given, says):
    with pytest.raises(SchemaError, match=says):
        nt.match_atoms(made(found), made(reference), **given)


def test_what_is_no_table_is_refused(pair):
    with pytest.raises(SchemaError, match="table of atoms"):
        nt.match_atoms(pair[0], made(pair[1]))
