// Backprojection by interpolation on the detector, alone or with the end of a network; see backproject.py.
//
// Layouts: rows (group, member, angle, detector + pad, hidden, lane), images (slice, y, x). A block computes TILE pixels
// of one image row. Its threads first compute together, in double precision, the detector pixel and the weight of each
// of these pixels at CHUNK angles. Then every warp adds up its own pixels, one slice in each lane. The members of an
// ensemble are computed one after another, so their sums use the same registers. The result is transposed in shared
// memory and written along x.
//
// Macros: MEMBERS, number of networks; HIDDEN, sums of a pixel and member; NETWORK 0 or 1, whether the end of a network
// is applied; SECOND, nodes of its second hidden layer, 0 where there is none; RELU 0 or 1, its hidden activation;
// LINEAR 0 or 1, its output; MEAN and SPREAD 0 or 1, whether the mean and the standard deviation of
// the members are written, each to an image array of its own; WARPS of a block; LANES, TILE, CHUNK, DETECTOR_FRONT and
// DETECTOR_PAD as in cuda.py and layout.py.

#define PIXELS (TILE / WARPS)

#if NETWORK
// 1 / (1 + exp(-x)) by the same operations in the same order as in lanes.py.
__device__ __forceinline__ float sigmoid(float x)
{
    x = -x;
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    const float power = floorf(fmaf(x, 1.44269504088896341f, 0.5f));
    float rest = fmaf(power, -0.693145751953125f, x);
    rest = fmaf(power, -1.4286067653e-06f, rest);
    float series = (float)(1.0 / 5040);
    series = fmaf(series, rest, (float)(1.0 / 720));
    series = fmaf(series, rest, (float)(1.0 / 120));
    series = fmaf(series, rest, (float)(1.0 / 24));
    series = fmaf(series, rest, (float)(1.0 / 6));
    series = fmaf(series, rest, 0.5f);
    series = fmaf(series, rest, 1.0f);
    series = fmaf(series, rest, 1.0f);
    return 1.0f / (1.0f + series * __int_as_float(((int)power + 127) << 23));
}

// Of a hidden node.
__device__ __forceinline__ float activated(float x)
{
#if RELU
    return x > 0.0f ? x : 0.0f;
#else
    return sigmoid(x);
#endif
}

#define LAST (SECOND ? SECOND : HIDDEN)
#endif

extern "C" __global__ void __launch_bounds__(LANES * WARPS) backproject(
    const float* __restrict__ rows,
    const double* __restrict__ cosines,
    const double* __restrict__ sines,
    int n_groups,
    int n_angles,
    int n,
    int n_slices,
    double axis_y,
    double axis_x,
#if NETWORK
    // For each member: HIDDEN biases, SECOND biases, HIDDEN weights of each of the SECOND nodes, an output weight for
    // each node of the last hidden layer, output bias, offset, gain. No __restrict__: with it the compiler keeps these
    // values in registers from group to group and spills others.
    const float* ends,
#endif
#if MEAN && SPREAD
    float* __restrict__ mean_images,
    float* __restrict__ spread_images)
#else
    float* __restrict__ images)
#endif
{
    __shared__ int lowers[CHUNK][TILE];
    __shared__ float weights[CHUNK][TILE];
    __shared__ float tile[TILE][LANES + 1];  // one more column, so that the lanes of a warp use different banks
    const int lane = threadIdx.x, warp = threadIdx.y;
    const int x = blockIdx.x * TILE + lane, y = blockIdx.y;
    const double end = n;

    for (int group = blockIdx.z; group < n_groups; group += gridDim.z) {
        float mean[PIXELS];  // over the members so far
#if SPREAD
        float squares[PIXELS];  // sum of squared deviations from the mean
#endif
#pragma unroll 1
        for (int member = 0; member < MEMBERS; member++) {
            float sums[PIXELS][HIDDEN];
#pragma unroll
            for (int p = 0; p < PIXELS; p++)
#pragma unroll
                for (int k = 0; k < HIDDEN; k++) sums[p][k] = 0.0f;

            for (int first = 0; first < n_angles; first += CHUNK) {
                const int count = min(CHUNK, n_angles - first);
                // Otherwise the values in shared memory are valid for this group and member too.
                if ((group == (int)blockIdx.z && member == 0) || n_angles > CHUNK) {
                    __syncthreads();
                    for (int a = warp; a < count; a += WARPS) {
                        double t = (x - axis_x) * cosines[first + a] + (y - axis_y) * sines[first + a] + axis_x;
                        t = fmin(fmax(t, -1.0), end) + DETECTOR_FRONT;
                        const int lower = (int)t;
                        lowers[a][lane] = lower;
                        weights[a][lane] = (float)(t - lower);
                    }
                    __syncthreads();
                }
                for (int a = 0; a < count; a++) {
                    const long long table = (long long)group * MEMBERS + member;
                    const long long row = (table * n_angles + first + a) * (n + DETECTOR_PAD);
                    const float* lanes = rows + row * (HIDDEN * LANES) + lane;
#pragma unroll
                    for (int p = 0; p < PIXELS; p++) {
                        const float weight = weights[a][warp * PIXELS + p];
                        const float* entry = lanes + lowers[a][warp * PIXELS + p] * (HIDDEN * LANES);
#pragma unroll
                        for (int k = 0; k < HIDDEN; k++) {
                            sums[p][k] = fmaf(1.0f - weight, entry[k * LANES], sums[p][k]);
                            sums[p][k] = fmaf(weight, entry[(HIDDEN + k) * LANES], sums[p][k]);
                        }
                    }
                }
            }

#if NETWORK
            const float* hidden_bias = ends + member * (HIDDEN + SECOND * (HIDDEN + 1) + LAST + 3);
#if SECOND
            const float* second_bias = hidden_bias + HIDDEN;
            const float* second_weights = second_bias + SECOND;
#endif
            const float* output_weights = hidden_bias + HIDDEN + SECOND * (HIDDEN + 1);
            const float output_bias = output_weights[LAST];
            const float offset = output_weights[LAST + 1];
            const float gain = output_weights[LAST + 2];
#endif
#pragma unroll
            for (int p = 0; p < PIXELS; p++) {
#if NETWORK
                float output = -output_bias;
#if SECOND
#pragma unroll
                for (int k = 0; k < HIDDEN; k++) sums[p][k] = activated(sums[p][k] - hidden_bias[k]);
#pragma unroll 1
                for (int j = 0; j < SECOND; j++) {
                    float hidden = -second_bias[j];
#pragma unroll
                    for (int k = 0; k < HIDDEN; k++) hidden = fmaf(second_weights[j * HIDDEN + k], sums[p][k], hidden);
                    output = fmaf(output_weights[j], activated(hidden), output);
                }
#else
#pragma unroll
                for (int k = 0; k < HIDDEN; k++)
                    output = fmaf(output_weights[k], activated(sums[p][k] - hidden_bias[k]), output);
#endif
#if LINEAR
                const float value = fmaf(gain, output > 0.0f ? output : 0.0f, offset);
#else
                const float value = fmaf(gain, sigmoid(output), offset);
#endif
#else
                const float value = sums[p][0];
#endif
                const float deviation = member == 0 ? 0.0f : value - mean[p];
                mean[p] = member == 0 ? value : fmaf(1.0f / (member + 1), deviation, mean[p]);
#if SPREAD
                squares[p] = member == 0 ? 0.0f : fmaf(deviation, value - mean[p], squares[p]);
#endif
            }
        }

#pragma unroll
        for (int written = 0; written < MEAN + SPREAD; written++) {
#if MEAN && SPREAD
            float* images = written == 0 ? mean_images : spread_images;
#endif
#pragma unroll
            for (int p = 0; p < PIXELS; p++) {
                float value = mean[p];
#if SPREAD
                if (written == MEAN) value = sqrtf(squares[p] * (1.0f / MEMBERS));
#endif
                tile[warp * PIXELS + p][lane] = value;
            }
            __syncthreads();
            for (int s = warp; s < LANES; s += WARPS) {
                const int slice = group * LANES + s;
                if (slice < n_slices && x < n) images[((long long)slice * n + y) * n + x] = tile[lane][s];
            }
            __syncthreads();
        }
    }
}
