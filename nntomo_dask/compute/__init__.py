"""Where the work is done, and with how much memory: devices, GPU streams, BLAS threads, memory plans, Dask clusters.

This is the lowest layer. It works on plain arrays and numbers and knows nothing about tomography.
"""
