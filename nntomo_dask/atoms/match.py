"""Found atoms matched with those of a structure, and the score: how many were found, and how far off they are."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from nntomo_dask.atoms import align as aligning, table
from nntomo_dask.atoms.align import Move
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float64, Integers

if TYPE_CHECKING:
    from ase import Atoms

Align = Literal["none", "shift", "rigid"]

_WHO = "match_atoms"
_LARGEST_LIMIT = 0.1  # nm; the shortest bond without hydrogen has 0.11
_PICOMETRES = 1000.0  # in a nanometre
_BY_CHANCE = 8.0  # deviations above what falls together by chance; the best of many moves has 5


@dataclass(frozen=True, eq=False)
class Match:
    """Which found atom is which atom of the structure.

    Attributes
    ----------
    found, reference
        The two tables; `found` is moved onto the reference.
    rows, reference_rows
        (pair,): rows of either table that belong together, by row of the reference.
    limit
        Farthest that two of a pair may be from each other, [nm].
    move
        What was applied to the found atoms.
    """

    found: xr.Dataset
    reference: xr.Dataset
    rows: Integers
    reference_rows: Integers
    limit: float
    move: Move

    @property
    def displacements(self) -> Float64:
        """(pair, 3): z, y, x of the found atom less those of the reference, [nm]."""
        return np.asarray(table.positions(self.found)[self.rows] - table.positions(self.reference)[self.reference_rows])

    @property
    def recall(self) -> float:
        """Share of the structure's atoms that were found."""
        return _share(len(self.rows), self.reference.sizes[table.ATOM])

    @property
    def precision(self) -> float:
        """Share of the found atoms that are of the structure."""
        return _share(len(self.rows), self.found.sizes[table.ATOM])

    @property
    def rmsd_pm(self) -> float:
        """Root mean square distance of the pairs, [pm]; NaN of none."""
        return _rms(np.sqrt((self.displacements**2).sum(axis=1)))

    @property
    def species_right(self) -> float:
        """Share of the pairs whose found atom has the element of the structure's; NaN where no element is known."""
        named = np.asarray(self.found[table.SPECIES].values)[self.rows]
        true = np.asarray(self.reference[table.SPECIES].values)[self.reference_rows]
        known = (named != "") & (true != "")
        return float((named == true)[known].mean()) if known.any() else float("nan")

    def by_species(self) -> xr.Dataset:
        """Dims (species): ``atoms``, ``found``, ``recall``, ``rmsd`` [pm] and ``named``, the share named rightly.

        It is NaN where one of both has no names.
        """
        true = np.asarray(self.reference[table.SPECIES].values)
        named = np.asarray(self.found[table.SPECIES].values)[self.rows]
        kinds = sorted({str(one) for one in true})
        groups = [true == one for one in kinds]
        result = self._of_groups(groups)
        pairs = [named[true[self.reference_rows] == one] for one in kinds]
        shares = [
            _share(int((one == kind).sum()), int((one != "").sum()) if kind else 0)
            for one, kind in zip(pairs, kinds, strict=True)
        ]
        return _dataset("species", np.asarray(kinds), result | {"named": np.asarray(shares)})

    def by_distance(self, bins: int | Sequence[float] = 4) -> xr.Dataset:
        """Dims (distance), distance from the tilt axis: ``atoms``, ``found``, ``recall``, ``rmsd`` [pm].

        Parameters
        ----------
        bins
            How many of equal width, or their edges, [nm].
        """
        places = table.positions(self.reference)
        radius = np.hypot(places[:, 1], places[:, 2])
        edges = np.linspace(0, radius.max() * (1 + 1e-9), bins + 1) if isinstance(bins, int) else np.asarray(bins)
        member = np.digitize(radius, edges) - 1
        result = self._of_groups([member == one for one in range(len(edges) - 1)])
        made = _dataset("distance", (edges[1:] + edges[:-1]) / 2, result)
        return made.assign_coords(distance=("distance", made["distance"].values, {"units": "nm"}))

    def by_direction(self, middle_angle_deg: float = 0.0) -> dict[str, float]:
        """Root mean square displacement along each direction, [pm]; NaN without pairs.

        Parameters
        ----------
        middle_angle_deg
            Middle of the tilt range: the beam there is the direction that a missing wedge smears.

        Returns
        -------
        ``axis``: along the tilt axis z. ``beam``: along the beam at the middle of the tilt range; at 0° that is y.
        ``across``: perpendicular to both; at 0° that is x.
        """
        z, y, x = self.displacements.T
        cosine, sine = np.cos(np.deg2rad(middle_angle_deg)), np.sin(np.deg2rad(middle_angle_deg))
        # An image at θ has the detector coordinate x cos θ + y sin θ.
        return {"axis": _rms(z), "beam": _rms(y * cosine - x * sine), "across": _rms(x * cosine + y * sine)}

    def summary(self) -> dict[str, Any]:
        """All figures, JSON-able: NaN is None."""
        species = self.by_species()
        parts = ("atoms", "found", "recall", "rmsd", "named")
        figures = {
            "atoms": self.reference.sizes[table.ATOM],
            "found": self.found.sizes[table.ATOM],
            "matched": len(self.rows),
            "recall": self.recall,
            "precision": self.precision,
            "rmsd_pm": self.rmsd_pm,
            "species_right": self.species_right,
            "limit_pm": self.limit * _PICOMETRES,
            "shift_nm": [float(one) for one in self.move.shift],
            "rotation_deg": self.move.degrees,
            "by_direction_pm": self.by_direction(),
            "by_species": {
                str(name) or "unknown": {part: float(species[part].values[place]) for part in parts}
                for place, name in enumerate(species["species"].values)
            },
        }
        cleaned: dict[str, Any] = _without_nan(figures)
        return cleaned

    def _of_groups(self, groups: Sequence[Any]) -> dict[str, Any]:
        distance = np.sqrt((self.displacements**2).sum(axis=1))
        pairs = [group[self.reference_rows] for group in groups]
        counts = [int(group.sum()) for group in groups]
        return {
            "atoms": np.asarray(counts),
            "found": np.asarray([int(one.sum()) for one in pairs]),
            "recall": np.asarray([_share(int(one.sum()), count) for one, count in zip(pairs, counts, strict=True)]),
            "rmsd": np.asarray([_rms(distance[one]) for one in pairs]),
        }


def match_atoms(
    found: "xr.Dataset | Atoms",
    reference: "xr.Dataset | Atoms",
    *,
    limit: float | None = None,
    align: Align = "shift",
) -> Match:
    """Match found atoms with those of a structure, one to one.

    The found atoms are moved onto the structure first. A shift of any length is found by votes of pairs, a rotation of
    a few degrees from the pairs themselves; a mirror image is no such move. Of the pairs within the limit, as many are
    taken as can be, and of all ways to do so that with the least sum of squared distances.

    Parameters
    ----------
    found
        A table of atoms, or ASE atoms.
    reference
        The same of the structure, all the atoms that the volume has: a periodic crystal is cut to the volume before.
    limit
        Farthest that two of a pair may be from each other, [nm]. None: half the distance of the nearest two atoms of
        the structure, at most 0.1.
    align
        "none": positions are compared as they are. "shift": the found atoms are shifted first. "rigid": they are also
        rotated.

    Returns
    -------
    A `Match`.

    Raises
    ------
    SchemaError
        One of them is no table or has no atoms; the limit is not above zero; no atom of the structure lies where atoms
        were found; or, where the atoms are moved first, no more of them fall together than by chance, as with a crystal
        of another cell.
    """
    if align not in ("none", "shift", "rigid"):
        refuse(_WHO, needs='`align` "none", "shift" or "rigid"', got=f"{align!r}", remedy="`align=shift`")
    here, there = (table.table_of(one, who=_WHO) for one in (found, reference))
    for one, name in ((here, "found atoms"), (there, "atoms of a structure")):
        if one.sizes[table.ATOM] == 0:
            refuse(_WHO, needs=name, got="an empty table", remedy="a table with atoms")
    check_limit(limit)
    places, targets = table.positions(here), table.positions(there)
    within = _limit(targets) if limit is None else float(limit)
    move = aligning.NOWHERE
    if align != "none":
        move = aligning.best(places, targets, within, turns=align == "rigid")
    moved = move.of(places)
    rows, reference_rows = assigned(moved, targets, within)
    if align == "none":
        _check_overlap(moved, targets, within)
    else:
        _check_chance(len(rows), moved, targets, within)
    shifted = here.assign({name: (table.ATOM, moved[:, k], here[name].attrs) for k, name in enumerate(table.POSITION)})
    return Match(shifted, there, rows, reference_rows, within, move)


def check_limit(limit: float | None) -> None:
    """Refuse a limit that is no length."""
    if limit is not None and not (np.isfinite(limit) and limit > 0):
        refuse(_WHO, needs="a `limit` above zero in nm", got=f"{limit}", remedy="`limit=0.05`")


def assigned(places: Float64, targets: Float64, limit: float) -> tuple[Integers, Integers]:
    """Rows of points and of targets that belong together, sorted by the targets: as many as can be, and the nearest."""
    pairs = cKDTree(places).sparse_distance_matrix(cKDTree(targets), limit, output_type="ndarray")
    one, other = pairs["i"].astype(np.int64), pairs["j"].astype(np.int64) + len(places)
    size = len(places) + len(targets)
    _, part = connected_components(coo_matrix((np.ones(len(one)), (one, other)), shape=(size, size)), directed=False)
    order = np.argsort(part[one], kind="stable")
    bounds = np.flatnonzero(np.diff(part[one][order], prepend=-1, append=-1)) if len(one) else np.zeros(1, np.int64)
    rows, columns = [], []
    for begin, end in itertools.pairwise(bounds):
        chosen = order[begin:end]
        if len(chosen) == 1:
            rows.append(one[chosen])
            columns.append(other[chosen] - len(places))
            continue
        left, left_number = np.unique(one[chosen], return_inverse=True)
        right, right_number = np.unique(other[chosen], return_inverse=True)
        far = limit**2 * (min(len(left), len(right)) + 1)  # more than all pairs together: so as many as can be
        cost = np.full((len(left), len(right)), far)
        cost[left_number, right_number] = pairs["v"][chosen] ** 2
        taken, partner = linear_sum_assignment(cost)
        good = cost[taken, partner] < far
        rows.append(left[taken[good]])
        columns.append(right[partner[good]] - len(places))
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    found, wanted = np.concatenate(rows), np.concatenate(columns)
    sorted_by = np.argsort(wanted)
    return found[sorted_by], wanted[sorted_by]


def _limit(targets: Float64) -> float:
    if len(targets) < 2:
        return _LARGEST_LIMIT
    distance, _ = cKDTree(targets).query(targets, k=2)
    nearest = float(distance[:, 1].min())
    if nearest <= 0:
        refuse(_WHO, needs="atoms of a structure that differ", got="two at one place", remedy="each atom once")
    return min(nearest / 2, _LARGEST_LIMIT)


def _check_overlap(moved: Float64, targets: Float64, limit: float) -> None:
    """Refuse a structure that lies elsewhere."""
    low, high = moved.min(axis=0) - limit, moved.max(axis=0) + limit
    if not ((targets >= low) & (targets <= high)).all(axis=1).any():
        refuse(
            _WHO,
            needs="a structure that lies where atoms were found",
            got=f"none of its {len(targets)} atoms there",
            remedy="`align=shift`, or the positions in nm from the tilt axis",
        )


def _check_chance(matched: int, moved: Float64, targets: Float64, limit: float) -> None:
    """Refuse a structure of which no more atoms fall together with found ones than by chance."""
    # Where both are: the structure as a cloud of the found atoms' density.
    low = np.maximum(moved.min(axis=0), targets.min(axis=0)) - limit
    high = np.minimum(moved.max(axis=0), targets.max(axis=0)) + limit
    sides = np.maximum(high - low, 2 * limit)
    inside = [((one >= low) & (one <= high)).all(axis=1).sum() for one in (moved, targets)]
    share = min(float(inside[0]) * 4 / 3 * np.pi * limit**3 / float(np.prod(sides)), 1.0)
    expected = share * float(inside[1])
    # The best of many moves: a few atoms can always be brought together.
    least = expected + _BY_CHANCE * np.sqrt(expected) + 3
    if matched <= least and matched < min(len(moved), len(targets)):
        refuse(
            _WHO,
            needs="a structure that the found atoms are of",
            got=f"{matched} of its {len(targets)} atoms within {limit:.3g} nm of found ones, no more than by chance",
            remedy="the same crystal, cut to the volume and turned as it lies there; or `align=none`",
        )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _rms(lengths_nm: Float64) -> float:
    return float(np.sqrt((lengths_nm**2).mean())) * _PICOMETRES if len(lengths_nm) else float("nan")


def _dataset(dim: str, labels: Any, columns: Mapping[str, Any]) -> xr.Dataset:
    made = xr.Dataset({name: (dim, values) for name, values in columns.items()}, coords={dim: labels})
    made["rmsd"].attrs["units"] = "pm"
    return made


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
