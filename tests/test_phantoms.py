import tracemalloc

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import geometry
from nntomo_dask.phantoms import shapes

MAKERS = {
    "spheres": lambda seed: nt.random_spheres((40, 32, 32), n_spheres=6, seed=seed),
    "ellipses": lambda seed: nt.ellipse_stack((40, 32, 32), seed=seed),
    "facets": lambda seed: nt.training_stack((40, 32, 32), seed=seed),
    "mixed": lambda seed: nt.mixed_stack((40, 32, 32), seed=seed),
    "particle": lambda seed: nt.nanoparticle((40, 32, 32), seed=seed, n_pores=3),
    "materials": lambda seed: nt.phantom("materials", (40, 32, 32), seed=seed),
    "atomic": lambda seed: nt.phantom("atomic", (40, 32, 32), seed=seed),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_same_seed_same_voxels_other_seed_others(make):
    np.testing.assert_array_equal(make(3).values, make(3).values)
    assert (make(3).values != make(4).values).any()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_voxels_do_not_depend_on_slabs(make, monkeypatch):
    whole = make(1).values
    for slices in (1, 3):
        monkeypatch.setattr(shapes.slabs.chunking, "slab_slices", lambda _shape, slices=slices: slices)
        pieces = make(1)
        assert pieces.chunksizes["z"][0] == slices
        np.testing.assert_array_equal(pieces.values, whole)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_phantoms_lie_in_what_every_projection_sees_and_in_unit_range(make):
    values = make(2).values
    # A pixel whose centre is inside a shape may reach half a pixel over the disc.
    outside = ~geometry.seen_by_all(32) & (np.hypot(*np.meshgrid(*2 * [np.arange(32) - 15.5])) > 16.5)
    assert values.max() == 1 or values.max() <= 1
    assert values.min() == 0
    assert values[:, outside].max() == 0
    assert 0.005 < values.mean() < 0.7


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_phantoms_are_lazy(make, nothing_computes):
    assert make(0).chunks is not None


def test_binary_and_grey():
    assert set(np.unique(nt.ellipse_stack((20, 32, 32), seed=1))) == {0, 1}
    grey = np.unique(nt.ellipse_stack((20, 32, 32), seed=1, grey="grey"))
    assert grey.size > 20
    assert grey[1] >= 0.2


def test_a_stack_has_slices_of_its_own():
    stack = nt.ellipse_stack((5, 32, 32), seed=1).values
    assert len({slice_.tobytes() for slice_ in stack}) == 5


def test_particle_is_faceted_and_pores_are_inside():
    """A truncated octahedron is convex: the middle between two points of it belongs to it; pores break that."""
    solid = nt.nanoparticle(48, seed=5).values > 0
    points = np.argwhere(solid)
    first, second = points[::97], points[::-97][: len(points[::97])]
    middle = (first + second) // 2
    inside = solid[tuple(middle.T)]
    # Halving an odd sum moves the point by half a voxel, over the surface at most for a few of them.
    assert inside.mean() > 0.99
    porous = nt.nanoparticle(48, seed=5, n_pores=5).values > 0
    assert not (porous & ~solid).any()
    assert porous.sum() < solid.sum()


def test_sphere_has_its_volume():
    """One sphere of a known radius, against 4/3 π r³, to 3 %: its surface cuts voxels."""
    rng = np.random.default_rng(11)
    radius = rng.uniform(0.04, 0.25, 1)[0] * 64
    volume = nt.random_spheres(128, n_spheres=1, seed=11)
    assert float(volume.sum()) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.03)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nt.ellipse_stack((4, 16, 20)), "needs square slices; got y=16, x=20"),
        (lambda: nt.random_spheres((4, 16)), "needs a shape"),
        (lambda: nt.random_spheres(16, n_spheres=0), "needs at least one shape in it; got 0"),
        (lambda: nt.nanoparticle(16, radius=0.9), r"needs a radius in \(0, 0.7\]; got 0.9"),
    ],
)
def test_bad_parameters_are_refused(call, message):
    with pytest.raises(nt.SchemaError, match=message):
        call()


@pytest.mark.parametrize("name", nt.PHANTOMS)
def test_every_phantom_is_a_volume_within_the_field_of_view(name):
    kind = nt.PHANTOMS[name]
    volume = nt.phantom(name, (16, 24, 24), seed=3)
    assert volume.shape == (16, 24, 24)
    assert 0 < float(volume.max()) <= 1
    assert not nt.phantom(name, (16, 24, 24), seed=4).equals(volume)
    np.testing.assert_array_equal(kind.for_training().volume((16, 24, 24), seed=3).chunk(z=5).values.dtype, np.float32)
    assert kind.summary


def test_a_core_in_a_shell():
    volume = nt.phantom("coreshell", 48, seed=2, core=0.5, core_density=3.0, shell_density=2.0).values
    assert set(np.unique(volume)) == {0.0, 2.0, 3.0}
    # The core is the particle at half its size: an eighth of its volume, up to voxels on the surface.
    assert (volume == 3).sum() / (volume > 0).sum() == pytest.approx(0.125, rel=0.06)
    assert volume[24, 24, 24] == 3
    np.testing.assert_array_equal(volume > 0, nt.nanoparticle(48, seed=2).values > 0)


def test_one_meaning_of_ellipses():
    """The command and the trainings make the same stack of ellipses."""
    made, training = (array.values for array in (nt.phantom("ellipses", 16, seed=5), nt.training_stack(16, seed=5)))
    np.testing.assert_array_equal(made, training)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("elipses", {}, "phantom: needs a phantom: particle, .* got 'elipses'; try: ellipses"),
        ("particle", {"radius": 0.9}, "phantom particle: needs radius above 0 and of at most 0.7; got 0.9"),
        ("coreshell", {"core": 1.0}, "needs core above 0 and below 1"),
    ],
)
def test_bad_settings_are_refused(kind, settings, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.phantom(kind, 16, **settings)


@pytest.mark.parametrize("name", ["materials", "atomic"])
def test_slabs_of_scenes_take_the_memory_that_they_predict(name):
    """At most what is predicted, and not a tenth of it; NumPy tells Python of what it allocates."""
    chosen = nt.PHANTOMS[name]()
    chosen.volume((2, 16, 16)).compute()  # compiles and imports
    peaks = []
    for seed in range(6):
        volume = chosen.volume((8, 128, 128), seed=seed)
        tracemalloc.start()
        try:
            volume.compute(scheduler="synchronous")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    predicted = chosen.host_bytes((8, 128, 128))
    assert 0.1 * predicted < max(peaks) <= predicted
