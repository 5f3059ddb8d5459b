"""Images as a file holds them, read when they are wanted, and what the file says of them.

A reader opens a file or a folder as `Images`. What is done with them is the same for all formats: which images make the
series, in which order, about which axis.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nntomo_dask.formats.source import Source

FirstLine = Literal["bottom", "top"]


@dataclass(frozen=True)
class Said:
    """What a file says of its images; None where it says nothing.

    Attributes
    ----------
    angles_deg
        The tilt angle of each image, [degrees], as the file has it.
    tilt_axis_deg
        Direction of the tilt axis in the images, from their vertical, counterclockwise as they are shown, [degrees]: 0
        is along y, 90 along x. It is the angle that SerialEM and IMOD state.
    pixel_nm
        Edge of a pixel, [nm].
    voltage_kv, magnification, detector
        Of the microscope.
    exposure_s, dose_e_per_a2
        Of each image: seconds, and electrons per square ångström.
    order
        The place of each image in the order of acquisition, from 0 on.
    acquired
        When each image was taken, [s] since some time that the files of a series have in common; by it the order over
        several files is known.
    holds
        "series" or "volume", where the file says which of them it is; a format of volumes says "volume".
    places
        Where these were found, by name of the attribute: ``{"angles_deg": "the FEI extended header"}``.
    """

    angles_deg: tuple[float, ...] | None = None
    tilt_axis_deg: float | None = None
    pixel_nm: float | None = None
    voltage_kv: float | None = None
    magnification: float | None = None
    detector: str | None = None
    exposure_s: tuple[float, ...] | None = None
    dose_e_per_a2: tuple[float, ...] | None = None
    order: tuple[int, ...] | None = None
    acquired: tuple[float, ...] | None = None
    holds: Literal["series", "volume"] | None = None
    places: dict[str, str] = field(default_factory=dict)


class Images(ABC):
    """Images of one size, in the order of the file.

    Attributes
    ----------
    shape
        (image, line, column).
    dtype
        Of the pixels as they are stored.
    first_line
        Where the first line of an image belongs when it is shown: at the bottom, as MRC has it, or at the top.
    said
        What the file says of them.
    sources
        All files that are read, for recipes.
    reads
        What it takes to read some lines of an image: "lines" these alone, "images" the whole image, as where it is
        compressed.
    zero
        Where along lines and columns coordinates are zero, [px] from the first; None for the middle.
    line_step
        Distance of lines over that of columns. Only files of this package have others than 1.
    slice_step, slice_zero
        Of images that are slices of a volume: their distance over that of columns, and where their coordinate is zero,
        [slices] from the first; None for the middle.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    first_line: FirstLine
    said: Said
    sources: Sequence[Source]
    reads: Literal["lines", "images"] = "lines"
    zero: tuple[float, float] | None = None
    line_step: float = 1.0
    slice_step: float = 1.0
    slice_zero: float | None = None

    @abstractmethod
    def read(self, image: int, lines: slice, columns: slice) -> npt.NDArray[Any]:
        """A part of an image, (line, column), in the stored type. Lines are counted as they are stored.

        It reads no more than it has to, holds no file open between calls, and works in other processes.

        Raises
        ------
        SchemaError
            A file has changed since it was opened, or it cannot be read.
        """
