"""The tests; what has to be settled before NumPy is imported."""

import os

# How many threads BLAS and Torch use by themselves.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# Processes of pytest-xdist share the cores, and each has its threads of Dask already.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ |= dict.fromkeys(THREADS, "1")
