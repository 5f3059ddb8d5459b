import dask
import numpy as np
import pytest
from skimage.filters import threshold_otsu

import nntomo_dask as nt
from nntomo_dask.plotting import figures, figures as plotting, grey


def test_training_curve_draws_both_losses(tmp_path):
    losses = np.array([[0.3, 0.4], [0.2, 0.25], [0.1, 0.2]])
    figure = plotting.training_curve(losses)
    (axes,) = figure.axes
    np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], losses.T)
    assert plotting.save_figure(figure, tmp_path / "folder" / "losses.png").stat().st_size > 5000


def test_otsu_level_is_midway_between_two_greys():
    assert plotting.otsu_level(nt.nanoparticle(32)) == pytest.approx(0.5, abs=1e-3)
    assert plotting.otsu_level(nt.volume(np.full((4, 8, 8), 3.0))) == 3


def test_otsu_is_that_of_scikit_image(rng):
    values = np.concatenate([rng.normal(0, 1, 5000), rng.normal(5, 1, 500)])
    counts, edges = np.histogram(values, 200)
    centres = (edges[1:] + edges[:-1]) / 2
    assert grey.otsu(counts, centres) == pytest.approx(threshold_otsu(hist=(counts, centres)), abs=edges[1] - edges[0])


@pytest.fixture
def lattice():
    """Dim everywhere in the middle, bright only in slices away from it, in 0.2 % of the voxels, with one outlier."""
    data = np.zeros((40, 40, 40), np.float32)
    data[18:22, 18:22] = 0.1
    for z, y in ((8, 30), (30, 10)):
        data[z : z + 2, y : y + 2, 4:36] = 2
    data[0, 0, 0] = 50
    return nt.volume(data)


class TestGrey:
    def test_the_whole_volume_decides(self, lattice):
        """Two slices through the middle would give 0.1 as the brightest value."""
        found = grey.grey_of(lattice)
        assert found.window == (0, pytest.approx(2, abs=50 / 4096))
        assert found.level == pytest.approx(1, abs=0.06)
        assert found.z in (8, 9, 30, 31)
        assert found.y in (10, 11, 30, 31)

    def test_chunks_change_nothing(self, lattice):
        assert grey.grey_of(lattice.chunk(z=7)) == grey.grey_of(lattice.chunk(z=40)) == grey.grey_of(lattice)

    def test_matter_that_is_rarer_than_the_share_is_seen(self):
        data = np.zeros((40, 40, 40), np.float32)
        data[5, 6, 7] = 1
        found = grey.grey_of(nt.volume(data))
        assert found.window[1] == 1
        assert (found.z, found.y) == (5, 6)


class TestFigure:
    def test_it_has_bars_for_grey_and_length(self, lattice):
        volumes = {"a": nt.volume(lattice.values, pixel_size=0.5, units="nm"), "b": lattice * 2}
        figure = plotting.compare_volumes(volumes, captions={"b": "error 1"}, reference="a")
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert texts.count("5 nm") == 2  # a quarter of 20 nm
        assert any(text.startswith("surface at") for text in texts)
        images = [axes.images[0] for axes in figure.axes if axes.images]
        assert len({image.get_clim() for image in images}) == 1
        assert figure.axes[-1].get_ylabel() == "intensity"
        labels = [axes.get_ylabel() for axes in figure.axes]
        assert sum(label.startswith("across the tilt axis, z = ") for label in labels) == 1

    def test_the_view_can_be_given(self, lattice, nothing_computes):
        with dask.config.set(scheduler="sync"):
            figure = plotting.compare_volumes({"a": lattice}, level=0.05, window=(0, 0.1), z=20, y=21)
        across, along = (axes.images[0] for axes in figure.axes if axes.images)
        np.testing.assert_array_equal(across.get_array(), lattice.values[20])
        np.testing.assert_array_equal(along.get_array(), lattice.values[:, 21])
        assert across.get_clim() == (0, 0.1)
        assert any(text.get_text() == "surface at 0.05" for axes in figure.axes for text in axes.texts)

    def test_a_label_says_what_the_values_are(self, lattice):
        named = lattice.assign_attrs(long_name="HAADF intensity", quantity="share of the beam")
        figure = plotting.compare_volumes({"a": named})
        assert figure.axes[-1].get_ylabel() == "HAADF intensity (share of the beam, per voxel)"

    def test_noise_is_drawn_with_few_triangles(self, rng):
        noise = nt.volume(rng.normal(size=(96, 96, 96)).astype(np.float32))
        figure = plotting.compare_volumes({"noise": noise})
        (surface,) = next(axes for axes in figure.axes if axes.name == "3d").collections
        assert 0 < len(surface._facecolor3d) <= figures._TRIANGLES

    @pytest.mark.parametrize(
        ("view", "match"),
        [
            ({"z": 40}, "needs a slice z from 0 to 39; got 40"),
            ({"y": -1}, "needs a slice y from 0 to 39; got -1"),
            ({"window": (1, 0)}, r"needs a window from black to white; got \(1, 0\)"),
        ],
    )
    def test_a_view_that_does_not_exist(self, lattice, view, match):
        with pytest.raises(nt.SchemaError, match=match):
            plotting.compare_volumes({"a": lattice}, **view)


def test_a_series_is_no_volume_to_draw(series):
    with pytest.raises(nt.SchemaError, match="compare_volumes: needs a volume; got a tilt series"):
        plotting.compare_volumes({"series": series})
