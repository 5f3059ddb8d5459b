"""The verb `demo`."""

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def demo(options: tuple[str, ...]) -> None:
    """Run the quickstart study.

    A particle, 8 projections, four reconstructions, a table and a figure.
    """
    from nntomo_dask.pipelines import quickstart

    quickstart.main(list(options), prog_name="nntomo demo", standalone_mode=False)
