"""The CUDA sources as compilers see them, and that the shim which runs them on a CPU notices what CUDA forbids."""

import shutil
import subprocess
import types

import numpy as np
import pytest

from nntomo_dask.compute import device
from nntomo_dask.kernels import cuda
from tests.cuda_on_cpu.compiled import KernelError, Module
from tests.cuda_on_cpu.cupy import ndarray

NVCC = shutil.which("nvcc")


def network(**macros):
    """Macros of `backproject` for one network of 8 hidden nodes as it was published, or another."""
    published = {"MEMBERS": 1, "HIDDEN": 8, "SECOND": 0, "NETWORK": 1, "RELU": 1, "LINEAR": 0, "MEAN": 1, "SPREAD": 0}
    return "backproject", published | {"WARPS": 8} | macros


# Every macro that a source is compiled with somewhere.
VARIANTS = [
    network(HIDDEN=1, NETWORK=0, RELU=0),
    network(),
    network(HIDDEN=32, RELU=0, WARPS=32),
    network(MEMBERS=4),
    network(MEMBERS=4, HIDDEN=32, RELU=0, MEAN=0, SPREAD=1, WARPS=32),
    network(MEMBERS=4, SPREAD=1),
    network(HIDDEN=16, SECOND=16, LINEAR=1),
    network(MEMBERS=4, HIDDEN=16, SECOND=16, LINEAR=1, SPREAD=1),
    ("project", {"WARPS": 8}),
    ("sample", {}),
    ("iterate", {"ENTRIES": 256, "WARPS": 8}),
    ("total_variation", {"PIXELS": 256, "WARPS": 8}),
]


@pytest.mark.skipif(NVCC is None, reason="no CUDA compiler (nvcc)")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("source", "macros"), VARIANTS)
def test_nvcc_accepts_the_sources(tmp_path, source, macros, architecture):
    flags = [f"-arch={architecture}", "-cubin", "-Werror", "all-warnings", *cuda.options(**macros)]
    path = device._SOURCES / f"{source}.cu"
    built = subprocess.run(
        [NVCC, *flags, "-o", str(tmp_path / "kernel.cubin"), str(path)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "kernel.cubin").stat().st_size > 0


def test_all_sources_are_shipped_and_compiled_here():
    assert {path.stem for path in device._SOURCES.glob("*.cu")} == {source for source, _ in VARIANTS}


KERNEL = """
extern "C" __global__ void __launch_bounds__(8) kernel(const float* __restrict__ source, int shift, float* target)
{
    __shared__ float all[8];
    const int thread = threadIdx.x;
    (void)all;
    BODY
}
"""
REVERSE = "all[thread] = source[thread]; __syncthreads(); target[thread] = all[7 - thread];"


def run(folder, body, *, shift=0, n=8):
    module = Module(KERNEL.replace("BODY", body), ("--fmad=false",), folder)
    source, target = np.arange(8, dtype=np.float32).view(ndarray), np.zeros(n, np.float32).view(ndarray)
    module.get_function("kernel")((1,), (8,), (source, np.int32(shift), target))
    return np.asarray(target).view(np.ndarray)


def test_threads_of_a_block_work_together(compiled_for_cpu):
    np.testing.assert_array_equal(run(compiled_for_cpu[0], REVERSE), np.arange(8)[::-1])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("target[thread] = source[thread + 1];", "kernel: out of bounds"),
        ("target[thread + 1] = source[thread];", "kernel: out of bounds"),
        ("target[thread - 1] = source[thread];", "kernel: wrote before an array"),
        ("target[thread - 5000] = source[thread];", "kernel: out of bounds"),
        ("all[thread + 1 + shift] = 1; target[thread] = all[thread];", "kernel: out of bounds"),
        ("if (thread < 4) {\n __syncthreads(); }", "kernel: barrier not met by all"),
        ("if (thread) { __syncthreads(); } else {\n __syncthreads(); }", "kernel: barrier not met by all"),
    ],
)
def test_what_cuda_forbids_is_noticed(compiled_for_cpu, body, message):
    with pytest.raises(KernelError, match=message):
        run(compiled_for_cpu[0], body)


@pytest.mark.parametrize(
    "body",
    [
        REVERSE.replace("__syncthreads();", ""),
        "target[thread] = all[thread];",
        "target[thread] = source[thread - 1];",
    ],
)
def test_what_was_not_written_is_nan(compiled_for_cpu, body):
    assert np.isnan(run(compiled_for_cpu[0], body)).any()


def test_a_missing_barrier_before_memory_is_used_again_is_noticed(compiled_for_cpu):
    twice = """
    for (int i = 0; i < 2; i++) {
        all[thread] = source[thread] + i;
        __syncthreads();
        target[thread] += all[7 - thread];
        END
    }"""
    right = run(compiled_for_cpu[0], twice.replace("END", "__syncthreads();"))
    assert not np.array_equal(run(compiled_for_cpu[0], twice.replace("END", "")), right)


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros(8, np.float32), np.int32(0), np.zeros(8).view(ndarray)),
        (np.zeros(8, np.float32).view(ndarray), np.int64(0), np.zeros(8, np.float32).view(ndarray)),
        (np.zeros(8).view(ndarray), np.int32(0), np.zeros(8, np.float32).view(ndarray)),
        (np.zeros(8, np.float32).view(ndarray), np.int32(0)),
    ],
)
def test_arguments_of_another_type_are_refused(compiled_for_cpu, arguments):
    module = Module(KERNEL.replace("BODY", REVERSE), ("--fmad=false",), compiled_for_cpu[0])
    with pytest.raises(AssertionError):
        module.get_function("kernel")((1,), (8,), arguments)


def test_host_and_gpu_arrays_do_not_mix(cuda_on_cpu):
    on_gpu = cuda_on_cpu.asarray(np.ones(3))
    for mixed in (lambda: on_gpu + np.ones(3), lambda: np.concatenate([on_gpu, np.ones(3)])):
        with pytest.raises(TypeError, match="in host memory"):
            mixed()
    assert isinstance(on_gpu * 2 + np.float32(1), ndarray)
    assert isinstance(cuda_on_cpu, types.ModuleType)
