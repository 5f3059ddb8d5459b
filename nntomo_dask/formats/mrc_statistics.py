"""The statistics in the header of an MRC file that is written."""

from typing import Any

import numpy as np

from nntomo_dask.types import Float32


class Statistics:
    """Least, largest and mean value and standard deviation, slab by slab: mrcfile would copy the file for them."""

    def __init__(self) -> None:
        self.least, self.largest, self.sums = np.inf, -np.inf, np.zeros(3)  # of ones, values and squares

    def add(self, slab: Float32) -> None:
        """Take in a slab."""
        with np.errstate(all="ignore"):  # values that are not finite make statistics that are not
            self.least, self.largest = np.minimum(self.least, slab.min()), np.maximum(self.largest, slab.max())
            for image in slab:  # one at a time in double precision
                values = image.astype(np.float64).ravel()
                self.sums += values.size, values.sum(), values @ values

    def write(self, header: Any) -> None:
        """Write them into a header."""
        with np.errstate(all="ignore"):
            mean, square = self.sums[1:] / self.sums[0]
            header.dmin, header.dmax, header.dmean = (np.float32(one) for one in (self.least, self.largest, mean))
            header.rms = np.float32(np.sqrt(np.maximum(square - mean**2, 0)))
