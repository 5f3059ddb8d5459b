"""Electron tomography from a few projections, on arrays larger than memory.

The public names stand in ``__init__.pyi``. Each is imported from its module when it is first used, so that ``import
nntomo_dask`` takes no time.
"""

from typing import Any

import lazy_loader

from nntomo_dask import extras

_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _attribute(name)
    except ModuleNotFoundError as error:
        extras.explain(error, who=name)
        raise
