// Forward and backward of batch, group and instance normalization: see channels.cuh for units, sets and layouts.
//
//     forward:   sets_forward, or unit_moments -> set_moments -> apply; -> running_statistics            inference: apply
//     backward:  sets_backward, or unit_moments -> set_moments -> unit_products -> set_products -> gradient; -> channel_products
//                inference: unit_products -> channel_products; gradient
//
// Launches of units have ceil(units / (BLOCK / 32)) blocks (planar) or ceil(c / (lanes * VEC)) * tiles * n (interleaved).
#include "channels.cuh"

// Where the rows of sets_forward and sets_backward lie.
template <int THREADS, int CLUSTER> struct Rows {
    long long set;
    bool is_set;
    size_t start, step;  // from a chunk to the next
    int s, first;        // the first channel
    bool by_channel;     // whether each chunk is another channel

    __device__ __forceinline__ Rows(long long sets, int of_sample, int chunks, int s, int c) : s(s), by_channel(of_sample != 0) {
        set = static_cast<long long>(blockIdx.x / CLUSTER) * ROWS<THREADS> + threadIdx.x / THREADS;
        is_set = set < sets;
        start = static_cast<size_t>(set) * s * (of_sample ? chunks : 1);
        step = static_cast<size_t>(s) * (of_sample ? 1 : c);
        first = of_sample ? set % of_sample * chunks : set;
    }
    __device__ __forceinline__ size_t at(int column) const { return start + column / s * step + column % s; }
    __device__ __forceinline__ int channel(int column) const { return first + (by_channel ? column / s : 0); }
};

// The statistic of a row as that of a set, for other launches.
__device__ __forceinline__ SetStatistic kept_statistic(const Statistic& statistic) {
    float mean = statistic.centre, lost = statistic.lost;
    settle(mean, lost);
    return {mean, lost, statistic.rstd, statistic.var};
}

// Normalizes sets whose elements stay in registers, over planar data: a set is a row of `chunks` times s elements, as rows.cuh has
// them, of chunks that lie together (groups) or a sample apart (of_sample = 0: channels of the batch). x is read once. y may be x.
// `statistics` may be null.
template <class T, class W, int VEC, int ITEMS, int THREADS, int CLUSTER>
__global__ void __launch_bounds__(THREADS * ROWS<THREADS>, RESIDENT<VEC, THREADS, 768>)
sets_forward(const T* x, const W* __restrict__ weight, const W* __restrict__ bias, T* y, SetStatistic* __restrict__ statistics,
             long long sets, int of_sample, int chunks, int s, int c, float eps) {
    __shared__ typename Sums<THREADS, CLUSTER>::Shared slots;
    Sums<THREADS, CLUSTER> sum(slots);
    const Share<VEC, ITEMS, THREADS, CLUSTER> own(chunks * s);
    const Rows<THREADS, CLUSTER> rows(sets, of_sample, chunks, s, c);

    float kept[ITEMS][VEC];
    own.each(rows.is_set, [&](int i, int column) { load(x + rows.at(column), kept[i]); });
    const Statistic statistic = measure<Norm::layer>(own, rows.is_set, kept, [](int) {}, sum, 0, eps);
    own.each(rows.is_set, [&](int i, int column) {
        const int channel = rows.channel(column);
        const float w = weight ? static_cast<float>(weight[channel]) : 1.f;
#pragma unroll
        for (int j = 0; j < VEC; ++j) {
            float v = normalized<Norm::layer>(kept[i][j], statistic);
            if (weight) v *= w;
            if (bias) v += static_cast<float>(bias[channel]);
            kept[i][j] = v;
        }
        store(y + rows.at(column), kept[i]);
    });
    if (statistics && rows.is_set && own.first == 0) statistics[rows.set] = kept_statistic(statistic);
    sum.leave();
}

// The gradients of such sets: x and dy are read once. `products`, of sets that lie in one channel, gets their sums of dy and of
// dy * x_hat, which channel_products adds up; for other sets it is null, and `statistics` is for unit_products. Both may be null.
template <class T, class W, int VEC, int ITEMS, int THREADS, int CLUSTER>
__global__ void __launch_bounds__(THREADS * ROWS<THREADS>, RESIDENT<VEC, THREADS, 512>)
sets_backward(const T* __restrict__ dy, const T* __restrict__ x, const W* __restrict__ weight, T* __restrict__ dx,
              float2* __restrict__ products, SetStatistic* __restrict__ statistics, long long sets, int of_sample, int chunks, int s,
              int c, float eps) {
    __shared__ typename Sums<THREADS, CLUSTER>::Shared slots;
    Sums<THREADS, CLUSTER> sum(slots);
    const Share<VEC, ITEMS, THREADS, CLUSTER> own(chunks * s);
    const Rows<THREADS, CLUSTER> rows(sets, of_sample, chunks, s, c);

    float kept[ITEMS][VEC], g[ITEMS][VEC];
    own.each(rows.is_set, [&](int i, int column) {
        load(x + rows.at(column), kept[i]);
        load(dy + rows.at(column), g[i]);
    });
    const Statistic statistic = measure<Norm::layer>(own, rows.is_set, kept, [](int) {}, sum, 0, eps);
    // From x and dy to x_hat and dy * weight.
    float plain[2] = {0.f, 0.f}, weighted[2] = {0.f, 0.f};
    own.each(rows.is_set, [&](int i, int column) {
        const float w = weight ? static_cast<float>(weight[rows.channel(column)]) : 1.f;
#pragma unroll
        for (int j = 0; j < VEC; ++j) {
            kept[i][j] = normalized<Norm::layer>(kept[i][j], statistic);
            plain[0] += g[i][j], plain[1] = fmaf(g[i][j], kept[i][j], plain[1]);
            if (weight) g[i][j] *= w;
            weighted[0] += g[i][j], weighted[1] = fmaf(g[i][j], kept[i][j], weighted[1]);
        }
    });
    sum(weighted);
    if (products) {
        sum(plain);
        if (rows.is_set && own.first == 0) products[rows.set] = make_float2(plain[0], plain[1]);
    }
    if (statistics && rows.is_set && own.first == 0) statistics[rows.set] = kept_statistic(statistic);
    const float a = weighted[0] / own.d, b = weighted[1] / own.d;
    own.each(rows.is_set, [&](int i, int column) {
#pragma unroll
        for (int j = 0; j < VEC; ++j) g[i][j] = fmaf(-b, kept[i][j], g[i][j] - a) * statistic.rstd;
        store(dx + rows.at(column), g[i]);
    });
    sum.leave();
}

// Mean and squares of every unit, from one reading of x.
template <class T, Layout LAYOUT, int VEC> __global__ void __launch_bounds__(BLOCK, 2)
unit_moments(const T* __restrict__ x, float* __restrict__ parts, long long n, long long s, int c, int tiles, int lanes) {
    const Sizes sizes{n, s, c, tiles, lanes};
    using Own = Tile<LAYOUT, VEC>;
    constexpr int CHANNELS = Own::CHANNELS;
    const Own own(sizes);
    float count = 0.f;
    Moments moments[CHANNELS];
    const auto add_up = [&](float(&sums)[CHANNELS]) {
        if constexpr (Own::PLANAR) sums[0] = warp_sum(sums[0]);
    };
#pragma unroll 1
    for (int chunk = 0; chunk < Own::CHUNKS; ++chunk) {
        float values[Own::HELD][VEC];
        own.each(chunk, [&](int i, size_t at) { load(x + at, values[i]); });
        const float own_count = own.count(chunk);
        float totals[CHANNELS] = {}, lost[CHANNELS] = {}, squares[CHANNELS] = {};
        own.each(chunk, [&](int i, size_t) {
#pragma unroll
            for (int j = 0; j < VEC; ++j) totals[j % CHANNELS] += values[i][j];
        });
        add_up(totals);
#pragma unroll
        for (int j = 0; j < CHANNELS; ++j) totals[j] /= own_count;
        own.each(chunk, [&](int i, size_t) {
#pragma unroll
            for (int j = 0; j < VEC; ++j) {
                const float e = values[i][j] - totals[j % CHANNELS];
                lost[j % CHANNELS] += e;
                squares[j % CHANNELS] = fmaf(e, e, squares[j % CHANNELS]);
            }
        });
        add_up(lost);
        add_up(squares);
        Moments more[CHANNELS];
#pragma unroll
        for (int j = 0; j < CHANNELS; ++j) {
            more[j] = {totals[j], lost[j] / own_count};
            more[j].squares = squares[j] - lost[j] * more[j].lost;
            if (more[j].squares < 0.f) more[j].squares = 0.f;  // not fmaxf, which would turn NaN into 0
            settle(more[j].mean, more[j].lost);
        }
        merge(moments, count, more, own_count);
    }
    if constexpr (!Own::PLANAR) {
        // Threads with the same channels, in a tree.
        __shared__ Moments others[BLOCK][CHANNELS];
        __shared__ float counts[BLOCK];
        for (int apart = blockDim.x / 2; apart >= sizes.lanes; apart >>= 1) {
            const int t = threadIdx.x;
            if (t >= apart && t < 2 * apart) {
#pragma unroll
                for (int j = 0; j < CHANNELS; ++j) others[t][j] = moments[j];
                counts[t] = count;
            }
            __syncthreads();
            if (t < apart) merge(moments, count, others[t + apart], counts[t + apart]);
        }
    }
    const bool stores = Own::PLANAR ? threadIdx.x % 32 == 0 : threadIdx.x < sizes.lanes;
    if (!own.is_unit || !stores) return;
#pragma unroll
    for (int j = 0; j < CHANNELS; ++j) {
        float* part = parts + 3 * own.place(sizes, j);
        part[0] = moments[j].mean, part[1] = moments[j].lost, part[2] = moments[j].squares;
    }
}

// Statistics of every set from the moments of its units. A set belongs to THREADS threads: 32 or BLOCK.
template <Layout LAYOUT, int THREADS> __global__ void __launch_bounds__(BLOCK)
set_moments(const float* __restrict__ parts, SetStatistic* __restrict__ statistics, long long n, long long s, int c, int tiles,
            int tile_size, int of_sample, int width, long long sets, float eps) {
    const Units units(LAYOUT, Sizes{n, s, c, tiles}, Sets{of_sample, width});
    const long long set = blockIdx.x * static_cast<long long>(BLOCK / THREADS) + threadIdx.x / THREADS;
    const bool is_set = set < sets;
    Moments moments[1];
    float count = 0.f;
    if (is_set)
        units.each<THREADS>(set, [&](long long, long long t, size_t place) {
            const float* part = parts + 3 * place;
            const Moments other[1] = {{part[0], part[1], part[2]}};
            merge(moments, count, other, static_cast<float>(min(static_cast<long long>(tile_size), s - t * tile_size)));
        });
    const auto merge_lanes = [&] {
#pragma unroll
        for (int o = 16; o > 0; o >>= 1) {
            const auto from = [&](float v) { return __shfl_down_sync(0xffffffffu, v, o); };
            const Moments other[1] = {{from(moments[0].mean), from(moments[0].lost), from(moments[0].squares)}};
            const float other_count = __shfl_down_sync(0xffffffffu, count, o);
            if (threadIdx.x % 32 + o < 32) merge(moments, count, other, other_count);
        }
    };
    merge_lanes();
    if constexpr (THREADS > 32) {
        __shared__ Moments warps[THREADS / 32];
        __shared__ float counts[THREADS / 32];
        if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = moments[0], counts[threadIdx.x / 32] = count;
        __syncthreads();
        if (threadIdx.x >= 32) return;
        const bool has = threadIdx.x < THREADS / 32;
        moments[0] = has ? warps[threadIdx.x] : Moments();
        count = has ? counts[threadIdx.x] : 0.f;
        merge_lanes();
    }
    if (!is_set || threadIdx.x % THREADS != 0) return;
    const float var = moments[0].squares / count;
    statistics[set] = SetStatistic{moments[0].mean, moments[0].lost, rstd_of(var, eps), var};
}

// new = old * (1 - factor) + mean over samples of the statistics * factor, with the unbiased variance; without values the old ones.
// `statistics` [samples, c], each of `count` values.
template <class S> __global__ void __launch_bounds__(BLOCK)
running_statistics(const SetStatistic* __restrict__ statistics, const S* __restrict__ mean, const S* __restrict__ var,
                   S* __restrict__ new_mean, S* __restrict__ new_var, long long samples, int c, float count, float keep,
                   float factor) {
    const int channel = blockIdx.x * BLOCK + threadIdx.x;
    if (channel >= c) return;
    float of_mean = mean[channel], of_var = var[channel];
    if (samples > 0 && count > 0.f) {
        const float unbiased = count / (count - 1.f);
        float means = 0.f, vars = 0.f;
        for (long long n = 0; n < samples; ++n) {
            const SetStatistic s = statistics[n * c + channel];
            means += s.mean, vars += s.var * unbiased;
        }
        of_mean = of_mean * keep + means / samples * factor;
        of_var = of_var * keep + vars / samples * factor;
    }
    new_mean[channel] = of_mean, new_var[channel] = of_var;
}

// y = x_hat * weight + bias. Without `statistics` the running ones are taken. y may be x.
template <class T, class W, Layout LAYOUT, int VEC> __global__ void __launch_bounds__(BLOCK)
apply(const T* x, const SetStatistic* __restrict__ statistics, const float* __restrict__ running_mean,
      const float* __restrict__ running_var, const W* __restrict__ weight, const W* __restrict__ bias, T* y,
      long long n, long long s, int c, int tiles, int lanes, int of_sample, int width, float eps) {
    const Sizes sizes{n, s, c, tiles, lanes};
    const Sets sets{of_sample, width};
    using Own = Tile<LAYOUT, VEC>;
    constexpr int CHANNELS = Own::CHANNELS;
    const Own own(sizes);
    if (!own.is_unit) return;
    Line line[CHANNELS];
    float w[CHANNELS], b[CHANNELS];
#pragma unroll
    for (int j = 0; j < CHANNELS; ++j) line[j] = Line(statistics, sets, running_mean, running_var, eps, own.n, own.c + j);
    if (weight) load(weight + own.c, w);
    if (bias) load(bias + own.c, b);
#pragma unroll 1
    for (int chunk = 0; chunk < Own::CHUNKS; ++chunk) {
        float values[Own::HELD][VEC];
        own.each(chunk, [&](int i, size_t at) { load(x + at, values[i]); });
        own.each(chunk, [&](int i, size_t at) {
#pragma unroll
            for (int j = 0; j < VEC; ++j) {
                float v = line[j % CHANNELS](values[i][j]);
                if (weight) v *= w[j % CHANNELS];
                if (bias) v += b[j % CHANNELS];
                values[i][j] = v;
            }
            store(y + at, values[i]);
        });
    }
}

// Sums of dy and of dy * x_hat of every unit.
template <class T, Layout LAYOUT, int VEC> __global__ void __launch_bounds__(BLOCK)
unit_products(const T* __restrict__ dy, const T* __restrict__ x, const SetStatistic* __restrict__ statistics,
              const float* __restrict__ running_mean, const float* __restrict__ running_var, float2* __restrict__ parts,
              long long n, long long s, int c, int tiles, int lanes, int of_sample, int width, float eps) {
    const Sizes sizes{n, s, c, tiles, lanes};
    const Sets sets{of_sample, width};
    using Own = Tile<LAYOUT, VEC>;
    constexpr int CHANNELS = Own::CHANNELS;
    const Own own(sizes);
    Line line[CHANNELS];
    if (own.is_unit)
#pragma unroll
        for (int j = 0; j < CHANNELS; ++j) line[j] = Line(statistics, sets, running_mean, running_var, eps, own.n, own.c + j);
    float2 sums[CHANNELS] = {};
    const auto add = [&](int, size_t at) {
        float values[VEC], gradients[VEC];
        load(x + at, values);
        load(dy + at, gradients);
#pragma unroll
        for (int j = 0; j < VEC; ++j) {
            float2& sum = sums[j % CHANNELS];
            sum.x += gradients[j];
            sum.y = fmaf(gradients[j], line[j % CHANNELS](values[j]), sum.y);
        }
    };
#pragma unroll 1
    for (int chunk = 0; chunk < Own::CHUNKS; ++chunk) own.each(chunk, add);
    if constexpr (Own::PLANAR) {
        sums[0] = make_float2(warp_sum(sums[0].x), warp_sum(sums[0].y));
    } else {
        __shared__ float2 others[BLOCK][CHANNELS];
        for (int apart = blockDim.x / 2; apart >= sizes.lanes; apart >>= 1) {
            const int t = threadIdx.x;
            if (t >= apart && t < 2 * apart)
#pragma unroll
                for (int j = 0; j < CHANNELS; ++j) others[t][j] = sums[j];
            __syncthreads();
            if (t < apart)
#pragma unroll
                for (int j = 0; j < CHANNELS; ++j) sums[j].x += others[t + apart][j].x, sums[j].y += others[t + apart][j].y;
        }
    }
    const bool stores = Own::PLANAR ? threadIdx.x % 32 == 0 : threadIdx.x < sizes.lanes;
    if (!own.is_unit || !stores) return;
#pragma unroll
    for (int j = 0; j < CHANNELS; ++j) parts[own.place(sizes, j)] = sums[j];
}

// The sum of a set's parts, in its first thread. `factor(outer)` multiplies both.
template <int THREADS, class Factor>
__device__ __forceinline__ float2 sum_of_units(const float2* __restrict__ parts, const Units& units, long long set, Factor factor) {
    float2 sum = make_float2(0.f, 0.f);
    units.each<THREADS>(set, [&](long long outer, long long, size_t place) {
        const float2 part = parts[place];
        const float f = factor(outer);
        sum.x += f * part.x, sum.y += f * part.y;
    });
    sum = make_float2(warp_sum(sum.x), warp_sum(sum.y));
    if constexpr (THREADS > 32) {
        __shared__ float2 warps[THREADS / 32];
        if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
        __syncthreads();
        sum = threadIdx.x < THREADS / 32 ? warps[threadIdx.x] : make_float2(0.f, 0.f);
        sum = make_float2(warp_sum(sum.x), warp_sum(sum.y));
    }
    return sum;
}

// Means of dy * weight and of dy * weight * x_hat over every set, of `count` elements.
template <class W, Layout LAYOUT, int THREADS> __global__ void __launch_bounds__(BLOCK)
set_products(const float2* __restrict__ parts, const W* __restrict__ weight, float2* __restrict__ means, long long n, int c,
             int tiles, int of_sample, int width, long long sets, float count) {
    const Units units(LAYOUT, Sizes{n, 0, c, tiles}, Sets{of_sample, width});
    const long long set = blockIdx.x * static_cast<long long>(BLOCK / THREADS) + threadIdx.x / THREADS;
    if (set >= sets) return;  // all of a warp, or of the block
    const W* own = weight + units.channel_of(set);
    const float2 sum = sum_of_units<THREADS>(parts, units, set, [&](long long outer) {
        return weight ? static_cast<float>(own[of_sample ? outer : 0]) : 1.f;
    });
    if (threadIdx.x % THREADS == 0) means[set] = make_float2(sum.x / count, sum.y / count);
}

// dbias and dweight of every channel; either may be null.
template <class W, Layout LAYOUT, int THREADS> __global__ void __launch_bounds__(BLOCK)
channel_products(const float2* __restrict__ parts, W* __restrict__ dweight, W* __restrict__ dbias, long long n, int c, int tiles) {
    const Units units(LAYOUT, Sizes{n, 0, c, tiles}, Sets{0, 1});
    const long long channel = blockIdx.x * static_cast<long long>(BLOCK / THREADS) + threadIdx.x / THREADS;
    if (channel >= c) return;
    const float2 sum = sum_of_units<THREADS>(parts, units, channel, [](long long) { return 1.f; });
    if (threadIdx.x % THREADS != 0) return;
    if (dweight) dweight[channel] = static_cast<W>(sum.y);
    if (dbias) dbias[channel] = static_cast<W>(sum.x);
}

// dx = rstd * (dy * weight - mean(dy * weight) - x_hat * mean(dy * weight * x_hat)); with running statistics rstd * dy * weight.
template <class T, class W, Layout LAYOUT, int VEC> __global__ void __launch_bounds__(BLOCK)
gradient(const T* __restrict__ dy, const T* __restrict__ x, const SetStatistic* __restrict__ statistics,
         const float2* __restrict__ means, const float* __restrict__ running_mean, const float* __restrict__ running_var,
         const W* __restrict__ weight, T* __restrict__ dx, long long n, long long s, int c, int tiles, int lanes, int of_sample,
         int width, float eps) {
    const Sizes sizes{n, s, c, tiles, lanes};
    const Sets sets{of_sample, width};
    using Own = Tile<LAYOUT, VEC>;
    constexpr int CHANNELS = Own::CHANNELS;
    const Own own(sizes);
    if (!own.is_unit) return;
    Line line[CHANNELS];
    float2 mean[CHANNELS] = {};
    float w[CHANNELS];
#pragma unroll
    for (int j = 0; j < CHANNELS; ++j) {
        line[j] = Line(statistics, sets, running_mean, running_var, eps, own.n, own.c + j);
        if (statistics) mean[j] = means[sets.of(own.n, own.c + j)];
    }
    if (weight) load(weight + own.c, w);
    const auto map = [&](int, size_t at) {
        float values[VEC], gradients[VEC];
        load(dy + at, gradients);
        if (statistics) load(x + at, values);
#pragma unroll
        for (int j = 0; j < VEC; ++j) {
            const Line& own_line = line[j % CHANNELS];
            float g = gradients[j];
            if (weight) g *= w[j % CHANNELS];
            if (statistics) g = fmaf(-mean[j % CHANNELS].y, own_line(values[j]), g - mean[j % CHANNELS].x);
            gradients[j] = g * own_line.rstd;
        }
        store(dx + at, gradients);
    };
#pragma unroll 1
    for (int chunk = 0; chunk < Own::CHUNKS; ++chunk) own.each(chunk, map);
}
