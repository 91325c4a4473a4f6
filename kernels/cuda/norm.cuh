// What all kernels share: 16-byte accesses, packed conversions, sums over a warp, a block or a cluster.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// N neighbours of type T.
template <class T, int N> struct alignas(sizeof(T) * N) Vec {
    T v[N];
};

// One access of 16 bytes. (A store of a structure is taken apart where the compiler sees fit.)
__device__ __forceinline__ void store_whole(void* p, const uint4& v) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

// Two neighbours at a time, because the processor converts pairs in one instruction.
__device__ __forceinline__ float2 widen(const float* p) { return make_float2(p[0], p[1]); }
__device__ __forceinline__ float2 widen(const __half* p) { return __half22float2(*reinterpret_cast<const __half2*>(p)); }
__device__ __forceinline__ float2 widen(const __nv_bfloat16* p) {
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(p));
}
__device__ __forceinline__ void narrow(float* p, float2 f) { p[0] = f.x, p[1] = f.y; }
__device__ __forceinline__ void narrow(__half* p, float2 f) { *reinterpret_cast<__half2*>(p) = __floats2half2_rn(f.x, f.y); }
__device__ __forceinline__ void narrow(__nv_bfloat16* p, float2 f) {
    *reinterpret_cast<__nv_bfloat162*>(p) = __floats2bfloat162_rn(f.x, f.y);
}

// Neighbours that one access moves: as many of N as 16 bytes hold.
template <class T, int N> constexpr int PIECE = N * sizeof(T) <= 16 ? N : 16 / sizeof(T);

// N elements at `p`, which is aligned to the accesses, as f32.
template <int N, class T> __device__ __forceinline__ void load(const T* p, float (&out)[N]) {
    constexpr int M = PIECE<T, N>;
#pragma unroll
    for (int k = 0; k < N; k += M) {
        const Vec<T, M> in = *reinterpret_cast<const Vec<T, M>*>(p + k);
        if constexpr (M == 1) {
            out[k] = static_cast<float>(in.v[0]);
        } else {
#pragma unroll
            for (int i = 0; i < M; i += 2) {
                const float2 f = widen(in.v + i);
                out[k + i] = f.x, out[k + i + 1] = f.y;
            }
        }
    }
}

// Rounds N f32 values to T, to nearest, and stores them at `p`, which is aligned to the accesses.
template <int N, class T> __device__ __forceinline__ void store(T* p, const float (&values)[N]) {
    constexpr int M = PIECE<T, N>;
#pragma unroll
    for (int k = 0; k < N; k += M) {
        Vec<T, M> out;
        if constexpr (M == 1) {
            out.v[0] = static_cast<T>(values[k]);
        } else {
#pragma unroll
            for (int i = 0; i < M; i += 2) narrow(out.v + i, make_float2(values[k + i], values[k + i + 1]));
        }
        if constexpr (sizeof(out) == 16) {
            store_whole(p + k, reinterpret_cast<const uint4&>(out));
        } else {
            *reinterpret_cast<Vec<T, M>*>(p + k) = out;
        }
    }
}

__device__ __forceinline__ float rstd_of(float mean_square, float eps) { return 1.f / sqrtf(mean_square + eps); }

// The sum over each WIDTH neighbouring lanes, the same in all of them.
template <int WIDTH = 32> __device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int o = WIDTH / 2; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

// This block's number in its cluster.
__device__ __forceinline__ unsigned cluster_rank() {
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// Every thread of the cluster arrives and waits; what was written before is seen after.
__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
}

// The f32 at `p` in the shared memory of the cluster's block `rank`.
__device__ __forceinline__ float cluster_load(const float* p, unsigned rank) {
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(p)), remote;
    float v;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(remote) : "memory");
    return v;
}

// Sums over the THREADS threads of a row and over the CLUSTER blocks that share it, in a fixed order.
//
// Two sets of slots are used in turns: a set is written again only after the barrier of the other one, which every thread
// meets after it has read the first. One barrier a sum is enough.
template <int THREADS, int CLUSTER> class Sums {
    static_assert(CLUSTER == 1 || THREADS > 32);
    enum { WARPS = THREADS > 32 ? THREADS / 32 : 1, MOST = 2 };
    struct Slots {
        float warps[MOST][WARPS], block[MOST];
    };
    Slots* slots;
    int turn = 0;

  public:
    using Shared = Slots[2];
    __device__ explicit Sums(Shared& shared) : slots(shared) {}

    // The sums of K values at once, the same in every thread of the row.
    template <int K> __device__ __forceinline__ void operator()(float (&v)[K]) {
        static_assert(K <= MOST);
        const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        Slots& slot = slots[turn];
        turn ^= 1;
#pragma unroll
        for (int k = 0; k < K; ++k) v[k] = warp_sum<(THREADS < 32 ? THREADS : 32)>(v[k]);
        if constexpr (THREADS > 32) {
#pragma unroll
            for (int k = 0; k < K; ++k)
                if (lane == 0) slot.warps[k][warp] = v[k];
            __syncthreads();
#pragma unroll
            for (int k = 0; k < K; ++k) v[k] = warp_sum(lane < WARPS ? slot.warps[k][lane] : 0.f);
        }
        if constexpr (CLUSTER > 1) {
#pragma unroll
            for (int k = 0; k < K; ++k)
                if (threadIdx.x == 0) slot.block[k] = v[k];
            cluster_barrier();
#pragma unroll
            for (int k = 0; k < K; ++k) v[k] = warp_sum(lane < CLUSTER ? cluster_load(&slot.block[k], lane) : 0.f);
        }
    }

    // To be called at the end: others of the cluster may still read this block's slots.
    __device__ __forceinline__ void leave() const {
        if constexpr (CLUSTER > 1) cluster_barrier();
    }
};
