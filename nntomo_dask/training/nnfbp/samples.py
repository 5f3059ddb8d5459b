"""Training sets of NN-FBP: the inputs of random voxels, and the voxels themselves."""

import itertools
from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from nntomo_dask.arrays import finite, geometry, recipes, schema, slabs
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import device
from nntomo_dask.errors import refuse
from nntomo_dask.kernels.filters import Binning
from nntomo_dask.networks.nnfbp_layout import Filters, InputLayout, Wedge
from nntomo_dask.phantoms.materials import Materials
from nntomo_dask.phantoms.phantom import Phantom, for_training
from nntomo_dask.projection.project import project
from nntomo_dask.reconstruction.intensity import Level, intensity_level
from nntomo_dask.training import noise as phantom_noise
from nntomo_dask.training.noise import PhantomNoise
from nntomo_dask.training.pairs import PAIRED, check_pair
from nntomo_dask.types import Float32, Integers

VOXEL, INPUT, SLICE = "voxel", "input", "slice"
SLICES, SAMPLES = 1600, 400_000  # of a training set, unless others are asked for
NOISE_SPREAD = 1.0
_MOST_SLICES = 2**24  # whole numbers of float32
_SAMPLING = "training_samples-"  # prefix of the names of the layers that draw samples


def training_samples(
    series: xr.DataArray | Sequence[xr.DataArray],
    volume: xr.DataArray | Sequence[xr.DataArray],
    *,
    n_samples: int = SAMPLES,
    seed: int = 0,
    wedge: Wedge = "complete",
    binning: Binning = "exponential",
    n_linear: int = 2,
    filters: Filters = "apart",
) -> xr.Dataset:
    """Inputs and targets of an NN-FBP network at random voxels.

    Voxels are drawn uniformly, with replacement, inside the disc that every projection sees. Which ones depends on the
    seed and the shape alone, so chunking changes nothing. Lazy: a slab of slices gives its own part.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; or several series, all at the same angles, in any order, and with the same
        detector.
    volume
        Dims (z, y, x), float32, at the coordinates of a reconstruction of its series: what each series should
        reconstruct to; as many as series.
    n_samples
        Voxels in all; several pairs share them by their numbers of slices.
    wedge
        "complete": the inputs come from the series with its missing wedge filled by interpolation, as they will at
        reconstruction. "keep": from the series as it is.
    binning, n_linear
        See `filters.bin_edges`.
    filters
        "apart": a network may weigh each projection, and both sides of it, by itself; neighbours in angle share a
        filter where they are more than 12. "shared": it has one filter, the same on both sides, for all measured
        projections, and another for filled ones.

    Returns
    -------
    Dataset with ``inputs`` (voxel, input), ``target`` (voxel), ``slice`` (voxel), the number of the slice from which a
    voxel comes, and the scalar ``level``, see `reconstruction.intensity_level`; float32. ``attrs["layout"]`` says how
    the inputs come from a series.

    Raises
    ------
    SchemaError
        A series or volume is none, they do not match in shape or coordinates, or no samples are asked for. When it is
        computed: a value is NaN or infinite.
    """
    all_series = [series] if isinstance(series, xr.DataArray) else list(series)
    volumes = [volume] if isinstance(volume, xr.DataArray) else list(volume)
    layout = _check_pairs(all_series, volumes, n_samples, wedge, binning, n_linear, filters)
    all_series = [slabs.lazy(geometry.in_order_of_angle(geometry.in_own_pixels(item))) for item in all_series]

    n_slices = np.array([item.sizes[schema.Z] for item in all_series])
    rng = np.random.default_rng(seed)
    per_slice = rng.multinomial(n_samples, np.full(n_slices.sum(), 1 / n_slices.sum()))
    parts = [
        _pair_samples(one_series, one_volume, counts, layout, [seed, pair])
        for pair, (one_series, one_volume, counts) in enumerate(
            zip(all_series, volumes, np.split(per_slice, np.cumsum(n_slices)[:-1]), strict=True)
        )
    ]
    inputs = da.concatenate([part[:, :-1] for part in parts])
    target = da.concatenate([part[:, -1] for part in parts])
    levels = [intensity_level(item, of=layout.level_of).data for item in all_series]
    parameters = {"n_samples": n_samples, "seed": seed, **layout.parameters()}
    numbers = np.repeat(np.arange(per_slice.size, dtype=np.float32), per_slice)
    return xr.Dataset(
        {
            "inputs": ((VOXEL, INPUT), inputs),
            "target": (VOXEL, target),
            SLICE: (VOXEL, da.from_array(numbers, chunks=target.chunks)),
            "level": ((), da.stack(levels).mean()),
        },
        attrs={
            "layout": layout.to_json(),
            "recipe": recipes.Shown(recipes.record("training_samples", parameters, [*all_series, *volumes])),
            "names": [inputs.name, target.name],
        },
    )


def phantom_samples(
    series: xr.DataArray,
    *,
    phantom: str | Phantom = Materials.name,
    noise: PhantomNoise = "auto",
    noise_spread: float = NOISE_SPREAD,
    n_slices: int = SLICES,
    n_samples: int = SAMPLES,
    seed: int = 0,
    wedge: Wedge = "complete",
    binning: Binning = "exponential",
    n_linear: int = 2,
    filters: Filters = "apart",
) -> tuple[xr.Dataset, xr.Dataset]:
    """Training and validation samples for exactly this series: phantoms projected at its angles onto its detector.

    Of `series` the angles, in any order, the number of detector pixels, and noise and background are used; phantoms lie
    about the tilt axis, in the middle of the detector. The validation phantom has a quarter of the slices and as many
    samples. Lazy.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.
    phantom
        A `Phantom` with settings of your own, or its name: "materials" for a specimen of which nothing is known,
        "ellipses" for one of one material, "bodies" for the same in three dimensions, "mixed" for grey levels and
        crowds of bodies, "spheres".
    noise
        Of the phantoms' projections. "auto": that of the series, see `noise`, with its background, at the ratio of the
        intensity levels; estimated at once, and left out where it is below 0.3 % of the brightest ray. "none". Or the
        standard deviation of Gaussian noise, as a share of the phantoms' brightest ray.
    noise_spread
        Each slice of the phantoms has the deviation of `noise` times a factor between ``1 / noise_spread`` and
        `noise_spread`, uniform on a logarithmic scale; 1 gives all slices the same.
    n_slices
        Of the training phantom.
    n_samples, seed, wedge, binning, n_linear, filters
        See `training_samples`.

    Returns
    -------
    Two datasets, see `training_samples`.

    Raises
    ------
    SchemaError
        `series` is no tilt series, or a parameter is out of range. With ``noise="auto"``: the series is all noise, too
        small for an estimate, or not finite.
    """
    schema.check_tilt_series(series, who="phantom_samples")
    if n_slices < 1:
        refuse("phantom_samples", needs="at least 1 slice", got=f"{n_slices}", remedy="`n_slices=400`")
    chosen = for_training(phantom, series, who="phantom_samples").for_single_slices()
    size, angles = series.sizes[schema.DETECTOR], np.sort(series[schema.ANGLE].values)
    level_of: Level = "brightest" if filters == "apart" else "median"
    with_noise = phantom_noise.like(series, noise, who="phantom_samples", of=level_of, spread=noise_spread)

    def samples(slices: int, one_seed: int) -> xr.Dataset:
        volume = chosen.volume((max(slices, 1), size, size), seed=one_seed)
        return training_samples(
            with_noise(project(volume, angles), one_seed),
            volume,
            n_samples=n_samples,
            seed=one_seed,
            wedge=wedge,
            binning=binning,
            n_linear=n_linear,
            filters=filters,
        )

    return samples(n_slices, 2 * seed + 1), samples(n_slices // 4, 2 * seed + 2)


def _check_pairs(
    all_series: list[xr.DataArray],
    volumes: list[xr.DataArray],
    n_samples: int,
    wedge: Wedge,
    binning: Binning,
    n_linear: int,
    filters: Filters,
) -> InputLayout:
    who = "training_samples"
    if not all_series or len(all_series) != len(volumes):
        refuse(
            who,
            needs="one volume a series, at least one pair",
            got=f"{len(all_series)} series and {len(volumes)} volumes",
            remedy="pass as many volumes as series",
            command=PAIRED,
        )
    known = (
        ("wedge", wedge, ("complete", "keep")),
        ("binning", binning, ("exponential", "none")),
        ("filters", filters, ("apart", "shared")),
    )
    for name, value, choices in known:
        if value not in choices:
            refuse(who, needs=f"{name} {' or '.join(choices)}", got=f"{value!r}", remedy=f'`{name}="{choices[0]}"`')
    if n_samples < 1:
        refuse(who, needs="at least 1 sample", got=f"{n_samples}", remedy="`n_samples=100_000`")
    for one_series, one_volume in zip(all_series, volumes, strict=True):
        check_pair(one_series, one_volume, who=who)
        if not geometry.seen_by_all(one_series.sizes[schema.DETECTOR], schema.axis_of(one_series)).any():
            refuse(
                who,
                needs="series with the tilt axis on the detector, so that all projections see some voxels",
                got=f"it at pixel {schema.axis_of(one_series).x:g} of {one_series.sizes[schema.DETECTOR]}",
                remedy="crop the series less, or pad it up to the axis",
            )
    first = all_series[0]
    layout = InputLayout(
        angles_deg=tuple(np.sort(first[schema.ANGLE].values).tolist()),
        detector_count=first.sizes[schema.DETECTOR],
        wedge=wedge,
        binning=binning,
        n_linear=n_linear,
        filters=filters,
    )
    for other in all_series[1:]:
        layout.check(other, who=who)
    return layout


def _pair_samples(
    series: xr.DataArray, volume: xr.DataArray, counts: Integers, layout: InputLayout, seed: list[int]
) -> da.Array:
    """Lazy (voxel, input + 1) of one pair, the target in the last column; one chunk a slab."""
    chunks = series.data.chunks[0]
    targets = (
        volume.chunk({schema.Z: chunks}) if volume.chunks is not None else slabs.lazy(volume).chunk({schema.Z: chunks})
    )
    starts = np.concatenate([[0], np.cumsum(chunks)])
    indices = da.arange(series.sizes[schema.Z], chunks=(chunks,))
    per_slab = tuple(int(counts[start:stop].sum()) for start, stop in itertools.pairwise(starts))
    axis = schema.axis_of(series)
    centred = axis == Axis.centred(layout.detector_count)
    where: dict[str, Any] = {} if centred else {"axis": axis}
    token = tokenize(series.data.name, targets.data.name, counts, layout, seed, *where.values())
    table = da.blockwise(
        _slab_samples,
        "vi",
        indices,
        "v",
        series.data,
        "vad",
        targets.data,
        "vyx",
        new_axes={"i": layout.n_inputs + 1},
        concatenate=True,
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
        name=f"{_SAMPLING}{token}",
        counts=counts,
        layout=layout,
        seed=seed,
        **where,
    )
    return da.Array(table.dask, table.name, (per_slab, (layout.n_inputs + 1,)), meta=table._meta)


def _slab_samples(
    z_indices: Integers,
    rows: Float32,
    images: Float32,
    *,
    counts: Integers,
    layout: InputLayout,
    seed: list[int],
    axis: Axis | None = None,
) -> Float32:
    """(voxel, input + 1) of one slab, where its rows lie."""
    first = int(z_indices[0])
    finite.check_slab(rows, who="training_samples", dims=schema.SERIES_DIMS, first=first)
    finite.check_slab(images, who="training_samples", dims=schema.VOLUME_DIMS, first=first)
    xp = device.namespace(rows)
    voxels = np.concatenate(
        [
            np.column_stack(
                [np.full(counts[z], index), _positions(layout.detector_count, int(counts[z]), [*seed, int(z)], axis)]
            )
            for index, z in enumerate(z_indices)
        ]
    ).astype(np.int64)
    inputs = layout.inputs(rows, voxels, axis)
    images = xp.asarray(images) if device.is_on_gpu(rows) else device.to_host(images)
    target = images[voxels[:, 0], voxels[:, 1], voxels[:, 2]]
    table: Float32 = xp.concatenate([inputs, target[:, None]], axis=1)
    return table


def _positions(size: int, count: int, seed: list[int], axis: Axis | None) -> Integers:
    """(voxel, 2): y and x of `count` pixels, uniform over the disc that every projection sees."""
    y, x = np.nonzero(geometry.seen_by_all(size, axis))
    chosen = np.random.default_rng(seed).integers(0, y.size, count)
    return np.column_stack([y[chosen], x[chosen]])


def slices_of(samples: xr.Dataset) -> Integers:
    """(voxel,), the slice of each voxel; 0 for all of them in a set that does not say."""
    if SLICE not in samples or samples[SLICE].dims != (VOXEL,):
        return np.zeros(samples.sizes[VOXEL], np.int64)
    values = np.asarray(samples[SLICE].values)
    if not np.isfinite(values).all() or (values < 0).any() or values.max(initial=0) > _MOST_SLICES:
        refuse("train", needs="numbers of slices in a training set", got="others", remedy="make it again")
    return values.astype(np.int64)


def is_as_recorded(samples: xr.Dataset) -> bool:
    """Whether a training set is lazy still and just what its recipe says; of one in memory that cannot be known."""
    names = [getattr(samples[name].data, "name", None) for name in ("inputs", "target")]
    return bool(names == samples.attrs.get("names"))


def would_be_sampled(samples: xr.Dataset) -> bool:
    """Whether computing a set draws its samples from volumes and series, instead of reading them."""
    graphs = (getattr(samples[name].data, "dask", None) for name in ("inputs", "target"))
    layers = itertools.chain.from_iterable(graph.layers for graph in graphs if graph is not None)
    return any(str(layer).startswith(_SAMPLING) for layer in layers)


def layout_of(samples: xr.Dataset) -> InputLayout:
    """The input layout of a training set."""
    if "layout" not in getattr(samples, "attrs", {}):
        got, remedy = f"another {type(samples).__name__}", "make one by training_samples or phantom_samples"
        refuse("train", needs="a training set for NN-FBP", got=got, remedy=remedy)
    try:
        return InputLayout.from_json(samples.attrs["layout"])
    except (ValueError, TypeError) as error:
        refuse("train", needs="a training set as it was made", got=f"another layout ({error})", remedy="make it again")
