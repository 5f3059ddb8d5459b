"""Names within a store: those of data arrays and of coordinates."""

VOLUME, SERIES, PROJECTIONS = "volume", "tilt_series", "projections"
TABLE, PAIRS = "samples", "slices"  # of training sets: voxels, or pairs of slices
ARRAYS = (VOLUME, SERIES, TABLE, PAIRS, PROJECTIONS)
COORDINATES = ("z", "y", "x", "angle", "detector")
