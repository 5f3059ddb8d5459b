"""Tables of alignments as files: what is written comes back, people may edit it, and all else is refused."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import nntomo_dask as nt

ANGLES = np.array([-60.0, 1 / 3, 59.97, -0.1])
TABLE = nt.Alignment(
    angles_deg=ANGLES,
    along_px=np.array([1.1, -2e-7, 0, 7 / 9]),
    across_px=np.array([0.1 + 0.2, 1e5, -3, 0]),
    rotation_deg=np.array([2.5, 2.5, -1 / 7, 0]),
    correction_deg=np.array([0, 0.125, 0, -0.1]),
    flagged=np.array([False, True, False, True]),
    axis_px=-12.3456789012345,
    provenance={"steps": [{"step": "coarse", "note": 'a "quoted, text", with ; and ü'}], "seconds": 1.5},
    pixel_size=0.27,
    units="nm",
)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".txt"])
@pytest.mark.parametrize("table", [TABLE, nt.Alignment.identity([0.0])], ids=["full", "least"])
def test_a_table_comes_back_exactly(tmp_path, suffix, table):
    written = nt.write_alignment(table, tmp_path / f"table{suffix}")
    assert nt.read_alignment(written).is_same(table)


def spreadsheet(text, delimiter=",", *, decimal="."):
    """A table as a spreadsheet writes it: cells quoted where needed, lines of one length, CRLF, a BOM."""
    rows = list(csv.reader(io.StringIO(text)))
    width = max(map(len, rows))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
    for row in rows:
        cells = [
            cell if cell.startswith("#") or row[0][:1] not in "-0123456789" else cell.replace(".", decimal)
            for cell in row
        ]
        if row[0] in ("axis_px", "pixel_size"):
            cells[1] = cells[1].replace(".", decimal)
        writer.writerow([*cells, *[""] * (width - len(cells))])
    return "\ufeff" + out.getvalue()


@pytest.mark.parametrize(("delimiter", "decimal"), [(",", "."), (";", ","), ("\t", "."), ("\t", ",")])
def test_a_table_survives_a_spreadsheet(tmp_path, delimiter, decimal):
    path = nt.write_alignment(TABLE, tmp_path / "table.csv")
    path.write_text(spreadsheet(path.read_text(), delimiter, decimal=decimal), encoding="utf-8", newline="")
    read = nt.read_alignment(path)
    assert read.digest() == TABLE.digest()
    if delimiter == ",":
        assert read.is_same(TABLE)


def test_rows_may_be_sorted_and_comments_removed(tmp_path):
    lines = nt.write_alignment(TABLE, tmp_path / "table.csv").read_text().splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("angle_deg"))
    text = "\n".join([*(line for line in lines[:head] if line[0] != "#"), lines[head], *sorted(lines[head + 1 :])])
    (tmp_path / "sorted.csv").write_text(text.replace(",1\n", ",yes\n").replace(",0\n", ",\n"))
    read = nt.read_alignment(tmp_path / "sorted.csv").of(ANGLES)
    assert read.digest() == TABLE.digest()


def test_the_comments_name_every_column(tmp_path):
    text = nt.write_alignment(TABLE, tmp_path / "table.csv").read_text()
    head = next(line for line in text.splitlines() if line.startswith("angle_deg"))
    for name in (*head.split(","), "axis_px", "pixel_size", "units"):
        assert f"\n# {name}: " in text


CSV_FAULTS = [
    (("59.97,0.0", "59.97,nan"), "along_px is 'nan', which is no finite number"),
    (("59.97,0.0", "59.97,east"), "along_px is 'east'"),
    (("59.97,0.0", "59.97,1e300"), "none of an image"),
    (("59.97,0.0", "59.97"), "flagged is ''|a row has"),
    (("59.97,0.0", "-60,0.0"), "-60° more than once"),
    (("-12.3456789012345", "inf"), "axis_px is 'inf'"),
    (("axis_px,-12.3456789012345\n", ""), "it has no axis_px"),
    (("along_px,across_px", "along_px,along_px"), "across_px missing"),
    (("rotation_deg,correction_deg,flagged", "rotation_deg,correction_deg,flagged,mood"), "a row has|not known"),
    (("version 1", "version 7"), "it is of version 7"),
    (("units,nm", "units,miles"), "units are 'miles'"),
    ((",1\n", ",maybe\n"), "flagged is 'maybe'"),
    (('"steps"', '"steps'), "table.csv"),
]


@pytest.mark.parametrize(("change", "text"), CSV_FAULTS)
def test_faults_of_a_table_are_named(tmp_path, change, text):
    path = nt.write_alignment(TABLE, tmp_path / "table.csv")
    before = path.read_text()
    assert change[0] in before
    path.write_text(before.replace(*change))
    with pytest.raises(nt.SchemaError, match=text):
        nt.read_alignment(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"form": "other"}, "JSON of something else"),
        ({"version": 2}, "version 2"),
        ({"rows": []}, "no rows"),
        ({"rows": [1]}, "its rows are none"),
        ({"rows": [{}]}, "parts are missing"),
        ({"axis_px": True}, "axis_px is 'True'"),
        ({"axis_px": "NaN"}, "axis_px is 'NaN'"),
        ({"provenance": []}, "its provenance is none"),
    ],
)
def test_faults_of_json_are_named(tmp_path, change, text):
    path = nt.write_alignment(TABLE, tmp_path / "table.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(nt.SchemaError, match=text):
        nt.read_alignment(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no line of the names"),
        (b"1.0\n2.0\n", "no line of the names"),
        (b"angle_deg,x\n1,2\n", "missing"),
        (b"\x89PNG\r\n\x1a\n\0\0", "it is no text"),
        (b"# angle_deg\0", "it is no text"),
        (b"[" * 100_000, "no line of the names"),
        (b'{"a":' * 100_000, "table.csv"),
        (b"#" + b" " * 2**23, "some kilobytes"),
    ],
)
def test_foreign_files_are_refused(tmp_path, content, text):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(nt.SchemaError, match=text):
        nt.read_alignment(tmp_path / "table.csv")


def test_folders_and_nothing_are_refused(tmp_path):
    for path, text in ((tmp_path, "which is a folder"), (tmp_path / "absent.csv", "nothing at")):
        with pytest.raises(nt.SchemaError, match=text):
            nt.read_alignment(path)


def a_table(tmp_path_factory, suffix):
    return nt.write_alignment(TABLE, tmp_path_factory.mktemp("damage") / f"table{suffix}")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([".csv", ".json"]), st.data())
def test_damaged_tables_are_refused_or_read(tmp_path_factory, suffix, data):
    """Cut short, or with bytes replaced: our error, or a table whose rows are numbers. Nothing else is raised."""
    path = a_table(tmp_path_factory, suffix)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read = nt.read_alignment(path)
    except nt.SchemaError:
        return
    assert np.isfinite(read.displacement_px).all()
    assert np.unique(read.angles_deg).size == read.angles_deg.size


# IMOD.


def imod(tmp_path, lines, name="a.xf", angles=(-10.0, 0.0, 10.0), **others):
    (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "a.rawtlt").write_text("".join(f"{angle}\n" for angle in angles))
    return nt.read_alignment(tmp_path / name, **others)


IDENTITY = "1 0 0 1 0 0"
# The image turned counterclockwise by the angle whose cosine is 0.8 and sine 0.6, 36.8699°, then moved by 5 to the
# right and 2 down. newstack(1): X' = A11 X + A12 Y + DX, Y' = A21 X + A22 Y + DY, from the middles of the images.
TURNED = "0.8 -0.6 0.6 0.8 5 -2"


def test_imods_transforms_lead_where_its_manual_says(tmp_path):
    """By hand: the raw pixel (x, y) = (10, 0) goes to (8 + 5, 6 - 2) = (13, 4); (0, 10) goes to (-6 + 5, 8 - 2)."""
    table = imod(tmp_path, [IDENTITY, TURNED, IDENTITY])
    for raw, aligned in (((10, 0), (13, 4)), ((0, 10), (-1, 6))):
        along, across = aligned[::-1]  # z is y, the detector is x
        shift = np.array([along + table.along_px[1], across + table.across_px[1] + table.axis_px])
        turn = np.deg2rad(table.rotation_deg[1])
        place = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ shift
        np.testing.assert_allclose(place, raw[::-1], atol=1e-12)
    assert (table.along_px[1], table.across_px[1]) == (2, -5)
    # IMOD's tilt axis stands 36.87° clockwise of the vertical, -36.87°, and turning the image by +36.87° rights it.
    assert table.rotation_deg[1] == pytest.approx(np.rad2deg(np.arctan2(0.6, 0.8)))


def test_an_image_moves_as_imod_would_move_it(tmp_path):
    """A spot in a raw image lands at the pixel that the manual's formula gives."""
    table = imod(tmp_path, [IDENTITY, TURNED, IDENTITY])
    raw = np.zeros((41, 3, 41), np.float32)  # z is y from the bottom, the middle at 20
    raw[20 + 0, 1, 20 + 10] = 1
    series = nt.tilt_series(raw, [-10.0, 0, 10])
    aligned = nt.apply_alignment(series, table).values[:, 1]
    assert np.unravel_index(aligned.argmax(), aligned.shape) == (20 + 4, 20 + 13)


def test_the_tilt_axis_may_lie_along_x(tmp_path):
    """A quarter turn is what an import has done already; shifts are those of the aligned image."""
    near = f"{np.sin(0.1)} {-np.cos(0.1)} {np.cos(0.1)} {np.sin(0.1)} 3 4"  # turned by 90° less 0.1 radians
    table = imod(tmp_path, [near] * 3)
    np.testing.assert_allclose(table.rotation_deg, np.rad2deg(-0.1))
    np.testing.assert_array_equal(table.across_px, -3)
    assert table.provenance["quarter_turns"] == 1
    half = imod(tmp_path, ["-1 1e-9 -1e-9 -1 0 0", "-1 -1e-9 1e-9 -1 0 0", "-1 0 0 -1 0 0"])
    np.testing.assert_allclose(half.rotation_deg, 0, atol=1e-6)


def test_corrected_angles_come_from_tlt(tmp_path):
    (tmp_path / "a.tlt").write_text("-10.5\n0.25\n10\n")
    table = imod(tmp_path, [IDENTITY] * 3)
    np.testing.assert_allclose(table.correction_deg, [-0.5, 0.25, 0])
    assert table.provenance["corrected_angles"] == "a.tlt"
    given_angles = nt.read_alignment(tmp_path / "a.xf", angles_deg=[1, 2, 3], corrected_deg=[1, 2, 4])
    np.testing.assert_array_equal(given_angles.correction_deg, [0, 0, 1])


def test_relative_transforms_are_accumulated(tmp_path):
    """A transform f relates a view to the one before: g₁ = 1, g₂ = f₂, g₃ = g₂ f₃; then relative to the view at 0°.

    By hand, with quarter turns of R: f₂ shifts by (2, 1); f₃ turns by 90° and shifts by (0, 3). So g₂ = shift (2, 1),
    g₃ = turn and (0, 3) + (2, 1), and relative to g₂: view 1 by -(2, 1), view 3 turned and by (0, 3).
    """
    lines = [IDENTITY, "1 0 0 1 2 1", "0 -1 1 0 0 3"]
    table = imod(tmp_path, lines, "a.prexf")
    np.testing.assert_allclose(-table.across_px, [-2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(-table.along_px, [-1, 0, 3], atol=1e-12)
    np.testing.assert_allclose(table.rotation_deg, [0, 0, 90], atol=1e-12)
    again = nt.write_alignment(table, tmp_path / "b.prexf").read_text().split()
    np.testing.assert_allclose(np.array(again, float), np.array(" ".join(lines).split(), float), atol=1e-7)


@pytest.mark.parametrize("suffix", [".xf", ".xg", ".prexg", ".prexf"])
def test_what_is_written_for_imod_comes_back(tmp_path, suffix):
    """To IMOD's digits: half of 0.001 px for shifts, 5e-8 for A; what is accumulated adds up."""
    rng = np.random.default_rng(4)
    values = {name: rng.uniform(-20, 20, 9) for name in ("along_px", "across_px", "rotation_deg")}
    angles = np.linspace(-60, 60, 9)
    still = {name: np.where(angles == 0, 0, column) for name, column in values.items()}
    table = nt.Alignment.identity(angles, **still, axis_px=0.0)
    path = nt.write_alignment(table, tmp_path / f"a{suffix}")
    read = nt.read_alignment(path, angles_deg=angles)
    atol = 0.0006 * (9 if suffix == ".prexf" else 1)
    np.testing.assert_allclose(read.displacement_px, table.displacement_px, atol=atol)
    np.testing.assert_allclose(read.rotation_deg, table.rotation_deg, atol=1e-5 * (9 if suffix == ".prexf" else 1))
    widths = {len(line) for line in path.read_text().splitlines()}
    assert widths == {72}  # 4f12.7, 2f12.3


def test_the_axis_is_part_of_imods_shift(tmp_path):
    table = nt.Alignment.identity([-10.0, 0, 10], across_px=np.array([1.0, 2, 3]), axis_px=4.0)
    columns = np.loadtxt(nt.write_alignment(table, tmp_path / "a.xf"))
    np.testing.assert_array_equal(columns[:, 4], [-5, -6, -7])


@pytest.mark.parametrize(
    ("lines", "others", "text"),
    [
        (["1.01 0 0 1.01 0 0", IDENTITY, IDENTITY], {}, "a stretch of 1 % in line 1"),
        ([IDENTITY, "-1 0 0 1 0 0", IDENTITY], {}, "a stretch of -100 % in line 2"),
        ([IDENTITY, "1 0 0 1 0", IDENTITY], {}, "six numbers a line"),
        ([IDENTITY, "1 0 0 1 0 nan", IDENTITY], {}, "six numbers a line"),
        ([IDENTITY, "1 0 0 1 0 1e9", IDENTITY], {}, "six numbers a line"),
        ([IDENTITY, IDENTITY], {}, "an angle for each of the 2 lines"),
        ([], {}, "a transform for each image"),
        ([IDENTITY] * 3, {"corrected_deg": [1.0]}, "an angle for each of the 3 lines"),
        ([IDENTITY] * 3, {"stretch": "often"}, '"refuse" or "ignore"'),
    ],
)
def test_other_transforms_are_refused(tmp_path, lines, others, text):
    with pytest.raises(nt.SchemaError, match=text):
        imod(tmp_path, lines, **others)


def test_stretches_can_be_ignored(tmp_path):
    table = imod(tmp_path, ["0.808 -0.606 0.606 0.808 5 -2", IDENTITY, IDENTITY], stretch="ignore")
    assert table.rotation_deg[0] == pytest.approx(np.rad2deg(np.arctan2(0.6, 0.8)))
    assert table.provenance["largest_stretch_ignored"] == pytest.approx(0.01)


def test_angles_are_never_assumed(tmp_path):
    (tmp_path / "b.xf").write_text(f"{IDENTITY}\n")
    with pytest.raises(nt.SchemaError, match=r"got none, and no b\.rawtlt beside it"):
        nt.read_alignment(tmp_path / "b.xf")
    nt.write_alignment(TABLE, tmp_path / "t.csv")
    with pytest.raises(nt.SchemaError, match="leave angles_deg out"):
        nt.read_alignment(tmp_path / "t.csv", angles_deg=[1.0])
