"""The table of an alignment: where each projection lies, the axis, and the projections to leave out."""

from dataclasses import dataclass, field
from typing import Any

from nntomo_dask.types import Bools, Float64


@dataclass(frozen=True)
class Alignment:
    """Where each projection of a raw series lies.

    A pixel of the aligned projection i at u = (along, across), in pixels of the raw series from the middle of the
    image, is read from the raw one at ``R(rotation_deg[i]) (u + d)`` with ``d = (along_px[i], across_px[i] + axis_px)``
    and ``R(φ)(a, c) = (a cos φ - c sin φ, a sin φ + c cos φ)``. So the aligned series has its tilt axis in the middle.

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
    """

    angles_deg: Float64
    along_px: Float64
    across_px: Float64
    rotation_deg: Float64
    correction_deg: Float64
    flagged: Bools
    axis_px: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)
