"""What a type checker says of a user's script that imports the public names alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SCRIPT = """
import nntomo_dask as nt

series = nt.open("series.zarr")
few = series.isel(angle=slice(None, None, 2))
volume = nt.sirt(few, minimum=0, tolerance=0.01)
saved = nt.save(volume, "sirt.zarr", progress="bar")
network = nt.load_network("network.safetensors")
better = nt.reconstruct(series, network, scale="auto")
simulated = nt.simulate("UiO-66", [0.0, 30.0], mode="haadf")
error: float = float(nt.mse(saved, better))
alignment = nt.align(series, refine="none").edited(-70, flagged=True)
nt.write_alignment(alignment.then(nt.read_alignment("second.csv")), "both.xf")
aligned = nt.apply_alignment(series, alignment, crop="seen", fill=0)
nt.save_figure(nt.compare_volumes({"sirt": saved, "network": better}), "figure.png")
"""


def check(tmp_path, text):
    """What mypy says of a script by the project's strict settings, without what it says of the library."""
    script = tmp_path / "script.py"
    script.write_text(text)
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    command = [sys.executable, "-m", "mypy", f"--config-file={ROOT / 'pyproject.toml'}", str(script)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert run.returncode in (0, 1), run.stderr
    return [line for line in run.stdout.splitlines() if line.startswith(("script.py", str(script)))]


@pytest.mark.slow  # a minute where mypy has no cache; run by `make lint`
def test_a_user_script_is_accepted_and_planted_errors_are_found(tmp_path):
    assert check(tmp_path, SCRIPT) == []
    planted = {
        "tolerance=0.01)": ("tolerence=0.01)", "Unexpected keyword argument"),
        'nt.open("series.zarr")': ("nt.open(3)", "incompatible type"),
        'progress="bar")': ('progress="yes")', "incompatible type"),
        "error: float": ("error: str", "Incompatible types in assignment"),
    }
    text = SCRIPT
    for right, (wrong, _) in planted.items():
        assert right in text
        text = text.replace(right, wrong, 1)
    lines = check(tmp_path, text)
    assert len(lines) >= len(planted)
    for _, message in planted.values():
        assert any(message in line for line in lines), (message, lines)
