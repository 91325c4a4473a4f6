// Forward and backward of the normalizations of rows, x[rows, d]: see rows.cuh for what they are and who takes which element.
// Statistics are two-pass, in f32; everything is added up in a fixed order. weight and bias may be null.
#include "rows.cuh"

// y = norm(x), or with a residual: residual_out = x + residual, rounded to T, and y = norm of that sum. y and residual_out may
// be the memory of x and residual: a thread reads an element before it writes it, and nobody else reads it. k is for
// Norm::partial. Blocks: CLUSTER for each ROWS<THREADS> rows.
template <class T, class W, Norm NORM, Residual RESIDUAL, int VEC, int ITEMS, int THREADS, int CLUSTER>
__global__ void __launch_bounds__(THREADS * ROWS<THREADS>, RESIDENT<VEC, THREADS, RESIDUAL == Residual::none ? 768 : 512>)
rows_forward(const T* x, const T* residual, const W* __restrict__ weight, const W* __restrict__ bias, T* y, T* residual_out,
             long long rows, int d, int k, float eps) {
    __shared__ typename Sums<THREADS, CLUSTER>::Shared slots;
    Sums<THREADS, CLUSTER> sum(slots);
    using Own = Share<VEC, ITEMS, THREADS, CLUSTER>;
    const Own own(d);
    const long long row = static_cast<long long>(blockIdx.x / CLUSTER) * ROWS<THREADS> + threadIdx.x / THREADS;
    const bool is_row = row < rows;  // lanes without a row take part in the shuffles
    const size_t start = static_cast<size_t>(row) * d;

    float kept[Own::KEEP][VEC];
    if constexpr (Own::KEPT) {
        own.each(is_row, [&](int i, int c) { load_sum<RESIDUAL>(x, residual, start + c, kept[i]); });
        if constexpr (RESIDUAL != Residual::none)
            own.each(is_row, [&](int i, int c) {
                store(residual_out + start + c, kept[i]);
                as_read<RESIDUAL, T>(kept[i]);
            });
    }
    const auto fetch = [&](int c) {
        load_sum<RESIDUAL>(x, residual, start + c, kept[0]);
        as_read<RESIDUAL, T>(kept[0]);
    };
    const Statistic statistic = measure<NORM>(own, is_row, kept, fetch, sum, k, eps);
    own.each(is_row, [&](int i, int c) {
        if constexpr (!Own::KEPT) {
            load_sum<RESIDUAL>(x, residual, start + c, kept[0]);
            if constexpr (RESIDUAL != Residual::none) store(residual_out + start + c, kept[0]);
            as_read<RESIDUAL, T>(kept[0]);
        }
        float w[VEC], b[VEC];
        if (weight) load_weight<NORM>(weight, c, w);
        if (NORM == Norm::layer && bias) load(bias + c, b);
#pragma unroll
        for (int j = 0; j < VEC; ++j) {
            float v = normalized<NORM>(kept[i][j], statistic);
            if (weight) v = as_weighted<NORM, T>(v) * w[j];
            if (NORM == Norm::layer && bias) v += b[j];
            kept[i][j] = v;
        }
        store(y + start + c, kept[i]);
    });
    sum.leave();
}

// With x_hat = norm(x) without weight and bias, and g = dy * weight:
//
//     layer:       dx = rstd * (g - mean(g) - x_hat * mean(g * x_hat))
//     rms:         dx = rstd * (g - x_hat * mean(g * x_hat)); partial: sum(g * x_hat) / k, and only the first k have the second term
//     compressed:  dx = rstd * (g - (x_hat + sum(x) * rstd) * sum(g * x_hat) / (d + 1))
//     l2:          dx = (g - x_hat * sum(g * x_hat)) / norm, or g / eps where eps is larger
//
// With a residual dresidual_out is added, and dresidual = dx. A block takes every gridDim.x / CLUSTER-th group of rows and keeps
// its parts of dweight = sum(dy * x_hat) and dbias = sum(dy) in registers (in their place in memory with ITEMS = 0). They are
// stored as rows of weight_parts and bias_parts [blocks * slots, d], where a block has a slot for each warp that has rows of its
// own; `reduce_parts` adds them. `wants` says which are wanted: 1 for weight_parts, 2 for bias_parts.
template <class T, class W, Norm NORM, Residual RESIDUAL, int VEC, int ITEMS, int THREADS, int CLUSTER>
__global__ void __launch_bounds__(THREADS * ROWS<THREADS>, 1)
rows_backward(const T* dy, const T* dresidual_out, const T* x, const T* residual, const W* __restrict__ weight, T* dx,
              T* dresidual, float* weight_parts, float* bias_parts, int wants, long long rows, int d, int k, float eps) {
    __shared__ typename Sums<THREADS, CLUSTER>::Shared slots;
    Sums<THREADS, CLUSTER> sum(slots);
    using Own = Share<VEC, ITEMS, THREADS, CLUSTER>;
    constexpr int SLOTS = THREADS <= 32 ? 4 : 1;
    const Own own(d);
    const int slot = THREADS <= 32 ? threadIdx.x / 32 : 0;
    const size_t part = (static_cast<size_t>(blockIdx.x / CLUSTER) * SLOTS + slot) * d;

    float dweight[Own::KEEP][VEC] = {}, dbias[Own::KEEP][VEC] = {};
    const long long first = static_cast<long long>(blockIdx.x / CLUSTER) * ROWS<THREADS>;
    const long long step = static_cast<long long>(gridDim.x / CLUSTER) * ROWS<THREADS>;
    for (long long group = first; group < rows; group += step) {
        const long long row = group + threadIdx.x / THREADS;
        const bool is_row = row < rows;
        const size_t start = static_cast<size_t>(row) * d;

        float kept[Own::KEEP][VEC], g[Own::KEEP][VEC];
        const auto read = [&](int i, int c) {
            load_sum<RESIDUAL>(x, residual, start + c, kept[i]);
            as_read<RESIDUAL, T>(kept[i]);
        };
        const auto fetch = [&](int c) { read(0, c); };
        if constexpr (Own::KEPT)
            own.each(is_row, [&](int i, int c) {
                read(i, c);
                load(dy + start + c, g[i]);
            });
        const Statistic statistic = measure<NORM>(own, is_row, kept, fetch, sum, k, eps);
        // From x and dy to x_hat and dy * weight.
        const auto prepare = [&](int i, int c) {
            float w[VEC];
            if (weight) load_weight<NORM>(weight, c, w);
#pragma unroll
            for (int j = 0; j < VEC; ++j) {
                kept[i][j] = normalized<NORM>(kept[i][j], statistic);
                if (weight) g[i][j] *= w[j];
            }
        };
        float sums[2] = {0.f, 0.f};
        own.each(is_row, [&](int i, int c) {
            float own_dy[VEC];
            if constexpr (!Own::KEPT) {
                read(0, c);
                load(dy + start + c, g[0]);
                if (group != first) {
                    if (wants & 1) load(weight_parts + part + c, dweight[0]);
                    if (wants & 2) load(bias_parts + part + c, dbias[0]);
                } else {
#pragma unroll
                    for (int j = 0; j < VEC; ++j) dweight[0][j] = dbias[0][j] = 0.f;
                }
            }
#pragma unroll
            for (int j = 0; j < VEC; ++j) own_dy[j] = g[i][j];
            prepare(i, c);
#pragma unroll
            for (int j = 0; j < VEC; ++j) {
                dweight[i][j] = fmaf(own_dy[j], as_weighted<NORM, T>(kept[i][j]), dweight[i][j]);
                if (NORM == Norm::layer) dbias[i][j] += own_dy[j], sums[1] += g[i][j];
                sums[0] = fmaf(g[i][j], kept[i][j], sums[0]);
            }
            if constexpr (!Own::KEPT) {
                if (wants & 1) store(weight_parts + part + c, dweight[0]);
                if (wants & 2) store(bias_parts + part + c, dbias[0]);
            }
        });
        float a = 0.f, b;
        if constexpr (NORM == Norm::layer) {
            sum(sums);
            a = sums[1] / d, b = sums[0] / d;
        } else {
            float product[1] = {sums[0]};
            sum(product);
            if constexpr (NORM == Norm::l2) {
                b = product[0];
            } else {
                b = product[0] / (NORM == Norm::partial ? k : NORM == Norm::compressed ? d + 1 : d);
            }
            if constexpr (NORM == Norm::compressed) a = b * (statistic.centre * statistic.rstd);
        }
        own.each(is_row, [&](int i, int c) {
            if constexpr (!Own::KEPT) {
                read(0, c);
                load(dy + start + c, g[0]);
                prepare(0, c);
            }
#pragma unroll
            for (int j = 0; j < VEC; ++j) {
                // Where dx does not depend on x, a NaN of x must not reach it.
                const bool is_coupled = NORM == Norm::partial ? c + j < k : NORM == Norm::l2 ? statistic.is_norm : true;
                float v = g[i][j];
                if (NORM == Norm::layer || NORM == Norm::compressed) v -= a;
                if (is_coupled) v = fmaf(-b, kept[i][j], v);
                g[i][j] = NORM == Norm::l2 ? v / statistic.rstd : v * statistic.rstd;
            }
            if constexpr (RESIDUAL != Residual::none) {
                float more[VEC];
                load(dresidual_out + start + c, more);
#pragma unroll
                for (int j = 0; j < VEC; ++j) g[i][j] += more[j];
                if (dresidual) store(dresidual + start + c, g[i]);
            }
            if (dx) store(dx + start + c, g[i]);
        });
    }
    if constexpr (Own::KEPT) {
        // Rows that share a warp add up their parts.
        const auto parts = [&](float(&sums)[Own::KEEP][VEC], float* to) {
#pragma unroll
            for (int i = 0; i < Own::KEEP; ++i)
#pragma unroll
                for (int j = 0; j < VEC; ++j)
#pragma unroll
                    for (int o = THREADS; o < 32; o <<= 1) sums[i][j] += __shfl_xor_sync(0xffffffffu, sums[i][j], o);
            own.each(threadIdx.x % 32 < THREADS || THREADS > 32, [&](int i, int c) { store(to + part + c, sums[i]); });
        };
        if (wants & 1) parts(dweight, weight_parts);
        if (NORM == Norm::layer && wants & 2) parts(dbias, bias_parts);
    }
    sum.leave();
}

// out[c] = sum over r < parts of in[r, c], for d columns; blockIdx.y says which of two. out may be null. A block of 32 x 16
// threads takes 32 columns; its 16 rows of threads add every 16th part, and the first one adds the 16 sums.
template <class W> __global__ void __launch_bounds__(512)
reduce_parts(const float* __restrict__ weight_parts, const float* __restrict__ bias_parts, W* __restrict__ dweight,
             W* __restrict__ dbias, int parts, int d) {
    __shared__ float sums[16][33];
    const float* in = blockIdx.y == 0 ? weight_parts : bias_parts;
    W* out = blockIdx.y == 0 ? dweight : dbias;
    if (!out) return;
    const int c = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.f;
    if (c < d)
        for (int r = threadIdx.y; r < parts; r += 16) sum += in[static_cast<size_t>(r) * d + c];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || c >= d) return;
#pragma unroll
    for (int r = 1; r < 16; ++r) sum += sums[r][threadIdx.x];
    out[c] = static_cast<W>(sum);
}
