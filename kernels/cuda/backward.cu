// Backward of layer_norm and rms_norm over rows of D elements, and the second stage of dgamma and dbeta.
//
//     h = (x - mean) * rstd      w = dy * gamma      dx = rstd * (w - mean(w) - h * mean(w * h))
//
// with mean(w) left out for rms_norm. A block takes rows blockIdx.x, blockIdx.x + gridDim.x, ... and keeps its parts of
// dgamma = sum(dy * h) and dbeta = sum(dy) in registers; it stores them as one row of `dgamma_parts` and `dbeta_parts`
// [gridDim.x, D]. `reduce_parts` adds those rows in a fixed order: no atomics, so the result does not depend on the schedule.
// gamma may be null. Dynamic shared memory: (WARPS + 1) floats where WARPS > 1.
#include "norm.cuh"

template <class T, class W, int D, int VEC, int WARPS, bool RMS>
__global__ void __launch_bounds__(WARPS * 32)
norm_backward(const T* __restrict__ dy, const T* __restrict__ x, const W* __restrict__ gamma, const float* __restrict__ mean_in,
              const float* __restrict__ rstd_in, T* __restrict__ dx, float* __restrict__ dgamma_parts,
              float* __restrict__ dbeta_parts, int rows) {
    static_assert(D % VEC == 0);
    constexpr int THREADS = WARPS * 32;
    constexpr int ITEMS = (D / VEC + THREADS - 1) / THREADS;
    extern __shared__ float slot[];
    const int t = threadIdx.x;
    const auto column = [&](int i) { return (i * THREADS + t) * VEC; };
    float dgamma[ITEMS][VEC] = {}, dbeta[ITEMS][VEC] = {};
    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        const size_t start = static_cast<size_t>(row) * D;
        const float mean = RMS ? 0.f : mean_in[row], rstd = rstd_in[row];
        float h[ITEMS][VEC], w[ITEMS][VEC];
        float sum_w = 0.f, sum_wh = 0.f;
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            if (column(i) >= D) continue;
            load(x + start + column(i), h[i]);
            load(dy + start + column(i), w[i]);
            float g[VEC];
            if (gamma) load(gamma + column(i), g);
#pragma unroll
            for (int j = 0; j < VEC; ++j) {
                h[i][j] = (h[i][j] - mean) * rstd;
                dgamma[i][j] += w[i][j] * h[i][j];
                if constexpr (!RMS) dbeta[i][j] += w[i][j];
                if (gamma) w[i][j] *= g[j];
                sum_w += w[i][j];
                sum_wh += w[i][j] * h[i][j];
            }
        }
        const float mean_w = RMS ? 0.f : row_sum<WARPS, 1>(sum_w, slot) * (1.f / D);
        const float mean_wh = row_sum<WARPS, 1>(sum_wh, slot) * (1.f / D);
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            if (column(i) >= D) continue;
#pragma unroll
            for (int j = 0; j < VEC; ++j) w[i][j] = rstd * (w[i][j] - mean_w - h[i][j] * mean_wh);
            store(dx + start + column(i), w[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        if (column(i) >= D) continue;
        // f32 pieces of 16 bytes, whatever VEC is.
        constexpr int PIECE = VEC < 4 ? VEC : 4;
#pragma unroll
        for (int k = 0; k < VEC; k += PIECE) {
            float part[PIECE];
            const size_t at = static_cast<size_t>(blockIdx.x) * D + column(i) + k;
#pragma unroll
            for (int j = 0; j < PIECE; ++j) part[j] = dgamma[i][k + j];
            store(dgamma_parts + at, part);
            if constexpr (!RMS) {
#pragma unroll
                for (int j = 0; j < PIECE; ++j) part[j] = dbeta[i][k + j];
                store(dbeta_parts + at, part);
            }
        }
    }
}

// out[c] = sum over r < parts of in[r, c], for D columns. A block of 32 x 8 threads takes 32 columns; its eight rows of
// threads add every eighth part, and the first one adds the eight sums.
template <class W, int D> __global__ void __launch_bounds__(256)
reduce_parts(const float* __restrict__ in, W* __restrict__ out, int parts) {
    __shared__ float sums[8][33];
    const int c = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.f;
    if (c < D)
        for (int r = threadIdx.y; r < parts; r += 8) sum += in[static_cast<size_t>(r) * D + c];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || c >= D) return;
#pragma unroll
    for (int r = 1; r < 8; ++r) sum += sums[r][threadIdx.x];
    out[c] = static_cast<W>(sum);
}
