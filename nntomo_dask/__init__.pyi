"""The public names and the modules that hold them: for the lazy import in `__init__`, and for type checkers."""

from .alignment.align import align as align
from .alignment.apply import apply_alignment as apply_alignment
from .alignment.files import (
    read_alignment as read_alignment,
    write_alignment as write_alignment,
)
from .alignment.page import plot_alignment as plot_alignment
from .alignment.table import Alignment as Alignment
from .arrays.detector import with_axis_position as with_axis_position
from .arrays.geometry import (
    angular_cells as angular_cells,
    complete_wedge as complete_wedge,
    completed_angles as completed_angles,
    tilt_angles as tilt_angles,
)
from .arrays.schema import (
    check_finite as check_finite,
    check_tilt_series as check_tilt_series,
    check_volume as check_volume,
    tilt_series as tilt_series,
    volume as volume,
)
from .assessment.assess import assess as assess
from .assessment.result import Assessment as Assessment
from .atoms.bound import position_bound as position_bound
from .atoms.chain import atoms_from_series as atoms_from_series
from .atoms.files import (
    read_atoms as read_atoms,
    write_atoms as write_atoms,
)
from .atoms.find import find_atoms as find_atoms
from .atoms.match import (
    Match as Match,
    match_atoms as match_atoms,
)
from .atoms.project import project_atoms as project_atoms
from .atoms.refine import refine_atoms as refine_atoms
from .atoms.sampling import sample_atoms as sample_atoms
from .atoms.table import (
    atoms_from_ase as atoms_from_ase,
    atoms_to_ase as atoms_to_ase,
)
from .compute.cluster import session as session
from .errors import SchemaError as SchemaError
from .formats import FORMATS as FORMATS
from .formats.exporting import write as write
from .formats.format import Format as Format
from .formats.mrc import (
    read_mrc_series as read_mrc_series,
    read_mrc_volume as read_mrc_volume,
)
from .formats.mrc_writing import write_mrc as write_mrc
from .formats.reading import read as read
from .formats.tilt_angles import (
    read_tilt_angles as read_tilt_angles,
    write_tilt_angles as write_tilt_angles,
)
from .metrics import METRICS as METRICS
from .metrics.dice import dice as dice
from .metrics.fsc import (
    fourier_shell_correlation as fourier_shell_correlation,
    resolution as resolution,
)
from .metrics.metric import (
    Metric as Metric,
    measure as measure,
)
from .metrics.mse import mse as mse
from .metrics.psnr import psnr as psnr
from .metrics.relative_error import relative_error as relative_error
from .metrics.scaling import (
    normalize as normalize,
    segment as segment,
)
from .metrics.ssim import ssim as ssim
from .networks import NETWORKS as NETWORKS
from .networks.files import (
    load_network as load_network,
    save_network as save_network,
)
from .networks.msdnet import MSDNetwork as MSDNetwork
from .networks.network import Network as Network
from .networks.nnfbp import (
    NNFBPNetwork as NNFBPNetwork,
    evaluate as evaluate,
)
from .networks.pretrained import pretrained_network as pretrained_network
from .networks.unrolled import UnrolledNetwork as UnrolledNetwork
from .phantoms import PHANTOMS as PHANTOMS
from .phantoms.bodies import body_stack as body_stack
from .phantoms.ellipses import (
    ellipse_stack as ellipse_stack,
    training_stack as training_stack,
)
from .phantoms.mixed import mixed_stack as mixed_stack
from .phantoms.particle import nanoparticle as nanoparticle
from .phantoms.phantom import (
    Phantom as Phantom,
    phantom as phantom,
)
from .phantoms.spheres import random_spheres as random_spheres
from .plotting.atoms import (
    plot_atoms as plot_atoms,
    plot_displacements as plot_displacements,
)
from .plotting.figures import (
    compare_volumes as compare_volumes,
    save_figure as save_figure,
    training_curve as training_curve,
)
from .plotting.scroll import (
    Scroll as Scroll,
    scroll as scroll,
)
from .plotting.views import (
    plot_fsc as plot_fsc,
    plot_isosurface as plot_isosurface,
    plot_sinogram as plot_sinogram,
    plot_slices as plot_slices,
)
from .projection.add_noise import add_noise as add_noise
from .projection.noise import (
    Noise as Noise,
    noise as noise,
)
from .projection.project import (
    backproject as backproject,
    project as project,
    resize as resize,
)
from .projection.projector import (
    Projector as Projector,
    projector as projector,
)
from .projection.smooth import smooth_projections as smooth_projections
from .reconstruction import METHODS as METHODS
from .reconstruction.beside import volume_and_spread as volume_and_spread
from .reconstruction.cgls import cgls as cgls
from .reconstruction.dart import dart as dart
from .reconstruction.fbp import fbp as fbp
from .reconstruction.intensity import intensity_level as intensity_level
from .reconstruction.jackknife import jackknife as jackknife
from .reconstruction.method import (
    Method as Method,
    mean_and_spread as mean_and_spread,
    reconstruct as reconstruct,
)
from .reconstruction.msdnet import msdnet as msdnet
from .reconstruction.nnfbp import nnfbp as nnfbp
from .reconstruction.report import report as report
from .reconstruction.sirt import sirt as sirt
from .reconstruction.training_range import outside_training_range as outside_training_range
from .reconstruction.tv import tv as tv
from .reconstruction.unrolled import unrolled as unrolled
from .simulation.clusters import (
    amorphous_cluster as amorphous_cluster,
    cluster_specimen as cluster_specimen,
)
from .simulation.like import ground_truth_like as ground_truth_like
from .simulation.linear import linear_series as linear_series
from .simulation.optics import Imaging as Imaging
from .simulation.simulate import simulate as simulate
from .simulation.specimen import (
    Specimen as Specimen,
    specimen as specimen,
)
from .simulation.structures import structure as structure
from .simulation.truth import ground_truth as ground_truth
from .store import (
    open as open,
    open_dataset as open_dataset,
    save as save,
    save_together as save_together,
    verify as verify,
)
from .training import TRAININGS as TRAININGS
from .training.checkpoints import intermediate_networks as intermediate_networks
from .training.declaration import Training as Training
from .training.ensembles import train_ensemble as train_ensemble
from .training.msdnet.slices import (
    noise2inverse_slices as noise2inverse_slices,
    phantom_slices as phantom_slices,
    training_slices as training_slices,
)
from .training.msdnet.training import train_msdnet as train_msdnet
from .training.nnfbp.samples import (
    phantom_samples as phantom_samples,
    training_samples as training_samples,
)
from .training.nnfbp.training import train_nnfbp as train_nnfbp
from .training.registration import register_network as register_network
from .training.unrolled.paired import pair_scenes as pair_scenes
from .training.unrolled.sets import phantom_scenes as phantom_scenes
from .training.unrolled.training import train_unrolled as train_unrolled
