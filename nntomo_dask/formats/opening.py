"""Opening whatever a path holds: a file of any format, packed or not, a folder, several files, an .mdoc."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import xarray as xr

from nntomo_dask.errors import refuse
from nntomo_dask.formats import FORMATS, angle_sources, folders, frames, mdoc, unpacking
from nntomo_dask.formats.format import Format, format_of
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.formats.joining import Joined
from nntomo_dask.formats.mrc_images import MrcImages

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_WHO = "import"
_PACKED_OTHERWISE = (".xz", ".zst", ".zip", ".7z")
_LOOKED_AT = 2**16  # bytes of metadata that say whose a Zarr folder is


@dataclass(frozen=True)
class Opened:
    """What a path holds: images, their format, the path as it was given, and what lies beside it."""

    images: Images
    kind: type[Format]
    path: Path
    beside: angle_sources.Beside


def opened(path: Paths, options: dict[str, Any], *, unpack_to: Any, is_series: bool) -> Opened | xr.DataArray:
    """The images of a file, a folder or several files; the volume of a format that knows only these.

    Parameters
    ----------
    options
        Keywords of `Format.open_images`; those that are None have not been given.
    unpack_to
        Folder for the copy of a packed file.
    is_series
        Whether a volume is not what is wanted.

    Raises
    ------
    SchemaError
        There is nothing of a known format, or it is damaged, or has none of the options.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(path, str | os.PathLike):
        places = [Path(one) for one in path]
        if not places:
            refuse(_WHO, needs="a file", got="none", remedy="give the path of a file or a folder")
        if len(places) > 1:
            found = [_open_one(place, given, unpack_to, is_series=is_series) for place in places]
            parts = [one for one in found if isinstance(one, Opened)]
            if len(parts) < len(found):
                refuse(_WHO, needs="files of images", got="a volume among them", remedy="give one file")
            notes = tuple(note for one in parts for note in one.beside.notes)
            images = [_with_neighbours(one) for one in parts]
            beside = angle_sources.Beside(None, parts[0].beside.said, notes)
            return Opened(Joined(images), parts[0].kind, places[0], beside)
        path = places[0]
    return _open_one(Path(path), given, unpack_to, is_series=is_series)


def _with_neighbours(opened: Opened) -> Images:
    """The images of one of several files; the angles beside it, where it says none itself."""
    images = opened.images
    if images.said.angles_deg is None and opened.beside.angles is not None:
        angles, place = tuple(map(float, opened.beside.angles.angles_deg)), opened.beside.angles.place
        if len(angles) == images.shape[0]:
            places = images.said.places | {"angles_deg": place}
            images.said = replace(images.said, angles_deg=angles, places=places)
    return images


def _open_one(path: Path, given: dict[str, Any], unpack_to: Any, *, is_series: bool) -> Opened | xr.DataArray:
    if not path.exists():
        refuse_source(path)
    source = path
    if path.is_file() and unpacking.kind(path) is not None:
        source = unpacking.unpacked(path, None if unpack_to is None else Path(unpack_to))
    found = format_of(source)
    if found is not None and source.is_dir():
        folders.check_one_series(source)
    if found is None and mdoc.is_mdoc(source):
        images, found = frames.opened(source, given)
        return Opened(images, found, path, angle_sources.Beside(None, Said(), ()))
    if found is None:
        refuse_source(path)
    unused = [name for name in given if name not in found.options]
    if unused:
        got = f"`{unused[0]}` for {found.title}, {path}"
        refuse(_WHO, needs=f"options that {found.title} has", got=got, remedy=f"leave `{unused[0]}` out")
    if not _opens_images(found):
        if is_series:
            refuse(_WHO, needs="a format that holds tilt series", got=f"{found.title}, {path}", remedy="another file")
        return found.read_volume(source)
    images = found.open_images(source, **given)
    if source != path and isinstance(images, MrcImages):  # its .mdoc lies beside the packed file
        images.said = images.with_beside(path)
    return Opened(images, found, path, angle_sources.beside(path, images.shape[0]))


def _opens_images(kind: type[Format]) -> bool:
    return kind.open_images.__func__ is not Format.open_images.__func__  # type: ignore[attr-defined]


def refuse_angles(path: Path, images: Images) -> NoReturn:
    """Raise a SchemaError: no source says the tilt angles."""
    stem = (path.with_suffix("") if path.suffix.lower() in unpacking.SUFFIXES else path).stem
    looked = f"no file {stem}.rawtlt, .tlt, .txt, .csv or .mdoc beside it, and none in its metadata"
    refuse(
        _WHO,
        needs="the tilt angles of the images",
        got=f"{images.shape[0]} images in {path}, {looked}",
        remedy="`angles=FILE`; or `kind=volume`, if the images are slices of a volume",
    )


def refuse_source(source: Path) -> NoReturn:
    """Raise a SchemaError: what was given is of no known format."""
    titles = ", ".join(one.title for one in FORMATS.values())
    got, remedy = f"{source}, which is none", "save it as one of these by the program that made it"
    if (source / "zarr.json").is_file():
        if b"nntomo_dask" in (source / "zarr.json").read_bytes()[:_LOOKED_AT]:
            got, remedy = f"{source}, which is a store already", "use it as it is"
        else:
            got, remedy = f"{source}, a Zarr folder whose metadata are none of OME-Zarr", "copy the folder again"
    elif source.is_dir():
        folders.refuse_folder(source)
    elif not source.exists():
        got, remedy = f"nothing at {source}", "check the path"
    elif source.suffix.lower() in _PACKED_OTHERWISE:
        got, remedy = f"{source}, which is compressed", "unpack it first"
    refuse(_WHO, needs=f"a file of a known format ({titles})", got=got, remedy=remedy)
