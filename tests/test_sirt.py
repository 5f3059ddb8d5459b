import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.kernels import project as kernel


def reference(sinogram, angles_deg, *, tolerance, max_iterations, minimum=None):
    """SIRT of one slice as in the textbook, with the readable projectors in double precision weights."""
    angles = np.deg2rad(angles_deg)
    n = sinogram.shape[-1]
    row = kernel.forward_reference(np.ones((1, n, n), np.float32), angles)[0]
    column = kernel.back_reference(np.ones((1, *sinogram.shape), np.float32), angles)[0]
    r, c = (np.divide(1, s, out=np.zeros_like(s), where=s > 1e-6) for s in (row, column))
    x = np.zeros((1, n, n), np.float32)
    norm = np.linalg.norm(sinogram)
    iteration = 0
    while iteration < max_iterations:
        iteration += 1
        residual = sinogram - kernel.forward_reference(x, angles)[0]
        x = x + c * kernel.back_reference((r * residual)[None].astype(np.float32), angles)
        x = x if minimum is None else np.maximum(x, minimum)
        previous, norm = norm, np.linalg.norm(sinogram - kernel.forward_reference(x.astype(np.float32), angles)[0])
        if (previous - norm) / previous <= tolerance:
            break
    return x[0], iteration


@pytest.fixture(scope="module")
def textbook():
    """`reference`, which takes seconds, computed once for the same arguments: both engines are held against it."""
    known = {}

    def remembered(sinogram, angles_deg, **arguments):
        key = sinogram.tobytes(), angles_deg.tobytes(), *sorted(arguments.items())
        if key not in known:
            known[key] = reference(sinogram, angles_deg, **arguments)
        return known[key]

    return remembered


@pytest.mark.parametrize("minimum", [None, 0.0, 0.05])
@pytest.mark.parametrize("engine", ["native", "astra"])
def test_against_the_textbook(series, textbook, minimum, engine):
    arguments = {"tolerance": 0.02, "max_iterations": 50, "minimum": minimum}
    volume = nt.sirt(series, engine=engine, **arguments).values
    for z in (0, 8):
        expected, iterations = textbook(series.values[z], series.angle.values, **arguments)
        assert iterations > 3
        # Tens of iterations in single precision; ASTRA treats the image's border otherwise, so look inside the disc.
        inside = np.hypot(*np.meshgrid(*2 * [np.arange(32) - 15.5])) < 13
        tolerance = 1e-4 if engine == "native" else 2e-2
        np.testing.assert_allclose(volume[z][inside], expected[inside], atol=tolerance * expected.max())


@pytest.mark.parametrize("engine", ["native", "astra"])
def test_chunks_change_nothing(series, engine):
    whole = nt.sirt(series, engine=engine).values
    for slices in (1, 3):
        np.testing.assert_array_equal(nt.sirt(series.chunk(z=slices), engine=engine).values, whole)


def test_each_slice_stops_by_itself(series):
    """A slice gives the same alone as beside others that take longer."""
    together = nt.sirt(series, tolerance=0.005).values
    for z in range(9):
        np.testing.assert_array_equal(nt.sirt(series.isel(z=[z]), tolerance=0.005).values[0], together[z])


def test_empty_slices_are_zero_and_finite(series):
    volume = nt.sirt(series * 0)
    assert (volume.values == 0).all()
    assert (nt.sirt(series).values[4] == 0).all()


def test_a_minimum_above_zero_leaves_empty_slices_empty(series):
    volume = nt.sirt(series, minimum=0.2).values
    assert (volume[4] == 0).all()
    assert volume[3].min() >= 0.2
    np.testing.assert_array_equal(nt.sirt(series.chunk(z=1), minimum=0.2).values, volume)


def test_minimum_holds(series):
    assert nt.sirt(series, minimum=None).values.min() < 0
    assert nt.sirt(series, minimum=0).values.min() == 0
    assert nt.sirt(series, minimum=0.25).values[:4].min() == 0.25


def test_more_iterations_fit_the_projections_better(series):
    def misfit(volume):
        return float(((nt.project(volume, series.angle) - series) ** 2).sum())

    few, many = (misfit(nt.sirt(series, tolerance=0, max_iterations=count)) for count in (3, 30))
    assert many < 0.2 * few


def test_lazy(series, nothing_computes):
    assert nt.sirt(series).shape == (9, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": -0.1}, "needs tolerance of at least 0 and below 1; got -0.1"),
        ({"max_iterations": 0}, "needs max iterations of at least 1; got 0"),
        ({"engine": "gpu"}, "needs engine"),
    ],
)
def test_bad_parameters_are_refused(series, arguments, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.sirt(series, **arguments)
