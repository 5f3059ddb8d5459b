"""HyperSpy's files, .hspy (HDF5) and .zspy (a folder of Zarr's format 2), with the metadata of ETSpy.

RosettaSciIO opens .zspy with Zarr 2 alone, reads the arrays of all metadata and keeps files open; so the layout of its
version 3 is read here, from both kinds of file by the same steps.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse
from nntomo_dask.formats import FORMATS, hdf5, ours, quantities, zarr_arrays, zarr_forms
from nntomo_dask.formats.faults import FaultError, choose, reading
from nntomo_dask.formats.hspy_writing import HspyWriting
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.formats.source import Source
from nntomo_dask.formats.stored import shape_of

_NEEDS = "a whole .hspy or .zspy file of images"
_MOST_NAMES = 10_000
_TOMOGRAPHY = ("metadata", "Tomography")
_MICROSCOPE = ("metadata", "Acquisition_instrument", "TEM")


@FORMATS.register
class Hspy(HspyWriting):
    """Signals of HyperSpy and ETSpy. ETSpy has moved and turned the images by what it states already."""

    name: ClassVar[str] = "hspy"
    title: ClassVar[str] = "HyperSpy"
    suffixes: ClassVar[tuple[str, ...]] = (".hspy", ".zspy")
    options: ClassVar[tuple[str, ...]] = ("dataset",)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the group of experiments in it."""
        try:
            if path.is_dir():
                return (path / ".zgroup").is_file() and (path / "Experiments").is_dir()
            if not hdf5.is_hdf5(path):
                return False
            with hdf5.opened(Source.of(path)) as file:
                return hdf5.node(file, "Experiments") is not None
        except Exception:  # a damaged file is of no format that can be told
            return False

    @classmethod
    def open_images(cls, path: Path, *, dataset: str | None = None, **options: Any) -> Images:
        """See `Format.open_images`. The datasets are the experiments, by their titles."""
        with reading(path, _NEEDS), _tree(path) as tree:
            names = [name for name in tree.children("Experiments") if tree.shape("Experiments", name, "data")]
            if not names:
                refuse(
                    "import", needs="a signal of images", got=f"none in {path}", remedy="save the signal of the series"
                )
            place = ("Experiments", names[choose(path, names, dataset, what="signal of the file")])
            shape, axes = tree.shape(*place, "data"), _axes(tree, place)
            order, said = _said(tree, place, shape, axes)
            images = tree.images((*place, "data"), order, said)
            if said.holds == "volume" and len(shape) == 3:
                images.slice_step = quantities.ratio(_step(axes[0]), said.pixel_nm)
            ours.apply(images, tree.attribute((*place, "original_metadata", "nntomo_dask"), "json"))
            return images


class _Tree(Protocol):
    """Groups with attributes, and arrays, by path."""

    def children(self, *place: str) -> list[str]: ...

    def attribute(self, place: Sequence[str], name: str) -> Any: ...

    def numbers(self, *place: str) -> npt.NDArray[Any] | None: ...

    def shape(self, *place: str) -> tuple[int, ...]:
        """Of an array of numbers; empty where there is none."""

    def images(self, place: Sequence[str], axes: tuple[int, int, int], said: Said) -> Images: ...


@contextmanager
def _tree(path: Path) -> Iterator[_Tree]:
    if path.is_dir():
        yield _Folder(path)
        return
    if not hdf5.is_hdf5(path):
        raise FaultError("it is no HDF5", remedy="copy the file again; a .zspy in a ZIP has to be unpacked first")
    source = Source.of(path)
    with hdf5.opened(source) as file:
        yield _File(file, source)


@dataclass(frozen=True)
class _File:
    """A .hspy."""

    file: Any
    source: Source

    def children(self, *place: str) -> list[str]:
        return hdf5.children(hdf5.node(self.file, *place))

    def attribute(self, place: Sequence[str], name: str) -> Any:
        return hdf5.attribute(hdf5.node(self.file, *place), name)

    def numbers(self, *place: str) -> npt.NDArray[Any] | None:
        return hdf5.small(hdf5.node(self.file, *place))

    def shape(self, *place: str) -> tuple[int, ...]:
        return tuple(getattr(hdf5.node(self.file, *place), "shape", None) or ())

    def images(self, place: Sequence[str], axes: tuple[int, int, int], said: Said) -> Images:
        return hdf5.images_of(hdf5.node(self.file, *place), place, axes, said, (self.source,))


@dataclass(frozen=True)
class _Folder:
    """A .zspy."""

    root: Path

    def children(self, *place: str) -> list[str]:
        folder = self._at(place)
        if folder is None:
            return []
        names = sorted(one.name for one in folder.iterdir() if one.is_dir())
        if len(names) > _MOST_NAMES:
            raise FaultError(f"a group has {len(names)} members")
        return names

    def attribute(self, place: Sequence[str], name: str) -> Any:
        folder = self._at(place)
        if folder is None or not (folder / ".zattrs").is_file():
            return None
        return zarr_forms.json_of(folder / ".zattrs").get(name)

    def numbers(self, *place: str) -> npt.NDArray[Any] | None:
        folder = self._at(place)
        return None if folder is None or not (folder / ".zarray").is_file() else zarr_arrays.small(folder)

    def shape(self, *place: str) -> tuple[int, ...]:
        folder = self._at(place)
        if folder is None or not (folder / ".zarray").is_file():
            return ()
        return zarr_forms.described(folder)[0].shape

    def images(self, place: Sequence[str], axes: tuple[int, int, int], said: Said) -> Images:
        folder = self._at(place)
        if folder is None:
            raise FaultError("it has no images where they should be")
        texts = [file for file in sorted(self._signal(place).rglob(".zattrs")) if not file.is_symlink()]
        others = [Source.of(file) for file in texts[:_MOST_NAMES]]
        return zarr_arrays.images_of(folder, axes, said, others=others, missing="refused")

    def _signal(self, place: Sequence[str]) -> Path:
        return self.root.joinpath(*place[:2])

    def _at(self, place: Sequence[str]) -> Path | None:
        """The folder of a group or an array; None where there is none, or where it leads elsewhere."""
        folder = self.root
        for name in place:
            if not name or name in (".", "..") or "/" in name or "\\" in name:
                return None
            folder = folder / name
            if folder.is_symlink() or not folder.is_dir():
                return None
        return folder


@dataclass(frozen=True)
class _Axis:
    units: str
    values: list[float]


def _axes(tree: _Tree, place: Sequence[str]) -> list[_Axis]:
    found = []
    for number, size in enumerate(tree.shape(*place, "data")):
        at = (*place, f"axis-{number}")
        step, first = (quantities.finite(tree.attribute(at, name)) for name in ("scale", "offset"))
        listed = tree.numbers(*at, "axis")  # an axis of unequal steps
        if listed is not None and listed.shape == (size,) and np.all(np.isfinite(listed)):
            values = [float(value) for value in listed]
        elif step is not None and first is not None:
            values = [first + index * step for index in range(min(size, 2**20))]
        else:
            values = []
        units = tree.attribute(at, "units")
        found.append(_Axis(units if isinstance(units, str) else "", values))
    return found


def _said(
    tree: _Tree, place: Sequence[str], shape: tuple[int, ...], axes: list[_Axis]
) -> tuple[tuple[int, int, int], Said]:
    """Axes that are image, line and column, and what the metadata say."""
    sizes = shape_of(shape)
    order = (0, 1, 2) if len(shape) == 3 else (-1, 0, 1)
    places = {}
    angles, at = _angles(tree, place, axes, sizes[0])
    if angles is not None:
        places["angles_deg"] = at
    steps = [_step(axes[order[2]]), _step(axes[order[1]])]
    pixel = quantities.square(*steps)
    if pixel is not None:
        places["pixel_nm"] = "the axes of the signal"
    kind = tree.attribute((*place, "metadata", "Signal"), "signal_type")
    by_etspy = kind == "TomoStack" or tree.attribute(place, "package") == "etspy"
    if by_etspy and angles is not None:
        places["tilt_axis_deg"] = "ETSpy's convention, the tilt axis along x"
    is_volume = kind == "RecStack" or (angles is None and len(shape) == 3 and quantities.is_length(axes[0].units))
    said = Said(
        angles_deg=angles,
        tilt_axis_deg=90.0 if by_etspy and angles is not None else None,
        pixel_nm=pixel,
        voltage_kv=quantities.positive(tree.attribute((*place, *_MICROSCOPE), "beam_energy")),
        magnification=quantities.positive(tree.attribute((*place, *_MICROSCOPE), "magnification")),
        detector=_detector(tree, place),
        holds="volume" if is_volume else "series" if angles is not None and sizes[0] > 1 else None,
        places=places,
    )
    return order, said


def _step(axis: _Axis) -> float | None:
    """The distance of neighbours along an axis in nm; None where it says none."""
    return quantities.nm_of(abs(axis.values[1] - axis.values[0]), axis.units) if len(axis.values) > 1 else None


def _detector(tree: _Tree, place: Sequence[str]) -> str | None:
    for at, name in (
        (("Detector",), "detector_type"),
        (("Detector", "Camera"), "Name"),
        (("Detector", "Camera"), "name"),
    ):
        found = tree.attribute((*place, *_MICROSCOPE, *at), name)
        if isinstance(found, str) and found not in ("", "_None_"):
            return found
    return None


def _angles(tree: _Tree, place: Sequence[str], axes: list[_Axis], count: int) -> tuple[tuple[float, ...] | None, str]:
    """Tilt angles in degrees, and where they were found."""
    at = (*place, *_TOMOGRAPHY)
    arrays = [tree.numbers(*at, "_sig_tilts", "data")]
    arrays += [tree.numbers(*at, name) for name in ("tilts", "_list_tilts", "_tuple_tilts")]
    written = tree.attribute(at, "tilts")
    arrays.append(np.asarray(written, np.float64) if isinstance(written, list | np.ndarray) else None)
    for listed in arrays:
        if listed is not None and listed.size == count and listed.dtype.kind in "iuf" and np.all(np.isfinite(listed)):
            return tuple(float(value) for value in listed.reshape(-1)), "the tilts in the metadata"
    if count == 1:
        angle = quantities.finite(tree.attribute((*place, *_MICROSCOPE, "Stage"), "tilt_alpha"))
        return (None, "") if angle is None else ((angle,), "the stage's alpha tilt")
    if len(axes) == 3 and len(axes[0].values) == count:
        angles = quantities.degrees_of(axes[0].values, axes[0].units)
        if angles is not None and len(set(angles)) > 1 and max(map(abs, angles)) <= 360:
            return angles, "the axis of the images"
    return None, ""
