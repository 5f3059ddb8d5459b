"""Training sets of MS-D Net: slices of reconstructions, and the slices that they should have been.

A set is a Dataset over Dask: ``input`` and ``target`` (z, y, x) and the scalar ``level``. The coordinate ``scene`` (z)
numbers the specimens: only slices of one specimen are neighbours. ``used`` (z) tells which slices are trained on.
``attrs["layout"]`` says in JSON how the inputs come from a tilt series, see `layout`. The training holds small sets in
memory, and reads larger ones block by block from their stores.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from nntomo_dask.arrays import finite, geometry, recipes, schema, slabs
from nntomo_dask.errors import refuse
from nntomo_dask.networks.msdnet import NEIGHBOURS, Inputs
from nntomo_dask.networks.network import Network
from nntomo_dask.phantoms.bodies import Bodies
from nntomo_dask.phantoms.phantom import Phantom, for_training
from nntomo_dask.projection.project import project
from nntomo_dask.reconstruction.fbp import fbp
from nntomo_dask.reconstruction.intensity import intensity_level
from nntomo_dask.reconstruction.method import Method
from nntomo_dask.reconstruction.msdnet import kept_projections
from nntomo_dask.training import noise as phantom_noise
from nntomo_dask.training.msdnet import layout as layouts
from nntomo_dask.training.noise import PhantomNoise
from nntomo_dask.training.pairs import PAIRED, check_pair
from nntomo_dask.types import Float32, Integers

Bools = npt.NDArray[np.bool_]

SCENE, USED = "scene", "used"
_VALIDATED = 8  # one slice in so many is for validation: of the number of a phantom's, or of a measured series
_MAKING = "training_slices-"  # prefix of the names of the layers that reconstruct slices


def training_slices(
    series: xr.DataArray | Sequence[xr.DataArray],
    volume: xr.DataArray | Sequence[xr.DataArray],
    *,
    method: str | Method = layouts.DEFAULT,
    network: Network | None = None,
    neighbours: int = NEIGHBOURS,
    scene: int | None = None,
) -> xr.Dataset:
    """Slices to train MS-D Net on, from pairs of tilt series and volume.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; or several, all at the same angles and with the same detector.
    volume
        Dims (z, y, x), float32, what each series should reconstruct to, in the units of the series divided by pixels.
    method
        Name of the method whose reconstruction the network improves, with the settings that it has as input: "sirt"
        with values of at least 0 and a tolerance of 1e-3. Or a `Method` with settings of your own.
    network
        The network of that method, where it needs one.
    neighbours
        Slices on either side that the network sees too.
    scene
        Number of consecutive slices of a series that lie in one specimen; by default all.

    Returns
    -------
    Dataset with ``input`` and ``target`` (z, y, x), float32, and the scalar ``level``; lazy. ``attrs["layout"]`` says
    in JSON how the inputs come from a series.

    Raises
    ------
    SchemaError
        A series or volume is none, they do not match in shape or coordinates, or a parameter is out of range. When it
        is computed: a value is NaN or infinite.
    """
    all_series = [series] if isinstance(series, xr.DataArray) else list(series)
    volumes = [volume] if isinstance(volume, xr.DataArray) else list(volume)
    who = "training_slices"
    inputs = layouts.inputs(who, all_series, method, network, neighbours)
    if len(all_series) != len(volumes):
        refuse(
            who,
            needs="one volume a series",
            got=f"{len(all_series)} series and {len(volumes)} volumes",
            remedy="pass as many volumes as series",
            command=PAIRED,
        )
    for one_series, one_volume in zip(all_series, volumes, strict=True):
        check_pair(one_series, one_volume, who=who)
    all_series = [slabs.lazy(geometry.in_order_of_angle(geometry.in_own_pixels(item))) for item in all_series]
    sources = [layouts.reconstruct(item, inputs) for item in all_series]
    numbers = [np.arange(item.sizes[schema.Z]) // (scene or item.sizes[schema.Z]) for item in all_series]
    used = [np.ones(number.size, bool) for number in numbers]
    return _dataset(sources, volumes, numbers, used, all_series, inputs, "given")


def phantom_slices(
    series: xr.DataArray,
    *,
    phantom: str | Phantom = Bodies.name,
    noise: PhantomNoise = "auto",
    n_slices: int = 1600,
    method: str | Method = layouts.DEFAULT,
    network: Network | None = None,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Training and validation slices for exactly this series: phantoms projected at its angles onto its detector.

    Of `series` the angles, in any order, the number of detector pixels, and noise and background are used; phantoms lie
    about the tilt axis, in the middle of the detector. The validation phantom has an eighth of the slices. Lazy.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.
    phantom
        A `Phantom` with settings of your own, or its name: "bodies", whose neighbouring slices belong together;
        "ellipses" or "mixed", whose slices have no neighbours; "spheres", one volume.
    noise
        Of the phantoms' projections. "auto": that of the series, see `noise`, with its background, at the ratio of the
        intensity levels; estimated at once, and left out where it is below 0.3 % of the brightest ray. "none". Or the
        standard deviation of Gaussian noise, as a share of the phantoms' brightest ray.
    n_slices
        Of the training phantom.
    method, network, neighbours
        See `training_slices`.
    seed
        Of the phantoms and their noise.

    Returns
    -------
    Two datasets, see `training_slices`.

    Raises
    ------
    SchemaError
        `series` is no tilt series, or a parameter is out of range. With ``noise="auto"``: the series is all noise, too
        small for an estimate, or not finite.
    """
    who = "phantom_slices"
    schema.check_tilt_series(series, who=who)
    if n_slices < _VALIDATED:
        refuse(who, needs=f"at least {_VALIDATED} slices", got=f"{n_slices}", remedy="`n_slices=1600`")
    chosen = for_training(phantom, series, who=who)
    size, angles = series.sizes[schema.DETECTOR], np.sort(series[schema.ANGLE].values)
    with_noise = phantom_noise.like(series, noise, who=who)

    def slices(count: int, one_seed: int) -> xr.Dataset:
        volume = chosen.volume((count, size, size), seed=one_seed)
        return training_slices(
            with_noise(project(volume, angles), one_seed),
            volume,
            method=method,
            network=network,
            neighbours=neighbours,
            scene=chosen.scene,
        )

    return slices(n_slices, 2 * seed + 1), slices(n_slices // _VALIDATED, 2 * seed + 2)


def noise2inverse_slices(
    series: xr.DataArray,
    *,
    splits: int = 2,
    method: str | Method = layouts.SELF_SUPERVISED,
    neighbours: int = NEIGHBOURS,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Training and validation slices from one measured series, without a ground truth (Noise2Inverse).

    The projections are dealt out to `splits` parts in ascending order of angle, so that each part has all directions
    whatever the order in which they were recorded. From a reconstruction without one part the network predicts the
    FBP of that part: the noise differs from projection to projection, so the network learns everything but the noise.
    One slice in eight is for validation. A reconstruction averages the `splits` predictions, see
    `networks.msdnet.Inputs`. The network removes noise, not the streaks of few projections: use it for series of dozens
    of projections. Lazy.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.
    splits
        Parts of the projections, at least 2.
    method
        Of the input: "fbp", or "sirt" with values of at least 0.
    neighbours
        See `training_slices`.

    Raises
    ------
    SchemaError
        `series` is no tilt series, its slices are not at equal steps, or it has too few projections. When it is
        computed: a value is NaN or infinite.

    References
    ----------
    .. [1] A. A. Hendriksen, D. M. Pelt and K. J. Batenburg, Noise2Inverse: Self-Supervised Deep Convolutional Denoising
       for Tomography, IEEE Trans. Comput. Imaging 6 (2020) 1320, doi:10.1109/TCI.2020.3019647.
    """
    who = "noise2inverse_slices"
    schema.check_tilt_series(series, who=who)
    count = series.sizes[schema.ANGLE]
    if splits < 2 or count < 2 * splits:
        refuse(
            who,
            needs="at least 2 splits of at least 2 projections each",
            got=f"{splits} of {count} projections",
            remedy="`splits=2`, and a series of more projections",
        )
    if layouts.needs_network(method):
        got = f"{method}, whose network needs all projections"
        refuse(who, needs="a method without a network", got=got, remedy=f'`method="{layouts.SELF_SUPERVISED}"`')
    inputs = dataclasses.replace(layouts.inputs(who, [series], method, None, neighbours), splits=splits)
    source = slabs.lazy(geometry.in_order_of_angle(geometry.in_own_pixels(series)))
    parts = [source.isel(angle=kept) for kept in kept_projections(count, splits)]
    left_out = [source.isel(angle=np.arange(count) % splits == split) for split in range(splits)]
    n_z = source.sizes[schema.Z]
    validated = np.arange(n_z) % _VALIDATED == _VALIDATED // 2
    if not validated.any():
        refuse(who, needs=f"at least {_VALIDATED} slices", got=f"{n_z}", remedy="pass the whole series")
    numbers = [np.full(n_z, split) for split in range(splits)]

    def slices(used: Bools) -> xr.Dataset:
        volumes = (
            [layouts.reconstruct(part, inputs) for part in parts],
            [fbp(part, window="ram-lak") for part in left_out],
        )
        return _dataset(*volumes, numbers, [used] * splits, [source], inputs, "reconstructed")

    return slices(~validated), slices(validated)


def _dataset(
    sources: list[xr.DataArray],
    targets: list[xr.DataArray],
    scenes: list[Integers],
    used: list[Bools],
    all_series: list[xr.DataArray],
    inputs: Inputs,
    targets_are: Literal["given", "reconstructed"],
) -> xr.Dataset:
    shape = sum(item.sizes[schema.Z] for item in sources), *sources[0].shape[1:]
    targets = [
        slabs.lazy(item).chunk({schema.Z: source.data.chunks[0]}) for item, source in zip(targets, sources, strict=True)
    ]
    levels = [intensity_level(item, of=inputs.level_of).data for item in all_series]
    # Scenes of different series have different numbers.
    firsts = itertools.accumulate((int(numbers.max()) + 1 for numbers in scenes[:-1]), initial=0)
    numbers = np.concatenate([numbers + first for numbers, first in zip(scenes, firsts, strict=True)])
    chosen = np.concatenate(used)
    parameters = {
        "inputs": json.loads(inputs.to_json()),
        "scenes": recipes.digest(numbers),
        "used": recipes.digest(chosen),
    }
    return xr.Dataset(
        {
            "input": _joined("input_slices", sources, shape, "reconstructed"),
            "target": _joined("target_slices", targets, shape, targets_are),
            "level": ((), da.stack(levels).mean()),
        },
        coords={SCENE: (schema.Z, numbers), USED: (schema.Z, chosen)},
        attrs={
            "layout": layouts.to_json(inputs),
            "recipe": recipes.Shown(recipes.record("training_slices", parameters, [*sources, *targets])),
        },
    )


def layout_of(dataset: xr.Dataset) -> Inputs:
    """How the inputs of a set come from a tilt series."""
    return layouts.from_json(dataset.attrs["layout"])


def would_be_reconstructed(dataset: xr.Dataset) -> bool:
    """Whether computing a set reconstructs its slices from series, instead of reading them."""
    graphs = (getattr(dataset[name].data, "dask", None) for name in ("input", "target"))
    layers = itertools.chain.from_iterable(graph.layers for graph in graphs if graph is not None)
    return any(str(layer).startswith(_MAKING) for layer in layers)


def _joined(
    operation: str, volumes: list[xr.DataArray], shape: tuple[int, ...], origin: Literal["given", "reconstructed"]
) -> xr.DataArray:
    recipe = recipes.record(operation, {}, volumes)
    data = [item.data for item in volumes]
    if origin == "given":
        data = [finite.checked_data(one, who="training_slices", dims=schema.VOLUME_DIMS) for one in data]
    together = da.concatenate(data)
    if origin == "reconstructed":
        together = together.map_blocks(_unchanged, name=f"{_MAKING}{tokenize(together.name)}", dtype=np.float32)
    return slabs.label(
        together,
        dims=schema.VOLUME_DIMS,
        coords=schema.volume_coords(shape, 1.0),
        attrs={"units": "px", "pixel_size": 1.0},
        recipe=recipe,
        name="volume",
    )


def _unchanged(block: Float32) -> Float32:
    return block
