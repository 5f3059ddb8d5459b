"""TIFF: stacks of ImageJ, OME-TIFF and others, and folders of TIFFs, by tifffile."""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse
from nntomo_dask.formats import FORMATS, faults, ours, quantities, stored
from nntomo_dask.formats.faults import FaultError, choose, reading
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.formats.source import Source
from nntomo_dask.formats.stored import Opened, StoredImages
from nntomo_dask.formats.tiff_writing import TiffWriting

_SUFFIXES = (".tif", ".tiff")
_NEEDS = "a whole TIFF of grey images"
_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_INFO = 65000  # the tag in which a BigTIFF of this package says what it is
_MOST_PAGES = 2**16
_MOST_IMAGE_BYTES = 2**31
_MOST_TEXT = 2**24  # bytes of a description
_MOST_RATIO = 1100  # deflate makes at most 1032 bytes of one; LZW, PackBits and LZMA of numbers less
# Codes of compressions without loss: none, LZW, deflate by two codes, PackBits, Zstandard, LZMA.
_COMPRESSIONS = {1, 5, 8, 32946, 32773, 50000, 34925}
_GREY = {0, 1}  # codes of grey images, white or black for zero
_LARGEST_NM = 1000.0  # a pixel for which a resolution in dots is that of a microscope, not of a printer


@FORMATS.register
class Tiff(TiffWriting):
    """Grey TIFFs: one of several images, or a folder of TIFFs in the order of the numbers in their names."""

    name: ClassVar[str] = "tiff"
    title: ClassVar[str] = "TIFF"
    suffixes: ClassVar[tuple[str, ...]] = _SUFFIXES
    options: ClassVar[tuple[str, ...]] = ("dataset",)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the first bytes; a folder by its first such file."""
        return stored.is_folder_of(path, _SUFFIXES, _is_tiff) or _is_tiff(path)

    @classmethod
    def open_images(cls, path: Path, *, dataset: str | None = None, **options: Any) -> Images:
        """See `Format.open_images`. The datasets of an OME-TIFF are its images, by their names or numbers."""
        return stored.images_at(path, _SUFFIXES, lambda file: _opened(file, dataset))


def _is_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGICS
    except OSError:
        return False


@contextmanager
def _tiff(source: Source) -> Iterator[Any]:
    """The file, open for reading; a SchemaError where it has changed since it became a source."""
    import tifffile

    source.check()
    faults = _Faults()
    logger = logging.getLogger("tifffile")
    logger.addHandler(faults)
    try:
        # Other files of a multi-file OME-TIFF are not opened.
        with tifffile.TiffFile(source.path, _multifile=False) as tiff:
            yield tiff
    finally:
        logger.removeHandler(faults)
    faults.refuse()
    source.check()


class _Faults(logging.Handler):
    """What tifffile says of the pages while this thread reads a file: it leaves out pages that it cannot read."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread, self.found = threading.get_ident(), ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first remark on a page."""
        text = record.getMessage()
        if record.thread == self.thread and re.search(r"TiffPage|TiffFrame|corrupted", text):
            self.found = self.found or text

    def refuse(self) -> None:
        """Raise a FaultError where there was one."""
        if self.found:
            raise FaultError(self.found)


@dataclass
class PagedImages(stored.FileImages):
    """Images of a TIFF that are compressed, or lie in the file in pieces: each is read as a whole.

    Attributes
    ----------
    offsets
        Where the description of each image begins.
    """

    offsets: tuple[int, ...]
    reads: Literal["lines", "images"] = "images"

    def read(self, image: int, lines: slice, columns: slice) -> npt.NDArray[Any]:
        """See `Images.read`."""
        import tifffile

        lines, columns = stored.part_of(self.shape, lines, columns)
        with reading(Path(self.sources[0].path), _NEEDS), _tiff(self.sources[0]) as tiff:
            tiff.filehandle.seek(self.offsets[image])
            page = tifffile.TiffPage(tiff, image)
            _check_page(page, self.sources[0].size)
            if (page.imagelength, page.imagewidth) != self.shape[1:] or page.dtype != self.dtype.newbyteorder("="):
                raise FaultError("its images differ in size or type", remedy=faults.APART)
            values = np.asarray(page.asarray(maxworkers=1)).reshape(self.shape[1:])
            return np.ascontiguousarray(values[lines, columns].astype(self.dtype, copy=False))


def _opened(path: Path, dataset: str | None) -> Opened:
    with reading(path, _NEEDS):
        source = Source.of(path)
        with _tiff(source) as tiff:
            if len(tiff.pages) > _MOST_PAGES:
                raise FaultError(f"it has more than {_MOST_PAGES} images")
            text = tiff.ome_metadata or ""
            if len(text) > _MOST_TEXT or "<!DOCTYPE" in text or "<!ENTITY" in text:  # no entities of its own
                raise FaultError("its description is none of OME")
            series = list(tiff.series)
            if not series:
                raise FaultError("it has no images")
            if tiff.is_ome:
                names = [str(one.name or number) for number, one in enumerate(series)]
                found = series[choose(path, names, dataset, what="image of the file")]
            elif len(series) > 1:
                shapes = ", ".join(str(tuple(one.shape)) for one in series[:5])
                refuse(
                    "import",
                    needs="images of one size and type",
                    got=f"images of {shapes} in {path}",
                    remedy="save those of the series to a file of their own",
                )
            else:
                found = series[0]
            images = _images(tiff, found, source)
            if tiff.is_imagej:  # of a volume; ImageJ calls any stack one of slices
                described = tiff.imagej_metadata or {}
                apart = quantities.nm_of(
                    quantities.positive(described.get("spacing")) or 0.0, described.get("unit", "")
                )
                images.slice_step = quantities.ratio(apart, images.said.pixel_nm)
            ours.apply(images, _about(tiff))
    return Opened(images, (None,) * images.shape[0])


def _images(tiff: Any, series: Any, source: Source) -> Images:
    first = series.keyframe
    _check_page(first, source.size)
    sizes = [size for size, axis in zip(series.shape, series.axes, strict=True) if size > 1 or axis in "YX"]
    shape = stored.shape_of(sizes)
    if shape[1:] != (first.imagelength, first.imagewidth):
        raise FaultError(f"its axes are {series.axes}, whose last are not y and x")
    said = _said(tiff, series)
    dtype = np.dtype(first.dtype).newbyteorder(tiff.byteorder)
    image_bytes = dtype.itemsize * shape[1] * shape[2]
    if series.dataoffset is not None:  # all images lie one after another, as ImageJ writes them
        begin = int(series.dataoffset)
        if not 0 <= begin <= source.size - prod(shape) * dtype.itemsize:
            raise FaultError("it ends before its images do")
        offsets = tuple(begin + index * image_bytes for index in range(shape[0]))
        return StoredImages(shape, dtype, "top", said, (source,), offsets)
    pages = list(series.pages)
    if len(pages) != shape[0] or any(page is None for page in pages):
        raise FaultError(f"it has {len(pages)} images, not {shape[0]}")
    pages = [page.aspage() for page in pages]
    for page in pages:
        _check_page(page, source.size)
        if (page.imagelength, page.imagewidth, page.dtype) != (first.imagelength, first.imagewidth, first.dtype):
            raise FaultError("its images differ in size or type", remedy=faults.APART)
    if all(page.is_contiguous and page.compression == 1 for page in pages):
        begins = tuple(int(page.dataoffsets[0]) for page in pages)
        if any(not 0 <= begin <= source.size - image_bytes for begin in begins):
            raise FaultError("it ends before its images do")
        return StoredImages(shape, dtype, "top", said, (source,), begins)
    return PagedImages(shape, dtype, "top", said, (source,), tuple(int(page.offset) for page in pages))


def _check_page(page: Any, size: int) -> None:
    """Raise a FaultError where an image is none that is read, or would become larger than what is stored can."""
    if page.samplesperpixel != 1 or int(page.photometric) not in _GREY:
        raise FaultError("its images are coloured", remedy="convert them to grey by the program that made them")
    if page.dtype is None or page.dtype.kind not in "iuf" or page.dtype.itemsize * 8 != page.bitspersample:
        raise FaultError(
            f"its values are of {page.bitspersample} bits or no real numbers, which is not read",
            remedy="save it with integers or floats of 8, 16 or 32 bits",
        )
    if int(page.compression) not in _COMPRESSIONS:
        raise FaultError(f"its compression, {int(page.compression)}, is not read", remedy="save it without compression")
    if page.imagedepth != 1 or not 0 < page.nbytes <= _MOST_IMAGE_BYTES:
        raise FaultError("its images are too large")
    kept = sum(page.databytecounts)
    if not 0 < kept <= size or page.nbytes > (kept if page.compression == 1 else kept * _MOST_RATIO):
        raise FaultError("it ends before its images do")
    pieces = zip(page.dataoffsets, page.databytecounts, strict=True)
    if any(begin < 0 or count < 0 or begin + count > size for begin, count in pieces):
        raise FaultError("it ends before its images do")


def _said(tiff: Any, series: Any) -> Said:
    pixel, place = _of_ome(tiff, series) if tiff.is_ome else _of_imagej(tiff) if tiff.is_imagej else _of_dots(tiff)
    return Said(pixel_nm=pixel, places={} if pixel is None else {"pixel_nm": place})


def _about(tiff: Any) -> Any:
    """The text in which a file of this package says what it is."""
    if tiff.is_imagej and isinstance(tiff.imagej_metadata, dict) and "Info" in tiff.imagej_metadata:
        return tiff.imagej_metadata["Info"]
    tag = tiff.pages[0].tags.get(_INFO)
    return tag.value if tag is not None and tag.count <= _MOST_TEXT else None


def _of_imagej(tiff: Any) -> tuple[float | None, str]:
    unit = (tiff.imagej_metadata or {}).get("unit", "")
    return quantities.square(*(_edge(tiff, axis, unit) for axis in "XY")), "the calibration of ImageJ"


def _of_dots(tiff: Any) -> tuple[float | None, str]:
    """The resolution in dots an inch or a centimetre, where it is one of a microscope."""
    unit = tiff.pages[0].tags.valueof("ResolutionUnit", 2)
    factor = {2: 2.54, 3: 1.0}.get(int(unit))
    if factor is None:
        return None, ""
    edges = [_edge(tiff, axis, "cm") for axis in "XY"]
    if any(edge is None or edge * factor > _LARGEST_NM for edge in edges):
        return None, ""
    return quantities.square(*(edge * factor for edge in edges if edge is not None)), "the resolution of the image"


def _edge(tiff: Any, axis: str, unit: object) -> float | None:
    """The edge of a pixel in nm, by the pixels in a unit."""
    value = tiff.pages[0].tags.valueof(f"{axis}Resolution", None)
    if not isinstance(value, tuple) or len(value) != 2 or not value[0] or not value[1]:
        return None
    return quantities.nm_of(value[1] / value[0], unit)


def _of_ome(tiff: Any, series: Any) -> tuple[float | None, str]:
    pixels = ElementTree.fromstring(tiff.ome_metadata).findall(".//{*}Pixels")
    number = list(tiff.series).index(series)
    if number >= len(pixels):
        return None, ""
    found = pixels[number]
    edges = []
    for axis in "XY":
        size = quantities.positive(found.get(f"PhysicalSize{axis}"))
        unit = found.get(f"PhysicalSize{axis}Unit", "µm")  # what is meant where none is stated
        edges.append(None if size is None else quantities.nm_of(size, unit))
    return quantities.square(*edges), "the description of OME"
