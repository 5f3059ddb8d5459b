"""Runs the cells of a notebook in this process, and keeps what they show in it.

    python docs/run_notebook.py docs/notebooks/measured_series.ipynb

Jupyter is not needed. `run` alone is what the tests do.
"""

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run(path: Path, *, keep: bool = False) -> dict[str, Any]:
    """Run all code cells in one namespace; returns it. `keep` writes what they show into the notebook."""
    notebook = json.loads(path.read_text())
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        printed = io.StringIO()
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f"{path.name}, cell {number}", "exec"), names)
            value = (
                eval(compile(ast.Expression(last.value), f"{path.name}, cell {number}", "eval"), names)
                if last
                else None
            )
        cell["execution_count"] = number
        cell["outputs"] = _outputs(printed.getvalue(), value, number)
    if keep:
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return names


def _outputs(printed: str, value: Any, number: int) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = []
    if printed:
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)})
    if value is not None:
        data: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "savefig"):
            drawn = io.BytesIO()
            value.savefig(drawn, format="png", dpi=80)
            data = {"text/plain": ["<Figure>"], "image/png": base64.b64encode(drawn.getvalue()).decode()}
        result = {"output_type": "execute_result", "execution_count": number, "data": data, "metadata": {}}
        outputs.append(result)
    return outputs


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(Path(name), keep=True)
