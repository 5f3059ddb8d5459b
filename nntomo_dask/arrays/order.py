"""The order of the axes of a plain array that is to be a tilt series."""

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse


def check_order(shape: tuple[int, ...], angles_deg: npt.ArrayLike) -> None:
    """Raise a SchemaError where there are as many angles as the array has elements along another axis than its second.

    Stacks of images have their projections first, (angle, z, detector) or (angle, detector, z).
    """
    try:
        count = len(np.asarray(angles_deg, np.float64))
    except (TypeError, ValueError):  # no list of angles
        return
    others = [axis for axis in (0, 2) if shape[axis] == count]
    if count == shape[1] or not others:
        return
    moved = f"np.moveaxis(data, {others[0]}, 1)" if others[0] else "data.swapaxes(0, 1)"
    along = "; of a stack whose tilt axis lies along the lines, np.transpose(data, (2, 0, 1))" if not others[0] else ""
    refuse(
        "tilt_series",
        needs="an array with axes (z, angle, detector), z along the tilt axis",
        got=f"{count} angles and an array of shape {shape}, whose axis {others[0]} has as many",
        remedy=f"{moved}{along}",
    )
