"""How the inputs of an MS-D Net come from a tilt series: checked, made, and as JSON.

The JSON of a set holds the network that makes its inputs, if there is one, with all its numbers: a set that is
opened from a store needs no other file.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.arrays.angles import places_of
from nntomo_dask.errors import refuse
from nntomo_dask.networks import NETWORKS
from nntomo_dask.networks.msdnet import NEIGHBOURS, Inputs
from nntomo_dask.networks.network import Network
from nntomo_dask.networks.nnfbp_layout import listed
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.fbp import Fbp
from nntomo_dask.reconstruction.method import Method, reconstruct as reconstruct_by
from nntomo_dask.reconstruction.msdnet import input_method
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.settings import settings_of

DEFAULT = Sirt.name  # whose reconstruction is improved unless told otherwise
SELF_SUPERVISED = Fbp.name  # the same, where the network learns from the measured series itself


def needs_network(method: str | Method) -> bool:
    """Whether a method reconstructs with a network."""
    return (METHODS[method] if isinstance(method, str) else method).network is not None


def reconstruct(series: xr.DataArray, inputs: Inputs) -> xr.DataArray:
    """The reconstruction that the network improves, lazy."""
    return reconstruct_by(series, input_method(inputs))


def inputs(
    who: str, all_series: Sequence[xr.DataArray], method: str | Method, network: Network | None, neighbours: int
) -> Inputs:
    """The inputs of a network for some series.

    Raises
    ------
    SchemaError
        A series is none, the series differ in angles or detector, or a parameter is out of range.
    """
    if not all_series:
        refuse(who, needs="at least one series", got="none", remedy="pass one")
    for item in all_series:
        schema.check_tilt_series(item, who=who)
    if neighbours < 0:
        refuse(who, needs="at least 0 neighbours", got=f"{neighbours}", remedy=f"`neighbours={NEIGHBOURS}`")
    angles = tuple(np.sort(all_series[0][schema.ANGLE].values).tolist())
    if isinstance(method, Method):
        settings = {one.name: getattr(method, one.name) for one in settings_of(method)}
        networks = getattr(method, "networks", ())
        network = networks[0] if networks else network
        made = Inputs(angles, method.name, network=network, neighbours=neighbours, settings=settings)
    else:
        made = Inputs(angles, method, network=network, neighbours=neighbours)
    input_method(made, who=who)
    size = all_series[0].sizes[schema.DETECTOR]
    for item in all_series:
        if neighbours:
            schema.check_even_z(item, who=who)
        if places_of(angles, item[schema.ANGLE].values) is None:
            got = f"{listed(angles)} and {listed(item[schema.ANGLE].values)}"
            refuse(
                who,
                needs="series at the same angles",
                got=got,
                remedy="select the angles that all series have",
                command="import all series with one --keep START:STOP:STEP, or train for one of them",
            )
        made.check(item, who=who)
        if item.sizes[schema.DETECTOR] != size:
            got = f"{size} and {item.sizes[schema.DETECTOR]}"
            refuse(
                who,
                needs="series with the same number of detector pixels",
                got=got,
                remedy="resize(series, …)",
                command="series of one size, or train for one of them",
            )
    return made


def to_json(inputs: Inputs) -> str:
    """The inputs as JSON, with the digest and the numbers of their network."""
    fields: dict[str, Any] = json.loads(inputs.to_json())
    if inputs.network is not None:
        tensors, metadata = inputs.network.to_file()
        fields["network"] = {
            "digest": inputs.network.digest,
            "tensors": {name: _encoded(value) for name, value in tensors.items()},
            "metadata": metadata,
        }
    return json.dumps(fields)


def from_json(text: str) -> Inputs:
    """Inverse of `to_json`."""
    fields: dict[str, Any] = json.loads(text)
    held = fields.pop("network", None)
    network = None
    if held is not None:
        tensors = {name: _decoded(value) for name, value in held["tensors"].items()}
        network = NETWORKS[fields["method"]].from_file(tensors, held["metadata"])
    return Inputs.from_json(json.dumps(fields), network)


def _encoded(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
    return {"shape": list(values.shape), "dtype": values.dtype.str, "data": data}


def _decoded(held: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(held["data"]), held["dtype"]).reshape(held["shape"]).copy()
