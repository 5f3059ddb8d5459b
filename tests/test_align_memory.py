"""Aligning keeps to the memory that it predicts: bands of raw slices, as wide as the rotation of the axis needs."""

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.alignment.apply import host_bytes, rows_for
from nntomo_dask.compute import chunking
from tests import measured

WORKERS = 2
ANGLES = nt.tilt_angles("tem", 41)


@pytest.mark.parametrize(
    ("lines", "size", "turn", "slices"),
    [
        (256, 512, 0.0, 32),
        pytest.param(256, 512, 3.0, 1, marks=pytest.mark.slow),
        (256, 512, 3.0, 16),
        pytest.param(512, 1024, 3.0, 8, marks=pytest.mark.slow),
        pytest.param(512, 1024, -1.0, 32, marks=pytest.mark.slow),
    ],
)
def test_the_measured_peak_is_within_the_predicted(tmp_path, rng, lines, size, turn, slices):
    noise = rng.standard_normal((32, len(ANGLES), size)).astype(np.float32)
    raw = nt.tilt_series(np.broadcast_to(noise, (lines // 32, *noise.shape)).reshape(lines, len(ANGLES), size), ANGLES)
    nt.save(raw, tmp_path / "raw.zarr")
    table = nt.Alignment.identity(
        ANGLES, along_px=rng.uniform(-9, 9, len(ANGLES)), rotation_deg=np.full(len(ANGLES), turn)
    ).edited(ANGLES[:3], flagged=True)
    nt.write_alignment(table, tmp_path / "table.csv")
    slab = host_bytes(nt.open(tmp_path / "raw.zarr"), rows_for(raw, table))((slices, len(ANGLES), size))
    predicted = chunking.peak_bytes(slab, workers=WORKERS)
    words = ("align", tmp_path / "raw.zarr", "--table", tmp_path / "table.csv", "--page", "none")
    del raw
    with measured.runner() as runner:
        where = ("--scheduler", "threads", "--workers", WORKERS, "--memory", predicted)
        held = runner.peak_bytes(*words, "-o", tmp_path / "a.zarr", *where)
    print(lines, size, turn, slices, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert 0.35 * predicted < held <= predicted
