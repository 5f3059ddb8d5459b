"""Optional packages: which extra installs each, and the one line that says so where it is missing."""

import importlib
import importlib.util
import sys
from typing import Any, NoReturn

from nntomo_dask.errors import SchemaError

# The name under which a package is imported: what people call it, and the extra of pyproject.toml that has it.
PACKAGES = {
    "abtem": ("abTEM", "simulation"),
    "ase": ("ASE", "simulation"),
    "astra": ("the ASTRA toolbox", "astra"),
    "cupy": ("CuPy", "cuda13"),
    "dask_cuda": ("dask-cuda", "cuda13"),
    "gemmi": ("gemmi", "simulation"),
    "napari": ("napari", "napari"),
    "py4DSTEM": ("py4DSTEM", "simulation"),
    "torch": ("PyTorch", "deep"),
}


class MissingPackageError(SchemaError, ModuleNotFoundError):
    """A package is needed that the base installation does not have."""


def require(module: str, *, who: str) -> Any:
    """Import an optional package.

    Parameters
    ----------
    module
        A key of `PACKAGES`.
    who
        The function, option or command that needs it.

    Raises
    ------
    MissingPackageError
        It is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        explain(error, who=who)
        raise


def check(*modules: str, who: str) -> None:
    """Raise a MissingPackageError where one of some optional packages is not installed; imports none of them."""
    for module in modules:
        if not is_installed(module):
            _refuse(module, who)


def explain(error: ModuleNotFoundError, *, who: str) -> None:
    """Raise a MissingPackageError in place of an error about an optional package; do nothing about any other."""
    module = (error.name or "").partition(".")[0]
    if module in PACKAGES and not is_installed(module):
        _refuse(module, who, error)


def is_installed(module: str) -> bool:
    """Whether a module can be imported; it is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it is in sys.modules without a specification: None where something hides it
        return sys.modules[module] is not None


def _refuse(module: str, who: str, cause: Exception | None = None) -> NoReturn:
    title, extra = PACKAGES[module]
    command = f"pip install 'nntomo_dask[{extra}]'"
    if extra.startswith("cuda"):
        command += " (or [cuda12], as the driver is), or compute on the CPU"
    error = MissingPackageError(f"{who}: needs {title}; got an installation without it; try: {command}")
    error.name = module
    raise error from cause
