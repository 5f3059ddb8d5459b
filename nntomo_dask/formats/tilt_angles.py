"""Files of tilt angles: .rawtlt, .tlt and the like, and SerialEM's .mdoc."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nntomo_dask import aside
from nntomo_dask.errors import refuse
from nntomo_dask.formats import angle_text

_MOST_BYTES = 2**24  # of a file of angles; an .mdoc has about a kilobyte for each image


def read_tilt_angles(path: str | os.PathLike[str]) -> npt.NDArray[np.float64]:
    """Read the tilt angles of a series.

    Parameters
    ----------
    path
        A text file with one angle a line, in degrees; with two columns, of which the other one is the number of the
        image or a dose; or SerialEM's metadata, whose sections say to which image an angle belongs.

    Returns
    -------
    (angle,), [degrees], in the order of the images.

    Raises
    ------
    SchemaError
        There is no such file, a line of it is no number, or it is not clear what the angles are.
    """
    source = Path(path)
    if not source.is_file():
        refuse("read_tilt_angles", needs="a file of tilt angles", got=f"nothing at {source}", remedy="check the path")
    if source.stat().st_size > _MOST_BYTES:
        got = f"one of {source.stat().st_size} bytes, {source}"
        refuse("read_tilt_angles", needs="a file of some kilobytes", got=got, remedy="give the angle file")
    text = source.read_text(encoding="utf-8", errors="replace")
    if "\0" in text:
        refuse("read_tilt_angles", needs="a text file", got=f"a binary one, {source}", remedy="give the angle file")
    return angle_text.angles_in(text, source)


def write_tilt_angles(angles_deg: npt.ArrayLike, path: str | os.PathLike[str]) -> Path:
    """Write tilt angles to a text file, one in each line, in degrees; the file appears when it is complete.

    Raises
    ------
    SchemaError
        `path` is a folder or a device, or lies inside a store.
    OSError
        The place cannot be written.
    """
    with aside.written(path) as partial:
        partial.write_text(text_of(angles_deg))
    return Path(path)


def text_of(angles_deg: npt.ArrayLike) -> str:
    """What `write_tilt_angles` writes."""
    return "".join(f"{angle:.4f}\n" for angle in np.asarray(angles_deg, np.float64))
