import itertools

import dask
import numpy as np
import pytest
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.networks.nnfbp import Form
from nntomo_dask.training import checkpoints, loop
from nntomo_dask.training.nnfbp import annealed, levenberg_marquardt, sets, training as training_room

ANGLES = nt.tilt_angles("tem", 8)


@pytest.fixture
def pair():
    volume = nt.ellipse_stack((12, 32, 32), seed=1)
    return nt.project(volume, ANGLES), volume


@pytest.mark.parametrize(
    ("filters", "n_inputs"),
    [
        ("shared", 2 * 6),  # 6 bins at 32 pixels, for measured and for filled projections
        ("apart", 9 * 11),  # both sides of 5 of them, for each projection
    ],
)
def test_samples_are_what_the_layout_computes(pair, filters, n_inputs):
    """Every target is a voxel of its slice, its inputs are those of that voxel, and all lie in the seen disc."""
    series, volume = pair
    samples = nt.training_samples(series, volume, n_samples=300, seed=4, filters=filters).compute()
    assert samples.inputs.shape == (300, n_inputs)
    assert samples.inputs.dtype == samples.target.dtype == np.float32
    network_inputs = training_room.layout_of(samples)
    disc = np.argwhere(np.hypot(*np.meshgrid(*2 * [np.arange(32) - 15.5])) <= 15.5)
    every = np.concatenate([np.column_stack([np.full(len(disc), z), disc]) for z in range(12)])
    table = network_inputs.inputs(series.values, every)
    values = volume.values[tuple(every.T)]
    rows = {(z, *inputs.tobytes(), float(value)) for z, inputs, value in zip(every[:, 0], table, values, strict=True)}
    of_samples = samples.slice.values, samples.inputs.values, samples.target.values
    for z, inputs, target in zip(*of_samples, strict=True):
        assert (int(z), *inputs.tobytes(), float(target)) in rows


def test_samples_are_uniform_over_slices_and_disc():
    """Coordinates as the volume's values: their mean and spread are those of a uniform disc, to four sigma."""
    z, y, x = np.meshgrid(np.arange(12.0), *2 * [np.arange(32) - 15.5], indexing="ij")
    for coordinate, variance in ((y, 15.5**2 / 4), (x, 15.5**2 / 4), (z - 5.5, (12**2 - 1) / 12)):
        volume = nt.volume(coordinate)
        target = nt.training_samples(nt.project(volume, ANGLES), volume, n_samples=20_000).target.values
        assert abs(target.mean()) < 4 * np.sqrt(variance / 20_000)
        assert target.var() == pytest.approx(variance, rel=0.05)


def test_samples_do_not_depend_on_chunks(pair):
    series, volume = pair
    whole = nt.training_samples(series, volume, n_samples=500)
    for slices in (1, 3):
        pieces = nt.training_samples(series.chunk(z=slices), volume.chunk(z=5), n_samples=500)
        xr.testing.assert_equal(pieces.compute(), whole.compute())


def test_samples_are_lazy(pair, nothing_computes):
    samples = nt.training_samples(*pair, n_samples=500)
    assert samples.sizes == {"voxel": 500, "input": 99}


def test_several_pairs_share_the_samples(pair):
    series, volume = pair
    samples = nt.training_samples(
        [series, series.isel(z=slice(0, 4))], [volume, volume.isel(z=slice(0, 4))], n_samples=800
    )
    assert samples.sizes["voxel"] == 800
    assert np.isfinite(samples.inputs.values).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s, v: (s, v.isel(z=slice(0, 3))),
            "needs a volume with 12 slices of 32 pixels, .*; got 3",
        ),
        (lambda s, v: ([s, s], [v]), "needs one volume a series"),
        (
            lambda s, v: ([s, s.isel(angle=slice(2, None))], [v, v]),
            "needs the angles for which",
        ),
        (lambda s, v: (v, v), "needs a tilt series; got a volume"),
    ],
)
def test_pairs_that_do_not_match_are_refused(pair, change, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.training_samples(*change(*pair))


FORMS = {
    "relu": Form(5, 3, "relu"),
    "sigmoid": Form(5, 3, "sigmoid"),
    "linear": Form(5, 3, "relu", 0, "linear"),
    "two layers": Form(5, 3, "sigmoid", 4, "linear"),
    "two layers, relu": Form(5, 4, "relu", 2, "sigmoid"),
}


def differences(function, parameters, step=1e-6):
    """Central differences of a function by each parameter, in the last dim."""
    columns = []
    for i in range(parameters.size):
        shift = np.zeros_like(parameters)
        shift[i] = step
        columns.append((function(parameters + shift) - function(parameters - shift)) / (2 * step))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_normal_equations_against_finite_differences(rng, form):
    inputs, targets = rng.uniform(-1, 1, (40, 5)), rng.uniform(0, 1, 40)
    parameters = rng.standard_normal(form.count)
    jacobian = differences(lambda given: levenberg_marquardt.predict(given, inputs, form), parameters)
    residual = levenberg_marquardt.predict(parameters, inputs, form) - targets
    hessian, gradient, total = levenberg_marquardt.normal_equations(parameters, sets.InMemory(inputs, targets), form)
    # Central differences of step 1e-6: rounding 1e-16 / 1e-6 a difference, and the square of the step; values up to 10.
    np.testing.assert_allclose(hessian, jacobian.T @ jacobian, atol=1e-6)
    np.testing.assert_allclose(gradient, jacobian.T @ residual, atol=1e-6)
    assert total == pytest.approx(residual @ residual, rel=1e-12)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_gradient_of_weighted_errors_against_finite_differences(rng, form):
    inputs, targets, weights = rng.uniform(-1, 1, (40, 5)), rng.uniform(0, 1, 40), rng.uniform(0, 2, 40)
    parameters = rng.standard_normal(form.count)
    gradient = np.empty_like(parameters)
    residual = annealed._gradient(parameters, inputs, targets, weights, form, gradient)

    def error(given):
        return np.mean(weights * (levenberg_marquardt.predict(given, inputs, form) - targets) ** 2)

    np.testing.assert_allclose(gradient, differences(error, parameters), atol=1e-6)
    np.testing.assert_allclose(residual, levenberg_marquardt.predict(parameters, inputs, form) - targets, atol=1e-12)


def test_slices_count_alike(rng):
    """Weights are the inverse of the mean square error of a slice, plus a fifth of the median slice's."""
    form = Form(3, 2, "relu", 0, "linear")
    parameters = rng.standard_normal(form.count).astype(np.float32)
    inputs = rng.standard_normal((9, 3)).astype(np.float32)
    numbers = np.array([0, 0, 0, 2, 2, 2, 5, 5, 5])  # others have no voxels
    factors = np.repeat([1.0, 2.0, 5.0], 3)
    outputs = levenberg_marquardt.predict(parameters.astype(float), inputs.astype(float), form)
    targets = (outputs + factors).astype(np.float32)
    problem = annealed.Problem(inputs, targets, numbers, form, epochs=1, seed=0)
    expected = 1 / (factors**2 + 0.2 * 4)
    np.testing.assert_allclose(annealed._weights(parameters, problem), expected / expected.mean(), rtol=1e-4)


def test_the_validation_of_slices_is_their_geometric_mean(rng):
    form = Form(3, 2, "relu", 0, "linear")
    inputs = rng.standard_normal((6, 3)).astype(np.float32)
    standard = annealed.Standard.of(inputs)
    parameters = rng.standard_normal(form.count).astype(np.float32)
    outputs = annealed._layers(parameters, standard.scaled(inputs), form)[-1]
    targets = outputs + np.repeat(np.float32([1, 2, 5]), 2)
    loss = annealed.validation_loss(parameters, inputs, targets, np.array([0, 0, 3, 3, 4, 4]), form, standard)
    assert loss == pytest.approx(np.exp(np.log(np.array([1.0, 4.0, 25.0]) + 0.2 * 4).mean()), rel=1e-4)


def test_inputs_are_made_uncorrelated(rng):
    """Covariance 1 where a direction has variance; those with less than a thousandth of the most are left smaller."""
    mixing = rng.standard_normal((4, 4))
    inputs = (rng.standard_normal((5000, 4)) @ mixing + 7).astype(np.float32)
    inputs = np.column_stack([inputs, inputs[:, 0], np.full(5000, 3, np.float32)])
    scaled = annealed.Standard.of(inputs).scaled(inputs)
    variances = np.linalg.eigvalsh(np.cov(scaled.T))
    assert variances[:2] == pytest.approx([0, 0], abs=1e-6)
    assert (variances[2:] > 0.8).all()
    assert variances.max() < 1.001


def test_parameters_for_standard_inputs_are_parameters_for_their_range(rng):
    """The same output to single precision; an input that is constant plays no part."""
    form = Form(4, 3, "relu", 2, "linear")
    inputs = (rng.uniform(-1, 1, (50, 4)) * [1, 10, 100, 0] + [0, 5, 1000, 3]).astype(np.float32)
    standard = annealed.Standard.of(inputs)
    scaling = sets.Scaling(inputs.min(axis=0).astype(float), inputs.max(axis=0).astype(float), 0.0, 1.0)
    parameters = rng.standard_normal(form.count).astype(np.float32)
    expected = annealed._layers(parameters, standard.scaled(inputs), form)[-1]
    found = standard.for_range(parameters, form, scaling)
    actual = levenberg_marquardt.predict(found, scaling.inputs(inputs), form)
    np.testing.assert_allclose(actual, expected, atol=2e-4 * np.abs(expected).max())


def test_torch_and_numpy_compute_the_same_network(rng):
    torch = pytest.importorskip("torch")
    from nntomo_dask.training.nnfbp import adam

    inputs = rng.uniform(-1, 1, (50, 5))
    for form in FORMS.values():
        parameters = rng.standard_normal(form.count)
        ours = levenberg_marquardt.predict(parameters, inputs, form)
        theirs = adam.forward(torch.from_numpy(parameters), torch.from_numpy(inputs), form)
        np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_levenberg_marquardt_finds_a_network_again(rng, activation):
    """Targets that a network of the same size makes: from any start 9/10 of their variance are found again."""
    form = Form(4, 3, activation)
    inputs = rng.uniform(-1, 1, (2000, 4))
    truth = 2 * rng.standard_normal(form.count)
    targets = levenberg_marquardt.predict(truth, inputs, form)
    samples = sets.InMemory(inputs, targets)
    state = levenberg_marquardt.start(rng.standard_normal(truth.size), samples, form)
    losses = [state.loss]
    later = levenberg_marquardt.iterate(state, samples, form)
    losses += [state.loss for state in itertools.islice(later, 60)]
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < 0.1 * targets.var()


SETTINGS = {
    "annealed": {"max_epochs": 6},
    "lm": {"solver": "lm", "max_epochs": 6, "hidden_nodes": 2},
    "adam": {"solver": "adam", "max_epochs": 4, "batch_size": 64, "learning_rate": 1e-3},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_same_seed_same_network(trained, settings):
    _, training, validation = trained
    first, again, other = (
        nt.train_nnfbp(training, validation, seed=seed, progress="none", **settings) for seed in (1, 1, 2)
    )
    assert first.digest == again.digest
    assert first.digest != other.digest


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(trained, settings, tmp_path, monkeypatch):
    """Stopped in the middle, the second half gives the same losses and the same network as a run in one go."""
    _, training, validation = trained
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    whole = nt.train_nnfbp(training, validation, checkpoint=tmp_path / "whole", progress="none", **settings)

    class StopError(Exception):
        pass

    saves = iter(range(3))

    def save_and_stop(self, path, save=checkpoints.Checkpoint.save):
        save(self, path)
        if next(saves, None) is None:
            raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoint, "save", save_and_stop)
        with pytest.raises(StopError):
            nt.train_nnfbp(training, validation, checkpoint=tmp_path / "part", progress="none", **settings)
    assert 0 < len(nt.intermediate_networks(tmp_path / "part")) <= 4
    resumed = nt.train_nnfbp(training, validation, checkpoint=tmp_path / "part", progress="none", **settings)
    assert resumed.digest == whole.digest
    assert resumed.recipe == whole.recipe
    epochs = [
        [network.recipe["outcome"] for network in nt.intermediate_networks(tmp_path / name)]
        for name in ("whole", "part")
    ]
    assert epochs[0] == epochs[1]


@pytest.mark.extra("torch")
def test_adam_can_stop_within_an_epoch(trained, tmp_path, monkeypatch):
    """With a pause every 5 batches the state between epochs is enough to go on to the same network."""
    from nntomo_dask.training.nnfbp import adam

    _, training, _ = trained
    inputs, targets = training.inputs.values.astype(float), training.target.values.astype(float)
    monkeypatch.setattr(adam, "_BATCHES_PER_PAUSE", 5)
    form = Form(inputs.shape[1], 2)
    start = adam.start(np.linspace(-1, 1, form.count))
    arguments = (inputs, targets, form)
    settings = {"batch_size": 500, "learning_rate": 1e-2, "seed": 0}
    states = list(itertools.islice(adam.iterate(start, *arguments, **settings), 6))
    assert [state.batch for state in states] == [5, 0, 5, 0, 5, 0]
    middle = adam.from_arrays(adam.to_arrays(states[2]))
    resumed = list(itertools.islice(adam.iterate(middle, *arguments, **settings), 3))
    np.testing.assert_array_equal(resumed[-1].parameters, states[-1].parameters)
    assert resumed[-1].loss == states[-1].loss


def test_a_finished_training_is_returned_at_once(trained, tmp_path, monkeypatch):
    _, training, validation = trained
    arguments = {"max_epochs": 3, "checkpoint": tmp_path / "c", "progress": "none"}
    first = nt.train_nnfbp(training, validation, **arguments)
    monkeypatch.setattr(loop, "run", None)
    assert nt.train_nnfbp(training, validation, **arguments).digest == first.digest
    other = training.assign(target=1 - training.target)
    with pytest.raises(nt.SchemaError, match="got others of the same recipe"):
        nt.train_nnfbp(other, validation, **arguments)


def test_a_finished_training_needs_no_samples_again(pair, tmp_path, nothing_computes):
    sets = [nt.training_samples(*pair, n_samples=200, seed=seed) for seed in (1, 2)]
    arguments = {"max_epochs": 2, "checkpoint": tmp_path / "c", "progress": "none"}
    with dask.config.set(scheduler="threads"):
        first = nt.train_nnfbp(*sets, **arguments)
    assert nt.train_nnfbp(*sets, **arguments).digest == first.digest
    with pytest.raises(AssertionError, match="something was computed"):
        nt.train_nnfbp(sets[0].isel(voxel=slice(0, 100)), sets[1], **arguments)


def test_samples_without_anything_to_learn_give_a_network(trained):
    """All inputs alike: no step lowers the loss, and where the training began is the outcome."""
    _, training, validation = trained
    network = nt.train_nnfbp(training.assign(inputs=training.inputs * 0), validation, max_epochs=5, progress="none")
    assert np.isfinite(nt.evaluate(network, validation.inputs.values[:5])).all()


def test_the_checkpoint_of_another_training_is_refused(trained, tmp_path):
    _, training, validation = trained
    nt.train_nnfbp(training, validation, max_epochs=2, checkpoint=tmp_path / "c", progress="none")
    with pytest.raises(nt.SchemaError, match=r"train: needs the data .*max_epochs is 2 there and 3 here"):
        nt.train_nnfbp(training, validation, max_epochs=3, checkpoint=tmp_path / "c", progress="none")


def test_training_stops_when_validation_no_longer_gains(trained):
    _, training, validation = trained
    noise = validation.copy()
    noise["target"] = noise.target[::-1].copy(data=noise.target.values[::-1])
    network = nt.train_nnfbp(training, noise, patience=2, max_epochs=100, progress="none")
    assert network.recipe["outcome"]["epoch"] < 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_nodes": 0}, "needs hidden nodes of at least 1; got 0"),
        ({"solver": "sgd"}, "needs solver .annealed., .lm. or .adam.; got .sgd."),
        ({"activation": "tanh"}, "needs activation .relu. or .sigmoid."),
        ({"learning_rate": 0}, "needs learning rate above 0"),
    ],
)
def test_bad_settings_are_refused(trained, arguments, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.train_nnfbp(trained[1], trained[2], **arguments)


def test_bad_samples_are_refused(trained, pair):
    _, training, validation = trained
    with pytest.raises(nt.SchemaError, match="needs training and validation samples of one layout"):
        nt.train_nnfbp(training, nt.training_samples(*pair, n_samples=10))
    with pytest.raises(nt.SchemaError, match="needs finite samples"):
        nt.train_nnfbp(training.assign(inputs=training.inputs * np.nan), validation)
    with pytest.raises(nt.SchemaError, match="needs training volumes with something in them; got the value 0"):
        nt.train_nnfbp(training.assign(target=training.target * 0), validation)


@pytest.mark.parametrize("phantom", ["ellipses", "mixed", "spheres"])
def test_phantom_samples_fit_the_series(pair, phantom):
    training, validation = nt.phantom_samples(pair[0], phantom=phantom, n_slices=8, n_samples=50)
    assert training.sizes == validation.sizes
    assert training_room.layout_of(training).angles_deg == tuple(ANGLES)
    assert (training.target.values != validation.target.values).any() or phantom == "spheres"
