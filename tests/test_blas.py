import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from nntomo_dask.compute import blas


@pytest.fixture(autouse=True)
def two_threads():
    """Two threads of BLAS, so that a limit shows on any machine and beside other tests."""
    with threadpool_limits(2, "blas"):
        assert threads() == {2}
        yield


def threads():
    return {entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"}


def limited(_=None):
    with blas.one_thread():
        return threads()


def test_every_thread_can_limit_and_lift():
    before = threads()
    assert limited() == {1}
    with ThreadPoolExecutor(1) as pool:
        assert list(pool.map(limited, range(3))) == [{1}] * 3
    assert threads() == before
    assert limited() == {1}
    assert threads() == before


def test_contexts_of_several_threads_overlap():
    """Begun here, ended elsewhere: the limit stays as long as anybody needs it."""
    before = threads()
    entered, leave = threading.Event(), threading.Event()

    def stays():
        with blas.one_thread():
            entered.set()
            leave.wait(10)
            return threads()

    with ThreadPoolExecutor(1) as pool:
        with blas.one_thread():
            staying = pool.submit(stays)
            assert entered.wait(10)
        assert threads() == {1}
        leave.set()
        assert staying.result() == {1}
    assert threads() == before


def test_a_product_has_the_same_bits_in_any_thread(rng):
    left = (rng.random((120, 9)) + 1j).astype(np.complex64)
    right = (rng.random((9, 120)) + 1j).astype(np.complex64)

    def product(_):
        with blas.one_thread():
            return left @ right

    expected = product(0)
    with ThreadPoolExecutor(2) as pool:
        for got in pool.map(product, range(20)):
            np.testing.assert_array_equal(got, expected)
