"""The inner loops, on plain arrays: projection, backprojection, sampling, filtering, network layers.

Each formula has a NumPy reference that a reader can trust, a Numba kernel, and for most a CUDA kernel beside it.
ASTRA and PyTorch are used here and nowhere else, except that trainings use PyTorch's optimiser.
"""
