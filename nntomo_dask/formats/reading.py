"""Reading any file, folder or list of files as a lazy tilt series or volume, with all that is known of it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.errors import refuse
from nntomo_dask.formats import (
    angle_sources,
    assembling,
    axis_of_images,
    background as background_room,
    choosing,
    folders,
    opening,
    orientation,
    read_recipes,
)
from nntomo_dask.formats.angle_sources import Disagreement, Given
from nntomo_dask.formats.assembling import Crop, Window
from nntomo_dask.formats.choosing import Repeats
from nntomo_dask.formats.format import Format
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.formats.mrc_bytes import ByteKind
from nntomo_dask.formats.opening import Opened, Paths
from nntomo_dask.formats.orientation import TiltAxis, TiltSign
from nntomo_dask.untrusted import printable

Kind = Literal["series", "volume"]
Counts = Literal["auto", "none"] | float
Contrast = Literal["as-is", "bright-field"]

_WHO = "import"
_KEPT = ("voltage_kv", "magnification", "detector")
_ALONG = ("exposure_s", "dose_e_per_a2")
_MOST_NAMES = 4  # of files that are printed
_OURS = "nntomo"  # how places begin that name files of this package
_ALIGNED = ("from nntomo", "from IMOD")  # which write series that are aligned


def read(
    path: Paths,
    *,
    kind: Kind | None = None,
    angles: Given = None,
    tilt_axis: TiltAxis | None = None,
    tilt_sign: TiltSign = "right-handed",
    pixel_size_nm: float | None = None,
    background: Counts = "auto",
    contrast: Contrast = "as-is",
    fill: float | None = None,
    keep_deg: npt.ArrayLike | None = None,
    exclude: Sequence[int] = (),
    repeats: Repeats | None = None,
    bin: int = 1,
    crop: Crop | None = None,
    byte_kind: ByteKind | None = None,
    dataset: str | None = None,
    disagreement: Disagreement = "refuse",
    unpack_to: str | os.PathLike[str] | None = None,
) -> xr.DataArray:
    """Read a tilt series or a volume from a file of a microscope or of another program. Lazy.

    The format is recognised by content. What was found, and where, is in ``attrs["found"]``.

    Parameters
    ----------
    path
        A file, a folder that is one series, or several files of one series.
    kind
        "series" or "volume", where the file does not say. A stack without angles is no volume until this says so.
    angles
        Tilt angles, [degrees], one for each image; or a file of them (see `read_tilt_angles`). By default from a file
        of the same name beside the images, else from their metadata. Sources that differ by more than 0.5° are refused.
    tilt_axis
        "y": upwards in the images; "x": to the right; or degrees from the vertical, counterclockwise. By default what
        the metadata say, else the direction along which the images keep their mass, if that is clear. Images are turned
        by quarters; what remains to be turned is in ``attrs["tilt_axis_deg"]``.
    tilt_sign
        "left-handed" reverses the signs of the angles.
    pixel_size_nm
        Edge of a pixel of the file, [nm]. By default what the metadata say; without it lengths are in pixels.
    background
        Counts where there is no specimen, subtracted; "auto" decides from the images, "none" subtracts nothing.
    contrast
        "bright-field" makes ``ln(background / counts)`` of the counts, which are line integrals where the specimen
        attenuates by its mass (Beer and Lambert); `background` is then the bright level beside the specimen. "as-is"
        leaves the counts.
    fill
        Replaces values that are not finite, after that; without it they stay.
    keep_deg
        Keep the projections nearest to these angles.
    exclude
        Numbers of images to leave out, from 1 on, as in IMOD.
    repeats
        What to do with several images of one angle: "sum", "mean", "keep" (angles a thousandth of a degree apart), or
        "refuse". By default frames are summed, which are neighbouring images of an angle, as many for each angle or in
        each file; other repeats are refused.
    bin
        Pixels of an image along an edge of a bin; a bin is the mean of its pixels.
    crop
        ((first column, end), (first line, end)) of the images as they are stored.
    byte_kind
        Whether bytes are "signed" or "unsigned", where a file does not say.
    dataset
        Which of several series in a file.
    disagreement
        "ignore" takes the first source of angles, whatever the others say.
    unpack_to
        Folder for the temporary copy of a packed file (.gz, .bz2); by default that of temporary files. The copy is
        removed when the process ends.

    Returns
    -------
    Tilt series (z, angle, detector) by ascending angle, with the order of acquisition as coordinate ``order``, and
    exposure and dose where they are known; or volume (z, y, x). float32, in nm where the pixel size is known, else px.

    Raises
    ------
    SchemaError
        The file is damaged or of no known format; angles, or the direction of the tilt axis, are not known; sources
        contradict each other; or a parameter does not fit.
    """
    options = {"byte_kind": byte_kind, "dataset": dataset}
    is_series = kind == "series" or angles is not None
    opened = opening.opened(path, options, unpack_to=unpack_to, is_series=is_series)
    if isinstance(opened, xr.DataArray):
        return opened
    images, beside = opened.images, opened.beside
    _check_numbers(pixel_size_nm, background, fill)
    window = Window.of(images, crop, bin, _WHO)
    if images.shape[0] == 1 and kind != "volume":
        refuse(
            _WHO,
            needs="at least 2 projections",
            got=f"one image in {opened.path}",
            remedy="all files of the series, or the folder that holds them",
        )
    source = None
    if kind != "volume" and not (kind is None and angles is None and images.said.holds == "volume"):
        source = angle_sources.chosen(images, angles, beside.angles, disagreement=disagreement, who=_WHO)
    if kind == "volume" or (kind is None and source is None and images.said.holds == "volume"):
        _check_unused(
            kind, angles=angles, tilt_axis=tilt_axis, keep_deg=keep_deg, repeats=repeats, exclude=exclude or None
        )
        return _volume(opened, window, pixel_size_nm, background, fill)
    if source is None:
        opening.refuse_angles(opened.path, opened.images)
    choice = choosing.chosen(
        source.angles_deg, files=images, order=images.said.order, repeats=repeats, keep_deg=keep_deg,
        exclude=exclude, who=_WHO,
    )  # fmt: skip
    looked_at = [one.images[0] for one in choice.projections]
    empty = background_room.value_of_all(images, looked_at, window.lines, window.columns)
    if empty is not None and all(
        one is None for one in (tilt_axis, images.said.tilt_axis_deg, beside.said.tilt_axis_deg)
    ):
        got = f"{opened.path}, whose images are empty: all pixels that were looked at are {empty:g}"
        refuse(_WHO, needs="images that show something", got=got, remedy="check the files, or other ones")
    axis, axis_place = _axis(images, beside.said, tilt_axis, choice, window)
    placed = orientation.of_images(axis, first_line=images.first_line, tilt_sign=tilt_sign, who=_WHO)
    projections = _signed(choice.projections, placed.angle_sign)
    counts, counts_text = _background(
        background,
        images,
        [one.images[0] for one in projections],
        window,
        contrast,
        sums=max(len(one.images) for one in projections),
    )
    bright = counts if contrast == "bright-field" else None
    pixel, units, pixel_place = _pixel(images.said, beside.said, pixel_size_nm)
    angles_deg = np.array([one.angle_deg for one in projections])
    schema.check_angles(angles_deg, who=_WHO)
    arranged = assembling.Arranged(
        images,
        tuple(one.images for one in projections),
        any(one.together == "mean" for one in projections),
        window,
        placed,
        counts if bright is None else 0.0,
        fill,
        bright,
    )
    said = _of_all(images.said, beside.said)
    found = {
        **({} if empty is None else {"warning": f"all images are empty: the pixels looked at are {empty:g}"}),
        "format": opened.kind.title,
        "files": _files(opened),
        "pixels": f"{images.dtype}, {images.shape[2]} x {images.shape[1]} in each of {images.shape[0]} images",
        "angles": f"{angles_deg.size}, {angles_deg[0]:g}° to {angles_deg[-1]:g}°, from {source.place}",
        "tilt_axis": f"{_direction(axis)}, {axis_place}",
        "pixel_size": pixel_place,
        "background": counts_text,
        "order": f"from {said.places['order']}" if said.order is not None else "that of the file",
    }
    attrs: dict[str, Any] = {}
    if placed.remaining_deg or not axis_place.startswith(_ALIGNED):
        attrs["tilt_axis_deg"] = float(placed.remaining_deg)
    for name in _KEPT:
        if (value := getattr(said, name)) is not None:
            attrs[name] = value
    if any(notes := [*choice.notes, *beside.notes]):
        found["notes"] = "; ".join(notes)
    attrs["found"] = {key: printable(text) for key, text in found.items()}
    return assembling.series(
        arranged,
        projections,
        pixel_size=pixel,
        units=units,
        attrs=attrs,
        beside=_coordinates(projections, said),
        recipe=read_recipes.of_series(arranged, angles_deg, byte_kind),
    )


def _volume(
    opened: Opened, window: Window, pixel_size_nm: float | None, background: Counts, fill: float | None
) -> xr.DataArray:
    images, said = opened.images, opened.images.said
    own = opened.kind.read_volume.__func__ is not Format.read_volume.__func__  # type: ignore[attr-defined]
    is_plain = window.is_whole(images) and pixel_size_nm is None and fill is None and background in ("auto", "none", 0)
    if own and is_plain and len(images.sources) == 1:
        return opened.kind.read_volume(Path(images.sources[0].path))
    counts = 0.0 if background in ("auto", "none") else float(background)
    pixel, units, _ = _pixel(said, Said(), pixel_size_nm)
    if images.shape[0] < window.bin:
        refuse(_WHO, needs=f"at least {window.bin} slices", got=f"{images.shape[0]}", remedy="a lower `bin`")
    attrs = {name: value for name in _KEPT if (value := getattr(said, name)) is not None}
    stacked = assembling.Stacked(images, window, counts, fill)
    return assembling.volume(
        stacked, pixel_size=pixel, units=units, attrs=attrs, recipe=read_recipes.of_volume(stacked)
    )


def _axis(
    images: Images, beside: Said, given: TiltAxis | None, choice: choosing.Choice, window: Window
) -> tuple[TiltAxis, str]:
    """The direction of the tilt axis in the images, and where that is from."""
    if given is not None:
        return given, "as given"
    for said in (images.said, beside):
        if said.tilt_axis_deg is not None:
            return float(said.tilt_axis_deg), f"from {said.places.get('tilt_axis_deg', 'the file')}"
    found = axis_of_images.found(images, choice.projections, window)
    if found.axis is None:
        refuse(
            _WHO,
            needs="the direction of the tilt axis in the images",
            got=f"none in the metadata, and images that do not show it ({found})",
            remedy="`tilt_axis=y` where it is vertical, `tilt_axis=x` where it is horizontal, or degrees",
        )
    return found.axis, f"by the images ({found}); `tilt_axis` decides otherwise".replace("`tilt_axis`", "--tilt-axis")


def _files(opened: Opened) -> str:
    """The names of the files that are read."""
    names = list(dict.fromkeys(Path(source.path).name for source in opened.images.sources))
    if len(names) == 1 or (opened.path.is_dir() and not folders.images_in(opened.path)):
        return opened.path.name if opened.path.is_dir() == (len(names) > 1) else names[0]
    return ", ".join(names) if len(names) <= _MOST_NAMES else f"{len(names)}, {names[0]} to {names[-1]}"


def _direction(axis: TiltAxis) -> str:
    if isinstance(axis, str):
        return f"along {axis} of the images"
    return f"{axis:g}° from the vertical of the images"


def _signed(projections: Sequence[choosing.Projection], sign: int) -> tuple[choosing.Projection, ...]:
    if sign == 1:
        return tuple(projections)
    return tuple(replace(one, angle_deg=-one.angle_deg + 0.0) for one in reversed(projections))


def _background(
    wanted: Counts, images: Images, chosen: Sequence[int], window: Window, contrast: Contrast, *, sums: int
) -> tuple[float, str]:
    """Counts to be subtracted, or of the bright background, and what that is in words."""
    if contrast not in get_args(Contrast):
        needs, got = 'a contrast "as-is" or "bright-field"', f"{contrast!r}"
        refuse(_WHO, needs=needs, got=got, remedy="`contrast=bright-field`")
    is_bright = contrast == "bright-field"
    if wanted == "none" and not is_bright:
        return 0.0, "nothing subtracted, as given"
    if wanted == "auto" and not is_bright and images.said.places.get("tilt_axis_deg", "").startswith(_OURS):
        return 0.0, "nothing subtracted from what nntomo has written"
    if wanted not in ("auto", "none"):
        counts, text = float(wanted), "as given"
        if is_bright and counts <= 0:
            refuse(_WHO, needs="bright counts above zero", got=f"{counts:g}", remedy="`background=auto`")
    else:
        found = background_room.found(images, chosen, window.lines, window.columns)
        if not is_bright:
            each = ", from each image" if sums > 1 and found.counts else ""
            return found.counts, f"{found}{each}"
        if wanted == "none" or found.kind != "bright field" or found.counts_of_most <= 0:
            got = "`background=none`" if wanted == "none" else f"images from {found.low:g} to {found.high:g} counts"
            needs = "the bright level beside the specimen for bright field"
            refuse(_WHO, needs=needs, got=got, remedy="`background=1000`, the counts without a specimen")
        counts, text = found.counts_of_most, "the most frequent value"
    if is_bright:
        return counts, f"ln({counts:g} / counts), where {counts:g} is without a specimen, {text}"
    return counts, f"{counts:g} counts subtracted, {text}"


def _pixel(said: Said, beside: Said, given: float | None) -> tuple[float, schema.Units, str]:
    """The pixel size, its unit, and where it is from."""
    if given is not None:
        return float(given), "nm", f"{given:g} nm, as given"
    for one in (said, beside):
        if one.pixel_nm is not None and np.isfinite(one.pixel_nm) and one.pixel_nm > 0:
            return float(one.pixel_nm), "nm", f"{one.pixel_nm:g} nm, from {one.places.get('pixel_nm', 'the file')}"
    return 1.0, "px", "unknown, so lengths are in pixels; --pixel-size gives it"


def _of_all(said: Said, beside: Said) -> Said:
    """What the images say, and what lies beside them where they say nothing."""
    values: dict[str, Any] = {}
    places = dict(beside.places) | dict(said.places)
    for name in Said.__dataclass_fields__:
        if name != "places":
            own = getattr(said, name)
            values[name] = getattr(beside, name) if own is None else own
    return Said(**values, places=places)


def _coordinates(projections: Sequence[choosing.Projection], said: Said) -> dict[str, Any]:
    """Order of acquisition, exposure and dose of each projection."""
    found: dict[str, Any] = {"order": np.array([one.order for one in projections], np.int64)}
    for name in _ALONG:
        values = getattr(said, name)
        if values is not None:
            each = np.asarray(values, np.float64)
            parts = [(each[list(one.images)], one.together) for one in projections]
            found[name] = np.array([part.mean() if together == "mean" else part.sum() for part, together in parts])
    return found


def _check_numbers(pixel_size_nm: Any, background: Any, fill: Any) -> None:
    if pixel_size_nm is not None and not (_is_number(pixel_size_nm) and pixel_size_nm > 0):
        got = f"`pixel_size_nm={pixel_size_nm!r}`"
        refuse(_WHO, needs="a pixel size above zero", got=got, remedy="`pixel_size_nm=1.5`, in nm")
    if not (background in ("auto", "none") or _is_number(background)):
        refuse(
            _WHO,
            needs='a background that is a number, "auto" or "none"',
            got=f"{background!r}",
            remedy="`background=auto`",
        )
    if fill is not None and not _is_number(fill):
        refuse(_WHO, needs="a finite value to fill with", got=f"{fill!r}", remedy="`fill=0`")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def _check_unused(kind: Kind | None, **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            got = "a volume, as `kind=volume` says" if kind == "volume" else "a volume, as the file says"
            refuse(
                _WHO,
                needs=f"a tilt series for `{name}`",
                got=got,
                remedy=f"leave out either `{name}` or `kind=volume`"
                if kind == "volume"
                else f"leave out `{name}`, or `kind=series` if it is a series",
            )
