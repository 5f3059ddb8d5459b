"""What a folder holds, and how it is refused where that is not the images of one series."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from nntomo_dask.errors import refuse
from nntomo_dask.formats import FORMATS, stored
from nntomo_dask.formats.format import Format

_SHOWN = 3  # names of each format
_OF_SERIES = (".rawtlt", ".tlt")  # files of angles that belong to a file of images
_NEEDS = "a folder of the images of one series"

Images = dict[type[Format], list[Path]]


def images_in(folder: Path) -> Images:
    """The files in a folder that are images by their names, of each format."""
    found: Images = {}
    for kind in FORMATS.values():
        taken = {path for files in found.values() for path in files}
        try:
            files = [path for path in stored.in_folder(folder, kind.suffixes) if path not in taken]
        except OSError:
            return {}
        if files:
            found[kind] = files
    return found


def check_one_series(folder: Path) -> None:
    """Raise a SchemaError where a folder holds images of two formats, or files that have angles of their own."""
    found = images_in(folder)
    if len(found) > 1:
        listed = "; ".join(f"{kind.title}: {_names(files)}" for kind, files in found.items())
        refuse(
            "import",
            needs=_NEEDS,
            got=f"images of {len(found)} formats in {folder} ({listed})",
            remedy="give the file, or the files, of the series instead of the folder",
        )
    for files in found.values():
        with_angles = [file for file in files if any(file.with_suffix(suffix).is_file() for suffix in _OF_SERIES)]
        if len(with_angles) > 1:
            refuse(
                "import",
                needs=_NEEDS,
                got=f"{len(with_angles)} series in {folder}, each with its own angles: {_names(with_angles)}",
                remedy=f"choose one of them, {with_angles[0]}; or give the files of one series, FILE FILE …",
            )


def refuse_folder(folder: Path) -> NoReturn:
    """Raise a SchemaError: a folder is no series. It says what is in the folder."""
    check_one_series(folder)
    titles = ", ".join(kind.title for kind in FORMATS.values())
    files = [file for found in images_in(folder).values() for file in found]
    try:
        folders = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:
        folders = []
    if len(files) == 1:
        got, remedy = f"{folder}, in which one file is of images, {files[0].name}", f"give that file: {files[0]}"
    elif files:
        got = f"{folder}, with {len(files)} files that are no series together: {_names(files)}"
        remedy = f"choose one of them, {files[0]}; or give the files of one series, FILE FILE …"
    elif folders:
        got = f"{folder}, without images, but with {len(folders)} folders: {_names(folders)}"
        remedy = f"choose one of them: {folders[0]}"
    else:
        got, remedy = f"{folder}, a folder without images", "check the path"
    refuse("import", needs=f"{_NEEDS}, of a known format ({titles})", got=got, remedy=remedy)


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files[:_SHOWN]) + (
        f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    )
