"""Parts of pipelines/benchmark.py where not everything is installed."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nntomo_dask.compute import device

PIPELINES = Path(__file__).parents[1] / "pipelines"


@pytest.fixture
def benchmark(monkeypatch):
    """The script, imported where ASTRA and PyTorch are missing."""
    monkeypatch.syspath_prepend(str(PIPELINES))
    for name in ("astra", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("benchmark", "benchmark_msdnet"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import benchmark

    return benchmark


def test_the_part_for_gpus_needs_neither_astra_nor_torch(benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(device, "gpu_count", lambda: 0)
    result = CliRunner().invoke(benchmark.main, ["--parts", "gpu", "--size", "64", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "benchmark.json").read_text())["GPU"] == "none at hand"
    assert "none at hand" in result.output
