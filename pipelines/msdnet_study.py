"""How good MS-D Net is, and when: the figures of docs/theory.md, measured anew.

    python pipelines/msdnet_study.py particles   # 8 projections of faceted particles, by input
    python pipelines/msdnet_study.py ellipses    # after FBP and after NN-FBP, 8 and 16 projections
    python pipelines/msdnet_study.py noise       # Noise2Inverse, from one noisy series
    python pipelines/msdnet_study.py ensemble    # whether the spread tells where the error is

Each takes 5 to 30 minutes on 2 cores.
"""

import time

import click
import numpy as np
from scipy.stats import spearmanr

import nntomo_dask as nt

SIZE = 128


def error(volume, truth):
    return float(nt.mse(volume, truth))


def constrained_sirt(series):
    return nt.sirt(series, tolerance=1e-3, minimum=0)


def train(sets, **options):
    start = time.monotonic()
    network = nt.train_msdnet(*(part.compute() for part in sets), **options)
    outcome = network.recipe["outcome"]
    click.echo(f"trained in {time.monotonic() - start:.0f} s, validation loss {outcome['validation_loss']:.5f}")
    return network


PUBLISHED = {"n_samples": 100_000, "filters": "shared"}


def published(training, validation):
    """An NN-FBP network in the form of Pelt and Batenburg (2013)."""
    return nt.train_nnfbp(training, validation, solver="lm", output="sigmoid")


def particles(methods=("sirt", "fbp", "nnfbp"), depth=60, epochs=10, slices=1600):
    """The quickstart's particle and three others; ratios to the error of constrained SIRT."""
    angles = nt.tilt_angles("tem", 8)
    target = nt.tilt_series(np.zeros((1, angles.size, SIZE), np.float32), angles)
    for method in methods:
        inner = (
            published(*nt.phantom_samples(target, phantom="ellipses", n_slices=400, **PUBLISHED))
            if method == "nnfbp"
            else None
        )
        sets = nt.phantom_slices(target, n_slices=slices, method=method, network=inner)
        network = train(sets, depth=depth, max_epochs=epochs)
        for seed in (1, 0, 2, 3):
            particle = nt.nanoparticle(SIZE, seed=seed).compute()
            series = nt.project(particle, angles).compute()
            least = error(constrained_sirt(series), particle)
            ratio = error(nt.msdnet(series, network), particle) / least
            click.echo(f"after {method}, seed {seed}: SIRT ≥ 0 {least:.5f}, MS-D Net {ratio:.3f} of it")


def ellipses(depth=50, epochs=6, slices=1600):
    """Held-out ellipse slices: MS-D Net after FBP and after NN-FBP, against NN-FBP."""
    training, validation, truth = (
        nt.ellipse_stack((count, SIZE, SIZE), seed=seed).compute() for count, seed in ((slices, 1), (128, 2), (64, 3))
    )
    for count in (8, 16):
        angles = nt.tilt_angles("full", count)
        pairs = [(nt.project(volume, angles), volume) for volume in (training, validation)]
        samples = [nt.training_samples(*pair, seed=k, **PUBLISHED).compute() for k, pair in enumerate(pairs)]
        inner = published(*samples)
        series = nt.project(truth, angles).compute()
        click.echo(
            f"{count} projections: FBP {error(nt.fbp(series), truth):.5f}, SIRT ≥ 0 "
            f"{error(constrained_sirt(series), truth):.5f}, NN-FBP {error(nt.nnfbp(series, inner, scale=1), truth):.5f}"
        )
        for method in ("fbp", "nnfbp"):
            given = {"method": method, "network": inner if method == "nnfbp" else None, "neighbours": 0, "scene": 1}
            network = train([nt.training_slices(*pair, **given) for pair in pairs], depth=depth, max_epochs=epochs)
            click.echo(f"  MS-D Net after {method}: {error(nt.msdnet(series, network, scale=1), truth):.5f}")


def noise(count=64, deviation=2.0, depth=30, epochs=30):
    """One noisy series and no truth: Noise2Inverse against SIRT that is stopped where its error is least."""
    body = nt.body_stack((64, SIZE, SIZE), scene=64, seed=5).compute()
    series = nt.project(body, nt.tilt_angles("full", count)).compute()
    noisy = series.values + np.random.default_rng(0).normal(0, deviation, series.shape)
    series = series.copy(data=noisy.astype(np.float32))
    for minimum in (None, 0):
        errors = {
            iterations: error(nt.sirt(series, tolerance=0, max_iterations=iterations, minimum=minimum), body)
            for iterations in (3, 5, 8, 12, 18, 25, 35, 50, 80, 120)
        }
        best = min(errors, key=errors.get)
        click.echo(f"SIRT, least value {minimum}: {errors[best]:.5f} at its best, after {best} iterations")
    for method, splits in (("fbp", 2), ("sirt", 2), ("fbp", 4)):
        sets = nt.noise2inverse_slices(series, splits=splits, method=method)
        network = train(sets, depth=depth, max_epochs=epochs)
        click.echo(f"Noise2Inverse on {method}, {splits} parts: {error(nt.msdnet(series, network), body):.5f}")


def ensemble(size=64, members=4, depth=25, epochs=8, slices=400):
    """Rank correlation of the members' spread with the error of their mean."""
    angles = nt.tilt_angles("tem", 8)
    target = nt.tilt_series(np.zeros((1, angles.size, size), np.float32), angles)
    sets = [part.compute() for part in nt.phantom_slices(target, n_slices=slices)]
    networks = nt.train_ensemble(nt.train_msdnet, *sets, members=members, depth=depth, max_epochs=epochs)
    for seed in (1, 2):
        particle = nt.nanoparticle(size, seed=seed).compute()
        series = nt.project(particle, angles).compute()
        mean, spread = nt.msdnet(series, networks), nt.msdnet(series, networks, statistic="spread")
        single = [error(nt.msdnet(series, network), particle) for network in networks]
        correlation = spearmanr(spread.values.ravel(), np.abs(mean.values - particle.values).ravel())[0]
        click.echo(
            f"seed {seed}: members {min(single):.5f} to {max(single):.5f}, mean {error(mean, particle):.5f}, "
            f"rank correlation of spread and error {correlation:.2f}"
        )


STUDIES = {study.__name__: study for study in (particles, ellipses, noise, ensemble)}


@click.command(help="Measure how good MS-D Net is: particles, ellipses, noise or ensemble.")
@click.argument("names", nargs=-1, type=click.Choice(list(STUDIES)), required=True)
def main(names):
    for name in names:
        STUDIES[name]()


if __name__ == "__main__":
    main()
