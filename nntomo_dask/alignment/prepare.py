"""What is done to projections before they are aligned: background, hot and dead pixels, intensity, bad views."""

from dataclasses import dataclass

import numpy as np

from nntomo_dask.alignment.views import Pose, Views
from nntomo_dask.types import Bools, Float32, Float64

_EMPTY = 0.05  # share of an image's pixels that its background has at least, to be found
_NARROW = 0.02  # their spread, as a share of the range of the image's values
_STRAY = 6.0  # deviations by which a pixel differs from the median of its neighbours, to be replaced
_MOST_STRAY = 0.01  # share of pixels; where more would be replaced, they are structure
_AROUND = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
_DIM = 0.1  # mass of a view, as a share of the median of all, below which it is taken for empty
_OFF = 6.0  # robust deviations of a view's mass from that of its neighbours
_LEAST_OFF = 0.25  # the same, as a share of the mass: smaller deviations are intensity


@dataclass(frozen=True)
class Prepared:
    """Projections that can be aligned, and what was found of them.

    Attributes
    ----------
    images
        (view, along, across), float32, without background.
    background
        (view,): what was subtracted; 0 where no empty part was found.
    flagged
        (view,): views that are empty, or of another mass than their neighbours.
    replaced
        Number of pixels that were hot or dead.
    """

    images: Float32
    background: Float64
    flagged: Bools
    replaced: int


def prepare(images: Float32) -> Prepared:
    """Subtract the background, replace hot and dead pixels, and flag what is bad.

    Parameters
    ----------
    images
        (view, along, across), in ascending order of angle.
    """
    clean, replaced = without_stray_pixels(images)
    ground = background(clean)
    clean -= ground[:, None, None].astype(np.float32)
    mass = clean.sum(axis=(1, 2), dtype=np.float64)
    return Prepared(clean, ground, bad_views(mass), replaced)


def intensities(views: Views, pose: Pose) -> Float64:
    """(view,): the mass of each view, as a multiple of their median, in the rows that all of them have recorded.

    In a parallel beam the mass is the same from all directions, so this is what to divide by. It is known once the
    views are aligned along the axis: a specimen that is cut off there gains and loses mass by drifting.
    """
    rows = views.rows_in_all(pose)
    mass = views.at(pose, views.along[rows]).sum(axis=(1, 2), dtype=np.float64)
    typical = np.median(mass)
    if not rows.any() or not typical > 0:
        return np.ones(views.count)
    found: Float64 = np.where(mass > _DIM * typical, mass / typical, 1.0)
    return found


def background(images: Float32) -> Float64:
    """(view,): the level of the empty part of each image, or 0 where none is found.

    It is the median of the narrowest interval that holds a twentieth of an image's pixels, sought among its lower half.
    It must be narrow against the range of all values, and lie at their lower end; else nothing is empty.
    """
    found = np.zeros(len(images))
    for view, image in enumerate(images):
        values = np.sort(image, axis=None)
        held = max(int(_EMPTY * values.size), 2)
        low = values[: max(values.size // 2, held)].astype(np.float64)
        widths = low[held - 1 :] - low[: low.size - held + 1]
        first = int(np.argmin(widths))
        level = float(np.median(low[first : first + held]))
        lowest, highest = (float(values[int(share * (values.size - 1))]) for share in (0.005, 0.995))
        reach = highest - lowest
        if reach > 0 and widths[first] <= _NARROW * reach and level - lowest <= 2.5 * _NARROW * reach:
            found[view] = level
    return found


def without_stray_pixels(images: Float32) -> tuple[Float32, int]:
    """A copy in which single pixels far from the median of their 3 × 3 neighbours have it; and how many they are.

    Such a pixel lies above or below all its neighbours, and differs from their median by six deviations of what is
    usual in the image, and by twelve times what is usual nearby. Where over 1 % of an image would change, it is
    structure, and nothing does.
    """
    from scipy import ndimage

    clean = np.array(images, np.float32)
    count = 0
    for view, image in enumerate(clean):
        smooth = ndimage.median_filter(image, 3, mode="nearest")
        difference = image - smooth
        # Edges of a specimen differ from their median too; what is usual nearby is not stray.
        usual = ndimage.uniform_filter(np.abs(difference), 9, mode="nearest")
        middle = np.median(np.abs(difference))
        least = _STRAY * np.maximum(1.4826 * middle, 2 * usual)
        highest = ndimage.maximum_filter(image, footprint=_AROUND, mode="nearest")
        lowest = ndimage.minimum_filter(image, footprint=_AROUND, mode="nearest")
        stray = (np.abs(difference) > least) & ((image > highest) | (image < lowest))
        if 0 < stray.sum() <= _MOST_STRAY * image.size:
            clean[view][stray] = smooth[stray]
            count += int(stray.sum())
    return clean, count


def bad_views(mass: Float64) -> Bools:
    """(view,): which views have no mass, or another one than the views beside them.

    In a parallel beam the mass of what is seen is the same from all directions; detectors and specimens cut off along
    the axis change it slowly, from view to view.
    """
    typical = np.median(mass)
    if not typical > 0:
        return np.ones(mass.shape, bool)
    relative = mass / typical
    beside = np.array([np.median(np.delete(relative, i)[max(i - 2, 0) : i + 2]) for i in range(mass.size)])
    deviations = relative - beside
    spread = 1.4826 * np.median(np.abs(deviations))
    found: Bools = (relative < _DIM) | (np.abs(deviations) > max(_OFF * spread, _LEAST_OFF))
    return found
