"""Names and units in attributes, which xarray's plots show."""

from collections.abc import Hashable

import xarray as xr

# Names of the coordinates in plots, and their units where those are not the array's.
_LABELS = {
    "z": ("z, along the tilt axis", ""),
    "y": ("y", ""),
    "x": ("x", ""),
    "angle": ("tilt angle", "degrees"),
    "detector": ("detector", ""),
}
# What values are called where an array has no name for them, and what stands between a name and attrs["units"].
_VALUES: dict[tuple[Hashable, ...], str] = {
    ("z", "y", "x"): "intensity",
    ("z", "angle", "detector"): "line integral",
}
_LENGTHS_IN = "; lengths in"


def with_labels(array: xr.DataArray) -> xr.DataArray:
    """The array with names and units in the attributes of its coordinates, which xarray writes at axes of plots.

    At the colour bar xarray writes ``long_name [units]`` of the array. Its units are those of lengths, so its long_name
    says so: "intensity; lengths in [nm]". An array without a long_name gets one.
    """
    if array.dims in _VALUES:
        name = values_name(array)
        named = _VALUES[array.dims] if name in ("", *_VALUES.values()) else name
        array = array.assign_attrs(long_name=f"{named}{_LENGTHS_IN}")
    units = array.attrs.get("units", "")
    attrs = {dim: {"long_name": name, "units": unit or units} for dim, (name, unit) in _LABELS.items()}
    return array.assign_coords({dim: (dim, array[dim].values, attrs[dim]) for dim in _LABELS if dim in array.coords})


def values_name(array: xr.DataArray) -> str:
    """What the values of an array are; empty where it does not say."""
    return str(array.attrs.get("long_name", "")).removesuffix(_LENGTHS_IN)
