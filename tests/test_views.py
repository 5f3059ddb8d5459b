import dask
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import nntomo_dask as nt
from nntomo_dask.errors import SchemaError
from nntomo_dask.plotting import figures

ANGLES = [30.0, -10.0, 0.0, -40.0]


@pytest.fixture
def volume():
    """12 × 16 × 16 voxels of 2 nm; one bright block away from the middle."""
    data = np.random.default_rng(1).random((12, 16, 16), np.float32)
    data[7:9, 3:6, 10:12] = 5
    return nt.volume(data, pixel_size=2.0, units="nm")


@pytest.fixture
def series():
    data = np.random.default_rng(2).random((6, 4, 10), np.float32)
    return nt.tilt_series(data, ANGLES, pixel_size=0.5, units="nm")


def images(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


class TestSlices:
    def test_three_slices_with_bars(self, volume):
        figure = nt.plot_slices(volume, z=8, y=4, x=11, window=(0, 1))
        across, along, beside = (one.get_array() for one in images(figure))
        np.testing.assert_array_equal(across, volume.values[8])
        np.testing.assert_array_equal(along, volume.values[:, 4])
        np.testing.assert_array_equal(beside, volume.values[:, :, 11])
        assert {one.get_clim() for one in images(figure)} == {(0, 1)}
        assert {one.origin for one in images(figure)} == {"lower"}  # y and z go up, as x goes to the right
        titles = [axes.get_title() for axes in figure.axes[:3]]
        assert titles == ["z = 8", "y = 4", "x = 11"]
        assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes[:3]] == [
            ("x", "y"),
            ("x", "z"),
            ("y", "z"),
        ]
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert texts == ["5 nm"] * 3  # within a quarter of 32 nm
        assert figure.axes[-1].get_ylabel() == "intensity"

    def test_the_brightest_matter_is_found(self, volume):
        titles = [axes.get_title() for axes in nt.plot_slices(volume).axes[:3]]
        assert titles == ["z = 7", "y = 5", "x = 8"]

    def test_slabs_are_read_once_and_nothing_else_is_held(self, volume):
        """Each slab is a task of its own; a slice of it is all that stays."""
        read = []

        def slab(block, block_info=None):
            read.append(block_info[0]["array-location"][0])
            return block

        lazy = volume.chunk(z=3)
        lazy = lazy.copy(data=lazy.data.map_blocks(slab, dtype=np.float32, meta=np.empty((0,) * 3, np.float32)))
        with dask.config.set(scheduler="sync"):
            nt.plot_slices(lazy, z=1, y=2, x=3, window=(0, 1))
        assert sorted(read) == [(0, 3), (3, 6), (6, 9), (9, 12)]

    @pytest.mark.parametrize(
        ("view", "match"),
        [
            ({"x": 16}, "plot_slices: needs a slice x from 0 to 15; got 16"),
            ({"window": (2, 2)}, "plot_slices: needs a window from black to white"),
        ],
    )
    def test_a_view_that_does_not_exist(self, volume, view, match):
        with pytest.raises(SchemaError, match=match):
            nt.plot_slices(volume, **view)

    def test_what_is_not_finite_is_refused(self, volume):
        volume[8, 0, 0] = np.nan
        with pytest.raises(SchemaError, match="plot_slices"):
            nt.plot_slices(volume, z=8, y=1, x=1, window=(0, 1))

    def test_notebooks_show_it(self, volume):
        assert nt.plot_slices(volume)._repr_png_().startswith(b"\x89PNG")


class TestSurface:
    def test_it_is_drawn_in_right_handed_axes(self, volume, monkeypatch):
        drawn = []

        class Recorded(figures._Surface):
            def __init__(self, triangles, **arguments):
                drawn.append(triangles)
                super().__init__(triangles, **arguments)

        monkeypatch.setattr(figures, "_Surface", Recorded)
        figure = nt.plot_isosurface(volume, level=2)
        x, y, z = drawn[0].reshape(-1, 3).mean(axis=0)
        # The block's middle, in voxels of a volume with a border of one; y counts from its other end.
        assert (x, y, z) == pytest.approx((10.5 + 1, 15 - 4 + 1, 7.5 + 1), abs=0.2)
        assert figure.axes[0].get_title() == "surface at 2, of 32 × 32 × 24 nm"
        # Triangles turn counterclockwise seen from outside, so that light falls from where the viewer is.
        first, second, third = drawn[0].swapaxes(0, 1)
        normals = np.cross(second - first, third - first)
        outwards = drawn[0].mean(axis=1) - (x, y, z)
        assert abs(np.sign((normals * outwards).sum(axis=1)).sum()) == len(normals)

    def test_into_axes_that_are_there(self, volume):
        figure = plt.figure()
        axes = figure.add_subplot(projection="3d")
        assert nt.plot_isosurface(volume, axes=axes) is figure
        plt.close(figure)


class TestSinogram:
    def test_rows_stand_by_their_angles(self, series):
        figure = nt.plot_sinogram(series, z=2)
        mesh = figure.axes[0].collections[0]
        np.testing.assert_array_equal(mesh.get_array(), series.values[2][[3, 1, 2, 0]])
        edges = mesh.get_coordinates()
        np.testing.assert_allclose(edges[:, 0, 1], [-55, -25, -5, 15, 45])
        np.testing.assert_allclose(edges[0, :, 0], np.arange(11) * 0.5 - 2.5)
        assert figure.axes[0].get_xlabel() == "detector [nm]"
        assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [0]

    def test_where_the_axis_is_elsewhere_or_positions_descend(self, series):
        moved = nt.with_axis_position(series, -3)
        assert not nt.plot_sinogram(moved).axes[0].lines
        mirrored = nt.plot_sinogram(series[..., ::-1], z=0).axes[0].collections[0]
        np.testing.assert_allclose(mirrored.get_coordinates()[0, :, 0], 2.5 - np.arange(11) * 0.5)

    def test_only_its_slab_is_read(self, series):
        def slab(block):
            assert len(block) == 0 or block[0, 0, 0] == series.values[3, 0, 0]
            return block

        lazy = series.chunk(z=1)
        lazy = lazy.copy(data=lazy.data.map_blocks(slab, dtype=np.float32, meta=np.empty((0,) * 3, np.float32)))
        assert isinstance(nt.plot_sinogram(lazy), Figure)

    def test_a_slice_that_does_not_exist(self, series):
        with pytest.raises(SchemaError, match="plot_sinogram: needs a slice z from 0 to 5; got 6"):
            nt.plot_sinogram(series, z=6)


class TestFsc:
    def test_curves_thresholds_and_lengths(self, volume):
        noisy = volume.copy(data=volume.values + np.random.default_rng(3).normal(0, 1, volume.shape).astype("f4"))
        same, other = (nt.fourier_shell_correlation(one, volume) for one in (volume, noisy))
        figure = nt.plot_fsc({"same": same, "noisy": other})
        (axes,) = figure.axes
        np.testing.assert_array_equal(axes.lines[1].get_ydata(), other.values)
        assert axes.get_xlabel() == "spatial frequency [1/nm]"
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        assert texts[0] == "same: <4, <4 nm"  # it never falls; 4 nm is Nyquist's length
        lengths = ", ".join(f"{nt.resolution(other, threshold=one):.3g}" for one in (0.5, 0.143))
        assert texts[1].replace("<", "") == f"noisy: {lengths} nm"
        assert [line.get_ydata()[0] for line in axes.lines[2:]] == [0.5, 0.143]

    def test_one_alone(self, volume):
        (axes,) = nt.plot_fsc(nt.fourier_shell_correlation(volume, volume)).axes
        assert axes.get_legend().get_texts()[0].get_text() == "<4, <4 nm"

    @pytest.mark.parametrize("wrong", [{}, xr.DataArray(np.zeros(3), dims="x"), 3])
    def test_something_else(self, wrong):
        with pytest.raises(SchemaError, match="plot_fsc: needs"):
            nt.plot_fsc(wrong)
