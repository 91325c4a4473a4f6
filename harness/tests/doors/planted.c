/* A well-behaved RMSNorm over the last dimension of f32 tensors with any row strides, and around it the faults that the
 * tests compile in: BEFORE and AFTER are run in each call, HEAD stands at the top, DESCRIPTOR replaces fields. */
#define _GNU_SOURCE
#include <isonorm.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#ifndef BEFORE
#define BEFORE
#endif
#ifndef AFTER
#define AFTER
#endif
#ifndef HEAD
#define HEAD
#endif
#ifndef DESCRIPTOR
#define DESCRIPTOR
#endif
#ifndef ABI_VERSION
#define ABI_VERSION ISONORM_ABI_VERSION
#endif
#ifndef LIBRARY
#define LIBRARY &library
#endif
#ifndef COUNT
#define COUNT 1
#endif

static float *volatile x, *volatile y, *volatile weight;
static volatile int64_t n, rows, columns; /* n: elements of x */
static volatile float sink;
static int calls;
HEAD

static isonorm_status run(const isonorm_call *call) {
  const DLTensor *tx = isonorm_input(call, "x"), *ty = isonorm_output(call, "y");
  x = isonorm_data(tx), y = isonorm_data(ty), weight = isonorm_data(isonorm_input(call, "weight"));
  rows = tx->shape[0], columns = tx->shape[1], n = rows * columns;
  calls++;
  BEFORE;
  for (int64_t row = 0; row < rows; row++) {
    const float *in = x + row * tx->strides[0];
    float *out = y + row * ty->strides[0];
    double sum = 0;
    for (int64_t i = 0; i < columns; i++) sum += (double)in[i] * in[i];
    double scale = 1 / sqrt(sum / columns + isonorm_real(call, "eps", 0));
    for (int64_t i = 0; i < columns; i++) out[i] = (float)(in[i] * scale * weight[i]);
  }
  AFTER;
  return ISONORM_OK;
}

static const isonorm_kernel kernels[] = {
    {.name = "planted", .op = "rms_norm", .direction = "forward", .dtypes = "f32",
     .layouts = "offset,strided,in_place", .thread_safe = 1, .run = run, DESCRIPTOR},
    {.name = "planted", .op = "rms_norm", .direction = "forward", .dtypes = "f32",
     .layouts = "offset,strided,in_place", .thread_safe = 1, .run = run}};
static const isonorm_library library = {ABI_VERSION, "planted", "1.0", COUNT, kernels};

#ifndef NO_SYMBOL
const isonorm_library *isonorm_library_v1(void) { return LIBRARY; }
#endif
