"""What checkpoints of every training keep to: whose they are, and which epoch is better."""

from pathlib import Path
from typing import Any, NoReturn, Protocol, Self, TypeVar

from nntomo_dask.arrays import slabs
from nntomo_dask.errors import refuse

# A validation loss must fall by this share of itself to count as better; less is rounding and luck.
_MARGIN = 1e-4


class Checkpoint(Protocol):
    """What a training has reached, in a file."""

    @property
    def frame(self) -> Any:
        """The network with all but its parameters; its recipe is the training's."""
        ...

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file; a SchemaError where it is damaged or something else."""
        ...


Kind = TypeVar("Kind", bound=Checkpoint)


def is_better(loss: float, best: float) -> bool:
    """Whether a validation loss counts as better than the best so far."""
    return loss < best * (1 - _MARGIN)


def resume(kind: type[Kind], path: Path | None, recipe: slabs.Recipe, *, who: str) -> Kind | None:
    """What a checkpoint holds, None where there is none; a SchemaError where it is of another training."""
    if path is None or not path.exists():
        return None
    reached = kind.load(path)
    if not slabs.same(reached.frame.recipe, recipe):
        difference = slabs.difference(reached.frame.recipe, recipe)
        refuse_another(who, path, "data and parameters", f"another: {difference}")
    return reached


def refuse_another(who: str, path: Path | None, what: str, got: str) -> NoReturn:
    """Raise a SchemaError: the training in `path` began with something else."""
    refuse(
        who,
        needs=f"the {what} with which the training in {path} began",
        got=got,
        remedy="delete that file (on the command line --overwrite), or give another path",
    )
