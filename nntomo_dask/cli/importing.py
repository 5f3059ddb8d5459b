"""The verb `import`."""

from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask.cli import report, support


@click.command("import")
@click.argument("source", type=support.PATH)
@click.option(
    "--angles", type=support.PATH, help="Tilt angles: .rawtlt, .tlt (a number a line) or .mdoc. Without: a volume."
)
@click.option(
    "--tilt-axis", type=click.Choice(["x", "y"]), default="y", show_default=True, help="Image axis of the tilt."
)
@click.option(
    "--background",
    default="0",
    show_default=True,
    help="Counts where there is no specimen, taken off: a number, or auto for the dimmest 5 % of the pixels.",
)
@click.option(
    "--keep", metavar="START:STOP:STEP", help="Keep the projections nearest to these angles, such as -70:70:10."
)
@click.option("--fill", type=float, help="Value for pixels that are NaN or infinite; without it they are refused.")
@support.output
@support.computing
def import_(
    source: Path,
    angles: Path | None,
    tilt_axis: Any,
    background: str,
    keep: str | None,
    fill: float | None,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """Import a tilt series from an MRC file.

    The series is aligned already; without --angles the file is a volume.
    """
    if angles is None:
        support.check_free("tilt_axis", "background", "keep", "fill", because="is for a series; give its --angles too")
        array = nt.read_mrc_volume(source)
    else:
        angles_deg = nt.read_tilt_angles(angles)
        counts = support.background_of(nt.read_mrc_series(source, angles_deg, tilt_axis=tilt_axis), background)
        wanted = None if keep is None else support.angles_of(keep)
        array = nt.read_mrc_series(
            source, angles_deg, tilt_axis=tilt_axis, keep_deg=wanted, background=counts, fill=fill
        )
    support.check_memory(support.copy_bytes, array, memory, who="import")
    nt.check_finite(array, who="import")
    report.describe(nt.save(array, output, overwrite=overwrite, progress="bar"), output)
