"""A scroll through slices in a notebook, without other packages than those of a notebook: HTML with images in it."""

import base64
import html
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask import aside
from nntomo_dask.arrays import schema, slabs
from nntomo_dask.arrays.blocks import slabs_of
from nntomo_dask.errors import refuse
from nntomo_dask.plotting import png
from nntomo_dask.plotting.grey import window_of

Axis = Literal["z", "y", "x", "angle", "detector"]
_MOST_SLICES, _MOST_PIXELS = 256, 2048


@dataclass(frozen=True)
class Scroll:
    """Slices with a slider, which a notebook shows where it is the last value of a cell.

    Attributes
    ----------
    images
        PNG files, in the order of the slider.
    labels
        What stands beside the slider, for each image.
    title
        What the slices are.
    size
        Width and height at which they are shown, in pixels of the screen.
    """

    images: tuple[bytes, ...]
    labels: tuple[str, ...]
    title: str
    size: tuple[int, int]

    def _repr_html_(self) -> str:
        """The slices as HTML with a slider; without JavaScript the middle one is shown."""
        middle = len(self.images) // 2
        shown = "".join(
            f'<img data-label="{html.escape(label)}" alt="{html.escape(label)}" width="{self.size[0]}" '
            f'height="{self.size[1]}" '
            f'style="image-rendering:pixelated;display:{"block" if place == middle else "none"}" '
            f'src="data:image/png;base64,{base64.b64encode(image).decode()}">'
            for place, (image, label) in enumerate(zip(self.images, self.labels, strict=True))
        )
        # The slider shows one image and hides the others; it needs nothing but its own elements.
        script = (
            "const all=this.closest('figure').querySelectorAll('img');"
            "all.forEach((one,place)=>{one.style.display=place==this.value?'block':'none'});"
            "this.nextElementSibling.textContent=all[this.value].dataset.label"
        )
        return (
            f'<figure style="margin:0;font:13px sans-serif"><figcaption>{html.escape(self.title)}</figcaption>{shown}'
            f'<input type="range" min="0" max="{len(self.images) - 1}" value="{middle}" aria-label="slice" '
            f'style="width:{max(self.size[0], 160)}px" oninput="{html.escape(script)}"> '
            f"<span>{html.escape(self.labels[middle])}</span></figure>"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the slices and their slider to a page of its own, and return its path.

        Raises
        ------
        SchemaError
            `path` is a folder or a device, or lies inside a store.
        OSError
            The place cannot be written.
        """
        page = f'<!doctype html><meta charset="utf-8"><title>{html.escape(self.title)}</title>{self._repr_html_()}\n'
        with aside.written(path) as partial:
            partial.write_text(page, encoding="utf-8")
        return Path(path)


def scroll(
    array: xr.DataArray,
    *,
    axis: Axis | None = None,
    count: int = 64,
    pixels: int = 384,
    window: tuple[float, float] | None = None,
) -> Scroll:
    """Slices of a volume, or projections of a tilt series, with a slider. Computed at once.

    It reads the array slab by slab and keeps `count` images of at most `pixels` pixels a side, so a volume larger than
    memory can be looked at; smaller ones are shown larger. Pixels are left out, not averaged.

    Parameters
    ----------
    array
        Volume or tilt series.
    axis
        The dim along which the slider moves: by default "z" of a volume, "angle" of a series, whose sinograms are those
        along "z".
    count
        Most slices; at equal steps where there are more.
    pixels
        Most pixels along an edge of an image.
    window
        Values that are black and white; by default a thousandth of all values lies below, and a thousandth above.

    Returns
    -------
    What a notebook shows; `save` writes it to a page.

    Raises
    ------
    SchemaError
        It is neither volume nor series, there is no such axis, or a number or the window is none.

    Examples
    --------
    >>> import nntomo_dask as nt
    >>> shown = nt.scroll(nt.ellipse_stack((8, 32, 32)), count=4)
    >>> shown.labels
    ('z = 0 (1 of 8)', 'z = 2 (3 of 8)', 'z = 5 (6 of 8)', 'z = 7 (8 of 8)')
    """
    if isinstance(array, xr.DataArray) and schema.ANGLE in array.dims:
        schema.check_tilt_series(array, who="scroll")
    else:
        schema.check_volume(array, who="scroll", slices="any")
    chosen = axis or (schema.ANGLE if schema.ANGLE in array.dims else schema.Z)
    if chosen not in array.dims:
        names = " or ".join(f'"{dim}"' for dim in array.dims)
        refuse("scroll", needs=f"an axis {names}", got=f"{chosen!r}", remedy=f'`axis="{array.dims[0]}"`')
    for name, value, most in (("count", count, _MOST_SLICES), ("pixels", pixels, _MOST_PIXELS)):
        if not 1 <= value <= most:
            refuse("scroll", needs=f"`{name}` from 1 to {most}", got=f"{value}", remedy=f"`{name}={most // 4}`")
    if window is not None and not window[0] < window[1]:
        refuse("scroll", needs="a window from black to white", got=f"{window}", remedy="`window=(0, 1)`")
    low, high = window or window_of(slabs.lazy(array).data)
    size = array.sizes[chosen]
    places = np.unique(np.linspace(0, size - 1, min(count, size)).round().astype(int))
    images = _images(array, str(chosen), places, pixels, (low, high))
    # z points up, as images of microscopes are shown; so does y.
    upright = [image[::-1] if _rows(array, str(chosen)) != schema.ANGLE else image for image in images]
    height, width = upright[0].shape
    larger = max(pixels // max(height, width), 1)
    unit = "°" if chosen == schema.ANGLE else ""
    labels = tuple(
        f"{f'{array[chosen].values[place]:g}{unit}' if unit else f'{chosen} = {place}'} ({place + 1} of {size})"
        for place in places
    )
    title = f"{str(array.name).replace('_', ' ')}, along {chosen}; black {low:.4g}, white {high:.4g}"
    return Scroll(tuple(map(png.encoded, upright)), labels, title, (larger * width, larger * height))


def _rows(array: xr.DataArray, axis: str) -> str:
    """The dim that runs down the images."""
    order = [schema.Z, schema.ANGLE, schema.DETECTOR] if schema.ANGLE in array.dims else list(schema.VOLUME_DIMS)
    return next(dim for dim in order if dim != axis)


def _images(
    array: xr.DataArray, axis: str, places: npt.NDArray[np.int_], pixels: int, window: tuple[float, float]
) -> list[npt.NDArray[np.uint8]]:
    """(row, column) of bytes for each place, from one pass over the slabs."""
    steps = {dim: -(-array.sizes[dim] // pixels) for dim in array.dims if dim != axis}
    if axis == schema.Z:
        found = []
        for first, slab in slabs_of(array):
            inside = places[(places >= first) & (places < first + len(slab))] - first
            rows, columns = (slice(None, None, steps[dim]) for dim in array.dims[1:])
            found += [png.greys(slab[place, rows, columns], window) for place in inside]
        return found
    number = array.dims.index(axis)
    other = next(dim for dim in array.dims[1:] if dim != axis)
    pieces = []
    for first, slab in slabs_of(array):
        kept = slab[-first % steps[schema.Z] :: steps[schema.Z]]
        taken = np.moveaxis(np.take(kept, places, axis=number), number, 0)
        pieces.append(png.greys(taken[:, :, :: steps[other]], window))
    return list(np.concatenate(pieces, axis=1))
