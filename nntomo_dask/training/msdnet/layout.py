"""How the inputs of an MS-D Net come from a tilt series: checked, made, and as JSON.

The JSON of a set holds the NN-FBP network that makes its inputs, if there is one, with all its numbers: a set that is
opened from a store needs no other file.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from nntomo_dask.arrays import geometry, schema
from nntomo_dask.compute.chunking import NEIGHBOURS
from nntomo_dask.errors import refuse
from nntomo_dask.networks.msdnet import METHODS, SIRT, Inputs, Method
from nntomo_dask.networks.nnfbp import NNFBPNetwork, listed
from nntomo_dask.reconstruction.fbp import fbp
from nntomo_dask.reconstruction.nnfbp import nnfbp
from nntomo_dask.reconstruction.sirt import sirt

SELF_SUPERVISED: Method = "fbp"  # the default method where the network learns from the measured series itself


def needs_network(method: Method) -> bool:
    """Whether a method reconstructs with a network."""
    return method == "nnfbp"


def reconstruct(series: xr.DataArray, inputs: Inputs) -> xr.DataArray:
    """The reconstruction that the network improves, lazy."""
    if inputs.network is not None:
        return nnfbp(series, inputs.network)
    if inputs.method == "fbp":
        return fbp(series)
    return sirt(series, **SIRT)


def inputs(
    who: str, all_series: Sequence[xr.DataArray], method: Method, network: NNFBPNetwork | None, neighbours: int
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
    if method not in METHODS:
        refuse(who, needs=f"method {', '.join(METHODS)}", got=f"{method!r}", remedy="choose one of them")
    if needs_network(method) != (network is not None):
        refuse(
            who,
            needs="an NN-FBP network where the method is nnfbp, and only there",
            got="none" if network is None else f"one for {method}",
            remedy="`network=load_network(path)`",
        )
    if neighbours < 0:
        refuse(who, needs="at least 0 neighbours", got=f"{neighbours}", remedy=f"`neighbours={NEIGHBOURS}`")
    angles = tuple(all_series[0][schema.ANGLE].values.tolist())
    made = Inputs(angles_deg=angles, method=method, network=network, neighbours=neighbours)
    size = all_series[0].sizes[schema.DETECTOR]
    for item in all_series:
        if not geometry.same_angles(item[schema.ANGLE].values, angles):
            got = f"{listed(angles)} and {listed(item[schema.ANGLE].values)}"
            refuse(who, needs="series at the same angles", got=got, remedy="select the angles that all series have")
        made.check(item, who=who)
        if item.sizes[schema.DETECTOR] != size:
            got = f"{size} and {item.sizes[schema.DETECTOR]}"
            refuse(who, needs="series with the same number of detector pixels", got=got, remedy="resize(series, …)")
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
        network = NNFBPNetwork.from_file(tensors, held["metadata"])
    return Inputs.from_json(json.dumps(fields), network)


def _encoded(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
    return {"shape": list(values.shape), "dtype": values.dtype.str, "data": data}


def _decoded(held: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(held["data"]), held["dtype"]).reshape(held["shape"]).copy()
