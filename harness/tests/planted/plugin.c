/* RMSNorm of f32 rows as a stranger would write it, and the same with one fault of conduct each. A fault's code runs
 * before or after the rows are computed; `x`, `y` and `weight` are the tensors' data, `n` their elements. */
#define _GNU_SOURCE
#include <fenv.h>
#include <isonorm.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static volatile float sink;

static void normalize(const isonorm_call *call, const float *x, const float *weight, float *y, int64_t rows, int64_t d) {
  const double eps = isonorm_real(call, "eps", 0);
  const int gemma = strcmp(isonorm_text(call, "cast", "none"), "gemma") == 0;
  for (int64_t row = 0; row < rows; row++) {
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += (double)x[row * d + i] * x[row * d + i];
    const double scale = 1 / sqrt(sum / (double)d + eps);
    for (int64_t i = 0; i < d; i++)
      y[row * d + i] = (float)(x[row * d + i] * scale * (weight ? gemma ? 1.0 + weight[i] : weight[i] : 1));
  }
}

/* Writes the first element again after the call has returned. */
static void *later(void *y) {
  usleep(2000);
  *(volatile float *)y = 0.5f;
  usleep(200000);
  return NULL;
}

static void start(float *y) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, later, y) == 0) pthread_detach(thread);
}

static int calls;
static const float *kept_address;
static float kept_first, kept_weight;

#define KERNEL(NAME, BEFORE, AFTER)                                                                           \
  static isonorm_status run_##NAME(const isonorm_call *call) {                                                \
    const DLTensor *tx = isonorm_input(call, "x"), *ty = isonorm_output(call, "y");                           \
    const DLTensor *tw = isonorm_input(call, "weight");                                                       \
    float *x = isonorm_data(tx), *y = isonorm_data(ty), *weight = tw ? isonorm_data(tw) : NULL;               \
    int64_t last = isonorm_integer(call, "normalized_ndim", 1), rows = 1, d = 1;                              \
    for (int32_t i = 0; i < tx->ndim; i++) *(i < tx->ndim - last ? &rows : &d) *= tx->shape[i];               \
    int64_t n = rows * d;                                                                                     \
    (void)n, (void)weight, calls++;                                                                           \
    BEFORE;                                                                                                   \
    normalize(call, x, weight, y, rows, d);                                                                   \
    AFTER;                                                                                                    \
    return ISONORM_OK;                                                                                        \
  }
#define NOTHING (void)0
#ifdef __SSE__
#define FLUSH_TO_ZERO __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040)
#else
#define FLUSH_TO_ZERO fesetround(FE_TOWARDZERO)
#endif

KERNEL(clean, NOTHING, NOTHING)
KERNEL(reads_past_odd_rows, NOTHING, if (d % 2 == 1) sink = x[n])
KERNEL(reads_before, NOTHING, if (n > 0) sink = x[-1])
KERNEL(reads_weight_past, NOTHING, if (weight) sink = weight[d])
KERNEL(writes_past_odd_rows, NOTHING, if (d % 2 == 1 && n > 0) y[n] = y[n - 1])
KERNEL(writes_before, NOTHING, if (n > 0) y[-1] = 0)
KERNEL(writes_input, NOTHING, if (n > 0 && x != y) x[0] = y[0])
KERNEL(writes_weight, if (weight && d > 0) weight[0] = weight[0] + 0.0f, NOTHING)
KERNEL(leaves_tail, if (d % 8 != 0 && rows > 0) rows--, NOTHING)
KERNEL(caches_by_address, NOTHING, {
  if (n > 0 && x == kept_address) y[0] = kept_first;
  if (n > 0) kept_first = y[0];
  kept_address = x;
})
KERNEL(keeps_weight, if (weight && d > 0 && kept_weight == 0) kept_weight = weight[0],
       if (weight && n > 0) y[0] = y[0] / weight[0] * kept_weight)
KERNEL(counts_calls, NOTHING, if (calls % 5 == 4 && n > 0) y[n - 1] = -y[n - 1])
KERNEL(writes_later, NOTHING, if (n > 0) start(y))
KERNEL(flushes_to_zero, NOTHING, FLUSH_TO_ZERO)
KERNEL(rounds_up, NOTHING, fesetround(FE_UPWARD))
KERNEL(hangs_on_empty, while (n == 0) sink = 0, NOTHING)
KERNEL(crashes_on_seven, if (d == 7) abort(), NOTHING)
KERNEL(leaves_by_exit, if (rows == 3) _exit(0), NOTHING)
KERNEL(fills_the_stack, if (d > 500) for (volatile char *p = __builtin_alloca(1); ; p -= 4096) *p = 1, NOTHING)

#define ENTRY(NAME)                                                                                           \
  {.name = #NAME, .op = "rms_norm", .direction = "forward", .dtypes = "f32", .layouts = "offset,in_place",    \
   .thread_safe = 0, .run = run_##NAME}

static const isonorm_kernel kernels[] = {
    ENTRY(clean),          ENTRY(reads_past_odd_rows), ENTRY(reads_before),      ENTRY(reads_weight_past),
    ENTRY(writes_past_odd_rows), ENTRY(writes_before), ENTRY(writes_input),      ENTRY(writes_weight),
    ENTRY(leaves_tail),    ENTRY(caches_by_address),   ENTRY(keeps_weight),      ENTRY(counts_calls),
    ENTRY(writes_later),   ENTRY(flushes_to_zero),     ENTRY(rounds_up),         ENTRY(hangs_on_empty),
    ENTRY(crashes_on_seven), ENTRY(leaves_by_exit),    ENTRY(fills_the_stack),
};

static const isonorm_library library = {ISONORM_ABI_VERSION, "planted", "1.0", sizeof kernels / sizeof *kernels, kernels};

const isonorm_library *isonorm_library_v1(void) { return &library; }
