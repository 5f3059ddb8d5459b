"""Which form of network improves total variation most: U-Net, MS-D Net, more channels, three dimensions, one slice.

``python -m pipelines.forms_study --out stores/forms`` draws scenes of `materials` (one geometry, one noise) to a
folder, and trains each form on them, with one thread and for the same CPU time of its steps. A step is one scene of 24
slices, turned over at random; loss, rate and averaging of the parameters are those of `train_unrolled`. Losses are mean
square errors of fresh scenes as shares of those of total variation, at four times during the training. What is done
already is kept: runs with several ``--only`` may share a folder, and the table is of all that lies there.
"""

import csv
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from torch.nn import functional

import nntomo_dask as nt
from nntomo_dask.compute import blas
from nntomo_dask.kernels import torch_layers, torch_unet, unet
from nntomo_dask.networks.unrolled import REACH, Geometry
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import tv_weight
from nntomo_dask.reconstruction.blocks import BLOCK
from nntomo_dask.reconstruction.first_guess import Conditioned, guess
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.training.unrolled.scenes import SceneNoise, Scenes

NEIGHBOURS = 2
INSIDE = slice(REACH, REACH + BLOCK)
AVERAGED, WARMING, FLOOR = 200, 50, 2e-5  # as `train_unrolled`
CHECKS = 4  # validations
VALIDATION_SEED, TRAINING_SEED = 2, 1


class Kept(NamedTuple):
    """A scene as arrays (slice, y, x); the truth has no halo."""

    first: Any
    second: Any
    descent: Any
    sirt: Any
    sirt_descent: Any
    truth: Any


def make(source: Scenes, number: int, folder: Path) -> None:
    """Write a scene with both kinds of solutions, whole or not at all."""
    path = folder / f"{number:05d}.npz"
    if path.exists():
        return
    angles, rows, truth, _ = source.measured(number)
    pair = Projector(angles, source.size)
    noise = tv_weight.deviation_of(rows, angles)
    found = guess(rows, pair, noise=noise, between=1.0)
    sirt = Sirt(minimum=0.0).slab(rows, angles)
    descent = Conditioned(pair).back(rows - pair.forward(sirt))
    kept = Kept(found.first, found.second, found.descent, sirt, descent, truth[INSIDE])
    part = folder / f".{number:05d}.{os.getpid()}.npz"
    np.savez(part, noise=noise, **{name: array.astype(np.float16) for name, array in kept._asdict().items()})
    part.rename(path)


def load(path: Path, turn: Sequence[int] = ()) -> tuple[Kept, float]:
    """A scene, mirrored along some of its dims; the angles are the same for both signs."""
    with np.load(path) as file:
        arrays = (np.flip(file[name], turn) if turn else file[name] for name in Kept._fields)
        return Kept(*(torch.from_numpy(np.ascontiguousarray(one, np.float32)) for one in arrays)), float(file["noise"])


def channels(scene: Kept, noise: float, *, neighbours: int, sirt: bool) -> torch.Tensor:
    """(slice, channel, y, x): those of `torch_unet.steps` in a first step, and SIRT's beside them."""
    near = min(neighbours, 1)

    def moved(array: torch.Tensor, reach: int) -> list[torch.Tensor]:
        return [array[REACH + shift : REACH + BLOCK + shift] for shift in range(-reach, reach + 1)]

    seen = [*moved(scene.first, neighbours), scene.first[INSIDE], *moved(scene.second, near), scene.descent[INSIDE]]
    if sirt:
        seen += [*moved(scene.sirt, near), scene.sirt_descent[INSIDE]]
    return torch.stack([*seen, torch.full_like(seen[0], noise**0.5)], dim=1)


class UNet(torch.nn.Module):
    """That of the package."""

    def __init__(self, inputs: int, width: int, seed: int) -> None:
        super().__init__()
        self.width = width
        self.vector = torch.nn.Parameter(torch.from_numpy(unet.initial_parameters(inputs, width, seed)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        return torch_unet.apply(images, self.vector, self.width)


class UNet3D(torch.nn.Module):
    """The same layers with 3 × 3 × 3 convolutions, from a block (z, channel, y, x) to (z, y, x).

    A convolution is one in two dimensions of each slice beside its neighbours: PyTorch's own takes twice the CPU time.
    """

    def __init__(self, inputs: int, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        made = []
        for layer in unet.layers(inputs, width):
            depth = layer.edge
            one = torch.nn.Conv2d(depth * layer.inputs, layer.outputs, layer.edge, padding=layer.edge // 2)
            torch.nn.init.normal_(one.weight, 0, 0.0 if depth == 1 else (2 / (layer.inputs * depth**3)) ** 0.5)
            torch.nn.init.zeros_(one.bias)
            made.append(one)
        self.layers = torch.nn.ModuleList(made)

    def forward(self, block: torch.Tensor) -> torch.Tensor:
        """Apply it to a block whose sides are multiples of 4."""
        remaining = iter(self.layers)

        def level(maps: torch.Tensor) -> torch.Tensor:
            for _ in range(2):
                padded = functional.pad(maps, (0, 0, 0, 0, 0, 0, 1, 1))
                maps = next(remaining)(torch.cat([padded[:-2], maps, padded[2:]], dim=1)).relu()
            return maps

        above, maps = [], block
        for depth in range(unet.LEVELS):
            maps = level(maps)
            if depth < unet.LEVELS - 1:
                above.append(maps)
                maps = functional.avg_pool2d((maps[::2] + maps[1::2]) / 2, 2)
        for beside in reversed(above):
            larger = functional.interpolate(maps, scale_factor=2, mode="nearest").repeat_interleave(2, dim=0)
            maps = level(torch.cat([larger, beside], dim=1))
        return next(remaining)(maps)[:, 0]


class Form(NamedTuple):
    """What a network sees, and a network of a seed; one in two dimensions unless it sees whole blocks."""

    network: Callable[[int], torch.nn.Module]
    neighbours: int = NEIGHBOURS
    sirt: bool = False
    in_blocks: bool = False

    def inputs(self, scene: Kept, noise: float) -> torch.Tensor:
        """Images, or one block with its halo."""
        if self.in_blocks:
            seen = [scene.first, scene.second, scene.descent, torch.full_like(scene.first, noise**0.5)]
            return torch.stack(seen, dim=1)
        return channels(scene, noise, neighbours=self.neighbours, sirt=self.sirt)

    def applied(self, network: torch.nn.Module, scene: Kept, noise: float) -> torch.Tensor:
        """The slices (slice, y, x)."""
        found = network(self.inputs(scene, noise))
        return scene.first[INSIDE] + (found[INSIDE] if self.in_blocks else found)


SEEN = unet.channel_count(NEIGHBOURS)


def forms(width: int, depth: int, width_3d: int) -> dict[str, Form]:
    return {
        "unet": Form(lambda seed: UNet(SEEN, width, seed)),
        "msdnet": Form(lambda seed: torch_layers.MixedScaleDense(SEEN, depth, seed=seed)),
        "unet-3d": Form(lambda seed: UNet3D(4, width_3d, seed), in_blocks=True),
        "unet-sirt": Form(lambda seed: UNet(SEEN + 4, width, seed), sirt=True),
        "unet-2d": Form(lambda seed: UNet(unet.channel_count(0), width, seed), neighbours=0),
        "msdnet-sirt": Form(lambda seed: torch_layers.MixedScaleDense(SEEN + 4, depth, seed=seed), sirt=True),
    }


def loss(form: Form, network: torch.nn.Module, scene: Kept, noise: float) -> torch.Tensor:
    before = (scene.first[INSIDE] - scene.truth).square().mean()
    return (form.applied(network, scene, noise) - scene.truth).square().mean() / (before + FLOOR)


def inference_ms(form: Form, network: torch.nn.Module, scene: Kept, noise: float) -> float:
    """CPU milliseconds a slice, the least of five: slice by slice, as a reconstruction does it, or a whole block."""
    images = form.inputs(scene, noise)
    parts = [images] if form.in_blocks else list(images.split(1))
    found = []
    with torch.no_grad():
        for _ in range(5):
            begun = time.process_time()
            for part in parts:
                network(part)
            found.append(time.process_time() - begun)
    return min(found) / BLOCK * 1e3


def train(form: Form, out: Path, scenes: int, validated: int, seconds: float, rate: float, seed: int) -> dict[str, Any]:
    """Train for some CPU seconds, and say what came out."""
    paths = [out / "training" / f"{number:05d}.npz" for number in range(scenes)]
    fresh = [out / "validation" / f"{number:05d}.npz" for number in range(validated)]
    network = form.network(seed)
    average = [one.detach().clone() for one in network.parameters()]
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    rng = np.random.default_rng(seed)

    def validate() -> list[float]:
        own = [one.detach().clone() for one in network.parameters()]
        with torch.no_grad():
            _put(network, average)
            losses = [float(loss(form, network, *load(path))) for path in fresh]
            _put(network, own)
        return losses

    loss(form, network, *load(paths[0])).backward()  # what is compiled is no training
    spent, taken, curve = 0.0, 0, []
    order: list[int] = []
    while spent < seconds:
        order = order or rng.permutation(scenes).tolist()
        turn = [dim for dim in range(3) if rng.random() < 0.5]
        scene, noise = load(paths[order.pop()], turn)
        begun = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = rate * min((taken + 1) / WARMING, 1) * 0.5 * (1 + np.cos(np.pi * spent / seconds))
        optimizer.zero_grad()
        loss(form, network, scene, noise).backward()
        optimizer.step()
        taken += 1
        with torch.no_grad():
            for mean, one in zip(average, network.parameters(), strict=True):
                mean.lerp_(one, max(1 / taken, 1 / AVERAGED))
        spent += time.process_time() - begun
        if spent >= seconds * (len(curve) + 1) / CHECKS:
            curve.append(validate())
            click.echo(f"  {spent:.0f} s, {taken} scenes: {np.mean(curve[-1]):.4f}")
    return {
        "loss": round(float(np.mean(curve[-1])), 4),
        "standard error": round(float(np.std(curve[-1], ddof=1) / np.sqrt(validated)), 4),
        "parameters": sum(one.numel() for one in network.parameters()),
        "seconds": round(spent),
        "scenes": taken,
        "ms a slice": round(inference_ms(form, network, *load(fresh[0])), 2),
        "curve": [round(float(np.mean(one)), 4) for one in curve],
        "losses": [round(one, 5) for one in curve[-1]],
    }


def _put(network: torch.nn.Module, values: Sequence[torch.Tensor]) -> None:
    for one, value in zip(network.parameters(), values, strict=True):
        one.copy_(value)


def table(out: Path) -> list[dict[str, Any]]:
    """A row for every network of the folder, and for every kind that of its difference from the U-Net's losses."""
    rows = [json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))]
    reference = {row["seed"]: np.array(row["losses"]) for row in rows if row["form"] == "unet" and row["rate"] == 1e-3}
    for row in rows:
        row["of unet"] = row["± of unet"] = None
        if row["seed"] in reference and len(reference[row["seed"]]) == len(row["losses"]):
            ratios = np.log(np.array(row["losses"]) / reference[row["seed"]])
            row["of unet"] = round(float(np.exp(ratios.mean())), 3)
            row["± of unet"] = round(float(ratios.std(ddof=1) / np.sqrt(len(ratios))), 3)
    return rows


@click.command(help=__doc__.partition("\n")[0])
@click.option("--out", type=click.Path(path_type=Path), default=Path("stores/forms"), show_default=True)
@click.option("--only", multiple=True, help="Forms to train; all but msdnet-sirt where none is named.")
@click.option("--seconds", default=300.0, show_default=True, help="CPU time of the steps of a training.")
@click.option("--seeds", default="0,1", show_default=True, help="Of first weights and the order of the scenes.")
@click.option("--scenes", default=768, show_default=True)
@click.option("--validated", default=32, show_default=True, help="Fresh scenes.")
@click.option("--size", default=48, show_default=True, help="Pixels along a slice.")
@click.option("--projections", default=8, show_default=True, help="In ±70°.")
@click.option("--noise", default=0.02, show_default=True, help="Share of the brightest ray.")
@click.option("--width", default=16, show_default=True, help="Maps of the U-Nets.")
@click.option("--depth", default=50, show_default=True, help="Layers of the MS-D Nets.")
@click.option("--width-3d", default=8, show_default=True, help="Maps of the U-Net in three dimensions.")
@click.option("--rate", default=1e-3, show_default=True, help="The highest learning rate.")
def main(
    out: Path,
    only: tuple[str, ...],
    seconds: float,
    seeds: str,
    scenes: int,
    validated: int,
    size: int,
    projections: int,
    noise: float,
    width: int,
    depth: int,
    width_3d: int,
    rate: float,
) -> None:
    known = forms(width, depth, width_3d)
    if unknown := set(only) - set(known):
        raise click.BadParameter(f"no form {sorted(unknown)[0]}", param_hint="--only")
    torch.set_num_threads(1)
    angles = tuple(nt.tilt_angles("tem", projections).tolist())
    geometry = Geometry(angles, (projections,) * 2, (70.0, 70.0))
    (out / "results").mkdir(parents=True, exist_ok=True)
    with blas.one_thread():
        for name, seed, count in (
            ("training", TRAINING_SEED, scenes),
            ("validation", VALIDATION_SEED, validated),
        ):
            source = Scenes("materials", size, geometry, SceneNoise(read=noise), seed)
            (out / name).mkdir(exist_ok=True)
            # In an order of its own, so that runs beside each other share the work.
            for number in np.random.default_rng(os.getpid()).permutation(count).tolist():
                make(source, number, out / name)
        click.echo(f"{scenes} scenes")
        for seed in map(int, seeds.split(",")):
            for name in only or [one for one in known if one != "msdnet-sirt"]:
                path = out / "results" / f"{name}-{seconds:g}s-rate{rate:g}-seed{seed}.json"
                if path.exists():
                    continue
                click.echo(f"{name}, seed {seed}")
                row = {"form": name, "seed": seed, "rate": rate}
                row |= train(known[name], out, scenes, validated, seconds, rate, seed)
                path.write_text(json.dumps(row))
    rows = table(out)
    shown = [name for name in rows[0] if name not in ("curve", "losses")]
    with (out / "forms.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, shown, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    click.echo("| " + " | ".join(shown) + " |")
    for row in rows:
        click.echo("| " + " | ".join(str(row[name]) for name in shown) + " |")


if __name__ == "__main__":
    main()
