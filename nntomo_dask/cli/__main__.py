"""``python -m nntomo_dask.cli`` is the `nntomo` command."""

from nntomo_dask.cli.main import main

main()
