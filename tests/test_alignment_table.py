"""Tables of alignments: composing, inverting, scaling and editing them, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import nntomo_dask as nt

ANGLES = np.array([10.0, -60.0, -20.5, 45.0])


def turn(degrees):
    """R(φ) of the formula, for (along, across)."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def read_at(alignment, row, place):
    """Where the pixel `place` of an aligned image is read in the raw one, by the formula of `Alignment`."""
    shift = np.array([alignment.along_px[row], alignment.across_px[row] + alignment.axis_px])
    return turn(alignment.rotation_deg[row]) @ (np.asarray(place) + shift)


@st.composite
def alignments(draw, angles=ANGLES):
    """Alignments without flags, of images of some hundred pixels."""
    count, number = len(angles), st.floats(-200, 200)
    column = lambda values: np.array(draw(st.lists(values, min_size=count, max_size=count)))  # noqa: E731
    return nt.Alignment(
        angles_deg=angles,
        along_px=column(number),
        across_px=column(number),
        rotation_deg=column(st.floats(-180, 180)),
        correction_deg=column(st.floats(-0.5, 0.5)),
        flagged=np.zeros(count, bool),
        axis_px=draw(number),
    )


# Places of some hundred pixels, and a few products of float64: rounding is below 1e-12 of them.
CLOSE = {"rtol": 0, "atol": 1e-9}


@settings(max_examples=50, deadline=None)
@given(st.data(), st.tuples(st.floats(-300, 300), st.floats(-300, 300)))
def test_a_composition_reads_where_one_after_the_other_does(data, place):
    first = data.draw(alignments())
    second = data.draw(alignments(first.corrected_deg))
    both = first.then(second)
    for row in range(len(ANGLES)):
        np.testing.assert_allclose(read_at(both, row, place), read_at(first, row, read_at(second, row, place)), **CLOSE)
    np.testing.assert_allclose(both.corrected_deg, second.corrected_deg, **CLOSE)
    np.testing.assert_array_equal(both.angles_deg, ANGLES)
    assert both.axis_px == first.axis_px + second.axis_px


@settings(max_examples=50, deadline=None)
@given(alignments(), st.tuples(st.floats(-300, 300), st.floats(-300, 300)))
def test_the_inverse_takes_images_back(alignment, place):
    inverse = alignment.inverse()
    for row in range(len(ANGLES)):
        np.testing.assert_allclose(read_at(alignment, row, read_at(inverse, row, place)), place, **CLOSE)
    nothing = alignment.then(inverse)
    np.testing.assert_allclose(nothing.displacement_px, 0, **CLOSE)
    np.testing.assert_allclose(nothing.corrected_deg, ANGLES, **CLOSE)
    np.testing.assert_allclose(inverse.inverse().displacement_px, alignment.displacement_px, **CLOSE)


def test_compositions_can_be_grouped_in_any_way():
    one, two, three = (
        nt.Alignment.identity(ANGLES, along_px=[1, 2, 3, 4], rotation_deg=[5 * k, 1, 0, -k], axis_px=k)
        for k in (1, 2, 3)
    )
    left, right = one.then(two).then(three), one.then(two.then(three))
    np.testing.assert_allclose(left.displacement_px, right.displacement_px, **CLOSE)
    np.testing.assert_allclose(left.across_px, right.across_px, **CLOSE)


def test_what_is_flagged_first_is_none_of_the_second():
    first = nt.Alignment.identity(ANGLES, flagged=[False, True, False, False], correction_deg=np.full(4, 0.25))
    second = nt.Alignment.identity(
        ANGLES[[3, 2, 0]] + 0.25, along_px=[3, 2, 0.5], flagged=np.array([False, True, False])
    )
    both = first.then(second)  # its rows stand in another order
    np.testing.assert_array_equal(both.along_px, [0.5, 0, 2, 3])
    np.testing.assert_array_equal(both.flagged, [False, True, True, False])
    assert first.inverse().angles_deg.tolist() == [10.25, -20.25, 45.25]


def test_lengths_scale_with_the_pixels():
    fine = nt.Alignment.identity(ANGLES, along_px=[4, 2, 0, -1], axis_px=6, pixel_size=0.5, units="nm")
    coarse = fine.scaled(1 / 2)
    assert (coarse.axis_px, coarse.pixel_size) == (3, 1.0)
    np.testing.assert_array_equal(coarse.along_px, [2, 1, 0, -0.5])
    # A second one that was found on bins of 2 counts twice in the pixels of the first.
    np.testing.assert_array_equal(fine.then(coarse).along_px, 2 * fine.along_px)


def test_edits_change_what_they_name_and_are_kept():
    edited = nt.Alignment.identity(ANGLES).edited([45.0, -60.0], along_px=[1, 2], flagged=True)
    np.testing.assert_array_equal(edited.along_px, [0, 2, 0, 1])
    np.testing.assert_array_equal(edited.flagged, [False, True, False, True])
    assert edited.provenance["edits"] == [{"angles_deg": [45.0, -60.0], "columns": ["along_px", "flagged"]}]
    assert edited.kept.tolist() == [0, 2]
    with pytest.raises(nt.SchemaError, match="none for 44°"):
        edited.edited(44, flagged=True)


def test_rows_are_found_by_angle():
    table = nt.Alignment.identity(ANGLES, along_px=[1, 2, 3, 4])
    np.testing.assert_array_equal(table.of([45.004, 10.0]).along_px, [4, 1])
    for wanted, text in (([10.0, 11.0], "none for 11°"), ([10.0, 10.001], "one row for 10°")):
        with pytest.raises(nt.SchemaError, match=text):
            table.of(wanted)


def test_columns_cannot_be_written_to():
    given_values = np.zeros(4)
    table = nt.Alignment.identity(ANGLES, along_px=given_values)
    given_values[0] = 5
    assert table.along_px[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        table.along_px[0] = 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"along_px": [0, np.nan, 0, 0]}, "finite numbers as along_px; got nan at place 1"),
        ({"across_px": [0, 0]}, "4 numbers as across_px"),
        ({"rotation_deg": [0, 0, 0, "east"]}, "numbers as rotation_deg"),
        ({"correction_deg": [0, 1e9, 0, 0]}, "within ±1e"),
        ({"flagged": [0, 1, 0, 0]}, "4 times true or false"),
        ({"axis_px": np.inf}, "finite numbers as axis_px"),
        ({"pixel_size": 0.0}, "pixel size above zero"),
        ({"angles_deg": [1, 2, 3, 1]}, "1° more than once"),
        ({"angles_deg": [1, 2, 3, 700]}, "angles in degrees; got 700"),
    ],
)
def test_what_is_no_alignment_is_refused(change, text):
    with pytest.raises(nt.SchemaError, match=text):
        nt.Alignment.identity(**{"angles_deg": ANGLES, **change})


def test_a_digest_follows_the_values_alone():
    one = nt.Alignment.identity(ANGLES)
    other = nt.Alignment.identity(ANGLES, provenance={"steps": ["coarse"]})
    assert one.digest() == other.digest() != one.edited(10, along_px=1e-12).digest()
    assert not one.is_same(other)


def test_it_shows_itself_in_a_few_lines():
    table = nt.Alignment.identity(
        [-10.0, 0.0, 10.0], along_px=[1.5, 0, -2], rotation_deg=[3, 3, 3], axis_px=-0.25, flagged=[False, False, True]
    )
    assert repr(table).splitlines() == [
        "Alignment of 3 views from -10° to 10°, in pixels",
        "  tilt axis: -0.25 px from the middle; rotation +3.00°",
        "  shifts: -2.00 to +1.50 px along it, +0.00 px across",
        "  left out: 10°",
    ]
    assert "corrections of angles: +0.00 to +0.40°" in repr(table.edited(0, correction_deg=0.4))
