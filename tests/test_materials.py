"""The phantom of materials: how solids are drawn, and what scenes hold."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

import nntomo_dask as nt
from nntomo_dask.phantoms import composing, contents, materials, solids
from nntomo_dask.phantoms.materials import Materials, scene
from nntomo_dask.phantoms.shapes import axis_of, random_rotation

SIZE, SLICES = 32, 10
HEIGHTS = axis_of(SIZE)[8:20]


def grid(z, y, x):
    return np.stack(np.meshgrid(z, y, x, indexing="ij"), axis=-1)


def inside(solid, points):
    """Which points all planes and quadrics of a solid include, and its box."""
    found = ((points >= solid.low) & (points <= solid.high)).all(axis=-1)
    found &= (points @ solid.planes[:, :3].T <= solid.planes[:, 3]).all(axis=-1)
    for matrix in solid.quadrics:
        found &= np.linalg.norm((points - solid.centre) @ matrix.T, axis=-1) <= 1
    return found


def some_solids():
    rng = np.random.default_rng(4)
    frame = random_rotation(rng) * np.array([0.3, 0.6, 0.5])
    shift = np.array([-0.2, 0.1, -0.15])
    for name, make in composing.BODIES.items():
        yield name, make(rng, frame).moved(shift)
    yield "rod", solids.rod(np.array([-0.5, -0.3, 0.1]), np.array([0.1, 0.4, -0.3]), 0.2)
    yield "rod along x", solids.rod(np.array([-0.2, 0.1, -0.5]), np.array([-0.2, 0.1, 0.5]), 0.15)
    yield "rod along z", solids.rod(np.array([-2.0, 0.1, 0.2]), np.array([2.0, 0.1, 0.2]), 0.3)
    yield "slab", solids.slab(np.array([0.6, 0.0, 0.8]), -0.1, 0.3)


@pytest.mark.parametrize(("name", "solid"), list(some_solids()), ids=[name for name, _ in some_solids()])
def test_a_drawn_solid_has_the_points_that_its_planes_and_quadrics_include(name, solid):
    axis = axis_of(SIZE)
    drawn = solids.draw([solids.Stroke(solid, 0.5)], HEIGHTS, axis, 2.0)
    expected = inside(solid, grid(HEIGHTS, axis, axis))
    assert 20 < expected.sum() < expected.size
    np.testing.assert_array_equal(drawn, np.where(expected, np.float32(0.5), 0))


@pytest.mark.parametrize(("name", "solid"), list(some_solids())[:-1], ids=[name for name, _ in some_solids()][:-1])
def test_a_solid_lies_in_its_box_and_its_surface_at_its_depth(name, solid):
    axis = np.linspace(-2.2, 2.2, 89)
    points = grid(axis, axis, axis)
    far = points[
        inside(solids.Solid(solid.centre, np.full(3, -9), np.full(3, 9), 9, solid.planes, solid.quadrics), points)
    ]
    assert (far >= solid.low - 1e-9).all()
    assert (far <= solid.high + 1e-9).all()
    assert np.linalg.norm((far - solid.centre)[:, 1:], axis=1).max() <= solid.radius + 1e-9
    ways = composing.ways(np.random.default_rng(2), 50)
    depth = solid.depth(ways)[:, None]
    assert inside(solid, solid.centre + ways * depth * 0.999).all()
    assert not inside(solid, solid.centre + ways * depth * 1.001).any()
    assert inside(solid.scaled(0.5), solid.centre + ways * depth * 0.4999).all()
    assert not inside(solid.scaled(0.5), solid.centre + ways * depth * 0.5001).any()


def test_strokes_over_matter_and_empty_space():
    axis = axis_of(16)
    left, right = (solids.ball([0, 0, shift], 0.4) for shift in (-0.2, 0.2))
    in_left, in_right = (inside(one, grid(axis, axis, axis)) for one in (left, right))
    for blend, expected in {
        "over": np.where(in_right, 0.5, in_left),
        "matter": np.where(in_right & in_left, 0.5, in_left),
        "empty": np.where(in_right & ~in_left, 0.5, in_left),
        "times": np.where(in_right & in_left, 0.5, in_left),
    }.items():
        strokes = [solids.Stroke(left, 1.0), solids.Stroke(right, 0.5, blend)]
        np.testing.assert_array_equal(solids.draw(strokes, axis, axis, 1.0), expected)
    within = [solids.Stroke(left, 1.0, above=solids.Slope(np.array([0, 0, 1.0]), 0.2, -1, 1))]
    np.testing.assert_array_equal(solids.draw(within, axis, axis, 1.0), in_left & (axis > -0.2))


def test_no_matter_lies_beyond_the_disc():
    axis = axis_of(16)
    drawn = solids.draw([solids.Stroke(solids.ball([0, 0, 0], 3.0), 1.0)], axis[:1], axis, 0.7)
    np.testing.assert_array_equal(drawn[0], np.hypot(axis[:, None], axis) <= 0.7)


def test_grains_have_the_density_of_the_nearest_seed():
    rng = np.random.default_rng(5)
    seeds, densities = rng.uniform(-0.8, 0.8, (9, 3)), rng.uniform(0.1, 1, 9)
    axis = axis_of(SIZE)
    nearest = cKDTree(seeds).query(grid(HEIGHTS, axis, axis))[1]
    found = solids.Grains(seeds, densities).values(HEIGHTS, axis, axis)
    # Single precision may decide otherwise for points on a boundary, of which there are hardly any.
    assert (found == densities.astype(np.float32)[nearest]).mean() > 0.9999


def test_densities_that_vary():
    rng = np.random.default_rng(6)
    axis = axis_of(SIZE)
    points = grid(HEIGHTS, axis, axis)
    normal, centre = rng.standard_normal(3), rng.uniform(-0.2, 0.2, 3)
    matrix = np.linalg.inv(random_rotation(rng) * rng.uniform(0.4, 0.9, 3))
    # Sums of a few terms of size 1 in single precision, whose rounding is 6e-8; a root raises it near the centre.
    np.testing.assert_allclose(
        solids.Slope(normal, 0.3, 0.1, 0.9).values(HEIGHTS, axis, axis),
        np.clip(points @ normal + 0.3, 0.1, 0.9),
        atol=1e-6,
    )
    share = np.minimum(np.linalg.norm((points - centre) @ matrix.T, axis=-1), 1)
    np.testing.assert_allclose(
        solids.Shells(centre, matrix, 0.9, 0.2, 2.5).values(HEIGHTS, axis, axis), 0.9 - 0.7 * share**2.5, atol=3e-6
    )


def test_smooth_densities_keep_to_their_knots():
    """Cubic B-splines reproduce linear functions, and their values never exceed those at the knots."""
    rng = np.random.default_rng(7)
    axis = axis_of(SIZE)
    sketch = composing.Sketch(rng, 0.5, 0.03, 0.9, [1.0], "smooth")
    empty = contents._knots(sketch, 0.17)
    places = contents._places(empty)
    normal = np.array([0.3, -0.2, 0.5])
    linear = solids.Waves((places @ normal).astype(np.float32), empty.first, empty.step).values(HEIGHTS, axis, axis)
    np.testing.assert_allclose(linear, grid(HEIGHTS, axis, axis) @ normal, atol=1e-6)
    knots = rng.uniform(0.2, 0.8, empty.knots.shape).astype(np.float32)
    values = solids.Waves(knots, empty.first, empty.step).values(HEIGHTS, axis, axis)
    assert knots.min() < values.min() < 0.45 < 0.55 < values.max() < knots.max()
    surface = solids.Waves(knots, empty.first, empty.step, 0.5).values(HEIGHTS, axis, axis)
    np.testing.assert_array_equal(surface, np.where(values >= 0.5, values, 0))


def scenes(count, **settings):
    return [
        scene(SIZE, SLICES, np.random.default_rng([11, number]), settings=Materials(**settings))
        for number in range(count)
    ]


def test_scenes_are_matter_within_the_disc():
    drawn = scenes(40)
    axis = axis_of(2 * SIZE)
    outside = np.hypot(axis[:, None], axis) > composing.DISC
    for one in drawn:
        assert one.shape == (2 * SLICES, 2 * SIZE, 2 * SIZE)
        assert one.dtype == np.float32
        assert one.min() == 0
        assert 0.5 < one.max() <= 1
        assert not one[:, outside].any()
    assert len({one.tobytes() for one in drawn}) == 40
    assert np.mean([one.max() > 0.78 for one in drawn]) > 0.9
    # Small and large, in the middle and elsewhere.
    shares = [float((one > 0).mean()) for one in drawn]
    assert min(shares) < 0.03
    assert max(shares) > 0.2
    places = [np.argwhere(one > 0).mean(axis=0)[1:] for one in drawn]
    assert np.std(places) > 4


def test_shares_of_scenes_by_their_densities():
    """Of 90 scenes, 31 ± 4.5 have one density, and 23 ± 4.1 smooth ones; four deviations are allowed."""
    counts = np.array([np.unique(one).size - 1 for one in scenes(90)])
    assert 13 < (counts == 1).sum() < 49
    assert 6 < (counts > 20).sum() < 40
    assert ((counts == 1) | (counts > 20) | (counts <= 5)).all()


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        ({"one_density": 1, "smooth": 0}, 1, 1),
        ({"densities": 1, "smooth": 0}, 1, 1),
        ({"one_density": 0, "smooth": 0, "densities": 3}, 2, 3),
        ({"one_density": 0, "smooth": 1}, 20, np.inf),
    ],
)
def test_settings_of_densities(settings, least, most):
    counts = np.array([np.unique(one).size - 1 for one in scenes(24, **settings)])
    assert (counts <= most).all()
    # What shows fewer is drawn again, a few times.
    assert (counts >= least).mean() > 0.9


def test_settings_of_sizes():
    """Scenes of small bodies have less matter, and thicker walls and particles where the smallest is larger."""
    large, small = (np.mean([(one > 0).mean() for one in scenes(30, largest=most)]) for most in (0.9, 0.25))
    assert small < 0.5 * large


def test_the_volume_has_the_means_of_scenes():
    volume = nt.phantom("materials", (14, 24, 24), seed=3, slices=8)
    for number in range(2):
        fine = scene(24, 8, np.random.default_rng([3, number]))
        means = fine.reshape(8, 2, 24, 2, 24, 2).mean(axis=(1, 3, 5), dtype=np.float64)
        # Eight values of at most 1 are added in single precision.
        np.testing.assert_allclose(volume[8 * number : 8 * number + 8], means[: 14 - 8 * number], atol=5e-7)
    assert Materials(slices=8).scene == 8
    assert not np.array_equal(volume[0], volume[8])


def test_a_grid_can_be_finer():
    """The same scene on other grids: means over voxels differ by what boundaries cut, not by where bodies lie."""
    two, four = (materials.binned(scene(24, 8, np.random.default_rng([3, 5]), finer=finer), finer) for finer in (2, 4))
    assert two.mean() == pytest.approx(four.mean(), rel=0.03)
    assert np.abs(two - four).mean() < 0.1 * four.mean()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smallest": 0.5, "largest": 0.2}, "needs smallest up to largest; got 0.5"),
        ({"one_density": 0.8, "smooth": 0.5}, "add up to 1 at most; got 0.8 and 0.5"),
        ({"densities": 0}, "needs densities of at least 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.phantom("materials", 16, **settings)
