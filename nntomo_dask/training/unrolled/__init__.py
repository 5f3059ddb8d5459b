"""Training of an unrolled iteration: its declaration for ``nntomo train``, and all that belongs to it.

`scenes` makes training data without end, `sets` describes them, and `training` has the public function. PyTorch is
imported when a training begins.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import xarray as xr

from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import unet
from nntomo_dask.networks.unrolled import REACH, UnrolledNetwork
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.materials import Materials
from nntomo_dask.reconstruction.blocks import BLOCK
from nntomo_dask.reconstruction.tv import TotalVariation
from nntomo_dask.settings import setting
from nntomo_dask.training import TRAININGS, noise as phantom_noise
from nntomo_dask.training.checkpoints import Array, Kind
from nntomo_dask.training.declaration import Pairs, Save, Sets, Training
from nntomo_dask.training.unrolled import scenes, sets as sets_room, settings


def _with_parameters(frame: UnrolledNetwork, parameters: Array, recipe: dict[str, object]) -> UnrolledNetwork:
    return dataclasses.replace(frame, parameters=parameters, recipe=recipe)


KIND = Kind(UnrolledNetwork, "unrolled network", _with_parameters, keep="best")


@TRAININGS.register
@dataclass(frozen=True, kw_only=True)
class UnrolledTraining(settings.Fit, Training[UnrolledNetwork]):
    """An unrolled iteration: improves total variation, with new phantoms in every step."""

    name: ClassVar[str] = "unrolled"
    summary: ClassVar[str] = "improves total variation step by step; trains about an hour, on scenes without end"
    kind: ClassVar[Kind[UnrolledNetwork]] = KIND
    holds: ClassVar[str] = "training scenes"

    phantom: str = setting(
        Materials.name,
        registry=PHANTOMS,
        help="The phantom from which the network learns; nntomo phantom --help says what each one is.",
    )
    noise: phantom_noise.PhantomNoise = setting("auto", least=0, help=phantom_noise.HELP)
    flawed: float = setting(
        sets_room.FLAWED,
        least=0,
        most=1,
        help="Share of the scenes with what measured projections have: shifts, unequal brightness, rests of a"
        " background, blur, errors of the angles.",
    )
    size: int | None = setting(
        None,
        least=16,
        help="Pixels along a slice of a scene. Default: the detector's, at most 128.",
    )
    validated: int = setting(
        sets_room.VALIDATED, least=1, help="The number of scenes with which the network is validated."
    )

    @property
    def default_epochs(self) -> int:
        """The length of a training, where none is given."""
        return settings.EPOCHS

    def check(self) -> None:
        """Raise a SchemaError where a setting is out of range, or settings contradict each other."""
        super().check()
        PHANTOMS.choose(self.phantom, who="train")
        if self.steps * self.neighbours > REACH:
            got = f"{self.steps} steps with {self.neighbours} neighbours"
            refuse("train", needs=f"`steps` times `neighbours` of at most {REACH}", got=got, remedy="`neighbours=1`")

    def sets_for(self, series: xr.DataArray, *, seed: int) -> Sets:
        """Scenes of phantoms."""
        made = sets_room.phantom_scenes(
            series,
            phantom=self.phantom,
            noise=self.noise,
            flawed=self.flawed,
            size=self.size,
            validated=self.validated,
            seed=seed,
        )
        return Sets(*made)

    def sets_of(self, training: Pairs, validation: Pairs | None, *, seed: int) -> Sets:
        """Refused: scenes come from phantoms alone."""
        refuse(
            "train",
            needs="a series (`target`): this network learns from phantoms without end",
            got="pairs of series and volume",
            remedy="`network=msdnet` for pairs",
        )

    def host_bytes(self, sets: Sets, *, workers: int, processes: int, members: int = 1) -> int:
        """Scenes that are made and wait, the validation scenes, and the maps of a step with their derivatives."""
        source = scenes.Scenes.from_json(sets.training.attrs["scenes"])
        seen, image = BLOCK + 2 * REACH, chunking.image_bytes(source.size)
        scene = 4 * seen * image
        angles = len(source.geometry.angles_deg) or source.geometry.projections[1]
        making = 3 * seen * scenes.FINER**3 * image + TotalVariation(weight=1.0).host_bytes(
            (BLOCK, angles, source.size)
        )
        # Kept for the derivatives of each network: of three levels of half the edge each what a layer sees. Then as
        # much again for the layer that is in work, its derivatives, and copies in the order that PyTorch computes in.
        maps = seen * image * self.width * 14 * (self.steps + 1)
        waiting = (3 * workers + self.batch_size + self.validated) * scene
        validating = seen * unet.buffer_bytes(unet.channel_count(self.neighbours), self.width, source.size)
        step = max(min(self.batch_size, workers) * maps, workers * validating)
        return chunking.PROCESS_BYTES + chunking.PYTORCH_BYTES + members * (waiting + workers * making + step)

    def described(self, sets: Sets) -> str:
        """What takes the memory."""
        size = scenes.Scenes.from_json(sets.training.attrs["scenes"]).size
        return f"steps of {self.batch_size} scenes of {BLOCK} slices of {size} pixels"

    def folder(self, output: Path, sets: Sets) -> Path | None:
        """None: no scene is kept."""
        return None

    def keep(self, sets: Sets, folder: Path, *, save: Save) -> Sets:
        """The same sets: they hold no data."""
        return sets

    def fitter(self) -> Callable[..., UnrolledNetwork]:
        """The function that trains; its packages are imported here."""
        from nntomo_dask.training.unrolled.training import fit

        return fit

    def measure(self, network: UnrolledNetwork) -> str:
        """What the losses are."""
        return "mean square errors, as shares of those of total variation"
