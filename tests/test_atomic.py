"""The phantom of atoms: where atoms lie, and how they are drawn."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

import nntomo_dask as nt
from nntomo_dask.phantoms import atomic, composing, packing, radii
from nntomo_dask.phantoms.atomic import Atomic, scene
from nntomo_dask.phantoms.shapes import axis_of, random_rotation

RADII = np.array([0.15, 0.1, 0.12])
BOX = np.array([-1.0, -0.9, -0.8]), np.array([0.9, 1.0, 1.1])
# Neighbours at the least distance, of the first atom of a cell: textbook values.
NEIGHBOURS = {
    "simple cubic": 6,
    "face-centred": 12,
    "body-centred": 8,
    "hexagonal": 12,
    "diamond": 4,
    "caesium chloride": 8,
    "rock salt": 6,
    "zinc blende": 4,
    "fluorite": 8,
}


def inner(points, margin=0.4):
    """The atoms that are far from the faces of the box."""
    return ((points > BOX[0] + margin) & (points < BOX[1] - margin)).all(axis=1)


def closest(points, kinds):
    """Least distance of two atoms, as a share of the sum of their radii."""
    pairs = cKDTree(points).query_pairs(0.6, output_type="ndarray")
    length = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    return float((length / RADII[kinds[pairs]].sum(axis=1)).min())


def test_elements_have_their_numbers():
    assert len(radii.NUMBERS) == 96
    assert radii.GASES <= set(radii.NUMBERS)
    assert [radii.NUMBERS[symbol] for symbol in ("H", "Fe", "Ag", "Pt", "Au", "U")] == [1, 26, 47, 78, 79, 92]


@pytest.mark.extra("ase")
def test_radii_are_those_of_ase():
    ase = pytest.importorskip("ase.data")
    for symbol, number in radii.NUMBERS.items():
        assert ase.chemical_symbols[number] == symbol
        assert radii.RADII_NM[symbol] == pytest.approx(ase.covalent_radii[number] / 10)


@pytest.mark.parametrize("name", packing.TYPES)
def test_neighbours_in_crystals(name):
    lattice = packing.TYPES[name].scaled(RADII, 1.1)
    points, kinds = lattice.atoms(random_rotation(np.random.default_rng(1)), np.array([0.1, 0, 0.05]), *BOX)
    assert closest(points, kinds) == pytest.approx(1.1)
    # As many atoms as the box has cells, up to those near its faces.
    cells = np.prod(BOX[1] - BOX[0]) / abs(np.linalg.det(lattice.cell))
    assert len(points) == pytest.approx(cells * len(lattice.kinds), rel=0.12)
    if name in NEIGHBOURS:
        points, kinds = packing.TYPES[name].scaled(np.full(2, 0.12)).atoms(np.eye(3), np.zeros(3), *BOX)
        own = (kinds == 0) & inner(points)
        counts = [len(found) - 1 for found in cKDTree(points).query_ball_point(points[own], 0.24 * 1.001)]
        assert set(counts) == {NEIGHBOURS[name]}


def test_random_crystals_are_periodic_and_have_room():
    rng = np.random.default_rng(2)
    for _ in range(20):
        lattice = packing.random_lattice(rng, RADII).scaled(RADII)
        points, kinds = lattice.atoms(np.eye(3), np.zeros(3), *BOX)
        assert closest(points, kinds) == pytest.approx(1.0, abs=1e-6)
        shift = lattice.cell[rng.integers(3)]
        there = points + shift
        there = there[((there > BOX[0]) & (there < BOX[1])).all(axis=1)]
        assert cKDTree(points).query(there)[0].max() < 1e-9


def test_icosahedra_have_magic_numbers():
    for shells, atoms in ((1, 13), (2, 55), (3, 147), (4, 309)):
        points = packing.icosahedron(shells)
        assert len(points) == atoms
        # The distance to the next shell is 5 % below that within a shell.
        assert np.sort(cKDTree(points).query(points, 2)[0][:, 1])[0] == pytest.approx(0.951, abs=1e-3)


def test_grains_and_twins_are_dense_and_nothing_overlaps():
    rng = np.random.default_rng(3)
    lattice = packing.TYPES["face-centred"].scaled(RADII)
    whole = lattice.atoms(np.eye(3), np.zeros(3), *BOX)[0]
    for _ in range(4):
        seeds = rng.uniform(*BOX, (4, 3))
        for points, kinds in (
            packing.grains(rng, lattice, [random_rotation(rng) for _ in seeds], seeds, *BOX, RADII),
            packing.twin(rng, lattice, random_rotation(rng), *BOX, RADII),
        ):
            assert closest(points, kinds) >= 0.8
            assert 0.75 < len(points) / len(whole) < 1.1


def test_atoms_at_twin_boundaries_are_packed_as_in_a_hexagonal_crystal():
    """At {111} every atom keeps its twelve neighbours; at a boundary six of them have no other one opposite."""
    rng = np.random.default_rng(0)
    lattice = packing.TYPES["face-centred"].scaled(RADII)
    boundaries = set()
    for _ in range(24):
        points, _kinds = packing.twin(rng, lattice, np.eye(3), *BOX, RADII, planes=((1, 1, 1),))
        tree, hexagonal = cKDTree(points), []
        for point in points[inner(points)]:
            around = points[tree.query_ball_point(point, 2 * RADII[0] * 1.01)] - point
            around = around[np.linalg.norm(around, axis=1) > 1e-6]
            assert len(around) == 12
            opposite = int((cKDTree(around).query(-around)[0] < 1e-6).sum())
            assert opposite in (12, 6)
            if opposite == 6:
                hexagonal.append(point)
        if hexagonal:
            heights = np.array(hexagonal) @ np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]).T
            boundaries.add(min(np.unique(np.round(each, 6)).size for each in heights.T))
    assert {1, 2} <= boundaries


def test_amorphous_matter_is_dense_without_order():
    rng = np.random.default_rng(4)
    sphere = composing.ellipsoid(np.eye(3) * 1.2)
    points, kinds = packing.amorphous(
        rng, np.array([0.6, 0.4]), RADII[:2], -np.full(3, 1.2), np.full(3, 1.2), sphere.contains
    )
    assert closest(points, kinds) >= 0.8
    assert sphere.contains(points).all()
    filled = (4 / 3 * np.pi * RADII[kinds] ** 3).sum() / (4 / 3 * np.pi * 1.2**3)
    assert 0.5 < filled < 0.65
    assert (kinds == 0).mean() == pytest.approx(0.6, abs=0.1)
    # Overlaps were pushed apart: without that, a third of the atoms would be too close to another.
    nearest = cKDTree(points).query(points, 2)
    sums = RADII[kinds] + RADII[kinds[nearest[1][:, 1]]]
    assert (nearest[0][:, 1] > 0.9 * sums).mean() > 0.9


def test_a_screw_dislocation_climbs_one_step_a_turn():
    turns = np.linspace(-np.pi + 1e-6, np.pi - 1e-6, 50)
    circle = np.column_stack([np.full(50, 0.3), np.cos(turns), np.sin(turns)])
    moved = packing.screw(circle, np.array([1.0, 0, 0]), np.array([0, 0, 0]), 0.25) - circle
    assert np.abs(moved[:, 1:]).max() < 1e-12
    around = np.sort(moved[:, 0])
    assert around[-1] - around[0] == pytest.approx(0.25, rel=0.03)
    # One jump of a step, and even slopes elsewhere: 1/49 of a step each.
    jumps = np.abs(np.diff(moved[:, 0], append=moved[:1, 0]))
    assert (jumps > 0.2).sum() == 1
    np.testing.assert_allclose(np.sort(jumps)[1:-1], 0.25 / 49, rtol=1e-3)


def test_atoms_are_gaussians_with_weights():
    """Three atoms against the sum of Gaussians, to the 3e-4 at which they end and the steps of a profile."""
    settings = Atomic(elements="Au,Cu", voxel_nm=0.04, blur_nm=0.05, exponent=1.6)
    atoms = atomic.Atoms(np.array([[0, 0.1, -0.2], [0.05, 0.15, -0.1], [-0.1, -0.2, 0.3]]), np.array([79, 29, 29]))
    drawn = atomic._drawn(np.arange(20), atoms, 0.9, 32, 10, 2, settings)
    z = (np.arange(20) - 9.5) * 0.02
    axis = axis_of(64) * 32 * 0.02
    grid = np.stack(np.meshgrid(z, axis, axis, indexing="ij"), -1)
    weights = (atoms.numbers / 79) ** 1.6

    def density(points):
        distance = np.linalg.norm(points[..., None, :] - atoms.positions, axis=-1)
        return (weights * np.exp(-0.5 * (distance / 0.05) ** 2)).sum(axis=-1)

    brightest = density(atoms.positions).max()
    np.testing.assert_allclose(drawn, 0.9 * density(grid) / brightest, atol=1e-3)
    part = atomic._drawn(np.arange(6, 9), atoms, 0.9, 32, 10, 2, settings)
    np.testing.assert_array_equal(part, drawn[6:9])


@pytest.mark.parametrize("elements", ["Au", "Pt,Fe,O", "Pd,Pt,Ag,Cu", "C"])
def test_scenes_of_atoms(elements):
    settings = Atomic(elements=elements, voxel_nm=0.05)
    drawn = [scene(40, 10, np.random.default_rng([5, number]), settings=settings) for number in range(12)]
    axis = axis_of(80)
    outside = np.hypot(axis[:, None], axis) > composing.DISC
    for one in drawn:
        assert one.shape == (20, 80, 80)
        assert one.dtype == np.float32
        assert one.min() == 0
        assert 0.02 < one.max() <= 1
        assert not one[:, outside].any()
    assert np.median([one.max() for one in drawn]) > 0.6
    assert len({one.tobytes() for one in drawn}) == 12


def test_the_volume_has_the_means_of_scenes():
    volume = nt.phantom("atomic", (14, 24, 24), seed=3, slices=8, elements="Ag,Cu")
    settings = Atomic(slices=8, elements="Ag,Cu")
    for number in range(2):
        fine = scene(24, 8, np.random.default_rng([3, number]), settings=settings)
        means = fine.reshape(8, 2, 24, 2, 24, 2).mean(axis=(1, 3, 5), dtype=np.float64)
        # Eight values of at most 1 are added in single precision.
        np.testing.assert_allclose(volume[8 * number : 8 * number + 8], means[: 14 - 8 * number], atol=5e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"elements": "Au,Xx"}, "needs symbols of chemical elements; got Xx"),
        ({"elements": " ,"}, "needs symbols of chemical elements; got none"),
        ({"voxel_nm": 0.5}, "needs voxel of at least 0.005 and of at most 0.2 in nm"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.phantom("atomic", 16, **settings)


@pytest.mark.extra("abtem")
def test_the_default_blur_is_that_of_a_microscope():
    """Gold in `ground_truth` for HAADF at 300 kV, 30 mrad and a source of 80 pm: within 1 % of the maximum."""
    from nntomo_dask.simulation import truth
    from nntomo_dask.simulation.optics import Imaging

    imaging = Imaging(energy_ev=300e3, convergence_mrad=30, source_size_nm=0.08)
    angstrom = np.linspace(0, 4, 200)
    k = truth.frequencies(imaging)
    weight = truth.form_factors(np.array([79]), "haadf", imaging, None)[0](k)
    profile = truth.profile(angstrom, weight, truth.broadening(79, k, imaging), k)
    gaussian = np.exp(-0.5 * (angstrom / 10 / 0.038) ** 2)
    np.testing.assert_allclose(profile / profile[0], gaussian, atol=0.01)
    assert Atomic().blur_nm == pytest.approx(0.038, abs=0.003)
