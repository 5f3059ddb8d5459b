"""Pages that are one file: figures within, nothing to load."""

import base64
import html
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nntomo_dask import aside
from nntomo_dask.untrusted import printable

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
pre, code { font: 14px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
img { max-width: 100%; height: auto; }
p.note { color: #555; font-size: .92rem; }
"""


def page(title: str, body: str, *, style: str = "") -> str:
    """A page with a title, which is also its heading; `body` is HTML, `style` what it needs beside the common one."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{shown(title)}</title><style>{_STYLE}{style}</style></head>'
        f"<body><h1>{shown(title)}</h1>{body}</body></html>\n"
    )


def figures(texts: Iterable[tuple[str, str]], images: Iterable[bytes]) -> str:
    """A section for each PNG, with its title and a text."""
    return "".join(
        f'<h2>{title}</h2><p class="note">{text}</p><img alt="{title}" src="data:image/png;base64,'
        f'{base64.b64encode(image).decode()}">'
        for (title, text), image in zip(texts, images, strict=True)
    )


def shown(text: str) -> str:
    """A text as HTML shows it, without what a terminal or a page would obey."""
    return html.escape(printable(text))


def save_figures(drawn: Iterable[Any], names: Iterable[str], folder: Path) -> Iterator[bytes]:
    """Write figures to a folder, one after another; the PNGs."""
    for name, figure in zip(names, drawn, strict=True):
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=120, format="png", metadata={"Software": "nntomo_dask"})
        write(folder / name, buffer.getvalue())
        yield buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    """Write a file of a page; it appears when it is complete."""
    with aside.written(path) as partial:
        partial.write_bytes(content)
