"""The verb `compare`."""

import json
from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask.cli import report, support


@click.command()
@click.argument("volumes", type=support.PATH, nargs=-1, required=True)
@click.option("--reference", type=support.PATH, required=True, help="The volume to compare with.")
@click.option(
    "--region",
    type=click.Choice(["all", "disc"]),
    default="all",
    show_default=True,
    help="MSE, PSNR and SSIM over all voxels, or those that every projection sees.",
)
@click.option("--figure", type=support.PATH, help="Also draw slices and isosurfaces to this PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@support.computing
def compare(
    volumes: tuple[Path, ...],
    reference: Path,
    region: Any,
    figure: Path | None,
    as_json: bool,  # noqa: FBT001
    memory: int | None,
) -> None:
    """Compare volumes with a reference.

    Mean square error, peak signal-to-noise ratio, structural similarity, and the resolution at which the Fourier shell
    correlation falls below 0.5 and 0.143.
    """
    truth = nt.open(reference)
    budget = support.compare_memory(truth, memory)
    table = {str(path): report.errors_of(nt.open(path), truth, region, budget) for path in volumes}
    if figure is not None:
        report.draw_comparison(table, truth, reference, figure)
    if as_json:
        click.echo(json.dumps(report.finite(table), indent=2))
    else:
        report.print_table(table, reference, region, truth.attrs["units"])
