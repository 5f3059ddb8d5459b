"""Where a block lies: in this machine's memory or on a GPU."""

from typing import Any

import numpy as np

from nntomo_dask import schema


def is_on_gpu(block: Any) -> bool:
    """Whether a block is a CuPy array; CuPy itself is not imported."""
    return type(block).__module__.partition(".")[0] == "cupy"


def on_host(block: Any, *, who: str) -> Any:
    """The block as a contiguous NumPy array; a block on a GPU is refused, not copied behind the caller's back.

    Raises
    ------
    SchemaError
        The block lies on a GPU.
    """
    if is_on_gpu(block):
        schema.refuse(
            who,
            needs="blocks in host memory: its kernels run on the CPU",
            got="a CuPy array",
            do="array.copy(data=array.data.map_blocks(cupy.asnumpy))",
        )
    return np.ascontiguousarray(block)
