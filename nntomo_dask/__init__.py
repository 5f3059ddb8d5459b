"""Electron tomography from a few projections, on arrays larger than memory.

The public names; each is imported from its room when it is first asked for, so that ``import nntomo_dask`` takes no
time.
"""

from typing import Any

import lazy_loader

from nntomo_dask import extras

_ROOMS = {
    "errors": ["SchemaError"],
    "arrays.schema": ["check_finite", "check_tilt_series", "check_volume", "tilt_series", "volume"],
    "arrays.geometry": ["angular_cells", "complete_wedge", "completed_angles", "tilt_angles"],
    "phantoms": ["PHANTOMS"],
    "phantoms.phantom": ["Phantom", "phantom"],
    "phantoms.bodies": ["body_stack"],
    "phantoms.ellipses": ["ellipse_stack", "training_stack"],
    "phantoms.mixed": ["mixed_stack"],
    "phantoms.particle": ["nanoparticle"],
    "phantoms.spheres": ["random_spheres"],
    "projection.project": ["backproject", "project", "resize"],
    "reconstruction.cgls": ["cgls"],
    "reconstruction.fbp": ["fbp"],
    "reconstruction.sirt": ["sirt"],
    "projection.projector": ["Projector", "projector"],
    "reconstruction": ["METHODS"],
    "reconstruction.method": ["Method", "reconstruct"],
    "reconstruction.intensity": ["intensity_level"],
    "reconstruction.nnfbp": ["nnfbp", "outside_training_range"],
    "networks.network": ["Network"],
    "reconstruction.msdnet": ["msdnet"],
    "networks": ["NETWORKS"],
    "networks.files": ["load_network", "save_network"],
    "networks.msdnet": ["MSDNetwork"],
    "networks.nnfbp": ["NNFBPNetwork", "evaluate"],
    "training.nnfbp.samples": ["phantom_samples", "training_samples"],
    "training.nnfbp.training": ["train_nnfbp"],
    "training.msdnet.slices": ["noise2inverse_slices", "phantom_slices", "training_slices"],
    "training.msdnet.training": ["train_msdnet"],
    "training.ensembles": ["train_ensemble"],
    "training.registration": ["register_network"],
    "training.checkpoints": ["intermediate_networks"],
    "simulation.optics": ["Imaging"],
    "simulation.simulate": ["simulate"],
    "simulation.specimen": ["Specimen", "specimen"],
    "simulation.structures": ["structure"],
    "simulation.truth": ["ground_truth"],
    "metrics": ["METRICS"],
    "metrics.metric": ["Metric", "measure"],
    "metrics.dice": ["dice"],
    "metrics.fsc": ["fourier_shell_correlation", "resolution"],
    "metrics.mse": ["mse"],
    "metrics.psnr": ["psnr"],
    "metrics.scaling": ["normalize", "segment"],
    "metrics.ssim": ["ssim"],
    "store": ["open", "open_dataset", "save", "save_together", "verify"],
    "formats": ["FORMATS"],
    "formats.format": ["Format"],
    "formats.mrc": ["read_mrc_series", "read_mrc_volume", "write_mrc"],
    "formats.tilt_angles": ["read_tilt_angles", "write_tilt_angles"],
}

_attribute, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=_ROOMS)


def __getattr__(name: str) -> Any:
    try:
        return _attribute(name)
    except ModuleNotFoundError as error:
        extras.explain(error, who=name)
        raise
