"""The `nntomo` command, also as ``python -m nntomo_dask.cli``: signals are handled before anything else is imported."""

from nntomo_dask.cli import interruption


def run() -> None:
    """Run the command that the words of the command line ask for."""
    with interruption.handled():
        from nntomo_dask.cli.main import main

        main()


if __name__ == "__main__":
    run()
