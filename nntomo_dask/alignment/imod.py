"""IMOD's transforms of images: .xf, .xg and .prexg of whole images, .prexf each relative to the view before.

A line holds A11 A12 A21 A22 DX DY. The pixel (x, y) of a raw image, from its middle, x to the right and y upwards,
lies at ``A (x, y) + (DX, DY)`` of the aligned one [1]_. There the tilt axis is vertical, so that along the axis is y
and across it x: of an `Alignment`, z is y and the detector is x. What it calls ``R(φ)(u + d)`` leads from the aligned
image to the raw one, and φ is counted from y towards x, clockwise as images are shown. So, with the axes in the other
order,

    A = (cos φ, -sin φ; sin φ, cos φ)    and    (DX, DY) = -(across + axis, along).

The tilt axis that IMOD states for the raw images, counterclockwise from the vertical, is -φ. An import turns images by
quarter turns until their tilt axis is within 45° of the vertical; a rotation that is read is reduced by the same
quarter turns, while the shifts, which are those of the aligned image, stay. What is written is for images as the series
has them. Transforms of a prealignment (.prexf, .prexg) leave the axis where it is: they fit where it was near the
vertical before.

A file .prexf relates each view to the one before [2]_: f. The transforms of whole images are ``g₁ = 1`` and
``gᵢ = gᵢ₋₁ fᵢ``; here they are taken relative to the view nearest to 0° in place of the first one.

References
----------
.. [1] IMOD, man pages newstack(1) ("Linear transforms") and xfproduct(1).
.. [2] IMOD, man page xftoxg(1).
"""

import itertools
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from nntomo_dask.alignment.table import MOST_PX, Alignment
from nntomo_dask.errors import refuse
from nntomo_dask.formats.tilt_angles import read_tilt_angles
from nntomo_dask.types import Float64
from nntomo_dask.untrusted import MOST_ANGLES, finite_number

Stretch = Literal["refuse", "ignore"]
RELATIVE = ".prexf"
SUFFIXES = (".xf", ".xg", ".prexg", RELATIVE)
_WHO = "read_alignment"
# IMOD writes A with seven digits. A stretch of 5e-5 moves the edge of an image of 4096 pixels by a tenth of a pixel.
_MOST_STRETCH = 5e-5


def parsed(
    content: str,
    source: Path,
    *,
    angles_deg: npt.ArrayLike | None,
    corrected_deg: npt.ArrayLike | None,
    stretch: Stretch,
) -> Alignment:
    """The alignment in the text of a file of transforms; see `files.read_alignment`."""
    if stretch not in get_args(Stretch):
        refuse(_WHO, needs='"refuse" or "ignore"', got=f"{stretch!r}", remedy='`stretch="refuse"`')
    transforms = _numbers(content, source)
    nominal, nominal_from = _angles(angles_deg, source, (".rawtlt", ".tlt"))
    corrected, corrected_from = _angles(corrected_deg, source, (".tlt",))
    if nominal is None:
        refuse(
            _WHO,
            needs=f"the tilt angles of the {len(transforms)} images of {source}",
            got=f"none, and no {source.with_suffix('.rawtlt').name} beside it",
            remedy="`angles_deg=…`, in the order of its lines",
            command=f"put the angles beside it as {source.with_suffix('.rawtlt').name}",
        )
    corrected = nominal if corrected is None else corrected
    for angles, place in ((nominal, nominal_from), (corrected, corrected_from or nominal_from)):
        if angles.shape != (len(transforms),):
            got = f"{angles.size} in {place}"
            refuse(
                _WHO,
                needs=f"an angle for each of the {len(transforms)} lines of {source}",
                got=got,
                remedy="check both",
            )
    matrices = transforms[:, :4].reshape(-1, 2, 2)
    rotations, stretches = _rotations(matrices)
    worst = int(np.abs(stretches).argmax())
    if not np.abs(stretches).max() <= _MOST_STRETCH and stretch == "refuse":
        refuse(
            _WHO,
            needs="transforms that rotate and shift",
            got=f"a stretch of {100 * stretches[worst]:.3g} % in line {worst + 1} of {source}",
            remedy='align in IMOD without magnification and distortion; or `stretch="ignore"`, which takes the nearest '
            "rotation",
        )
    shifts = transforms[:, 4:]
    if source.suffix.lower() == RELATIVE:
        rotations, shifts = _accumulated(rotations, shifts, int(np.abs(nominal).argmin()))
    quarters = round(float(np.median(rotations)) / (np.pi / 2))
    rotations = rotations - quarters * np.pi / 2
    provenance = {
        "imod": source.name,
        "quarter_turns": quarters,
        "angles": nominal_from,
        "corrected_angles": corrected_from,
        "largest_stretch_ignored": float(np.abs(stretches).max()) if stretch == "ignore" else 0.0,
    }
    return Alignment(
        angles_deg=nominal,
        along_px=-shifts[:, 1] + 0.0,
        across_px=-shifts[:, 0] + 0.0,
        rotation_deg=np.rad2deg(rotations),
        correction_deg=corrected - nominal,
        flagged=np.zeros(len(transforms), bool),
        provenance=provenance,
    )


def text_of(alignment: Alignment, *, relative: bool) -> str:
    """A line for each row, in IMOD's own format: seven digits for A, three for shifts in pixels."""
    rotations, shifts = np.deg2rad(alignment.rotation_deg), -alignment.displacement_px[:, ::-1]
    if relative:
        rotations, shifts = _differences(rotations, shifts)
    lines = []
    for angle, (dx, dy) in zip(rotations, shifts, strict=True):
        cos, sin = np.cos(angle), np.sin(angle)
        numbers = (cos, -sin, sin, cos)
        lines.append("".join(f"{one + 0.0:12.7f}" for one in numbers) + f"{dx + 0.0:12.3f}{dy + 0.0:12.3f}\n")
    return "".join(lines)


def _numbers(content: str, source: Path) -> Float64:
    """(line, 6)."""
    lines = [line.split() for line in content.splitlines() if line.strip()]
    if not 1 <= len(lines) <= MOST_ANGLES:
        refuse(_WHO, needs="a transform for each image", got=f"{len(lines)} lines in {source}", remedy="check the file")
    rows = []
    for number, words in enumerate(lines, start=1):
        try:
            if len(words) != 6:
                raise ValueError
            rows.append([finite_number(word) for word in words])
            if max(map(abs, rows[-1])) > MOST_PX:
                raise ValueError
        except ValueError:
            got = f"{' '.join(words)[:60]!r} in line {number} of {source}"
            refuse(
                _WHO,
                needs="six numbers a line, A11 A12 A21 A22 DX DY",
                got=got,
                remedy="give a file of linear transforms",
            )
    return np.array(rows)


def _angles(given: npt.ArrayLike | None, source: Path, suffixes: tuple[str, ...]) -> tuple[Any, str | None]:
    """Angles and where they are from: given, or of a file of the same name with the first suffix that is there."""
    if given is not None:
        return np.asarray(given, np.float64), "given"
    for suffix in suffixes:
        beside = source.with_suffix(suffix)
        if beside.is_file():
            return read_tilt_angles(beside), beside.name
    return None, None


def _rotations(matrices: Float64) -> tuple[Float64, Float64]:
    """The nearest rotation of each matrix, [radians] counterclockwise, and by how much the matrix stretches most."""
    lengths = np.linalg.svd(matrices, compute_uv=False)
    found = np.arctan2(matrices[:, 1, 0] - matrices[:, 0, 1], matrices[:, 0, 0] + matrices[:, 1, 1])
    off = lengths - 1
    stretches = np.where(np.abs(off[:, 0]) >= np.abs(off[:, 1]), off[:, 0], off[:, 1])
    mirrored = np.linalg.det(matrices) <= 0
    # One branch of the angle for all of them, where they are about a half turn.
    turned = found[0] + np.mod(found - found[0] + np.pi, 2 * np.pi) - np.pi
    return turned, np.where(mirrored, -1.0, stretches)


def _product(first: tuple[float, Float64], second: tuple[float, Float64]) -> tuple[float, Float64]:
    """The transform that applies `second`, then `first`: A₁A₂ and A₁d₂ + d₁."""
    cos, sin = np.cos(first[0]), np.sin(first[0])
    return first[0] + second[0], np.array([[cos, -sin], [sin, cos]]) @ second[1] + first[1]


def _inverted(one: tuple[float, Float64]) -> tuple[float, Float64]:
    return -one[0], -_product((-one[0], np.zeros(2)), (0.0, one[1]))[1]


def _accumulated(rotations: Float64, shifts: Float64, reference: int) -> tuple[Float64, Float64]:
    """Transforms of whole images from those that relate each one to the one before; that of `reference` is none."""
    whole = [(0.0, np.zeros(2))]
    for rotation, shift in zip(rotations[1:], shifts[1:], strict=True):
        whole.append(_product(whole[-1], (float(rotation), shift)))
    back = _inverted(whole[reference])
    found = [_product(back, one) for one in whole]
    return np.array([one for one, _ in found]), np.array([one for _, one in found])


def _differences(rotations: Float64, shifts: Float64) -> tuple[Float64, Float64]:
    """Transforms that relate each image to the one before, of those of whole images; the first one is none."""
    whole = [(float(rotation), shift) for rotation, shift in zip(rotations, shifts, strict=True)]
    found = [(0.0, np.zeros(2))]
    found += [_product(_inverted(before), one) for before, one in itertools.pairwise(whole)]
    return np.array([one for one, _ in found]), np.array([one for _, one in found])
