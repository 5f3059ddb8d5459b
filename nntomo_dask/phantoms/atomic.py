"""Atoms of chosen elements, in crystals with what is wrong in them, in clusters and in amorphous matter."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.kernels.place import place
from nntomo_dask.phantoms import PHANTOMS, packing
from nntomo_dask.phantoms.composing import DISC, Rng, Sketch, body, ways
from nntomo_dask.phantoms.layouts import pole
from nntomo_dask.phantoms.materials import FINER, binned
from nntomo_dask.phantoms.packing import Lattice
from nntomo_dask.phantoms.phantom import Phantom, volume_of_scenes
from nntomo_dask.phantoms.radii import GASES, NUMBERS, RADII_NM
from nntomo_dask.phantoms.shapes import Shape, random_rotation
from nntomo_dask.phantoms.solids import Solid, rod
from nntomo_dask.settings import setting
from nntomo_dask.types import Bools, Float32, Float64, Integers

VOXEL_NM = 0.04
_REACH = 4.0  # deviations of the blur beyond which an atom is nothing: 3e-4 of its maximum
_STEPS = 32  # steps of a profile per voxel of the fine grid
_TRIES = 8
_KINDS = 3  # elements of a scene, at most


@PHANTOMS.register
@dataclass(frozen=True)
class Atomic(Phantom):
    """Scenes of atoms, each a Gaussian with a weight that follows from its atomic number.

    It is the linear model of `ground_truth` with a Gaussian for probe, source and vibrations together.
    """

    name: ClassVar[str] = "atomic"
    summary: ClassVar[str] = "scenes of atoms: crystals with defects, grains and twins, clusters, amorphous matter"

    slices: int = setting(32, help="Number of neighbouring slices that show the same matter.", least=1, option="scene")
    elements: str = setting("Au", help="Symbols of the chemical elements, with commas between them.")
    voxel_nm: float | None = setting(
        None,
        help=f"Edge of a voxel. Default: {VOXEL_NM:g}, and in a training the pixels of a series that has them in nm.",
        unit="nm",
        least=0.005,
        most=0.2,
    )
    blur_nm: float = setting(
        0.04,
        help="Standard deviation of an atom's density: probe, source and vibrations together.",
        unit="nm",
        least=0.01,
        most=0.3,
    )
    exponent: float = setting(
        1.7, help="Power of the atomic number with which atoms are weighted: 1.5 to 2 for HAADF.", least=0, most=3
    )
    amorphous: float = setting(0.2, help="Share of the scenes whose matter is amorphous.", least=0, most=1)

    @property
    def scene(self) -> int | None:
        """Neighbouring slices of a scene."""
        return self.slices

    @property
    def symbols(self) -> list[str]:
        """The elements, each once."""
        return list(dict.fromkeys(part.strip() for part in self.elements.split(",") if part.strip()))

    @property
    def edge_nm(self) -> float:
        """Of a voxel."""
        return VOXEL_NM if self.voxel_nm is None else self.voxel_nm

    def parameters(self) -> dict[str, object]:
        """What a recipe says of the settings."""
        return super().parameters() | {"voxel_nm": self.edge_nm}

    def with_pixels_of(self, pixel_size_nm: float) -> "Atomic":
        """Voxels as large as the pixels of a series, where no size was asked for."""
        return self if self.voxel_nm is not None else replace(self, voxel_nm=pixel_size_nm)

    def volume(self, shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
        """The phantom, lazy."""
        return volume_of_scenes(self, _slab, shape, seed=seed, pixel_size=pixel_size)

    def scene_of(self, size: int, slices: int, rng: Rng, *, finer: int) -> Float32:
        """See `scene`."""
        return scene(size, slices, rng, finer=finer, settings=self)

    def check(self) -> None:
        """Raise a SchemaError where settings are out of range or an element is none."""
        super().check()
        unknown = [symbol for symbol in self.symbols if symbol not in NUMBERS]
        if unknown or not self.symbols:
            got = ", ".join(unknown) or "none"
            refuse(f"phantom {self.name}", needs="symbols of chemical elements", got=got, remedy='`elements="Au,Pd"`')

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Bytes of a slab (slices, y, x) in work at its peak, what is written included."""
        slices, _, size = shape
        fine = FINER**3 * 4  # the sums in double precision, and the fine grid in single
        return slices * (chunking.WRITTEN + fine) * chunking.image_bytes(size)


@dataclass(frozen=True)
class Atoms:
    """Atoms of a scene: positions (atom, 3) in nm from the tilt axis and the middle slice, and atomic numbers."""

    positions: Float64
    numbers: Integers


def scene(size: int, slices: int, rng: Rng, *, finer: int = FINER, settings: Atomic | None = None) -> Float32:
    """A scene of atoms on a grid that is `finer` times finer than its voxels along each axis.

    Parameters
    ----------
    size
        Voxels along y and along x.
    slices
        Of the scene, in voxels.
    rng
        Of everything that is random.
    finer
        Points of the grid along the edge of a voxel. The means of blocks of `finer`³ are voxels.
    settings
        By default those of `Atomic()`.

    Returns
    -------
    (slices · finer, size · finer, size · finer), values from 0 to 1.

    Raises
    ------
    SchemaError
        A setting is out of range, or an element is none.
    """
    chosen = settings or Atomic()
    chosen.check()
    top, atoms = _specimen(rng, size, slices, chosen)
    return _drawn(np.arange(slices * finer), atoms, top, size, slices, finer, chosen)


def _slab(z_indices: Integers, size: int, seed: int, settings: Atomic) -> Float32:
    slab = np.empty((z_indices.size, size, size), np.float32)
    for number in np.unique(z_indices // settings.slices):
        chosen = z_indices // settings.slices == number
        top, atoms = _specimen(np.random.default_rng([seed, int(number)]), size, settings.slices, settings)
        first, count = int(z_indices[chosen][0] % settings.slices), int(chosen.sum())
        fine = np.arange(first * FINER, (first + count) * FINER)
        drawn = _drawn(fine, atoms, top, size, settings.slices, FINER, settings)
        for index, place_ in enumerate(np.flatnonzero(chosen)):
            slab[place_] = binned(drawn[index * FINER : (index + 1) * FINER], FINER)[0]
    return slab


def _drawn(
    z_indices: Integers, atoms: Atoms, top: float, size: int, slices: int, finer: int, settings: Atomic
) -> Float32:
    """Slices of the fine grid with all atoms; the brightest atom of the scene is `top`."""
    step, sigma = settings.edge_nm / finer, settings.blur_nm
    elements, kinds = np.unique(atoms.numbers, return_inverse=True)
    weights = (elements / elements.max()) ** settings.exponent
    pairs = cKDTree(atoms.positions).query_pairs(_REACH * sigma, output_type="ndarray")
    distance = np.linalg.norm(atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]], axis=1)
    shared = np.exp(-0.5 * (distance / sigma) ** 2)
    bright = weights[kinds].copy()
    for one, other in ((0, 1), (1, 0)):
        bright += np.bincount(pairs[:, one], shared * weights[kinds[pairs[:, other]]], len(bright))
    radii = np.arange(int(_REACH * sigma / step * _STEPS) + 2) / _STEPS * step
    profiles = (top / bright.max() * weights)[:, None] * np.exp(-0.5 * (radii / sigma) ** 2)
    centre = (np.array([slices, size, size]) * finer - 1) / 2
    z, y, x = (atoms.positions / step + centre).T
    positions = np.column_stack([x, y, z, np.full(len(z), float(_STEPS))])
    drawn = place(z_indices, size * finer, positions, kinds.astype(np.int64), profiles)
    return np.minimum(drawn, 1, out=drawn)


# Scenes


def _specimen(rng: Rng, size: int, slices: int, settings: Atomic) -> tuple[float, Atoms]:
    """The brightness of the brightest atom, and all atoms whose density is seen; at least one."""
    half = size * settings.edge_nm / 2
    room = max(DISC * half - _REACH * settings.blur_nm, 0.0)
    tall = slices * settings.edge_nm / 2
    top = float(rng.uniform(0.8, 1))
    for _ in range(_TRIES):
        symbols = settings.symbols
        count = int(rng.integers(1, min(len(symbols), _KINDS) + 1))
        chosen = [str(symbol) for symbol in rng.permutation(symbols)[:count]]
        if GASES.issuperset(chosen):
            chosen += [symbol for symbol in symbols if symbol not in GASES][:1]
        scene_ = _Scene(rng, half, tall + _REACH * settings.blur_nm, chosen, settings.amorphous)
        positions, kinds = scene_.atoms()
        numbers = np.array([NUMBERS[symbol] for symbol in chosen])[kinds]
        seen = (np.abs(positions[:, 0]) < tall + _REACH * settings.blur_nm) & (
            np.hypot(positions[:, 1], positions[:, 2]) <= room
        )
        if (np.abs(positions[seen, 0]) < tall).any():
            return top, Atoms(positions[seen], numbers[seen])
    return top, Atoms(np.zeros((1, 3)), np.array([NUMBERS[settings.symbols[0]]]))


@dataclass
class _Scene:
    """A scene in the making: `half` the width and `tall` half the height of what is seen, in nm."""

    rng: Rng
    half: float
    tall: float
    symbols: list[str]
    amorphous: float

    @property
    def radii(self) -> Float64:
        """Of the elements, in nm."""
        return np.array([RADII_NM[symbol] for symbol in self.symbols])

    def chance(self, share: float) -> bool:
        """True in this share of the cases."""
        return bool(self.rng.random() < share)

    def atoms(self) -> tuple[Float64, Integers]:
        """Positions and kinds."""
        rng = self.rng
        solids = self._solids()
        without_order = self.chance(self.amorphous)
        parts: list[tuple[Float64, Integers]] = []
        taken: list[Solid] = []
        for solid in solids:
            fill = self._amorphous if without_order else self._ordered
            points, kinds = fill(solid)
            for other in taken:
                free = ~other.contains(points / self.half)
                points, kinds = points[free], kinds[free]
            taken.append(solid)
            parts.append((points, kinds))
        if not without_order and self.chance(0.2):  # a support, or matter that grew around it
            around = Sketch(rng, self.tall / self.half, 0.1, 0.9, [1.0], "one")
            other = solids[0].scaled(1.35) if self.chance(0.5) else around.place(body(around, rng.uniform(0.4, 0.9)))
            points, kinds = self._amorphous(other)
            free = ~np.any([solid.contains(points / self.half) for solid in taken], axis=0)
            parts.append((points[free], kinds[free]))
        points, kinds = (np.concatenate(each) for each in zip(*parts, strict=True))
        kept = packing.apart(points, kinds, self.radii)
        return points[kept], kinds[kept]

    def _solids(self) -> list[Solid]:
        """Where matter is, in units of half the width: a particle, several, a needle, or all of the field."""
        rng = self.rng
        sketch = Sketch(rng, self.tall / self.half, 0.1, 0.9, [1.0], "one")
        form = rng.random()
        if form < 0.5:
            return [sketch.place(body(sketch, rng.uniform(0.35, 0.95)))]
        if form < 0.65:
            count = int(rng.integers(2, 6))
            return [sketch.place(body(sketch, rng.uniform(0.5, 1.0) / np.sqrt(count)), shown=1.3) for _ in range(count)]
        if form < 0.8:
            return [pole(sketch, rng.uniform(0.3, 0.8), sketch.half + 0.3)]
        return [rod(np.array([-3.0, 0, 0]), np.array([3.0, 0, 0]), DISC)]

    def _box(self, solid: Solid) -> tuple[Float64, Float64]:
        """Corners of the part of a body's box that is seen, in nm."""
        far = np.array([self.tall, DISC * self.half, DISC * self.half])
        return np.maximum(solid.low * self.half, -far), np.minimum(solid.high * self.half, far)

    def _amorphous(self, solid: Solid) -> tuple[Float64, Integers]:
        low, high = self._box(solid)
        shares = packing.proportions(self.rng, len(self.symbols))
        if (high <= low).any():
            return np.zeros((0, 3)), np.zeros(0, np.int64)
        radii = self.radii * self.rng.uniform(1.0, 1.12)
        return packing.amorphous(self.rng, shares, radii, low, high, lambda points: solid.contains(points / self.half))

    def _lattice(self) -> Lattice:
        rng, kinds = self.rng, len(self.symbols)
        if self.chance(0.25):
            lattice = packing.random_lattice(rng, self.radii)
        else:
            fitting = [one for one in packing.TYPES.values() if one.kinds.max() < kinds]
            often = [one for one in fitting if one.kinds.max() == kinds - 1]
            among = often if self.chance(0.7) else fitting
            lattice = among[int(rng.integers(len(among)))]
        lattice = replace(lattice, kinds=rng.permutation(kinds)[lattice.kinds])
        lattice = lattice.scaled(self.radii, rng.uniform(1.0, 1.12))
        strain = np.eye(3) + rng.normal(0, 0.015, (3, 3)) * self.chance(0.5)
        return replace(lattice, cell=lattice.cell @ strain)

    def _turn(self) -> Float64:
        """An orientation; in a third of the cases a cell vector lies along the tilt axis."""
        if self.chance(0.67):
            return random_rotation(self.rng)
        turn = self.rng.uniform(0, 2 * np.pi)
        about = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
        return about @ np.eye(3)[np.roll(np.arange(3), int(self.rng.integers(3)))]

    def _ordered(self, solid: Solid) -> tuple[Float64, Integers]:
        """A crystal in a body, with what is wrong in it."""
        rng, radii = self.rng, self.radii
        low, high = self._box(solid)
        if (high <= low).any():
            return np.zeros((0, 3)), np.zeros(0, np.int64)
        middle, lattice, form = (low + high) / 2, self._lattice(), rng.random()
        if form < 0.12:
            seeds = rng.uniform(low, high, (int(rng.integers(2, 7)), 3))
            points, kinds = packing.grains(rng, lattice, [self._turn() for _ in seeds], seeds, low, high, radii)
        elif form < 0.26:
            points, kinds = packing.twin(rng, lattice, self._turn(), low, high, radii)
        elif form < 0.36:
            points, kinds = self._cluster(solid)
        else:
            points, kinds = lattice.atoms(self._turn(), middle + rng.uniform(-0.2, 0.2, 3), low, high)
            if self.chance(0.12):
                through = rng.uniform(low, high)
                points = packing.screw(points, ways(rng, 1)[0], through, 2 * float(radii.max()))
        inside = solid.contains(points / self.half)
        return self._faults(points[inside], kinds[inside], solid)

    def _cluster(self, solid: Solid) -> tuple[Float64, Integers]:
        """An icosahedron about as large as the body, and of one kind."""
        kind = int(self.rng.integers(len(self.symbols)))
        step = 2 * self.radii[kind] * self.rng.uniform(1.0, 1.12)
        shells = int(np.clip(solid.radius * self.half / step, 1, 12))
        points = packing.icosahedron(shells) @ random_rotation(self.rng).T * step + solid.centre * self.half
        return points, np.full(len(points), kind)

    def _faults(self, points: Float64, kinds: Integers, solid: Solid) -> tuple[Float64, Integers]:
        """Mixed elements, vacancies, a rough surface, and atoms that are not quite in their places."""
        rng, count = self.rng, len(self.symbols)
        if count > 1 and np.unique(kinds).size == 1 and self.chance(0.8):
            form = rng.random()
            if form < 0.5:  # a solid solution
                kinds = rng.choice(count, size=len(kinds), p=packing.proportions(rng, count))
            else:  # a core of one element
                inner = solid.scaled(rng.uniform(0.4, 0.85)).contains(points / self.half)
                one, other = rng.permutation(count)[:2]
                kinds = np.where(inner, one, other)
        elif count > 1 and self.chance(0.4):
            swapped = rng.random(len(kinds)) < rng.uniform(0, 0.2)
            kinds = np.where(swapped, rng.integers(count, size=len(kinds)), kinds)
        kept: Bools = np.ones(len(points), bool)
        if self.chance(0.5):
            kept &= rng.random(len(points)) >= rng.uniform(0, 0.12)
        if self.chance(0.4):
            kept &= solid.scaled(0.93).contains(points / self.half) | (rng.random(len(points)) < 0.6)
        if self.chance(0.6):
            points = points + rng.normal(0, rng.uniform(0, 0.06) * 2 * float(self.radii.min()), points.shape)
        return points[kept], kinds[kept]
