"""Things by name: methods, networks, phantoms, formats and metrics.

Each of them is declared in a module of its own, which carries its name, and is imported when it is first asked for. A
package outside adds its own by an entry point, or at run time by `Registry.register`.
"""

import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from nntomo_dask.errors import refuse


class Named(Protocol):
    """What a registry holds: a class, or an object, with a name."""

    name: str


T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Named things of one kind.

    Parameters
    ----------
    kind
        What they are, for errors: "method".
    package
        The package whose modules declare them.
    modules
        One module a thing, of the same name; importing it registers the thing.
    group
        Entry-point group by which other packages add theirs: ``name = "package.module:Thing"``.
    """

    def __init__(self, kind: str, *, package: str, modules: tuple[str, ...], group: str) -> None:
        self.kind, self.group = kind, group
        self._modules = {name: f"{package}.{name}" for name in modules}
        self._known: dict[str, T] = {}

    def register(self, thing: T) -> T:
        """Add a thing under its ``name``; a decorator for classes.

        Raises
        ------
        SchemaError
            It has no name, or the name of another thing.
        """
        name = getattr(thing, "name", None)
        if not isinstance(name, str) or not name:
            refuse(f"register a {self.kind}", needs="a name", got=f"{thing!r} without one", remedy="set its `name`")
        here = self._modules.get(name)
        if name in self._known or (here is not None and here != getattr(thing, "__module__", None)):
            refuse(
                f"register a {self.kind}",
                needs="a name of its own",
                got=f"{name!r}, which is taken",
                remedy="choose another name",
            )
        self._known[name] = thing
        return thing

    def unregister(self, name: str) -> None:
        """Forget a thing that was registered at run time."""
        del self._known[name]

    def choose(self, name: str, *, who: str) -> T:
        """The thing of that name.

        Raises
        ------
        SchemaError
            There is none; the message lists those that there are.
        """
        try:
            return self[name]
        except KeyError:
            near = difflib.get_close_matches(str(name), list(self), n=1)
            refuse(
                who,
                needs=f"a {self.kind}: {', '.join(self)}",
                got=f"{name!r}",
                remedy=near[0] if near else "choose one of them",
            )

    def __getitem__(self, name: str) -> T:
        """The thing of that name; its module is imported if it has not been."""
        if name not in self._known:
            if name in self._modules:
                importlib.import_module(self._modules[name])
            elif name in (outside := _entry_points(self.group)):
                self.register(outside[name].load())
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        """All names: those of this package in the order of its list, then those of others."""
        yield from dict.fromkeys([*self._modules, *self._known, *_entry_points(self.group)])

    def __len__(self) -> int:
        """How many there are."""
        return sum(1 for _ in self)


@functools.cache
def _entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}
