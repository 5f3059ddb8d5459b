"""Scenes of pairs of a tilt series and a volume, among scenes of phantoms.

A scene is a block of neighbouring slices of a pair. Seed and number say which, so that a training resumes where it was;
a block is read when its scene is made.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import xarray as xr

from nntomo_dask.arrays import finite, geometry, recipes, schema, slabs
from nntomo_dask.arrays.angles import places_of
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.errors import refuse
from nntomo_dask.networks.nnfbp_layout import listed
from nntomo_dask.networks.unrolled import REACH
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction.blocks import BLOCK, thickness_of
from nntomo_dask.reconstruction.intensity import intensity_level
from nntomo_dask.training.pairs import PAIRED, check_pair
from nntomo_dask.training.unrolled.scenes import Scene, Scenes, jitter_of_noise, jittered, solved
from nntomo_dask.types import Float32, Float64

PairNoise = Literal["own", "added"]
SHARE = 0.25  # of the scenes
_PAIRS = 2  # the stream of random numbers that chooses among pairs
_LEAST, _MOST = 0.5, 2.0  # what a ray may be in units of the volume's own projection
_ALIKE = 0.5  # correlation of the two
_DIGITS = 4


@dataclass(frozen=True)
class Pair:
    """A series in order of angle and in its own pixels, and its volume, as arrays that are read block by block.

    Attributes
    ----------
    series, volume
        (z, angle, detector) and (z, y, x); NumPy or Dask.
    level
        Intensity level of the series.
    axis
        Where its tilt axis is, in pixels.
    thickness
        Distance of slices, in pixels.
    """

    series: Any
    volume: Any
    level: float
    axis: Axis
    thickness: float

    @property
    def height(self) -> int:
        """Slices of a scene: a block, or all."""
        return min(BLOCK, len(self.volume))

    @property
    def places(self) -> int:
        """How many blocks there are, which overlap."""
        return len(self.volume) - self.height + 1

    def block(self, start: int, *, who: str) -> tuple[Float32, Float32]:
        """Projections of a block from a slice on, with four neighbours on either side, and its volume.

        Beyond the first and the last slice the series is mirrored, as a reconstruction does it.
        """
        around = slabs.mirrored(len(self.volume), REACH)[start : start + self.height + 2 * REACH]
        first, last = int(around.min()), int(around.max()) + 1
        rows = _read(self.series[first:last])
        truth = _read(self.volume[start : start + self.height])
        finite.check_slab(rows, who=who, dims=schema.SERIES_DIMS, first=first)
        finite.check_slab(truth, who=who, dims=schema.VOLUME_DIMS, first=start)
        return rows[around - first], truth


def _read(part: Any) -> Float32:
    computed = part.compute(scheduler="synchronous") if hasattr(part, "compute") else part
    return np.asarray(computed, np.float32)


@dataclass(frozen=True)
class PairedScenes(Scenes):
    """Scenes of phantoms, of which a share is replaced by scenes of pairs.

    Attributes
    ----------
    pairs
        From which blocks are taken.
    share
        Of the scenes that are theirs.
    pair_noise
        "added": their projections get the noise of the phantoms.
    """

    pairs: tuple[Pair, ...] = ()
    share: float = 1.0
    pair_noise: PairNoise = "own"

    @property
    def largest(self) -> int:
        """The most pixels of a scene along a slice."""
        return max(self.size, *(int(pair.volume.shape[-1]) for pair in self.pairs))

    @property
    def phantoms(self) -> Scenes:
        """The scenes that are not replaced."""
        return Scenes(**{one.name: getattr(self, one.name) for one in fields(Scenes)})

    def place(self, number: int) -> tuple[int, int] | None:
        """Which pair, and from which slice on; None where the scene of a number is that of a phantom."""
        rng = np.random.default_rng([self.seed, number, _PAIRS])
        if rng.random() >= self.share:
            return None
        ends = np.cumsum([pair.places for pair in self.pairs])
        block = int(rng.integers(ends[-1]))
        pair = int(np.searchsorted(ends, block, side="right"))
        return pair, block - int(ends[pair - 1] if pair else 0)

    def scene(self, number: int) -> Scene:
        """The scene of a number from 0 on."""
        function, arguments = self.work(number)
        return function(*arguments)

    def work(self, number: int) -> tuple[Callable[..., Scene], tuple[Any, ...]]:
        """A block is read here, and solved by a worker: what is read need not be sent to all of them."""
        chosen = self.place(number)
        if chosen is None:
            return self.phantoms.scene, (number,)
        pair = self.pairs[chosen[0]]
        rows, truth = pair.block(chosen[1], who="train_unrolled")
        rng = np.random.default_rng([self.seed, number, _PAIRS, 1])
        if self.pair_noise == "added" and rows.max() > 0:
            rows = self.with_noise(rows, float(rows.max()), rng)
        level = np.float32(jittered(pair.level, rng))
        angles = np.asarray(self.geometry.angles_deg)
        more = pair.axis, pair.thickness
        make = functools.partial(solved, jitter=jitter_of_noise(rng))
        return make, (rows / level, truth / level, angles, *more)


def pair_scenes(
    series: xr.DataArray | Sequence[xr.DataArray],
    volume: xr.DataArray | Sequence[xr.DataArray],
    *,
    phantoms: xr.Dataset,
    share: float = SHARE,
    pair_noise: PairNoise = "own",
) -> xr.Dataset:
    """Scenes of pairs of tilt series and volume, among those of phantoms.

    A scene is a block of 24 neighbouring slices of a pair, from any slice on, with four neighbours on either side. It
    is solved with total variation as scenes of phantoms are. Nothing is read but a few slices, which tell the intensity
    and whether the two belong together; a training reads a block when it makes its scene.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; or several, all at the angles of `phantoms`, in any order. Their detectors
        may have different numbers of pixels.
    volume
        Dims (z, y, x), float32, what each series should reconstruct to, in the units of the series divided by pixels.
    phantoms
        A set from `phantom_scenes`, for training or for validation.
    share
        Of the scenes that are those of pairs, above 0; 1 for no phantoms at all.
    pair_noise
        "own": the series are as they are. "added": each time the noise of the phantoms is added, for simulated series
        that have none.

    Returns
    -------
    A dataset for `train_unrolled`, with the pairs as lazy variables.

    Raises
    ------
    SchemaError
        A series or volume is none, they do not match in shape or coordinates, or a volume's projections are not like
        the series; the angles are others than those of `phantoms`; values that are looked at are not finite, or
        nothing is above zero; a parameter is out of range. When scenes are made: a value is not finite.
    """
    who = "pair_scenes"
    all_series = [series] if isinstance(series, xr.DataArray) else list(series)
    volumes = [volume] if isinstance(volume, xr.DataArray) else list(volume)
    if not all_series or len(all_series) != len(volumes):
        got = f"{len(all_series)} series and {len(volumes)} volumes"
        remedy = "pass as many volumes as series"
        refuse(who, needs="one volume a series, at least one pair", got=got, remedy=remedy, command=PAIRED)
    if "scenes" not in phantoms.attrs or "pairs" in phantoms.attrs:
        refuse(who, needs="phantoms from phantom_scenes", got="another dataset", remedy="make them for the series")
    if not (isinstance(share, int | float) and 0 < share <= 1):
        refuse(who, needs="a share of pairs above 0, up to 1", got=f"{share!r}", remedy=f"`share={SHARE}`")
    if pair_noise not in ("own", "added"):
        needs = 'a pair noise "own" or "added"'
        refuse(who, needs=needs, got=repr(pair_noise), remedy='`pair_noise="own"`')
    angles = Scenes.from_json(phantoms.attrs["scenes"]).geometry.angles_deg
    found = [_pair(*both, angles, who) for both in zip(all_series, volumes, strict=True)]
    told = [{"level": one.level, "axis": one.axis, "thickness": one.thickness} for one in found]
    parameters = {"share": share, "pair_noise": pair_noise}
    inputs = [phantoms.attrs["recipe"], *all_series, *volumes]
    variables: dict[str, Any] = {}
    for number, one in enumerate(found):
        z = f"z_{number}"
        variables[f"series_{number}"] = ((z, schema.ANGLE, f"detector_{number}"), one.series)
        variables[f"volume_{number}"] = ((z, f"y_{number}", f"x_{number}"), one.volume)
    attrs = phantoms.attrs | {
        "pairs": json.dumps(parameters | {"told": told}),
        "recipe": recipes.Shown(recipes.record(who, parameters, inputs)),
    }
    return xr.Dataset(variables, attrs=attrs)


def _pair(series: xr.DataArray, volume: xr.DataArray, angles_deg: Sequence[float], who: str) -> Pair:
    check_pair(series, volume, who=who)
    schema.check_even_z(series, who=who)
    if not angles_deg or places_of(angles_deg, series[schema.ANGLE].values) is None:
        refuse(
            who,
            needs=f"pairs at the angles of the phantoms, {listed(angles_deg)}",
            got=listed(series[schema.ANGLE].values),
            remedy="project the volume at these angles",
        )
    own = slabs.lazy(geometry.in_order_of_angle(geometry.in_own_pixels(series)))
    level = float(f"{float(intensity_level(own)):.{_DIGITS}g}")
    if not level > 0:
        refuse(who, needs="series that show a specimen", got="one that shows none", remedy="leave that pair out")
    data = slabs.lazy(volume).data
    pair = Pair(own.data, data, level, schema.axis_of(own), thickness_of(own))
    _check_alike(pair, np.asarray(angles_deg), who)
    return pair


def _check_alike(pair: Pair, angles_deg: Float64, who: str) -> None:
    """Refuse a volume whose projections are not about those of the series, up to a background."""
    rows, truth = pair.block((pair.places - 1) // 2, who=who)
    wanted = rows[REACH:-REACH].astype(np.float64)
    made = Projector(angles_deg, wanted.shape[-1], axis=pair.axis).forward(truth).astype(np.float64)
    made, wanted = made - made.mean(), wanted - wanted.mean()  # a background plays no part
    together, spread, other = (made * wanted).sum(), (made**2).sum(), (wanted**2).sum()
    slope = float(together / spread) if spread > 0 else 0.0
    correlation = float(together / np.sqrt(spread * other)) if spread > 0 and other > 0 else 0.0
    if correlation < _ALIKE:
        refuse(
            who,
            needs="volumes that lie where their series shows them",
            got=f"projections with a correlation of {correlation:.2g}, in the middle",
            remedy="look whether the two belong together, slice by slice",
        )
    if not _LEAST <= slope <= _MOST:
        refuse(
            who,
            needs="volumes in the units of their series divided by pixels",
            got=f"a series that is {slope:.3g} times the projections of its volume",
            remedy="multiply the volume by that number",
        )


def scenes_of(dataset: xr.Dataset) -> Scenes:
    """Where the scenes of a set come from."""
    phantoms = Scenes.from_json(dataset.attrs["scenes"])
    if "pairs" not in dataset.attrs:
        return phantoms
    told = json.loads(dataset.attrs["pairs"])
    pairs = tuple(_pairs_in(dataset, told.pop("told")))
    return PairedScenes(**vars(phantoms), pairs=pairs, **told)


def _pairs_in(dataset: xr.Dataset, told: list[dict[str, Any]]) -> Iterator[Pair]:
    for number, one in enumerate(told):
        series, volume = (dataset[f"{name}_{number}"].data for name in ("series", "volume"))
        yield Pair(series, volume, one["level"], Axis(*one["axis"]), one["thickness"])
