"""TIA's .ser files of images, with the .emi file beside them.

RosettaSciIO reads all pixels before it tells their shape, so the headers are read here. The layout is described by
C. Boothroyd, https://personal.ntu.edu.sg/cbb/info/TIAformat/.
"""

import re
import struct
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple
from xml.etree import ElementTree

import numpy as np

from nntomo_dask.errors import refuse
from nntomo_dask.formats import FORMATS, faults, quantities, stored
from nntomo_dask.formats.faults import FaultError, choose, reading
from nntomo_dask.formats.format import Format
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.formats.source import Source
from nntomo_dask.formats.stored import Opened, StoredImages

_SUFFIXES = (".ser",)
_VERSIONS = (0x210, 0x220)
_LITTLE, _SERIES, _IMAGES = 0x4949, 0x0197, 0x4122
_TYPES = {1: "u1", 2: "u2", 3: "u4", 4: "i1", 5: "i2", 6: "i4", 7: "f4", 8: "f8"}
_HEAD = struct.Struct("<HHHIIII")
_ELEMENT = struct.Struct("<ddiddiHII")
_TAGGED = (0x4152, 0x4142)  # with a time; with a time and a position
_LONGEST_EMI = 2**28  # bytes
_LONGEST_OBJECT = 2**20  # bytes of a description in it
_MOST_DIMS = 8


@FORMATS.register
class Ser(Format):
    """Images of TIA (FEI): a .ser file, the .emi file that belongs to it, or a folder of .ser files."""

    name: ClassVar[str] = "ser"
    title: ClassVar[str] = "SER"
    suffixes: ClassVar[tuple[str, ...]] = (*_SUFFIXES, ".emi")
    options: ClassVar[tuple[str, ...]] = ("dataset",)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By byte order and kind at the beginning; a folder by its first such file."""
        return stored.is_folder_of(path, _SUFFIXES, _is_ser) or _is_ser(path)

    @classmethod
    def open_images(cls, path: Path, *, dataset: str | None = None, **options: Any) -> Images:
        """See `Format.open_images`. Of an .emi file the .ser files beside it are the datasets, by name."""
        if path.suffix.lower() == ".emi" and not path.is_dir():
            files = [file for file in stored.in_folder(path.parent, _SUFFIXES) if _emi_of(file) == path.with_suffix("")]
            if not files:
                refuse(
                    "import",
                    needs="a .ser file beside it",
                    got=f"none beside {path}",
                    remedy="copy it from the microscope",
                )
            path = files[choose(path, [file.name for file in files], dataset, what=".ser file")]
        return stored.images_at(path, _SUFFIXES, _opened)


class _Element(NamedTuple):
    """The header of an image: its first byte of pixels, type and size, and the edges of a pixel, in m."""

    offset: int
    dtype: "np.dtype[Any]"
    width: int
    height: int
    across_m: float
    down_m: float


def _is_ser(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError:
        return False
    return head == struct.pack("<HH", _LITTLE, _SERIES)


def _opened(path: Path) -> Opened:
    with reading(path, "a whole .ser file of images"):
        source = Source.of(path)
        with path.open("rb") as file:
            elements, times = _elements(file, source.size)
        first = elements[0]
        if any(one._replace(offset=0) != first._replace(offset=0) for one in elements):
            raise FaultError("its images differ in size, type or magnification", remedy=faults.APART)
        shape = stored.shape_of((len(elements), first.height, first.width))
        emi, facts = _facts(path)
        said = _said(first, shape[0], facts, times)
        offsets = tuple(one.offset for one in elements)
    # The first line that is stored is the lowest one: TIA's y goes up.
    return Opened(StoredImages(shape, first.dtype, "bottom", said, (source, *emi), offsets), times)


def _elements(file: IO[bytes], size: int) -> tuple[list[_Element], tuple[float | None, ...]]:
    """The headers of all images that were recorded, and their times in seconds."""

    def at(place: int, form: struct.Struct) -> tuple[Any, ...]:
        if not 0 <= place <= size - form.size:
            raise FaultError("it ends before its headers do")
        file.seek(place)
        return form.unpack(file.read(form.size))

    order, series, version, kind, tag_kind, total, valid = at(0, _HEAD)
    if (order, series) != (_LITTLE, _SERIES):
        raise FaultError("it does not begin as .ser files do")
    if kind != _IMAGES:
        raise FaultError("it holds spectra, not images", remedy="give the file of the images")
    if version not in _VERSIONS:
        raise FaultError(
            f"its version is {version:#x}, which is not read", remedy="save it as TIA does now, or as TIFF"
        )
    wide = version > 0x210
    place = struct.Struct("<Q" if wide else "<I")
    (table,) = at(_HEAD.size, place)
    (dims,) = at(_HEAD.size + place.size, struct.Struct("<I"))
    if not 1 <= valid <= total or total > (size - table) // place.size or valid > stored.LONGEST_EDGE:
        raise FaultError(f"it says that it has {valid} of {total} images")
    if dims > _MOST_DIMS:
        raise FaultError(f"it says that it has {dims} dims")
    elements, times = [], []
    for index in range(valid):
        (begin,) = at(table + index * place.size, place)
        _, across, _, _, down, _, code, width, height = at(begin, _ELEMENT)
        if code not in _TYPES:
            raise FaultError(f"its pixels are of type {code}, which is not read", remedy=faults.REAL)
        dtype = np.dtype("<" + _TYPES[code])
        pixels = begin + _ELEMENT.size
        if width * height * dtype.itemsize > size - pixels:
            raise FaultError("it ends before its images do")
        elements.append(_Element(pixels, dtype, width, height, abs(across), abs(down)))
        times.append(_time(at, table + (total + index) * place.size, place) if tag_kind in _TAGGED else None)
    return elements, tuple(times)


def _time(at: Any, entry: int, place: struct.Struct) -> float | None:
    """When an image was taken, in whole seconds, of its tag."""
    try:
        (tag,) = at(entry, place)
        kind, seconds = at(tag, struct.Struct("<HxxI"))
    except FaultError:
        return None
    return float(seconds) if kind in _TAGGED else None


def _emi_of(path: Path) -> Path:
    """The .emi file of a .ser file without its suffix: a_1.ser belongs to a.emi."""
    return path.with_name(re.sub(r"_\d+$", "", path.stem))


def _facts(path: Path) -> tuple[tuple[Source, ...], dict[str, str]]:
    """What the .emi file says of a .ser file by label and unit; its source, where it is there."""
    found = next((file for suffix in (".emi", ".EMI") if (file := Path(f"{_emi_of(path)}{suffix}")).is_file()), None)
    number = re.search(r"_(\d{1,6})$", path.stem)
    if found is None:
        return (), {}
    source = Source.of(found)
    if source.size > _LONGEST_EMI:
        raise FaultError(f"{found.name} beside it is larger than {_LONGEST_EMI} bytes")
    content = found.read_bytes()
    begin = -1
    for _ in range(int(number[1]) if number else 1):
        begin = content.find(b"<ObjectInfo>", begin + 1)
        if begin < 0:
            return (source,), {}
    end = content.find(b"</ObjectInfo>", begin, begin + _LONGEST_OBJECT)
    text = content[begin : end + len(b"</ObjectInfo>")] if end > 0 else b""
    if not text or b"<!" in text:  # no entities of its own
        return (source,), {}
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return (source,), {}
    facts = {}
    for data in tree.iterfind("./ExperimentalDescription/Root/Data"):
        label, unit = data.findtext("Label") or "", data.findtext("Unit") or ""
        facts[f"{label} [{unit}]" if unit else label] = data.findtext("Value") or ""
    for name in ("CameraNamePath", "DetectorName"):
        for value in tree.iterfind(f".//{name}"):
            facts.setdefault("detector", value.text or "")
    return (source,), facts


def _said(first: _Element, count: int, facts: dict[str, str], times: tuple[float | None, ...]) -> Said:
    places = {}
    mode = facts.get("Mode", "")
    pixel = None
    if "diffraction" not in mode.casefold() or "STEM" in mode:
        pixel = quantities.square(*(quantities.nm_of(edge, "m") for edge in (first.across_m, first.down_m)))
    if pixel is not None:
        places["pixel_nm"] = "the calibration of the images"
    angle = quantities.finite(facts.get("Stage A [deg]"))
    if angle is not None and count == 1:
        places["angles_deg"] = "the stage's alpha tilt in the .emi file"
    order = quantities.order_of(times)
    if order is not None:
        places["order"] = "the times of acquisition"
    return Said(
        angles_deg=(angle,) if angle is not None and count == 1 else None,
        pixel_nm=pixel,
        voltage_kv=quantities.positive(facts.get("High tension [kV]")),
        magnification=quantities.positive(facts.get("Magnification [x]")),
        detector=facts.get("detector") or None,
        order=order,
        places=places,
    )
