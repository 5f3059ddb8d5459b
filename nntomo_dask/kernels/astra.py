"""Projection and reconstruction by the ASTRA toolbox. This is the only module that imports ASTRA.

If ASTRA finds a GPU, its CUDA 3D routines are used; otherwise its 2D routines with the `linear` projector, slice by
slice. In the 2D geometry of ASTRA the rows go downwards, opposite to y in this package, so 2D routines get the negative
angles. Its 3D volumes have the same y axis as this package. Context managers free the objects of ASTRA, which would
otherwise stay in memory.

References
----------
.. [1] W. van Aarle et al., The ASTRA Toolbox, Ultramicroscopy 157 (2015) 35, doi:10.1016/j.ultramic.2015.05.002.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import numpy as np

from nntomo_dask import extras
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.types import Float32, Float64


def _astra() -> Any:
    return extras.require("astra", who='engine="astra"')


def uses_gpu() -> bool:
    """Whether ASTRA finds a GPU."""
    return bool(_astra().use_cuda())


def forward(images: Float32, angles_deg: Float64, axis: Axis | None = None) -> Float32:
    """Project (slice, y, x) to (slice, angle, detector)."""
    n_slices, n, _ = images.shape
    sinograms = np.zeros((n_slices, angles_deg.size, n), np.float32)
    if uses_gpu():
        _run_3d("FP3D_CUDA", images, sinograms, angles_deg, axis)
    else:
        _run_2d("FP", images, sinograms, angles_deg, axis)
    return sinograms


def back(sinograms: Float32, angles_deg: Float64, axis: Axis | None = None) -> Float32:
    """Backproject (slice, angle, detector) to (slice, y, x). On a CPU this is the exact transpose of `forward`."""
    n_slices, _, n = sinograms.shape
    images = np.zeros((n_slices, n, n), np.float32)
    if uses_gpu():
        _run_3d("BP3D_CUDA", images, sinograms, angles_deg, axis)
    else:
        _run_2d("BP", images, sinograms, angles_deg, axis)
    return images


def fbp(sinograms: Float32, angles_deg: Float64, *, window: str, axis: Axis | None = None) -> Float32:
    """Filtered backprojection by ASTRA, slice by slice. ASTRA gives all projections the same weight."""
    n_slices, _, n = sinograms.shape
    images = np.zeros((n_slices, n, n), np.float32)
    on_gpu = uses_gpu()
    _run_2d("FBP_CUDA" if on_gpu else "FBP", images, sinograms, angles_deg, axis, option={"FilterType": window})
    return images


def _run_2d(
    algorithm: str,
    images: Float32,
    sinograms: Float32,
    angles_deg: Float64,
    axis: Axis | None,
    option: dict[str, Any] | None = None,
) -> None:
    """Run a 2D algorithm on each slice. The result is written into `images` or `sinograms`."""
    astra = _astra()
    n = images.shape[-1]
    volume_geometry = astra.create_vol_geom(n, n)
    projection_geometry = astra.create_proj_geom("parallel", 1.0, n, -np.deg2rad(angles_deg))
    if axis is not None and axis != Axis.centred(n):
        edges = -axis.x - 0.5, n - axis.x - 0.5, axis.y + 0.5 - n, axis.y + 0.5
        volume_geometry = astra.create_vol_geom(n, n, *edges)
        projection_geometry = astra.geom_postalignment(projection_geometry, (n - 1) / 2 - axis.x)
    image, sinogram = np.empty((n, n), np.float32), np.empty(sinograms.shape[1:], np.float32)
    with ExitStack() as stack:
        kind = "cuda" if algorithm.endswith("_CUDA") else "linear"
        projector = astra.create_projector(kind, projection_geometry, volume_geometry)
        stack.callback(astra.projector.delete, projector)
        image_id = stack.enter_context(_linked(astra.data2d, "-vol", volume_geometry, image))
        sinogram_id = stack.enter_context(_linked(astra.data2d, "-sino", projection_geometry, sinogram))
        settings = astra.astra_dict(algorithm)
        settings["ProjectorId"] = projector
        settings["ProjectionDataId"] = sinogram_id
        settings["VolumeDataId" if algorithm == "FP" else "ReconstructionDataId"] = image_id
        if option is not None:
            settings["option"] = option
        algorithm_id = astra.algorithm.create(settings)
        stack.callback(astra.algorithm.delete, algorithm_id)
        for z in range(len(images)):
            image[...] = images[z]
            sinogram[...] = sinograms[z]
            astra.algorithm.run(algorithm_id)
            images[z] = image
            sinograms[z] = sinogram


def _run_3d(
    algorithm: Literal["FP3D_CUDA", "BP3D_CUDA"],
    images: Float32,
    sinograms: Float32,
    angles_deg: Float64,
    axis: Axis | None,
) -> None:
    """Run a CUDA 3D algorithm on all slices at once. The result is written into `images` or `sinograms`."""
    astra = _astra()
    n_slices, n, _ = images.shape
    volume_geometry = astra.create_vol_geom(n, n, n_slices)
    projection_geometry = astra.create_proj_geom("parallel3d", 1.0, 1.0, n_slices, n, np.deg2rad(angles_deg))
    if axis is not None and axis != Axis.centred(n):
        edges = -axis.x - 0.5, n - axis.x - 0.5, -axis.y - 0.5, n - axis.y - 0.5, -n_slices / 2, n_slices / 2
        volume_geometry = astra.create_vol_geom(n, n, n_slices, *edges)
        projection_geometry = astra.geom_postalignment(projection_geometry, ((n - 1) / 2 - axis.x, 0.0))
    with ExitStack() as stack:
        image_id = stack.enter_context(_linked(astra.data3d, "-vol", volume_geometry, images))
        sinogram_id = stack.enter_context(_linked(astra.data3d, "-sino", projection_geometry, sinograms))
        settings = astra.astra_dict(algorithm)
        settings["ProjectionDataId"] = sinogram_id
        settings["VolumeDataId" if algorithm == "FP3D_CUDA" else "ReconstructionDataId"] = image_id
        algorithm_id = astra.algorithm.create(settings)
        stack.callback(astra.algorithm.delete, algorithm_id)
        astra.algorithm.run(algorithm_id)


@contextmanager
def _linked(store: Any, kind: str, geometry: Any, array: Float32) -> Iterator[int]:
    """An ASTRA data object that uses the memory of a NumPy array."""
    identifier = store.link(kind, geometry, array)
    try:
        yield identifier
    finally:
        store.delete(identifier)
