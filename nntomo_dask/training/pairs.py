"""Pairs of a tilt series and the volume that it should reconstruct to."""

import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.errors import refuse

# What to try on the command line where there are not as many volumes as series.
PAIRED = "give a --volume for each --series, in the same order, and the same for validation"


def check_pair(series: xr.DataArray, volume: xr.DataArray, *, who: str) -> None:
    """Raise a SchemaError where one of them is none, or the volume has other voxels than the series."""
    schema.check_tilt_series(series, who=who)
    schema.check_volume(volume, who=who)
    expected = (series.sizes[schema.Z], series.sizes[schema.DETECTOR])
    got = (volume.sizes[schema.Z], volume.sizes[schema.X])
    if got != expected:
        refuse(
            who,
            needs=f"a volume with {expected[0]} slices of {expected[1]} pixels, as its series has",
            got=f"{got[0]} slices of {got[1]}",
            remedy="project this volume, or resize one of them",
        )
    reconstructed = volume.assign_coords(schema.slice_coords(series)).assign_attrs(
        units=series.attrs["units"], pixel_size=series.attrs["pixel_size"]
    )
    schema.check_same_grid(volume, reconstructed, who=who)
