"""What every kind of network has in common."""

import os
from typing import Any, ClassVar, Protocol, Self

Tensors = dict[str, Any]
Metadata = dict[str, str]


class Network(Protocol):
    """A trained network as data: what it was trained for, and how it is saved.

    Attributes
    ----------
    name
        Name of the kind, as registries and the command line know it.
    FORMAT
        Name of the kind in its files.
    recipe
        How it was trained; becomes part of the recipes of volumes.
    """

    name: ClassVar[str]
    FORMAT: ClassVar[str]

    @property
    def recipe(self) -> dict[str, Any]:
        """How it was trained."""
        ...

    @property
    def digest(self) -> str:
        """Digest of all numbers that a reconstruction depends on."""
        ...

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """Tilt angles of the series that it was trained for."""
        ...

    def describe(self) -> str:
        """One line for ``nntomo info``: what it is, and for which series."""
        ...

    def check(self, series: Any, *, who: str) -> None:
        """Raise a SchemaError where the network was made for another kind of series."""
        ...

    def to_file(self) -> tuple[Tensors, Metadata]:
        """Arrays and texts that make up the file; "format" and "format_version" are added."""
        ...

    @classmethod
    def from_file(cls, tensors: Tensors, metadata: Metadata) -> Self:
        """Inverse of `to_file`."""
        ...


def instead_of(thing: Any, otherwise: str) -> str:
    """What to try in place of something that is no network of a certain kind."""
    return "load_network(path)" if isinstance(thing, str | os.PathLike) else otherwise
