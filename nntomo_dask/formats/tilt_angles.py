"""Files of tilt angles: .rawtlt and .tlt (one number a line), and SerialEM's .mdoc."""

import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse

_MOST_BYTES = 2**24  # of a file of angles; an .mdoc has about a kilobyte for each image
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?", re.ASCII)
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
    if source.stat().st_size > _MOST_BYTES:
        got = f"one of {source.stat().st_size} bytes, {source}"
        refuse("read_tilt_angles", needs="a file of some kilobytes", got=got, remedy="give the angle file")
    text = source.read_text(encoding="utf-8", errors="replace")
    if "\0" in text:
        refuse("read_tilt_angles", needs="a text file", got=f"a binary one, {source}", remedy="give the angle file")
    words = _MDOC_ANGLE.findall(text) if source.suffix == ".mdoc" else text.split()
    angles = []
    for word in words:
        if not _NUMBER.fullmatch(word):
            refuse(
                "read_tilt_angles",
                needs="one angle in degrees a line",
                got=f"{word[:40]!r} in {source}",
                remedy="correct that line",
            )
        angles.append(float(word))
    if not angles:
        refuse("read_tilt_angles", needs="at least one angle", got=f"none in {source}", remedy="check the file")
    return np.array(angles)


def write_tilt_angles(angles_deg: npt.ArrayLike, path: str | os.PathLike[str]) -> Path:
    """Write tilt angles to a text file, one in each line, in degrees; the file appears when it is complete."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_text("".join(f"{angle:.4f}\n" for angle in np.asarray(angles_deg, np.float64)))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target
