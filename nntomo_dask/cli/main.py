"""The `nntomo` command: the list of its verbs, each imported when it is asked for."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from nntomo_dask import extras
from nntomo_dask.cli import interruption, output
from nntomo_dask.errors import OutOfMemoryError, SchemaError
from nntomo_dask.untrusted import printable

# Module and one line of help for each verb, so that the list costs no import.
_VERBS = {
    "demo": ("demo", "Run the quick start: a known particle, reconstructed from 8 projections by several methods."),
    "import": ("importing", "Import a tilt series or a volume from a file."),
    "align": ("align", "Align the projections of a measured tilt series."),
    "phantom": ("phantom", "Make a phantom volume."),
    "project": ("project", "Project a volume to a tilt series."),
    "simulate": ("simulation", "Simulate STEM tilt series of crystals."),
    "truth": ("simulation", "Make the volume that a simulated series shows."),
    "structures": ("simulation", "List the crystals that are known by name."),
    "train": ("train", "Train a network."),
    "assess": ("assess", "Find the method that serves a tilt series best."),
    "reconstruct": ("reconstruct", "Reconstruct a tilt series."),
    "compare": ("compare", "Compare volumes with a reference."),
    "atoms": ("atoms", "Find the atoms of a volume or a tilt series."),
    "info": ("info", "Say what a store or a network is, and how it was made."),
    "export": ("export", "Write a store to a file for other programs."),
    "show": ("show", "Draw a store: slices and a surface, or projections and a sinogram."),
    "view": ("view", "Scroll through a store in a browser."),
}


class _Lazy(click.Group):
    """Imports a verb when it is called. An error that the user can fix is one line, with exit code 2."""

    def main(self, args: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Run the command; of a process of its own, which has no `args`, also take care of signals and its output."""
        if args is not None:
            return super().main(args, *arguments, **keywords)
        # Dask's arrays as the package knows them, whatever a user's configuration says: the first import decides.
        os.environ["DASK_ARRAY__QUERY_PLANNING"] = "False"
        output.prepare()
        with interruption.handled():
            return super().main(args, *arguments, **keywords)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the verbs, in the order of the work."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, imported."""
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"nntomo_dask.cli.{_VERBS[cmd_name][0]}")
        found: click.Command = getattr(module, "import_" if cmd_name == "import" else cmd_name)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The verb that the first word names; where none has that name, the one that was probably meant is named."""
        if not ctx.resilient_parsing and args[0][:1] != "-" and self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], _VERBS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(_VERBS)}."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted; give the same command again to continue", err=True)
            ctx.exit(130)
        except (SchemaError, OutOfMemoryError) as error:
            raise _Refusal(error.spelled(self._spelling(ctx))) from error
        except click.ClickException as error:  # its message may quote what was typed, or lies in a file
            vars(error)["message"] = "\n".join(printable(line) for line in error.message.split("\n"))
            raise
        except ModuleNotFoundError as error:
            try:
                extras.explain(error, who=f"nntomo {ctx.invoked_subcommand}")
            except SchemaError as missing:
                raise _Refusal(str(missing)) from error
            raise
        except BrokenPipeError:  # the reader of the output has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except MemoryError as error:
            spell = self._spelling(ctx)
            raise _Refusal(
                f"out of memory{f' ({error})' if str(error) else ''}; try: less {spell('memory')}, so that slabs are "
                f"smaller, or fewer {spell('workers')}, and run it again: what was written is kept"
            ) from error
        except OSError as error:
            place = f"{printable(str(error.filename))}: " if error.filename else ""
            text = f"{place}{error.strerror or error}. Fix this and rerun: what was written is kept"
            raise _Refusal(text) from error

    def _spelling(self, ctx: click.Context) -> Callable[[str], str]:
        """Python's parameters as options of the verb that ran."""
        verb = self.get_command(ctx, ctx.invoked_subcommand or "")
        if verb is None:
            return str
        from nntomo_dask.cli import options

        return lambda parameter: options.spelled(verb, parameter)


class _Refusal(click.ClickException):
    """An error that the user can fix."""

    exit_code = 2


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="nntomo_dask")
def main() -> None:
    """Electron tomography from a few projections.

    Import a tilt series, train a network for it, reconstruct, compare. Volumes and series are Zarr stores. A command
    that was interrupted continues where it stopped when it is given again. Start with: nntomo demo
    """


if __name__ == "__main__":
    sys.exit(main())
