"""What extended headers of MRC files say of each image: FEI's three forms, SerialEM's, and Agard's.

Sources: the MRC2014 pages of CCP-EM and the description of FEI1 and FEI2 by Thermo Fisher, which mrcfile follows too;
IMOD's description of MRC files for SerialEM's and Agard's. Old FEI files have 1,024 blocks of 32 floats.
"""

import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nntomo_dask.formats.images import Said
from nntomo_dask.formats.mrc_header import HEADER_BYTES, Header

_NM, _A2_PER_M2 = 1e9, 1e-20
_OLD_FEI_BLOCKS, _OLD_FEI_BLOCK = 1024, 128
_OLD_FEI = np.dtype(
    {
        "names": ["angle", "exposure", "axis", "pixel", "magnification", "voltage"],
        "formats": ["f4"] * 6,
        "offsets": [0, 32, 40, 44, 48, 52],
        "itemsize": _OLD_FEI_BLOCK,
    }
)
# FEI1 and FEI2 agree up to here. What nobody filled in is zero.
_FEI_FIELDS = (
    ("voltage", "dose", "angle", "axis", "pixel", "magnification", "exposure", "camera", "detector"),
    ("f8", "f8", "f8", "f8", "f8", "f8", "f8", "S16", "S16"),
    (84, 92, 100, 140, 156, 289, 419, 435, 519),
)
_FEI_BYTES = {"FEI1": 768, "FEI2": 888}
# SerialEM: bytes of what each bit of the flags announces, in this order.
_SERIALEM = ((1, 2), (2, 6), (4, 4), (8, 2), (16, 2), (32, 4), (64, 2), (128, 4), (256, 2), (512, 4), (1024, 2))
_TILT, _MAGNIFICATION, _DOSE = 1, 8, 32


def said(path: Path, header: Header) -> Said:
    """What an extended header says; nothing where it is of no known form, or holds nothing sensible."""
    if not header.extended_bytes:
        return Said()
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        raw = file.read(header.extended_bytes)
    if header.extended_kind in _FEI_BYTES:
        return _of_fei(raw, header, _FEI_BYTES[header.extended_kind])
    if header.extended_kind == "SERI" or (not header.extended_kind and _fits_serialem(header, len(raw))):
        return _of_serialem(raw, header)
    if header.extended_kind == "AGAR" or (header.words == (0, 32) and not _is_old_fei(header)):
        return _of_agard(raw, header)
    if _is_old_fei(header):
        return _of_old_fei(raw, header)
    return Said()


def _is_old_fei(header: Header) -> bool:
    is_fei = any(label.lower().startswith("fei company") for label in header.labels)
    size = header.extended_bytes
    in_blocks = size % _OLD_FEI_BLOCK == 0 and size >= _OLD_FEI_BLOCK * min(header.sections, _OLD_FEI_BLOCKS)
    return in_blocks and (is_fei or (size == _OLD_FEI_BLOCKS * _OLD_FEI_BLOCK and not header.extended_kind))


def _of_old_fei(raw: bytes, header: Header) -> Said:
    table = _table(raw, _OLD_FEI, header)
    if table is None:
        return Said()
    place = "the FEI extended header"
    pixel, axis = _one(table["pixel"]), _one(table["axis"])
    found = _placed(
        place,
        angles_deg=_angles(table["angle"]),
        pixel_nm=pixel * _NM if pixel is not None and 0 < pixel < 1e-3 else None,
        # Zero is what stands there where nobody has calibrated it.
        tilt_axis_deg=axis if axis else None,
        voltage_kv=_kilovolts(_one(table["voltage"])),
        magnification=_positive(_one(table["magnification"])),
        exposure_s=_positives(table["exposure"]),
    )
    return found


def _of_fei(raw: bytes, header: Header, block: int) -> Said:
    first = struct.unpack_from(f"{header.order}i", raw)[0] if len(raw) >= 4 else 0
    if first != block and 600 <= first <= 4096:  # a later version says how long its blocks are
        block = first
    names, formats, offsets = _FEI_FIELDS
    size = max(block, _FEI_BYTES["FEI1"])
    kind = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
    table = _table(raw, kind, header)
    if table is None:
        return Said()
    pixel, axis, dose = _one(table["pixel"]), _one(table["axis"]), _positives(table["dose"])
    detector = next((text for name in ("detector", "camera") if (text := _text(table[name][0]))), None)
    return _placed(
        f"the {header.extended_kind} extended header",
        angles_deg=_angles(table["angle"]),
        tilt_axis_deg=axis if axis else None,
        pixel_nm=pixel * _NM if pixel is not None and 0 < pixel < 1e-3 else None,
        voltage_kv=_kilovolts(_one(table["voltage"])),
        dose_e_per_a2=None if dose is None else tuple(one * _A2_PER_M2 for one in dose),
        magnification=_positive(_one(table["magnification"])),
        exposure_s=_positives(table["exposure"]),
        detector=detector,
    )


def _of_agard(raw: bytes, header: Header) -> Said:
    integers, reals = header.words
    if integers < 0 or reals < 1:
        return Said()
    block = 4 * (integers + reals)
    kind = np.dtype({"names": ["angle"], "formats": ["f4"], "offsets": [4 * integers], "itemsize": block})
    table = _table(raw, kind, header)
    return Said() if table is None else _placed("the Agard extended header", angles_deg=_angles(table["angle"]))


def _fits_serialem(header: Header, size: int) -> bool:
    block, flags = header.words
    return flags > 0 and block == _serialem_bytes(flags) and size >= block * header.sections


def _serialem_bytes(flags: int) -> int:
    return sum(size for bit, size in _SERIALEM if flags & bit)


def _of_serialem(raw: bytes, header: Header) -> Said:
    block, flags = header.words
    if flags < 1 or block < 2 or block != _serialem_bytes(flags) or len(raw) < block * header.sections:
        return Said()
    offsets, offset = {}, 0
    for bit, size in _SERIALEM:
        if flags & bit:
            offsets[bit] = offset
            offset += size
    blocks = np.frombuffer(raw, np.uint8, block * header.sections).reshape(header.sections, block)

    def shorts(bit: int, count: int) -> Any:
        part = blocks[:, offsets[bit] : offsets[bit] + 2 * count].copy()
        return part.view(f"{header.order}i2").astype(np.int64)

    dose = None
    if flags & _DOSE:
        dose = _positives([_of_two_shorts(int(one), int(two)) for one, two in shorts(_DOSE, 2)])
    magnification = 100.0 * int(shorts(_MAGNIFICATION, 1)[0, 0]) if flags & _MAGNIFICATION else None
    return _placed(
        "SerialEM's extended header",
        angles_deg=_angles(shorts(_TILT, 1)[:, 0] / 100.0) if flags & _TILT else None,
        magnification=_positive(magnification),
        dose_e_per_a2=dose,
    )


def _of_two_shorts(one: int, two: int) -> float:
    """A number as SerialEM packs it: mantissa of 24 bits with the sign of the first, exponent with that of the second.

    ``sign(one) (256 |one| + |two| mod 256) · 2^(sign(two) ⌊|two| / 256⌋)``
    """
    mantissa = 256 * abs(one) + abs(two) % 256
    exponent = (abs(two) // 256) * (1 if two >= 0 else -1)
    return float((1 if one >= 0 else -1) * mantissa * 2.0**exponent)


def _table(raw: bytes, kind: "np.dtype[Any]", header: Header) -> Any:
    """A block for each image; None where there are fewer."""
    ordered = kind.newbyteorder(header.order)
    if len(raw) < ordered.itemsize * header.sections:
        return None
    return np.frombuffer(raw, ordered, header.sections)


def _angles(values: Any) -> tuple[float, ...] | None:
    """Tilt angles, unless they can be none: not finite, beyond ±180°, or all of several zero."""
    angles = np.asarray(values, np.float64)
    if not np.isfinite(angles).all() or np.abs(angles).max(initial=0) > 180 or (angles.size > 1 and not angles.any()):
        return None
    if (np.abs(angles[angles != 0]) < 1e-5).any():  # what is read there is something else
        return None
    return tuple(float(np.round(angle, 6)) for angle in angles)


def _one(values: Any) -> float | None:
    """What all images have in common: the value of the first."""
    value = float(values[0])
    return value if np.isfinite(value) else None


def _positive(value: float | None) -> float | None:
    return value if value is not None and 0 < value < 1e12 else None


def _positives(values: Sequence[float] | Any) -> tuple[float, ...] | None:
    found = np.asarray(values, np.float64)
    return tuple(map(float, found)) if np.isfinite(found).all() and (found > 0).all() else None


def _kilovolts(volts: float | None) -> float | None:
    return volts / 1000 if volts is not None and 1e3 <= volts <= 5e6 else None


def _text(raw: bytes) -> str:
    text = raw.split(b"\0")[0].decode("latin-1").strip()
    return text if text.isprintable() else ""


def _placed(place: str, **values: Any) -> Said:
    """What was found, and where."""
    found = {name: value for name, value in values.items() if value is not None}
    return replace(Said(), **found, places=dict.fromkeys(found, place))
