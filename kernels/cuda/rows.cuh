// Normalization of rows of d elements: what forward and backward share. A row belongs to THREADS threads (a part of a warp, a
// warp, or a block) or to a cluster of CLUSTER blocks. A thread takes ITEMS accesses of VEC elements and keeps them in
// registers; with ITEMS = 0 it takes as many as it must and reads them again for every pass.
#pragma once
#include "norm.cuh"

// layer:    (x - mean) / sqrt(var + eps) * weight + bias
// rms:      x / sqrt(mean(x^2) + eps) * weight; `llama` rounds to the data type before the weight, `gemma` takes 1 + weight,
//           `partial` takes the mean over the first k elements, `compressed` (sum(x^2) + sum(x)^2) / (d + 1) for it
// l2:       x / max(sqrt(sum(x^2)), eps)
enum class Norm { layer, rms, llama, gemma, partial, compressed, l2 };

// Whether a residual is added to x first, and whether the norm reads the sum as it is stored.
enum class Residual { none, rounded, unrounded };

// Rows of a block: those of a warp or less come several to a block, of four warps.
template <int THREADS> constexpr int ROWS = THREADS <= 32 ? 128 / THREADS : 1;

// Blocks that a multiprocessor is to hold at once, which bounds registers: enough for so many threads. (Accesses of one element take
// more registers for addresses, and are slow anyway.)
template <int VEC, int THREADS, int OF_ALL> constexpr int RESIDENT = VEC == 1 ? 1 : OF_ALL / (THREADS * ROWS<THREADS>);

// Which elements are this thread's.
template <int VEC, int ITEMS, int THREADS, int CLUSTER> struct Share {
    // Whether registers hold a thread's accesses, and how many. (Enumerators: static members would be variables in the PTX.)
    enum { KEPT = ITEMS > 0, KEEP = KEPT ? ITEMS : 1 };
    int first, end, d;

    __device__ __forceinline__ explicit Share(int d) : d(d) {
        const int block = (d / VEC + CLUSTER - 1) / CLUSTER;
        const int start = CLUSTER > 1 ? cluster_rank() * block : 0;
        first = (start + threadIdx.x % THREADS) * VEC;
        end = CLUSTER > 1 ? min((start + block) * VEC, d) : d;
    }

    __device__ __forceinline__ int column(int i) const { return first + i * THREADS * VEC; }

    // Calls `body(i, column)` for this thread's accesses.
    template <class Body> __device__ __forceinline__ void each(bool is_row, Body body) const {
        const int stop = is_row ? end : 0;
        if constexpr (KEPT) {
#pragma unroll
            for (int i = 0; i < ITEMS; ++i)
                if (column(i) < stop) body(i, column(i));
        } else {
            for (int c = first; c < stop; c += THREADS * VEC) body(0, c);
        }
    }
};

// Loads x, or x + residual as the norm reads it.
template <Residual RESIDUAL, int VEC, class T>
__device__ __forceinline__ void load_sum(const T* x, const T* residual, size_t at, float (&s)[VEC]) {
    load(x + at, s);
    if constexpr (RESIDUAL != Residual::none) {
        float r[VEC];
        load(residual + at, r);
#pragma unroll
        for (int j = 0; j < VEC; ++j) s[j] += r[j];
    }
}

// What the norm reads of a sum.
template <Residual RESIDUAL, class T, int VEC> __device__ __forceinline__ void as_read(float (&s)[VEC]) {
    if constexpr (RESIDUAL == Residual::rounded)
#pragma unroll
        for (int j = 0; j < VEC; ++j) s[j] = static_cast<float>(static_cast<T>(s[j]));
}

// What a row is normalized with.
struct Statistic {
    float centre = 0.f;  // layer: the mean, rounded; compressed: the sum
    float rstd = 1.f;    // l2: what is divided by
    float offset = 0.f;  // layer: what rounding the mean has lost, normalized
    float lost = 0.f, var = 0.f;  // layer
    bool is_norm = true; // l2: whether the norm is what is divided by
};

template <Norm NORM> __device__ __forceinline__ float normalized(float x, const Statistic& s) {
    if constexpr (NORM == Norm::layer) return fmaf(x - s.centre, s.rstd, s.offset);
    if constexpr (NORM == Norm::l2) return x / s.rstd;
    return x * s.rstd;
}

// The statistic of a row, from this thread's `values`; `fetch(column)` puts them there where they are not kept.
template <Norm NORM, class Own, int KEEP, int VEC, class Fetch, class Sum>
__device__ __forceinline__ Statistic measure(const Own& own, bool is_row, float (&values)[KEEP][VEC], Fetch fetch, Sum& sum, int k,
                                             float eps) {
    const float n = own.d;
    if constexpr (NORM == Norm::layer) {
        float total[1] = {0.f};
        own.each(is_row, [&](int i, int c) {
            if (!Own::KEPT) fetch(c);
#pragma unroll
            for (int j = 0; j < VEC; ++j) total[0] += values[i][j];
        });
        sum(total);
        const float centre = total[0] / n;
        // The second pass also finds what the first one got wrong: data of mean 10^6 and spread 1 need it.
        float moments[2] = {0.f, 0.f};
        own.each(is_row, [&](int i, int c) {
            if (!Own::KEPT) fetch(c);
#pragma unroll
            for (int j = 0; j < VEC; ++j) {
                const float e = values[i][j] - centre;
                moments[0] += e;
                moments[1] = fmaf(e, e, moments[1]);
            }
        });
        sum(moments);
        const float lost = moments[0] / n;
        float var = moments[1] / n - lost * lost;
        if (var < 0.f) var = 0.f;  // not fmaxf, which would turn NaN into 0
        const float rstd = rstd_of(var, eps);
        return {centre, rstd, -(lost * rstd), lost, var};
    } else {
        float sums[2] = {0.f, 0.f};
        own.each(is_row, [&](int i, int c) {
            if (!Own::KEPT) fetch(c);
#pragma unroll
            for (int j = 0; j < VEC; ++j) {
                const float x = values[i][j];
                if (NORM == Norm::partial && c + j >= k) continue;
                sums[0] = fmaf(x, x, sums[0]);
                if (NORM == Norm::compressed) sums[1] += x;
            }
        });
        if constexpr (NORM == Norm::compressed) {
            sum(sums);
            return {sums[1], rstd_of(fmaf(sums[1], sums[1], sums[0]) / (n + 1.f), eps)};
        }
        float squares[1] = {sums[0]};
        sum(squares);
        if constexpr (NORM == Norm::l2) {
            const float norm = sqrtf(squares[0]);
            // A norm of NaN stays one.
            return {0.f, norm < eps ? eps : norm, 0.f, 0.f, 0.f, norm >= eps && norm != 0.f};
        }
        return {0.f, rstd_of(squares[0] / (NORM == Norm::partial ? static_cast<float>(k) : n), eps)};
    }
}

// The weight at `column`, as a factor.
template <Norm NORM, int VEC, class W>
__device__ __forceinline__ void load_weight(const W* __restrict__ weight, int column, float (&w)[VEC]) {
    load(weight + column, w);
    if constexpr (NORM == Norm::gemma)
#pragma unroll
        for (int j = 0; j < VEC; ++j) w[j] += 1.f;
}

// What the weight is multiplied with.
template <Norm NORM, class T> __device__ __forceinline__ float as_weighted(float x_hat) {
    if constexpr (NORM == Norm::llama) return static_cast<float>(static_cast<T>(x_hat));
    return x_hat;
}
