"""The notebooks of the documentation, run as they stand."""

import json
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def test_a_measured_series_from_the_file_to_a_volume():
    run = runpy.run_path(str(DOCS / "run_notebook.py"))["run"]
    names = run(DOCS / "notebooks" / "measured_series.ipynb")
    # Measured: 0.03 and 0.02 px. Views are 15, with about 6,000 counts in the brightest pixel.
    assert names["along_error"] < 0.1
    assert names["across_error"] < 0.15
    assert abs(names["alignment"].rotation_deg.mean() - 3) < 0.5
    assert names["after"] < names["before"] / 4
    assert names["folder"].joinpath("volume.mrc").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_hold_what_they_show(path):
    cells = json.loads(path.read_text())["cells"]
    assert {cell["cell_type"] for cell in cells} == {"code", "markdown"}
    assert len({cell["id"] for cell in cells}) == len(cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    shown = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert path.stat().st_size < 400_000
