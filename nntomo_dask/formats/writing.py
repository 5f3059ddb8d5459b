"""What the writers of all formats share: the order of values, where voxels lie, and what a file says of its axes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask import aside
from nntomo_dask.arrays import geometry, recipes, schema
from nntomo_dask.arrays.blocks import slabs_of
from nntomo_dask.arrays.grid import spacing
from nntomo_dask.errors import refuse
from nntomo_dask.formats import orientation
from nntomo_dask.formats.images import FirstLine
from nntomo_dask.formats.tilt_angles import text_of
from nntomo_dask.types import Float32
from nntomo_dask.untrusted import canonical_json

_EVEN_DEG = 1e-6  # angles are at equal steps where these differ by less
_MADE_BY = "made_by"  # the attribute of an array on its way to a file that keeps its recipe
_SIDECAR_BYTES = 2**26  # of a text beside a file, when it is compared with what would be written


class Place(NamedTuple):
    """Where pixels lie along a dim: their step and the position of the first, in a unit."""

    dim: str
    step: float
    first: float
    unit: str


def is_series(array: xr.DataArray) -> bool:
    """Whether an array is a tilt series; else it is a volume."""
    return schema.ANGLE in array.dims


def as_written(array: xr.DataArray, *, who: str, first_line: FirstLine = "top") -> xr.DataArray:
    """The array as files hold it, see `orientation.as_file`; line integrals are counted in its own pixels.

    Raises
    ------
    SchemaError
        It is neither volume nor tilt series, or its slices are not at equal steps.
    """
    tilted = isinstance(array, xr.DataArray) and is_series(array)
    if tilted:
        schema.check_tilt_series(array, who=who)
    else:
        schema.check_volume(array, who=who, slices="any")
    schema.check_even_z(array, who=who)
    made_by = recipes.recipe_of(array)
    stored = orientation.as_file(geometry.in_own_pixels(array) if tilted else array, first_line=first_line)
    return stored.assign_attrs({_MADE_BY: made_by})  # what turns axes around is no operation of its own


def file_dims(array: xr.DataArray) -> tuple[str, ...]:
    """The order of the dims in files: volumes (z, y, x), series image by image (angle, z, detector)."""
    return (schema.ANGLE, schema.Z, schema.DETECTOR) if is_series(array) else schema.VOLUME_DIMS


def file_names(array: xr.DataArray) -> tuple[str, str, str]:
    """What the axes of a file are called; those of images are x and y, where y runs down."""
    return ("angle", "y", "x") if is_series(array) else ("z", "y", "x")


def file_shape(array: xr.DataArray) -> tuple[int, int, int]:
    """Sizes along `file_dims`."""
    first, second, third = (array.sizes[dim] for dim in file_dims(array))
    return first, second, third


def places(array: xr.DataArray) -> tuple[Place, ...]:
    """Where pixels lie along each of the `file_dims`; angles at unequal steps are counted, without a unit.

    Lengths ascend in the file: where a coordinate descends, they are counted the other way. So those along the axes x,
    y and z of a volume are right-handed.
    """
    across, found = schema.pixel_size_of(array), []
    for dim in file_dims(array):
        values = array[dim].values
        if dim == schema.ANGLE:
            step = float(values[-1] - values[0]) / (values.size - 1)
            even = np.abs(np.diff(values) - step).max() < _EVEN_DEG
            found.append(Place(dim, step, float(values[0]), "degree") if even else Place(dim, 1.0, 0.0, ""))
        else:
            step, first = spacing(values, across), float(values[0])
            found.append(Place(dim, abs(step), first if step > 0 else 0.0 - first, str(array.attrs["units"])))
    return tuple(found)


def about(array: xr.DataArray) -> dict[str, Any]:
    """What a file says of an array beside its values, as JSON holds it: axes, steps, angles, and how it was made.

    `array` is `as_written`, with the first line of its images at the top.
    """
    found: dict[str, Any] = {
        "written_by": "nntomo_dask",
        "kind": "tilt series" if is_series(array) else "volume",
        "axes": list(file_dims(array)),
        "about_axes": orientation.statement(array),
        "first_line": "top",
        "units": array.attrs["units"],
        "step": [place.step for place in places(array)],
        "first": [place.first for place in places(array)],
    }
    if is_series(array):
        found["angles_deg"] = [float(angle) for angle in array[schema.ANGLE].values]
    kept = ("tilt_axis_deg", "voltage_kv", "magnification", "detector", "quantity")
    found |= {key: array.attrs[key] for key in kept if isinstance(array.attrs.get(key), int | float | str)}
    parsed: dict[str, Any] = json.loads(canonical_json(found | {"recipe": array.attrs[_MADE_BY]}))
    return parsed


def write_values(
    array: xr.DataArray,
    file: IO[bytes],
    offset: int,
    convert: Callable[[Float32, int], npt.NDArray[Any]],
    *,
    itemsize: int,
) -> None:
    """Write the values of an array into a file from a byte on, in the order of its `file_dims`, slab by slab."""
    for first, slab in slabs_of(array):
        values = convert(slab, first)
        if not is_series(array):
            file.seek(offset + first * itemsize * values[0].size)
            file.write(np.ascontiguousarray(values).data)
            continue
        image_bytes = itemsize * array.sizes[schema.Z] * array.sizes[schema.DETECTOR]
        for image in range(values.shape[1]):
            file.seek(offset + image * image_bytes + first * itemsize * values.shape[2])
            file.write(np.ascontiguousarray(values[:, image]).data)


def angle_file(path: Path, suffixes: Sequence[str]) -> Path:
    """The name of the file with .rawtlt in place of one of some suffixes, or else behind it."""
    for suffix in sorted(suffixes, key=len, reverse=True):
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.with_name(f"{path.name[: -len(suffix)]}.rawtlt")
    return path.with_name(f"{path.name}.rawtlt")


def beside(array: xr.DataArray, path: Path, suffixes: Sequence[str]) -> dict[Path, str]:
    """The text files beside a file: of a series that of its angles."""
    return {angle_file(path, suffixes): text_of(array[schema.ANGLE].values)} if is_series(array) else {}


def holds(path: Path, text: str) -> bool:
    """Whether a file holds just a text.

    Texts are written before the file that they belong to. Where a run is killed in between, they do not stand in the
    way of the next.
    """
    try:
        return path.stat().st_size < _SIDECAR_BYTES and path.read_bytes() == text.encode()
    except OSError:
        return False


def write_beside(texts: dict[Path, str]) -> None:
    """Write the text files beside a file, just before the file itself appears."""
    for place, text in texts.items():
        if not holds(place, text):
            with aside.written(place) as partial:
                partial.write_bytes(text.encode())


def check_finite_range(low: float, high: float, *, who: str) -> None:
    """Raise a SchemaError where a range of values is none that can be scaled."""
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        refuse(who, needs="a range LOW,HIGH of values", got=f"{low:g},{high:g}", remedy="`range=(0, 1)`, two values")
