"""What a metric says of itself, and how a volume is measured by several of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import xarray as xr

from nntomo_dask.compute import chunking, cluster
from nntomo_dask.metrics.pairs import Region
from nntomo_dask.settings import check_settings


@dataclass(frozen=True)
class Column:
    """One column of the table that ``nntomo compare`` prints.

    Attributes
    ----------
    name
        Key of the value in JSON.
    title
        Head of the column.
    better
        Which way is good.
    unit
        Of the value: text, "" for none, or "length" for the unit of the volumes' coordinates. "u" is the unit of the
        volumes' values.
    digits
        Format of the value.
    about
        A line below the table that says what the value is.
    doubtful
        Value from which on the two volumes can hardly be of one quantity and one scale. A figure shows such a column.
    """

    name: str
    title: str
    better: Literal["lower", "higher"]
    unit: str = ""
    digits: str = ".4g"
    about: str = ""
    doubtful: float | None = None


class Metric(ABC):
    """A measure of a volume against a reference. Subclasses are frozen dataclasses; fields are settings.

    Attributes
    ----------
    name
        What it is called.
    columns
        What it measures, a column of a table each.
    pass_number
        Metrics of one number are computed in one pass over both volumes; lower numbers come first. 0: it computes by
        itself, and takes the largest pieces of memory.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    pass_number: ClassVar[int] = 1

    @abstractmethod
    def measure(
        self, volume: xr.DataArray, reference: xr.DataArray, *, region: Region, memory_bytes: int
    ) -> Mapping[str, xr.DataArray | float]:
        """A value for each column: a number, or a lazy array without dims."""


def measure(
    volume: xr.DataArray,
    reference: xr.DataArray,
    metrics: Iterable[Metric],
    *,
    region: Region = "all",
    memory_bytes: int = 2 * 2**30,
    progress: cluster.Progress = "none",
) -> dict[str, float]:
    """Measure a volume by several metrics, in as few passes as they allow.

    Parameters
    ----------
    volume, reference
        Dims (z, y, x), float32, of one shape.
    region
        See `mse`.
    memory_bytes
        Bound of what a metric holds that computes by itself.

    Returns
    -------
    By name of the column.

    Raises
    ------
    SchemaError
        One of them is no volume, their shapes differ, or a setting of a metric is out of range.
    """
    chosen = sorted(metrics, key=lambda metric: metric.pass_number)
    for metric in chosen:
        check_settings(metric, who=metric.name)
    values: dict[str, float] = {}
    for number in sorted({metric.pass_number for metric in chosen}):
        waiting: dict[str, xr.DataArray] = {}
        for metric in chosen:
            if metric.pass_number == number:
                for name, value in metric.measure(volume, reference, region=region, memory_bytes=memory_bytes).items():
                    if isinstance(value, xr.DataArray):
                        waiting[name] = value
                    else:
                        values[name] = float(value)
        if waiting:
            names = ", ".join(waiting)
            (computed,) = cluster.load(xr.Dataset(waiting), description=names, progress=progress)
            values |= {name: float(computed[name]) for name in waiting}
    return values


def host_bytes(shape: chunking.SlabShape) -> int:
    """Bytes of a pair of slabs (slices, y, x) being compared, and what the similarity of one slice takes."""
    slices, _, size = shape
    return (slices * 2 * chunking.READ + 24) * chunking.image_bytes(size)
