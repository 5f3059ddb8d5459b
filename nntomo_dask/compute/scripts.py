"""Whether worker processes can import the script that starts them."""

import ast
import sys
from pathlib import Path
from types import FrameType

from nntomo_dask.errors import refuse


def check_guard() -> None:
    """Raise a SchemaError where a script starts worker processes outside ``if __name__ == "__main__":``.

    Each worker process imports the script. It would come to the same line there, and try to start workers of its own.
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    spec = getattr(main, "__spec__", None)
    # What has no file, and a package run by ``python -m``, is not imported by workers.
    if path is None or (spec is not None and spec.name.rpartition(".")[2] == "__main__"):
        return
    line = _running_line(vars(main))
    if line is not None and not _is_guarded(Path(path), line):
        refuse(
            "cluster",
            needs="a script that worker processes can import",
            got=f'{path}, which starts them in line {line}, outside of if __name__ == "__main__":',
            remedy='put that line, and what uses it, under if __name__ == "__main__":, or `scheduler="threads"`',
        )


def _running_line(names: dict[str, object]) -> int | None:
    """The line of a module that is being executed; None where it has ended, as in an interactive session."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals is names and frame.f_code.co_name == "<module>":
            return frame.f_lineno
        frame = frame.f_back
    return None


def _is_guarded(path: Path, line: int) -> bool:
    """Whether a line of a file stands in an ``if`` that asks for ``__name__``; what cannot be read passes."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    for node in tree.body:
        if isinstance(node, ast.If) and node.lineno <= line <= (node.end_lineno or node.lineno):
            names = {part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)}
            if "__name__" in names and line <= (node.body[-1].end_lineno or line):
                return True
    return False
