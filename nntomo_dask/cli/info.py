"""The verb `info`."""

import contextlib
import json
import sys
from pathlib import Path

import click

from nntomo_dask import store as storage
from nntomo_dask.cli import report, support


@click.command()
@click.argument("path", type=support.PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the whole recipe as JSON.")
@click.option(
    "--verify",
    is_flag=True,
    help="Read a store's every chunk; damaged ones are set aside, and made again by running what wrote it.",
)
def info(path: Path, as_json: bool, verify: bool) -> None:  # noqa: FBT001
    """Say what a store or a network is, and how it was made."""
    whole = report.verify(storage.member(path)[0]) if verify and not path.is_file() else True
    # Of JSON nothing else may stand beside it.
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        recipe = report.describe_file(path) if path.is_file() else report.describe_store(path)
    click.echo(json.dumps(recipe, indent=2) if as_json else "made by:\n" + "\n".join(report.recipe_lines(recipe)))
    sys.exit(0 if whole else 1)
