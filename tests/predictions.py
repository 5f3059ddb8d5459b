"""What the operations say of their own memory."""

import nntomo_dask as nt
from nntomo_dask.formats import format as copying
from nntomo_dask.metrics import metric as comparing
from nntomo_dask.phantoms import phantom as making
from nntomo_dask.projection import project as projecting

_OTHERS = {
    "project": projecting.host_bytes,
    "phantom": making.slab_bytes,
    "compare": comparing.host_bytes,
    "copy": copying.host_bytes,
}


def host_bytes(operation, network=None):
    """Bytes of a slab of an operation by its shape; a method with a network needs one."""
    if operation in _OTHERS:
        return _OTHERS[operation]
    method = nt.METHODS[operation]
    return (method() if method.network is None else method(networks=(network,))).host_bytes
