"""What reconstructions did, in lines: slices, seconds, iterations, and how well the projections are met."""

import contextlib
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np
import xarray as xr
from dask.base import compute

from nntomo_dask.arrays import geometry, schema
from nntomo_dask.compute import reporting
from nntomo_dask.projection.noise import noise
from nntomo_dask.projection.project import project

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


def misfit(volume: xr.DataArray, series: xr.DataArray) -> str:
    """How far the projections of a volume are from the series that it was made of, in words; it computes at once.

    Up to 8 evenly spaced slices are projected again.
    """
    own = geometry.in_own_pixels(series)
    chosen = np.unique(np.linspace(0, own.sizes[schema.Z] - 1, _SLICES).round().astype(int))
    measured = own.isel({schema.Z: chosen})
    projected = project(volume.isel({schema.Z: chosen}), own[schema.ANGLE].values)
    rows, again = compute(measured.data, projected.data)
    size = float(np.linalg.norm(np.asarray(rows, np.float64)))
    if size == 0:
        return "the series is empty"
    norm = float(np.linalg.norm(np.asarray(again, np.float64) - rows))
    text = f"its projections differ from the series by {100 * norm / size:.3g} %"
    try:
        expected = float(np.sqrt(noise(own).variance(rows).sum()))
    except ValueError:  # too few values to tell
        return text
    shown = expected > _LEAST_NOISE * size  # less is the error of the projector, and of the estimate
    if not shown:
        return text
    text += f", {norm / expected:.3g} times the noise"
    drifted = norm > _UNALIGNED * size and norm > _BEYOND_NOISE * expected
    return f"{text}; are they aligned? nntomo align finds out" if drifted else text
