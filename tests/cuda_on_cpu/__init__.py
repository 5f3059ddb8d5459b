"""The CUDA sources on a CPU: compiled as C++ with `shim.h`, behind the part of CuPy that the package uses."""
