"""Tilt angles in the kinds of text that microscopes and programs write."""

import numpy as np
import pytest

import nntomo_dask as nt

ANGLES = np.linspace(-60, 60, 9)
LINES = [f"{angle:.2f}" for angle in ANGLES]


def mdoc(order, *, key="TiltAngle = ", end="\n"):
    head = ["PixelSpacing = 10", "", "[T = SerialEM]"]
    for z in order:
        head += [f"[ZValue = {z}]", f"{key}{ANGLES[z]:.3f}", "StagePosition = 0 0", ""]
    return end.join(head)


RIGHT = {
    "windows.rawtlt": "\r\n".join(LINES) + "\r\n\r\n  \r\n",
    "bom.rawtlt": "\ufeff" + "\n".join(LINES),
    "one_line.tlt": ", ".join(LINES),
    "decimal_comma.tlt": "\n".join(line.replace(".", ",") for line in LINES),
    "numbered.tlt": "\n".join(f"{k} {line}" for k, line in enumerate(LINES)),
    "numbered_from_one.csv": "\n".join(f"{k + 1},{line}" for k, line in enumerate(LINES)),
    "numbered_whole_degrees.csv": "\n".join(f"{k},{angle:.0f}" for k, angle in enumerate(ANGLES)),
    "with_dose.rawtlt": "\n".join(f"{line}  {3.0 * k:.2f}" for k, line in enumerate(LINES)),
    "with_dose_of_each.rawtlt": "\n".join(f"{line}  3.0" for line in LINES),
    "comment.tlt": "# tilt angles\n" + "\n".join(LINES),
    "comment_behind.tlt": "\n".join(line + " # bad" if k == 3 else line for k, line in enumerate(LINES)),
    "names.csv": "angle dose\n" + "\n".join(f"{line} 3" for line in LINES),
    "degrees.tlt": "\n".join(line + "°" for line in LINES),
    "aretomo.aln": "# AreTomo Alignment\n# SEC ROT GMAG TILT\n"
    + "\n".join(f"{k} -85.0 1.0 {line}" for k, line in enumerate(LINES)),
    "sections.mdoc": mdoc(range(9)),
    "capitals.MDOC": mdoc(range(9), end="\r\n"),
    "no_suffix.txt": mdoc(range(9), key="TiltAngle="),
    "order_of_recording.mdoc": mdoc([4, 5, 3, 6, 2, 7, 1, 8, 0]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_angles_are_read(tmp_path, name):
    (tmp_path / name).write_text(RIGHT[name], encoding="utf-8")
    np.testing.assert_allclose(nt.read_tilt_angles(tmp_path / name), ANGLES, atol=0.005)


WRONG = {
    "a word": ("\n".join(["x", *LINES, "x"]), "'x'"),
    "an underscore": ("\n".join(["-6_0", *LINES[1:]]), "'-6_0'"),
    "radians": ("\n".join(f"{angle:.5f}" for angle in np.deg2rad(ANGLES)), "look like radians"),
    "three columns": ("\n".join(f"{line} 1 2" for line in LINES), "3 columns"),
    "numbers or doses": ("\n".join(f"{k} {15.0 * k}" for k in range(9)), "not clear which"),
    "two angles a line": ("\n".join(f"{line} {line}" for line in LINES), "not clear which"),
    "uneven lines": ("\n".join([*LINES, "70 3"]), "lines of 1 and of 2"),
    "nothing": ("# none\n", "at least one angle"),
    "XML": ("<x/>", "'<x/>'"),
    "not a number first": ("\n".join(["nan", *LINES[1:]]), "'nan'"),
    "an image twice": (mdoc([0, 1, 2, 2]), "ZValue = 2 twice"),
    "a section without an angle": (mdoc(range(3)) + "\n[ZValue = 3]\nDefocus = 0\n", "0 of ZValue = 3"),
    "not a number in a section": (mdoc(range(3)).replace("-60.000", "nought"), "'nought'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_clear_is_refused(tmp_path, case):
    text, message = WRONG[case]
    (tmp_path / "a.tlt").write_text(text)
    with pytest.raises(nt.SchemaError, match=message):
        nt.read_tilt_angles(tmp_path / "a.tlt")


def test_small_angles_of_a_pair_are_degrees(tmp_path):
    """Two angles may be a stereo pair of a degree."""
    (tmp_path / "a.tlt").write_text("-0.5\n0.5\n")
    np.testing.assert_array_equal(nt.read_tilt_angles(tmp_path / "a.tlt"), [-0.5, 0.5])
