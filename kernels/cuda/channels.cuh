// Normalization of channels, x[n, c, s] in either of its layouts: who takes which element, and moments that can be merged.
//
// The elements that share a statistic are a set: a channel of the batch, or a group of channels of one sample. Work is divided
// into units, tiles of the positions of one channel of one sample, whose sums a second launch adds up in a fixed order: so
// the chip is full however many sets there are. Sums of a unit stand at n * C * tiles + c * (tiles or 1) + tile * (1 or C).
#pragma once
#include "rows.cuh"

// planar: positions of a channel are neighbours, n * C * S + c * S + s. A unit belongs to a warp.
// interleaved: channels of a position are, n * S * C + s * C + c. A block takes `lanes` * VEC channels of a tile of positions.
enum class Layout { planar, interleaved };

// Threads of a block, at most: fewer over interleaved data of few positions.
constexpr int BLOCK = 256;

// Sizes of a call. For a batch's statistics over interleaved data n is 1 and s all positions of the batch.
struct Sizes {
    long long n, s;
    int c;
    int tiles;  // of the positions of a channel of a sample
    int lanes;  // interleaved: threads of a row of channels, a power of two
};

// What a thread takes: up to CHUNKS times HELD accesses of VEC elements, of one channel (planar) or of VEC channels (interleaved).
// Those of a chunk are held in registers at once.
template <Layout LAYOUT, int VEC> struct Tile {
    enum {
        PLANAR = LAYOUT == Layout::planar,
        CHANNELS = PLANAR ? 1 : VEC,
        CHUNKS = PLANAR || VEC == 1 ? 1 : 2,
        HELD = (PLANAR || VEC == 1 ? 16 : 32) / VEC,
        SIZE = HELD * VEC * 32  // planar: positions of a tile
    };

    long long n, tile;
    int c;         // the first channel
    bool is_unit;  // whether there is one for this thread
    size_t start;
    long long step, first, end;  // in positions
    long long stride;            // elements from a position to the next

    __device__ __forceinline__ explicit Tile(const Sizes& sizes) {
        if constexpr (PLANAR) {
            const long long unit = blockIdx.x * static_cast<long long>(BLOCK / 32) + threadIdx.x / 32;
            const long long chunk = unit / sizes.tiles;
            tile = unit % sizes.tiles;
            n = chunk / sizes.c, c = chunk % sizes.c;
            is_unit = n < sizes.n;
            first = tile * SIZE + threadIdx.x % 32 * VEC, step = 32 * VEC;
            end = is_unit ? min(sizes.s, (tile + 1) * SIZE) : 0;
            start = chunk * sizes.s, stride = 1;
        } else {
            const int columns = (sizes.c + sizes.lanes * VEC - 1) / (sizes.lanes * VEC);
            const long long rest = blockIdx.x / columns;
            c = (static_cast<int>(blockIdx.x % columns) * sizes.lanes + threadIdx.x % sizes.lanes) * VEC;
            tile = rest % sizes.tiles, n = rest / sizes.tiles;
            is_unit = c < sizes.c;
            step = blockDim.x / sizes.lanes;
            first = tile * rows(sizes) + threadIdx.x / sizes.lanes;
            end = is_unit ? min(sizes.s, (tile + 1) * rows(sizes)) : 0;
            start = static_cast<size_t>(n) * sizes.s * sizes.c + c, stride = sizes.c;
        }
    }

    // Interleaved: positions of a tile.
    __device__ static __forceinline__ long long rows(const Sizes& sizes) { return CHUNKS * HELD * (blockDim.x / sizes.lanes); }

    // Calls `body(i, offset)` for this thread's accesses of a chunk.
    template <class Body> __device__ __forceinline__ void each(int chunk, Body body) const {
        const long long from = first + chunk * HELD * step;
#pragma unroll
        for (int i = 0; i < HELD; ++i)
            if (from + i * step < end) body(i, start + (from + i * step) * stride);
    }

    // Positions of a chunk, of this thread (interleaved) or of its unit (planar).
    __device__ __forceinline__ float count(int chunk) const {
        if (PLANAR) return end - tile * SIZE;
        const long long from = first + chunk * HELD * step;
        return end <= from ? 0 : min(static_cast<long long>(HELD), (end - from + step - 1) / step);
    }

    // Where the sums of the unit of channel c + j stand.
    __device__ __forceinline__ size_t place(const Sizes& sizes, int j) const {
        if (PLANAR) return (n * sizes.c + c) * sizes.tiles + tile;
        return (n * sizes.tiles + tile) * sizes.c + c + j;
    }
};

// Mean and sum of squared differences from it, of some elements.
struct Moments {
    float mean = 0.f, lost = 0.f;  // the mean, rounded, and what that has lost
    float squares = 0.f;
};

// mean + lost, with the former rounded from their sum. An infinite mean has no correction.
__device__ __forceinline__ void settle(float& mean, float& lost) {
    const float sum = mean + lost;
    const bool is_finite = isfinite(sum);
    lost = is_finite ? lost - (sum - mean) : 0.f;
    mean = is_finite ? sum : mean;
}

// The moments of two parts together (Chan, Golub, LeVeque 1979), of N channels.
template <int N>
__device__ __forceinline__ void merge(Moments (&a)[N], float& a_count, const Moments (&b)[N], float b_count) {
    if (b_count == 0.f) return;
    const float count = a_count + b_count, share = b_count / count, weight = a_count * share;
#pragma unroll
    for (int j = 0; j < N; ++j) {
        const float delta = (b[j].mean - a[j].mean) + (b[j].lost - a[j].lost);
        if (a_count == 0.f) {
            a[j] = b[j];
        } else if (isfinite(delta)) {
            a[j].lost += delta * share;
            settle(a[j].mean, a[j].lost);
            a[j].squares += fmaf(delta * delta, weight, b[j].squares);
        } else {
            a[j].mean += b[j].mean;  // infinities, as in a plain sum
            a[j].squares = delta - delta;
        }
    }
    a_count = count;
}

// What a set is normalized with.
struct alignas(16) SetStatistic {
    float mean, lost;
    float rstd;
    float var;
};

// Sets of a sample, and channels of a set. A channel of a sample belongs to set n * of_sample + c / width; a batch's sets are its
// channels: of_sample = 0, width = 1.
struct Sets {
    int of_sample, width;

    __device__ __forceinline__ long long of(long long n, int c) const { return n * of_sample + c / width; }
};

// The units of a set.
struct Units {
    long long outer, step;    // channels of the set, or samples; and from one's units to the next one's
    long long sample, channel; // from a sample to the next, from a channel to the next
    long long tile;            // from a tile to the next
    int tiles;
    Sets sets;

    __device__ __forceinline__ Units(Layout layout, const Sizes& sizes, Sets sets) : tiles(sizes.tiles), sets(sets) {
        sample = static_cast<long long>(sizes.c) * tiles;
        channel = layout == Layout::planar ? tiles : 1, tile = layout == Layout::planar ? 1 : sizes.c;
        outer = sets.of_sample ? sets.width : sizes.n, step = sets.of_sample ? channel : sample;
    }

    // The first channel of a set.
    __device__ __forceinline__ int channel_of(long long set) const {
        return (sets.of_sample ? set % sets.of_sample : set) * sets.width;
    }

    // Calls `body(outer, tile, place)` for every THREADS-th unit of a set.
    template <int THREADS, class Body> __device__ __forceinline__ void each(long long set, Body body) const {
        const size_t first = (sets.of_sample ? set / sets.of_sample : 0) * sample + channel_of(set) * channel;
        for (long long unit = threadIdx.x % THREADS; unit < outer * tiles; unit += THREADS) {
            const long long o = unit / tiles, t = unit % tiles;
            body(o, t, first + o * step + t * tile);
        }
    }
};

// How a channel is normalized: x_hat = (x - mean) * rstd + offset.
struct Line {
    float mean, rstd, offset;

    // From the statistic of the channel's set, or from running statistics.
    __device__ __forceinline__ Line(const SetStatistic* statistics, Sets sets, const float* mean_in, const float* var_in, float eps,
                                    long long n, int c) {
        if (statistics) {
            const SetStatistic s = statistics[sets.of(n, c)];
            mean = s.mean, rstd = s.rstd, offset = -(s.lost * s.rstd);
        } else {
            mean = mean_in[c], rstd = rstd_of(var_in[c], eps), offset = -0.f;
        }
    }
    Line() = default;

    __device__ __forceinline__ float operator()(float x) const { return fmaf(x - mean, rstd, offset); }
};
