"""What reconstructions did, in lines: slices, seconds, iterations, and how well the projections are met."""

import contextlib
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import xarray as xr
from dask.base import compute

from nntomo_dask.arrays import geometry, schema
from nntomo_dask.compute import reporting
from nntomo_dask.projection.noise import noise
from nntomo_dask.projection.project import project
from nntomo_dask.types import Float32, Integers

_SLICES = 8  # evenly spaced, that are projected again
_UNALIGNED, _BEYOND_NOISE = 0.2, 10  # share of the values, and of the noise, that aligned projections do not reach
_LEAST_NOISE = 1e-3  # share of the values, from which a misfit is compared with it


@contextlib.contextmanager
def report() -> Iterator[list[str]]:
    r"""What reconstructions do within this context: lines, which are in the list when the context has ended.

    A line a method tells how many slices were computed, in how many seconds of one worker, and after how many
    iterations they stopped. What was found complete is not counted. It hears what threads of this process compute, and
    what `save` has computed by worker processes or a cluster.

    Examples
    --------
    >>> with nt.report() as lines:
    ...     volume = nt.save(nt.sirt(series), "sirt.zarr")
    >>> print(*lines, sep="\n")
    sirt: 128 slices in 8.4 s; 31 to 104 iterations, median 66
    """
    lines: list[str] = []
    with reporting.listening() as told:
        yield lines
    lines += lines_of(told)


def lines_of(told: Sequence[reporting.Figures]) -> list[str]:
    """The figures of slabs, a line for each that computed some."""
    lines = []
    for who in dict.fromkeys(one.who for one in told):
        own = [one for one in told if one.who == who]
        slices = sum(one.slices for one in own)
        line = f"{who}: {slices} slice{'s' * (slices != 1)} in {sum(one.seconds for one in own):.3g} s"
        counts = [count for one in own for count in one.iterations]
        if counts and min(counts) < max(counts):
            line += f"; {min(counts)} to {max(counts)} iterations, median {median(counts):.0f}"
        elif counts:
            line += f"; {counts[0]} iteration{'s' * (counts[0] != 1)}"
        if unfinished := sum(one.unfinished for one in own):
            line += f"; the limit ended {unfinished} before they had converged"
        if measured := sum(one.measured_squares for one in own):
            before, after = (
                100 * (sum(getattr(one, name) for one in own) / measured) ** 0.5
                for name in ("before_squares", "after_squares")
            )
            line += f"; consistency moved its projections' difference from {before:.3g} % to {after:.3g} %"
        lines.append(line)
    return lines


class Misfit(NamedTuple):
    """How far the projections of a volume are from a series."""

    norm: float  # of the differences
    size: float  # norm of the measured values
    expected: float | None  # norm of the noise; None where too few values tell it, or it is less than can be told

    @property
    def share(self) -> float:
        """Of the measured values; 0 where all are 0."""
        return self.norm / self.size if self.size else 0.0

    def told(self) -> str:
        """In words."""
        if self.size == 0:
            return "the series is empty"
        text = f"its projections differ from the series by {100 * self.share:.3g} %"
        if self.expected is None:
            return text
        text += f", {self.norm / self.expected:.3g} times the noise"
        drifted = self.share > _UNALIGNED and self.norm > _BEYOND_NOISE * self.expected
        return f"{text}; are they aligned? nntomo align finds out" if drifted else text


def slices_of(series: xr.DataArray) -> Integers:
    """Which slices are projected again."""
    return np.unique(np.linspace(0, series.sizes[schema.Z] - 1, _SLICES).round().astype(np.int64))


def misfit_of(volume: xr.DataArray, series: xr.DataArray) -> tuple[Misfit, Float32]:
    """The misfit of up to 8 evenly spaced slices, which are projected again, and these slices; it computes at once."""
    own = geometry.in_own_pixels(series)
    chosen = slices_of(own)
    slices = volume.isel({schema.Z: chosen})
    projected = project(slices, own[schema.ANGLE].values)
    rows, again, values = compute(own.isel({schema.Z: chosen}).data, projected.data, slices.data)
    size = float(np.linalg.norm(np.asarray(rows, np.float64)))
    norm = float(np.linalg.norm(np.asarray(again, np.float64) - rows))
    expected = None
    if size:
        with contextlib.suppress(ValueError):  # too few values to tell
            expected = float(np.sqrt(noise(own).variance(rows).sum()))
        if expected is not None and expected <= _LEAST_NOISE * size:  # the error of the projector, and of the estimate
            expected = None
    return Misfit(norm, size, expected), values
