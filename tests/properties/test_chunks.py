"""Chunks along z only cut the work: every operation gives the same bits in slabs of 1, 3 and all."""

import dask
import numpy as np
import pytest
import xarray as xr

import nntomo_dask as nt
from tests.unrolled_networks import network_of

SERIES_TO_ANY = {
    "backproject": nt.backproject,
    "complete_wedge": nt.complete_wedge,
    "resize": lambda series: nt.resize(series, 20),
    "fbp": nt.fbp,
    "sirt": lambda series: nt.sirt(series, max_iterations=5, minimum=0),
    "tv": lambda series: nt.tv(series, weight=1, max_iterations=5),
    "tv_auto": nt.tv,
    "unrolled": lambda series: nt.unrolled(series, network_of()),
    "nnfbp": None,
    "outside_training_range": None,
    "intensity_level": nt.intensity_level,
}
VOLUME_TO_ANY = {
    "project": lambda volume: nt.project(volume, nt.tilt_angles("tem", 5)),
    "normalize": nt.normalize,
    "segment": lambda volume: nt.segment(volume, threshold=0.5),
}


@pytest.fixture(scope="module")
def particle():
    return nt.nanoparticle((10, 48, 48), seed=3, n_pores=2).compute()


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("name", SERIES_TO_ANY)
def test_operations_on_a_series(particle, trained, name, slices):
    operation = SERIES_TO_ANY[name] or (lambda series: getattr(nt, name)(series, trained[0]))
    series = nt.project(particle, nt.tilt_angles("tem", 8)).compute()
    xr.testing.assert_equal(operation(series.chunk(z=slices)).compute(), operation(series.chunk(z=-1)).compute())


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("name", VOLUME_TO_ANY)
def test_operations_on_a_volume(particle, name, slices):
    operation = VOLUME_TO_ANY[name]
    xr.testing.assert_equal(operation(particle.chunk(z=slices)).compute(), operation(particle.chunk(z=-1)).compute())


def test_arrays_in_other_slabs_do_not_meet_in_one_graph(particle):
    """The same operation on the same volume in two chunkings, computed together: names keep them apart."""
    series = nt.project(particle, nt.tilt_angles("tem", 8)).compute()
    one, three = (nt.fbp(series.chunk(z=slices)) for slices in (1, 3))
    assert one.data.name != three.data.name
    first, second = dask.compute(one, three)
    np.testing.assert_array_equal(first, second)
