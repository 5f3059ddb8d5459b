"""Axes and handedness: one object, held in the hand, through the geometry of IMOD and of ETSpy, derived by hand.

The object is a tripod of three arms of different lengths from one corner, along X, Y and Z of right-handed axes in
which an image is shown: X to the right, Y up, Z towards whoever looks. Its mirror image cannot be turned into it.
"""

import mrcfile
import numpy as np
import pytest
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.errors import SchemaError
from nntomo_dask.formats import orientation
from nntomo_dask.formats.orientation import of_images

SIZE = 33
CENTRE = (SIZE - 1) // 2
ANGLES = np.arange(-70.0, 71.0, 4.0)
# (X, Y, Z) of balls at the ends of the arms, their weights and the corner: nothing is symmetric to anything.
CORNER = (-5, -6, -4)
ENDS = {"X": (7, -6, -4), "Y": (-5, 9, -4), "Z": (-5, -6, 5)}
WEIGHTS = {"X": 1.0, "Y": 2.0, "Z": 3.0}


def turned(point, degrees):
    """A point after a right-handed turn about Y: the turn that carries Z to X."""
    x, y, z = point
    theta = np.deg2rad(degrees)
    return x * np.cos(theta) + z * np.sin(theta), y, z * np.cos(theta) - x * np.sin(theta)


def image(degrees):
    """What is seen at a tilt, (Y from the bottom, X): each ball as a narrow bell."""
    grid = np.arange(SIZE) - CENTRE
    shown = np.zeros((SIZE, SIZE))
    for name, point in ENDS.items():
        x, y, _ = turned(point, degrees)
        shown += WEIGHTS[name] * np.exp(-((grid[:, None] - y) ** 2 + (grid - x) ** 2) / 2)
    return shown.astype(np.float32)


@pytest.fixture(scope="module")
def stack():
    """(tilt, line from the bottom, column), as MRC has it."""
    return np.stack([image(angle) for angle in ANGLES])


def places(array, count=3):
    """Indices of the brightest spots of an array, the brightest first."""
    array, found = np.array(array), []
    for _ in range(count):
        place = np.unravel_index(array.argmax(), array.shape)
        found.append(tuple(int(one) for one in place))
        around = tuple(slice(max(one - 3, 0), one + 4) for one in place)
        array[around] = -np.inf
    return found


def expected(order):
    """Indices of the balls Z, Y and X in an array whose axes are some of "XYZ", lower case where it descends."""
    return [
        tuple(CENTRE + (1 if axis.isupper() else -1) * ENDS[name]["XYZ".index(axis.upper())] for axis in order)
        for name in sorted(ENDS, key=WEIGHTS.__getitem__, reverse=True)
    ]


def handedness(order):
    """1 where the axes of an array, from the fastest on, are right-handed as (X, Y, Z) are; -1 where they are not."""
    columns = [np.eye(3)["XYZ".index(axis.upper())] * (1 if axis.isupper() else -1) for axis in reversed(order)]
    return round(np.linalg.det(np.array(columns)))


def backprojected(sinogram, angles_deg, row_sign):
    """(row, column): the sum over projections at ``column cos θ + row_sign · row sin θ``, of a filtered sinogram."""
    frequencies = np.abs(np.fft.fftfreq(4 * SIZE))
    padded = np.pad(sinogram, ((0, 0), (0, 3 * SIZE)))
    filtered = np.fft.ifft(np.fft.fft(padded, axis=1) * frequencies, axis=1).real[:, :SIZE]
    grid = np.arange(SIZE) - CENTRE
    total = np.zeros((SIZE, SIZE))
    for line, theta in zip(filtered, np.deg2rad(angles_deg), strict=True):
        place = grid * np.cos(theta) + row_sign * grid[:, None] * np.sin(theta) + CENTRE
        total += np.interp(place, np.arange(SIZE), line, left=0, right=0)
    return total


def imod_tilt(stack, angles_deg):
    """The raw volume of IMOD's program tilt, (section, row, column): a section for each line of the images.

    Its source has ``xproj = x cos β + z sin β`` with z counted along the rows, and ``sin β = -sin(tilt angle)``, since
    "all equations are written for rotations in the X/Z plane, viewed from the negative Y axis".
    """
    return np.stack([backprojected(stack[:, line], angles_deg, -1) for line in range(stack.shape[1])])


def etspy(stack, angles_deg):
    """The volume of ETSpy 1.3.0, (column, row, line): a slice for each column, since its tilt axis is horizontal.

    It gives ``stack[:, :, column]`` and the angles to ASTRA, whose parallel geometry has
    ``detector = x cos θ + y sin θ`` with y upwards, while the rows of its images go downwards.
    """
    return np.stack([backprojected(stack[:, :, column], angles_deg, -1) for column in range(stack.shape[2])])


def test_the_object_and_its_mirror_image_differ():
    assert handedness("ZYX") == 1  # an array [Z, Y, X]: x is the fastest axis
    assert handedness("YZX") == -1
    assert handedness("YzX") == 1


@pytest.mark.parametrize("axis", ["y", 0.0])
def test_the_series_is_as_the_images_are_shown_and_y_points_to_the_viewer(stack, axis):
    lies = of_images(axis, first_line="bottom")
    series = nt.tilt_series(np.moveaxis(lies.projection(stack), 0, 1), lies.angles(ANGLES))
    volume = nt.fbp(series, window="hann").values
    assert places(volume) == expected("YZX")  # (z, y, x) of the package


def test_files_are_right_handed_as_imod_makes_them(stack, tmp_path):
    path = tmp_path / "stack.mrc"
    with mrcfile.new(path, stack) as mrc:
        mrc.set_image_stack()
    volume = nt.fbp(nt.read_mrc_series(path, ANGLES))
    raw = imod_tilt(stack, ANGLES)
    assert places(raw) == expected("YzX")
    assert handedness("YzX") == 1
    filed = orientation.as_file(volume)
    assert places(filed.values) == places(raw)
    # `clip rotx` turns by -90° about X, from (X, Y, Z) to (X, Z, -Y): sections count rows from the last, rows sections.
    rotated = np.swapaxes(filed.values, 0, 1)[::-1]
    assert places(rotated) == expected("ZYX")
    assert handedness("ZYX") == 1


@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_mrc_volumes_lie_so_and_come_back(stack, tmp_path, offset):
    volume = nt.fbp(nt.tilt_series(np.moveaxis(stack, 0, 1), ANGLES)).compute()
    volume = volume.assign_coords(y=volume.y + offset, z=volume.z + 2 * offset)
    path = nt.write_mrc(volume, tmp_path / "volume.mrc")
    with mrcfile.open(path) as mrc:
        assert places(mrc.data) == places(imod_tilt(stack, ANGLES))
        assert orientation.label(volume) in mrc.get_labels()
    back = nt.read_mrc_volume(path)
    np.testing.assert_array_equal(back.values, volume.values)
    for dim in volume.dims:
        assert back[dim].values.tobytes() == volume[dim].values.tobytes()


def test_volumes_of_other_programs_stay_as_they_are(tmp_path):
    data = np.random.default_rng(7).random((3, 4, 4), np.float32)
    mrcfile.write(tmp_path / "other.mrc", data)
    np.testing.assert_array_equal(nt.read_mrc_volume(tmp_path / "other.mrc").values, data)


def test_files_are_as_etspy_makes_volumes(stack):
    lies = of_images("x", first_line="bottom")
    horizontal = np.swapaxes(stack, 1, 2)  # the same object with its axis along the lines, seen from the far side
    series = nt.tilt_series(np.moveaxis(lies.projection(horizontal), 0, 1), lies.angles(ANGLES))
    assert places(orientation.as_file(nt.fbp(series)).values) == places(etspy(horizontal, ANGLES)) == expected("YzX")


# Turns of the camera: what is stored in place of the upright image, where the axis then is, and of which hand.
@pytest.mark.parametrize("first_line", ["bottom", "top"])
@pytest.mark.parametrize(("quarters", "axis"), [(0, 0.0), (1, 90.0), (2, 180.0), (2, -180.0), (3, -90.0), (3, 270.0)])
def test_images_turned_by_quarters_are_turned_back(stack, first_line, quarters, axis):
    # rot90 turns counterclockwise where lines go downwards, so it turns the images from the top.
    shown = np.rot90(stack[:, ::-1], quarters, axes=(1, 2))
    stored = shown if first_line == "top" else shown[:, ::-1]
    lies = of_images(axis, first_line=first_line)
    np.testing.assert_array_equal(lies.projection(stored), stack)
    assert lies.remaining_deg == 0


@pytest.mark.parametrize("first_line", ["bottom", "top"])
def test_an_axis_along_x_is_the_same_specimen_from_its_far_side(stack, first_line):
    # The axis to the right, -90: X' = Y, Y' = -X. Half a turn of the specimen about the axis: (X, Z) to (-X, -Z).
    shown = np.rot90(stack[:, ::-1], -1, axes=(1, 2))
    stored = shown if first_line == "top" else shown[:, ::-1]
    series = of_images("x", first_line=first_line).projection(stored)
    np.testing.assert_array_equal(series, stack[:, :, ::-1])
    volume = nt.fbp(nt.tilt_series(np.moveaxis(series, 0, 1), ANGLES)).values
    assert places(volume) == expected("Yzx")
    assert handedness("Yzx") == handedness("YZX")


def test_the_old_axes_of_mrc_files_stay(stack):
    along_y, along_x = of_images("y", first_line="bottom"), of_images("x", first_line="bottom")
    np.testing.assert_array_equal(along_y.projection(stack), stack)
    np.testing.assert_array_equal(along_x.projection(stack), stack.transpose(0, 2, 1))
    for lies in (along_x, along_y):
        np.testing.assert_array_equal(lies.angles(ANGLES), ANGLES)


def test_the_other_sign_gives_the_mirror_image(stack):
    # A microscope that counts its angles the other way.
    lies = of_images("y", first_line="bottom", tilt_sign="left-handed")
    angles = lies.angles(-ANGLES)
    np.testing.assert_array_equal(angles, ANGLES)
    assert not np.signbit(lies.angles([0.0]))
    volume = nt.fbp(nt.tilt_series(np.moveaxis(stack, 0, 1), -ANGLES)).values
    assert places(volume) == expected("YzX")


@pytest.mark.parametrize(("axis", "remaining"), [(0.5, 0.5), (-87.2, 2.8), (85.3, -4.7), (184.0, 4.0), (44.0, 44.0)])
def test_what_remains_is_within_an_eighth_of_a_turn(axis, remaining):
    assert of_images(axis, first_line="bottom").remaining_deg == pytest.approx(remaining, abs=1e-9)


@pytest.mark.parametrize("first_line", ["bottom", "top"])
@pytest.mark.parametrize("axis", ["x", "y", 0, 90, 180, -90])
def test_a_window_holds_the_rows_that_are_asked_for(axis, first_line):
    rng = np.random.default_rng(3)
    stored = rng.random((2, 5, 7), np.float32)
    lies = of_images(axis, first_line=first_line)
    whole = lies.projection(stored)
    assert whole.shape[1:] == lies.shape(5, 7)
    rows, detectors = slice(1, 4), slice(2, 5)
    lines, columns = lies.window(rows, detectors, lines=5, columns=7)
    np.testing.assert_array_equal(lies.projection(stored[:, lines, columns]), whole[:, rows, detectors])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tilt_axis": "z"}, "'z'"),
        ({"tilt_axis": np.nan}, "nan"),
        ({"tilt_axis": "y", "first_line": "left"}, "'left'"),
        ({"tilt_axis": "y", "tilt_sign": "up"}, "'up'"),
    ],
)
def test_what_does_not_exist_is_refused(arguments, said):
    with pytest.raises(SchemaError, match=said):
        of_images(**({"first_line": "bottom"} | arguments))


def test_as_file_turns_coordinates_with_the_values():
    rng = np.random.default_rng(5)
    volume = nt.volume(rng.random((3, 4, 4), np.float32))
    filed = orientation.as_file(volume)
    assert (np.diff(filed.y) < 0).all()
    xr.testing.assert_identical(orientation.ascending(filed), volume)
    xr.testing.assert_identical(orientation.as_file(filed), filed)
    xr.testing.assert_identical(orientation.as_file(volume[::-1, ::-1, ::-1]), filed)
    series = nt.tilt_series(rng.random((3, 2, 4), np.float32), [30, -30])
    xr.testing.assert_identical(orientation.as_file(series[::-1]), series)
    np.testing.assert_array_equal(orientation.as_file(series, first_line="top").values, series.values[::-1])


def test_files_say_how_their_axes_lie():
    volume, series = nt.volume(np.ones((2, 2, 2))), nt.tilt_series(np.ones((2, 2, 2)), [0, 10])
    for array in (volume, series):
        assert len(orientation.label(array)) <= 80  # what a label of an MRC header holds
        assert "right-handed" in orientation.statement(array)
    simulated = volume.assign_attrs(recipe={"operation": "fbp", "inputs": [{"operation": "specimen", "inputs": []}]})
    assert "mirror image of its structure file" in orientation.statement(simulated)
    assert "mirror image" not in orientation.statement(volume)


@pytest.mark.parametrize(
    ("shape", "remedy"), [((5, 6, 7), "data.swapaxes(0, 1)"), ((6, 7, 5), "np.moveaxis(data, 2, 1)")]
)
def test_axes_in_another_order_are_named_so(shape, remedy):
    with pytest.raises(SchemaError, match=r"needs an array with axes \(z, angle, detector\)") as error:
        nt.tilt_series(np.zeros(shape), np.arange(5))
    assert remedy in str(error.value)
    data = np.zeros(shape)
    nt.tilt_series(eval(remedy, {"np": np, "data": data}), np.arange(5))  # the remedy is one
    with pytest.raises(SchemaError, match="one angle per projection"):
        nt.tilt_series(data, np.arange(4))
