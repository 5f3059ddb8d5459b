// The element-wise steps of a SIRT iteration on lane groups; see iterate.py.
//
// Arrays are (entry, width) or (pixel, width). Squares are summed over ENTRIES entries at a time, then over these
// parts, in an order that depends only on the number of entries. So the norm of a slice, and the iteration at which it
// stops, do not depend on the other slices of its group.
//
// Macros: ENTRIES and WARPS as in iterate.py, LANES as in cuda.py.

// R (y - A x), and its squares before R summed over a block: block (LANES, WARPS), grid (parts, width / LANES).
extern "C" __global__ void residual(
    const float* __restrict__ measured,
    const float* __restrict__ projected,
    const float* __restrict__ row_weights,
    long long n_entries,
    int width,
    float* __restrict__ weighted,
    double* __restrict__ parts)
{
    __shared__ double squares[WARPS][LANES];
    const int warp = threadIdx.y, lane = threadIdx.x, slice = blockIdx.y * LANES + lane;
    const long long first = (long long)blockIdx.x * ENTRIES;
    const long long last = min(first + ENTRIES, n_entries);
    double sum = 0.0;
    for (long long entry = first + warp; entry < last; entry += WARPS) {
        const float difference = measured[entry * width + slice] - projected[entry * width + slice];
        sum += (double)difference * (double)difference;
        weighted[entry * width + slice] = row_weights[entry] * difference;
    }
    squares[warp][lane] = sum;
    __syncthreads();
    if (warp == 0) {
        for (int other = 1; other < WARPS; other++) sum += squares[other][lane];
        parts[(long long)blockIdx.x * width + slice] = sum;
    }
}

// Norms of the residuals from the parts: one thread per slice.
extern "C" __global__ void norms(const double* __restrict__ parts, int n_parts, int width, double* __restrict__ result)
{
    const int slice = blockIdx.x * blockDim.x + threadIdx.x;
    if (slice >= width) return;
    double sum = 0.0;
    for (int part = 0; part < n_parts; part++) sum += parts[(long long)part * width + slice];
    result[slice] = sqrt(sum);
}

// x ← max(x + C g, minimum) in the active slices: block (LANES, WARPS), grid (pixels / WARPS, width / LANES).
extern "C" __global__ void step(
    float* __restrict__ images,
    const float* __restrict__ gradient,
    const float* __restrict__ column_weights,
    const bool* __restrict__ active,
    float minimum,
    long long n_pixels,
    int width)
{
    const long long pixel = (long long)blockIdx.x * WARPS + threadIdx.y;
    const int slice = blockIdx.y * LANES + threadIdx.x;
    if (pixel >= n_pixels || !active[slice]) return;
    const float weight = column_weights[pixel];
    if (weight == 0.0f) return;  // the border, which must stay zero, and pixels that no ray crosses
    const float value = images[pixel * width + slice] + weight * gradient[pixel * width + slice];
    images[pixel * width + slice] = value < minimum ? minimum : value;
}
