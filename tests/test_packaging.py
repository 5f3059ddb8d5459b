"""What the wheel holds is what the source tree has."""

import fnmatch
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_folder_is_listed():
    found = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in ROOT.glob("nntomo_dask/**/__init__.py")}
    assert set(SETUPTOOLS["packages"]) - {"nntomo_dask.pipelines"} == found
    assert SETUPTOOLS["packages"] == sorted(SETUPTOOLS["packages"])


def test_every_file_that_is_no_python_is_listed():
    data = SETUPTOOLS["package-data"]
    for path in (ROOT / "nntomo_dask").rglob("*"):
        if path.is_file() and path.suffix not in {".py", ".pyc", ".nbi", ".nbc"}:
            package = str(path.parent.relative_to(ROOT)).replace("/", ".")
            assert any(fnmatch.fnmatch(path.name, pattern) for pattern in data.get(package, [])), path
