"""Stacks, headers and texts that are damaged or crafted: refused in our form or read in the right shape, and soon."""

import gzip
import shutil
import struct
import tracemalloc
import warnings

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import nntomo_dask as nt
from nntomo_dask.errors import SchemaError
from nntomo_dask.formats import fei_log, mdoc, mrc_extended, mrc_header
from nntomo_dask.formats.angle_text import angles_in

SHAPE = (5, 6, 8)
ANGLES = (-60.0, -30.0, 0.0, 30.0, 60.0)
MOST_BYTES = 20_000_000  # a file has 2 kB; what is imported and compiled at the first read is not counted
HYPOTHESIS = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
KINDS = ("plain", "old FEI", "SERI", "FEI1", "packed")

numbers = st.integers(0, 2**31 - 1)
# Places in a header that say how large something is, of which kind, or where.
places = st.sampled_from([0, 4, 8, 12, 28, 32, 36, 40, 88, 92, 104, 128, 152, 208, 212, 220, 224])
values = st.one_of(
    st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31), 2**24, 2**26, 16, 101, 65536, 0x7FC00000]), st.integers(-9, 9)
)
texts = st.text(st.sampled_from("0123456789.-+eE,;# \t\r\n[]=abcZVT°\ufeff\0"), max_size=200)
WORDS = """[ZValue = 0]|[ZValue = 1]|[ZValue = 99999999999]|[FrameSet = 0]|TiltAngle = 3|TiltAngle = 1e99|TiltAngle = x
[T = Tilt axis angle = -90.0, b]|PixelSpacing = nan|PixelSpacing = 0|Voltage = 1e400|DateTime = 99-Foo-99 99:99:99
DateTime = 31-Mar-23  16:24:15|SubFramePath = ..\\..|ImageFile = /|RotationAngle = 1e9|ExposureDose = -1|ImageSize = 8 6
= 3|[|]"""
lines = st.lists(st.sampled_from(WORDS.replace("\n", "|").split("|")), max_size=30)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A stack of each kind in a folder of its own."""
    rng = np.random.default_rng(0)
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("kind")
        with mrcfile.new(folder / "a.mrc") as mrc:
            mrc.set_data(rng.integers(0, 100, SHAPE).astype(np.int16))
            mrc.voxel_size = 10
            mrc.add_label("Tilt axis angle = 0.0, binning = 1")
        raw = bytearray((folder / "a.mrc").read_bytes())
        extended, words, name = b"", (0, 0), b""
        if kind == "old FEI":
            table = np.zeros((1024, 32), np.float32)
            table[:5, 0] = ANGLES
            extended = table.tobytes()
        elif kind == "SERI":
            extended = b"".join(struct.pack("<h", int(100 * angle)) for angle in ANGLES)
            words, name = (2, 1), b"SERI"
        elif kind == "FEI1":
            table = np.zeros(5, mrcfile.dtypes.get_ext_header_dtype(b"FEI1"))
            table["Alpha tilt"], table["Metadata size"] = ANGLES, 768
            extended, name = table.tobytes(), b"FEI1"
        else:
            (folder / "a.rawtlt").write_text("".join(f"{angle}\n" for angle in ANGLES))
        raw[92:96], raw[128:132] = struct.pack("<i", len(extended)), struct.pack("<2h", *words)
        raw[104 : 104 + len(name)] = name
        content = bytes(raw[:1024]) + extended + bytes(raw[1024:])
        (folder / "a.mrc").unlink()
        path = folder / ("a.mrc.gz" if kind == "packed" else "a.mrc")
        path.write_bytes(gzip.compress(content) if kind == "packed" else content)
        made[kind] = path
        nt.read(path).compute()  # imports and caches, before memory is counted
    return made


def is_read_or_refused(path):
    """Whether a file gives our error or a series, in little memory."""
    refusal = ""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            series = nt.read(path, unpack_to=path.parent)
            assert series.dims == ("z", "angle", "detector")
            if series.size < 10 * np.prod(SHAPE):
                series.compute()
    except SchemaError as caught:
        refusal = str(caught)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MOST_BYTES
    assert not refusal or (refusal.isprintable() and "; got " in refusal and "; try: " in refusal)


@given(kind=st.sampled_from(KINDS), changes=st.lists(st.tuples(places, values), min_size=1, max_size=3))
@HYPOTHESIS
def test_crafted_headers(originals, tmp_path, kind, changes):
    raw = bytearray(_content(originals[kind]))
    for place, value in changes:
        raw[place : place + 4] = struct.pack("<i", value)
    is_read_or_refused(_copied(originals[kind], tmp_path, bytes(raw)))


@given(kind=st.sampled_from(KINDS), flips=st.lists(numbers, min_size=1, max_size=20), cut=st.one_of(st.none(), numbers))
@HYPOTHESIS
def test_flipped_bits_and_cuts(originals, tmp_path, kind, flips, cut):
    """Of the headers, and of packed files anywhere."""
    path = originals[kind]
    raw = bytearray(path.read_bytes())
    most = len(raw) if kind == "packed" else len(raw) - 2 * int(np.prod(SHAPE))
    for flip in flips:
        raw[flip // 8 % most] ^= 1 << flip % 8
    content = bytes(raw) if cut is None else bytes(raw[: cut % (len(raw) + 1)])
    is_read_or_refused(_copied(path, tmp_path, content, packed=True))


@given(text=st.one_of(texts, lines.map("\n".join)), name=st.sampled_from(["a.rawtlt", "a.mdoc", "a.txt", "a.csv"]))
@HYPOTHESIS
def test_texts_beside(originals, tmp_path, text, name):
    path = _copied(originals["SERI"], tmp_path, originals["SERI"].read_bytes())
    path.with_name(name).write_bytes(text.encode())
    is_read_or_refused(path)


@given(text=st.one_of(texts, lines.map("\n".join), st.binary(max_size=300).map(lambda raw: raw.decode("latin-1"))))
@HYPOTHESIS
def test_texts_alone(tmp_path, text):
    (tmp_path / "a.mdoc").write_bytes(text.encode())
    fei_log.read(tmp_path / "a.mdoc")
    for reader in (lambda: mdoc.read(tmp_path / "a.mdoc").said(), lambda: angles_in(text, "a.mdoc")):
        try:
            reader()
        except SchemaError:
            continue


@given(raw=st.binary(max_size=4000), kind=st.sampled_from(["FEI1", "FEI2", "SERI", "AGAR", ""]), data=st.data())
@HYPOTHESIS
def test_extended_headers_of_anything(tmp_path, raw, kind, data):
    """What is said is finite, and of as many images."""
    words = data.draw(st.tuples(st.integers(-(2**15), 2**15 - 1), st.integers(-(2**15), 2**15 - 1)))
    header = mrc_header.Header(
        "<",
        8,
        6,
        5,
        1,
        (8, 6, 5),
        (8.0, 6.0, 5.0),
        len(raw),
        kind,
        words,
        0,
        None,
        data.draw(st.just(("Fei Company",))),
    )
    (tmp_path / "a").write_bytes(bytes(1024) + raw)
    said = mrc_extended.said(tmp_path / "a", header)
    for name in ("angles_deg", "exposure_s", "dose_e_per_a2"):
        found = getattr(said, name)
        assert found is None or (len(found) == 5 and np.isfinite(found).all())
    for name in ("tilt_axis_deg", "pixel_nm", "voltage_kv", "magnification"):
        assert getattr(said, name) is None or np.isfinite(getattr(said, name))


def _content(path):
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _copied(original, folder, content, *, packed=False):
    """The folder of an original with other content of the stack."""
    place = folder / "copy"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(original.parent, place)
    path = place / original.name
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" and not packed else content)
    return path
