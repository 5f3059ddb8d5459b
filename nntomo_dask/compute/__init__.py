"""Where work is done and with how much memory: devices, GPU streams, BLAS threads, memory budgets, Dask clusters.

The lowest layer: it works on plain arrays and on numbers, and knows nothing of tomography.
"""
