// Joseph's projector and its exact transpose on lane groups; see project.py for the formula, layout.py for the layout.
//
// Images are (y + pad, x + pad, width), sinograms (angle, detector + pad, width). A warp computes LANES of the width
// slices. Indices and weights are computed in double precision by all threads of a block together: once for each pixel
// and angle, or for each ray and line, not once for each lane.
//
// Macros: WARPS is the number of warps of a block. LANES, TILE, CHUNK, DETECTOR_FRONT, DETECTOR_PAD and IMAGE_PAD are
// those of cuda.py and layout.py.

#define PIXELS (TILE / WARPS)

// One warp per ray: block (LANES, WARPS), grid (rays / WARPS, angles, width / LANES).
extern "C" __global__ void __launch_bounds__(LANES * WARPS) forward(
    const float* __restrict__ image,
    const double* __restrict__ cosines,
    const double* __restrict__ sines,
    int n,
    int width,
    double axis_y,
    double axis_x,
    float* __restrict__ sinogram)
{
    __shared__ int pixels[WARPS][LANES];
    __shared__ float weights[WARPS][LANES];
    const int lane = threadIdx.x, warp = threadIdx.y;
    const int t = blockIdx.x * WARPS + warp, a = blockIdx.y;
    const double cosine = cosines[a], sine = sines[a];
    const bool along_rows = fabs(cosine) >= fabs(sine);
    const double principal = along_rows ? cosine : sine, other = along_rows ? sine : cosine;
    const double axis_u = along_rows ? axis_y : axis_x, axis_v = along_rows ? axis_x : axis_y;
    const int stride = n + 2 * IMAGE_PAD;
    const int step_u = along_rows ? stride : 1, step_v = along_rows ? 1 : stride;
    const double ratio = other / principal, start = (t - axis_x) / principal + axis_v;
    const float* lanes = image + blockIdx.z * LANES + lane;
    const long long next = (long long)step_v * width;

    float total = 0.0f;
    for (int u0 = 0; u0 < n; u0 += LANES) {
        const int u = u0 + lane;
        const double position = start - (u - axis_u) * ratio;
        const bool inside = u < n && position >= -1.0 && position < n;
        const double lower = floor(position);
        // A position outside the image reads the first two pixels of the border, which are zero.
        pixels[warp][lane] = inside ? (u + IMAGE_PAD) * step_u + ((int)lower + IMAGE_PAD) * step_v : 0;
        weights[warp][lane] = inside ? (float)(position - lower) : 0.0f;
        __syncthreads();
#pragma unroll 8
        for (int i = 0; i < LANES; i++) {
            const float weight = weights[warp][i];
            const float* pixel = lanes + (long long)pixels[warp][i] * width;
            total = fmaf(1.0f - weight, pixel[0], total);
            total = fmaf(weight, pixel[next], total);
        }
        __syncthreads();
    }
    const long long entry = (long long)a * (n + DETECTOR_PAD) + t + DETECTOR_FRONT;
    if (t < n) sinogram[entry * width + blockIdx.z * LANES + lane] = (float)(1.0 / fabs(principal)) * total;
}

// TILE pixels of an image row per block: block (LANES, WARPS), grid (tiles, n, at most width / LANES).
extern "C" __global__ void __launch_bounds__(LANES * WARPS) back(
    const float* __restrict__ sinogram,
    const double* __restrict__ cosines,
    const double* __restrict__ sines,
    int n_angles,
    int n,
    int width,
    double axis_y,
    double axis_x,
    float* __restrict__ image)
{
    __shared__ int indices[CHUNK][TILE];
    __shared__ float nears[CHUNK][TILE];
    __shared__ float fars[CHUNK][TILE];
    const int lane = threadIdx.x, warp = threadIdx.y;
    const int x0 = blockIdx.x * TILE, y = blockIdx.y;

    for (int group = blockIdx.z; group < width / LANES; group += gridDim.z) {
        float sums[PIXELS];
#pragma unroll
        for (int p = 0; p < PIXELS; p++) sums[p] = 0.0f;

        for (int first = 0; first < n_angles; first += CHUNK) {
            const int count = min(CHUNK, n_angles - first);
            if (group == (int)blockIdx.z || n_angles > CHUNK) {  // otherwise the stored indices are valid for this group too
                __syncthreads();
                for (int a = warp; a < count; a += WARPS) {
                    const double cosine = cosines[first + a], sine = sines[first + a];
                    const double reach = fmax(fabs(cosine), fabs(sine));
                    const double t = (x0 + lane - axis_x) * cosine + (y - axis_y) * sine + axis_x;
                    // The rays that touch this pixel are strictly within ±reach of its detector position.
                    const double ray = floor(t - reach) + 1.0;
                    nears[a][lane] = (float)(fmax(1.0 - fabs(ray - t) / reach, 0.0) / reach);
                    fars[a][lane] = (float)(fmax(1.0 - fabs(ray + 1.0 - t) / reach, 0.0) / reach);
                    indices[a][lane] = (int)fmin(fmax(ray, -2.0), (double)n) + DETECTOR_FRONT;
                }
                __syncthreads();
            }
            for (int a = 0; a < count; a++) {
                const long long row = (long long)(first + a) * (n + DETECTOR_PAD);
                const float* lanes = sinogram + row * width + group * LANES + lane;
#pragma unroll
                for (int p = 0; p < PIXELS; p++) {
                    const float* entry = lanes + (long long)indices[a][warp * PIXELS + p] * width;
                    sums[p] = fmaf(nears[a][warp * PIXELS + p], entry[0], sums[p]);
                    sums[p] = fmaf(fars[a][warp * PIXELS + p], entry[width], sums[p]);
                }
            }
        }

#pragma unroll
        for (int p = 0; p < PIXELS; p++) {
            const int x = x0 + warp * PIXELS + p;
            const long long pixel = (long long)(y + IMAGE_PAD) * (n + 2 * IMAGE_PAD) + x + IMAGE_PAD;
            if (x < n) image[pixel * width + group * LANES + lane] = sums[p];
        }
    }
}
