"""What each candidate predicts of each projection that is left out: computed once and kept as files."""

import hashlib
import json
import math
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from dask.delayed import Delayed, delayed

from nntomo_dask import aside
from nntomo_dask.arrays import recipes
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.assessment.candidates import Candidate
from nntomo_dask.compute import device
from nntomo_dask.reconstruction import held_out
from nntomo_dask.reconstruction.held_out import Fold
from nntomo_dask.reconstruction.method import Method
from nntomo_dask.types import Float32, Float64, Integers


class Run(NamedTuple):
    """Neighbouring slices: their places (start, stop), and their rows (slice + 2 · border, angle, detector)."""

    start: int
    stop: int
    border: int
    rows: Float32

    def seen(self, halo: int) -> Float32:
        """Their rows with so many neighbours on either side."""
        return self.rows[self.border - halo : len(self.rows) - self.border + halo]

    @property
    def measured(self) -> Float32:
        """Their own rows, (slice, angle, detector)."""
        return self.seen(0)


class Kept(NamedTuple):
    """A prediction, and how long its reconstruction took."""

    prediction: Float32  # (slice, left out, detector)
    seconds: float  # of one processor core; of the clock where a GPU computes


@dataclass(frozen=True)
class Work:
    """One reconstruction without some projections."""

    candidate: Candidate
    prepared: tuple[float, ...]
    angles_deg: Float64
    axis: Axis | None
    fold: Fold
    run: Run
    path: Path

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the prediction."""
        return self.run.stop - self.run.start, self.fold.left_out.size, self.run.rows.shape[-1]

    @property
    def _most_bytes(self) -> int:
        """Of the file's arrays with their headers."""
        return 4 * math.prod(self.shape) + 4096

    def kept(self) -> Kept | None:
        """What a file holds that was written before; None where it is missing or damaged."""
        try:
            with self.path.open("rb") as opened:
                with zipfile.ZipFile(opened) as archive:  # before memory is taken for what it says of itself
                    if sum(entry.file_size for entry in archive.infolist()) > self._most_bytes:
                        return None
                opened.seek(0)
                with np.load(opened, allow_pickle=False) as file:
                    found = Kept(file["prediction"], float(file["seconds"]))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None
        whole = found.prediction.dtype == np.float32 and found.prediction.shape == self.shape
        return found if whole and np.isfinite(found.prediction).all() else None

    def task(self, rows: Delayed) -> Delayed:
        """The task that computes it and writes its file."""
        method = self.candidate.for_fold(self.angles_deg, self.fold)
        return delayed(_predict, name="assess")(  # type: ignore[no-any-return]
            rows, method, self.prepared, self.angles_deg, self.axis, tuple(self.fold), self.run.border, str(self.path)
        )


def place(
    folder: Path, candidate: Candidate, series: recipes.Recipe, angles_deg: Float64, fold: Fold, run: Run
) -> Path:
    """The file of a prediction; its name is a digest of all that the prediction depends on."""
    network = [one.digest for one in getattr(candidate.method, "networks", ())]
    what = {
        "method": candidate.method.name,
        "parameters": candidate.method.parameters() | ({"networks": network} if network else {}),
        "series": recipes.without_versions(series),
        "left_out_deg": np.sort(angles_deg[fold.left_out]).tolist(),
        "slices": [run.start, run.stop],
    }
    text = json.dumps(what, sort_keys=True, default=str)
    return folder / f"{candidate.method.name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.npz"


def _predict(
    rows: Float32,
    method: Method,
    prepared: Sequence[float],
    angles_deg: Float64,
    axis: Axis | None,
    fold: tuple[Integers, Integers],
    border: int,
    path: str,
) -> None:
    one, halo = Fold(*fold), method.halo
    seen = rows[border - halo : len(rows) - border + halo]
    clock = time.perf_counter if device.computes_on_gpu() else time.thread_time
    began = clock()
    volume = held_out.without(method, seen, angles_deg, one, prepared=prepared, axis=axis)
    seconds = clock() - began
    prediction = held_out.predicted(volume, angles_deg, one, axis=axis)
    with aside.written(path) as partial, partial.open("wb") as file:
        np.savez(file, prediction=prediction, seconds=np.float64(seconds))
