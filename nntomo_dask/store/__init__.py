"""Saving, opening and verifying Zarr stores.

A store is a Zarr v3 group with one data array and its coordinates. Its metadata are written first and in one step.
After that each Dask task writes whole chunks; every chunk is written atomically and has a checksum. A chunk of zeros
has a file like any other, so a store is complete when no file is missing, and nothing else records the progress.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
