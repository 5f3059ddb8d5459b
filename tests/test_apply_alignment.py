"""Alignments applied: against the formula, whatever the chunks, also to other channels, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import nntomo_dask as nt
from nntomo_dask.alignment.apply import host_bytes, rows_for, seen
from nntomo_dask.arrays import recipes
from nntomo_dask.kernels import bands, warp

ANGLES = np.array([-60.0, 0.0, 31.0, 10.0])


@pytest.fixture
def raw(rng):
    return nt.tilt_series(rng.standard_normal((30, 4, 27)).astype(np.float32), ANGLES)


@pytest.fixture
def table(rng):
    return nt.Alignment.identity(
        ANGLES,
        along_px=rng.uniform(-5, 5, 4),
        across_px=rng.uniform(-5, 5, 4),
        rotation_deg=rng.uniform(-8, 8, 4),
        axis_px=2.5,
    )


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 24)),
    rows=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    shift=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    turn=st.floats(-180, 180),
    fill=st.sampled_from([None, 0.0, -3.5]),
)
def test_a_band_equals_the_whole_image(shape, rows, shift, turn, fill):
    """Against SciPy's interpolation of whole images; and the bytes do not depend on the band."""
    lines = shape[0]
    start = min(int(rows[0] * lines), lines - 1)
    stop = min(start + 1 + int(rows[1] * lines), lines)
    images = np.random.default_rng(5).standard_normal((1, *shape)).astype(np.float32)
    shifts, turns = np.array([shift]), np.array([turn])
    needed = bands.lines_needed((start, stop), shape, shifts, turns)
    flat = np.ascontiguousarray(images.transpose(1, 0, 2))
    found = bands.warped(flat[needed.start : needed.stop], needed.start, lines, (start, stop), shifts, turns, fill)
    whole = bands.warped(flat, 0, lines, (0, lines), shifts, turns, fill)
    np.testing.assert_array_equal(found, whole[start:stop])
    expected = bands.warped_reference(images, (start, stop), shifts, turns, fill).transpose(1, 0, 2)
    # Coefficients are up to 6 times the pixels, in float32, and sums over 29 neighbours leave out 2e-8 of them.
    close = np.isclose(found, expected, rtol=0, atol=2e-5)
    if fill is not None:  # at the very edge rounding decides on which side a place is
        edge = bands.warped_reference(images, (start, stop), shifts, turns).transpose(1, 0, 2)
        close |= np.isclose(found, edge, rtol=0, atol=2e-5) | (found == np.float32(fill))
    assert close.all()


def test_it_follows_the_formula(raw, table):
    aligned = nt.apply_alignment(raw, table)
    along, across = np.arange(30) - 14.5, np.arange(27) - 13.0
    splines = warp.coefficients(raw.values.transpose(1, 0, 2))
    for row in range(4):
        cos, sin = np.cos(np.deg2rad(table.rotation_deg[row])), np.sin(np.deg2rad(table.rotation_deg[row]))
        a = along[:, None] + table.along_px[row]
        c = across[None, :] + table.across_px[row] + table.axis_px
        places = 14.5 + a * cos - c * sin, 13.0 + a * sin + c * cos
        from scipy import ndimage

        clipped = [np.clip(place, 0, size - 1) for place, size in zip(places, (30, 27), strict=True)]
        expected = ndimage.map_coordinates(splines[row].astype(float), clipped, order=3, mode="mirror", prefilter=False)
        np.testing.assert_allclose(aligned.values[:, row], expected, atol=2e-5)
    np.testing.assert_array_equal(aligned["detector"], across)
    assert aligned.attrs["pixel_size"] == 1


@pytest.mark.parametrize("chunks", [1, 7, (3, 20, 7), 30])
@pytest.mark.parametrize("crop", ["none", "seen", (12, 9)])
def test_chunks_change_no_byte(raw, table, chunks, crop):
    expected = nt.apply_alignment(raw.chunk(z=30), table, crop=crop).values
    np.testing.assert_array_equal(nt.apply_alignment(raw.chunk(z=chunks), table, crop=crop).values, expected)


def test_nothing_is_computed_before_it_is_asked_for(raw, table, nothing_computes):
    lazy = nt.apply_alignment(raw.chunk(z=5), table, crop="seen")
    assert lazy.chunks is not None


def test_the_order_of_projections_plays_no_part(raw, table):
    order = [2, 0, 3, 1]
    other = nt.apply_alignment(raw.isel(angle=order), table)
    np.testing.assert_array_equal(other.values, nt.apply_alignment(raw, table).values[:, order])


def test_two_alignments_in_one_interpolation(table):
    """A smooth body, so that interpolating twice is not much worse than once."""
    along, across = np.meshgrid(np.arange(60) - 29.5, np.arange(60) - 29.5, indexing="ij")
    blob = np.exp(-((along - 4) ** 2 + (across + 3) ** 2) / 40).astype(np.float32)
    raw = nt.tilt_series(np.repeat(blob[:, None], 4, axis=1), ANGLES)
    second = nt.Alignment.identity(ANGLES, along_px=[1, -2.3, 0.4, 2], rotation_deg=[3, -3, 1, 0], axis_px=-1.2)
    twice = nt.apply_alignment(nt.apply_alignment(raw, table), second)
    once = nt.apply_alignment(raw, table.then(second))
    # Cubic splines are wrong by about (π/(w·2))⁴/40 of a body of width w = √20 px, a few thousandths; edges are far.
    np.testing.assert_allclose(once.values, twice.values, atol=2e-3)
    back = nt.apply_alignment(once, table.then(second).inverse())
    np.testing.assert_allclose(back.values, raw.values, atol=4e-3)


def test_flagged_projections_are_left_out_and_angles_corrected(raw, table):
    edited = table.edited(31.0, flagged=True).edited([0.0], correction_deg=0.75)
    aligned = nt.apply_alignment(raw, edited)
    np.testing.assert_array_equal(aligned["angle"], [-60, 0.75, 10])
    np.testing.assert_array_equal(aligned.values, nt.apply_alignment(raw, table).values[:, [0, 1, 3]])
    np.testing.assert_array_equal(nt.apply_alignment(raw, edited, angles="nominal")["angle"], [-60, 0, 10])
    fewer = nt.apply_alignment(raw.isel(angle=[3, 0]), table)
    np.testing.assert_array_equal(fewer.values, nt.apply_alignment(raw, table).values[:, [3, 0]])


def test_other_coordinates_and_attributes_stay(raw, table):
    said = raw.assign_coords(order=("angle", np.arange(4))).assign_attrs(tilt_axis_deg=3.0, voltage_kv=200.0)
    aligned = nt.apply_alignment(said, table.edited(31.0, flagged=True))
    np.testing.assert_array_equal(aligned["order"], [0, 1, 3])
    assert (aligned.attrs["tilt_axis_deg"], aligned.attrs["voltage_kv"]) == (0, 200)


def test_other_channels_may_have_other_pixels(rng):
    """A map whose pixels are twice as large moves by half as many, and lies where the fine one does."""
    fine = nt.tilt_series(np.zeros((40, 4, 48), np.float32), ANGLES, pixel_size=0.5, units="nm")
    fine[20:22, :, 30:32] = 1
    coarse = nt.tilt_series(fine.values.reshape(20, 2, 4, 24, 2).mean(axis=(1, 4)), ANGLES, pixel_size=1.0, units="nm")
    table = nt.Alignment.identity(ANGLES, along_px=np.full(4, 4.0), axis_px=-6.0, pixel_size=0.5, units="nm")
    places = [
        np.unravel_index(nt.apply_alignment(one, table).values[:, 1].argmax(), (one.shape[0], one.shape[2]))
        for one in (fine, coarse)
    ]
    assert places == [(16, 36), (8, 18)]
    unknown = nt.Alignment.identity(ANGLES, along_px=np.full(4, 4.0), axis_px=-6.0)
    np.testing.assert_array_equal(
        nt.apply_alignment(coarse, unknown, scale=0.5).values, nt.apply_alignment(coarse, table).values
    )


def test_nothing_wraps_around_and_the_outside_is_filled():
    values = np.ones((20, 4, 20), np.float32)
    values[:, :, :3] = 9
    series = nt.tilt_series(values, ANGLES)
    table = nt.Alignment.identity(ANGLES, across_px=np.full(4, 5.0))
    edge = nt.apply_alignment(series, table).values
    np.testing.assert_allclose(edge[:, :, 5:], 1, atol=1e-5)  # the bright columns left at the other side
    filled = nt.apply_alignment(series, table, fill=-2.0).values
    np.testing.assert_array_equal(filled[:, :, 15:], -2)
    np.testing.assert_array_equal(filled[:, :, :15], edge[:, :, :15])


@pytest.mark.parametrize("turn", [0.0, 4.0, -30.0])
def test_the_part_that_all_have_seen(raw, turn):
    table = nt.Alignment.identity(
        ANGLES, along_px=[3, -2, 0, 0.5], across_px=[0, 4.25, -1, 0], rotation_deg=np.full(4, turn)
    )
    size = seen(rows_for(raw, table), (30, 27))
    cropped = nt.apply_alignment(raw, table, crop="seen", fill=1e6)
    assert (cropped.sizes["z"], cropped.sizes["detector"]) == size
    assert cropped.values.max() < 1e5
    assert cropped["z"].values.mean() == pytest.approx(0) and cropped["detector"].values.mean() == pytest.approx(0)  # noqa: PT018
    for more in ((size[0] + 2, size[1]), (size[0], size[1] + 2)):  # no larger one, by either side
        if more[0] <= 30 and more[1] <= 27:
            assert nt.apply_alignment(raw, table, crop=more, fill=1e6).values.max() > 1e5


def test_its_recipe_holds_the_alignment(raw, table):
    from nntomo_dask.alignment.apply import of_recipe

    aligned = nt.apply_alignment(raw, table, fill=2.0, crop=(12, 9))
    recipe = recipes.recipe_of(aligned)
    read, chosen = of_recipe(recipe)
    assert chosen == {"fill": 2.0, "crop": (12, 9), "angles": "corrected"}
    assert read.digest() == rows_for(raw, table).digest()
    with pytest.raises(nt.SchemaError, match="damaged"):
        of_recipe({**recipe, "parameters": {}})


def test_values_that_are_not_finite_are_refused(raw, table):
    bad = raw.copy()
    bad[17, 2, 3] = np.nan
    with pytest.raises(nt.SchemaError, match="nan at index z=17, angle=2, detector=3"):
        nt.apply_alignment(bad.chunk(z=6), table).compute()
    nt.apply_alignment(bad.chunk(z=6), table.edited(31.0, flagged=True)).compute()


@pytest.mark.parametrize(
    ("change", "options", "text"),
    [
        ({"along_px": [0, 30.0, 0, 0]}, {}, "shifts within the images, 30 × 27 pixels; got 30 along"),
        ({"axis_px": -27.0}, {}, "-27 across, with the axis, at -60°"),
        ({"flagged": [True, True, True, False]}, {}, "2 projections or more; got 1 of 4"),
        ({"correction_deg": [0, 0, 0, -10.0]}, {}, "every angle once; got 0 more than once"),
        ({"angles_deg": ANGLES + 1}, {}, "none for -60°, 0°, 31°, 10°; its 4 rows are from -59°"),
        ({}, {"crop": (31, 5)}, "crop of z to at most 30"),
        ({}, {"crop": (11, 5)}, r"got 11; try: crop=\(10, 5\)"),
        ({}, {"crop": "much"}, '"none", "seen"'),
        ({}, {"fill": np.nan}, '"edge", or a finite number'),
        ({}, {"angles": "all"}, '"corrected" or "nominal"'),
        ({}, {"scale": 0.0}, "a scale above zero"),
        ({"across_px": [20, -20, 0, 0]}, {"crop": "seen"}, "a part of the images that all projections show"),
    ],
)
def test_what_cannot_be_applied_is_refused(raw, change, options, text):
    change = {name: np.array(value) if isinstance(value, list) else value for name, value in change.items()}
    with pytest.raises(nt.SchemaError, match=text):
        nt.apply_alignment(raw, nt.Alignment.identity(**{"angles_deg": ANGLES, **change}), **options)


def test_pixels_that_are_not_square_are_not_turned(raw, table):
    stretched = raw.assign_coords(z=raw["z"] * 2)
    with pytest.raises(nt.SchemaError, match="square pixels, to turn images; got 2 along and 1 across"):
        nt.apply_alignment(stretched, table)
    upright = nt.Alignment.identity(ANGLES, along_px=table.along_px)
    np.testing.assert_array_equal(
        nt.apply_alignment(stretched, upright).values, nt.apply_alignment(raw, upright).values
    )


def test_memory_grows_with_the_band(raw, table):
    rows = rows_for(raw, table)
    still = rows_for(raw, nt.Alignment.identity(ANGLES))
    chunked, shape = raw.chunk(z=2), (4, 4, 27)
    assert host_bytes(chunked, rows)(shape) >= host_bytes(chunked, still)(shape)
    flagged = rows_for(raw, table.edited(31.0, flagged=True))
    assert host_bytes(chunked, flagged)(shape) < host_bytes(chunked, rows)(shape)
