// Forward of layer_norm and rms_norm over rows of D elements, with an optional residual added first.
//
//     s = x + residual (rounded to T, stored in `sum`)      mean = sum(s) / D (0 for rms_norm)
//     rstd = 1 / sqrt(sum((s - mean)^2) / D + eps)           y = (s - mean) * rstd * gamma + beta
//
// A row stays in registers, so x is read once; the statistics are two-pass, in f32. The row belongs to WARPS warps of one
// block (ROWS such rows a block; more than one needs WARPS = 1, because then no block barrier is met) or to a cluster of
// CLUSTER blocks, each with its share. VEC elements move in one access; D must be a multiple of it, 16 bytes are the aim.
// gamma and beta may be null. Dynamic shared memory: (WARPS + 1) floats where WARPS * CLUSTER > 1.
#include "norm.cuh"

template <class T, class W, int D, int VEC, int WARPS, int ROWS, int CLUSTER, bool RMS, bool RESIDUAL>
__global__ void __launch_bounds__(WARPS * 32 * ROWS)
norm_forward(const T* __restrict__ x, const T* __restrict__ residual, const W* __restrict__ gamma, const W* __restrict__ beta,
             T* __restrict__ y, T* __restrict__ sum, float* __restrict__ mean_out, float* __restrict__ rstd_out, int rows,
             float eps) {
    static_assert(D % VEC == 0 && (ROWS == 1 || (WARPS == 1 && CLUSTER == 1)));
    constexpr int THREADS = WARPS * 32;
    constexpr int SHARE = (D / VEC + CLUSTER - 1) / CLUSTER;  // accesses of one block
    constexpr int ITEMS = (SHARE + THREADS - 1) / THREADS;    // accesses of one thread
    extern __shared__ float slot[];
    const int row = CLUSTER > 1 ? blockIdx.x / CLUSTER : blockIdx.x * ROWS + threadIdx.x / THREADS;
    if (ROWS > 1 && row >= rows) return;
    const int rank = CLUSTER > 1 ? cluster_rank() : 0;
    const int t = threadIdx.x % THREADS;
    const size_t start = static_cast<size_t>(row) * D;

    const auto column = [&](int i) { return (rank * SHARE + i * THREADS + t) * VEC; };
    const auto inside = [&](int i) { return i * THREADS + t < SHARE && column(i) < D; };
    float s[ITEMS][VEC];
    float total = 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        if (!inside(i)) continue;
        load(x + start + column(i), s[i]);
        if constexpr (RESIDUAL) {
            float r[VEC];
            load(residual + start + column(i), r);
#pragma unroll
            for (int j = 0; j < VEC; ++j) s[i][j] = static_cast<float>(static_cast<T>(s[i][j] + r[j]));
            store(sum + start + column(i), s[i]);
        }
#pragma unroll
        for (int j = 0; j < VEC; ++j) total += s[i][j];
    }
    float mean = 0.f;
    if constexpr (!RMS) mean = row_sum<WARPS, CLUSTER>(total, slot) * (1.f / D);
    float squares = 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        if (!inside(i)) continue;
#pragma unroll
        for (int j = 0; j < VEC; ++j) squares += (s[i][j] - mean) * (s[i][j] - mean);
    }
    const float rstd = rsqrtf(row_sum<WARPS, CLUSTER>(squares, slot) * (1.f / D) + eps);
    if (t == 0 && rank == 0) {
        if (!RMS && mean_out) mean_out[row] = mean;
        if (rstd_out) rstd_out[row] = rstd;
    }
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        if (!inside(i)) continue;
        float g[VEC], b[VEC];
        if (gamma) load(gamma + column(i), g);
        if (!RMS && beta) load(beta + column(i), b);
#pragma unroll
        for (int j = 0; j < VEC; ++j) {
            float v = (s[i][j] - mean) * rstd;
            if (gamma) v *= g[j];
            if (!RMS && beta) v += b[j];
            s[i][j] = v;
        }
        store(y + start + column(i), s[i]);
    }
}
