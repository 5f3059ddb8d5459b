"""CUDA kernels as a shared library for the CPU, launched as CuPy launches them."""

import ctypes
import hashlib
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np

COMPILER = shutil.which("g++")
SHIM = Path(__file__).with_name("shim.h")
# As nvcc's --fmad=false no multiplication and addition are fused; an index out of an array of known size traps.
# Calls go to the library's own kernels, also where the C library has a function of that name (`step`).
WARNINGS = ["-Wall", "-Wno-unknown-pragmas", "-Wno-unused-function"]
FLAGS = [
    *("-std=c++17", "-O1", "-fPIC", "-shared", "-Wl,-Bsymbolic", "-ffp-contract=off", "-U_FORTIFY_SOURCE", *WARNINGS),
    *("-fsanitize=bounds", "-fsanitize-undefined-trap-on-error"),
]
LOCK = threading.Lock()  # the shim runs one kernel at a time
KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(')


class KernelError(RuntimeError):
    """A kernel did what would be undefined on a GPU."""


class Module:
    """As ``cupy.RawModule``: the kernels of one source, compiled with some options."""

    def __init__(self, code, options, folder):
        macros = [option for option in options if option.startswith("-D")]
        assert set(options) - set(macros) == {"--fmad=false"}
        names = KERNEL.findall(code)
        assert len(names) == code.count("__global__")
        launchers = "".join(
            f'extern "C" int launch_{name}(const unsigned* sizes, void** arguments)'
            f"{{ return shim::launch({name}, sizes, arguments); }}\n"
            f'extern "C" const char* signature_{name}() {{ return shim::signature({name}); }}\n'
            for name in names
        )
        stem = hashlib.sha256(repr((code, options)).encode()).hexdigest()[:16]
        source, library = folder / f"{stem}.cpp", folder / f"{stem}.so"
        source.write_text(f'#include "{SHIM}"\n{code}\n{launchers}')
        built = subprocess.run(
            [COMPILER, *FLAGS, *macros, str(source), "-o", str(library)], capture_output=True, text=True, check=False
        )
        assert built.returncode == 0, built.stderr
        assert not built.stderr, built.stderr
        self.library = ctypes.CDLL(str(library))
        self.library.shim_message.restype = ctypes.c_char_p
        self.library.guarded_new.restype = ctypes.c_void_p
        self.launches = 0

    def get_function(self, name):
        """As ``cupy.RawModule.get_function``."""
        launch = getattr(self.library, f"launch_{name}")
        describe = getattr(self.library, f"signature_{name}")
        describe.restype = ctypes.c_char_p
        wanted = re.findall("P?.", describe().decode())

        def function(grid, block, args, *, shared_mem=0):
            assert shared_mem == 0
            assert [self._kind(value) for value in args] == wanted, f"{name} takes {wanted}"
            sizes = np.ones(6, np.uint32)
            sizes[: len(grid)], sizes[3 : 3 + len(block)] = grid, block
            assert sizes.all(), f"{name}: a launch of nothing, {grid} × {block}"
            assert sizes[3:].prod() <= 1024, f"{name}: more than 1024 threads a block"
            assert (sizes[1:3] < 2**16).all(), f"{name}: a grid larger than a GPU takes"
            self.launches += 1
            with LOCK:
                self._run(name, launch, sizes, args)

        return function

    def _kind(self, value):
        kind = value.dtype.char.replace("l", "q")
        if isinstance(value, np.generic):
            return kind
        assert type(value).__module__ == "cupy", "an array in host memory"
        assert value.flags.c_contiguous
        return f"P{kind}"

    def _run(self, name, launch, sizes, args):
        guarded, pointers, keep = [], [], []
        for value in args:
            if isinstance(value, np.generic):
                keep.append(np.array([value]))
                pointers.append(keep[-1].ctypes.data)
                continue
            before = ctypes.c_size_t()
            address = self.library.guarded_new(ctypes.c_size_t(value.nbytes), ctypes.byref(before))
            assert address
            ctypes.memmove(address, value.ctypes.data, value.nbytes)
            guarded.append((value, address, before.value))
            keep.append(ctypes.c_void_p(address))
            pointers.append(ctypes.addressof(keep[-1]))
        try:
            status = launch(sizes.ctypes.data_as(ctypes.c_void_p), (ctypes.c_void_p * len(pointers))(*pointers))
            if status:
                reason = self.library.shim_message().decode()
                raise KernelError(f"{name}: {'barrier not met by all' if status == 1 else 'out of bounds'}: {reason}")
            for value, address, before in guarded:
                if ctypes.string_at(address - before, before) != b"\xff" * before:
                    raise KernelError(f"{name}: wrote before an array")
                ctypes.memmove(value.ctypes.data, address, value.nbytes)
        finally:
            for value, address, _ in guarded:
                self.library.guarded_free(ctypes.c_void_p(address), ctypes.c_size_t(value.nbytes))
