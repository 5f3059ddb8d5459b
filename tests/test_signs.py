"""Signs of trouble in the volumes of networks."""

import dataclasses

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.reconstruction.signs import signs

ANGLES = nt.tilt_angles("tem", 8)
SIZE = 48


@pytest.fixture(scope="module")
def grey():
    """A particle of two densities, and its projections with 1 % noise."""
    volume = nt.phantom("coreshell", SIZE, seed=2).isel(z=slice(16, 32)).compute()
    series = nt.project(volume, ANGLES).compute()
    noise = np.random.default_rng(1).normal(0, 0.01 * float(series.max()), series.shape)
    return volume, series.copy(data=(series.values + noise).astype(np.float32))


def test_a_volume_that_agrees_with_the_series_has_no_sign(grey):
    volume, series = grey
    assert signs(volume, series, ends=[1.0]) == []


def test_one_grey_is_noticed_and_what_to_try_is_said(grey):
    volume, series = grey
    flat = volume.copy(data=np.where(volume > 0, np.float32(0.8), np.float32(0)))
    (line,) = signs(flat, series)
    assert line.startswith("warning: the network's volume does not agree with the series")
    assert "%; 100% of its matter has one grey; let nntomo assess compare it" in line
    assert "phantoms more like this specimen" in line
    assert "nntomo assess" in line


def test_greys_that_pile_up_at_the_end_are_noticed(grey):
    volume, series = grey
    cut = volume.copy(data=np.minimum(volume.values, np.float32(0.5)))
    (line,) = signs(cut, series, ends=[0.5])
    assert "of its matter has the greatest value that the network can give, 0.5" in line
    assert "greatest value" not in signs(cut, series, ends=[2.0])[0]


def test_without_noise_the_share_of_the_values_counts(grey):
    volume, _ = grey
    series = nt.project(volume, ANGLES).compute()
    assert signs(volume, series) == []
    (line,) = signs(volume * np.float32(0.7), series)
    assert "differ by 30 %" in line


def test_what_no_method_meets_is_no_sign(grey):
    """Projections that drifted: SIRT is about as far from them, so the network is not to blame."""
    _, series = grey
    values = np.stack(
        [
            np.roll(row, shift, axis=-1)
            for row, shift in zip(np.moveaxis(series.values, 1, 0), (6, -5, 4, -6, 5, -4, 6, -5), strict=True)
        ],
        axis=1,
    )
    drifted = series.copy(data=values)
    estimate = nt.sirt(drifted, tolerance=0, max_iterations=10, minimum=0).compute()
    assert signs(estimate, drifted) == []


def test_the_command_tells_it(run, grey, trained, tmp_path):
    """A network of one density, trained without noise, on two densities."""
    network, *_ = trained
    sigmoid = dataclasses.replace(network, output="sigmoid", output_weights=0 * network.output_weights)
    nt.save_network(dataclasses.replace(sigmoid, output_bias=-9.0), tmp_path / "net.safetensors")
    nt.save(grey[1], tmp_path / "series.zarr")
    words = ("reconstruct", "series.zarr", "--method", "nnfbp", "--network", "net.safetensors", "-o", "v.zarr")
    text = run(*words).output
    assert "warning: the network's volume does not agree with the series" in text
    assert "greatest value that the network can give" in text
