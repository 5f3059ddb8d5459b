"""NPY files."""

from typing import ClassVar

from nntomo_dask.formats import FORMATS
from nntomo_dask.formats.npy_writing import SUFFIXES, NpyWriting


@FORMATS.register
class Npy(NpyWriting):
    """NumPy's array file, with a description in JSON beside it."""

    name: ClassVar[str] = "npy"
    title: ClassVar[str] = "NPY"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
