"""The form of metadata that this package writes: everything else is refused before Zarr sees it.

Other formats than Zarr 3, other codecs, types, dims and chunks, and sizes that no store can have.
"""

import math
from typing import Any

from nntomo_dask.store.names import ALONG, COORDINATES, DIMS, MARK, PAIRS, PROJECTIONS, TABLE
from nntomo_dask.untrusted import canonical_json, is_recipe, parsed_object

Json = dict[str, Any]
Codecs = tuple[tuple[str, Json | None], ...]  # names, and settings; None for those of Blosc

MOST_CHUNKS = 2**20
MOST_CHUNK_BYTES = 2**31 - 1  # what Blosc takes
LONGEST_COORDINATE = 2**22
COORDINATE_TYPES = frozenset(
    {"float64", "float32", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"}
)
_LONGEST_UNIT = 100  # characters
_ARRAY_KEYS = {
    "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs", "attributes", "dimension_names",
    "zarr_format", "node_type",
}  # fmt: skip
_GROUP_KEYS = {"attributes", "zarr_format", "node_type", "consolidated_metadata"}
_OF_DATA: Codecs = (("bytes", {"endian": "little"}), ("blosc", None), ("crc32c", {}))
_OF_COORDINATES: Codecs = (("bytes", {"endian": "little"}), ("crc32c", {}))
_BLOSC = {"typesize": int, "cname": str, "clevel": int, "shuffle": str, "blocksize": int}


class DamagedError(ValueError):
    """The metadata of a store of this package are not such as were written; the text says why."""


def check_data(name: str, array: Any) -> None:
    """Raise a DamagedError unless these are metadata of a data array of that name, as `save` writes them."""
    _check_array(array, DIMS[name], _OF_DATA)
    shape, chunks = array["shape"], array["chunk_grid"]["configuration"]["chunk_shape"]
    if array["data_type"] != "float32":
        raise DamagedError("its array is not of float32")
    if 4 * math.prod(chunks) > MOST_CHUNK_BYTES:
        raise DamagedError("its chunks are larger than chunks can be")
    if -(-shape[0] // chunks[0]) > MOST_CHUNKS:
        raise DamagedError("it has more chunks than a store can have")
    _check_attributes(name, shape, array["attributes"])


def check_coordinate(dim: str, size: int, array: Any) -> None:
    """Raise a DamagedError unless these are metadata of the coordinate of a dim, in one chunk."""
    _check_array(array, (dim,), _OF_COORDINATES)
    chunks = array["chunk_grid"]["configuration"]["chunk_shape"]
    if array["shape"] != [size] or chunks != [size] or size > LONGEST_COORDINATE:
        raise DamagedError(f"the coordinate {dim} has another length")
    if not isinstance(array["data_type"], str) or array["data_type"] not in COORDINATE_TYPES:
        raise DamagedError(f"the coordinate {dim} has another type")


def is_mark(value: Any) -> bool:
    """Whether a value has the form of the mark of a store of this package."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("checksum"), str)
        and isinstance(value.get("coordinates"), dict)
        and all(isinstance(one, str) for one in value["coordinates"].values())
    )


def check_group(group: Json) -> None:
    """Raise a DamagedError unless these are metadata of a group of Zarr format 3, with a mark or none."""
    if not set(group) <= _GROUP_KEYS or group.get("node_type") != "group" or not _is(group.get("zarr_format"), 3):
        raise DamagedError("its group is none of Zarr format 3")
    attributes = group.get("attributes")
    if not isinstance(attributes, dict) or (MARK in attributes and not is_mark(attributes[MARK])):
        raise DamagedError("the attributes of its group cannot be read")


def _check_array(array: Any, dims: tuple[str, ...], codecs: Codecs) -> None:
    """Raise a DamagedError unless an array is of Zarr format 3, with these dims and codecs and whole rows of chunks."""
    if not isinstance(array, dict) or set(array) - {"storage_transformers"} != _ARRAY_KEYS:
        raise DamagedError("an array has not the keys of Zarr format 3")
    expected = {
        "zarr_format": 3,
        "node_type": "array",
        "dimension_names": list(dims),
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    }
    for key, value in expected.items():
        if differ(array[key], value):
            raise DamagedError(f"an array has another {key}")
    if array.get("storage_transformers", []) != [] or not isinstance(array["attributes"], dict):
        raise DamagedError("an array has other storage_transformers or attributes")
    if isinstance(array["fill_value"], bool) or array["fill_value"] != 0:
        raise DamagedError("an array has another fill_value")
    sizes, grid = array["shape"], array["chunk_grid"]
    if not isinstance(sizes, list) or len(sizes) != len(dims) or not all(_is_size(size) for size in sizes):
        raise DamagedError("an array has another shape")
    chunks = grid["configuration"].get("chunk_shape") if _is_grid(grid) else None
    if not isinstance(chunks, list) or len(chunks) != len(dims) or chunks[1:] != sizes[1:] or not _is_size(chunks[0]):
        raise DamagedError("an array has other chunks")
    _check_codecs(array["codecs"], codecs)


def _check_codecs(found: Any, expected: Codecs) -> None:
    """Raise a DamagedError where the codecs are others than those that this package writes: none else is ever run."""
    if not isinstance(found, list) or len(found) != len(expected) or not all(isinstance(one, dict) for one in found):
        raise DamagedError("an array has other codecs")
    for codec, (name, settings) in zip(found, expected, strict=True):
        configuration = codec.get("configuration", {})
        if codec.get("name") != name or not set(codec) <= {"name", "configuration"}:
            raise DamagedError("an array has other codecs")
        if settings is not None and differ(configuration, settings):
            raise DamagedError(f"the codec {name} has other settings")
        if settings is None and not _are_of_blosc(configuration):
            raise DamagedError(f"the codec {name} has other settings")


def _are_of_blosc(settings: Any) -> bool:
    return (
        isinstance(settings, dict)
        and set(settings) == set(_BLOSC)
        and all(type(settings[key]) is kind for key, kind in _BLOSC.items())
        and (settings["cname"], settings["shuffle"], settings["typesize"]) == ("lz4", "shuffle", 4)
        and 0 <= settings["clevel"] <= 9
        and 0 <= settings["blocksize"] <= MOST_CHUNK_BYTES
    )


def _check_attributes(name: str, shape: list[int], attributes: Json) -> None:
    """Raise a DamagedError where the attributes of a data array are not such as `save` writes."""
    if not is_recipe(attributes.get("recipe")):
        raise DamagedError("its recipe cannot be read")
    if name in (TABLE, PAIRS):
        if not _is_number(attributes.get("level")) or not isinstance(attributes.get("layout"), str):
            raise DamagedError("the layout of its inputs cannot be read")
        parsed_object(attributes["layout"])
        for per_slice in ("scene", "used") if name == PAIRS else ():
            numbers = attributes.get(per_slice)
            if (
                not isinstance(numbers, list)
                or len(numbers) != shape[0]
                or not all(type(one) is int for one in numbers)
            ):
                raise DamagedError(f"what its slices are ({per_slice}) cannot be read")
        return
    if not isinstance(attributes.get("units"), str) or len(attributes["units"]) > _LONGEST_UNIT:
        raise DamagedError("its units cannot be read")
    if not _is_number(attributes.get("pixel_size")) or attributes["pixel_size"] <= 0:
        raise DamagedError("its pixel size is no number above zero")
    along = attributes.get(ALONG, {})
    if not isinstance(along, dict) or not all(_is_along(one, value, name, shape) for one, value in along.items()):
        raise DamagedError("its further coordinates cannot be read")
    if name == PROJECTIONS:
        modes, own = attributes.get("modes"), attributes.get("attributes")
        if not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes):
            raise DamagedError("the names of its series cannot be read")
        if not isinstance(own, list) or not all(isinstance(one, dict) for one in own):
            raise DamagedError("the attributes of its series cannot be read")
        if not len(modes) == len(set(modes)) == len(own) == shape[1]:
            raise DamagedError("the number of its series is another")
        made_by = attributes["recipe"]["inputs"]
        if len(modes) > 1 and not (len(made_by) == len(modes) and all(is_recipe(one) for one in made_by)):
            raise DamagedError("the recipes of its series cannot be read")


def _is_along(coordinate: str, value: Any, name: str, shape: list[int]) -> bool:
    """Whether a further coordinate is a list of numbers along a dim, of its length."""
    if not isinstance(value, list) or len(value) != 2 or coordinate in COORDINATES or not coordinate.isidentifier():
        return False
    dim, numbers = value
    return (
        dim in DIMS[name]
        and isinstance(numbers, list)
        and len(numbers) == shape[DIMS[name].index(dim)] <= LONGEST_COORDINATE
        and all(_is_number(one) for one in numbers)
    )


def _is_grid(grid: Any) -> bool:
    return isinstance(grid, dict) and grid.get("name") == "regular" and isinstance(grid.get("configuration"), dict)


def _is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**62


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 1e300


def _is(value: Any, wanted: int) -> bool:
    return type(value) is int and value == wanted


def differ(one: Any, other: Any) -> bool:
    """Whether two values are different JSON; 1, 1.0 and true are."""
    return canonical_json(one) != canonical_json(other)
