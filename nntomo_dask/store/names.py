"""Names within a store: those of data arrays and of coordinates, and the dims of each array."""

VOLUME, SERIES, TABLE, PROJECTIONS = "volume", "tilt_series", "samples", "projections"
ARRAYS = (VOLUME, SERIES, TABLE, PROJECTIONS)
COORDINATES = ("z", "y", "x", "angle", "detector")
DIMS = {
    VOLUME: ("z", "y", "x"),
    SERIES: ("z", "angle", "detector"),
    TABLE: ("voxel", "column"),
    PROJECTIONS: ("angle", "mode", "z", "detector"),
}
MARK = "nntomo_dask"  # the attribute of a store's group that says whose it is, with the checksums of its metadata
