"""Raw series through the alignments of ETSpy, for ``pipelines/alignment_study.py --etspy``.

In an environment of its own, with NumPy and ``etspy==1.3.0``; nntomo_dask is not needed in it:

    python etspy_alignment.py SERIES.npz RESULT.npz

Where each projection was put is found without knowing ETSpy's conventions: what it did to the series is done by the
same functions to images of two spots, and the spots are looked for.
"""

import sys
import time
import warnings

import etspy
import etspy.align
import numpy as np
from etspy.base import TomoStack

warnings.simplefilter("ignore")
METHODS = ("PC", "COM", "COM-CL")  # of registration; then the axis, by the centres of mass
SPOTS = np.array([[-12.0, -9.0], [14.0, 10.0]])  # (along, across), from the middle of the raw image
WIDTH = 4.0  # of a spot, in pixels


def stack_of(images: np.ndarray, angles_deg: np.ndarray) -> TomoStack:
    """ETSpy has the tilt axis along x, the last axis."""
    return TomoStack(np.ascontiguousarray(images.swapaxes(1, 2)), tilts=angles_deg)


def options(method: str, along: int) -> dict[str, object]:
    """The range along the axis for centres of mass; the default fails on images of fewer than about 105 pixels."""
    return {"xrange": (1, along - 1), "p": 12} if method == "COM" else {}


def spot(shape: tuple[int, int], place: np.ndarray) -> np.ndarray:
    """A Gaussian at a place (along, across) from the middle."""
    along, across = (np.arange(size) - (size - 1) / 2 for size in shape)
    squares = (along[:, None] - place[0]) ** 2 + (across[None, :] - place[1]) ** 2
    return np.exp(-squares / (2 * WIDTH**2)).astype(np.float32)


def found_at(image: np.ndarray) -> np.ndarray:
    """Where a spot is, (along, across) from the middle: the centre of its upper half."""
    weights = np.maximum(image - 0.3 * image.max(), 0)
    along, across = (np.arange(size) - (size - 1) / 2 for size in image.shape)
    return np.array([weights.sum(axis=1) @ along, weights.sum(axis=0) @ across]) / weights.sum()


def aligned(images: np.ndarray, angles_deg: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Shifts (view, 2) and rotations as nntomo_dask's `Alignment` has them, and the seconds that ETSpy took."""
    done = []
    shift, turn = etspy.align.apply_shifts, TomoStack.trans_stack

    def shifted(stack, shifts, *args, **options):
        done.append(("shift", np.asarray(getattr(shifts, "data", shifts), float)))
        return shift(stack, shifts, *args, **options)

    def turned(stack, *args, **options):
        done.append(("turn", args, options))
        return turn(stack, *args, **options)

    stack = stack_of(images, angles_deg)
    etspy.align.apply_shifts, TomoStack.trans_stack = shifted, turned
    try:
        begin = time.perf_counter()
        stack.stack_register(method, **options(method, images.shape[1])).tilt_align("CoM")
        seconds = time.perf_counter() - begin
    finally:
        etspy.align.apply_shifts, TomoStack.trans_stack = shift, turn
    places = []
    for place in SPOTS:
        marked = stack_of(np.stack([spot(images.shape[1:], place)] * len(images)), angles_deg)
        for what, *rest in done:
            marked = shift(marked, rest[0], "interp") if what == "shift" else turn(marked, *rest[0], **rest[1])
        places.append([found_at(image.T) for image in np.asarray(marked.data, float)])
    first, second = np.array(places)
    raw, put = SPOTS[1] - SPOTS[0], second - first
    rotation = np.arctan2(raw[1], raw[0]) - np.arctan2(put[:, 1], put[:, 0])
    middle = SPOTS.mean(axis=0)
    cos, sin = np.cos(rotation), np.sin(rotation)
    back = np.stack([cos * middle[0] + sin * middle[1], cos * middle[1] - sin * middle[0]], axis=1)
    return back - (first + second) / 2, np.rad2deg(rotation), seconds


if __name__ == "__main__":
    given = np.load(sys.argv[1])
    results = {}
    for method in METHODS:
        try:
            shifts, rotation, seconds = aligned(given["images"], given["angles_deg"], method)
        except Exception as error:  # a method that fails on a series has no result there
            print(f"{method}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        results |= {f"{method} shifts": shifts, f"{method} rotation": rotation, f"{method} seconds": seconds}
    np.savez(sys.argv[2], **results)
