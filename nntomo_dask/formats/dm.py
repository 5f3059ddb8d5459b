"""DigitalMicrograph's DM3 and DM4: stacks, and folders of single images."""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from nntomo_dask.errors import refuse
from nntomo_dask.formats import FORMATS, dm_tags, quantities, stored
from nntomo_dask.formats.dm_tags import Stretch, Tree, at
from nntomo_dask.formats.faults import FaultError, choose, reading
from nntomo_dask.formats.format import Format
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.formats.source import Source
from nntomo_dask.formats.stored import Opened, StoredImages

_SUFFIXES = (".dm3", ".dm4")
_PIXELS = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 14: "u1"}
_COLOURS, _COMPLEX = (8, 23), (3, 5, 13, 27, 28)
_TICK = 1e-7  # seconds, of Windows' times
_FOUND_TILTS = "the tag of tilt angles"


@FORMATS.register
class DigitalMicrograph(Format):
    """DM3 and DM4 of Gatan's DigitalMicrograph, one file or a folder of them."""

    name: ClassVar[str] = "dm"
    title: ClassVar[str] = "DM3 or DM4"
    suffixes: ClassVar[tuple[str, ...]] = _SUFFIXES
    options: ClassVar[tuple[str, ...]] = ("dataset",)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By version and byte order at the beginning; a folder by its first such file."""
        return stored.is_folder_of(path, _SUFFIXES, dm_tags.is_dm) or dm_tags.is_dm(path)

    @classmethod
    def open_images(cls, path: Path, *, dataset: str | None = None, **options: Any) -> Images:
        """See `Format.open_images`. A folder is a series, in the order of the names of its files."""
        return stored.images_at(path, _SUFFIXES, lambda file: _opened(file, dataset))


class _Image(NamedTuple):
    """An image in a file: its shape (image, line, column), where its pixels lie, and its tags."""

    name: str
    shape: tuple[int, int, int]
    dtype: "np.dtype[Any]"
    offset: int
    tags: Tree
    dims: list[Tree]


def _opened(path: Path, dataset: str | None) -> Opened:
    with reading(path, "a whole DM3 or DM4 file"):
        source = Source.of(path)
        tree = dm_tags.tags_of(path)
        found = [_image(tags) for tags in _images(tree)]
        images = [image for image in found if isinstance(image, _Image)]
        if not images:
            refuse(
                "import",
                needs="grey images",
                got=f"{', '.join(sorted({str(one) for one in found})) or 'none'} in {path}",
                remedy="save the recorded images, not a display of them",
            )
        names = [image.name for image in images]
        image = images[choose(path, names, dataset, what="image of the file")]
        said, time = _said(image)
    count = image.shape[0]
    image_bytes = image.dtype.itemsize * image.shape[1] * image.shape[2]
    offsets = tuple(image.offset + index * image_bytes for index in range(count))
    stack = StoredImages(image.shape, image.dtype, "top", said, (source,), offsets)
    if said.holds == "volume":
        apart = quantities.nm_of(quantities.finite(image.dims[2].get("Scale")) or 0.0, _unit(image.dims[2]))
        stack.slice_step = quantities.ratio(apart, said.pixel_nm)
    return Opened(stack, (time,) if count == 1 else (None,) * count)


def _images(tree: Tree) -> list[Tree]:
    """The tags of all images but the thumbnails."""
    listed = at(tree, "ImageList")
    if not isinstance(listed, dict):
        raise FaultError("it has no list of images")
    thumbnails = at(tree, "Thumbnails") or {}
    small = {
        int(index) for one in thumbnails.values() if (index := quantities.finite(at(one, "ImageIndex"))) is not None
    }
    return [tags for number, tags in enumerate(listed.values()) if number not in small and isinstance(tags, dict)]


def _image(tags: Tree) -> _Image | str:
    """One of the images of a file, or what it is instead."""
    kind, dims = at(tags, "ImageData", "DataType"), at(tags, "ImageData", "Dimensions")
    data = at(tags, "ImageData", "Data")
    if kind is None or not isinstance(dims, dict):
        raise FaultError("an image has no type or no size")
    if int(kind) in _COLOURS:
        return "colours"
    if int(kind) in _COMPLEX:
        return "complex values"
    if int(kind) not in _PIXELS:
        raise FaultError(f"its pixels are of type {int(kind)}, which is not known")
    sizes = [int(size) for size in dims.values()]
    if len(sizes) not in (2, 3):
        return f"data of {len(sizes)} dims"
    shape = stored.shape_of(sizes[::-1])
    if not isinstance(data, Stretch):
        raise FaultError("an image has no pixels")
    dtype = np.dtype(data.dtype.str[0] + _PIXELS[int(kind)])
    if data.dtype.itemsize != dtype.itemsize or data.values != prod(shape):
        raise FaultError(f"it has {data.values} pixels of {data.dtype}, not {shape} of {dtype}")
    calibrations = at(tags, "ImageData", "Calibrations", "Dimension") or {}
    return _Image(
        name=str(tags.get("Name") or "unnamed"),
        shape=shape,
        dtype=dtype,
        offset=data.offset,
        tags=at(tags, "ImageTags") or {},
        dims=[one if isinstance(one, dict) else {} for one in calibrations.values()],
    )


def _said(image: _Image) -> tuple[Said, float | None]:
    """What the tags say, and when the image was taken."""
    tags, places = image.tags, {}
    microscope = at(tags, "Microscope Info") or {}
    angles, found_at = _angles(image)
    if angles is not None:
        places["angles_deg"] = found_at
    steps = [quantities.finite(one.get("Scale")) for one in image.dims[:2]]
    units = [_unit(one) for one in image.dims[:2]]
    pixel = None
    if len(steps) == 2:
        across, down = (quantities.nm_of(step or 0.0, unit) for step, unit in zip(steps, units, strict=True))
        pixel = quantities.square(across, down)
    if pixel is not None:
        places["pixel_nm"] = "the calibration of the image"
    volts = quantities.positive(at(microscope, "Voltage"))
    exposure = _first(
        tags, ("DataBar", "Exposure Time (s)"), ("Acquisition", "Parameters", "High Level", "Exposure (s)")
    )
    detector = next(
        (
            str(name)
            for path in (("DataBar", "Signal Name"), ("DataBar", "Device Name"), ("Acquisition", "Device", "Name"))
            if isinstance(name := at(tags, *path), str) and name
        ),
        None,
    )
    depth = _unit(image.dims[2]) if len(image.dims) > 2 else ""
    is_volume = angles is None and image.shape[0] > 1 and quantities.is_length(depth)
    said = Said(
        angles_deg=angles,
        pixel_nm=pixel,
        voltage_kv=None if volts is None else volts / 1000,
        magnification=quantities.positive(at(microscope, "Indicated Magnification")),
        detector=detector,
        exposure_s=None if exposure is None else (exposure,) * image.shape[0],
        holds="volume" if is_volume else "series" if angles is not None and image.shape[0] > 1 else None,
        places=places,
    )
    ticks = quantities.positive(at(tags, "DataBar", "Acquisition Time (OS)"))
    return said, None if ticks is None else ticks * _TICK


def _unit(dim: Tree) -> str:
    unit = dim.get("Units")
    return unit if isinstance(unit, str) else ""


def _first(tags: Tree, *paths: Sequence[str]) -> float | None:
    found = (quantities.positive(at(tags, *path)) for path in paths)
    return next((value for value in found if value is not None), None)


def _angles(image: _Image) -> tuple[tuple[float, ...] | None, str]:
    """Tilt angles in degrees, and where they were found; the most direct statement counts."""
    count, tags = image.shape[0], image.tags
    if count == 1:
        angle = quantities.finite(at(tags, "Microscope Info", "Stage Position", "Stage Alpha"))
        return (None, "") if angle is None else ((angle,), "the stage's alpha tilt")
    for path in (("Tilt Angles",), ("Tomography", "Tilt Angles"), ("Tomography", "Tilt angles")):
        if (angles := _numbers(at(tags, *path), count)) is not None:
            return angles, _FOUND_TILTS
    listed = at(tags, "Meta Data", "Dimension info", "2") or {}
    if (
        "tilt" in str(listed.get("Label", "")).casefold()
        and (angles := _numbers(listed.get("Data"), count)) is not None
    ):
        return angles, _FOUND_TILTS
    if len(image.dims) > 2:
        step, origin = (quantities.finite(image.dims[2].get(key)) for key in ("Scale", "Origin"))
        if step and origin is not None:
            values = [(index - origin) * step for index in range(count)]
            if (angles := quantities.degrees_of(values, _unit(image.dims[2]))) is not None:
                return angles, "the calibration of the third dim"
    return _planned(at(tags, "Tomography", "Tomography setup", "Tilt angles") or {}, count)


def _planned(setup: Tree, count: int) -> tuple[tuple[float, ...] | None, str]:
    """Angles at equal steps as the tomography plug-in planned them, where all were recorded."""
    ends = [quantities.finite(setup.get(f"{end} tilt angle (deg)")) for end in ("Minimum", "Maximum")]
    step = quantities.positive(setup.get("Tilt angle step (deg)"))
    first, last = ends
    if first is None or last is None or step is None or setup.get("Tilt model", "equal") != "equal":
        return None, ""
    if abs(first + (count - 1) * step - last) > 1e-3 * step:
        return None, ""
    return tuple(round(first + index * step, 9) for index in range(count)), "the plan of the tomography plug-in"


def _numbers(found: Any, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, of an array or of a group of single tags."""
    values: Any = None
    if isinstance(found, np.ndarray) and found.size == count:
        values = [float(value) for value in found]
    elif isinstance(found, dict) and len(found) == count:
        keys = list(found)
        if all(key.isdigit() and key.isascii() for key in keys):  # names of tags are sorted as text, 10 before 2
            keys.sort(key=int)
        values = [quantities.finite(found[key]) for key in keys]
    if values is None or any(value is None or not np.isfinite(value) or abs(value) > 360 for value in values):
        return None
    return tuple(values)
