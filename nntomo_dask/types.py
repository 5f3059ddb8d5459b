"""Names for the arrays that functions take and return."""

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Complex64 = npt.NDArray[np.complex64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
