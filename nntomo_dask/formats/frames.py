"""A series by its .mdoc: the stack that it is about, or the files of frames that it names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from nntomo_dask.errors import refuse
from nntomo_dask.formats import mdoc
from nntomo_dask.formats.format import Format, format_of
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.formats.joining import Joined

_FOLDERS = ("", "frames", "Frames", "raw", "..")  # where frames lie, from the folder of the .mdoc
_SUFFIXES = (".mrc", ".st", ".mrcs", ".tif", ".tiff")


def opened(path: Path, options: dict[str, Any]) -> tuple[Images, type[Format]]:
    """The images that an .mdoc is about, with what it says.

    Raises
    ------
    SchemaError
        They are not there, or it is about others.
    """
    said = mdoc.read(path)
    stack = _stack_of(path, said)
    if stack is not None:
        kind = _kind_of(stack)
        images = _opened(stack, kind, options)
        said.check_fits(images.shape, stack)
        images.said = _over(images.said, said.said())
        return images, kind
    names = said.frame_files
    if names is None:
        got = f"{path}, and neither {said.image_file or 'its stack'} nor SubFramePath"
        refuse("import", needs="the images that an .mdoc is about, beside it", got=got, remedy="copy them there")
    files = [_found(path.parent, name, path) for name in names]
    kind = _kind_of(files[0])
    parts = [_opened(file, _kind_of(file), options) for file in files]
    whole = said.said()
    for place, part in enumerate(parts):
        part.said = _over(part.said, _of_section(whole, place, part.shape[0]))
    return Joined(parts), kind


def _stack_of(path: Path, said: mdoc.Mdoc) -> Path | None:
    """The stack of the same name, or of the name that it had."""
    if any(section.image is None for section in said.sections):
        return None
    names = [path.with_suffix("").name, *(f"{path.stem}{suffix}" for suffix in _SUFFIXES)]
    names += [said.image_file] if said.image_file else []
    there = {one.name.lower(): one for one in path.parent.iterdir() if one.is_file() and one != path}
    places = [there[name.lower()] for name in names if name.lower() in there]
    return next((one for one in places if not mdoc.is_mdoc(one)), None)


def _found(folder: Path, name: str, source: Path) -> Path:
    places = [folder / one / name for one in _FOLDERS] if name not in ("", ".", "..") else []
    for place in places:
        if place.is_file():
            return place
    refuse(
        "import",
        needs="the files of frames that an .mdoc names, beside it or in frames/",
        got=f"no {name} for {source}",
        remedy="copy them there",
    )


def _kind_of(path: Path) -> type[Format]:
    kind = format_of(path)
    if kind is None:
        refuse("import", needs="images of a known format", got=f"{path}, which is none", remedy="another file")
    return kind


def _opened(path: Path, kind: type[Format], options: dict[str, Any]) -> Images:
    return kind.open_images(path, **{name: value for name, value in options.items() if name in kind.options})


def _of_section(said: Said, place: int, frames: int) -> Said:
    """What a section says of each frame of its file; exposure and dose are shared out."""
    values: dict[str, Any] = {}
    for name in ("angles_deg", "acquired"):
        each = getattr(said, name)
        values[name] = None if each is None else (each[place],) * frames
    for name in ("exposure_s", "dose_e_per_a2"):
        each = getattr(said, name)
        values[name] = None if each is None else (each[place] / frames,) * frames
    return replace(said, **values, order=None)


def _over(own: Said, other: Said) -> Said:
    """What another place says, and what the file itself says where that says nothing."""
    names = [name for name in Said.__dataclass_fields__ if name != "places"]
    values = {name: getattr(own, name) if getattr(other, name) is None else getattr(other, name) for name in names}
    return Said(**values, places=own.places | other.places)
