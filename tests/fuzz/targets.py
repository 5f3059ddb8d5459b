"""Every kind of file that is read: an undamaged one, and what reads it to a digest of all its data."""

import gzip
import hashlib
import importlib.util
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.formats.format import format_of
from nntomo_dask.networks import files as networks
from nntomo_dask.training.checkpoints import Checkpoint, open_checkpoint
from nntomo_dask.training.unrolled import KIND
from tests import foreign_files
from tests.shared_data import NEEDLE
from tests.unrolled_networks import network_of

LEGACY = Path(__file__).parents[1] / "data" / "v0_1"
ANGLES = nt.tilt_angles("tem", 8)
CIF = """data_test
_cell_length_a 4.0
_cell_length_b 4.0
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
_space_group_IT_number 1
loop_
_symmetry_equiv_pos_as_xyz
'x, y, z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Cu1 Cu 0.0 0.0 0.0 1.0
O1 O 0.5 0.5 0.5 1.0
"""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    make
        Puts an undamaged one into a folder and returns its path.
    read
        Reads it to a digest of all its data; a SchemaError is the refusal.
    has_checksums
        Whether a change of its data is always noticed.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], str]
    has_checksums: bool = True


def _digest(*values: Any) -> str:
    state = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            state.update(repr((value.dtype.str, value.shape)).encode() + np.ascontiguousarray(value).tobytes())
        else:
            state.update(repr(value).encode())
    return state.hexdigest()


def _read_store(path: Path) -> str:
    opened = nt.open(path)
    arrays = opened.data_vars.values() if isinstance(opened, xr.Dataset) else [opened]
    found = [(str(array.name), array.dims, sorted(array.attrs.items()), array.values) for array in arrays]
    coords = [(str(name), coord.values) for name, coord in sorted(opened.coords.items())]
    flat = [item for group in (*found, *coords) for item in group]
    if isinstance(opened, xr.Dataset):
        flat.append(sorted((key, value) for key, value in opened.attrs.items() if key != "names"))
    return _digest(*flat)


def _read_network(path: Path) -> str:
    network = nt.load_network(path)
    return _digest(network.digest, network.recipe, network.angles_deg, network.describe())


def _read_checkpoint(path: Path) -> str:
    reached = open_checkpoint(path)
    kept = [item for epoch in reached.parameters for item in (epoch, reached.parameters[epoch])]
    state = [item for name in sorted(reached.state) for item in (name, reached.state[name])]
    texts = (reached.frame.digest, reached.frame.recipe, reached.digest, reached.losses, reached.seconds)
    return _digest(*texts, reached.best, reached.ended, *kept, *state)


def _read_angles(path: Path) -> str:
    return _digest(nt.read_tilt_angles(path))


def _read_structure(path: Path) -> str:
    atoms = nt.structure(path)
    return _digest(atoms.get_atomic_numbers(), atoms.get_positions(), atoms.cell.array)


def _legacy(name: str) -> Callable[[Path], Path]:
    """A file or store of version 0.1.0."""

    def make(folder: Path) -> Path:
        source, target = LEGACY / name, folder / name
        return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target))

    return make


def _saved(name: str) -> Callable[[Path], Path]:
    """The same, written by this version."""

    def make(folder: Path) -> Path:
        source, target = LEGACY / name, folder / name
        if source.suffix == ".zarr":
            opened = nt.open(source)
            if name == "by_angle.zarr":
                opened = opened.chunk(z=-1, angle=1)
            nt.save(opened, target)
        elif name.endswith(".training.safetensors"):
            open_checkpoint(source).save(target)
        else:
            networks.save_network(nt.load_network(source), target)
        return target

    return make


def _saved_slices(folder: Path) -> Path:
    """A training set of slices, of one slice."""
    _, validation = nt.phantom_slices(nt.open(LEGACY / "series.zarr"), n_slices=8, method="fbp", neighbours=0)
    nt.save(validation, folder / "slices.zarr")
    return folder / "slices.zarr"


def _unrolled(folder: Path) -> Path:
    return networks.save_network(network_of(), folder / "unrolled.safetensors")


def _unrolled_training(folder: Path) -> Path:
    """Interrupted in its second epoch."""
    network = network_of()
    reached = Checkpoint(KIND, network)
    reached.add(network.parameters, 0.9, 0.8, 1.5)
    reached.state = {name: network.parameters for name in ("parameters", "average", "mean", "square")}
    reached.state["scalars"] = np.array([1.0, 3.0, 2.5])
    reached.save(folder / "unrolled.training.safetensors")
    return folder / "unrolled.training.safetensors"


def _text(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return make


def _copied(source: Path) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(source, folder))


def _read_series(path: Path) -> str:
    return _digest(nt.read_mrc_series(path, ANGLES).values)


def _read_images(path: Path) -> str:
    """Pixels, and what is said, of a file that others wrote."""
    kind = format_of(path)
    if kind is None:
        raise nt.SchemaError(f"import: needs a file of a format that is known; got {path}; try: another file")
    found = kind.open_images(path)
    if math.prod(found.shape) > 2**20:  # what a damage has made of it is not all read
        return _digest(found.shape, found.read(0, slice(0, 8), slice(0, 8)))
    pixels = [found.read(index, slice(None), slice(None)) for index in range(found.shape[0])]
    return _digest(found.shape, found.first_line, found.said, *pixels)


def _measured(folder: Path) -> Path:
    """A stack with what SerialEM's file beside it says, and another copy of it that is packed."""
    (folder / "measured").mkdir()
    with mrcfile.new(folder / "measured" / "a.mrc") as mrc:
        mrc.set_data(np.random.default_rng(0).integers(0, 99, (3, 6, 8)).astype(np.int16))
    text = ["PixelSpacing = 10", "[T = Tilt axis angle = 0.0, binning = 1]"]
    for image in range(3):
        text += [f"[ZValue = {image}]", f"TiltAngle = {40 * image - 40}", f"DateTime = 31-Mar-23  16:24:1{image}"]
    (folder / "measured" / "a.mdoc").write_text("\n".join(text))
    content = (folder / "measured" / "a.mrc").read_bytes()
    (folder / "measured" / "b.mrc.gz").write_bytes(gzip.compress(content, mtime=0))
    return folder / "measured"


def _read_measured(folder: Path) -> str:
    series = nt.read(folder / "a.mrc")
    packed = nt.read(folder / "b.mrc.gz", angles=[-40, 0, 40], tilt_axis="y", unpack_to=folder.parent)
    return _digest(series.values, series.angle.values, packed.values)


def _alignment(suffix: str) -> Callable[[Path], Path]:
    table = nt.Alignment.identity(ANGLES, along_px=np.arange(8) / 3, provenance={"steps": ["coarse", {"shift": 0.5}]})
    return lambda folder: nt.write_alignment(table, folder / f"table{suffix}")


def _read_alignment(path: Path) -> str:
    angles = ANGLES if path.suffix == ".xf" else None
    table = nt.read_alignment(path, angles_deg=angles)
    return _digest(table.digest(), sorted(table.provenance))


KINDS: dict[str, Kind] = {
    "volume": Kind(_saved("particle.zarr"), _read_store),
    "series": Kind(_saved("series.zarr"), _read_store),
    "several series": Kind(_saved("by_angle.zarr"), _read_store),
    "training set": Kind(_saved("samples.zarr"), _read_store),
    "training set of slices": Kind(_saved_slices, _read_store),
    "volume of 0.1.0": Kind(_legacy("particle.zarr"), _read_store),
    "several series of 0.1.0": Kind(_legacy("by_angle.zarr"), _read_store),
    "network": Kind(_saved("nnfbp_lm.safetensors"), _read_network),
    "network of networks": Kind(_saved("msdnet_nnfbp.safetensors"), _read_network),
    "network of 0.1.0": Kind(_legacy("nnfbp_lm.safetensors"), _read_network),
    "unrolled network": Kind(_unrolled, _read_network),
    "checkpoint": Kind(_saved("nnfbp_lm.training.safetensors"), _read_checkpoint),
    "checkpoint of msdnet": Kind(_saved("msdnet_sirt.training.safetensors"), _read_checkpoint),
    "checkpoint of unrolled": Kind(_unrolled_training, _read_checkpoint),
    "checkpoint of 0.1.0": Kind(_legacy("msdnet_sirt_interrupted.training.safetensors"), _read_checkpoint),
    "MRC": Kind(_legacy("series.mrc"), _read_series, has_checksums=False),
    "measured stack": Kind(_measured, _read_measured, has_checksums=False),
    "angles": Kind(_legacy("series.rawtlt"), _read_angles, has_checksums=False),
    "alignment": Kind(_alignment(".csv"), _read_alignment, has_checksums=False),
    "alignment as JSON": Kind(_alignment(".json"), _read_alignment, has_checksums=False),
    "transforms": Kind(_alignment(".xf"), _read_alignment, has_checksums=False),
    "mdoc": Kind(_copied(NEEDLE / "serialem.mdoc"), _read_angles, has_checksums=False),
}
if all(map(importlib.util.find_spec, ("ase", "gemmi", "nntomo_dask.simulation.cif"))):
    KINDS["CIF"] = Kind(_text("a.cif", CIF), _read_structure, has_checksums=False)
KINDS |= {name: Kind(make, _read_images, has_checksums=False) for name, make in foreign_files.MAKERS.items()}
