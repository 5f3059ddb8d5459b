"""Files of tilt angles: .rawtlt and .tlt (one number a line), and SerialEM's .mdoc."""

import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nntomo_dask import aside
from nntomo_dask.errors import refuse

_MDOC_ANGLE = re.compile(r"^\s*TiltAngle\s*=\s*(\S+)", re.MULTILINE)


def read_tilt_angles(path: str | os.PathLike[str]) -> npt.NDArray[np.float64]:
    """Read the tilt angles of a series.

    Parameters
    ----------
    path
        A text file with one angle a line, in degrees; or, where the name ends in .mdoc, a SerialEM metadata file.

    Returns
    -------
    (angle,), [degrees], in the order of the file.

    Raises
    ------
    SchemaError
        There is no such file, or a line of it is no number.
    """
    source = Path(path)
    if not source.is_file():
        refuse("read_tilt_angles", needs="a file of tilt angles", got=f"nothing at {source}", remedy="check the path")
    text = source.read_text(encoding="utf-8", errors="replace")
    if "\0" in text:
        refuse("read_tilt_angles", needs="a text file", got=f"a binary one, {source}", remedy="give the angle file")
    words = _MDOC_ANGLE.findall(text) if source.suffix == ".mdoc" else text.split()
    angles = []
    for word in words:
        try:
            angles.append(float(word))
        except ValueError:
            refuse(
                "read_tilt_angles",
                needs="one angle in degrees a line",
                got=f"{word[:40]!r} in {source}",
                remedy="correct that line",
            )
    if not angles:
        refuse("read_tilt_angles", needs="at least one angle", got=f"none in {source}", remedy="check the file")
    return np.array(angles)


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
