"""Names within a store: those of data arrays and of coordinates."""

VOLUME, SERIES, TABLE, PROJECTIONS = "volume", "tilt_series", "samples", "projections"
ARRAYS = (VOLUME, SERIES, TABLE, PROJECTIONS)
COORDINATES = ("z", "y", "x", "angle", "detector")
