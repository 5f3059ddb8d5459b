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
    "phantoms.volumes": [
        "body_stack",
        "ellipse_stack",
        "mixed_stack",
        "nanoparticle",
        "random_spheres",
        "training_stack",
    ],
    "projection.project": ["backproject", "project", "resize"],
    "reconstruction.fbp": ["fbp"],
    "reconstruction.sirt": ["sirt"],
    "reconstruction.nnfbp": ["intensity_level", "nnfbp", "outside_training_range"],
    "reconstruction.learned": ["reconstruct", "register_network"],
    "reconstruction.msdnet": ["msdnet"],
    "networks.files": ["Network", "load_network", "save_network"],
    "networks.msdnet": ["MSDNetwork"],
    "networks.nnfbp": ["NNFBPNetwork", "evaluate"],
    "training.samples": ["phantom_samples", "training_samples"],
    "training.slices": ["noise2inverse_slices", "phantom_slices", "training_slices"],
    "training.nnfbp": ["train_nnfbp"],
    "training.msdnet": ["train_msdnet"],
    "training.ensembles": ["train_ensemble"],
    "training.history": ["intermediate_networks"],
    "simulation.optics": ["Imaging"],
    "simulation.simulate": ["simulate"],
    "simulation.specimen": ["Specimen", "specimen"],
    "simulation.structures": ["structure"],
    "simulation.truth": ["ground_truth"],
    "metrics.errors": ["fourier_shell_correlation", "mse", "normalize", "psnr", "resolution", "segment", "ssim"],
    "store": ["open", "save", "verify"],
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
