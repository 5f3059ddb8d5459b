"""Training of MS-D Net: its declaration for ``nntomo train``, and all that belongs to it.

`slices` makes the training sets, `layout` says how their inputs come from a series, `slice_reader` reads them, and
`training` has the public function. PyTorch is imported when a training begins.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import mixed_scale
from nntomo_dask.networks import files
from nntomo_dask.networks.msdnet import NEIGHBOURS, MSDNetwork
from nntomo_dask.networks.network import Network
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.bodies import Bodies
from nntomo_dask.phantoms.phantom import Phantom, for_training
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.method import Method
from nntomo_dask.reconstruction.msdnet import input_method
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.settings import setting
from nntomo_dask.training import TRAININGS, noise as phantom_noise
from nntomo_dask.training.checkpoints import Array, Kind
from nntomo_dask.training.declaration import OWN_PAIRS, Pairs, Save, Sets, Training
from nntomo_dask.training.msdnet import layout, settings, slice_reader, slices as slices_room


def _with_parameters(frame: MSDNetwork, parameters: Array, recipe: dict[str, object]) -> MSDNetwork:
    return dataclasses.replace(frame, parameters=parameters, recipe=recipe)


KIND = Kind(MSDNetwork, "MS-D Net", _with_parameters, keep="best")


@TRAININGS.register
@dataclass(frozen=True, kw_only=True)
class MSDNetTraining(settings.Fit, Training[MSDNetwork]):
    """MS-D Net: improves the slices of a reconstruction by a deep convolutional network."""

    name: ClassVar[str] = "msdnet"
    summary: ClassVar[str] = (
        "a deep network that improves the slices of another reconstruction; for volumes of your own, and to learn from "
        "the series itself; from phantoms, unrolled learns more in the same time"
    )
    kind: ClassVar[Kind[MSDNetwork]] = KIND
    holds: ClassVar[str] = "training slices"

    phantom: str | Phantom = setting(
        Bodies.name,
        registry=PHANTOMS,
        help="The phantom from which the network learns; nntomo phantom --help says what each one is. Mixed is for a "
        "specimen of which nothing is known.",
    )
    noise: phantom_noise.PhantomNoise = setting("auto", least=0, help=phantom_noise.HELP)
    slices: int = setting(1600, least=8, help="The number of slices of the training phantom.")
    method: str | None = setting(
        None,
        option="input",
        registry=METHODS,
        help="The method whose reconstruction the network improves, nntomo reconstruct --help lists them. Default: "
        f"{layout.DEFAULT}, with values of at least 0; with --self-supervised {layout.SELF_SUPERVISED}.",
    )
    input_network: Path | None = setting(
        None, help="The file of the network that makes the reconstruction, where --input is a method with a network."
    )
    neighbours: int = setting(
        NEIGHBOURS, least=0, help="The number of neighbouring slices on either side that the network sees too."
    )
    self_supervised: bool = setting(
        default=False,
        help="Learn from the measured series itself to remove its noise (Noise2Inverse), without phantoms or volumes; "
        "for series of dozens of projections.",
    )
    splits: int = setting(
        2, least=2, help="With --self-supervised: the number of parts into which the projections are divided."
    )

    @property
    def default_epochs(self) -> int:
        """The largest number of epochs, where none is given."""
        return settings.MAX_EPOCHS

    def check(self) -> None:
        """Raise a SchemaError where a setting is out of range, or settings contradict each other."""
        super().check()
        for_training(self.phantom, who="train")
        METHODS.choose(self._method, who="train")
        if layout.needs_network(self._method) != (self.input_network is not None):
            needs = "`input_network` where `input` is a method with a network, and only there"
            refuse("train", needs=needs, got="one without the other", remedy="give both, or neither")

    @property
    def _method(self) -> str:
        if self.method is not None:
            return self.method
        return layout.SELF_SUPERVISED if self.self_supervised else layout.DEFAULT

    def unused(self, *, own_pairs: bool) -> dict[str, str]:
        """The phantom, where the network learns from something else; parts of projections that are not divided."""
        if self.self_supervised:
            return dict.fromkeys(("phantom", "noise", "slices"), "the network learns from a measured series")
        nothing_divided = {"splits": "--self-supervised is not given"}
        return nothing_divided | dict.fromkeys(("phantom", "noise", "slices") if own_pairs else (), OWN_PAIRS)

    def sets_for(self, series: xr.DataArray, *, seed: int) -> Sets:
        """Slices of phantoms, or of the series itself."""
        method, network = self._method, self._network()
        if self.self_supervised:
            made = slices_room.noise2inverse_slices(
                series, splits=self.splits, method=method, neighbours=self.neighbours
            )
        else:
            made = slices_room.phantom_slices(
                series,
                phantom=self.phantom,
                noise=self.noise,
                n_slices=self.slices,
                method=method,
                network=network,
                neighbours=self.neighbours,
                seed=seed,
            )
        return Sets(*made)

    def sets_of(self, training: Pairs, validation: Pairs | None, *, seed: int) -> Sets:
        """Slices of pairs."""
        if self.self_supervised:
            got = "pairs of series and volume"
            remedy = "give the series (`target`) instead of the pairs"
            refuse("train", needs="one series for `self_supervised`", got=got, remedy=remedy)
        if validation is None:
            refuse(
                "train",
                needs=f"pairs for training and for validation, for the network {self.name}",
                got="none for validation",
                remedy="add `validation_series` and `validation_volume`",
            )
        method, network = self._method, self._network()
        first, second = (
            slices_room.training_slices(
                pairs.series, pairs.volumes, method=method, network=network, neighbours=self.neighbours
            )
            for pairs in (training, validation)
        )
        return Sets(first, second)

    def _network(self) -> Network | None:
        """The network that makes the inputs."""
        return None if self.input_network is None else files.load_network(self.input_network)

    def host_bytes(self, sets: Sets, *, workers: int, processes: int, members: int = 1) -> int:
        """Bytes at the peak."""
        inputs = slices_room.layout_of(sets.training)
        return training_bytes(
            slices=sum(part.sizes[schema.Z] for part in sets),
            detector=sets.training.sizes[schema.X],
            angles=len(inputs.angles_deg),
            channels=inputs.channels,
            depth=self.depth,
            workers=workers,
            processes=processes,
            members=members,
            batch=self.batch_size,
            making=input_method(inputs),
        )

    def described(self, sets: Sets) -> str:
        """What takes the memory."""
        return f"{self.depth} layers of slices of {sets.training.sizes[schema.X]} pixels"

    def folder(self, output: Path, sets: Sets) -> Path | None:
        """A folder for every set: reconstructing the slices takes long, and an interrupted run continues with them."""
        return files.beside(output, ".slices")

    def keep(self, sets: Sets, folder: Path, *, save: Save) -> Sets:
        """Two stores a set, or two in all where both sets are parts of the same slices."""
        saved: dict[str, xr.DataArray] = {}  # by the name of the lazy array

        def stored(part: xr.Dataset, kind: str) -> xr.Dataset:
            kept = {}
            for name in ("input", "target"):
                array = part[name].drop_vars([slices_room.SCENE, slices_room.USED])
                if array.data.name not in saved:
                    saved[array.data.name] = save(array, folder / f"{kind}-{name}.zarr")
                kept[name] = saved[array.data.name]
            return part.assign(kept)

        return Sets(*(stored(part, kind) for kind, part in sets._asdict().items()))

    def fitter(self) -> Callable[..., MSDNetwork]:
        """The function that trains; its packages are imported here."""
        from nntomo_dask.training.msdnet.training import fit

        return fit

    def measure(self, network: MSDNetwork) -> str:
        """What the losses are."""
        error = "square" if network.recipe["parameters"]["loss"] == "l2" else "absolute"
        return f"mean {error} errors, of voxels with deviation 1"


def training_bytes(
    *,
    slices: int,
    detector: int,
    angles: int,
    channels: int,
    depth: int,
    workers: int,
    processes: int = 0,
    members: int = 1,
    batch: int = 4,
    making: Method | None = None,
) -> int:
    """Bytes at the peak of making the slices of both training sets and training a network on them.

    Parameters
    ----------
    slices
        Of both sets together.
    detector, angles
        Of the series.
    channels, depth
        Slices that the network sees at once, and its layers.
    workers, processes, members
        See `declaration.Training.host_bytes`; so many slices are computed at once as there are workers.
    batch
        Slices in a step, whose maps are held until their derivatives are computed.
    making
        The method that makes the inputs; by default SIRT, which takes most.
    """
    side_by_side = min(members, workers)
    image = mixed_scale.buffer_bytes(1, detector, detector, 2 * mixed_scale.DILATIONS)
    held = min(2 * slices * 4 * detector**2, 2 * slice_reader.IN_MEMORY_BYTES)
    height = chunking.slab_slices((2**20, detector, detector))
    slab = (Sirt.as_input() if making is None else making).host_bytes((height, angles, detector))
    training = side_by_side * (batch * (channels + depth) + min(batch, workers) * (depth + 1)) * image
    held *= max(processes, side_by_side)
    return chunking.PROCESS_BYTES + processes * chunking.WORKER_BYTES + held + max(workers * slab, training)
