"""Which inputs an NN-FBP network takes from a tilt series; see nnfbp.py."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from nntomo_dask import untrusted
from nntomo_dask.arrays import geometry, schema
from nntomo_dask.arrays.angles import places_of
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import device
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import filters
from nntomo_dask.kernels.sample import Sides, sample
from nntomo_dask.types import Float32, Float64, Integers

Wedge = Literal["complete", "keep"]
Filters = Literal["apart", "shared"]

_MOST_DETECTOR_PIXELS = 2**20
_MOST_GROUPS = 12  # of measured projections with a filter of their own
_LEAST_KEPT = 2  # projections between which others are interpolated


@dataclass(frozen=True)
class InputLayout:
    """How the inputs of a network come from a tilt series.

    Attributes
    ----------
    angles_deg
        Of the measured series, in the series' order.
    wedge
        "complete": the missing wedge is filled by interpolation first (`geometry.complete_wedge`). "keep": it is not.
    detector_count
        Detector pixels of a row.
    binning, n_linear
        See `filters.bin_edges`.
    filters
        "shared": all measured projections have one filter for a hidden node, the same on both sides. "apart": each has
        its own, or neighbours in angle have one where they are more than 12, with sides of their own.
    """

    angles_deg: tuple[float, ...]
    detector_count: int
    wedge: Wedge = "complete"
    binning: filters.Binning = "exponential"
    n_linear: int = 2
    filters: Filters = field(default="shared", repr=False)  # digests of networks with shared ones are as they were

    def widened(self, pixels: int) -> "InputLayout":
        """The same for rows that were extended by so many pixels at either end: with the bins of this one."""
        if pixels == 0:
            return self
        binned_count = getattr(self, "binned_count", 0) or self.detector_count
        longer = {"detector_count": self.detector_count + 2 * pixels, "binned_count": binned_count}
        return _Adapted(**dataclasses.asdict(self) | longer)

    def without(self, angles_deg: Float64) -> "InputLayout | None":
        """The same for a series that has these projections alone; None where it cannot serve one."""
        kept = tuple(np.sort(angles_deg).tolist())
        if self.filters == "apart":
            return None if len(kept) < _LEAST_KEPT else _Adapted(**dataclasses.asdict(self) | {"kept_deg": kept})
        layout = dataclasses.replace(self, angles_deg=kept)
        if layout.n_inputs > self.n_inputs:  # a gap that was none with all projections
            layout = dataclasses.replace(layout, wedge="keep")
        return layout if layout.n_inputs == self.n_inputs else None

    def parameters(self) -> dict[str, Any]:
        """What recipes and files say of the fields: as ever where filters are shared."""
        fields = dataclasses.asdict(self)
        return fields if self.filters != "shared" else {name: fields[name] for name in fields if name != "filters"}

    def to_json(self) -> str:
        """All fields."""
        return json.dumps(self.parameters())

    @classmethod
    def from_json(cls, text: str) -> "InputLayout":
        """Inverse of `to_json`; a ValueError or a TypeError where a text from a file is no layout."""
        fields = untrusted.parsed_object(text)
        layout = cls(**{**fields, "angles_deg": untrusted.angles(fields.get("angles_deg"))})
        untrusted.whole_number(layout.detector_count, least=1, most=_MOST_DETECTOR_PIXELS)
        untrusted.whole_number(layout.n_linear, least=0, most=_MOST_DETECTOR_PIXELS)
        if layout.wedge not in get_args(Wedge) or layout.binning not in get_args(filters.Binning):
            raise ValueError(f"a layout of wedge {layout.wedge!r} and binning {layout.binning!r} is not known")
        if layout.filters not in get_args(Filters):
            raise ValueError(f"a layout of filters {layout.filters!r} is not known")
        return layout

    @property
    def series_angles_deg(self) -> tuple[float, ...]:
        """Of the series that a reconstruction is given."""
        return self.angles_deg

    @property
    def edges(self) -> Integers:
        """(bin + 1,), the bins of |offset|."""
        return filters.bin_edges(self.detector_count, binning=self.binning, n_linear=self.n_linear)

    @property
    def used_angles_deg(self) -> Float64:
        """(angle,), of the projections that are summed, the filled ones among them."""
        angles = np.asarray(self.angles_deg)
        return geometry.completed_angles(angles) if self.wedge == "complete" else angles

    @property
    def weights(self) -> Float64:
        """(angle,), share of each projection that is summed, of mean 1."""
        return geometry.angular_cells(self.used_angles_deg) * self.used_angles_deg.size

    @property
    def groups(self) -> list[npt.NDArray[np.intp]]:
        """Which projections share a filter: measured ones, and those that fill the wedge if there are any."""
        angles = np.asarray(self.angles_deg)
        filled = geometry.is_filled(angles) if self.wedge == "complete" else np.zeros(angles.size, bool)
        measured = np.flatnonzero(~filled)
        parts = np.array_split(measured, min(_MOST_GROUPS, measured.size)) if self.filters == "apart" else [measured]
        return [*parts, np.flatnonzero(filled)] if filled.any() else parts

    @property
    def level_of(self) -> Literal["median", "brightest"]:
        """What of the matter is compared for the scale: the median, or with filters apart the brightest.

        The median of several densities is another share of the greatest one in every specimen.
        """
        return "brightest" if self.filters == "apart" else "median"

    @property
    def sides(self) -> Sides:
        """Whether the two sides of a bin are one input or two."""
        return "apart" if self.filters == "apart" else "together"

    @property
    def n_inputs_of_group(self) -> int:
        """Inputs for each group of projections."""
        bins = self.edges.size - 1
        return 2 * bins - 1 if self.sides == "apart" else bins

    @property
    def n_inputs(self) -> int:
        """Inputs of the network: for each group one a bin, or one for each of its sides."""
        return len(self.groups) * self.n_inputs_of_group

    def rows(self, rows: Float32, axis: Axis | None = None) -> Float32:
        """The projections that are summed, (slice, angle, detector), from the measured ones in the network's order.

        `axis` says where the tilt axis lies; None in the middle.
        """
        return geometry.complete_rows(rows, np.asarray(self.angles_deg), axis) if self.wedge == "complete" else rows

    def inputs(self, rows: Float32, voxels: npt.NDArray[np.int64], axis: Axis | None = None) -> Float32:
        """Inputs (voxel, input) of the network at voxels (voxel, 3) of measured rows (slice, angle, detector)."""
        rows, angles_rad, weights = self.rows(rows, axis), np.deg2rad(self.used_angles_deg), self.weights
        inputs: Float32 = device.namespace(rows).concatenate(
            [
                sample(rows[:, group], angles_rad[group], weights[group], self.edges, voxels, axis, sides=self.sides)
                for group in self.groups
            ],
            axis=1,
        )
        return inputs

    def check(self, series: Any, *, who: str) -> None:
        """Raise a SchemaError where the network was made for another series: its angles or its detector."""
        detector_count = series.sizes[schema.DETECTOR]
        if detector_count != self.detector_count:
            refuse(
                who,
                needs=f"a series with {self.detector_count} detector pixels, for which the network was trained",
                got=f"{detector_count}",
                remedy=f"crop or pad the series to as many pixels, resize(series, {self.detector_count}), or train a "
                "network for this series",
                command="train a network for this series: nntomo train --for SERIES",
            )
        check_angles(series, self.series_angles_deg, who=who)


@dataclass(frozen=True)
class _Adapted(InputLayout):
    """A layout for rows that are longer than those it has its bins from, or for a series without some projections."""

    binned_count: int = 0
    kept_deg: tuple[float, ...] = ()  # the projections that a series has; those that it lacks are interpolated

    @property
    def series_angles_deg(self) -> tuple[float, ...]:
        """Of the series that a reconstruction is given."""
        return self.kept_deg or self.angles_deg

    @property
    def edges(self) -> Integers:
        """(bin + 1,), the bins of |offset|."""
        count = self.binned_count or self.detector_count
        return filters.bin_edges(count, binning=self.binning, n_linear=self.n_linear)

    def rows(self, rows: Float32, axis: Axis | None = None) -> Float32:
        """The projections that are summed, (slice, angle, detector), from those of a series in ascending order."""
        if self.kept_deg:
            rows = geometry.interpolated_rows(rows, np.asarray(self.kept_deg), np.asarray(self.angles_deg), axis)
        return super().rows(rows, axis)


def check_angles(series: Any, trained_deg: Sequence[float], *, who: str) -> None:
    """Raise a SchemaError where a series has other angles than a network was trained for; their order is free."""
    angles = series[schema.ANGLE].values
    if places_of(trained_deg, angles) is None:
        refuse(
            who,
            needs=f"the angles for which the network was trained, {listed(trained_deg)}",
            got=listed(angles),
            remedy="select these angles, or train a network for this series: nntomo train --for SERIES",
        )


def listed(angles_deg: Any) -> str:
    """Angles in words, for an error."""
    values = np.asarray(angles_deg)
    shown = ", ".join(f"{value:g}" for value in values[:10])
    return f"{values.size} angles ({shown}{', …' if values.size > 10 else ''})"
