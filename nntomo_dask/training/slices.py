"""Training sets of MS-D Net: slices of a reconstruction, and what they should have been.

A set is a Dataset over Dask: ``input`` and ``target`` (z, y, x); the coordinate ``scene`` (z) says which slices lie
in one specimen, so that only those are neighbours; ``used`` (z) which ones are trained on. Small sets are held in
memory by the training, larger ones read block by block from where they were saved.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.arrays import geometry, schema, slabs
from nntomo_dask.errors import refuse
from nntomo_dask.networks.msdnet import NEIGHBOURS, Inputs
from nntomo_dask.networks.network import Network
from nntomo_dask.networks.nnfbp import listed
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.bodies import Bodies
from nntomo_dask.projection.project import project
from nntomo_dask.reconstruction.fbp import Fbp, fbp
from nntomo_dask.reconstruction.intensity import intensity_level
from nntomo_dask.reconstruction.method import reconstruct
from nntomo_dask.reconstruction.msdnet import input_method, kept_projections
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.training.pairs import check_pair

SCENE, USED = "scene", "used"
_VALIDATED = 8  # of so many slices one is for validation: of a phantom's number, or of a measured series


def training_slices(
    series: xr.DataArray | Sequence[xr.DataArray],
    volume: xr.DataArray | Sequence[xr.DataArray],
    *,
    method: str = Sirt.name,
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
        Of the reconstruction that is to be improved. "sirt": constrained to values of at least 0, tolerance 1e-3.
    network
        For "nnfbp".
    neighbours
        Slices on either side that the network is to look at.
    scene
        Slices of a series that lie in one specimen, counted from its first; by default all.

    Returns
    -------
    Dataset with ``input`` and ``target`` (z, y, x), float32, and the scalar ``level``; lazy.

    Raises
    ------
    SchemaError
        A series or volume is none, they do not match, or a parameter is out of range.
    """
    all_series = [series] if isinstance(series, xr.DataArray) else list(series)
    volumes = [volume] if isinstance(volume, xr.DataArray) else list(volume)
    who = "training_slices"
    inputs = _inputs(who, all_series, method, network, neighbours)
    if len(all_series) != len(volumes):
        refuse(
            who,
            needs="one volume a series",
            got=f"{len(all_series)} series and {len(volumes)} volumes",
            remedy="pass lists of one length",
        )
    for one_series, one_volume in zip(all_series, volumes, strict=True):
        check_pair(one_series, one_volume, who=who)
    all_series = [slabs.lazy(item) for item in all_series]
    sources = [_reconstruct(item, inputs) for item in all_series]
    numbers = [np.arange(item.sizes[schema.Z]) // (scene or item.sizes[schema.Z]) for item in all_series]
    return _dataset(sources, volumes, numbers, [np.ones(number.size, bool) for number in numbers], all_series, inputs)


def phantom_slices(
    series: xr.DataArray,
    *,
    phantom: str = Bodies.name,
    n_slices: int = 1600,
    method: str = Sirt.name,
    network: Network | None = None,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Training and validation slices for exactly this series: phantoms projected at its angles onto its detector.

    Of `series` only the angles and the number of detector pixels are used. The validation phantom has an eighth of the
    slices. Lazy.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.
    phantom
        "bodies": `phantoms.body_stack`, whose neighbouring slices belong together. "ellipses", "mixed": slices that
        stand alone, and are seen so. "spheres": one volume.
    n_slices
        Of the training phantom.
    method, network, neighbours
        See `training_slices`.
    seed
        Of the phantoms.

    Returns
    -------
    Two datasets, see `training_slices`.

    Raises
    ------
    SchemaError
        `series` is no tilt series, or a parameter is out of range.
    """
    who = "phantom_slices"
    schema.check_tilt_series(series, who=who)
    if n_slices < _VALIDATED:
        refuse(who, needs=f"at least {_VALIDATED} slices", got=f"{n_slices}", remedy="n_slices=1600")
    made = PHANTOMS.choose(phantom, who=who).for_training()
    size, angles = series.sizes[schema.DETECTOR], series[schema.ANGLE].values

    def slices(count: int, one_seed: int) -> xr.Dataset:
        volume = made.volume((count, size, size), seed=one_seed)
        return training_slices(
            project(volume, angles), volume, method=method, network=network, neighbours=neighbours, scene=made.scene
        )

    return slices(n_slices, 2 * seed + 1), slices(n_slices // _VALIDATED, 2 * seed + 2)


def noise2inverse_slices(
    series: xr.DataArray, *, splits: int = 2, method: str = Fbp.name, neighbours: int = NEIGHBOURS
) -> tuple[xr.Dataset, xr.Dataset]:
    """Training and validation slices from one measured series, where nobody knows the truth.

    The projections are dealt out to `splits` parts. From a reconstruction without one part the network is to predict
    the FBP of that part: since noise differs from projection to projection, it learns all but the noise. One slice in
    eight is for validation. At reconstruction the `splits` predictions are averaged, see `networks.msdnet.Inputs`. It
    takes the noise away, not the streaks of few projections: have dozens of them. Lazy.

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
        `series` is no tilt series, or it has too few projections.

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
            remedy="splits=2, and a series of more projections",
        )
    if method == "nnfbp":
        refuse(who, needs="method fbp or sirt", got="nnfbp, whose network needs all projections", remedy='method="fbp"')
    inputs = dataclasses.replace(_inputs(who, [series], method, None, neighbours), splits=splits)
    source = slabs.lazy(series)
    parts = [source.isel(angle=kept) for kept in kept_projections(count, splits)]
    left_out = [source.isel(angle=np.arange(count) % splits == split) for split in range(splits)]
    n_z = source.sizes[schema.Z]
    validated = np.arange(n_z) % _VALIDATED == _VALIDATED // 2
    if not validated.any():
        refuse(who, needs=f"at least {_VALIDATED} slices", got=f"{n_z}", remedy="give a whole series")
    numbers = [np.full(n_z, split) for split in range(splits)]

    def slices(used: Any) -> xr.Dataset:
        volumes = [_reconstruct(part, inputs) for part in parts], [fbp(part) for part in left_out]
        return _dataset(*volumes, numbers, [used] * splits, [source], inputs)

    return slices(~validated), slices(validated)


def _inputs(who: str, all_series: list[xr.DataArray], method: str, network: Network | None, neighbours: int) -> Inputs:
    if not all_series:
        refuse(who, needs="at least one series", got="none", remedy="pass one")
    for item in all_series:
        schema.check_tilt_series(item, who=who)
    if neighbours < 0:
        refuse(who, needs="a number of neighbours", got=f"{neighbours}", remedy=f"neighbours={NEIGHBOURS}")
    angles = tuple(all_series[0][schema.ANGLE].values.tolist())
    inputs = Inputs(angles_deg=angles, method=method, network=network, neighbours=neighbours)
    input_method(inputs)
    size = all_series[0].sizes[schema.DETECTOR]
    for item in all_series:
        if not geometry.same_angles(item[schema.ANGLE].values, angles):
            got = f"{listed(angles)} and {listed(item[schema.ANGLE].values)}"
            refuse(who, needs="series at the same angles", got=got, remedy="select those that all have")
        inputs.check(item, who=who)
        if item.sizes[schema.DETECTOR] != size:
            got = f"{size} and {item.sizes[schema.DETECTOR]}"
            refuse(who, needs="series of one detector", got=got, remedy="resize(series, …)")
    return inputs


def _reconstruct(series: xr.DataArray, inputs: Inputs) -> xr.DataArray:
    return reconstruct(series, input_method(inputs))


def _dataset(
    sources: list[xr.DataArray],
    targets: list[xr.DataArray],
    scenes: list[Any],
    used: list[Any],
    all_series: list[xr.DataArray],
    inputs: Inputs,
) -> xr.Dataset:
    shape = sum(item.sizes[schema.Z] for item in sources), *sources[0].shape[1:]
    targets = [
        slabs.lazy(item).chunk({schema.Z: source.data.chunks[0]}) for item, source in zip(targets, sources, strict=True)
    ]
    levels = [intensity_level(item).data for item in all_series]
    # A scene of one series is none of another.
    firsts = itertools.accumulate((int(numbers.max()) + 1 for numbers in scenes[:-1]), initial=0)
    numbers = np.concatenate([numbers + first for numbers, first in zip(scenes, firsts, strict=True)])
    chosen = np.concatenate(used)
    parameters = {
        "inputs": json.loads(inputs.to_json()),
        "scenes": slabs.digest(numbers),
        "used": slabs.digest(chosen),
    }
    return xr.Dataset(
        {
            "input": _joined("input_slices", sources, shape),
            "target": _joined("target_slices", targets, shape),
            "level": ((), da.stack(levels).mean()),
        },
        coords={SCENE: (schema.Z, numbers), USED: (schema.Z, chosen)},
        attrs={
            "inputs": inputs,
            "recipe": slabs.record("training_slices", parameters, [*sources, *targets]),
        },
    )


def _joined(operation: str, volumes: list[xr.DataArray], shape: tuple[int, ...]) -> xr.DataArray:
    return slabs.label(
        da.concatenate([item.data for item in volumes]),
        dims=schema.VOLUME_DIMS,
        coords=schema.volume_coords(shape, 1.0),
        attrs={"units": "px", "pixel_size": 1.0},
        recipe=slabs.record(operation, {}, volumes),
        name="volume",
    )
