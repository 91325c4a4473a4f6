// RMSNorm as one writes it on an afternoon: a block a row, a thread every so many entries, a sum in shared memory.
// rms_norm.toml tells isonorm how it is launched.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

template <class T, class W>
__global__ void rms_norm(const T* x, const W* weight, T* y, int d, float eps) {
    __shared__ float sums[256];
    x += static_cast<size_t>(blockIdx.x) * d;
    y += static_cast<size_t>(blockIdx.x) * d;

    float sum = 0;
    for (int i = threadIdx.x; i < d; i += blockDim.x) {
        const float v = static_cast<float>(x[i]);
        sum += v * v;
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }

    const float rrms = rsqrtf(sums[0] / d + eps);
    for (int i = threadIdx.x; i < d; i += blockDim.x) {
        const float scale = weight ? static_cast<float>(weight[i]) : 1.0f;
        y[i] = static_cast<T>(static_cast<float>(x[i]) * rrms * scale);
    }
}
