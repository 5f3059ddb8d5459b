"""From a crystal to a specimen on the tilt axis: unit cells or a particle, and its atoms at a tilt angle."""

import os
import warnings
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.data import covalent_radii
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from nntomo_dask.arrays import recipes
from nntomo_dask.errors import SchemaError, refuse
from nntomo_dask.settings import setting
from nntomo_dask.simulation import neighbours, structures
from nntomo_dask.types import Float64

Shape = Literal["cells", "sphere", "cuboid", "octahedron"]
Axis = Literal["a", "b", "c"]

_AXES: tuple[Axis, ...] = get_args(Axis)
_SLACK = 0.3  # Å by which a bond may be longer than the sum of the two covalent radii
_SAME_PLACE_NM = 0.01  # a tenth of the width of an atom in an image
_LARGEST_UNIT = 400  # atoms of a building unit; anything larger is a framework and is cut atom by atom
# A truncated octahedron is a cube of the same width without its corners: |x| + |y| + |z| ≤ 3/2 · half the width.
_TRUNCATION = 1.5
_NONMETALS = frozenset({1, 2, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32, 33, 34, 35, 36, 51, 52, 53, 54})


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is cut from a crystal: the keywords of `specimen`, which says more about each."""

    shape: Shape = setting("cells", help="What is cut from the crystal: whole unit cells, or a particle of that shape.")
    repeat: int | tuple[int, int, int] = setting(
        1, help="Number of unit cells along a, b and c, for --shape cells: one number for all, or A,B,C."
    )
    size_nm: float | tuple[float, float, float] | None = setting(
        None,
        help="Size of a particle: the diameter of a sphere, the width of an octahedron, or the edges X,Y,Z of a cuboid "
        "(z is the tilt axis).",
        unit="nm",
    )
    tilt_axis: Axis = setting("c", help="The cell vector that lies along the tilt axis.")
    block: str | None = setting(
        None,
        help="The data block of a CIF that has several crystals, by its name or its number; of another file, the "
        "number of the structure, from 1.",
    )


@dataclass(frozen=True, eq=False)
class Specimen:
    """Atoms around the tilt axis.

    Parameters
    ----------
    numbers
        (atom,), atomic numbers.
    positions_nm
        (atom, 3): x, y, z of the volume; z is along the tilt axis, and the origin is the centre.
    recipe
        How the specimen was made.
    """

    numbers: npt.NDArray[np.int64]
    positions_nm: Float64
    recipe: recipes.Recipe

    @property
    def radius_nm(self) -> float:
        """Largest distance of an atom from the tilt axis."""
        return float(np.hypot(self.positions_nm[:, 0], self.positions_nm[:, 1]).max())

    @property
    def half_height_nm(self) -> float:
        """Largest distance of an atom from the centre along the tilt axis."""
        return float(np.abs(self.positions_nm[:, 2]).max())

    def tilted(self, angle_deg: float) -> Float64:
        """Positions (atom, 3) in the microscope at a tilt angle: detector, z, depth along the beam, [nm].

        The detector coordinate is ``x cos θ + y sin θ``. The beam direction is such that this is a rotation and not a
        mirror image.
        """
        x, y, z = self.positions_nm.T
        cosine, sine = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
        return np.stack([x * cosine + y * sine, z, x * sine - y * cosine], axis=1)


def specimen(
    structure: str | os.PathLike[str] | Atoms,
    *,
    shape: Shape = "cells",
    repeat: int | tuple[int, int, int] = 1,
    size_nm: float | tuple[float, float, float] | None = None,
    tilt_axis: Axis = "c",
    block: str | int | None = None,
) -> Specimen:
    """Unit cells of a crystal, or a particle cut from it, centred on the tilt axis.

    Parameters
    ----------
    structure
        A name, the path of a file, or ASE atoms; see `structures.structure`.
    shape
        "cells": whole unit cells, whose faces are placed where they cut the fewest bonds, so that metal clusters stay
        whole. "sphere", "cuboid", "octahedron" (truncated): a particle of `size_nm`. It consists of whole building
        units: a metal cluster or a linker is inside if its centre is inside. A framework without such units (a covalent
        one) is cut atom by atom.
    repeat
        For "cells": the number of cells along a, b and c.
    size_nm
        For a particle: the diameter of a sphere, the width of an octahedron, or the edges (x, y, z) of a cuboid, with z
        along the tilt axis.
    tilt_axis
        Cell vector along the tilt axis. The next one (in the order a, b, c, a, …) lies in the x-z plane.
    block
        For a file with several structures; see `structures.structure`.

    Raises
    ------
    SchemaError
        The structure is refused, or the parameters do not fit each other.

    Warns
    -----
    UserWarning
        A file holds a crystal of the table, but the specimens of the two have atoms at different places, because the
        file has another origin, other axes or another cell, or shows a disordered linker in another orientation. What
        is simulated from one does not fit the truth of the other.
    """
    held, atoms = made(structure, shape=shape, repeat=repeat, size_nm=size_nm, tilt_axis=tilt_axis, block=block)
    name = held.recipe["parameters"]["crystal"]
    if isinstance(structure, Atoms) or name in structures.crystals():
        return held
    known = structures.twin(atoms)
    if known is None:
        return held
    try:
        other = made(known.name, shape=shape, repeat=repeat, size_nm=size_nm, tilt_axis=tilt_axis)[0]
        elsewhere = _elsewhere(held, other)
    except SchemaError:  # a particle so small that it has no atoms
        elsewhere = len(held.numbers)
    if elsewhere:
        warnings.warn(
            f"specimen: {name} seems to be {known.name} of the table, but {elsewhere} of its {len(held.numbers)} atoms "
            f"are not where those of {known.name} are, because of another origin, cell or orientation; give either "
            f"{name} or {known.name} to both the simulation and its truth",
            stacklevel=2,
        )
    return held


def made(
    structure: str | os.PathLike[str] | Atoms,
    *,
    shape: Shape = "cells",
    repeat: int | tuple[int, int, int] = 1,
    size_nm: float | tuple[float, float, float] | None = None,
    tilt_axis: Axis = "c",
    block: str | int | None = None,
) -> tuple[Specimen, Atoms]:
    """`specimen` without its comparison with the table, and the atoms of a cell."""
    if shape not in get_args(Shape) or tilt_axis not in _AXES:
        refuse(
            "specimen",
            needs=f"a shape of {', '.join(get_args(Shape))}, and a, b or c as tilt axis",
            got=f"{shape!r} and {tilt_axis!r}",
            remedy='`shape="cells"` and `tilt_axis="c"`',
        )
    if shape == "cells" and size_nm is not None:
        refuse(
            "specimen", needs="`repeat` for cells", got="`size_nm`", remedy='leave out `size_nm`, or `shape="sphere"`'
        )
    if shape != "cells" and repeat != 1:
        refuse("specimen", needs=f"`size_nm` for a {shape}", got="`repeat`", remedy="leave out `repeat`")
    counts = (repeat,) * 3 if isinstance(repeat, int) else tuple(repeat)
    if len(counts) != 3 or min(counts) < 1:
        refuse("specimen", needs="one or three counts of at least 1", got=f"{repeat}", remedy="`repeat=(2, 2, 1)`")
    half = None if shape == "cells" else _half_edges(shape, size_nm)
    atoms = structures.structure(structure, block=block)
    if half is None:
        cut = _oriented(_cells(atoms, counts), tilt_axis)
    else:
        cut = _particle(_oriented(atoms, tilt_axis), shape, half)
    positions = cut.positions / 10
    parameters: dict[str, Any] = {
        "shape": shape,
        "repeat": repeat if shape == "cells" else None,
        "size_nm": size_nm,
        "tilt_axis": tilt_axis,
        "crystal": structures.name_of(structure),
        "structure": atoms.get_chemical_formula(),
        "atoms": recipes.digest(np.concatenate([cut.numbers[:, None], np.round(positions, 6)], axis=1)),
    }
    made_by = recipes.record("specimen", parameters)
    return Specimen(cut.numbers.astype(np.int64), centred(positions), made_by), atoms


def _elsewhere(one: Specimen, other: Specimen) -> int:
    """Number of atoms of a specimen at whose place another one has no atom of that element."""
    distance, nearest = cKDTree(other.positions_nm).query(one.positions_nm)
    return int(((distance > _SAME_PLACE_NM) | (other.numbers[nearest] != one.numbers)).sum())


def centred(positions: Float64) -> Float64:
    """Positions relative to the centre of their bounding box."""
    return np.asarray(positions - (positions.max(axis=0) + positions.min(axis=0)) / 2)


def _half_edges(shape: Shape, size_nm: float | tuple[float, float, float] | None) -> Float64:
    """Half the edge lengths of the box around a particle, [Å]."""
    edges = np.atleast_1d(np.asarray(np.nan if size_nm is None else size_nm, float))
    fits = edges.size in ((1, 3) if shape == "cuboid" else (1,))
    if not fits or not (np.isfinite(edges) & (edges > 0)).all():
        refuse(
            "specimen",
            needs=f"`size_nm` of a {shape}: one number above 0" + (", or x, y and z" if shape == "cuboid" else ""),
            got="none" if size_nm is None else f"{size_nm}",
            remedy="`size_nm=(3, 3, 4)`" if shape == "cuboid" else "`size_nm=3`",
        )
    return np.asarray(np.broadcast_to(edges, 3) * 5)


def _oriented(atoms: Atoms, tilt_axis: Axis) -> Atoms:
    """The crystal, rotated so that a cell vector lies along z and the next one in the x-z plane."""
    place = _AXES.index(tilt_axis)
    along, across = atoms.cell.array[place], atoms.cell.array[(place + 1) % 3]
    e_z = along / np.linalg.norm(along)
    e_x = across - (across @ e_z) * e_z
    e_x /= np.linalg.norm(e_x)
    frame = np.stack([e_x, np.cross(e_z, e_x), e_z])
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ frame.T)
    turned.positions = atoms.positions @ frame.T
    return cast("Atoms", turned)


def bonds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bonds of a periodic crystal, from covalent radii: first atom, second atom, cells (bond, 3) between them."""
    first, second, cells = neighbours.periodic_pairs(atoms, 2 * float(covalent_radii[atoms.numbers].max()) + _SLACK)
    vectors = atoms.positions[second] + cells @ atoms.cell.array - atoms.positions[first]
    limit = covalent_radii[atoms.numbers[first]] + covalent_radii[atoms.numbers[second]] + _SLACK
    kept = np.linalg.norm(vectors, axis=1) < limit
    return first[kept], second[kept], cells[kept]


def _cells(atoms: Atoms, counts: tuple[int, ...]) -> Atoms:
    """Whole unit cells with their faces where they cut the fewest bonds; bonds of heavy atoms count more."""
    first, second, cells = bonds(atoms)
    scaled = atoms.get_scaled_positions(wrap=False)
    weight = atoms.numbers[first] * atoms.numbers[second]
    for axis in range(3):
        begins, ends = scaled[first, axis], scaled[second, axis] + cells[:, axis]
        low, high = np.minimum(begins, ends), np.maximum(begins, ends)
        places = np.unique(np.round(np.mod(scaled[:, axis], 1), 4))
        faces = (places + np.append(places[1:], places[0] + 1)) / 2
        crossed = [float((weight * (np.floor(high - face) - np.floor(low - face))).sum()) for face in faces]
        # If several faces cut equally few, take the one in the widest gap between atoms.
        gaps = np.append(places[1:], places[0] + 1) - places
        best = min(range(len(faces)), key=lambda index: (crossed[index], -round(float(gaps[index]), 3)))
        scaled[:, axis] = np.mod(scaled[:, axis] - faces[best], 1)
    moved = atoms.copy()
    moved.set_scaled_positions(scaled)
    repeated: Atoms = moved.repeat(counts)
    return repeated


def _particle(atoms: Atoms, shape: Shape, half: Float64) -> Atoms:
    """All building units of a crystal whose centre lies inside a shape around the origin."""
    unit_of, offset = building_units(atoms)
    scaled = atoms.get_scaled_positions(wrap=False)
    whole = (scaled + offset) @ atoms.cell.array  # every unit is in one piece, in some cell
    sums = np.stack([np.bincount(unit_of, whole[:, axis]) for axis in range(3)], axis=1)
    centres = np.asarray(sums / np.bincount(unit_of)[:, None])
    reach = np.ceil(np.linalg.norm(half) / (1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0))).astype(int)
    # One cell more, because the centre of a unit may lie outside the cell of its atoms.
    ranges = (np.arange(-count - 1, count + 2) for count in reach)
    shifts = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 3) @ atoms.cell.array
    wrapped = np.floor(np.linalg.solve(atoms.cell.array.T, centres.T).T) @ atoms.cell.array
    numbers, positions = [], []
    for shift in shifts:
        chosen = _inside(shape, centres - wrapped + shift, half)[unit_of]
        numbers.append(atoms.numbers[chosen])
        positions.append((whole - wrapped[unit_of] + shift)[chosen])
    found = np.concatenate(numbers)
    if not found.size:
        edges = " × ".join(f"{edge / 5:g}" for edge in half)
        refuse(
            "specimen", needs="a particle with atoms in it", got=f"none within {edges} nm", remedy="a larger `size_nm`"
        )
    return Atoms(found, np.concatenate(positions))


def _inside(shape: Shape, points: Float64, half: Float64) -> npt.NDArray[np.bool_]:
    """Whether each point lies inside a shape around the origin."""
    share = np.abs(points) / half
    inside = (share <= 1).all(axis=1)
    if shape == "sphere":
        inside &= (share**2).sum(axis=1) <= 1
    elif shape == "octahedron":
        inside &= share.sum(axis=1) <= _TRUNCATION
    return np.asarray(inside)


def building_units(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """The building unit of each atom, and the cells (atom, 3) to add to the atoms so that each unit is in one piece.

    A linker atom is carbon, or a non-metal that is bonded to carbon. All bonds between a metal and a linker atom are
    removed; what is still connected is a unit. Units are therefore metal clusters with their bridging oxygen, and
    linkers. A unit that is bonded to its own periodic image (a chain or a framework) is divided into single atoms.
    """
    first, second, cells = bonds(atoms)
    metal = ~np.isin(atoms.numbers, list(_NONMETALS))
    carbon = atoms.numbers == 6
    linker = carbon.copy()
    for one, other in ((first, second), (second, first)):
        linker[one[carbon[other] & ~metal[one]]] = True
    kept = ~((metal[first] & linker[second]) | (metal[second] & linker[first]))
    first, second, cells = first[kept], second[kept], cells[kept]
    graph = coo_matrix((np.ones(first.size), (first, second)), shape=(len(atoms),) * 2)
    _, unit_of = connected_components(graph, directed=False)
    offset = np.zeros((len(atoms), 3), int)
    placed = np.zeros(len(atoms), bool)
    seen: set[int] = set()
    for atom, unit in enumerate(unit_of):  # the first atom of each unit keeps its place
        if unit not in seen:
            seen.add(int(unit))
            placed[atom] = True
    while True:
        forward, backward = placed[first] & ~placed[second], placed[second] & ~placed[first]
        if not (forward.any() or backward.any()):
            break
        offset[second[forward]] = offset[first[forward]] + cells[forward]
        placed[second[forward]] = True
        backward = placed[second] & ~placed[first]
        offset[first[backward]] = offset[second[backward]] - cells[backward]
        placed[first[backward]] = True
    torn = (offset[first] + cells != offset[second]).any(axis=1)  # bonds to another periodic image of the same unit
    endless = np.isin(unit_of, unit_of[first[torn]]) | (np.bincount(unit_of)[unit_of] > _LARGEST_UNIT)
    offset[endless] = 0
    units = np.where(endless, unit_of.max() + 1 + np.arange(len(atoms)), unit_of)
    return np.unique(units, return_inverse=True)[1], offset
