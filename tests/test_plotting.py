import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.plotting import figures as plotting


def test_training_curve_draws_both_losses(tmp_path):
    losses = np.array([[0.3, 0.4], [0.2, 0.25], [0.1, 0.2]])
    figure = plotting.training_curve(losses)
    (axes,) = figure.axes
    np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], losses.T)
    assert plotting.save_figure(figure, tmp_path / "folder" / "losses.png").stat().st_size > 5000


def test_otsu_level_lies_between_two_greys():
    assert 0 < plotting.otsu_level(nt.nanoparticle(32)) < 1
    assert plotting.otsu_level(nt.volume(np.full((4, 8, 8), 3.0))) == 3


def test_a_series_is_no_volume_to_draw(series):
    with pytest.raises(nt.SchemaError, match="compare_volumes: needs a volume; got a tilt series"):
        plotting.compare_volumes({"series": series})
