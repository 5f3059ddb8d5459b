"""Names within a store: those of data arrays and of coordinates, and the dims of each array."""

VOLUME, SERIES, PROJECTIONS = "volume", "tilt_series", "projections"
TABLE, PAIRS = "samples", "slices"  # of training sets: voxels, or pairs of slices
ARRAYS = (VOLUME, SERIES, TABLE, PAIRS, PROJECTIONS)
COORDINATES = ("z", "y", "x", "angle", "detector")
DIMS = {
    VOLUME: ("z", "y", "x"),
    SERIES: ("z", "angle", "detector"),
    TABLE: ("voxel", "column"),
    PAIRS: ("z", "pair", "y", "x"),
    PROJECTIONS: ("angle", "mode", "z", "detector"),
}
MARK = "nntomo_dask"  # the attribute of a store's group that says whose it is, with the checksums of its metadata
ALONG = "coordinates_along"  # the attribute of a data array with its further coordinates: {name: [dim, values]}
