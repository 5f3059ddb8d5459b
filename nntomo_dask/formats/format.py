"""What a file format says of itself, and which format a file has."""

from abc import ABC
from pathlib import Path
from typing import Any, ClassVar, Literal

import xarray as xr

from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.formats import FORMATS
from nntomo_dask.formats.images import Images

TiltAxis = Literal["x", "y"]


class Format(ABC):
    """A file format. Subclasses override what they can do: opening images, writing.

    Attributes
    ----------
    name
        What it is called.
    title
        What messages call it: "MRC".
    suffixes
        How the names of its files end, in lower case; the first is the usual one.
    writing
        The declaration of the settings of `write`, a dataclass; None where it has none.
    options
        Names of the keywords that `open_images` takes: "dataset", which of several series in a file; "byte_kind",
        whether bytes are signed.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    writing: ClassVar[type | None] = None
    options: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a file, or a folder, is of this format by its content; where that cannot tell, its name decides."""
        return False

    @classmethod
    def open_images(cls, path: Path, **options: Any) -> Images:
        """Open a file, or a folder, as images in its own order, with what it says of them.

        Nothing but headers and metadata is read, and no memory is taken for sizes that the file does not have.

        Parameters
        ----------
        path
            A file or a folder that `recognises` took.
        **options
            Those among `options` that the user gave.

        Raises
        ------
        SchemaError
            It is damaged, of another version, or holds no images; or it holds several series, and `dataset` does not
            say which (the error names them).
        """
        refuse("import", needs="a format that holds images", got=f"{cls.title}, {path}", remedy="another file")

    @classmethod
    def read_volume(cls, path: Path) -> xr.DataArray:
        """A lazy volume, where a format knows more of it than its images say; by default they are stacked."""
        refuse("import", needs="a format that holds volumes", got=f"{cls.title}, {path}", remedy="another file")

    @classmethod
    def write(cls, array: xr.DataArray, path: Path, *, how: Any = None) -> list[Path]:
        """Write a volume or a tilt series by `aside.written`; returns the files. `outputs` have been checked before.

        Where the format has settings of writing, `how` is an instance of `writing`.
        """
        refuse("export", needs="a format that can be written", got=cls.title, remedy="another suffix")

    @classmethod
    def is_folder(cls, path: Path) -> bool:
        """Whether what `write` makes at a path is a folder, by `aside.written_folder`."""
        return False

    @classmethod
    def may_replace(cls, path: Path) -> bool:
        """Whether the folder at a path was made by `write`, so that it may be replaced."""
        return False

    @classmethod
    def outputs(cls, array: xr.DataArray, path: Path) -> list[Path]:
        """Every file that `write` makes."""
        return [path]

    @classmethod
    def is_written(cls, array: xr.DataArray, path: Path, output: Path) -> bool:
        """Whether one of the `outputs` is there already as `write` would write it, so that it is in nobody's way."""
        return False


def format_of(path: Path) -> type[Format] | None:
    """The format of a file, by its content, else by its name; None where no format recognises it."""
    kinds = list(FORMATS.values())
    by_content = (kind for kind in kinds if kind.recognises(path))
    by_name = (kind for kind in kinds if path.suffix.lower() in kind.suffixes)
    return next(by_content, None) or next(by_name, None)


def is_written(kind: type[Format]) -> bool:
    """Whether files of a format can be written."""
    return kind.write.__func__ is not Format.write.__func__  # type: ignore[attr-defined]


def format_to_write(path: Path, *, who: str) -> type[Format]:
    """The format by the suffix of a name.

    Raises
    ------
    SchemaError
        No format that can be written has this suffix.
    """
    kinds = [kind for kind in FORMATS.values() if is_written(kind)]
    for kind in kinds:
        if path.name.lower().endswith(kind.suffixes):
            return kind
    suffixes = ", ".join(suffix for kind in kinds for suffix in kind.suffixes)
    refuse(who, needs=f"a name that ends in {suffixes}", got=str(path), remedy="another suffix")


def host_bytes(shape: chunking.SlabShape) -> int:
    """Bytes of a slab (slices, angles, detector) that is read from a file and written to a store."""
    slices, angles, detector = shape
    return slices * (chunking.READ + chunking.WRITTEN) * chunking.rows_bytes(angles, detector)
