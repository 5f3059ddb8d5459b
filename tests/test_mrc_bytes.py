"""Bytes in MRC files, signed or not."""

import struct
import warnings

import mrcfile
import numpy as np
import pytest

import nntomo_dask as nt

ANGLES = np.linspace(-60, 60, 9)
Y, X = np.mgrid[:20, :24]
IMOD = 1146047817


@pytest.fixture
def counts(rng):
    """(angle, y, x), whole numbers from 0 to 219: a bright body on a dark background."""
    body = [200 * np.exp(-((X - 11.5 - 5 * shift) ** 2 + (Y - 9.5) ** 2) / 20) for shift in np.linspace(-1, 1, 9)]
    return np.rint(np.stack(body) + rng.integers(0, 20, (9, 20, 24)))


def written(path, values, flags=None):
    with mrcfile.new(path) as mrc:
        mrc.set_data(values.view(np.int8))
    raw = bytearray(path.read_bytes())
    if flags is not None:
        raw[152:160] = struct.pack("<2i", IMOD, flags)
    path.write_bytes(bytes(raw))
    return path


def read(path):
    return nt.read_mrc_series(path, ANGLES).values.transpose(1, 0, 2)


@pytest.mark.parametrize("signed", [False, True])
def test_flags_of_imod_decide(tmp_path, counts, signed):
    values = (counts - 100).astype(np.int8) if signed else counts.astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read(written(tmp_path / "a.mrc", values, flags=int(signed)))
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("signed", [False, True])
def test_without_flags_the_image_decides(tmp_path, counts, signed):
    values = (counts - 100).astype(np.int8) if signed else counts.astype(np.uint8)
    with pytest.warns(UserWarning, match=f"; {'signed' if signed else 'unsigned'} ones are taken"):
        found = read(written(tmp_path / "a.mrc", values))
    np.testing.assert_array_equal(found, values)


def test_small_counts_are_the_same_either_way(tmp_path, counts):
    values = (counts / 2).astype(np.uint8)
    np.testing.assert_array_equal(read(written(tmp_path / "a.mrc", values)), values)
