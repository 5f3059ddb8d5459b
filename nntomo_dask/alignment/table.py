"""The table of an alignment: where each projection lies, the axis, and the projections to leave out."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse
from nntomo_dask.types import Bools, Float64, Integers
from nntomo_dask.untrusted import MOST_ANGLES

SAME_ANGLE_DEG = 0.05  # a row belongs to the projection whose angle is nearest, within this: files round angles
MOST_PX = 1e6  # larger displacements are none of an image
COLUMNS = ("along_px", "across_px", "rotation_deg", "correction_deg")


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """Where each projection of a raw series lies.

    A pixel of the aligned projection i at u = (along, across), in pixels of the raw series from the middle of the
    image, is read from the raw one at ``R(rotation_deg[i]) (u + d)`` with ``d = (along_px[i], across_px[i] + axis_px)``
    and ``R(φ)(a, c) = (a cos φ - c sin φ, a sin φ + c cos φ)``. So the aligned series has its tilt axis in the middle.

    The arrays are kept as copies that cannot be written to; `edited` makes an alignment with other values.

    Attributes
    ----------
    angles_deg
        (angle,): nominal tilt angles as the raw series has them, [degrees], in its order; they name the rows.
    along_px, across_px
        (angle,): displacement along the tilt axis (dim z) and across it (dim detector), [px of the raw series].
    rotation_deg
        (angle,): rotation of the image about its middle, [degrees], from along towards across.
    correction_deg
        (angle,): what is added to the nominal tilt angle, [degrees].
    flagged
        (angle,): projections to leave out.
    axis_px
        Position of the tilt axis across the rotated image, from its middle, [px].
    provenance
        What made it: steps with their settings and figures, JSON-able.
    pixel_size, units
        Edge of a pixel of the raw series, so that the table can be used for images with other pixels; None where it is
        not known.

    Raises
    ------
    SchemaError
        The columns differ in length, a value is not finite, an angle stands twice, or a displacement is none of an
        image.
    """

    angles_deg: Float64
    along_px: Float64
    across_px: Float64
    rotation_deg: Float64
    correction_deg: Float64
    flagged: Bools
    axis_px: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)
    pixel_size: float | None = None
    units: str = "px"

    def __post_init__(self) -> None:
        count = np.size(self.angles_deg)
        for name in ("angles_deg", *COLUMNS):
            object.__setattr__(self, name, _column(name, getattr(self, name), count))
        flagged = np.array(self.flagged)
        if flagged.dtype != bool or flagged.shape != (count,):
            got = f"{flagged.dtype} of shape {flagged.shape}"
            refuse("alignment", needs=f"`flagged`: {count} times true or false", got=got, remedy="one for each angle")
        flagged.flags.writeable = False
        object.__setattr__(self, "flagged", flagged)
        object.__setattr__(self, "axis_px", float(_column("axis_px", [self.axis_px], 1)[0]))
        if self.pixel_size is not None and not (np.isfinite(self.pixel_size) and self.pixel_size > 0):
            got = f"{self.pixel_size}"
            refuse("alignment", needs="a pixel size above zero", got=got, remedy="`pixel_size=None` if it is not known")
        check_rows(self.angles_deg)

    @classmethod
    def identity(cls, angles_deg: npt.ArrayLike, **others: Any) -> "Alignment":
        """The alignment that leaves all projections where they are; `others` are columns or fields that differ."""
        angles = np.asarray(angles_deg, np.float64)
        columns: dict[str, Any] = dict.fromkeys(COLUMNS, np.zeros(angles.shape))
        return cls(**{"angles_deg": angles, **columns, "flagged": np.zeros(angles.shape, bool), **others})

    def __repr__(self) -> str:
        """A few lines: how many views, and how far they are moved and turned."""
        unit = "" if self.pixel_size is None else f" of {self.pixel_size:.6g} {self.units}"
        lines = [
            f"Alignment of {self.angles_deg.size} views from {self.angles_deg.min():g}° to {self.angles_deg.max():g}°, "
            f"in pixels{unit}",
            f"  tilt axis: {self.axis_px:+.2f} px from the middle; rotation {_range(self.rotation_deg)}°",
            f"  shifts: {_range(self.along_px)} px along it, {_range(self.across_px)} px across",
        ]
        if self.correction_deg.any():
            lines.append(f"  corrections of angles: {_range(self.correction_deg)}°")
        flagged = self.angles_deg[self.flagged]
        lines.append(f"  left out: {words(flagged) if flagged.size else 'none'}")
        return "\n".join(lines)

    @property
    def kept(self) -> Integers:
        """Places of the projections that are not left out."""
        return np.flatnonzero(~self.flagged)

    @property
    def corrected_deg(self) -> Float64:
        """(angle,): tilt angles after the correction, [degrees]."""
        return np.asarray(self.angles_deg + self.correction_deg)

    @property
    def displacement_px(self) -> Float64:
        """(angle, 2): d of the formula, along and across, [px]."""
        return np.stack([self.along_px, self.across_px + self.axis_px], axis=1)

    def is_same(self, other: "Alignment") -> bool:
        """Whether another alignment has the same rows, values and provenance."""
        return (
            all(np.array_equal(getattr(self, one), getattr(other, one)) for one in ("angles_deg", "flagged", *COLUMNS))
            and (self.axis_px, self.pixel_size, self.units) == (other.axis_px, other.pixel_size, other.units)
            and self.provenance == other.provenance
        )

    def digest(self) -> str:
        """A checksum of all values that place projections, by which an edited table is known."""
        columns = [getattr(self, one) for one in ("angles_deg", *COLUMNS, "flagged")]
        text = json.dumps([[one.tolist() for one in columns], self.axis_px, self.pixel_size, self.units])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def of(self, angles_deg: npt.ArrayLike, *, who: str = "alignment") -> "Alignment":
        """The rows of some nominal angles, in their order; rows of other projections are left away.

        Raises
        ------
        SchemaError
            There is no row for an angle, or more than one is as near.
        """
        wanted = np.asarray(angles_deg, np.float64)
        places = places_of(wanted, self.angles_deg, who=who)
        columns = {name: getattr(self, name)[places] for name in (*COLUMNS, "flagged")}
        return replace(self, angles_deg=wanted, **columns)

    def then(self, second: "Alignment") -> "Alignment":
        """The alignment followed by one that was found on the aligned series: both in one interpolation.

        The pixel u of the second result is read at ``R(φ₂)(u + d₂)`` of the first one, so at
        ``R(φ₁)(R(φ₂)(u + d₂) + d₁) = R(φ₁ + φ₂)(u + d₂ + R(-φ₂) d₁)`` of the raw images: rotations add, and
        ``d = d₂ + R(-φ₂) d₁``. This is exact where both have pixels of one size and images with one middle: the first
        result was cropped evenly at opposite sides, if at all. Corrections of angles add, axes add, and what is flagged
        in either stays flagged. Values beyond the edges differ: they continue those of the raw images.

        Parameters
        ----------
        second
            Its nominal angles are the corrected ones of those that this one keeps.

        Raises
        ------
        SchemaError
            The pixels differ in size, or a projection that this one keeps has no row in the second.
        """
        factor = self._pixels_of(second)
        kept = self.kept
        later = second.of(self.corrected_deg[kept], who="composition")
        displacement, axis = self.displacement_px.copy(), self.axis_px + factor * later.axis_px
        displacement[kept] = factor * later.displacement_px + _turned(displacement[kept], -later.rotation_deg)
        rotation, correction, flagged = self.rotation_deg.copy(), self.correction_deg.copy(), self.flagged.copy()
        rotation[kept] += later.rotation_deg
        correction[kept] += later.correction_deg
        flagged[kept] |= later.flagged
        return replace(
            self,
            along_px=displacement[:, 0],
            across_px=displacement[:, 1] - axis,
            rotation_deg=rotation,
            correction_deg=correction,
            flagged=flagged,
            axis_px=axis,
            provenance={"first": self.provenance, "then": second.provenance},
        )

    def inverse(self) -> "Alignment":
        """What takes the aligned projections back: ``φ' = -φ, d' = -R(φ) d``, with opposite corrections and axis.

        Its rows are named by the corrected angles. Projections that were left out are not among them.
        """
        kept = self.kept
        displacement = -_turned(self.displacement_px[kept], self.rotation_deg[kept])
        return replace(
            self,
            angles_deg=self.corrected_deg[kept],
            along_px=displacement[:, 0],
            across_px=displacement[:, 1] + self.axis_px,
            rotation_deg=-self.rotation_deg[kept],
            correction_deg=-self.correction_deg[kept],
            flagged=np.zeros(kept.size, bool),
            axis_px=-self.axis_px,
            provenance={"inverse_of": self.provenance},
        )

    def scaled(self, factor: float) -> "Alignment":
        """The same alignment for images whose pixels are so many times smaller: all lengths times `factor`.

        A series in bins of 2 has pixels twice as large: ``scaled(1 / 2)``.
        """
        if not (np.isfinite(factor) and factor > 0):
            refuse("alignment", needs="a scale above zero", got=f"{factor}", remedy="`scale=1`")
        return replace(
            self,
            along_px=self.along_px * factor,
            across_px=self.across_px * factor,
            axis_px=self.axis_px * factor,
            pixel_size=None if self.pixel_size is None else self.pixel_size / factor,
        )

    def edited(
        self,
        angles_deg: npt.ArrayLike,
        *,
        along_px: npt.ArrayLike | None = None,
        across_px: npt.ArrayLike | None = None,
        rotation_deg: npt.ArrayLike | None = None,
        correction_deg: npt.ArrayLike | None = None,
        flagged: npt.ArrayLike | None = None,
    ) -> "Alignment":
        """The alignment with other values at some projections; the provenance says so.

        Parameters
        ----------
        angles_deg
            Nominal angles of the projections: one or several.
        along_px, across_px, rotation_deg, correction_deg, flagged
            The new values: one for all of them, or one for each. What is not given stays.

        Raises
        ------
        SchemaError
            There is no row for an angle.
        """
        wanted = np.atleast_1d(np.asarray(angles_deg, np.float64))
        places = places_of(wanted, self.angles_deg, who="edited")
        given = {
            "along_px": along_px,
            "across_px": across_px,
            "rotation_deg": rotation_deg,
            "correction_deg": correction_deg,
            "flagged": flagged,
        }
        changed: dict[str, Any] = {}
        for name, values in given.items():
            if values is not None:
                changed[name] = getattr(self, name).copy()
                changed[name][places] = values
        edits = [*self.provenance.get("edits", []), {"angles_deg": wanted.tolist(), "columns": sorted(changed)}]
        return replace(self, **changed, provenance={**self.provenance, "edits": edits})

    def _pixels_of(self, other: "Alignment") -> float:
        """How many pixels of this alignment one of another one is; 1 where one of the sizes is not known."""
        if self.pixel_size is None or other.pixel_size is None or self.units != other.units:
            return 1.0
        return other.pixel_size / self.pixel_size


def check_rows(angles_deg: Float64) -> None:
    """Raise a SchemaError unless angles can name the rows of a table: within ±360°, each once, and some of them."""
    if not 1 <= angles_deg.size <= MOST_ANGLES:
        got = f"{angles_deg.size} rows"
        refuse("alignment", needs=f"a row for each projection, up to {MOST_ANGLES}", got=got, remedy="check the table")
    if np.abs(angles_deg).max() > 360:
        got = f"{angles_deg[np.abs(angles_deg).argmax()]:g}"
        refuse("alignment", needs="angles in degrees", got=got, remedy="write the angles of the raw series")
    values, counts = np.unique(angles_deg, return_counts=True)
    if (counts > 1).any():
        got = f"{', '.join(f'{one:g}°' for one in values[counts > 1][:5])} more than once"
        refuse("alignment", needs="one row for each angle", got=got, remedy="remove the rows that are too many")


def places_of(wanted_deg: Float64, angles_deg: Float64, *, who: str) -> Integers:
    """The row of each of some angles: the nearest one, within `SAME_ANGLE_DEG`, and of no other angle."""
    distance = np.abs(wanted_deg[:, None] - angles_deg)
    places, nearest = distance.argmin(axis=1), distance.min(axis=1)
    lost = np.flatnonzero(nearest > SAME_ANGLE_DEG)
    if lost.size:
        shown = ", ".join(f"{wanted_deg[one]:g}°" for one in lost[:5])
        refuse(
            who,
            needs="a row of the alignment for each projection",
            got=f"none for {shown}{' and others' if lost.size > 5 else ''}; its {angles_deg.size} rows are from "
            f"{angles_deg.min():g}° to {angles_deg.max():g}°",
            remedy="the table of this series, whose rows are named by the nominal angles",
        )
    if np.unique(places).size < places.size:
        repeated = wanted_deg[np.flatnonzero(np.bincount(places, minlength=1)[places] > 1)]
        refuse(
            who,
            needs="another row for each projection",
            got=f"one row for {', '.join(f'{one:g}°' for one in repeated[:5])}",
            remedy="the table of this series",
        )
    return np.asarray(places, np.int64)


def _column(name: str, values: Any, count: int) -> Float64:
    try:
        column = np.array(values, np.float64)
    except (TypeError, ValueError):
        refuse("alignment", needs=f"numbers as `{name}`", got=f"{values!r:.60}", remedy="one for each angle")
    if column.shape != (count,):
        got = f"an array of shape {column.shape}"
        refuse("alignment", needs=f"{count} numbers as `{name}`", got=got, remedy="one for each angle")
    bad = np.flatnonzero(~np.isfinite(column))
    if bad.size:
        got = f"{column[bad[0]]} at place {bad[0]}"
        refuse("alignment", needs=f"finite numbers as `{name}`", got=got, remedy="write 0, and flag the projection")
    if column.size and np.abs(column).max() > MOST_PX:
        got = f"{column[np.abs(column).argmax()]:g}"
        refuse("alignment", needs=f"`{name}` within ±{MOST_PX:g}", got=got, remedy="check the table")
    column.flags.writeable = False
    return column


def _turned(displacement: Float64, rotation_deg: Float64) -> Float64:
    """R(φ) d of each row."""
    cos, sin = np.cos(np.deg2rad(rotation_deg)), np.sin(np.deg2rad(rotation_deg))
    along, across = displacement[:, 0], displacement[:, 1]
    return np.stack([along * cos - across * sin, along * sin + across * cos], axis=1)


def _range(values: Float64) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:+.2f}" if low == high else f"{low:+.2f} to {high:+.2f}"


def words(angles_deg: Sequence[float] | Float64, most: int = 8) -> str:
    """Angles as text, the first few of them."""
    shown = ", ".join(f"{one:g}°" for one in angles_deg[:most])
    return f"{shown} and {len(angles_deg) - most} more" if len(angles_deg) > most else shown
