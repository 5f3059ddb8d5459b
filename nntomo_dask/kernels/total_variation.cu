// The steps of a primal-dual iteration for total variation on lane groups; see total_variation.py.
//
// Arrays are (entry, width) or (pixel, width), a pixel's row of the image being size + 2 IMAGE_PAD pixels long. What one
// sweep does on a CPU are two kernels here, because threads run in any order: `edges` reads x̄ and writes q, `step` reads
// q and writes x and x̄.
//
// Macros: PIXELS and WARPS as in total_variation.py, IMAGE_PAD and LANES as in cuda.py.

// p ← p + ρ ((p + Σ (A x̄ - y)) keep - p): block (LANES, WARPS), grid (entries / WARPS, width / LANES).
extern "C" __global__ void dual(
    float* __restrict__ rows,
    const float* __restrict__ projected,
    const float* __restrict__ measured,
    const float* __restrict__ sigma,
    const float* __restrict__ keep,
    float relaxation,
    long long n_entries,
    int width)
{
    const long long entry = (long long)blockIdx.x * WARPS + threadIdx.y;
    const int slice = blockIdx.y * LANES + threadIdx.x;
    if (entry >= n_entries) return;
    const long long place = entry * width + slice;
    const float old = rows[place];
    const float proposed = (old + sigma[entry] * (projected[place] - measured[place])) * keep[entry];
    rows[place] = old + relaxation * (proposed - old);
}

// Whether a pixel of the bordered image is inside, and where.
__device__ bool is_inside(long long pixel, int size, int* y, int* x)
{
    const int stride = size + 2 * IMAGE_PAD;
    *y = (int)(pixel / stride) - IMAGE_PAD;
    *x = (int)(pixel % stride) - IMAGE_PAD;
    return *y >= 0 && *y < size && *x >= 0 && *x < size;
}

// q ← q + ρ (q̃ - q), q̃ = (q + σ ∇x̄) shrink, shortened to the weight: block (LANES, WARPS), grid (pixels / WARPS, …).
extern "C" __global__ void edges(
    const float* __restrict__ bar,
    float* __restrict__ along_z,
    float* __restrict__ along_y,
    float* __restrict__ along_x,
    const float* __restrict__ between,
    float weight,
    float sigma,
    float shrink,
    float relaxation,
    long long n_pixels,
    int size,
    int width)
{
    const long long pixel = (long long)blockIdx.x * WARPS + threadIdx.y;
    const int slice = blockIdx.y * LANES + threadIdx.x;
    int y, x;
    if (pixel >= n_pixels || !is_inside(pixel, size, &y, &x)) return;
    const long long place = pixel * width + slice;
    const long long line = (long long)(size + 2 * IMAGE_PAD) * width;
    const float here = bar[place];
    const float old_z = along_z[place], old_y = along_y[place], old_x = along_x[place];
    const float new_z = shrink * fmaf(between[slice], bar[place + 1] - here, old_z);
    const float new_y = shrink * fmaf(y < size - 1 ? sigma : 0.0f, bar[place + line] - here, old_y);
    const float new_x = shrink * fmaf(x < size - 1 ? sigma : 0.0f, bar[place + width] - here, old_x);
    const float length = fmaf(new_x, new_x, fmaf(new_y, new_y, new_z * new_z));
    const float square = fmaxf(weight * weight, 1e-30f);
    const float shorter = weight / sqrtf(length < square ? square : length);
    along_z[place] = fmaf(relaxation, shorter * new_z - old_z, old_z);
    along_y[place] = fmaf(relaxation, shorter * new_y - old_y, old_y);
    along_x[place] = fmaf(relaxation, shorter * new_x - old_x, old_x);
}

// x̃ = clip(x + T (div q - g)), x̄ ← 2 x̃ - x, x ← x + ρ (x̃ - x), and the squares of x̃ - x and of x̃ summed over a
// block: block (LANES, WARPS), grid (pixels / PIXELS, width / LANES).
extern "C" __global__ void step(
    float* __restrict__ images,
    float* __restrict__ bar,
    const float* __restrict__ along_z,
    const float* __restrict__ along_y,
    const float* __restrict__ along_x,
    const float* __restrict__ gradient,
    const float* __restrict__ tau,
    float ratio,
    float relaxation,
    float lower,
    float upper,
    long long n_pixels,
    int size,
    int width,
    double* __restrict__ parts)
{
    __shared__ double changes[WARPS][LANES];
    __shared__ double totals[WARPS][LANES];
    const int warp = threadIdx.y, lane = threadIdx.x, slice = blockIdx.y * LANES + lane;
    const long long first = (long long)blockIdx.x * PIXELS;
    const long long last = min(first + PIXELS, n_pixels);
    const long long line = (long long)(size + 2 * IMAGE_PAD) * width;
    double change = 0.0, total = 0.0;
    for (long long pixel = first + warp; pixel < last; pixel += WARPS) {
        int y, x;
        if (!is_inside(pixel, size, &y, &x)) continue;
        const long long place = pixel * width + slice;
        float divergence = ratio * (along_z[place] - along_z[place - 1]);
        divergence = divergence + (along_y[place] - along_y[place - line]);
        divergence = divergence + (along_x[place] - along_x[place - width]);
        const float old = images[place];
        const float free = fmaf(tau[pixel], divergence - gradient[place], old);
        const float raised = free < lower ? lower : free;
        const float found = raised > upper ? upper : raised;
        const float moved = found - old;
        change += (double)moved * (double)moved;
        total += (double)found * (double)found;
        bar[place] = found + moved;
        images[place] = fmaf(relaxation, moved, old);
    }
    changes[warp][lane] = change;
    totals[warp][lane] = total;
    __syncthreads();
    if (warp == 0) {
        for (int other = 1; other < WARPS; other++) {
            change += changes[other][lane];
            total += totals[other][lane];
        }
        parts[(long long)blockIdx.x * width + slice] = change;
        parts[((long long)gridDim.x + blockIdx.x) * width + slice] = total;
    }
}
