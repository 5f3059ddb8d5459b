"""The inner loops, on plain arrays: projection, backprojection, sampling, filtering, network layers.

Each formula has a reference implementation in NumPy, a Numba kernel, and in most cases a CUDA kernel next to it. ASTRA
and PyTorch are used only here, except that trainings use the optimiser of PyTorch.
"""
