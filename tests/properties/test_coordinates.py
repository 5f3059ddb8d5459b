"""The coordinates say where the tilt axis is and how large a pixel is: crops, shifts, bins, pads and reversed order."""

import dataclasses

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import nntomo_dask as nt
from nntomo_dask.arrays import geometry, labels, schema
from nntomo_dask.networks.nnfbp_layout import InputLayout
from nntomo_dask.reconstruction.method import Method

SIZE, SLICES, INSIDE = 32, 2, 6  # pixels; the specimen lies within so many pixels of the tilt axis
ANGLES = nt.tilt_angles("tem", 15)
HYPOTHESIS = settings(deadline=None, max_examples=8, derandomize=True)
METHODS = {
    "fbp": lambda series: nt.fbp(series, window="ram-lak"),
    "sirt": lambda series: nt.sirt(series, minimum=0, tolerance=1e-4, max_iterations=100),
    "cgls": lambda series: nt.cgls(series, iterations=8),
    "tv": lambda series: nt.tv(series, weight=0.01, tolerance=1e-4),
}


def specimen(shift=0.0, size=SIZE, pixel_size=1.0):
    """A smooth body about the tilt axis, which lies `shift` pixels from the middle of the volume."""
    place = np.arange(size) - (size - 1) / 2 - shift
    z, y, x = np.meshgrid(np.arange(SLICES), place, place, indexing="ij")
    body = np.exp(-((y - 1) ** 2 + (x + 2) ** 2) / 8) * (1 + 0.2 * z)
    volume = nt.volume(body * (np.hypot(y, x) < INSIDE), pixel_size=pixel_size)
    return volume.assign_coords({dim: volume[dim] - shift * pixel_size for dim in ("y", "x")})


@pytest.fixture(scope="module")
def whole():
    return nt.project(specimen(), ANGLES).compute()


@pytest.fixture(scope="module")
def reconstructed(whole):
    return {name: method(whole).compute() for name, method in METHODS.items()}


@pytest.fixture(scope="module")
def six():
    """Projections of six slices."""
    rng = np.random.default_rng(3)
    return nt.tilt_series(rng.random((6, 15, 48), np.float32), ANGLES)


def distance(got, wanted):
    """Root mean square difference within the disc that all projections see, relative to the wanted volume's."""
    inside = geometry.seen_by_all(got.sizes["x"], schema.axis_of(got))
    got, wanted = got.values[:, inside], wanted.values[:, inside]
    return float(np.sqrt(((got - wanted) ** 2).mean() / (wanted**2).mean()))


# FBP: the same filter and the same backprojection of pixels that hold the specimen, and those cut off are zero in the
# projections: they add nothing. Only the length of the transform differs, so rounding of its sums remains, 1e-5.
# SIRT and CGLS: rays that were cut off said that nothing is outside. At the limit of the iterations the volumes would
# be equal; after 100 and 8 iterations they differ by up to 0.02 and 0.13. With the axis half a pixel off it is 0.3.
TOLERANCE = {"fbp": 1e-5, "sirt": 0.05, "cgls": 0.2, "tv": 0.05}


@pytest.mark.parametrize("name", METHODS)
@HYPOTHESIS
@given(first=st.integers(0, 8), last=st.integers(0, 8), z=st.integers(0, SLICES - 1))
def test_a_crop_reconstructs_to_the_crop_of_the_whole(whole, reconstructed, name, first, last, z):
    part = whole.isel(detector=slice(first, SIZE - last), z=slice(z, None))
    got = METHODS[name](part).compute()
    np.testing.assert_array_equal(got.x, part.detector)
    np.testing.assert_array_equal(got.z, part.z)
    assert got.attrs["pixel_size"] == 1
    wanted = reconstructed[name].sel(z=got.z, y=got.y, x=got.x)
    assert distance(got, wanted) < TOLERANCE[name]


@pytest.mark.parametrize("name", METHODS)
@HYPOTHESIS
@given(shift=st.floats(-9, 9), pixel_size=st.sampled_from([0.25, 1.0, 3.7]))
def test_the_axis_is_where_the_coordinate_is_zero(name, shift, pixel_size):
    volume = specimen(shift, pixel_size=pixel_size)
    series = nt.project(volume, ANGLES)
    np.testing.assert_array_equal(series.detector, volume.x)
    got = METHODS[name](series).compute()
    np.testing.assert_allclose(got.x, volume.x)
    centred = METHODS[name](nt.project(specimen(pixel_size=pixel_size), ANGLES)).compute()
    moved = centred.interp(z=got.z, y=got.y, x=got.x, kwargs={"fill_value": 0.0})
    # Linear interpolation of a Gaussian of deviation 2 pixels: its second derivative, up to 1/4 of the maximum, times
    # 1/8 pixel², in both directions: 0.06. The streaks, 0.05, lie on another grid. Half a pixel is 0.25.
    assert distance(got, moved) < 0.15


@pytest.mark.parametrize("name", METHODS)
@HYPOTHESIS
@given(bins=st.sampled_from([2, 3, 4]), z_bins=st.sampled_from([1, 2]), first=st.integers(0, 4))
def test_binned_pixels_give_the_values_of_binned_voxels(whole, name, bins, z_bins, first):
    part = whole.isel(detector=slice(first, first + 28 // bins * bins))
    binned = part.coarsen(detector=bins, z=z_bins).mean()
    got = METHODS[name](binned).compute()
    assert got.attrs["pixel_size"] == bins
    np.testing.assert_array_equal(got.x, binned.detector)
    np.testing.assert_array_equal(got.z, binned.z)
    places = part.detector.values
    wanted = specimen().sel(y=places, x=places).coarsen(z=z_bins, y=bins, x=bins).mean()
    # A wrong unit of length is a factor of 2 at least. FBP of ±70° has 10 % too much mass in such a square and, as its
    # voxels become as wide as the body, up to 30 % less at its maximum.
    assert float(got.sum()) == pytest.approx(float(wanted.sum()), rel=0.15)
    assert float(got.max()) == pytest.approx(float(wanted.max()), rel=0.35)


@HYPOTHESIS
@given(bins=st.sampled_from([1, 2, 3]), first=st.integers(0, 8))
def test_a_file_has_the_lengths_the_places_and_the_values(tmp_path_factory, six, bins, first):
    folder = tmp_path_factory.mktemp("file")
    in_nm = nt.tilt_series(six.data, six.angle, pixel_size=0.5, units="nm")
    part = in_nm.isel(detector=slice(first, first + 24)).coarsen(detector=bins, z=2).mean()
    volume = nt.fbp(part).compute()
    nt.write_mrc(volume, folder / "volume.mrc")
    with mrcfile.open(folder / "volume.mrc") as mrc:
        assert float(mrc.voxel_size.x) == pytest.approx(5 * bins)
        assert float(mrc.voxel_size.z) == pytest.approx(10)
    again = nt.read_mrc_volume(folder / "volume.mrc")
    np.testing.assert_array_equal(again.values, volume.values)
    for dim in ("z", "y", "x"):  # headers hold single precision
        np.testing.assert_allclose(again[dim], volume[dim], rtol=1e-6, atol=1e-5)
    nt.write_mrc(part, folder / "series.mrc")
    series = nt.read_mrc_series(folder / "series.mrc", part.angle.values)
    np.testing.assert_allclose(series.detector, part.detector, rtol=1e-6, atol=1e-5)
    # Its line integrals are counted in the file's pixels, so its reconstruction has the same values.
    np.testing.assert_allclose(nt.fbp(series).values, volume.values, rtol=1e-4, atol=1e-5)


def test_a_reversed_detector_is_the_same_series(whole, reconstructed):
    for name, method in METHODS.items():
        got = method(whole.isel(detector=slice(None, None, -1))).sortby(["y", "x"])
        # Sums run the other way: rounding, carried on by iterations. Total variation takes differences to the next
        # voxel, which is now the one before.
        tolerance = 0.05 if name == "tv" else 1e-4
        largest = float(reconstructed[name].max())
        np.testing.assert_allclose(got.values, reconstructed[name].values, atol=tolerance * largest)


@pytest.mark.parametrize("dims", [("y",), ("x",), ("y", "x")])
def test_a_reversed_volume_is_the_same_volume(whole, dims):
    volume = specimen().isel({dim: slice(None, None, -1) for dim in dims})
    series = nt.project(volume, ANGLES).sortby("detector")
    np.testing.assert_allclose(series.values, whole.values, atol=1e-5 * float(whole.max()))


def test_padded_pixels_need_places(whole):
    padded = whole.pad(detector=(0, 6), constant_values=0)
    with pytest.raises(nt.SchemaError, match=r'coordinate "detector" has equal steps; got nan at index 32'):
        nt.fbp(padded)
    placed = padded.assign_coords(detector=whole.detector.values[0] + np.arange(38.0))
    got = nt.fbp(placed).compute()
    wanted = nt.fbp(whole).compute()
    assert distance(got.sel(y=wanted.y, x=wanted.x), wanted) < TOLERANCE["fbp"]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([0, 1, 2, 4], "steps from 1 to 2"),
        ([0, 1, 1, 2], "the position 1 more than once"),
        ([2, 2, 2, 2], "the position 2 more than once"),
        ([0, 1, np.inf, 3], "inf at index 2"),
        (list("abcd"), "values of <U1"),
    ],
)
@pytest.mark.parametrize("dim", ["detector", "x", "y"])
def test_places_that_are_no_grid_are_refused(places, message, dim):
    if dim == "detector":
        array = nt.tilt_series(np.ones((1, 3, 4)), [0, 1, 2]).assign_coords(detector=places)
        operations = [nt.fbp, nt.sirt, nt.backproject, nt.complete_wedge, nt.intensity_level, lambda s: nt.resize(s, 2)]
    else:
        array = nt.volume(np.ones((1, 4, 4))).assign_coords({dim: places})
        operations = [lambda volume: nt.project(volume, [0, 1]), nt.normalize, lambda volume: nt.mse(volume, volume)]
    for operation in operations:
        with pytest.raises(nt.SchemaError, match=message):
            operation(array)


def test_slices_at_unequal_steps_are_refused_where_several_are_looked_at(tmp_path, six):
    some = six.isel(z=[0, 1, 4])
    np.testing.assert_array_equal(nt.fbp(some).values, nt.fbp(six).isel(z=[0, 1, 4]).values)
    volume = nt.fbp(some).compute()
    for operation in (
        lambda: nt.resize(some, 12),
        lambda: nt.fourier_shell_correlation(volume, volume),
        lambda: nt.write_mrc(volume, tmp_path / "v.mrc"),
        lambda: nt.noise2inverse_slices(some),
    ):
        with pytest.raises(nt.SchemaError, match='coordinate "z" has equal steps; got steps from 1 to 3'):
            operation()
    with pytest.raises(nt.SchemaError, match='coordinate "z" has finite positions; got nan at index 1'):
        nt.fbp(six.assign_coords(z=[0, np.nan, 2, 3, 4, 5]))


def test_pixels_that_are_not_square_are_refused():
    volume = nt.volume(np.ones((2, 4, 8), np.float32)[:, :, :4]).assign_coords(x=np.arange(4) * 2.0)
    with pytest.raises(nt.SchemaError, match="needs square pixels"):
        nt.project(volume, [0, 10])


def test_units_set_without_coordinates_are_refused():
    series = nt.tilt_series(np.ones((1, 3, 4)), [0, 1, 2]).assign_attrs(units="nm", pixel_size=0.7)
    with pytest.raises(nt.SchemaError, match="needs a tilt series with one unit"):
        nt.fbp(series)


def test_y_lies_about_zero_where_the_axis_is_beyond_the_detector(whole):
    part = whole.isel(detector=slice(18, 32))  # 2.5 … 15.5: on one side of the axis
    got = nt.fbp(part)
    np.testing.assert_array_equal(got.x, part.detector)
    np.testing.assert_array_equal(got.y, np.arange(14) - 6.5)
    wanted = nt.fbp(whole).sel(y=got.y, x=got.x)
    assert np.isin(got.y, whole.detector).all()
    assert wanted.shape == got.shape


def test_resize_keeps_the_field_of_view_and_the_axis(six):
    whole = six
    part = whole.isel(detector=slice(0, 40))
    small = nt.resize(part, 20)
    np.testing.assert_allclose(small.detector, part.detector.values.reshape(20, 2).mean(axis=1))
    np.testing.assert_allclose(small.z, whole.z.values.reshape(3, 2).mean(axis=1))
    assert small.attrs["pixel_size"] == 2
    odd = nt.resize(whole, 36)  # 6 slices become 4 and not 4.5
    np.testing.assert_allclose(odd.z, (np.arange(4) - 1.5) * 1.5)
    binned = part.coarsen(detector=2).mean()
    assert nt.resize(binned, 10).attrs["pixel_size"] == 4
    # The same from either but for two interpolations instead of one: lengths are counted in pixels of 4.
    total = float(nt.resize(part, 10).sum("detector").mean())
    assert float(nt.resize(binned, 10).sum("detector").mean()) == pytest.approx(total, rel=0.01)


def test_volumes_at_other_places_are_not_compared():
    volume = specimen().compute()
    moved = volume.isel(x=slice(1, None), y=slice(1, None))
    for metric in (nt.mse, nt.psnr, nt.ssim, nt.dice, nt.fourier_shell_correlation):
        with pytest.raises(nt.SchemaError, match='needs two volumes with the same coordinate "y"'):
            metric(volume.isel(x=slice(0, -1), y=slice(0, -1)), moved)
        with pytest.raises(nt.SchemaError, match='the same coordinate "z"'):
            metric(volume.isel(z=slice(0, 1)), volume.isel(z=slice(1, 2)))
    in_nm = nt.volume(volume.data, pixel_size=0.3, units="nm")
    assert float(nt.mse(in_nm, volume)) == 0
    with pytest.raises(nt.SchemaError, match='the same coordinate "z"'):
        nt.mse(in_nm, nt.volume(volume.data, pixel_size=0.6, units="nm"))


def test_the_disc_lies_about_the_axis():
    volume = nt.volume(np.zeros((1, 9, 9), np.float32)).assign_coords(x=np.arange(9) - 2.0, y=np.arange(9) - 5.0)
    reference = volume.copy(data=np.asarray((np.hypot(volume.y, volume.x) <= 2).values[None], np.float32))
    assert float(nt.mse(volume, reference, region="disc")) == 1
    away = volume.assign_coords(x=volume.x + 20)
    with pytest.raises(nt.SchemaError, match="with the tilt axis"):
        nt.mse(away, away, region="disc")


def test_the_shells_of_a_volume_whose_slices_are_farther_apart(rng):
    """A cosine along y is on one shell, whatever the step of z."""
    volume = nt.volume(rng.standard_normal((8, 16, 16)))
    thick = volume.coarsen(z=2).mean()
    correlation = nt.fourier_shell_correlation(thick, thick)
    np.testing.assert_allclose(correlation.frequency, np.arange(correlation.size) / 16)
    assert correlation.frequency[-1] == 0.25  # Nyquist's of steps of 2
    wave = thick.copy(
        data=np.broadcast_to(np.cos(2 * np.pi * 3 * np.arange(16) / 16)[:, None], thick.shape).astype("f4")
    )
    noise = thick.copy(data=np.roll(wave.values, 1, axis=2))
    values = nt.fourier_shell_correlation(wave, noise).values
    assert values[3] == pytest.approx(1, abs=1e-5)


def test_pairs_for_training_lie_on_one_grid(whole):
    volume, part = specimen(), whole.isel(detector=slice(4, 32))
    places = part.detector.values
    assert nt.training_samples(part, volume.sel(y=places, x=places), n_samples=9).compute().sizes["voxel"] == 9
    for make in (nt.training_slices, lambda *pair: nt.training_samples(*pair, n_samples=9)):
        with pytest.raises(nt.SchemaError, match="the same coordinate"):
            make(part, volume.isel(x=slice(0, 28), y=slice(0, 28)))
    beyond = whole.isel(detector=slice(18, 32))
    with pytest.raises(nt.SchemaError, match="with the tilt axis on the detector"):
        nt.training_samples(beyond, nt.fbp(beyond), n_samples=9)


@pytest.mark.parametrize("wedge", ["keep", "complete"])
def test_samples_of_an_off_axis_series_are_those_of_the_whole(whole, wedge):
    """Inputs of NN-FBP are sums over filters about a place: the same at a place, wherever the detector ends."""
    part = whole.isel(detector=slice(4, 32))
    full, cut = (InputLayout(tuple(ANGLES), one.sizes["detector"], wedge=wedge) for one in (whole, part))
    voxels = np.array([[1, 16, 14], [0, 19, 12], [1, 13, 17]])
    bins = cut.edges.size - 2  # the last bin ends where the detector does
    wanted = full.inputs(whole.values, voxels)
    got = cut.inputs(part.values, voxels - [0, 4, 4], schema.axis_of(part))
    groups = 2 if wedge == "complete" else 1
    assert wanted.shape[1] == groups * (full.edges.size - 1)
    for group in range(groups):
        first, other = group * (full.edges.size - 1), group * (cut.edges.size - 1)
        # The same sums of float64, rounded to float32.
        np.testing.assert_allclose(
            got[:, other : other + bins], wanted[:, first : first + bins], rtol=1e-5, atol=1e-5 * wanted.max()
        )


def test_networks_reconstruct_an_off_axis_series(trained):
    network = trained[0]
    angles = nt.tilt_angles("tem", 8)
    body = nt.nanoparticle((2, 32, 32), seed=3).pad(y=12, x=12, constant_values=0)
    wide = nt.volume(body.data.rechunk((-1, -1, -1)))  # 56 pixels, empty at the border
    series = nt.project(wide, angles).compute()
    centred = series.isel(detector=slice(4, 52))
    for first in (2, 7):
        part = series.isel(detector=slice(first, first + 48))
        got = nt.nnfbp(part, network, scale=1).compute()
        wanted = nt.nnfbp(centred, network, scale=1).compute()
        common = {"y": slice(-16, 16), "x": slice(-16, 16)}
        # The widest bin, up to half the detector, sees the whole body at every voxel of it only if centred alike.
        assert distance(got.sel(common), wanted.sel(common)) < 0.02
        assert float(nt.intensity_level(part)) == pytest.approx(float(nt.intensity_level(centred)), rel=0.02)


def test_a_method_that_takes_no_axis_gets_none(whole):
    class Plain(Method):
        name = "plain"
        title = "plain"

        def slab(self, rows, angles_deg, *prepared):
            return np.zeros((len(rows), rows.shape[-1], rows.shape[-1]), np.float32)

        def host_bytes(self, shape):
            return 1

    plain = dataclasses.dataclass(frozen=True)(Plain)()
    assert nt.reconstruct(whole, plain).shape == (2, 32, 32)
    with pytest.raises(nt.SchemaError, match=r"in the middle of the detector; got it at pixel 13\.5"):
        nt.reconstruct(whole.isel(detector=slice(2, 32)), plain)
    with pytest.raises(nt.SchemaError, match='try: engine="native"'):
        nt.fbp(whole.isel(detector=slice(2, 32)), engine="astra")


def test_plots_have_names_and_units(whole):
    volume = nt.fbp(whole)
    assert [volume[dim].attrs["units"] for dim in volume.dims] == ["px"] * 3
    assert whole.angle.attrs == {"long_name": "tilt angle", "units": "degrees"}
    assert whole.detector.attrs["long_name"] == "detector"


@pytest.mark.parametrize(
    ("make", "label"),
    [
        (lambda series: series, "line integral; lengths in [px]"),
        (lambda series: nt.fbp(series), "intensity; lengths in [px]"),
        (lambda series: nt.normalize(nt.fbp(series)), "intensity; lengths in [px]"),
        (lambda series: nt.resize(series, 16), "line integral; lengths in [px]"),
        (lambda series: nt.fbp(series.assign_attrs(long_name="counts")), "counts; lengths in [px]"),
        (lambda series: nt.volume(np.ones((2, 4, 4)), pixel_size=0.5, units="nm"), "intensity; lengths in [nm]"),
    ],
)
def test_the_colour_bar_says_what_the_units_are_of(whole, make, label):
    """Units are those of lengths; xarray writes them behind the name of the values."""
    pytest.importorskip("matplotlib").use("Agg")
    drawn = make(whole)[0].plot.imshow()
    assert drawn.colorbar.ax.get_ylabel() == label
    drawn.figure.clear()


def test_the_name_of_the_values_is_stored_once(whole, tmp_path):
    named = nt.fbp(whole.assign_attrs(long_name="counts"))
    again = nt.fbp(nt.project(nt.save(named, tmp_path / "a.zarr"), [0, 30, 60]))
    assert again.attrs["long_name"] == "counts; lengths in"
    assert labels.values_name(again) == "counts"
