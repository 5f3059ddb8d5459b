"""Atoms refined to projections: exact data, noise against its bound, what stays, and what is refused."""

import dask
import numpy as np
import pytest
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.atoms import information, measured, table
from nntomo_dask.atoms.least_squares import Fit, Weighing
from nntomo_dask.atoms.parameters import Atoms, Parameters
from nntomo_dask.atoms.views import OfViews, Views
from nntomo_dask.projection.noise import Noise

PIXEL, WIDTH, SIZE = 0.03, 0.05, 40
WEDGE = np.array([30.0, -60.0, 0.0, 45.0, -15.0, 60.0, -45.0, 15.0, -30.0])  # no order
PLACES = np.array(
    [[-0.3, 0.1, 0.2], [-0.2, -0.2, -0.1], [0.0, 0.25, -0.25], [0.05, 0.0, 0.0], [0.1, 0.13, 0.1], [0.3, -0.1, 0.3]]
)
HEIGHTS = np.array([1.0, 0.7, 1.2, 0.9, 1.1, 0.8])


def atoms_at(places, heights=HEIGHTS, width=WIDTH, species=None):
    recipe = {"operation": "test", "parameters": {}, "inputs": [], "version": "0"}
    widths = np.broadcast_to(width, len(places))
    return table.make(places, recipe=recipe, height=heights, width=widths, species=species)


def empty(angles=WEDGE, size=SIZE, pixel=PIXEL, slices=None):
    return nt.tilt_series(
        np.zeros((slices or size, len(angles), size), np.float32), angles, pixel_size=pixel, units="nm"
    )


def shaken(atoms, rng, by=0.01):
    """The same atoms, by 10 pm elsewhere and of other heights; their rows stay in order."""
    noise = rng.normal(0, by, (3, atoms.sizes["atom"]))
    moved = {name: atoms[name] + one for name, one in zip(table.POSITION, noise, strict=True)}
    return atoms.assign(**moved, height=0.8 * atoms["height"], width=1.1 * atoms["width"])


def distances(one, other):
    return np.sqrt(((table.positions(one) - table.positions(other)) ** 2).sum(axis=1))


@pytest.fixture
def truth():
    return atoms_at(PLACES)


@pytest.fixture
def clean(truth):
    return nt.project_atoms(truth, like=empty()).compute()


# Projections.


def test_projections_are_those_of_a_volume():
    """Against `project`, for a sampled volume: the same place on the detector at any angle, and the same values."""
    pixel, width = 0.02, 0.06
    places = np.array([[-0.1, 0.2, 0.1], [0.1, -0.15, 0.25]])
    z, y, x = ((np.arange(n) - (n - 1) / 2) * pixel for n in (30, 50, 50))
    heights = [1.0, 0.5]
    values = sum(
        height
        * np.exp(-((z[:, None, None] - at[0]) ** 2 + (y[:, None] - at[1]) ** 2 + (x - at[2]) ** 2) / (2 * width**2))
        for at, height in zip(places, heights, strict=True)
    )
    volume = nt.volume(values.astype(np.float32), pixel_size=pixel, units="nm")
    series = nt.project(volume, [-70, -20, 0, 45, 90]).compute()
    made = nt.project_atoms(atoms_at(places, heights, width), like=series)
    # Linear interpolation is off by at most an eighth of the second derivative, 1 / (8 · 3²) of the height.
    assert np.abs(made - series).max() <= 0.015 * series.max()


def test_projections_are_lazy_and_do_not_depend_on_chunks(truth, clean, nothing_computes):
    like = empty().chunk({"z": 7})
    made = nt.project_atoms(truth, like=like)
    assert made.chunksizes["z"][0] == 7
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(made.values, clean.values)
    assert made.attrs["recipe"]["operation"] == "project_atoms"


def test_part_of_a_series_is_the_part_of_its_projection(truth, clean):
    """Order of angles, an axis that is not in the middle, reversed coordinates: the coordinates say it all."""
    part = clean.isel(angle=slice(None, None, -2), detector=slice(35, 2, -1), z=slice(4, 36))
    np.testing.assert_allclose(nt.project_atoms(truth, like=part), part, atol=1e-6)  # float32 of values up to 5


# Exact data.


@pytest.mark.parametrize(
    "select",
    [{}, {"detector": slice(36, 3, -1), "angle": slice(None, None, -1)}, {"z": slice(None, None, -1)}],
    ids=["whole", "off the middle, reversed", "reversed slices"],
)
def test_exact_projections_give_exact_atoms(truth, clean, select, rng):
    found = nt.refine_atoms(shaken(truth, rng), clean.isel(select), noise="none")
    # Steps below 1e-4 widths end it, which converge by factors of ten or more: 5e-6 nm, 2e-4 voxels.
    assert distances(found, truth).max() < 5e-6
    np.testing.assert_allclose(found["height"], truth["height"], rtol=1e-3)
    np.testing.assert_allclose(found["width"], WIDTH, rtol=1e-3)
    assert found["refined"].values.all()
    assert found.attrs["projections"]["angle"] == sorted(clean.isel(select).angle.values)


def test_widths_of_atoms_and_of_species(rng):
    species = ["C", "C", "O", "O", "C", "O"]
    widths = np.array([0.045, 0.045, 0.06, 0.06, 0.045, 0.06])
    truth = atoms_at(PLACES, width=widths, species=species)
    series = nt.project_atoms(truth, like=empty()).compute()
    for kind in ("species", "atom"):
        found = nt.refine_atoms(shaken(truth, rng), series, noise="none", widths=kind)
        np.testing.assert_allclose(found["width"], truth["width"], rtol=1e-3)
        assert distances(found, truth).max() < 5e-6
    one = nt.refine_atoms(shaken(truth, rng), series, noise="none", widths="one")
    assert np.ptp(one["width"].values) == 0
    fixed = nt.refine_atoms(truth, series, noise="none", widths="fixed")
    np.testing.assert_array_equal(fixed["width"], truth["width"])


def test_tails(truth, rng):
    tailed = truth.assign(tail=("atom", np.full(6, 0.2)), tail_width=("atom", np.full(6, 0.11)))
    series = nt.project_atoms(tailed, like=empty()).compute()
    found = nt.refine_atoms(shaken(truth, rng), series, noise="none", profile="tailed", max_iterations=100)
    assert distances(found, truth).max() < 1e-4  # share and width of a tail are nearly one parameter: slow at the end
    np.testing.assert_allclose(found["tail"], 0.2, atol=0.02)
    np.testing.assert_allclose(found["tail_width"], 0.11, atol=0.01)
    assert np.abs(series - nt.project_atoms(found, like=series)).max() < 1e-3 * series.max()
    plain = nt.refine_atoms(shaken(truth, rng), series, noise="none")
    assert distances(plain, truth).max() > 10 * distances(found, truth).max()


def test_means_over_pixels(truth, rng):
    fine = nt.project_atoms(truth, like=empty(size=4 * SIZE, pixel=PIXEL / 4)).compute()
    binned = fine.coarsen(z=4, detector=4).mean().astype(np.float32)
    series = empty().copy(data=binned.values / 4)  # lengths in the larger pixel
    found = nt.refine_atoms(shaken(truth, rng), series, noise="none", pixels="means")
    # The mean of 4 points for that of a pixel: (PIXEL / 4)² / 24 times second derivatives, 1e-3 of the value.
    np.testing.assert_allclose(found["width"], WIDTH, rtol=5e-3)
    assert distances(found, truth).max() < 2e-4
    points = nt.refine_atoms(shaken(truth, rng), series, noise="none", pixels="points")
    # A pixel widens a Gaussian by the variance of a square.
    np.testing.assert_allclose(points["width"], np.hypot(WIDTH, PIXEL / np.sqrt(12)), rtol=5e-3)


def test_what_is_a_projections_own(truth, clean, rng):
    """Scales, backgrounds and shifts are found, and the specimen stays where it is."""
    n = len(WEDGE)
    scale, background = rng.uniform(0.8, 1.2, n), rng.uniform(-0.5, 0.5, n)
    shift = rng.normal(0, 0.01, (n, 2))
    scale, shift[:, 0] = scale / scale.mean(), shift[:, 0] - shift[:, 0].mean()
    angles = np.deg2rad(WEDGE)
    basis = np.linalg.qr(np.stack([np.cos(angles), np.sin(angles)], axis=1))[0]
    shift[:, 1] -= basis @ (basis.T @ shift[:, 1])
    order = np.argsort(WEDGE)
    said = {"angle": WEDGE, "misfit": np.ones(n), "background": background, "scale": scale}
    said |= {"shift_z": shift[:, 0], "shift_detector": shift[:, 1]}
    known = truth.assign_attrs(projections={key: list(np.asarray(one)[order]) for key, one in said.items()})
    series = nt.project_atoms(known, like=clean).compute()
    found = nt.refine_atoms(shaken(truth, rng), series, noise="none", per_projection="shift")
    for key in ("background", "scale", "shift_z", "shift_detector"):
        np.testing.assert_allclose(found.attrs["projections"][key], known.attrs["projections"][key], atol=1e-3)
    assert distances(found, truth).max() < 1e-4
    assert np.abs(series - nt.project_atoms(found, like=series)).max() < 2e-3 * series.max()
    assert np.abs(series - nt.project_atoms(found, like=series, projections="ideal")).max() > 0.05 * series.max()


def test_heights_alone(truth, clean, rng):
    start = shaken(truth, rng, by=0.0)
    found = nt.refine_atoms(start, clean, noise="none", fit="heights")
    np.testing.assert_array_equal(table.positions(found), table.positions(truth))
    np.testing.assert_allclose(found["height"], truth["height"], rtol=1e-3)
    assert not found["refined"].values.any()


# Derivatives and bounds.


def small_fit(per_projection="shift"):
    """A fit in which everything is free, near some atoms with tails."""
    views = Views.of(empty(WEDGE[:4], size=24), "points")
    atoms = Atoms(PLACES[1:4] * 0.8, HEIGHTS[1:4], np.full(3, WIDTH), np.full(3, 0.15), np.full(3, 2.2))
    own = OfViews.ideal(4).moved(np.random.default_rng(3).normal(0, 0.01, (4, 4)))
    groups = np.array([0, 1, 0])
    parameters = Parameters(atoms, np.array([True, True, False]), groups, groups, 0.05)
    data = np.random.default_rng(4).normal(1, 0.5, (4, *views.shape)).astype(np.float32)
    return Fit(views, data, Weighing(Noise(read_noise=0.5), 3.0), parameters, per_projection), atoms, own


def test_gradient_is_that_of_the_misfit():
    fit, atoms, own = small_fit()
    now = fit.linear(atoms, own)
    gradient = fit._joined(atoms, now)
    rng, step = np.random.default_rng(5), 1e-5
    for _ in range(4):
        direction = rng.standard_normal(gradient.size)
        direction[fit.parameters.count :] = fit.gauge.left_out(direction[fit.parameters.count :].reshape(-1, 4)).ravel()
        costs = []
        for sign in (1, -1):
            by = sign * step * direction
            moved, _ = fit.parameters.moved(atoms, by)
            costs.append(fit.misfits(moved, own.moved(fit._of_views(by)), now.weights).sum() / 2)
        # The third derivative in units of the first is about (1 / WIDTH)² = 400: an error of 400 step² / 6, below 1e-7.
        assert (costs[1] - costs[0]) / (2 * step) == pytest.approx(gradient @ direction, rel=1e-5)


@pytest.mark.parametrize("per_projection", ["nothing", "scale", "shift"])
def test_errors_are_those_of_the_whole_jacobian(per_projection):
    fit, atoms, own = small_fit(per_projection)
    now = fit.linear(atoms, own)
    found = information.standard_errors(fit.views, atoms, own, now.weights, fit.parameters, fit.free_of_views)
    count, basis = fit.parameters.count, information._without_gauge(fit.views, fit.free_of_views)

    def shown(by):
        moved, _ = fit.parameters.moved(atoms, by[:count])
        new = own.moved((basis @ by[count:]).reshape(-1, 4))
        return np.stack([fit._residual(moved.gaussians(), new, view)[0] for view in range(4)]).ravel()

    step, n = 1e-5, count + basis.shape[1]
    jacobian = np.stack([(shown(step * one) - shown(-step * one)) / (2 * step) for one in np.eye(n)], axis=1)
    weighted = jacobian * np.concatenate([one.ravel() for one in now.weights])[:, None]
    errors = np.sqrt(np.linalg.inv(jacobian.T @ weighted).diagonal())
    # Differences are exact to 1e-7, and the conditioning of tails and widths makes up to a thousand times that of it.
    np.testing.assert_allclose(found.positions[:2].ravel(), errors[:6], rtol=1e-3)
    np.testing.assert_allclose(found.heights, errors[6:9], rtol=1e-3)
    assert np.isnan(found.positions[2]).all()


def test_bound_of_an_atom_alone():
    """Counts alone: w / √N along the axis, N counts in all views; and along y and x by the angles."""
    angles = np.arange(-90, 90, 15.0)
    alone, gain = atoms_at(np.zeros((1, 3)), [1.0]), 1e-3
    series = empty(angles, size=60, pixel=0.015)
    found = nt.position_bound(alone, series, noise=Noise(gain=gain), widths="fixed", per_projection="nothing")
    counts = float(nt.project_atoms(alone, like=series).sum()) / gain
    # Below 2 % of the brightest value counts are taken to be so many: of a plane Gaussian exp(-ln 50) = 2 % lie there.
    assert float(found["z_error"][0]) == pytest.approx(WIDTH / np.sqrt(counts), rel=0.05)
    for name in ("y_error", "x_error"):  # half of the views' information for each
        assert float(found[name][0]) == pytest.approx(WIDTH / np.sqrt(counts / 2), rel=0.05)
    whole = [float(found[f"{name}_error"][0]) for name in "zyx"]
    assert found.attrs["rmsd"] == pytest.approx(np.sqrt(np.sum(np.square(whole))))


def test_boxes_are_nearly_the_whole(monkeypatch, rng):
    grid = np.stack(np.meshgrid(*[np.arange(-2, 3) * 0.15] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    many = atoms_at(grid + rng.normal(0, 0.02, grid.shape), np.ones(len(grid)))
    series, noise = empty(np.arange(-90, 90, 15.0), size=36), Noise(read_noise=0.1)
    whole = nt.position_bound(many, series, noise=noise)
    monkeypatch.setattr(information, "_TOGETHER", 60)
    monkeypatch.setattr(information, "_BOX", 40)
    boxes = nt.position_bound(many, series, noise=noise)
    for name in table.ERRORS:
        # Atoms 3 widths apart, as near as any: at most 2.3 % here.
        np.testing.assert_allclose(boxes[name], whole[name], rtol=0.05)


@pytest.mark.parametrize("angles", [WEDGE, np.arange(-88, 90, 16.0)], ids=["wedge", "full"])
def test_refinement_reaches_the_bound(truth, angles):
    series = nt.project_atoms(truth, like=empty(angles)).compute()
    noise = Noise(gain=0.01, read_noise=0.02)
    squares = []
    for seed in range(8):
        measured_ = nt.add_noise(series, noise=noise, seed=seed)
        found = nt.refine_atoms(shaken(truth, np.random.default_rng(seed)), measured_, noise=noise)
        errors = np.stack([found[name].values for name in table.ERRORS], axis=1)
        squares.append(((table.positions(found) - table.positions(truth)) / errors) ** 2)
        assert np.mean(found.attrs["projections"]["misfit"]) == pytest.approx(1, abs=0.1)  # of 14,400 pixels: 4 · 1.5 %
    # 144 squares of normal values of variance 1, neighbours correlated by half at most: a mean within 4 · √(2 / 100).
    assert np.mean(squares) == pytest.approx(1, abs=0.57)
    bound = nt.position_bound(truth, series, noise=noise)
    for name in table.ERRORS:  # the errors of a refined table are the bound at its own atoms
        np.testing.assert_allclose(found[name], bound[name], rtol=0.2)


# Evidence.


def test_an_atom_without_evidence_stays(truth, clean):
    """One where there is none: it is not moved, whatever the noise looks like there, and is told."""
    ghost = np.array([[-0.1, 0.28, 0.28]])
    both = atoms_at(np.concatenate([PLACES, ghost]), np.append(HEIGHTS, 0.5))
    noise = Noise(gain=0.02, read_noise=0.1)
    for seed in range(4):
        found = nt.refine_atoms(both, nt.add_noise(clean, noise=noise, seed=seed), noise=noise)
        row = int(np.flatnonzero(found["refined"].values == 0)[0])
        assert found["refined"].values.sum() == len(PLACES)
        np.testing.assert_array_equal(table.positions(found)[row], ghost[0])
        assert abs(float(found["significance"][row])) < 3.0
        assert np.isnan(found["z_error"].values[row])
        kept = found.isel(atom=found["refined"].values == 1)
        errors = np.stack([kept[name].values for name in table.ERRORS], axis=1)
        assert (np.abs(table.positions(kept) - PLACES) < 5 * errors).all()


def test_what_projections_do_not_determine_stays(truth):
    """Two views from nearly one side tell little of the depth: atoms stay there, and move across it."""
    series = nt.project_atoms(truth, like=empty(np.array([-1.0, 1.0]))).compute()
    noise = Noise(read_noise=0.2)
    start = truth.assign(y=truth["y"] + 0.01, x=truth["x"] + 0.01)
    found = nt.refine_atoms(start, nt.add_noise(series, noise=noise), noise=noise, expected_shift=0.01)
    # A standard error of at least three times what is expected: a tenth of the evidence moves it, by a tenth of 0.01
    # and of the error; five of these.
    assert (found["y_error"] > 0.03).all()
    assert np.abs(found["y"] - start["y"]).max() < 0.01
    assert np.abs(found["x"] - truth["x"]).mean() < 0.005


def test_an_atom_that_runs_away_is_put_back(truth, clean):
    lonely = truth.assign(x=truth["x"] + np.where(np.arange(6) == 5, 0.06, 0.0))
    found = nt.refine_atoms(lonely, clean, noise="none", largest_shift=0.03)
    assert found["refined"].values.sum() == 5
    free = nt.refine_atoms(lonely, clean, noise="none", largest_shift=0.1)
    assert distances(free, truth).max() < 1e-4


# The same bytes, and recipes.


def test_bytes_depend_neither_on_order_nor_on_chunks_nor_on_threads(truth, clean, rng):
    noise, start = Noise(gain=0.01, read_noise=0.02), shaken(truth, rng)
    series = nt.add_noise(clean, noise=noise).compute()
    with dask.config.set(num_workers=1):
        one = nt.refine_atoms(start, series, noise=noise)
    with dask.config.set(num_workers=3):
        other = nt.refine_atoms(start, series.isel(angle=slice(None, None, -1)).chunk({"z": 5}), noise=noise)
    xr.testing.assert_identical(one.drop_attrs(), other.drop_attrs())
    assert one.attrs["projections"] == other.attrs["projections"]


def test_other_columns_and_the_recipe_are_kept(truth, clean):
    start = truth.assign(agreement=("atom", np.linspace(0, 1, 6)))
    found = nt.refine_atoms(start, clean, noise="none")
    np.testing.assert_array_equal(found["agreement"], start["agreement"])
    recipe = found.attrs["recipe"]
    assert recipe["operation"] == "refine_atoms"
    assert recipe["parameters"]["noise"] == "none"
    assert recipe["inputs"][0]["operation"] == "test"
    fewer = nt.refine_atoms(start.isel(atom=slice(5)), clean, noise="none").attrs["recipe"]
    assert fewer["parameters"]["atoms"] != recipe["parameters"]["atoms"]


def test_too_few_iterations_are_told(truth, clean, rng):
    with pytest.warns(UserWarning, match="still move after 1 iterations"):
        nt.refine_atoms(shaken(truth, rng), clean, noise="none", max_iterations=1)


# Refused.


def without(atoms, name):
    return atoms.drop_vars(name)


def with_value(atoms, name, value):
    values = atoms[name].values.copy()
    values[2] = value
    return atoms.assign({name: ("atom", values)})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda atoms: atoms.to_dataframe(), "a table of atoms"),
        (lambda atoms: without(atoms, "height"), "height"),
        (lambda atoms: with_value(atoms, "height", np.nan), "finite height"),
        (lambda atoms: with_value(atoms, "x", np.inf), "finite x"),
        (lambda atoms: with_value(atoms, "width", 0.0), "width above zero"),
        (lambda atoms: with_value(atoms, "x", 7.0), "field of view"),
        (lambda atoms: with_value(atoms, "z", -0.62), "field of view"),
        (lambda atoms: atoms.assign_attrs(units="angstrom"), "in nm"),
        (lambda atoms: atoms.isel(atom=slice(0)), "one atom or more"),
        (lambda atoms: atoms.assign(tail=atoms["height"]), "both columns"),
        (
            lambda atoms: with_value(atoms.assign(tail=atoms["height"], tail_width=atoms["width"]), "tail_width", 0),
            "tail_width",
        ),
    ],
)
def test_tables_that_are_refused(truth, spoil, words, nothing_computes):
    series = empty().chunk({"z": 8})
    calls = (
        lambda one: nt.refine_atoms(one, series, noise="none"),
        lambda one: nt.position_bound(one, series, noise=Noise(read_noise=1)),
        lambda one: nt.project_atoms(one, like=series),
    )
    for call in calls:
        with pytest.raises(nt.SchemaError, match=words):
            call(spoil(truth))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda one: nt.tilt_series(one.values, one.angle.values), "pixels have a length"),
        (lambda one: one.isel(z=[0, 1, 3, 9]), '"z" has equal steps'),
        (lambda one: one.transpose("angle", "z", "detector"), "dims"),
        (lambda one: one.values, "xarray.DataArray"),
    ],
)
def test_series_that_are_refused(truth, spoil, words):
    for call in (
        lambda one: nt.refine_atoms(truth, one, noise="none"),
        lambda one: nt.position_bound(truth, one, noise=Noise(read_noise=1)),
        lambda one: nt.project_atoms(truth, like=one),
    ):
        with pytest.raises(nt.SchemaError, match=words):
            call(spoil(empty()))


def test_values_that_are_not_finite_are_refused(truth, clean):
    clean[3, 2, 1] = np.nan
    with pytest.raises(nt.SchemaError, match="nan at index z=3, angle=2, detector=1"):
        nt.refine_atoms(truth, clean, noise="none")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"fit": "everything"}, "fit"),
        ({"widths": "each"}, "widths"),
        ({"profile": "round"}, "profile"),
        ({"per_projection": "tilt"}, "per projection"),
        ({"pixels": "sums"}, "pixels"),
        ({"expected_shift": 0.0}, "expected shift"),
        ({"largest_shift": -1.0}, "largest shift"),
        ({"least_significance": -1.0}, "least significance"),
        ({"max_iterations": 0}, "max iterations"),
        ({"noise": 0.1}, "a Noise"),
        ({"noise": "some"}, "a Noise"),
    ],
)
def test_settings_that_are_refused(truth, setting, words, nothing_computes):
    with pytest.raises(nt.SchemaError, match=words):
        nt.refine_atoms(truth, empty().chunk({"z": 8}), **setting)


def test_a_bound_needs_noise(truth):
    for noise in ("none", Noise(), "auto"):  # in a series of zeros none is found
        with pytest.raises(nt.SchemaError, match=r"noise|Noise"):
            nt.position_bound(truth, empty(), noise=noise)
    with pytest.raises(nt.SchemaError, match="projections"):
        nt.project_atoms(truth, like=empty(), projections="all")


def test_noise_is_estimated_where_it_is_not_given(truth, clean):
    noise = Noise(read_noise=0.1)
    series = nt.add_noise(clean, noise=noise)
    given, found = nt.refine_atoms(truth, series, noise=noise), nt.refine_atoms(truth, series)
    # nt.noise finds 13,000 values' deviation to some percent.
    np.testing.assert_allclose(found["z_error"], given["z_error"], rtol=0.15)
    assert measured.noise_of("none", series) is None
