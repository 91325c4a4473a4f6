/* A library with one kernel: RMSNorm, forward, f32, any number of normalized dimensions.
 *
 *     cc -O2 -shared -fPIC -I kernels/include harness/examples/plugin/rms_norm.c -o librms_norm.so -lm
 *     cargo isonorm certify --plugin librms_norm.so
 *
 * y = x / sqrt(mean(x^2) + eps) * weight, over the last `normalized_ndim` dimensions. */
#include <isonorm.h>
#include <math.h>

static isonorm_status run(const isonorm_call *call) {
  const DLTensor *x = isonorm_input(call, "x");
  const DLTensor *weight = isonorm_input(call, "weight"); /* NULL: there is none */
  const DLTensor *y = isonorm_output(call, "y");
  const float eps = (float)isonorm_real(call, "eps", 1e-5);

  /* What a kernel does not do it declines, with a reason: that is counted, never held against it. */
  if (strcmp(isonorm_text(call, "cast", "none"), "none") != 0)
    return isonorm_decline(call, "only cast=none");

  /* The descriptor below promises dense tensors only, so shapes are all we need: rows of d elements. */
  int64_t rows = 1, d = 1;
  const int64_t split = x->ndim - isonorm_integer(call, "normalized_ndim", 1);
  for (int64_t i = 0; i < x->ndim; i++) *(i < split ? &rows : &d) *= x->shape[i];

  for (int64_t row = 0; row < rows; row++) {
    const float *in = (const float *)isonorm_data(x) + row * d;
    float *out = (float *)isonorm_data(y) + row * d;
    float sum = 0;
    for (int64_t i = 0; i < d; i++) sum += in[i] * in[i];
    const float scale = 1 / sqrtf(sum / (float)d + eps);
    for (int64_t i = 0; i < d; i++)
      out[i] = in[i] * scale * (weight ? ((const float *)isonorm_data(weight))[i] : 1.0f);
  }
  return ISONORM_OK;
}

static const isonorm_kernel kernels[] = {{
    .name = "rms_norm", .op = "rms_norm", .direction = "forward",
    .dtypes = "f32", .layouts = "contiguous,offset,in_place", .thread_safe = 1, .run = run,
}};
static const isonorm_library library = {ISONORM_ABI_VERSION, "example", "1.0", 1, kernels};

const isonorm_library *isonorm_library_v1(void) { return &library; }
