"""OME-Zarr of versions 0.4 and 0.5: the image of the finest scale, as a volume or as the images of a series."""

from pathlib import Path
from typing import Any, ClassVar

from nntomo_dask.errors import refuse
from nntomo_dask.formats import FORMATS, ours, quantities, zarr_arrays, zarr_forms
from nntomo_dask.formats.faults import FaultError, choose, reading
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.formats.ome_zarr_writing import OmeZarrWriting
from nntomo_dask.formats.source import Source

_VERSIONS = ("0.4", "0.5")
_NEEDS = "a whole OME-Zarr of version 0.4 or 0.5"
_MOST_AXES = 6
_TILTS = {"angle", "tilt"}  # types and names of an axis of tilts


@FORMATS.register
class OmeZarr(OmeZarrWriting):
    """OME-Zarr 0.4 and 0.5, as programs show it: the first line at the top."""

    name: ClassVar[str] = "ome_zarr"
    title: ClassVar[str] = "OME-Zarr"
    suffixes: ClassVar[tuple[str, ...]] = (".ome.zarr",)
    options: ClassVar[tuple[str, ...]] = ("dataset",)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the description of an image in the attributes of the folder."""
        try:
            return path.is_dir() and bool(_multiscales(path)[0])
        except (ValueError, OSError):
            return False

    @classmethod
    def open_images(cls, path: Path, *, dataset: str | None = None, **options: Any) -> Images:
        """See `Format.open_images`. The datasets are the images, by their names or numbers."""
        with reading(path, _NEEDS):
            images, attributes, metadata = _multiscales(path)
            if not images:
                refuse("import", needs=_NEEDS, got=f"a folder without images, {path}", remedy="the folder of one image")
            names = [str(one.get("name") or number) for number, one in enumerate(images)]
            image = images[choose(path, names, dataset, what="image of the folder")]
            if (version := image.get("version", _VERSIONS[0])) not in _VERSIONS:
                raise FaultError(f"its version is {str(version)[:20]}", remedy="save it as version 0.4 or 0.5")
            folder, scales = _finest(path, image)
            array, _ = zarr_forms.described(folder)
            order, said = _said(image, scales, array.shape)
            others = (Source.of(metadata),)
            found = zarr_arrays.images_of(folder, order, said, others=others, missing="filled")
            if said.holds == "volume":
                unit = _axes(image)[order[0]].get("unit") or ""
                found.slice_step = quantities.ratio(quantities.nm_of(scales[order[0]], unit), said.pixel_nm)
            ours.apply(found, attributes.get(ours.MARK))
            return found


def _multiscales(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any], Path]:
    """The images of a folder, its attributes, and the file of these."""
    metadata = path / "zarr.json"
    if metadata.is_file():
        attributes = zarr_forms.json_of(metadata).get("attributes")
        described = attributes.get("ome") if isinstance(attributes, dict) else None
    else:
        metadata = path / ".zattrs"
        described = attributes = zarr_forms.json_of(metadata)
    found = described.get("multiscales") if isinstance(described, dict) else None
    # Version 0.5 is said once for all images, 0.4 by each of them.
    version = {"version": described["version"]} if isinstance(described, dict) and "version" in described else {}
    images = [one | version for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return images, attributes if isinstance(attributes, dict) else {}, metadata


def _finest(path: Path, image: dict[str, Any]) -> tuple[Path, list[float]]:
    """The folder of the array of the finest scale, and its step along each axis."""
    datasets, axes = image.get("datasets"), _axes(image)
    if not isinstance(datasets, list) or not datasets or not isinstance(datasets[0], dict):
        raise FaultError("it names no array")
    name = datasets[0].get("path")
    if not isinstance(name, str) or not name or any(part in ("", ".", "..") for part in name.split("/")):
        raise FaultError("the path of its array is none in this folder")
    folder = path
    for part in name.split("/"):
        folder = folder / part
        if folder.is_symlink() or not folder.is_dir():
            raise FaultError(f"its array {name} is missing")
    scales = [1.0] * len(axes)
    for owner in (datasets[0], image):
        for one in owner.get("coordinateTransformations") or []:
            if isinstance(one, dict) and one.get("type") == "scale":
                factors = one.get("scale")
                if not isinstance(factors, list) or len(factors) != len(axes):
                    raise FaultError("its scale does not fit its axes")
                values = [quantities.positive(factor) for factor in factors]
                if any(value is None for value in values):
                    raise FaultError("its scale is none")
                scales = [scale * (value or 1.0) for scale, value in zip(scales, values, strict=True)]
    return folder, scales


def _axes(image: dict[str, Any]) -> list[dict[str, Any]]:
    axes = image.get("axes")
    if not isinstance(axes, list) or not 2 <= len(axes) <= _MOST_AXES or not all(isinstance(one, dict) for one in axes):
        raise FaultError("its axes cannot be read")
    return axes


def _said(image: dict[str, Any], scales: list[float], shape: tuple[int, ...]) -> tuple[tuple[int, int, int], Said]:
    """Axes that are image, line and column, and what the metadata say."""
    axes = _axes(image)
    if len(shape) != len(axes):
        raise FaultError("its array has not as many axes as it says")
    names = [str(one.get("name", "")).casefold() for one in axes]
    if names[-2:] != ["y", "x"]:
        raise FaultError(f"its last axes are {names[-2:]}, not y and x", remedy="save it with y and x last")
    others = [index for index, size in enumerate(shape[:-2]) if size > 1]
    if len(others) > 1:
        several = ", ".join(f"{names[index]} ({shape[index]})" for index in others)
        raise FaultError(f"it has several axes beside y and x: {several}", remedy="save one channel and time alone")
    depth = others[0] if others else next((i for i, name in enumerate(names[:-2]) if name == "z"), -1)
    order = (depth, len(shape) - 2, len(shape) - 1)
    steps = [quantities.nm_of(scales[index], axes[index].get("unit") or "") for index in order[2:0:-1]]
    pixel = quantities.square(*steps)
    places = {} if pixel is None else {"pixel_nm": "the scale of the axes"}
    is_tilt = depth >= 0 and {str(axes[depth].get("type")).casefold(), names[depth]} & _TILTS
    is_volume = depth >= 0 and names[depth] == "z" and not is_tilt
    said = Said(pixel_nm=pixel, holds="volume" if is_volume else "series" if is_tilt else None, places=places)
    return order, said
