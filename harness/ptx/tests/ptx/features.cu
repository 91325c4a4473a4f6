// Kernels that use, each, a few features that the project's own kernels do not use yet.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ __forceinline__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// Each thread copies 16 bytes to shared memory (zeros beyond n) and returns its neighbour's.
extern "C" __global__ void copies(const float4* in, float4* out, int n) {
    __shared__ float4 stage[2][64];
    const int t = threadIdx.x;
    for (int s = 0; s < 2; ++s) {
        const int left = n - (s * 64 + t);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(&stage[s][t])),
                     "l"(in + (left > 0 ? s * 64 + t : 0)), "r"(left > 0 ? 16 : 0));
        asm volatile("cp.async.commit_group;");
    }
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    __syncthreads();
    out[t] = stage[0][t ^ 1];
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    out[64 + t] = stage[1][t ^ 1];
}

__device__ __forceinline__ void wait(unsigned barrier, unsigned parity) {
    asm volatile(
        "{\n .reg .pred done;\n again:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n @done bra over;\n bra again;\n over:\n }"
        ::"r"(barrier), "r"(parity) : "memory");
}

// A bulk copy in, twice the numbers, a bulk copy out; 256 floats.
extern "C" __global__ void bulk(const float* in, float* out) {
    __shared__ alignas(128) float stage[256];
    __shared__ alignas(8) unsigned long long barrier;
    const unsigned bar = shared_address(&barrier), at = shared_address(stage);
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(bar));
        asm volatile("fence.mbarrier_init.release.cluster;");
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 1024;" ::"r"(bar) : "memory");
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], 1024, [%2];" ::"r"(at), "l"(in),
                     "r"(bar) : "memory");
    }
    wait(bar, 0);
    stage[threadIdx.x] *= 2;
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    if (threadIdx.x == 0) {
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], 1024;" ::"l"(out), "r"(at) : "memory");
        asm volatile("cp.async.bulk.commit_group;");
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
}

// Threads of one block add to their cluster neighbour's shared memory and tell it by a remote arrival. 32 threads.
extern "C" __global__ void neighbours(const int* in, int* out) {
    __shared__ int box[32];
    __shared__ alignas(8) unsigned long long barrier;
    const unsigned bar = shared_address(&barrier), t = threadIdx.x;
    unsigned rank, remote_bar, remote_box;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    if (t == 0) asm volatile("mbarrier.init.shared::cta.b64 [%0], 32;" ::"r"(bar));
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote_box) : "r"(shared_address(box + t)), "r"(rank ^ 1));
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote_bar) : "r"(bar), "r"(rank ^ 1));
    asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(remote_box), "r"(in[blockIdx.x * 32 + t]) : "memory");
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(remote_bar) : "memory");
    wait(bar, 0);
    out[blockIdx.x * 32 + t] = box[31 - t];
    asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
}

struct Sums {
    int count;
    unsigned most;
    int least;
    unsigned bits;
    unsigned long long wide;
    float sum;
    unsigned swapped;
    __half2 halves;
    __nv_bfloat162 bfloats;
    float2 pair;
};

// Atomic operations of every kind, by several blocks; integers, and floats that add up exactly.
extern "C" __global__ void atomics(Sums* s, int* histogram) {
    __shared__ int local[8];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x < 8) local[threadIdx.x] = 0;
    __syncthreads();
    atomicAdd(&local[i % 8], 1);
    __syncthreads();
    if (threadIdx.x < 8) atomicAdd(&histogram[threadIdx.x], local[threadIdx.x]);
    atomicAdd(&s->count, 1);
    atomicMax(&s->most, (unsigned)i * 7u);
    atomicMin(&s->least, -i);
    atomicOr(&s->bits, 1u << (i % 32));
    atomicAdd(&s->wide, 1ull << 33);
    atomicAdd(&s->sum, 0.5f);
    unsigned old = s->swapped == 0 ? 0 : 0, seen;
    do {
        seen = old;
        old = atomicCAS(&s->swapped, seen, seen + 3);
    } while (old != seen);
    atomicAdd(&s->halves, __floats2half2_rn(1.f, 0.25f));
    atomicAdd(&s->bfloats, __floats2bfloat162_rn(1.f, 2.f));
    atomicAdd(&s->pair, make_float2(1.f, 2.f));
}

struct Two {
    float a;
    double b;
};

__device__ __noinline__ float square(float v) { return v * v; }
__device__ __noinline__ Two twice(float v, int n) {
    Two r = {square(v) + n, v * 2.0};
    return r;
}

__constant__ float table[4] = {1.f, -2.5f, 3.25f, 0.125f};
__device__ int counters[2] = {40, 2};

// Device functions, a constant table, a variable of the module, an array of the thread that is indexed at run time.
extern "C" __global__ void functions(const float* in, double* out, int n) {
    const int i = threadIdx.x;
    float own[8];
    for (int j = 0; j < 8; ++j) own[(i + j) % 8] = in[i] + j;
    Two two = i % 2 ? twice(in[i], i) : twice(-in[i], -i);
    out[i] = two.a + two.b + table[i % 4] + own[n % 8] + counters[0] + counters[i % 2];
}

// Votes, matches, reductions and shuffles of parts of a warp, and a hand-over by __syncwarp alone. 32 threads.
extern "C" __global__ void warps(const int* in, unsigned* out) {
    __shared__ int box[32];
    const unsigned t = threadIdx.x;
    const int v = in[t];
    unsigned* o = out + t * 12;
    o[0] = __ballot_sync(~0u, v > 0);
    o[1] = __any_sync(~0u, v == 3) + 2 * __all_sync(~0u, v < 100);
    o[2] = __match_any_sync(~0u, v);
    o[3] = __reduce_add_sync(~0u, v);
    o[4] = __reduce_max_sync(~0u, v);
    o[5] = __shfl_up_sync(~0u, v, 3);
    o[6] = __shfl_down_sync(~0u, v, 5, 8);
    o[7] = __shfl_sync(~0u, v, 9, 16);
    if (t < 16)
        o[8] = __shfl_xor_sync(0xffff, v, 1);
    else
        o[8] = __reduce_min_sync(0xffff0000, v);
    box[t] = v;
    __syncwarp();
    o[9] = box[t ^ 7];
    __syncwarp();
    box[t] = v + 1;
    __syncwarp();
    o[10] = box[31 - t];
    o[11] = __popc(__activemask());
}

// Half of the block produces, the other half consumes; two barriers with 64 threads each.
extern "C" __global__ void pipeline(const float* in, float* out) {
    __shared__ float stage[32];
    const int t = threadIdx.x % 32;
    for (int i = 0; i < 4; ++i) {
        if (threadIdx.x < 32) {
            stage[t] = in[i * 32 + t];
            asm volatile("bar.arrive 1, 64;" ::: "memory");
            asm volatile("bar.sync 2, 64;" ::: "memory");
        } else {
            asm volatile("bar.sync 1, 64;" ::: "memory");
            out[i * 32 + t] = stage[31 - t];
            asm volatile("bar.sync 2, 64;" ::: "memory");
        }
    }
    out[128 + threadIdx.x] = __syncthreads_count(threadIdx.x % 3 == 0);
}
