"""EMD: the files of Velox (Thermo Fisher), and those of the Berkeley laboratory's description (NCEM). Both are HDF5.

RosettaSciIO reads the metadata of the first image alone, keeps files open and reads spectra too; so HDF5 is read here.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from nntomo_dask.errors import refuse
from nntomo_dask.formats import FORMATS, hdf5, quantities, stored
from nntomo_dask.formats.faults import choose, reading
from nntomo_dask.formats.format import Format
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.formats.source import Source
from nntomo_dask.formats.stored import Opened
from nntomo_dask.untrusted import parsed_object

_SUFFIXES = (".emd",)
_NEEDS = "a whole EMD file of Velox or NCEM"
_LONGEST_RECORD = 2**20  # bytes of the metadata of an image
_DEEPEST = 5  # groups in groups, in which datasets are looked for


@FORMATS.register
class Emd(Format):
    """EMD of Velox or NCEM: stacks, and folders of files of one image each."""

    name: ClassVar[str] = "emd"
    title: ClassVar[str] = "EMD"
    suffixes: ClassVar[tuple[str, ...]] = _SUFFIXES
    options: ClassVar[tuple[str, ...]] = ("dataset",)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the groups in it; a folder by its first such file."""
        return stored.is_folder_of(path, _SUFFIXES, _is_emd) or _is_emd(path)

    @classmethod
    def open_images(cls, path: Path, *, dataset: str | None = None, **options: Any) -> Images:
        """See `Format.open_images`. The datasets of Velox have the names of their detectors."""
        return stored.images_at(path, _SUFFIXES, lambda file: _opened(file, dataset))


def _is_emd(path: Path) -> bool:
    if not hdf5.is_hdf5(path):
        return False
    try:
        with hdf5.opened(Source.of(path)) as file:
            return _is_velox(file) or hdf5.attribute(file, "version_major") is not None
    except Exception:  # a damaged file is of no format that can be told
        return False


def _is_velox(file: Any) -> bool:
    return hdf5.node(file, "Version") is not None and hdf5.node(file, "Data") is not None


def _opened(path: Path, dataset: str | None) -> Opened:
    with reading(path, _NEEDS):
        source = Source.of(path)
        with hdf5.opened(source) as file:
            return _velox(file, path, source, dataset) if _is_velox(file) else _ncem(file, path, source, dataset)


class _Recorded(NamedTuple):
    """Images of one detector in a file of Velox: where, how many, and the metadata of the first."""

    key: str
    name: str
    images: int
    record: dict[str, Any]


def _velox(file: Any, path: Path, source: Source, dataset: str | None) -> Opened:
    group = hdf5.node(file, "Data", "Image")
    found = [one for key in hdf5.children(group) if (one := _recorded(group, key)) is not None]
    if not found:
        refuse("import", needs="images", got=f"none in {path}", remedy="a file that was not pruned of them")
    stacks = [one for one in found if one.images > 1]
    if stacks and (dataset is None or dataset in _unique(stacks)):  # a survey image beside the series is none
        found = stacks
    taken = found[choose(path, _unique(found), dataset, what="signal of the file")]
    records = _records(hdf5.node(group, taken.key, "Metadata"), taken.images) or [taken.record] * taken.images
    said, times = _said_by_velox(taken.name, records)
    place = ("Data", "Image", taken.key, "Data")
    return Opened(hdf5.images_of(hdf5.node(file, *place), place, (2, 0, 1), said, (source,)), times)


def _recorded(group: Any, key: str) -> _Recorded | None:
    data = hdf5.node(group, key, "Data")
    if data is None or getattr(data, "ndim", 0) != 3 or data.dtype.kind not in "iuf":  # Fourier transforms, DPC
        return None
    records = _records(hdf5.node(group, key, "Metadata"), 1)
    record = records[0] if records else {}
    name = _at(record, "BinaryResult", "Detector") or _at(_detector(record), "DetectorName") or key
    return _Recorded(key, str(name), int(data.shape[2]), record)


def _unique(found: list[_Recorded]) -> list[str]:
    names = [one.name for one in found]
    return [one.name if names.count(one.name) == 1 else f"{one.name} {one.key[:8]}" for one in found]


def _records(metadata: Any, count: int) -> list[dict[str, Any]] | None:
    """The metadata of each of the first images, which are JSON in columns of bytes; None where there are fewer."""
    if metadata is None or getattr(metadata, "ndim", 0) != 2 or metadata.dtype != np.uint8:
        return None
    hdf5.check_stored(metadata)
    length, columns = metadata.shape
    if length > _LONGEST_RECORD or columns < count:
        return None
    columns = (np.asarray(metadata[:, index]).tobytes() for index in range(count))
    return [parsed_object(column.split(b"\0", 1)[0]) for column in columns]


def _at(record: Any, *names: str) -> Any:
    for name in names:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def _detector(record: dict[str, Any]) -> Any:
    """What the metadata of an image say of its detector."""
    index, detectors = _at(record, "BinaryResult", "DetectorIndex"), _at(record, "Detectors")
    if index is not None:
        return _at(detectors, f"Detector-{index}")
    own, named = _at(record, "BinaryResult", "Detector"), detectors if isinstance(detectors, dict) else {}
    return next((one for one in named.values() if _at(one, "DetectorName") == own), None)


def _said_by_velox(name: str, records: list[dict[str, Any]]) -> tuple[Said, tuple[float | None, ...]]:
    first, places = records[0], {}
    tilts = [quantities.finite(_at(record, "Stage", "AlphaTilt")) for record in records]
    angles = None
    if all(tilt is not None for tilt in tilts):
        angles = quantities.degrees_of([tilt for tilt in tilts if tilt is not None], "rad")
        places["angles_deg"] = "the stage's alpha tilt"
    sizes = [
        quantities.nm_of(
            quantities.finite(_at(first, "BinaryResult", "PixelSize", side)) or 0.0,
            _at(first, "BinaryResult", f"PixelUnit{axis}") or "",
        )
        for side, axis in (("width", "X"), ("height", "Y"))
    ]
    pixel = quantities.square(*sizes)
    if pixel is not None:
        places["pixel_nm"] = "the metadata of the first image"
    times = tuple(
        quantities.positive(_at(record, "Acquisition", "AcquisitionStartDatetime", "DateTime")) for record in records
    )
    order = quantities.order_of(times)
    if order is not None:
        places["order"] = "the times of acquisition"
    exposures = [
        quantities.positive(_at(record, "Scan", "FrameTime"))
        or quantities.positive(_at(_detector(record), "ExposureTime"))
        for record in records
    ]
    volts = quantities.positive(_at(first, "Optics", "AccelerationVoltage"))
    magnification = _at(first, "CustomProperties", "StemMagnification", "value") or _at(
        first, "Optics", "NominalMagnification"
    )
    said = Said(
        angles_deg=angles,
        pixel_nm=pixel,
        voltage_kv=None if volts is None else volts / 1000,
        magnification=quantities.positive(magnification),
        detector=name,
        exposure_s=None
        if any(one is None for one in exposures)
        else tuple(one for one in exposures if one is not None),
        order=order,
        holds="series" if angles is not None and len(records) > 1 else None,
        places=places,
    )
    return said, times


def _ncem(file: Any, path: Path, source: Source, dataset: str | None) -> Opened:
    found = list(_datasets(file, (), 0))
    if not found:
        refuse("import", needs="images", got=f"none in {path}", remedy="a file of images or of a volume")
    names = ["/".join(place[:-1]) for place in found]
    place = found[choose(path, names, dataset, what="dataset of the file")]
    data = hdf5.node(file, *place)
    axes, said, slice_step = _said_by_ncem(hdf5.node(file, *place[:-1]), data, by_hyperspy=place[0] == "signals")
    images = hdf5.images_of(data, place, axes, said, (source,))
    images.slice_step = slice_step
    return Opened(images, (None,) * images.shape[0])


def _datasets(group: Any, place: tuple[str, ...], depth: int) -> Iterator[tuple[str, ...]]:
    """Where the datasets of images and volumes of a file are."""
    for name in hdf5.children(group):
        member = hdf5.node(group, name)
        if member is None or hasattr(member, "shape"):
            continue
        data = hdf5.node(member, "data")
        is_marked = hdf5.attribute(member, "emd_group_type") is not None
        if is_marked and getattr(data, "ndim", 0) in (2, 3) and data.dtype.kind in "iuf":
            yield (*place, name, "data")
        elif depth < _DEEPEST:
            yield from _datasets(member, (*place, name), depth + 1)


def _said_by_ncem(group: Any, data: Any, *, by_hyperspy: bool) -> tuple[tuple[int, int, int], Said, float]:
    """The axes that are image, line and column; what the vectors of the dims say; the distance of slices over pixels.

    The description has the dims in the order of the array; HyperSpy writes them the other way round. An axis of angles
    is that of the images wherever it is.
    """
    begin = 0 if hdf5.node(group, "dim0") is not None else 1
    dims = [hdf5.node(group, f"dim{begin + axis}") for axis in range(data.ndim)]
    units = [hdf5.attribute(dim, "units") or "" for dim in dims]
    vectors = [_vector(dim, size) for dim, size in zip(dims, data.shape, strict=True)]
    if data.ndim == 2:
        axes = (-1, 1, 0) if by_hyperspy else (-1, 0, 1)
        angles = None
    else:
        tilted = [axis for axis in (0, 2) if quantities.degrees_of([0.0], units[axis]) is not None]
        image = tilted[0] if len(tilted) == 1 else 2 if by_hyperspy else 0
        axes = (2, 1, 0) if image == 2 else (0, 1, 2)
        listed = vectors[image]
        angles = quantities.degrees_of(listed, units[image]) if listed is not None else None
    steps = [_step(vectors[axis], units[axis]) for axis in axes[1:]]
    pixel = quantities.square(*steps)
    places = {} if pixel is None else {"pixel_nm": "the vectors of the dims"}
    if angles is not None:
        places["angles_deg"] = "the vector of the dim of angles"
    is_volume = data.ndim == 3 and angles is None and quantities.is_length(units[axes[0]])
    apart = _step(vectors[axes[0]], units[axes[0]]) if is_volume else None
    said = Said(angles_deg=angles, pixel_nm=pixel, places=places)
    said = replace(said, holds="volume" if is_volume else "series" if angles is not None else None)
    return axes, said, quantities.ratio(apart, pixel)


def _step(vector: list[float] | None, unit: str) -> float | None:
    """The distance of neighbours along a dim in nm; None where it says none."""
    return quantities.nm_of(abs(vector[1] - vector[0]), unit) if vector is not None and len(vector) > 1 else None


def _vector(dim: Any, size: int) -> list[float] | None:
    """Positions along a dim, which are all listed, or the first two of them."""
    values = hdf5.small(dim)
    if values is None or values.ndim != 1 or not np.all(np.isfinite(values)):
        return None
    if values.size == size:
        return [float(value) for value in values]
    if values.size == 2:
        first, second = (float(value) for value in values)
        return [first + index * (second - first) for index in range(size)]
    return None
