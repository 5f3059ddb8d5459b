"""What the command prints, on whatever it is printed: terminals of few characters, pipes, warnings of libraries."""

import codecs
import logging
import sys
import warnings
from typing import TextIO

import click

_PLAIN = "nntomo_plain_ascii"  # click takes a stream for misconfigured that says ASCII, and writes UTF-8 to it


def prepare() -> None:
    """Make the streams of this process take every character, and say each warning once."""
    codecs.register(_plain_codec)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(errors="replace", encoding=_PLAIN if ascii_only else None)
    warnings.showwarning = _Warnings()
    # Matplotlib tells where it keeps its fonts if there is no home.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


class _Warnings:
    """Prints a warning in one line, and the same text no second time, wherever it comes from."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = str(message)
        if text not in self.told:
            self.told.add(text)
            click.echo(f"warning: {text}", err=True)


def _plain_codec(name: str) -> codecs.CodecInfo | None:
    """ASCII under another name."""
    if name != _PLAIN:
        return None
    plain = codecs.lookup("ascii")
    return codecs.CodecInfo(
        plain.encode,
        plain.decode,
        plain.streamreader,
        plain.streamwriter,
        plain.incrementalencoder,
        plain.incrementaldecoder,
        name=_PLAIN,
    )
