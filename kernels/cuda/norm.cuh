// What the row normalizations share: 16-byte accesses, packed conversions, sums over a warp, a block or a cluster.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// N neighbours of type T, loaded and stored in one access.
template <class T, int N> struct alignas(sizeof(T) * N) Vec {
    T v[N];
};

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

// N elements at `p`, which is aligned to N * sizeof(T), as f32.
template <int N, class T> __device__ __forceinline__ void load(const T* __restrict__ p, float (&out)[N]) {
    const Vec<T, N> in = *reinterpret_cast<const Vec<T, N>*>(p);
    if constexpr (N == 1) {
        out[0] = static_cast<float>(in.v[0]);
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            const float2 f = widen(in.v + i);
            out[i] = f.x, out[i + 1] = f.y;
        }
    }
}

// Rounds N f32 values to T, to nearest, and stores them at `p`, which is aligned to N * sizeof(T).
template <int N, class T> __device__ __forceinline__ void store(T* __restrict__ p, const float (&values)[N]) {
    Vec<T, N> out;
    if constexpr (N == 1) {
        out.v[0] = static_cast<T>(values[0]);
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 2) narrow(out.v + i, make_float2(values[i], values[i + 1]));
    }
    *reinterpret_cast<Vec<T, N>*>(p) = out;
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
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

// The sum of `v` over the WARPS warps of a row and over the CLUSTER blocks that share it, the same in every thread.
// `slot` holds WARPS + 1 floats of shared memory and may be used again at once.
template <int WARPS, int CLUSTER> __device__ __forceinline__ float row_sum(float v, float* slot) {
    v = warp_sum(v);
    if constexpr (WARPS > 1) {
        const int lane = threadIdx.x & 31, warp = (threadIdx.x >> 5) % WARPS;
        if (lane == 0) slot[warp] = v;
        __syncthreads();
        v = warp_sum(lane < WARPS ? slot[lane] : 0.f);
        __syncthreads();
    }
    if constexpr (CLUSTER > 1) {
        if (threadIdx.x == 0) slot[WARPS] = v;
        cluster_barrier();
        v = 0.f;
        for (unsigned rank = 0; rank < CLUSTER; ++rank) v += cluster_load(slot + WARPS, rank);
        cluster_barrier();
    }
    return v;
}
