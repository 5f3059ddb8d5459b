"""The verb `demo`."""

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def demo(options: tuple[str, ...]) -> None:
    """Run the quick start: a known particle, reconstructed from 8 projections by several methods.

    It writes the volumes, a table of errors and a figure into one folder. A second run continues from what is there.
    """
    from nntomo_dask.pipelines import quickstart

    quickstart.main(list(options), prog_name="nntomo demo", standalone_mode=False)
