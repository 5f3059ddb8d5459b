"""How many frozen-phonon configurations a dark-field image needs: the figures of docs/simulation.md, measured anew.

    python pipelines/phonon_study.py phonons.csv   # 3 minutes on one core

Every configuration is simulated alone, each with a seed of its own; an image of n configurations is the mean of n of
them. A mean of n is compared with the mean of all the others, for as many separate groups of n as there are, and the
error of the others is taken out. The rows of the CSV:

- configurations, n: an image of n configurations;
- at rest, 0: atoms at rest, against the mean of all configurations;
- truth, 0: the projection of `ground_truth` and the mean of all, with the best factor between them;
- dose, e/Å² in this projection: the shot noise of the mean of all, by Poisson's law.

`relative_error` is the root of the mean square of the error over the image, by that of the image. `total_error` is the
relative error of the sum over the image, root mean square.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

import nntomo_dask as nt


def at(series, angle_deg):
    """One projection, dims (z, detector), as float64; the others of a lazy series are not computed."""
    return series.sel(angle=angle_deg).values.astype(np.float64)


def of_groups(images, size):
    """Errors of means of `size` images: of the image, and of its sum, root mean square over separate groups."""
    count = len(images)
    scale = np.sqrt((images.mean(axis=0) ** 2).mean())
    total = images.mean(axis=0).sum()
    squares = []
    for start in range(0, count - size + 1, size):
        inside = np.isin(np.arange(count), np.arange(start, start + size))
        difference = images[inside].mean(axis=0) - images[~inside].mean(axis=0)
        squares.append([(difference**2).mean() / scale**2, (difference.sum() / total) ** 2])
    # The variance of the difference is v/n + v/(K - n) = v/n · K/(K - n), with v that of one configuration.
    return np.sqrt(np.mean(squares, axis=0) * (count - size) / count)


def against(image, reference):
    """Errors of one image: of the image, and of its sum."""
    return (
        np.sqrt(((image - reference) ** 2).mean() / (reference**2).mean()),
        abs(image.sum() / reference.sum() - 1),
    )


def shot_noise(image, dose, pixel_nm):
    """The same errors, of Poisson noise: the variance of a pixel is its share of the beam by its electrons."""
    electrons = dose * (10 * pixel_nm) ** 2
    return np.sqrt(image.mean() / electrons / (image**2).mean()), 1 / np.sqrt(electrons * image.sum())


def study(specimen, angle_deg, imaging, count, doses):
    """Yield the rows of one tilt angle; `imaging` makes the settings from a number of phonons and a seed."""
    angles = [angle_deg, angle_deg + 90]  # a series has at least two

    def simulated(phonons, seed):
        return at(nt.simulate(specimen, angles, mode="haadf", imaging=imaging(phonons, seed)), angle_deg)

    images = np.stack([simulated(1, seed) for seed in range(count)])
    mean = images.mean(axis=0)
    for size in (2**power for power in range(int(np.log2(count)))):
        yield ("configurations", size, *of_groups(images, size))
    yield ("at rest", 0, *against(simulated(0, 0), mean))
    truth = nt.ground_truth(specimen, mode="haadf", imaging=imaging(1, 0))
    expected = at(nt.project(truth, angles), angle_deg)
    yield ("truth", 0, *against((mean * expected).sum() / (expected**2).sum() * expected, mean))
    for dose in doses:
        yield ("dose", dose, *shot_noise(mean, dose, truth.attrs["pixel_size"]))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the CSV")
    parser.add_argument("--crystal", default="MIL-53", help="a structure; one cell is simulated")
    parser.add_argument("--angle", type=float, nargs="+", default=[0.0, 20.0], help="tilt angles [degrees]")
    parser.add_argument("--configurations", type=int, default=32, help="number of configurations in all")
    parser.add_argument("--pixels", type=int, default=57, help="57 is the least number for one cell of MIL-53")
    parser.add_argument("--slice-thickness-nm", type=float, default=0.4)
    parser.add_argument("--interpolation", type=int, default=3, help="of PRISM")
    parser.add_argument("--detector-mrad", type=float, nargs=2, default=nt.Imaging().detector_mrad)
    parser.add_argument("--sigma-nm", type=float, default=nt.Imaging().sigma_nm)
    parser.add_argument("--dose", type=float, nargs="+", default=[10.0, 100.0, 1000.0, 1e4, 1e5, 1e6])
    arguments = parser.parse_args()
    if arguments.configurations < 4:
        parser.error("--configurations: 4 or more")

    def imaging(phonons, seed):
        return nt.Imaging(
            pixels=arguments.pixels,
            slice_thickness_nm=arguments.slice_thickness_nm,
            interpolation=arguments.interpolation,
            detector_mrad=tuple(arguments.detector_mrad),
            sigma_nm=arguments.sigma_nm,
            phonons=phonons,
            seed=seed,
        )

    specimen = nt.specimen(arguments.crystal)
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["angle_deg", "kind", "number", "relative_error", "total_error"])
        for angle in arguments.angle:
            for kind, number, error, total in study(specimen, angle, imaging, arguments.configurations, arguments.dose):
                writer.writerow([angle, kind, number, f"{error:.5f}", f"{total:.5f}"])
                file.flush()


if __name__ == "__main__":
    main()
