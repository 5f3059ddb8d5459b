"""How well padding serves specimens that are larger than the field of view; see docs/theory.md.

    python pipelines/field_of_view.py

Two specimens of 256 pixels are seen by a detector of 96: a disc of radius 80, and a film of 240 × 28 pixels. Errors are
root mean squares over the disc that all projections see, against the truth, and against what the same method makes of
projections in which all is in view. The rim is how much brighter the outer fifth of it is than the middle.
"""

import numpy as np

import nntomo_dask as nt
from nntomo_dask.arrays.detector import Pad
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.method import Method
from nntomo_dask.types import Float32, Float64

WHOLE, SEEN = 256, 96
ANGLES = nt.tilt_angles("tem", 29)
PADS: tuple[Pad, ...] = (0, SEEN // 4, "auto", SEEN)
_Y, _X = np.mgrid[:WHOLE, :WHOLE] - (WHOLE - 1) / 2
_RADIUS = np.hypot(*(np.mgrid[:SEEN, :SEEN] - (SEEN - 1) / 2))


def disc() -> Float64:
    """Radius 80, with four smaller ones."""
    return _with_spots((np.hypot(_Y, _X) < 80).astype(float), ((10, 5, 8), (-20, 15, 10), (30, -12, 6), (-5, -25, 5)))


def film() -> Float64:
    """240 pixels wide and 28 high, with six discs, two of them out of view."""
    body = ((np.abs(_Y) < 14) & (np.abs(_X) < 120)).astype(float)
    return _with_spots(body, ((10, 5, 5), (-20, 5, 6), (30, -6, 5), (-5, -6, 4), (80, 0, 9), (-75, 3, 8)))


def _with_spots(body: Float64, spots: tuple[tuple[int, int, int], ...]) -> Float64:
    for number, (x, y, radius) in enumerate(spots):
        body += (0.5, -0.5, 1, -1)[number % 4] * (np.hypot(_Y - y, _X - x) < radius)
    return body


def main() -> None:
    middle = slice((WHOLE - SEEN) // 2, (WHOLE + SEEN) // 2)
    inside, rim, centre = (
        SEEN / 2 - 2 > _RADIUS,
        (_RADIUS > 0.4 * SEEN) & (SEEN / 2 - 2 > _RADIUS),
        0.2 * SEEN > _RADIUS,
    )
    methods: dict[str, Method] = {
        "fbp": METHODS["fbp"](),
        "sirt": METHODS["sirt"](),
        "tv, weight 0.3": METHODS["tv"](weight=0.3, dimensions=2),
    }
    print("specimen  method          pad   error  against all in view  rim")
    for name, slice_ in (("disc", disc()), ("film", film())):
        truth = slice_[middle, middle]
        whole = nt.project(nt.volume(slice_[None]), ANGLES)
        series = nt.tilt_series(whole.values[:, :, middle], ANGLES)
        for title, method in methods.items():
            best = nt.reconstruct(whole, method).values[0, middle, middle]
            for pad in PADS:
                made: Float32 = nt.reconstruct(series, method, pad=pad).values[0]
                error, other = (np.sqrt(((made - one)[inside] ** 2).mean()) for one in (truth, best))
                over = (made - best)[rim].mean() - (made - best)[centre].mean()
                print(f"{name:9} {title:15} {pad!s:5} {error:.3f}  {other:.3f}                {over:+.3f}", flush=True)


if __name__ == "__main__":
    main()
