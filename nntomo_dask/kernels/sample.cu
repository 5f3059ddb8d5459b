// Inputs of NN-FBP at chosen voxels, from differences of running sums; see sample.py. One thread per voxel and input.
//
// Macro: APART, 0 or 1, whether the sides of a bin are two inputs; then the bins of negative offsets follow the others.

extern "C" __global__ void sample(
    const double* __restrict__ running,
    const double* __restrict__ cosines,
    const double* __restrict__ sines,
    const double* __restrict__ shares,
    const long long* __restrict__ edges,
    const long long* __restrict__ voxels,
    int n_angles,
    int n,
    int n_bins,
    long long n_inputs,
    double axis_y,
    double axis_x,
    float* __restrict__ inputs)
{
    const long long input = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (input >= n_inputs) return;
#if APART
    const int n_own = 2 * n_bins - 1, place = (int)(input % n_own);
    const int bin = place < n_bins ? place : place - (n_bins - 1);
#else
    const int n_own = n_bins, bin = (int)(input % n_own);
#endif
    const long long* voxel = voxels + input / n_own * 3;
    double sum = 0.0;
    for (int a = 0; a < n_angles; a++) {
        const double t = (voxel[2] - axis_x) * cosines[a] + (voxel[1] - axis_y) * sines[a] + axis_x;
        const long long lower = (long long)floor(t);
        const double weight = t - lower;
        const double* row = running + (voxel[0] * n_angles + a) * (n + 1);
        double above[2], below[2];
        for (int side = 0; side < 2; side++) {
            const long long up = lower + edges[bin + side], down = lower - edges[bin + side] + 1;
            above[side] = (1.0 - weight) * row[min(max(up, 0LL), (long long)n)]
                        + weight * row[min(max(up + 1, 0LL), (long long)n)];
            below[side] = (1.0 - weight) * row[min(max(down, 0LL), (long long)n)]
                        + weight * row[min(max(down + 1, 0LL), (long long)n)];
        }
        if (bin == 0)
            sum += shares[a] * (above[1] - below[1]);
#if APART
        else
            sum += shares[a] * (place < n_bins ? below[0] - below[1] : above[1] - above[0]);
    }
    const long long elements = bin == 0 ? 2 * edges[1] - 1 : edges[bin + 1] - edges[bin];
#else
        else
            sum += shares[a] * (above[1] - above[0] + below[0] - below[1]);
    }
    const long long elements = bin == 0 ? 2 * edges[1] - 1 : 2 * (edges[bin + 1] - edges[bin]);
#endif
    inputs[input] = (float)(sum / elements);
}
