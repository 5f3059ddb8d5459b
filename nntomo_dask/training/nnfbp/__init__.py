"""Training of NN-FBP networks: their declaration for ``nntomo train``, and all that belongs to it.

`samples` draws the training sets, `sets` reads them, `tree` adds over them, `annealed`, `levenberg_marquardt` and
`adam` lower the loss, and `training` has the public function.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.kernels.filters import Binning
from nntomo_dask.networks import files
from nntomo_dask.networks.nnfbp import Form, NNFBPNetwork
from nntomo_dask.networks.nnfbp_layout import Filters, Wedge
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.materials import Materials
from nntomo_dask.phantoms.phantom import Phantom, for_training, slab_bytes
from nntomo_dask.projection import add_noise as adding, project as projecting
from nntomo_dask.settings import setting
from nntomo_dask.training import TRAININGS, noise as phantom_noise
from nntomo_dask.training.checkpoints import Array, Kind
from nntomo_dask.training.declaration import OWN_PAIRS, Pairs, Save, Sets, Training
from nntomo_dask.training.nnfbp import samples as samples_room, sets as sets_room, settings, tree


def _with_parameters(frame: NNFBPNetwork, parameters: Array, recipe: dict[str, object]) -> NNFBPNetwork:
    parts: dict[str, Any] = frame.form.unpack(parameters)
    parts["output_bias"] = float(parts["output_bias"][0])
    return dataclasses.replace(frame, **parts, recipe=recipe)


KIND = Kind(NNFBPNetwork, "an NN-FBP network", _with_parameters, keep="every")


@TRAININGS.register
@dataclass(frozen=True, kw_only=True)
class NNFBPTraining(settings.Fit, Training[NNFBPNetwork]):
    """NN-FBP: filtered backprojections with learned filters, combined by a small neural network."""

    name: ClassVar[str] = "nnfbp"
    summary: ClassVar[str] = "a few learned filters within filtered backprojection; it trains within seconds to minutes"
    kind: ClassVar[Kind[NNFBPNetwork]] = KIND
    holds: ClassVar[str] = "training voxels"

    phantom: str | Phantom = setting(
        Materials.name,
        registry=PHANTOMS,
        help="The phantom from which the network learns; nntomo phantom --help says what each one is. Materials is for "
        "a specimen of which nothing is known.",
    )
    noise: phantom_noise.PhantomNoise = setting("auto", least=0, help=phantom_noise.HELP)
    noise_spread: float = setting(samples_room.NOISE_SPREAD, least=1, help=phantom_noise.SPREAD_HELP)
    slices: int = setting(samples_room.SLICES, least=4, help="The number of slices of the training phantom.")
    samples: int = setting(
        samples_room.SAMPLES,
        least=1,
        help="The number of training voxels, and of validation voxels. More than 1048576, which the solver lm alone "
        "takes, are stored beside OUTPUT.",
    )
    filters: Filters = setting(
        "apart",
        help="Whether each projection, or each group of neighbours where they are more than 12, has filters of its own "
        "(apart), or all measured ones share them (shared).",
    )
    filter_bins: Binning = setting(
        "exponential",
        help="The widths of the bins in which a filter is learned: growing with the distance (exponential), or one "
        "pixel everywhere (none).",
    )
    wedge: Wedge = setting(
        "complete",
        help="Whether the missing wedge is filled by interpolation before filtering (complete) or not (keep).",
    )

    @property
    def default_epochs(self) -> int:
        """The largest number of epochs, where none is given."""
        return settings.MAX_EPOCHS[self.solver]

    def check(self) -> None:
        """Raise a SchemaError where a setting is out of range, or settings contradict each other."""
        super().check()
        for_training(self.phantom, who="train")
        if self.solver != "lm" and self.samples > sets_room.IN_MEMORY_VOXELS:
            refuse(
                "train",
                needs=f"at most {sets_room.IN_MEMORY_VOXELS} samples, since the solver {self.solver} holds them in "
                "memory",
                got=f"{self.samples}",
                remedy='`solver="lm"`, which takes any number',
            )

    def unused(self, *, own_pairs: bool) -> dict[str, str]:
        """The phantom, where pairs are given."""
        return dict.fromkeys(("phantom", "noise", "noise_spread", "slices"), OWN_PAIRS) if own_pairs else {}

    def notes(self, series: xr.DataArray | None, *, validation: bool) -> list[str]:
        """Hints at sets that say less than they seem to."""
        if series is None:
            missing = (
                "validation uses other voxels of the same volumes; a volume of its own (--validation-series) is better"
            )
            return [] if validation else [missing]
        voxels = int(np.pi / 4 * series.sizes[schema.DETECTOR] ** 2) * (self.slices // 4)
        repeated = (
            f"the validation phantom has {voxels} voxels, so that {self.samples} samples repeat some; raise --slices "
            "for more of them"
        )
        return [repeated] if self.samples > voxels else []

    def sets_for(self, series: xr.DataArray, *, seed: int) -> Sets:
        """Samples of phantoms."""
        return Sets(
            *samples_room.phantom_samples(
                series,
                phantom=self.phantom,
                noise=self.noise,
                noise_spread=self.noise_spread,
                n_slices=self.slices,
                n_samples=self.samples,
                seed=seed,
                wedge=self.wedge,
                binning=self.filter_bins,
                filters=self.filters,
            )
        )

    def sets_of(self, training: Pairs, validation: Pairs | None, *, seed: int) -> Sets:
        """Samples of pairs; without pairs for validation, other voxels of the same volumes."""
        first, second = (
            samples_room.training_samples(
                pairs.series,
                pairs.volumes,
                n_samples=self.samples,
                seed=2 * seed + part,
                wedge=self.wedge,
                binning=self.filter_bins,
                filters=self.filters,
            )
            for part, pairs in enumerate((training, validation or training), start=1)
        )
        return Sets(first, second)

    def host_bytes(self, sets: Sets, *, workers: int, processes: int, members: int = 1) -> int:
        """Bytes at the peak; the members of an ensemble share the sets."""
        layout = samples_room.layout_of(sets.training)
        held = 0 if _is_large(sets) else max(part.sizes[samples_room.VOXEL] for part in sets)
        return training_bytes(
            samples=held,
            form=self.form(layout.n_inputs),
            solver=self.solver,
            angles=len(layout.angles_deg),
            detector=layout.detector_count,
            workers=workers,
            processes=processes,
            phantom=for_training(self.phantom, who="train").host_bytes,
        )

    def described(self, sets: Sets) -> str:
        """What takes the memory."""
        return "its samples"

    def folder(self, output: Path, sets: Sets) -> Path | None:
        """A folder for large sets."""
        return files.beside(output, ".samples") if _is_large(sets) else None

    def keep(self, sets: Sets, folder: Path, *, save: Save) -> Sets:
        """One store a set."""
        return Sets(*(save(part, folder / f"{name}.zarr") for name, part in sets._asdict().items()))

    def fitter(self) -> Callable[..., NNFBPNetwork]:
        """The function that trains; its packages are imported here."""
        from nntomo_dask.training.nnfbp.training import fit

        return fit

    def recorded(self) -> dict[str, object]:
        """The settings as recipes of networks have them: with numbers of nodes."""
        form = self.form(1)
        return super().recorded() | {"hidden_nodes": form.n_hidden, "second_nodes": form.n_second}

    def measure(self, network: NNFBPNetwork) -> str:
        """What the losses are."""
        words = "mean square errors of voxels in [0, 1]"
        is_by_slice = network.recipe.get("parameters", {}).get("solver") == "annealed"
        return f"{words}, that of validation a geometric mean over slices" if is_by_slice else words


def _is_large(both: Sets) -> bool:
    return any(sets_room.is_large(part) for part in both)


def training_bytes(
    *,
    samples: int,
    form: Form,
    solver: settings.Solver = "lm",
    angles: int,
    detector: int,
    workers: int,
    processes: int = 0,
    phantom: chunking.HostBytes = slab_bytes,
) -> int:
    """Bytes at the peak of making both training sets from phantoms and training on them.

    Parameters
    ----------
    samples
        Voxels of each set that are held in memory; 0 where the sets are stores and the training reads them in chunks.
    form
        Of the network.
    solver
        Levenberg–Marquardt holds derivatives by all parameters.
    angles, detector
        Of the series.
    workers, processes
        See `declaration.Training.host_bytes`.
    phantom
        Bytes of a slab of the phantom.
    """
    slices = chunking.slab_slices((2**20, detector, detector))
    rows = slices, angles, detector
    making = phantom((slices, detector, detector)) + projecting.host_bytes(rows) + adding.host_bytes(rows)
    inputs = form.n_inputs
    # The samples as float32, in parts and joined, or joined and scaled; of a leaf of them the scaled inputs and what
    # the solver makes of them.
    held = 2 * samples * (inputs + 1) * 8
    if solver == "lm":  # the derivatives and a product
        derivatives = 8 * tree.LEAF_VOXELS * (form.count + 2 * inputs) + 3 * 8 * form.count**2
    else:
        derivatives = 8 * tree.LEAF_VOXELS * (2 * form.n_hidden + 2 * form.n_second + 2 * inputs)
    if samples == 0:
        derivatives += 12 * chunking.TABLE_ROWS * (inputs + 1)  # of a chunk, packed and unpacked
    return chunking.PROCESS_BYTES + processes * chunking.WORKER_BYTES + workers * (making + derivatives) + held
