"""Training of an unrolled iteration: its declaration for ``nntomo train``, and all that belongs to it.

`scenes` makes training data without end, `sets` describes them, and `training` has the public function. PyTorch is
imported when a training begins.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import xarray as xr

from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import unet
from nntomo_dask.networks.unrolled import REACH, UnrolledNetwork
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.materials import Materials
from nntomo_dask.phantoms.phantom import Phantom, for_training
from nntomo_dask.reconstruction.blocks import BLOCK
from nntomo_dask.reconstruction.tv import TotalVariation
from nntomo_dask.settings import setting
from nntomo_dask.training import TRAININGS, noise as phantom_noise
from nntomo_dask.training.checkpoints import Array, Kind
from nntomo_dask.training.declaration import Pairs, Save, Sets, Training
from nntomo_dask.training.unrolled import paired, scenes, sets as sets_room, settings


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
    reads: ClassVar[Literal["whole", "blocks"]] = "blocks"

    phantom: str | Phantom = setting(
        Materials.name,
        registry=PHANTOMS,
        help="The phantom from which the network learns; nntomo phantom --help says what each one is.",
    )
    prior: sets_room.Prior = setting(
        "wide",
        help="What the phantom materials shows: matter of any kind (wide), or what looks like that of the series, with "
        "wide margins (series).",
    )
    share: float = setting(
        paired.SHARE, above=0, most=1, help="With pairs: the share of the scenes that are theirs; 1 for no phantoms."
    )
    pair_noise: paired.PairNoise = setting(
        "own",
        help="With pairs: their series are as they are (own), or get the noise of the phantoms each time (added), for "
        "simulated series that have none.",
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
        for_training(self.phantom, who="train")
        if self.steps * self.neighbours > REACH:
            got = f"{self.steps} steps with {self.neighbours} neighbours"
            refuse("train", needs=f"`steps` times `neighbours` of at most {REACH}", got=got, remedy="`neighbours=1`")

    def unused(self, *, own_pairs: bool) -> dict[str, str]:
        """What belongs to pairs where there are none, and to phantoms where all scenes are those of pairs."""
        if not own_pairs:
            return dict.fromkeys(("share", "pair_noise"), "no pairs are given")
        names = ["phantom", "prior", "flawed", "size"] + ["noise"] * (self.pair_noise == "own")
        return dict.fromkeys(names, "--share 1 leaves no phantoms") if self.share == 1 else {}

    def sets_for(self, series: xr.DataArray, *, seed: int) -> Sets:
        """Scenes of phantoms."""
        made = sets_room.phantom_scenes(
            series,
            phantom=self.phantom,
            prior=self.prior,
            noise=self.noise,
            flawed=self.flawed,
            size=self.size,
            validated=self.validated,
            seed=seed,
        )
        return Sets(*made)

    def sets_of(self, training: Pairs, validation: Pairs | None, *, seed: int) -> Sets:
        """Scenes of pairs, among those of phantoms for the first series of them."""
        if not training.series:
            needs = "at least one pair of series and volume"
            refuse("train", needs=needs, got="none", remedy="give a series and its volume")
        return self.sets_with(training.series[0], training, validation, seed=seed)

    def sets_with(self, series: xr.DataArray, training: Pairs, validation: Pairs | None, *, seed: int) -> Sets:
        """Scenes of pairs, among those of phantoms for the series; those for validation the same, or phantoms alone."""
        if validation is None and self.share == 1:
            refuse(
                "train",
                needs="pairs for validation, where all scenes are those of pairs",
                got="none",
                remedy="add `validation_series` and `validation_volume`; or `share=0.25`",
            )
        alone = self.share == 1
        plain = dataclasses.replace(self, phantom=Materials.name, prior="wide") if alone else self
        if alone and self.pair_noise == "own":
            plain = dataclasses.replace(plain, noise="none")
        made = plain.sets_for(series, seed=seed)
        both = [
            one
            if pairs is None
            else paired.pair_scenes(
                pairs.series, pairs.volumes, phantoms=one, share=self.share, pair_noise=self.pair_noise
            )
            for one, pairs in zip(made, (training, validation), strict=True)
        ]
        return Sets(*both)

    def told(self, sets: Sets) -> list[str]:
        """What the series shows, and how many scenes are those of pairs."""
        text = sets.training.attrs.get("appearance")
        lines = [] if text is None else [f"the series, by which phantoms are drawn: {text}"]
        if "pairs" in sets.training.attrs:
            validated = "" if "pairs" in sets.validation.attrs else "; the network is validated with phantoms alone"
            lines.append(f"{100 * self.share:.3g} % of the scenes are those of pairs{validated}")
        return lines

    def host_bytes(self, sets: Sets, *, workers: int, processes: int, members: int = 1) -> int:
        """Scenes that are made and wait, the validation scenes, and the maps of a step with their derivatives."""
        source = paired.scenes_of(sets.training)
        size = source.largest
        seen, image = BLOCK + 2 * REACH, chunking.image_bytes(size)
        scene = 4 * seen * image
        angles = len(source.geometry.angles_deg) or source.geometry.projections[1]
        making = 3 * seen * scenes.FINER**3 * image + TotalVariation(weight=1.0).host_bytes((BLOCK, angles, size))
        # Kept for the derivatives of each network: of three levels of half the edge each what a layer sees. Then as
        # much again for the layer that is in work, its derivatives, and copies in the order that PyTorch computes in.
        maps = seen * image * self.width * 14 * (self.steps + 1)
        waiting = (3 * workers + self.batch_size + self.validated) * scene
        validating = seen * unet.buffer_bytes(unet.channel_count(self.neighbours), self.width, size)
        step = max(min(self.batch_size, workers) * maps, workers * validating)
        return chunking.PROCESS_BYTES + chunking.PYTORCH_BYTES + members * (waiting + workers * making + step)

    def described(self, sets: Sets) -> str:
        """What takes the memory."""
        size = paired.scenes_of(sets.training).largest
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
