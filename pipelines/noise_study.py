"""How well the noise of a series is estimated: known noise on projections of phantoms, as a table in Markdown.

``python -m pipelines.noise_study [--size 96]``; docs/theory.md has what it prints.
"""

import argparse

import numpy as np

import nntomo_dask as nt

PHANTOMS = ("particle", "coreshell", "spheres", "bodies", "ellipses", "mixed")
SHARES = (0.0, 0.005, 0.01, 0.02, 0.05)
DOSES = (30.0, 100.0, 1000.0, 10_000.0)
BOTH = ((0.01, 1000.0), (0.02, 200.0))
SEED = 7


def deviations(found, truth, peak):
    """Estimated and true deviation at half of the brightest ray."""
    return float(found.deviation(found.background + peak / 2)), float(truth.deviation(peak / 2))


def study(size, count=8):
    """Print a table: a row a phantom, a column a noise; the estimate divided by the truth, or a share of the ray."""
    cases = [(share, None) for share in SHARES] + [(0.0, dose) for dose in DOSES] + list(BOTH)
    heads = ["none"] + [f"{100 * share:g} %" for share in SHARES[1:]] + [f"{dose:g} counts" for dose in DOSES]
    heads += [f"{100 * share:g} %, {dose:g} counts" for share, dose in BOTH]
    print("| phantom | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    for kind in PHANTOMS:
        series = nt.project(nt.phantom(kind, size, seed=SEED), nt.tilt_angles("tem", count)).compute()
        peak, cells = float(series.max()), []
        for share, dose in cases:
            found = nt.noise(nt.add_noise(series, noise=share, dose=dose, seed=SEED))
            truth = nt.Noise(gain=0 if dose is None else peak / dose, read_noise=share * peak)
            estimated, true = deviations(found, truth, peak)
            cells.append(f"{estimated / true:.2f}" if true else f"{100 * estimated / peak:.2f} %")
        print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)


def largest_error_of_the_background(size, count=8):
    """The largest error of the background over all cases, as a share of the brightest ray above it."""
    errors = []
    for kind in PHANTOMS:
        series = nt.project(nt.phantom(kind, size, seed=SEED), nt.tilt_angles("tem", count)).compute()
        for background in (-1.0, 0.5):
            lifted = series + np.float32(background * float(series.max()))
            found = nt.noise(nt.add_noise(lifted, noise=nt.Noise(read_noise=0.02 * float(series.max()))))
            errors.append(abs(found.background / float(series.max()) - background))
    return max(errors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--count", type=int, default=8, help="projections in ±70°")
    given = parser.parse_args()
    study(given.size, given.count)
    print(f"\nbackground: at most {100 * largest_error_of_the_background(given.size, given.count):.2f} % off")
